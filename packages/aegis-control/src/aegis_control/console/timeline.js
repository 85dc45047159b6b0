// What happened: failovers with the time that their parts took, and the events with the gaps between them.

import { at, h, set, sync, visible } from "./dom.js";
import { get } from "./api.js";
import { clock, many, moment, span } from "./format.js";

const EVENTS_KEPT = 500;
const EVENTS_SHOWN = 60;
const MOVES_SHOWN = 8;
const BAD = /(lost|stalled|evicted|refused|failed|dead_lettered|fenced)$/;
const STEPS = { instance_fenced: "fenced", lease_granted: "granted to" };
let events = [];
let last = 0;
export let failovers = [];

/** True when something is new. */
export async function readEvents() {
  const news = await get("/api/events", { after: last });
  if (news.last === last) return false;
  if (news.last < last) events = []; // another stream, or one that is being read again
  events = [...events, ...news.events].slice(-EVENTS_KEPT);
  last = news.last;
  failovers = news.failovers ?? [];
  showEvents();
  showMoves();
  return true;
}

function showEvents() {
  const wanted = at("only-bad").checked ? events.filter((event) => BAD.test(event.event) || event.event === "operator_change") : events;
  const shown = wanted.slice(-EVENTS_SHOWN - 1);
  const rows = shown.map((event, n) => ({ ...event, gap: n ? event.time - shown[n - 1].time : null }));
  if (shown.length > EVENTS_SHOWN) rows.shift();
  sync(at("event-list"), rows.reverse(), (event) => `${event.seq} ${event.gap}`, makeEvent);
}

function makeEvent(event) {
  const row = h("li", {},
    h("span", { title: moment(event.time) }, clock(event.time, 3)), " ",
    h("span", { class: "gap" }, event.gap === null ? "" : `+${span(Math.max(0, event.gap))}`), " ",
    h("span", { class: "what" }, `${BAD.test(event.event) ? "▲ " : ""}${visible(event.event)}`),
    h("div", { class: "muted" }, details(event.details)));
  if (BAD.test(event.event)) set(row, "data-bad", "");
  return row;
}

const details = (found) => Object.entries(found).map(([key, value]) => `${key}=${word(value)}`).join("  ");

function word(value) {
  if (Array.isArray(value)) return value.map((item) => visible(item)).join(", ");
  if (value !== null && typeof value === "object") return Object.entries(value).map(([key, item]) => `${visible(key)}: ${visible(item)}`).join(", ");
  return visible(value);
}

function showMoves() {
  const shown = failovers.slice(0, MOVES_SHOWN);
  const longest = Math.max(...shown.map(whole), 0.001);
  sync(at("moves"), shown, (one) => `${one.begun_s} ${JSON.stringify(one)} ${longest}`, (one) => makeMove(one, longest));
  if (!shown.length) sync(at("moves"), [{}], () => "none", () => h("li", { class: "muted" }, "None among the last events."));
}

const whole = (one) => (one.silence_s ?? 0) + (one.duration_s ?? 0);

function makeMove(one, longest) {
  const to = one.to.length ? one.to.join(", ") : "nobody";
  const told = [one.resources ? many(one.resources, "resource") : "", one.orphans ? `${many(one.orphans, "resource")} to nobody` : ""];
  const bar = h("div", { class: "bar", "aria-hidden": "true" });
  for (const [css, seconds] of [["silent", one.silence_s], ["moving", one.duration_s]]) {
    if (!seconds) continue;
    const piece = h("i", { class: css });
    piece.style.width = `${((seconds / longest) * 100).toFixed(2)}%`; // by script: an inline attribute is forbidden
    bar.append(piece);
  }
  return h("li", {},
    h("strong", {}, `${visible(one.service)}: ${visible(one.instance_id || "several")} → ${visible(to)}`),
    h("div", {}, `${clock(one.begun_s, 3)}  ${told.filter(Boolean).join(", ")}  (${visible(one.reason)})`),
    bar,
    h("div", {}, timing(one)),
    h("div", { class: "muted" }, one.moments.map((step) => `+${span(Math.max(0, step.after_s))} ${STEPS[step.what] ?? step.what} ${visible(step.who)}`).join(" · ")));
}

function timing(one) {
  if (one.duration_s === null) return one.orphans ? `silent for ${span(one.silence_s ?? 0)}, then nobody took over` : "▲ begun, and no end of it was told yet";
  const moved = `moved in ${span(one.duration_s)}`;
  if (one.silence_s === null) return `${moved}, on purpose`;
  return `silent for ${span(one.silence_s)}, ${moved}: ${span(whole(one))} from the last heartbeat to the last fence`;
}

export function begin() {
  at("only-bad").addEventListener("change", showEvents);
}
