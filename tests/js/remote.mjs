/**
 * Drives pages in Firefox for tests in Python. Reads one JSON command a line from stdin, and answers each with a line:
 * {"open": name}, {"goto": url, "page": name} or {"evaluate": expression, "page": name}.
 */

import readline from "node:readline";
import puppeteer from "puppeteer-core";

const [, , executablePath, script] = process.argv;
/** All pages are tabs of one window. Firefox would slow down the timers and frames of all but the first tab. */
const extraPrefsFirefox = {
  "dom.min_background_timeout_value": 4,
  "dom.min_background_timeout_value_without_budget_throttling": 4,
  "layout.throttled_frame_rate": 60,
};
const browser = await puppeteer.launch({ browser: "firefox", executablePath, headless: true, extraPrefsFirefox });
/** @type {Record<string, import("puppeteer-core").Page>} */
const pages = {};

async function run({ open, goto, evaluate, page }) {
  if (open) {
    pages[open] = await browser.newPage();
    pages[open].setDefaultTimeout(100_000);
    await pages[open].evaluateOnNewDocument(script);
    return null;
  }
  if (goto) {
    const answered = new Promise((resolve) => pages[page].once("response", resolve));
    pages[page].goto(goto).catch(() => null);
    return (await answered).status(); // the libraries of the page are still to come
  }
  return pages[page].evaluate(evaluate);
}

console.log(JSON.stringify({ value: await browser.version() }));
for await (const line of readline.createInterface({ input: process.stdin })) {
  const answer = await run(JSON.parse(line)).then((value) => ({ value }), (error) => ({ error: `${error}` }));
  console.log(JSON.stringify(answer));
}
await browser.close();
