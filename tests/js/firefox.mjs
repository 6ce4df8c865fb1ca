/** Runs cases of the client in Firefox, and prints their results as one line of JSON. */

import puppeteer from "puppeteer-core";

const [, , executablePath, url] = process.argv;
const browser = await puppeteer.launch({ browser: "firefox", executablePath, headless: true });

async function open(channel, options) {
  const page = await browser.newPage();
  page.setDefaultTimeout(100_000);
  await page.goto(url);
  await page.evaluate(
    async (channel, options) => {
      const { PushClient } = await import("/stream/client/push-client.js");
      window.received = [];
      window.client = new PushClient(`/stream?channels=${channel}`, { minDelay: 20, ...options });
      for (const type of ["message", "price", "sse.channels"]) {
        client.on(type, ({ type, data, lastEventId }) => received.push([type, data?.channels?.sort() ?? data, !!lastEventId]));
      }
    },
    channel,
    options,
  );
  await page.waitForFunction("client.state === 'open'");
  await page.evaluate("import('/stream/client/page-lifecycle.js').then(() => {})"); // the client gets the module first
  return page;
}

const publish = (page, event) =>
  page.evaluate(
    (event) =>
      fetch("/publish", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(event) }),
    event,
  );
const streams = (page) => page.evaluate(async () => (await (await fetch("/streams")).json()).length);
/** Waits until there is only one stream, and it has all these channels. */
const shared = (page, ...channels) =>
  page.waitForFunction(
    async (channels) => {
      const [first, ...more] = await (await fetch("/streams")).json();
      return !more.length && channels.every((name) => first?.includes(name));
    },
    { polling: 200 },
    channels,
  );
const until = (page, count) => page.waitForFunction((count) => received.length >= count, {}, count);
const received = (page) => page.evaluate("received");

async function transport(name, options) {
  const page = await open(name, options);
  await publish(page, { data: { n: 1 }, channel: name });
  await publish(page, { data: "é😀 ".repeat(2000), type: "price", channel: name, compress: "auto" });
  await page.evaluate((name) => client.join(`${name}:room`), name);
  await until(page, 3);
  await publish(page, { data: "in the room", channel: `${name}:room` });
  await until(page, 4);
  // The client misses no event while the page is frozen.
  await page.evaluate("document.dispatchEvent(new Event('freeze'))");
  for (const data of [1, 2]) await publish(page, { data, channel: name });
  await page.evaluate("document.dispatchEvent(new Event('resume'))");
  await until(page, 6);
  const found = { received: await received(page), stats: await page.evaluate("client.stats") };
  await page.close();
  return found;
}

async function tabs() {
  const pages = [];
  for (const n of [0, 1, 2]) pages.push(await open(`tabs${n},all`, { tabs: true }));
  const [leader, ...others] = pages;
  await shared(leader, "tabs0", "tabs1", "tabs2", "all");
  const before = await streams(leader);
  await publish(leader, { data: "before", channel: "all" });
  await until(others[1], 1);
  await leader.close();
  await publish(others[0], { data: "meanwhile", channel: ["all", "tabs2"] });
  for (const page of others) await until(page, 2);
  await publish(others[0], { data: "one's own", channel: "tabs2" });
  await until(others[1], 3);
  await shared(others[0], "tabs1", "tabs2", "all");
  return { before, received: await Promise.all(others.map(received)), after: await streams(others[0]) };
}

/** Eight tabs with default options, two more than the connections that a browser opens. */
async function eight() {
  const pages = [];
  for (let n = 0; n < 8; n += 1) pages.push(await open("eight", {}));
  await shared(pages[0], "eight");
  await publish(pages[0], { data: "to all", channel: "eight" });
  for (const page of pages) await until(page, 1);
  const found = { received: await Promise.all(pages.map(received)), streams: await streams(pages[0]) };
  for (const page of pages) await page.close();
  return found;
}

const found = {
  version: await browser.version(),
  native: await transport("native", {}),
  fetch: await transport("fetch", { transport: "fetch" }),
  eight: await eight(),
  tabs: await tabs(),
};
console.log(JSON.stringify(found));
await browser.close();
