"use strict";
// Reads status.json once a second. Everything from there enters the page as text, never as HTML.
const SPAN = 15 * 60_000, POLL = 1000, TIMEOUT = 5000, GAP = 5000, SMOOTH = 5;
// How outcomes are drawn together, from the bottom of the chart to its top.
const TRAFFIC = [
  ["published", "published", ["published"]],
  ["spooled", "spooled", ["spooled"]],
  ["dead letters", "dead", ["dead_lettered"]],
  ["not stored", "other", ["duplicate", "discarded", "passed"]],
  ["refused", "refused", ["malformed", "unauthorized", "forbidden", "too_large", "timed_out"]],
  ["answered 5xx", "unavailable", ["unavailable", "failed"]],
];
// Outcomes of an event that are not as they should be.
const TONES = { dead_lettered: "bad", discarded: "warn", unavailable: "bad", failed: "bad", unauthorized: "warn", malformed: "warn" };
const element = id => document.getElementById(id);

// ---- Texts

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const number = value => whole.format(value);
const isNumber = value => typeof value === "number";
function pace(value) {
  if (!isNumber(value)) return "–";
  return value === 0 ? "0" : value < 0.1 ? "<0.1" : value < 10 ? value.toFixed(1) : number(value);
}
function seconds(value) {
  if (!isNumber(value)) return "–";
  if (value < 0.0995) return `${+(value * 1000).toPrecision(2)} ms`;
  return value < 0.9995 ? `${Math.round(value * 1000)} ms` : `${+value.toPrecision(2)} s`;
}
function duration(value) {
  if (!isNumber(value)) return "–";
  const of = (size, unit) => `${value / size < 10 && size > 60 ? (value / size).toFixed(1) : Math.round(value / size)} ${unit}`;
  if (value < 120) return of(1, "s");
  return value < 7200 ? of(60, "min") : value < 172_800 ? of(3600, "h") : value < 1e8 ? of(86_400, "days") : "years";
}
function hours(value) {
  const text = value < 3.6e6 ? `${(value / 3600).toFixed(value < 36_000 ? 1 : 0)} h` : "over 1000 h";
  return value < 7200 ? `${text} (${duration(value)})` : text;
}
function bytes(value) {
  for (const [size, unit] of [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]]) if (value >= size) return `${(value / size).toFixed(1)} ${unit}`;
  return `${value} bytes`;
}
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
function moment(at) {
  const then = new Date(at);
  return then.toDateString() === new Date().toDateString() ? clock.format(then) : `${day.format(then)}, ${clock.format(then)}`;
}

// ---- Elements

const SVG = "http://www.w3.org/2000/svg";
function make(node, attributes, kids) {
  for (const [name, value] of Object.entries(attributes)) if (value !== null && value !== "") node.setAttribute(name, value);
  node.append(...kids.filter(kid => kid !== null && kid !== undefined));
  return node;
}
const h = (tag, attributes = {}, ...kids) => make(document.createElement(tag), attributes, kids);
const svg = (tag, attributes = {}, ...kids) => make(document.createElementNS(SVG, tag), attributes, kids);
function setText(node, text) { if (node.textContent !== text) node.textContent = text; }
// Replaces the contents only if they have changed: a selection and the focus stay.
const shown = new Map();
function fill(id, key, build) {
  const text = JSON.stringify(key);
  if (shown.get(id) === text) return;
  shown.set(id, text);
  element(id).replaceChildren(...build());
}
const td = (text, name = "") => h("td", { class: name }, text);
const row = (head, ...cells) => h("tr", {}, h("th", { scope: "row" }, head), ...cells);
const none = (columns, text) => h("tr", { class: "none" }, h("td", { colspan: columns }, text));
function numbers(id, list) {
  fill(id, list, () => list.filter(Boolean).map(([name, text, tone]) => h("div", {}, h("dt", {}, name), h("dd", { class: tone || "" }, text))));
}
function pill(id, text, tone) {
  const node = element(id);
  setText(node, text);
  node.className = `pill ${tone}`;
}

// ---- Charts

function niceTop(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.2, 1.6, 2, 3, 4, 5, 6, 8, 10].map(step => step * power).find(top => top >= value * 1.0001) ?? value;
}

// A chart whose series share one scale. With `stacked`, each stands on those before it.
class Chart {
  constructor(id, title, { series, stacked, exact, format, least, label, empty }) {
    Object.assign(this, { title, series, stacked, exact, format, least, label, empty, back: 0 });
    this.svg = svg("svg", { "aria-hidden": "true" });
    this.plot = h("div", { class: "plot", tabindex: "0", role: "slider", "aria-label": `${title} in the last 15 minutes; arrow keys read earlier values`, "aria-valuemin": "-900", "aria-valuemax": "0", "aria-valuenow": "0" }, this.svg);
    this.now = h("span", { class: "now" });
    this.note = h("small");
    this.legend = h("ul", { class: "legend" });
    this.values = series.map(([name, color]) => {
      const value = h("b");
      this.legend.append(h("li", {}, svg("svg", { "aria-hidden": "true", viewBox: "0 0 10 10", class: `s-${color}` }, svg("rect", { width: 10, height: 10, rx: 2.5 })), `${name} `, value));
      return value;
    });
    element(id).append(h("figcaption", {}, h("h2", {}, title), this.now, this.note), this.plot, ...(series.length > 1 ? [this.legend] : []));
    const read = back => { this.back = Math.max(0, Math.min(899, back)); this.draw(); };
    this.plot.addEventListener("pointermove", event => {
      const box = this.plot.getBoundingClientRect();
      read(Math.round((1 - (event.clientX - box.left) / box.width) * 900));
    });
    this.plot.addEventListener("pointerleave", () => read(0));
    this.plot.addEventListener("blur", () => read(0));
    this.plot.addEventListener("keydown", event => {
      const steps = { ArrowLeft: 1, ArrowDown: 1, ArrowRight: -1, ArrowUp: -1, PageDown: 60, PageUp: -60 }[event.key];
      const back = event.key === "Home" ? 899 : event.key === "End" ? 0 : steps && this.back + steps;
      if (back === undefined) return;
      event.preventDefault();
      read(back);
    });
    new ResizeObserver(() => this.draw()).observe(this.plot);
  }

  set(data) { this.data = data; this.draw(); }

  // The mean of each series over `step` ms, aligned to the clock so that columns do not flicker.
  bins(step) {
    const { at, of } = this.data, bins = [];
    for (let i = 0; i < at.length; i++) {
      const slot = Math.floor(at[i] / step);
      let bin = bins.at(-1);
      if (!bin || bin.slot !== slot) bins.push(bin = { slot, at: at[i], sums: this.series.map(() => 0), counts: this.series.map(() => 0) });
      of.forEach((values, k) => { if (values[i] !== null) { bin.sums[k] += values[i]; bin.counts[k]++; } });
      bin.at = at[i];
    }
    return bins.map(({ at, sums, counts }) => ({ at, values: sums.map((sum, k) => counts[k] ? sum / counts[k] : null) }));
  }

  draw() {
    if (!this.data || !this.plot.clientWidth) return;
    const { now, at, of, levels } = this.data, width = this.plot.clientWidth, height = this.plot.clientHeight;
    const line = Math.max(12, Math.round(height / 10)), bottom = height - line - 4, top = line;
    const step = Math.max(1, Math.ceil(900 / (width / 2))) * 1000;
    const bins = this.bins(step);
    const sum = values => values.reduce((total, value) => total + (value ?? 0), 0);
    const highest = Math.max(this.least, ...bins.map(({ values }) => this.stacked ? sum(values) : Math.max(...values.map(value => value ?? 0))));
    const scale = niceTop(highest);
    const x = time => width - (now - time) / SPAN * width, y = value => bottom - value / scale * (bottom - top);
    const parts = [];
    for (const share of [0, 0.5, 1]) {
      const level = Math.round(y(scale * share)) + 0.5;
      parts.push(svg("line", { class: "grid", x1: 0, x2: width, y1: level, y2: level }));
      if (share) parts.push(svg("text", { x: 2, y: level - 4 }, this.label(scale * share)));
    }
    for (const [minutes, anchor] of [[15, "start"], [10, "middle"], [5, "middle"], [0, "end"]]) {
      parts.push(svg("text", { x: x(now - minutes * 60_000), y: height - 2, "text-anchor": anchor }, minutes ? `−${minutes} min` : "now"));
    }
    // A line breaks where seconds are missing.
    const runs = [];
    bins.forEach((bin, i) => (!i || bin.at - bins[i - 1].at > step + GAP ? runs.push([bin]) : runs.at(-1).push(bin)));
    const point = (bin, value) => `${x(bin.at).toFixed(1)},${y(value).toFixed(1)}`;
    if (this.stacked) {
      const floors = new Map(bins.map(bin => [bin, 0]));
      this.series.forEach(([, color], k) => {
        let path = "";
        for (const run of runs) {
          const below = run.map(bin => point(bin, floors.get(bin)));
          const above = run.map(bin => { floors.set(bin, floors.get(bin) + (bin.values[k] ?? 0)); return point(bin, floors.get(bin)); });
          if (run.some(bin => bin.values[k])) path += `M${above.join("L")}L${below.reverse().join("L")}Z`;
        }
        if (path) parts.push(svg("path", { class: `area s-${color}`, d: path }));
      });
    } else {
      this.series.forEach(([, color], k) => {
        let path = "", pen = false;
        for (const bin of runs.flatMap(run => [...run, null])) {
          const value = bin ? bin.values[k] : null;
          // Without a callback in between, the line goes on to the next one.
          if (bin === null) pen = false;
          else if (value !== null) { path += `${pen ? "L" : "M"}${point(bin, value)}h.1`; pen = true; }
        }
        if (path) parts.push(svg("path", { class: `line s-${color}`, d: path, "fill-opacity": 0 }));
      });
    }
    // The times at which the service was degraded or not ready.
    for (let i = 0; i < at.length;) {
      let end = i;
      while (end < at.length && levels[end] === levels[i]) end++;
      const left = x(at[i] - 1000), right = x(at[end - 1]);
      if (levels[i]) parts.push(svg("rect", { class: `level-${levels[i]}`, x: left, y: bottom + 1, width: Math.max(1, right - left), height: 3 }));
      i = end;
    }
    const isEmpty = !of.some(values => values.some(value => value));
    if (isEmpty) parts.push(svg("text", { class: "empty", x: width / 2, y: (top + bottom) / 2 + 4 }, this.empty));
    const last = at.length - 1;
    let place = last;
    if (this.back) {
      const time = now - this.back * 1000;
      while (place > 0 && at[place] > time) place--;
      parts.push(svg("line", { class: "cursor", x1: x(time), x2: x(time), y1: top, y2: bottom }));
    }
    this.svg.replaceChildren(...parts);
    // Now is the mean of the last seconds: single events would make it flicker.
    const recent = series => {
      const known = series.slice(-SMOOTH).filter(isNumber);
      return known.length ? known.reduce((total, value) => total + value, 0) / known.length : null;
    };
    const values = of.map(series => this.back || this.exact ? series[place] ?? null : recent(series));
    const texts = values.map(value => this.format(value));
    this.values.forEach((node, k) => setText(node, texts[k]));
    const all = this.stacked ? this.format(sum(values)) : texts.at(-1);
    setText(this.now, last < 0 ? "–" : this.stacked ? all : `${this.series.at(-1)[0]} ${all}`);
    const when = this.back ? moment(now - this.back * 1000) : "now";
    setText(this.note, this.back ? `at ${when}` : isEmpty ? "" : this.summary(bins));
    this.plot.setAttribute("aria-valuenow", -this.back);
    this.plot.setAttribute("aria-valuetext", `${when}: ${this.series.map(([name], k) => `${name} ${texts[k]}`).join(", ")}`);
  }

  summary(bins) {
    const values = bins.map(({ values }) => this.stacked ? values.reduce((total, value) => total + (value ?? 0), 0) : values.at(-1));
    return `highest ${this.format(Math.max(...values.map(value => value ?? 0)))}`;
  }
}

const perSecond = value => isNumber(value) ? `${pace(value)} /s` : "–";
const charts = {
  traffic: new Chart("traffic", "Callbacks", { series: TRAFFIC.map(([name, color]) => [name, color]), stacked: true, format: perSecond, label: perSecond, least: 1, empty: "no callbacks in this time" }),
  latency: new Chart("latency", "Time to answer", { series: [["p50", "published"], ["p99", "refused"]], format: seconds, label: seconds, least: 0.001, empty: "no events in this time" }),
  depth: new Chart("depth", "Records in the spool", { series: [["records", "spooled"]], stacked: true, exact: true, format: value => isNumber(value) ? number(value) : "–", label: value => number(value), least: 10, empty: "the spool is empty" }),
};

// ---- Data

const past = { start: null, end: 0, at: [], level: [], p50: [], p99: [], spool: [], traffic: TRAFFIC.map(() => []) };
function takeHistory({ process, history, now }) {
  if (past.start !== process.started || history.end < past.end) {
    Object.assign(past, { start: process.started, end: 0, at: [], level: [], p50: [], p99: [], spool: [], traffic: TRAFFIC.map(() => []) });
  }
  // What the page has already is in the answer too if the service restarted meanwhile.
  const known = past.end - (history.end - history.at.length);
  const fresh = list => list.slice(Math.max(0, known));
  past.at.push(...fresh(history.at));
  for (const name of ["level", "p50", "p99"]) past[name].push(...fresh(history[name]));
  past.spool.push(...fresh(history.spool_records));
  TRAFFIC.forEach(([, , outcomes], k) => {
    past.traffic[k].push(...fresh(history.at.map((_, i) => outcomes.reduce((sum, outcome) => sum + (history.outcomes[outcome]?.[i] ?? 0), 0))));
  });
  past.end = history.end;
  const old = past.at.findIndex(at => at > now - SPAN);
  const drop = old < 0 ? past.at.length : old;
  for (const list of [past.at, past.level, past.p50, past.p99, past.spool, ...past.traffic]) list.splice(0, drop);
}

// Rates of counters, over the last ten seconds in which this page was open.
const polls = [];
const label = (key, name) => (key.match(new RegExp(`${name}="([^"]*)"`)) || [])[1];
const all = (series, name) => Object.entries(series).filter(([key]) => key === name || key.startsWith(`${name}{`));
const of = (series, name) => series[name] ?? 0;
function rate(key) {
  const [first, last] = [polls[0], polls.at(-1)];
  if (polls.length < 2) return null;
  return Math.max(0, (of(last.series, key) - of(first.series, key)) / ((last.now - first.now) / 1000));
}

// ---- Sections

let state = null;
function showState({ state: { level, word, reason, since } }) {
  state = { word, since };
  document.body.dataset.level = level;
  setText(element("word"), word);
  setText(element("reason"), reason);
  showSince(since, "since");
  showTab(word, { ready: "#1a8f4b", degraded: "#d99a1c", not_ready: "#d2382c" }[level]);
}
function showSince(since, text) {
  element("since").firstChild.textContent = `${text} `;
  const node = element("since-time"), at = new Date(since);
  node.dateTime = at.toISOString();
  node.title = at.toISOString();
  setText(node, `${moment(since)} (${duration(Math.max(0, (Date.now() - since) / 1000))})`);
}
function showTab(word, color) {
  const shape = color === "#1a8f4b" ? "<circle cx='8' cy='8' r='7'/>" : color === "#d99a1c" ? "<path d='M8 1l7 14H1z'/>" : "<path d='M1 1h14v14H1z'/>";
  const icon = `data:image/svg+xml,${encodeURIComponent(`<svg xmlns='${SVG}' viewBox='0 0 16 16' fill='${color}'>${shape}</svg>`)}`;
  if (element("icon").getAttribute("href") !== icon) element("icon").href = icon;
  const title = `${word[0].toUpperCase()}${word.slice(1)} – zim2kafka on ${element("host").textContent}`;
  if (document.title !== title) document.title = title;
}

function showProcess({ process, now }) {
  setText(element("version"), `${process.version} (${process.revision})`);
  setText(element("host"), process.host);
  setText(element("uptime"), duration((now - process.started) / 1000));
  element("uptime-fact").hidden = false;
  const until = process.certificate_not_after;
  element("certificate-fact").hidden = until === null;
  if (until !== null) {
    const days = (until - now) / 86_400_000;
    const node = element("certificate");
    setText(node, days < 0 ? `${new Date(until).toISOString().slice(0, 10)}: expired` : `${new Date(until).toISOString().slice(0, 10)} (${Math.floor(days)} days)`);
    node.className = days < 7 ? "bad" : days < 21 ? "warn" : "";
  }
}

function showKafka({ kafka, series, state }) {
  if (!kafka) pill("kafka-state", "not started", "");
  else pill("kafka-state", kafka.is_up ? "connected" : kafka.was_up ? "lost" : "not reached", kafka.is_up ? "good" : "bad");
  // What the header says already is not repeated.
  const errors = kafka && !state.reason.includes(kafka.errors) ? kafka.errors : "";
  const since = kafka && !kafka.is_up ? `No connection for ${duration(kafka.down_seconds)}. ` : "";
  element("kafka-reason").hidden = !errors && !since;
  setText(element("kafka-reason"), since + errors);
  const rejected = of(series, 'zim2kafka_kafka_deliveries_total{result="rejected"}');
  numbers("kafka", [
    // The gauges are null while nothing is known.
    ["round trip", seconds(series.zim2kafka_kafka_round_trip_seconds)],
    ["brokers connected", series.zim2kafka_kafka_brokers_up === null ? "–" : number(of(series, "zim2kafka_kafka_brokers_up"))],
    ["in flight", number(of(series, "zim2kafka_kafka_in_flight_records"))],
    ["acknowledged", perSecond(rate('zim2kafka_kafka_deliveries_total{result="acked"}'))],
    ["rejected", number(rejected), rejected ? "bad" : ""],
    ["producers replaced", number(of(series, "zim2kafka_producer_recreations_total"))],
  ]);
  const brokers = kafka ? kafka.brokers : [];
  fill("brokers", brokers, () => brokers.length ? brokers.map(broker => row(broker.address,
    td(broker.is_up ? "✓ up" : "✕ down", `nowrap ${broker.is_up ? "good" : "bad"}`), td(broker.is_up ? "" : broker.reason, "text"))) : [none(3, "no broker is known yet")]);
}

function showTopics({ topics }) {
  fill("topics", topics, () => topics.map(topic => {
    const isLate = topic.lag_seconds >= 2, waits = topic.in_memory + topic.on_disk;
    return row(topic.dead_letters ? h("span", {}, topic.topic, " ", h("span", { class: "tag" }, "dead letters")) : topic.topic,
      td(number(waits), "n"), td(number(topic.on_disk), "n"),
      td(waits ? (isNumber(topic.lag_seconds) ? (isLate ? duration(topic.lag_seconds) : seconds(topic.lag_seconds)) : "unknown") : "–", `n ${isLate ? "bad" : ""}`),
      td(topic.obstacle ?? "", topic.obstacle ? "text bad" : "text"));
  }));
}

function showSpool({ spool, series }) {
  element("room").hidden = !spool;
  if (!spool) {
    pill("spool-state", "none", "warn");
    return numbers("spool", [["no spool", "ZIM2KAFKA_SPOOL_DIR is not set: while Kafka is away, events are answered 503"]]);
  }
  const share = spool.limit ? Math.min(1, spool.used / spool.limit) : 0;
  const tone = !spool.works || share > 0.9 ? "bad" : share > 0.6 ? "warn" : "";
  pill("spool-state", spool.is_full ? "full" : spool.works === null ? "opening" : spool.works ? (spool.records ? "in use" : "empty") : "takes no records",
    spool.works === null ? "" : !spool.works ? "bad" : spool.records ? "warn" : "good");
  element("room").className = `bar ${spool.works === null ? "" : tone}`;
  element("room-used").setAttribute("width", 100 * share);
  setText(element("room-text"), `${bytes(spool.used)} of ${bytes(spool.limit)} used (${(100 * share).toFixed(share && share < 0.1 ? 1 : 0)} %)`);
  const grows = isNumber(spool.full_in_seconds), lost = of(series, "zim2kafka_spool_lost_records_total");
  numbers("spool", [
    ["records", number(spool.records)],
    ["room left at this rate", grows ? hours(spool.full_in_seconds) : spool.is_full ? "0 h" : "does not grow", spool.is_full || (grows && spool.full_in_seconds < 7200) ? "bad" : ""],
    ["drains by", isNumber(spool.drain_per_second) ? `${pace(spool.drain_per_second)} /s` : "–"],
    ["empty in", isNumber(spool.empty_in_seconds) ? duration(spool.empty_in_seconds) : "–"],
    ["oldest record", spool.oldest_seconds ? duration(spool.oldest_seconds) : "–"],
    ["published from it", number(of(series, "zim2kafka_spool_replayed_records_total"))],
    ["rejected by Kafka", number(of(series, "zim2kafka_spool_refused_records")), of(series, "zim2kafka_spool_refused_records") ? "warn" : ""],
    ["lost to disk damage", number(lost), lost ? "bad" : ""],
  ]);
}

function showEvents({ events, series }) {
  const counts = new Map(), outcomes = new Map();
  for (const [key, count] of all(series, "zim2kafka_events_total")) {
    const event = label(key, "event"), outcome = label(key, "outcome");
    if (!counts.has(event)) counts.set(event, { total: 0, rate: 0, by: new Map() });
    const entry = counts.get(event);
    entry.total += count;
    entry.rate += rate(key) ?? 0;
    entry.by.set(outcome, count);
    outcomes.set(outcome, true);
  }
  const columns = ["published", "spooled", "duplicate", "passed", "discarded", "dead_lettered", "unavailable"].filter(outcome => outcomes.has(outcome));
  const isSplit = columns.length > 1;
  const rows = events.filter(({ event }) => counts.has(event)).map(({ event, family, target }) => {
    const { total, rate, by } = counts.get(event);
    return [family, event, target, polls.length > 1 ? pace(rate) : "–", ...columns.map(outcome => by.get(outcome) ?? 0), ...(isSplit ? [total] : [])];
  });
  fill("events-head", rows.length ? columns : [], () => rows.length ? [h("tr", {}, ...["event", "goes to", "per second", ...columns.map(outcome => outcome.replace("_", " ")), ...(isSplit ? ["all"] : [])]
    .map((text, i) => h("th", { scope: "col", class: i > 1 ? "n" : "" }, text)))] : []);
  fill("events", [rows, columns], () => {
    let last = null;
    const lines = rows.flatMap(([family, event, target, pace, ...cells]) => {
      const head = family === last ? [] : [h("tr", { class: "family" }, h("th", { colspan: cells.length + 3, scope: "rowgroup" }, family))];
      last = family;
      return [...head, row(event, td(target, "soft"), td(pace, "n"), ...cells.map((count, i) => td(count ? number(count) : "–", `n ${count ? TONES[columns[i]] ?? "" : "soft"}`)))];
    });
    return lines.length ? lines : [none(1, "No authentic callback since the start. Check the URL and the CallbackSecret in ZEGOCLOUD's console; requests that arrive and are refused are listed under “Last problems”.")];
  });
}

function showProblems(id, lines, empty, now) {
  const key = lines.map(({ kind, appid, event, reason, detail, count, first, last }) => [kind, appid, event, reason, detail, count, first, last]);
  fill(id, [key, Math.floor(now / (lines.some(({ last }) => now - last < 120_000) ? 1000 : 60_000))], () => lines.length ? lines.map(line => {
    const time = at => h("time", { datetime: new Date(at).toISOString(), title: new Date(at).toISOString() }, moment(at));
    return h("tr", {},
      h("th", { scope: "row" }, h("span", { class: "kind" }, line.kind), line.reason ? ` ${line.reason}` : "",
        ...[line.appid === null ? null : `appid ${line.appid}`, line.event].filter(Boolean).flatMap(text => [" ", h("span", { class: "tag" }, text)]),
        line.detail ? h("small", {}, line.detail) : null),
      td(number(line.count), "n"),
      h("td", { class: "n" }, time(line.last), h("small", {}, line.count > 1 ? `first ${moment(line.first)}` : `${duration(Math.max(0, (now - line.last) / 1000))} ago`)));
  }) : [none(3, empty)]);
}

function showCallbacks({ series, now }) {
  const last = of(series, "zim2kafka_last_callback_timestamp_seconds");
  const reused = of(series, "zim2kafka_reused_signatures_total");
  numbers("callbacks", [
    ["last authentic one", last ? `${duration(Math.max(0, now / 1000 - last))} ago` : "none yet", last ? "" : "warn"],
    ["being answered", number(of(series, "zim2kafka_callbacks_in_flight"))],
    ["connections", number(of(series, "zim2kafka_connections"))],
    ["users joined groups", number(of(series, "zim2kafka_users_joined_total"))],
    ["signatures reused", number(reused), reused ? "warn" : ""],
  ]);
  const apps = new Map();
  for (const [key, count] of all(series, "zim2kafka_app_callbacks_total")) {
    const app = label(key, "appid");
    apps.set(app, { ...apps.get(app), [label(key, "outcome")]: count });
  }
  fill("apps", [...apps], () => apps.size ? [...apps].map(([app, { accepted = 0, unauthorized = 0 }]) => row(app, td(number(accepted), "n"), td(number(unauthorized), `n ${unauthorized ? "warn" : ""}`))) : [none(3, "no callback yet")]);
  const outcomes = all(series, "zim2kafka_callbacks_total").map(([key, count]) => [label(key, "outcome"), polls.length > 1 ? pace(rate(key)) : "–", count]);
  fill("outcomes", outcomes, () => outcomes.length ? outcomes.map(([name, pace, count]) => row(name.replace("_", " "), td(pace, "n"), td(number(count), `n ${TONES[name] ?? ""}`))) : [none(3, "no callback yet")]);
}

function showSettings({ settings, series }) {
  const failed = of(series, "zim2kafka_config_last_reload_successful") !== 1;
  const list = failed ? [{ name: "last reload", value: "failed: the previous secrets and certificate stay in use; the log gives the reason", origin: "" }, ...settings] : settings;
  fill("settings", list, () => list.map(({ name, value, origin }) => h("div", { class: origin === "default" ? "" : "set" }, h("dt", {}, name), h("dd", {}, value || "not set", h("small", {}, origin)))));
}

function show(data) {
  takeHistory(data);
  polls.push({ now: data.now, series: data.series });
  while (polls.length > 2 && data.now - polls[1].now >= 10_000) polls.shift();
  showState(data);
  showProcess(data);
  const common = { now: data.now, at: past.at, levels: past.level };
  element("main").hidden = false;
  charts.traffic.set({ ...common, of: past.traffic });
  charts.latency.set({ ...common, of: [past.p50, past.p99] });
  charts.depth.set({ ...common, of: [past.spool] });
  showKafka(data);
  showTopics(data);
  showSpool(data);
  showEvents(data);
  showProblems("problems", data.problems, "No problem since the start.", data.now);
  showProblems("unauthenticated", data.unauthenticated, "None since the start.", data.now);
  showCallbacks(data);
  showSettings(data);
  setText(element("clock"), `Updated ${clock.format(new Date())}.`);
  // A table that is wider than its place can be scrolled with the keyboard.
  for (const box of document.querySelectorAll(".scroll")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}

// ---- The connection to the service

let lost = null;
function showLost(error) {
  lost ??= Date.now();
  document.body.dataset.level = "lost";
  const why = error.name === "TimeoutError" ? "no answer within 5 s" : error.message || "no connection";
  const before = state ? ` It was ${state.word} before; the numbers below are from then.` : "";
  setText(element("word"), "no answer");
  setText(element("reason"), `This page cannot reach the service (${why}).${before}`);
  showSince(lost, "since");
  showTab("no answer", "#7a8492");
}
async function poll() {
  try {
    const answer = await fetch(`status.json?after=${past.end}`, { signal: AbortSignal.timeout(TIMEOUT) });
    if (!answer.ok) throw new Error(`it answered ${answer.status}`);
    const data = await answer.json();
    if (lost) polls.length = 0;
    lost = null;
    setTimeout(show, 0, data);
  } catch (error) {
    showLost(error);
  }
  setTimeout(poll, POLL);
}
poll();
