// @ts-check
/** The page "Dashboard": draws replayed and new samples. */

import { byId, openStream, piece } from "../../static/page.js";
import { bytes, Chart } from "./chart.js";

const [cpu, memory, network] = ["cpu", "memory", "network"].map(
  (id) => new Chart(byId(id), { most: byId(`${id}-most`), from: byId(`${id}-from`) }),
);
const cores = byId("cores");

await openStream({
  sample: ({ data }) => {
    cpu.add(data.at_ms, data.cpu);
    memory.add(data.at_ms, data.memory.percent);
    network.add(data.at_ms, data.network.received, data.network.sent);
    byId("cpu-now").textContent = `${Math.round(data.cpu)} %`;
    byId("memory-now").textContent = `${Math.round(data.memory.percent)} %`;
    byId("network-now").textContent = `${bytes(data.network.received)}/s`;
    byId("memory-used").textContent = `${bytes(data.memory.used)} of ${bytes(data.memory.total)}`;
    byId("samples").textContent = cpu.size;
    byId("delay").textContent = `${Math.max(0, Date.now() - data.at_ms)} ms`;
    showCores(data.cores);
  },
});

/** @param {number[]} percents */
function showCores(percents) {
  while (cores.children.length < percents.length) cores.append(core(cores.children.length));
  [...cores.children].forEach((item, at) => {
    item.querySelector("meter").value = percents[at] ?? 0;
    item.querySelector(".mono").textContent = `${Math.round(percents[at] ?? 0)} %`;
  });
}

/** @param {number} at */
function core(at) {
  const item = piece("li", "");
  const meter = document.createElement("meter");
  Object.assign(meter, { max: 100, high: 90 });
  meter.setAttribute("aria-label", `Core ${at + 1}`);
  item.append(piece("span", "small", `Core ${at + 1}`), meter, piece("span", "mono"));
  return item;
}
