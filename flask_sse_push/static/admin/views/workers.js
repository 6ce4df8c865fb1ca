// @ts-check
/**
 * The workers, live: their links to the broker, their streams, their memory.
 * @import { Child } from "../elements.js"
 * @import { Server } from "../server.js"
 * @import { View } from "../viewer.js"
 * @import { Worker, Workers } from "../workers.js"
 */

import { fragment } from "../address.js";
import { badge, make } from "../elements.js";
import { ago, count, counted, duration, size } from "../format.js";
import { missing } from "../sentences.js";
import { table } from "../table.js";

/** From so many seconds on, the rights of open streams are checked too late. */
const LATE = 10;

/** From so many seconds on, the last probe of a link is too long ago. */
const OLD_PROBE = 30;

/** @type {View} */
export const workers = {
  title: () => "Workers",
  every: () => 5,
  isLive: true,
  load: readWorkers,
  body: (data, { workers }) => {
    const all = workers.all();
    const streams = all.reduce((sum, worker) => sum + worker.streams, 0);
    return [
      missing(data.missing),
      make(
        "section",
        { class: "card", "aria-label": "All workers" },
        make("p", { "data-summary": true }, `${counted(all.length, "worker")}${workers.isCounting ? " so far, counting" : ""}, ${counted(streams, "stream")}.`),
        idle(data.idle),
        workerTable(all, workers),
      ),
    ];
  },
};

/**
 * Asks the server for all workers, and notes its answer.
 * @param {Server} server @param {URLSearchParams} query @param {AbortSignal} signal @param {Workers} workers
 */
export async function readWorkers(server, query, signal, workers) {
  const data = await server.read("workers", {}, signal);
  workers.take(data);
  return data;
}

/** Says how many workers are not in the table. @param {number} number @returns {Child} */
function idle(number) {
  if (!number) return null;
  const text = `${counted(number, "more worker")} of these servers: idle. Without streams and runs, a worker has no link to the broker.`;
  return make("p", { class: "soft" }, text);
}

/** @param {Worker[]} all @param {Workers} reports */
function workerTable(all, reports) {
  return table(
    "Workers",
    [
      { title: "Worker", cell: ({ worker }) => make("a", { href: fragment("streams", { worker }), class: "mono" }, worker) },
      { title: "Machine, process", cell: ({ host, pid }) => `${host}, ${pid}` },
      { title: "Link to the broker", cell: (worker) => link(worker, reports.isGone(worker.worker)) },
      { title: "Last probe", cell: probe, kind: "number" },
      { title: "Streams", cell: ({ streams, max_streams: most }) => `${count(streams)} of ${count(most)}`, kind: "number" },
      { title: "Catching up", cell: ({ behind }) => count(behind), kind: "number" },
      { title: "Rechecks late by", cell: ({ recheck_lag: lag }) => late(lag), kind: "number" },
      { title: "Bytes waiting", cell: ({ buffered }) => size(buffered), kind: "number" },
      { title: "Memory", cell: ({ memory }) => size(memory), kind: "number" },
      { title: "Runs", cell: ({ runs }) => count(runs), kind: "number" },
    ],
    all,
    ({ worker }) => worker,
    "No worker answers. Workers answer once they have had a stream.",
  );
}

/** @param {Worker} worker @param {boolean} isGone */
function link({ connected, stopping, streams }, isGone) {
  if (isGone) return badge("gone: reports nothing", "bad");
  if (stopping) return badge("stopping", "busy");
  if (connected) return badge("connected", "good");
  return streams ? badge("deaf: no link", "bad") : badge("no link, no stream");
}

/** @param {Worker} worker */
function probe({ probed_ago: age, probe: seconds }) {
  const text = seconds == null ? ago(age) : `${ago(age)}, took ${duration(seconds)}`;
  return age != null && age > OLD_PROBE ? badge(text, "busy") : text;
}

/** @param {number} lag */
const late = (lag) => (lag > LATE ? badge(duration(lag), "busy") : duration(lag));
