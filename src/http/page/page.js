// The fleet page: listens to its replica and shows what it hears. Foreign text becomes text and never markup.
"use strict";

const LIVE = ["provisioning", "provisioned", "registered", "registration_failed", "terminating"];
const FINAL = ["terminated", "failed", "lost"];
const BAD = ["registration_failed", "failed", "lost"];
const ROWS = 120;
/** A replica tells something every five seconds, and may take half a minute for what it reads first. */
const SILENCE = 40_000;
const TOKEN = "enlist-token";

const by = (id) => document.getElementById(id);
const words = (state) => state.replaceAll("_", " ");
const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;
const numbers = new Intl.NumberFormat("en");
const number = (value) => numbers.format(value);

/** Foreign text as it can be shown: what would hide, or turn what stands beside it round, is written out. */
const plain = (text) => String(text).replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g,
  (sign) => `\\u{${sign.codePointAt(0).toString(16)}}`);

/** An element with attributes and children; a string becomes text. */
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== undefined && value !== null) element.setAttribute(key, value);
  }
  const there = children.filter((child) => child !== null && child !== undefined);
  element.append(...there.map((child) => (child instanceof Node ? child : plain(child))));
  return element;
}

function draw(name, attributes = {}) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

/** Sets a text only where it is another: what is read out is not read out again. */
function say(element, text) {
  const shown = plain(text);
  if (element.textContent !== shown) element.textContent = shown;
}

// Times and durations ---------------------------------------------------------------------------------------------------

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const minutes = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "2-digit", month: "short" });
/** What the replica's clock is ahead of this one. */
let ahead = 0;
const now = () => Date.now() + ahead;

function moment(millis) {
  const at = new Date(millis);
  const today = new Date(now()).toDateString() === at.toDateString();
  const text = `${clock.format(at)}.${String(at.getMilliseconds()).padStart(3, "0")}`;
  return make("time", { datetime: at.toISOString(), title: at.toLocaleString() }, today ? text : `${day.format(at)} ${clock.format(at)}`);
}

function lasted(millis) {
  if (millis < 1000) return `${Math.max(0, Math.round(millis))} ms`;
  const seconds = millis / 1000;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h`;
  return plural(Math.floor(seconds / 86_400), "day");
}

// What a worker's event says ----------------------------------------------------------------------------------------------

function describe(worker, before) {
  const { state, registration, error, ended_by: end } = worker;
  const same = before && before.state === state;
  if (error && (same || worker.attempts > 0 || state === "failed")) {
    const tries = worker.attempts > 0 ? `try ${worker.attempts}: ` : "";
    return `${tries}${error.class}: ${error.message}`;
  }
  if (same && before.epoch < worker.epoch) return `taken over by another try, epoch ${worker.epoch}`;
  switch (state) {
    case "provisioning": return worker.epoch > 1 ? `taken over, epoch ${worker.epoch}` : `for command ${worker.command_id}`;
    case "provisioned": return registration.status === "disabled" ? "ready; no registration wanted" : `the instance is there`;
    case "registered": return registration.attempts > 1 ? `the scheduler took it at try ${registration.attempts}` : "with the scheduler";
    case "registration_failed": {
      const why = registration.error;
      return why ? `${why.code}: ${why.message}` : `after ${plural(registration.attempts, "try", "tries")}`;
    }
    case "terminating": {
      const whom = end?.command_id ? `for command ${end.command_id}` : "by enlist itself";
      return end?.reason ? `${whom}: ${end.reason}` : whom;
    }
    case "terminated": return worker.rev === 1 && end?.reason ? `never began: ${end.reason}` : "gone";
    case "lost": return "gone though nobody asked";
    default: return "";
  }
}

function stateOf(state) {
  return make("span", { class: "state", "data-state": state }, make("span", { class: "dot", "aria-hidden": "true" }), words(state));
}

function linkTo(worker) {
  const { pool, worker_id: id } = worker;
  return make("button", { type: "button", class: "link", onclick: () => open(pool, id) },
    make("span", { class: "of-pool" }, `${pool}/`), id);
}

function labelsOf(worker) {
  const labels = Object.entries(worker.capabilities?.labels ?? {});
  const shown = labels.map(([name, value]) => make("span", { class: "label" }, `${name}=${value}`));
  return make("div", { class: "labels" }, ...shown);
}

// Pools -----------------------------------------------------------------------------------------------------------------

const cards = new Map();

function showPools(pools) {
  by("pools-none").hidden = pools.length > 0;
  const names = new Set(pools.map((pool) => pool.pool));
  for (const [name, card] of cards) {
    if (!names.has(name)) {
      card.root.remove();
      cards.delete(name);
    }
  }
  let all = 0;
  for (const pool of pools) {
    if (!cards.has(pool.pool)) {
      cards.set(pool.pool, card(pool.pool));
      by("pools").append(cards.get(pool.pool).root);
      by("filter-pool").append(make("option", { value: pool.pool }, pool.pool));
    }
    all += fill(cards.get(pool.pool), pool);
  }
  by("total").replaceChildren(make("strong", {}, number(all)), ` live in ${plural(pools.length, "pool")}`);
}

function card(name) {
  const parts = {
    kind: make("span", { class: "small" }),
    count: make("strong", {}),
    aim: make("span", { class: "small" }),
    bar: make("div", { class: "bar", role: "img" }),
    legend: make("div", { class: "legend" }),
    waiting: make("p", { class: "small" }),
  };
  parts.number = make("p", { class: "pool-number" }, parts.count, parts.aim);
  parts.root = make("li", { class: "pool", "data-pool": name },
    make("div", { class: "pool-head" }, make("h3", {}, name), parts.kind), parts.number, parts.bar, parts.legend, parts.waiting);
  return parts;
}

function fill(parts, pool) {
  const { states, size, max, waiting } = pool;
  const live = LIVE.reduce((sum, state) => sum + (states[state] ?? 0), 0);
  // A worker on its way out no longer counts towards a size.
  const counts = live - (states.terminating ?? 0);
  say(parts.kind, pool.served ? `${pool.provider} provider` : "served by other replicas");
  say(parts.count, pool.known ? number(live) : "…");
  const aims = [];
  if (size && (size.size > 0 || size.state === "sizing")) aims.push(`of ${number(size.size)} wanted`);
  else aims.push("live");
  if (max !== null) aims.push(`at most ${number(max)}`);
  say(parts.aim, aims.join(" · "));
  parts.number.classList.toggle("short", Boolean(size && pool.known && counts !== size.size));
  const there = LIVE.filter((state) => states[state] > 0);
  parts.bar.setAttribute("aria-label", there.map((state) => `${number(states[state])} ${words(state)}`).join(", ") || "no live workers");
  const key = JSON.stringify(states);
  if (parts.key !== key) {
    parts.key = key;
    keyed(parts.bar, there, (state) => make("span", { "data-state": state, "data-key": state }), (element, state) => {
      element.style.flexGrow = String(states[state]);
    });
    keyed(parts.legend, there, (state) => make("button", { type: "button", "data-key": state, "data-state": state, title: "list them",
      onclick: () => list(pool.pool, state) }, make("span", { class: "dot", "aria-hidden": "true" }), make("b", {}), ` ${words(state)}`),
    (element, state) => say(element.querySelector("b"), number(states[state])));
    if (there.length === 0) parts.legend.replaceChildren(make("span", { class: "small" }, pool.known ? "no live workers" : "being counted"));
  }
  const queued = [];
  if (waiting.provision) queued.push(plural(waiting.provision, "provision"));
  if (waiting.terminate) queued.push(plural(waiting.terminate, "terminate"));
  parts.waiting.hidden = queued.length === 0;
  say(parts.waiting, queued.length ? `${queued.join(" and ")} in the queue` : "");
  return live;
}

/** Brings an element's children in step with keys, keeping those that stay: a button that has the focus keeps it. */
function keyed(parent, keys, create, update) {
  const old = new Map([...parent.children].filter((child) => child.dataset.key).map((child) => [child.dataset.key, child]));
  const wanted = keys.map((key) => old.get(key) ?? create(key));
  for (const child of [...parent.childNodes]) if (!wanted.includes(child)) child.remove();
  wanted.forEach((child, place) => {
    if (parent.children[place] !== child) parent.insertBefore(child, parent.children[place] ?? null);
    update(child, keys[place]);
  });
}

// Plots -----------------------------------------------------------------------------------------------------------------

const sum = (values) => values.reduce((all, value) => all + (value ?? 0), 0);
const STEPS = 90;
const HEIGHT = 30;

/** The last minute, or what of it has been read. */
function lately({ from, step, whole_since: since }) {
  return since !== null && since > from + (STEPS - 6) * step ? `since ${clock.format(new Date(since * 1000))}` : "in the last minute";
}

const PLOTS = [
  {
    title: "Workers made",
    series: [["ready", "registered", "ready"], ["failed", "failed", "failed"]],
    figure: (plots) => [number(sum(plots.ready.slice(-6))), `ready ${lately(plots)}`],
  },
  {
    title: "Workers ended, commands refused",
    series: [["ended", "terminating", "ended"], ["refused", "registration_failed", "refused"]],
    figure: (plots) => [number(sum(plots.ended.slice(-6))), `ended ${lately(plots)}`],
  },
  {
    title: "From claim to ready",
    lines: [["p95", "provisioned", "95 %"], ["p50", "registered", "half"]],
    figure: (plots) => {
      const place = plots.p50.findLastIndex((value) => value !== null);
      return place < 0 ? ["–", "nothing made"] : [lasted(plots.p50[place]), `for half of them, 95 % within ${lasted(plots.p95[place])}`];
    },
  },
].map((plot) => ({ ...plot, ...frame(plot) }));

function frame(plot) {
  const svg = draw("svg", { viewBox: `0 0 ${STEPS} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", tabindex: "0" });
  const parts = { svg, figure: make("span", { class: "figure" }), unit: make("span", { class: "unit" }), left: make("span", {}), right: make("span", {}) };
  const root = make("figure", { class: "plot" },
    make("figcaption", {}, make("span", {}, plot.title)), make("p", { class: "figure" }, parts.figure, " ", parts.unit), svg,
    make("div", { class: "axis" }, parts.left, parts.right));
  const kept = { ...parts, root, at: null };
  const point = (event) => {
    const box = svg.getBoundingClientRect();
    kept.at = Math.min(STEPS - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * STEPS)));
    touch("plots");
  };
  svg.addEventListener("pointermove", point);
  svg.addEventListener("pointerdown", point);
  svg.addEventListener("pointerleave", () => { kept.at = null; touch("plots"); });
  svg.addEventListener("blur", () => { kept.at = null; touch("plots"); });
  svg.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    kept.at = Math.min(STEPS - 1, Math.max(0, (kept.at ?? STEPS) + by));
    touch("plots");
  });
  return { kept };
}

function showPlots(plots) {
  const { whole_since: since } = plots;
  by("plots-note").hidden = since === null;
  say(by("plots-note"), since === null ? "" : `Whole since ${clock.format(new Date(since * 1000))}: what came before was too much to be read back.`);
  for (const plot of PLOTS) {
    const { kept } = plot;
    const { svg } = kept;
    const shapes = [draw("line", { class: "base", x1: 0, x2: STEPS, y1: HEIGHT, y2: HEIGHT })];
    let top = 0;
    if (plot.series) {
      const totals = Array.from({ length: STEPS }, (_, step) => sum(plot.series.map(([name]) => plots[name][step])));
      top = Math.max(1, ...totals);
      const ground = new Array(STEPS).fill(0);
      for (const [name, state] of plot.series) {
        plots[name].forEach((value, step) => {
          if (!value) return;
          const height = Math.max(value / top * (HEIGHT - 1), .8);
          ground[step] += height;
          shapes.push(draw("rect", { x: step + .1, y: HEIGHT - ground[step], width: .8, height, "data-state": state }));
        });
      }
    } else {
      top = Math.max(1, ...plot.lines.flatMap(([name]) => plots[name].map((value) => value ?? 0)));
      for (const [name, state] of plot.lines) {
        // A step without a worker is no zero: the line goes from one that has some to the next.
        const points = plots[name].map((value, step) => [step + .5, value]).filter(([, value]) => value !== null)
          .map(([x, value]) => `${x} ${HEIGHT - value / top * (HEIGHT - 1)}`);
        if (points.length === 1) points.push(points[0].replace(/^[\d.]+/, (x) => String(Number(x) + .01)));
        if (points.length) shapes.push(draw("path", { class: name === "p95" ? "line faint" : "line", d: `M${points.join("L")}`, "data-state": state }));
      }
    }
    if (kept.at !== null) shapes.push(draw("rect", { class: "at", x: kept.at, y: 0, width: 1, height: HEIGHT }));
    svg.replaceChildren(...shapes);
    const [figure, unit] = plot.figure(plots);
    say(kept.figure, figure);
    say(kept.unit, unit);
    svg.setAttribute("aria-label", `${plot.title}: ${figure} ${unit}. Arrow keys read the steps of ten seconds.`);
    const start = (step) => new Date((plots.from + step * plots.step) * 1000);
    if (kept.at === null) {
      say(kept.left, minutes.format(start(0)));
      say(kept.right, plot.lines ? `up to ${lasted(top)}` : `up to ${number(top)} in 10 s`);
    } else {
      const told = (plot.series ?? plot.lines).map(([name, , word]) => {
        const value = plots[name][kept.at];
        if (plot.lines) return value === null ? null : `${word} ${lasted(value)}`;
        return `${number(value)} ${word}`;
      }).filter(Boolean);
      say(kept.left, `${clock.format(start(kept.at))}: ${told.join(", ") || "nothing"}`);
      say(kept.right, "");
    }
  }
}

// Events ----------------------------------------------------------------------------------------------------------------

let events = [];
let newest = 0;
let paused = false;
let missed = 0;
const stands = new Map();

/** What is new, the oldest first. */
function hear({ events: fresh, skipped }) {
  const rows = fresh.filter((event) => event.seq > newest);
  if (!rows.length) return;
  newest = rows[rows.length - 1].seq;
  if (skipped) add({ more: skipped });
  for (const event of rows) {
    if (event.worker) {
      const key = `${event.worker.pool}/${event.worker.worker_id}`;
      event.text = describe(event.worker, stands.get(key));
      stands.delete(key);
      stands.set(key, event.worker);
      if (stands.size > 2000) stands.delete(stands.keys().next().value);
      updateRow(event);
      updateTimeline(event);
    }
    add(event);
  }
  touch("events");
}

function add(event) {
  if (paused) {
    missed += event.more ?? 1;
    return;
  }
  events.push(event);
  if (events.length > 2 * ROWS) events = events.slice(-ROWS);
}

const isBad = (event) => event.worker && (BAD.includes(event.worker.state) || event.worker.error);

function showEvents() {
  const only = by("only-bad").checked;
  const shown = events.filter((event) => (only ? isBad(event) : true)).slice(-ROWS).reverse();
  by("events-none").hidden = shown.length > 0;
  say(by("events-none"), only ? "No failure among the newest events." : "No event yet.");
  const feed = by("events");
  const kept = new Map([...feed.children].map((row) => [row.dataset.key, row]));
  const first = kept.size === 0;
  const keys = new Map(shown.map((event) => [event.more ? `more-${event.after ??= ++marks}` : String(event.seq), event]));
  keyed(feed, [...keys.keys()], (key) => row(keys.get(key), key, first), () => {});
  say(by("pause"), paused ? (missed ? `Go on (${number(missed)} new)` : "Go on") : "Pause");
}

let marks = 0;

function row(event, key, first) {
  if (event.more) return make("li", { class: "more", "data-key": key }, `… and ${plural(event.more, "event")} more`);
  const state = event.worker?.state ?? event.pool.state;
  const item = make("li", { "data-key": key, "data-state": state, class: first ? null : "fresh" }, moment(event.at));
  if (event.worker) item.append(linkTo(event.worker), stateOf(state), make("span", { class: "what" }, event.text));
  else {
    const { pool, size, actual, command_id: command } = event.pool;
    const text = state === "sized" ? `has its size, ${number(size)}` : `wants ${number(size)}, has ${number(actual)}; command ${command}`;
    item.append(make("span", { class: "mono" }, pool), stateOf(state), make("span", { class: "what" }, text));
  }
  return item;
}

// What fails ------------------------------------------------------------------------------------------------------------

function showFailing({ all, workers }) {
  by("failing-none").hidden = all > 0;
  say(by("failing-count"), all ? number(all) : "");
  by("failing").replaceChildren(...workers.map(({ at, worker }) => {
    const { error, attempts } = worker.registration;
    const tries = plural(attempts, "try", "tries");
    return make("li", { "data-state": "registration_failed" },
      make("div", { class: "line" }, linkTo(worker), moment(at)),
      make("p", { class: "reason" }, make("b", {}, error?.code ?? "failed"), error ? `: ${error.message}` : ""),
      make("p", { class: "small" }, error?.critical ? `refused by the scheduler, not tried again (${tries})` : `${tries}; the sweep tries again`));
  }));
  if (all > workers.length) by("failing").append(make("li", { class: "small" }, `and ${number(all - workers.length)} that failed earlier`));
}

function showDead(dead) {
  by("dead-none").hidden = dead.length > 0;
  say(by("dead-count"), dead.length < 50 ? dead.length || "" : "the newest 50");
  by("dead").replaceChildren(...dead.map(({ at, pool, verb, command_id: command, reason, detail }) => make("li", { "data-state": "refused" },
    make("div", { class: "line" }, make("span", { class: "mono reason" }, `${verb} ${pool} `, make("span", { class: "of-pool" }, command === "_" ? "without an id" : command)), moment(at)),
    make("p", { class: "reason" }, make("b", {}, reason), `: ${detail}`))));
}

// Notices and status ------------------------------------------------------------------------------------------------------

function showFleet({ prefix, version, instance, open: isOpen, ready, wrong, trouble }) {
  say(by("prefix"), prefix);
  document.title = `${prefix} · enlist`;
  say(by("replica"), `enlist ${version}${instance ? `, replica ${instance}` : ""}`);
  const notices = [];
  if (isOpen) notices.push("Anybody who reaches this address sees this page: no token is set (http.token).");
  if (trouble) notices.push(`What is shown may be old: ${trouble}`);
  for (const condition of wrong) notices.push(`Does not hold at this replica: ${condition}`);
  by("notices").hidden = notices.length === 0;
  const text = notices.join("\n");
  if (by("notices").dataset.text !== text) {
    by("notices").dataset.text = text;
    by("notices").replaceChildren(...notices.map((notice) => make("p", {}, notice)));
  }
  if (trouble) status("bad", "the log cannot be read");
  else if (!ready) status("bad", "live; the replica is not ready");
  else status("good", "live");
}

function status(tone, text) {
  by("status").dataset.tone = tone;
  say(by("status"), text);
}

// The list of workers -------------------------------------------------------------------------------------------------------

const page = { pool: "", state: "live", after: 0, next: null, rows: new Map(), asked: 0 };

function list(pool, state) {
  by("filter-pool").value = pool;
  by("filter-state").value = state;
  load(0);
  by("workers-section").scrollIntoView({ block: "start" });
  by("filter-pool").focus({ preventScroll: true });
}

async function load(after) {
  page.pool = by("filter-pool").value;
  page.state = by("filter-state").value;
  page.after = after;
  const query = new URLSearchParams({ pool: page.pool, state: page.state, after: String(after) });
  say(by("workers-note"), "Reading …");
  const asked = ++page.asked;
  const answer = await ask(`page/workers?${query}`);
  // An answer that another question has overtaken is not what is asked for any more.
  if (!answer || page.asked !== asked) return;
  page.next = answer.next;
  page.rows.clear();
  const rows = answer.workers.map(({ worker }) => rowOf(worker));
  by("workers").replaceChildren(...rows);
  noteWorkers();
}

function noteWorkers() {
  by("first").disabled = page.after === 0;
  by("next").disabled = page.next === null;
  const none = page.next === null ? "No such worker." : "None on this page; there are more.";
  say(by("workers-note"), page.rows.size ? "" : none);
}

function rowOf(worker) {
  const cells = make("tr", {},
    make("td", { class: "mono" }, linkTo(worker)), make("td", {}), make("td", {}),
    make("td", { class: "mono wide clip", title: worker.instance_id }, worker.instance_id ?? "–"), make("td", { class: "wide" }, labelsOf(worker)));
  page.rows.set(`${worker.pool}/${worker.worker_id}`, { cells, worker });
  refresh(cells, worker);
  return cells;
}

function refresh(cells, worker) {
  cells.children[1].replaceChildren(stateOf(worker.state));
  const since = Date.parse(worker.updated_at);
  cells.children[2].replaceChildren(make("time", { datetime: worker.updated_at, title: new Date(since).toLocaleString(), "data-since": since }, lasted(now() - since)));
  say(cells.children[3], worker.instance_id ?? "–");
}

/** A row that is shown follows its worker; a new worker comes at the end of the last page. */
function updateRow({ worker }) {
  const key = `${worker.pool}/${worker.worker_id}`;
  const known = page.rows.get(key);
  if (known) {
    if (worker.rev <= known.worker.rev) return;
    known.worker = worker;
    refresh(known.cells, worker);
    return;
  }
  const wanted = (!page.pool || page.pool === worker.pool)
    && (!page.state || page.state === worker.state || (page.state === "live" && !FINAL.includes(worker.state)));
  if (wanted && page.next === null && page.rows.size < 50) {
    by("workers").append(rowOf(worker));
    noteWorkers();
  }
}

// One worker ------------------------------------------------------------------------------------------------------------

const timeline = { key: null, events: [], asked: 0 };

function open(pool, id) {
  const key = `${pool}/${id}`;
  timeline.key = key;
  timeline.events = [];
  say(by("worker-title"), key);
  by("worker-facts").replaceChildren();
  by("timeline").replaceChildren();
  say(by("worker-none"), "Reading …");
  by("worker-none").hidden = false;
  if (!by("worker").open) by("worker").showModal();
  history.replaceState(null, "", `#worker/${key}`);
  return readTimeline();
}

/** Reads the worker that is open, from its beginning; what has come meanwhile stays behind that. */
async function readTimeline() {
  const { key } = timeline;
  const [pool, id] = key.split("/");
  const asked = ++timeline.asked;
  const answer = await ask(`page/worker?${new URLSearchParams({ pool, id })}`);
  if (timeline.key !== key || timeline.asked !== asked || !answer) return;
  const last = answer.events.at(-1)?.seq ?? 0;
  timeline.events = [...answer.events, ...timeline.events.filter((event) => event.seq > last)];
  showTimeline();
}

function updateTimeline(event) {
  if (timeline.key !== `${event.worker.pool}/${event.worker.worker_id}`) return;
  if (timeline.events.some((known) => known.seq >= event.seq)) return;
  timeline.events.push(event);
  showTimeline();
}

function showTimeline() {
  const { events: told } = timeline;
  by("worker-none").hidden = told.length > 0;
  if (!told.length) {
    say(by("worker-none"), "No such worker is on record.");
    return;
  }
  const { worker } = told[told.length - 1];
  const { capabilities: offers, ended_by: end } = worker;
  const size = [
    offers.cpus && plural(offers.cpus, "core"), offers.memory_mb && `${number(offers.memory_mb)} MiB`, offers.gpus && plural(offers.gpus, "GPU"),
  ].filter(Boolean).join(", ");
  const facts = [
    ["State", stateOf(worker.state)],
    ["Command", make("span", { class: "mono" }, worker.command_id)],
    worker.correlation_id && ["Correlation", make("span", { class: "mono" }, worker.correlation_id)],
    ["Provider", `${worker.provider} (${worker.worker_type})`],
    worker.instance_id && ["Instance", make("span", { class: "mono" }, worker.instance_id)],
    worker.endpoint && ["Endpoint", make("span", { class: "mono" }, worker.endpoint)],
    size && ["Offers", size],
    Object.keys(offers.labels ?? {}).length > 0 && ["Labels", labelsOf(worker)],
    worker.registration.error && ["Scheduler", `${worker.registration.error.code}: ${worker.registration.error.message}`],
    end && ["Ended by", [end.command_id && `command ${end.command_id}`, end.reason].filter(Boolean).join(": ") || "enlist itself"],
  ].filter(Boolean);
  by("worker-facts").replaceChildren(...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  by("timeline").replaceChildren(...told.map((event, place) => {
    const before = told[place - 1];
    const took = before ? `after ${lasted(event.at - before.at)}` : "";
    return make("li", { "data-state": event.worker.state },
      make("div", { class: "line" }, make("b", {}, words(event.worker.state)), moment(event.at), make("span", { class: "took" }, took)),
      make("p", { class: "what" }, describe(event.worker, before?.worker)));
  }));
}

// Asking the replica ------------------------------------------------------------------------------------------------------

let token = sessionStorage.getItem(TOKEN) ?? "";
/** What a header can carry; a fetch with anything else fails as if nobody were there. */
const SENDABLE = /^[\x21-\x7e]+$/;
const headers = () => (token ? { Authorization: `Bearer ${token}` } : {});

/** Resolves once there is a token to try. */
function needToken() {
  const gate = by("gate");
  say(by("gate-wrong"), token ? "This is not the token." : "");
  by("gate-token").value = "";
  if (!gate.open) gate.showModal();
  return new Promise((resolve) => {
    by("gate-form").onsubmit = (event) => {
      event.preventDefault();
      const entered = by("gate-token").value.trim();
      if (!SENDABLE.test(entered)) {
        say(by("gate-wrong"), "This is no token: it has signs in it that cannot be sent.");
        by("gate-token").value = "";
        by("gate-token").focus();
        return;
      }
      token = entered;
      gate.close();
      resolve();
    };
  });
}

async function ask(path) {
  try {
    const response = await fetch(path, { headers: headers(), cache: "no-store" });
    if (response.ok) return await response.json();
    say(by("workers-note"), await response.text());
    say(by("worker-none"), by("workers-note").textContent);
  } catch {
    say(by("workers-note"), "The replica does not answer.");
    say(by("worker-none"), "The replica does not answer.");
  }
  return null;
}

const latest = {};
const dirty = new Set();
const shows = { pools: showPools, plots: showPlots, failing: showFailing, dead: showDead, fleet: showFleet, events: showEvents };

/** Shows a part with the next picture, once, however often it changes until then. */
function touch(name) {
  if (dirty.size === 0) requestAnimationFrame(render);
  dirty.add(name);
}

function render() {
  const names = [...dirty];
  dirty.clear();
  for (const name of names) if (name === "events" || latest[name] !== undefined) shows[name](latest[name]);
}

function take(name, data) {
  const value = JSON.parse(data);
  if (name === "beat") ahead = value.now - Date.now();
  else if (name === "events") hear(value);
  else if (shows[name]) {
    latest[name] = value;
    touch(name);
  }
}

/** Reads server-sent events by hand: an EventSource could not send the token. */
async function listen(signal, heard) {
  const response = await fetch("page/live", { headers: headers(), cache: "no-store", signal });
  if (response.status === 401) {
    await needToken();
    return "again";
  }
  if (!response.ok) throw new Error((await response.text()).trim());
  if (token) sessionStorage.setItem(TOKEN, token);
  newest = 0;
  events = [];
  load(page.after);
  // What was missed while nobody listened, or not shown for want of a token.
  if (timeline.key) readTimeline();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return "ended";
    heard();
    const frames = (rest + value).split("\n\n");
    rest = frames.pop();
    for (const text of frames) {
      const [name, data] = text.split("\n");
      take(name.slice("event: ".length), data.slice("data: ".length));
    }
  }
}

async function run() {
  for (let pause = 500; ; pause = Math.min(pause * 2, 10_000)) {
    if (document.hidden) await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
    const stop = new AbortController();
    let timer = setTimeout(() => stop.abort(), SILENCE);
    const heard = () => {
      clearTimeout(timer);
      timer = setTimeout(() => stop.abort(), SILENCE);
      pause = 500;
    };
    // A page that nobody sees for a minute does not keep its replica at work.
    let hide = null;
    const hidden = () => {
      clearTimeout(hide);
      if (document.hidden) hide = setTimeout(() => stop.abort(), 60_000);
    };
    document.addEventListener("visibilitychange", hidden);
    try {
      if (await listen(stop.signal, heard) === "again") continue;
      status("wait", "connecting again");
    } catch (error) {
      status("bad", error.name === "AbortError" || error instanceof TypeError ? "the replica does not answer" : error.message);
    } finally {
      clearTimeout(timer);
      clearTimeout(hide);
      document.removeEventListener("visibilitychange", hidden);
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

// Controls --------------------------------------------------------------------------------------------------------------

for (const plot of PLOTS) by("plots").append(plot.kept.root);
for (const state of [...LIVE, ...FINAL]) by("filter-state").append(make("option", { value: state }, words(state)));
by("only-bad").addEventListener("change", () => touch("events"));
by("pause").addEventListener("click", () => {
  paused = !paused;
  if (!paused && missed) add({ more: missed });
  missed = 0;
  by("pause").setAttribute("aria-pressed", String(paused));
  touch("events");
});
by("first").addEventListener("click", () => load(0));
by("next").addEventListener("click", () => load(page.next));
by("filter-pool").addEventListener("change", () => load(0));
by("filter-state").addEventListener("change", () => load(0));
by("filter").addEventListener("submit", async (event) => {
  event.preventDefault();
  const id = by("find").value.trim();
  if (!id) return load(0);
  const pools = by("filter-pool").value ? [by("filter-pool").value] : [...cards.keys()];
  for (const pool of pools) {
    const answer = await ask(`page/worker?${new URLSearchParams({ pool, id })}`);
    if (!answer) return;
    if (answer.events.length) return open(pool, id);
  }
  say(by("workers-note"), `No worker ${id} is on record.`);
});
by("worker-close").addEventListener("click", () => by("worker").close());
by("worker").addEventListener("click", (event) => { if (event.target === by("worker")) by("worker").close(); });
by("worker").addEventListener("close", () => {
  timeline.key = null;
  history.replaceState(null, "", location.pathname + location.search);
});
by("gate").addEventListener("cancel", (event) => event.preventDefault());
setInterval(() => {
  for (const time of document.querySelectorAll("[data-since]")) say(time, lasted(now() - Number(time.dataset.since)));
}, 1000);
const linked = /^#worker\/([a-z0-9-]+)\/([a-z0-9-]+)$/.exec(location.hash);
if (linked) open(linked[1], linked[2]);
run();
