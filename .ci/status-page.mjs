// Runs the status page in Chromium against a service whose Kafka is another process of ours.
// Usage: status-page.mjs CHROMIUM PROGRAM [FOLDER FOR SCREENSHOTS]

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const [browserPath, program, screenshots] = process.argv.slice(2);
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const PATIENCE = 30_000;
// An unguessable path and a secret, which must not be on the page.
const PATH = "/callbacks/path-0b8d2c", SECRET = "secret-5f1e07";
const HOSTILE = `</script><img src=x onerror="window.hit=1">'"&<b>`;

const work = mkdtempSync(join(tmpdir(), "status-page-"));
const children = [];

/** Starts the program. Resolves with the fields of the line that matches. */
function start(args, variables, wanted) {
  const env = { PATH: process.env.PATH, HOME: work, ZIM2KAFKA_LOG_FORMAT: "json", ZIM2KAFKA_CALLBACK_SECRETS: `1=${SECRET},2=${SECRET}`, ...variables };
  const child = spawn(program, args, { env, stdio: ["ignore", "ignore", "pipe"] });
  children.push(child);
  const lines = [];
  const found = new Promise((resolve, reject) => {
    createInterface(child.stderr).on("line", line => {
      lines.push(line);
      try {
        const fields = JSON.parse(line);
        if (wanted(fields)) resolve(fields);
      } catch { /* not a line of the log */ }
    });
    child.on("exit", () => reject(new Error(`${args[0]} ended:\n${lines.slice(-5).join("\n")}`)));
  });
  found.catch(() => {});
  return { child, found };
}

const ended = child => new Promise(resolve => child.on("exit", resolve));

async function until(what, is) {
  const deadline = Date.now() + PATIENCE;
  for (let last; ; await new Promise(resolve => setTimeout(resolve, 100))) {
    try { if (last = await is()) return last; } catch (error) { last = error; }
    if (Date.now() > deadline) throw new Error(`waited in vain until ${what}; last: ${last}`);
  }
}

const reports = [];
let isGone = false;
/** A page on which nothing may be reported, and which may load nothing from elsewhere. */
async function open(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...options });
  const page = await context.newPage();
  page.on("console", message => {
    // Chromium reports each request that fails.
    if (!isGone || !/ERR_CONNECTION_REFUSED/.test(message.text())) reports.push(`console: ${message.text()}`);
  });
  page.on("pageerror", error => reports.push(`error: ${error.stack}`));
  page.on("request", request => {
    if (!request.url().startsWith(url) && !request.url().startsWith("data:")) reports.push(`request: ${request.url()}`);
  });
  await page.addInitScript(() => addEventListener("securitypolicyviolation", event => console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`)));
  const answer = await page.goto(url);
  const headers = answer.headers();
  assert.equal(headers["cache-control"], "no-store");
  assert.equal(headers["x-content-type-options"], "nosniff");
  assert.doesNotMatch(headers["content-security-policy"], /unsafe|\*/);
  return page;
}

/** Looks at the page in light and dark, at several widths. */
async function judge(page, name) {
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    // By the debugger, which the page's policy does not stop.
    await page.evaluate(AXE);
    // The other rules see no difference.
    const rules = colorScheme === "dark" ? { type: "rule", values: ["color-contrast"] } : ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
    const { violations } = await page.evaluate(runOnly => axe.run({ runOnly }), rules);
    const found = violations.map(({ id, help, nodes }) => `${id}: ${help}\n  ${nodes.map(node => `${node.html} ${node.failureSummary}`).join("\n  ")}`);
    assert.deepEqual(found, [], `axe-core, ${name}, ${colorScheme}`);
    for (const width of [360, 800, 1440, 2560]) {
      await page.setViewportSize({ width, height: width < 1000 ? 800 : width * 9 / 16 });
      if (width === 360) {
        const [content, room] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
        assert.ok(content <= room, `${name}: at 360 px, the page is ${content} px wide`);
      }
      if (screenshots) {
        mkdirSync(screenshots, { recursive: true });
        await page.waitForTimeout(150);
        await page.screenshot({ path: join(screenshots, `${name}-${colorScheme}-${width}.png`), fullPage: true });
      }
    }
    await page.setViewportSize({ width: 1440, height: 900 });
  }
  assert.deepEqual(reports, [], `the console, ${name}`);
}

/** A page whose data is changed on its way. */
async function changed(browser, url, change) {
  const page = await open(browser, url);
  await page.route("**/status.json*", async route => {
    const answer = await route.fetch();
    await route.fulfill({ response: answer, json: change(await answer.json()) });
  });
  await page.reload();
  await page.waitForFunction(() => !document.getElementById("main").hidden);
  return page;
}

/** Every text is hostile, but for those that the page compares with its own. */
function hostile(value, key = "") {
  const own = ["level", "word"].includes(key);
  if (typeof value === "string") return own ? value : HOSTILE;
  if (Array.isArray(value)) return value.map(item => hostile(item));
  if (value === null || typeof value !== "object") return value;
  const named = Object.entries(value).map(([name, item]) => [key === "series" ? name.replace(/"(1|2|other)"/, '"<img src=x onerror=window.hit=1>"') : name, hostile(item, name)]);
  return Object.fromEntries(named);
}

async function check(browser) {
  const kafka = start(["serve", "--embedded-kafka", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--topics", "all"], {}, line => line.brokers);
  const { brokers } = await kafka.found;
  const service = start(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--topics", "all", "--spool-dir", join(work, "spool"), "--kafka-brokers", brokers], { ZIM2KAFKA_CALLBACK_PATH: PATH, ZIM2KAFKA_DRAIN_DELAY: "0s", ZIM2KAFKA_KAFKA_PROPERTIES: "client.rack=hidden-value" }, line => line.callbacks);
  const { callbacks, admin } = await service.found;
  const url = `http://${admin}/`, target = `http://${callbacks}${PATH}`;

  const page = await open(browser, url);
  const text = id => page.locator(`#${id}`).innerText();
  const state = word => until(`the page shows ${word}`, async () => (await page.locator("body").getAttribute("data-level")) === word);
  // Until it takes an event: an embedded Kafka does not answer the inspection of topics.
  await state("degraded");
  await until("the page shows its tables", async () => (await text("callbacks")).includes("none yet"));
  assert.match(await text("events"), /No authentic callback/);
  await judge(page, "nothing-received");

  // Numbers move.
  const send = (...args) => start(["send", "--url", target, ...args], {}, () => false);
  send("--event", "mix", "--rate", "40", "--duration", "10m");
  const before = await until("events are counted", async () => (await text("events")).includes("group_join") && page.locator("#events").innerText());
  await state("ready");
  await until("the numbers move", async () => (await text("events")) !== before);
  await until("callbacks are drawn", async () => await page.locator("#traffic path.area").count() > 0 && await page.locator("#latency path.line").count() > 1);
  assert.match(await text("since"), /since \d\d:\d\d:\d\d/);
  assert.match(await page.locator("#traffic .now").innerText(), /^[\d,.]+ \/s$/);
  assert.match(await text("topics"), /zim\.dead-letter/);

  // Strangers have lines of their own, and authentic callbacks have theirs.
  const post = body => fetch(target, { method: "POST", body });
  assert.equal((await post(`{"appid":"2","nonce":"1","timestamp":1,"signature":"${"0".repeat(40)}"}`)).status, 401);
  assert.equal((await post(`{"password":"secret text of a body"`)).status, 400);
  assert.equal((await fetch(`http://${callbacks}/${encodeURIComponent(HOSTILE)}`, { method: "POST" })).status, 404);
  await until("the refused requests are listed", async () => /appid 2/.test(await text("unauthenticated")) && /404/.test(await text("unauthenticated")) && /400/.test(await text("unauthenticated")));
  await page.setViewportSize({ width: 1440, height: 900 });
  await page.locator("#traffic .plot").focus();
  await page.keyboard.press("ArrowLeft");
  assert.equal(await page.locator("#traffic .plot").getAttribute("aria-valuenow"), "-1");
  await judge(page, "healthy");

  // Kafka stops answering, and answers again.
  kafka.child.kill("SIGSTOP");
  await state("degraded");
  await until("the spool fills", async () => /[1-9]/.test(await page.locator("#depth .now").innerText()));
  await until("the outage is listed as a problem", async () => /degraded/.test(await text("problems")));
  await judge(page, "kafka-silent");
  kafka.child.kill("SIGCONT");
  await state("ready");
  await until("the spool is empty", async () => (await page.locator("#depth .now").innerText()) === "0");

  // Kafka is gone.
  kafka.child.kill("SIGKILL");
  await state("degraded");
  await until("the reason is shown", async () => /cannot be reached/.test(await text("reason")));
  await until("the brokers are down", async () => /✕ down/.test(await text("brokers")));
  await judge(page, "kafka-down");

  // What the service cannot be brought into within this test.
  const problem = { kind: "answered 503", appid: "1", event: "send_msg", reason: "the spool is full", detail: "raise ZIM2KAFKA_SPOOL_MAX_BYTES", count: 12, first: Date.now() - 60_000, last: Date.now() };
  const states = {
    "spool-full": data => {
      data.state = { ...data.state, level: "not_ready", word: "not ready", reason: "the spool is full (ZIM2KAFKA_SPOOL_MAX_BYTES), and Kafka cannot be reached" };
      Object.assign(data.spool, { works: false, is_full: true, used: data.spool.limit, records: 1_234_567, full_in_seconds: null });
      data.problems.unshift(problem);
      return data;
    },
    starting: data => ({ ...data, kafka: null, state: { ...data.state, level: "not_ready", word: "not ready", reason: "reading the spool, 1234000 records so far" }, spool: { ...data.spool, works: null } }),
    "no-spool": data => ({ ...data, spool: null, series: { ...data.series, zim2kafka_config_last_reload_successful: 0 } }),
    hostile: data => hostile(data),
  };
  for (const [name, change] of Object.entries(states)) {
    const page = await changed(browser, url, change);
    await judge(page, name);
    assert.equal(await page.evaluate(() => window.hit), undefined, `${name}: a text was run`);
    assert.equal(await page.locator("img").count(), 0, `${name}: a text became an element`);
    // A request of the page that is under way would fail its route.
    await page.unrouteAll({ behavior: "ignoreErrors" });
    await page.context().close();
  }

  // The state is there without the script, too.
  const plain = await open(browser, url, { javaScriptEnabled: false });
  assert.match(await plain.locator("h1").innerText(), /degraded.*cannot be reached/is);
  await plain.context().close();

  // Nothing that is secret is in the page or its data.
  for (const path of ["", "status.json"]) {
    const shown = await (await fetch(url + path)).text();
    for (const secret of [SECRET, PATH, "path-0b8d2c", "hidden-value", "secret text of a body", "onerror"]) assert.ok(!shown.includes(secret), `${path} contains ${secret}`);
  }

  const { settings } = await (await fetch(`${url}status.json`)).json();
  const setting = name => settings.find(setting => setting.name === `ZIM2KAFKA_${name}`);
  assert.deepEqual(setting("TOPICS"), { name: "ZIM2KAFKA_TOPICS", value: "all", origin: "flag" });
  assert.equal(setting("KAFKA_PROPERTIES").value, "client.rack");
  assert.equal(setting("CALLBACK_PATH").value, "hidden");
  assert.equal(setting("SPOOL_AFTER").origin, "default");

  // The connection to the service is lost.
  isGone = true;
  service.child.kill("SIGKILL");
  await ended(service.child);
  await state("lost");
  assert.match(await text("reason"), /was degraded before/);
  await judge(page, "lost");
}

const began = Date.now();
let browser;
try {
  browser = await chromium.launch({ executablePath: browserPath, args: ["--no-sandbox", "--disable-gpu"] });
  await check(browser);
  console.log(`the status page: every state, light and dark, no finding, ${Math.round((Date.now() - began) / 1000)} s`);
} finally {
  await browser?.close();
  for (const child of children) { child.kill("SIGCONT"); child.kill("SIGKILL"); }
  rmSync(work, { recursive: true, force: true });
}
