// Services as cards: what is wrong first, two plots, the instances. Not more than a screen can hold.

import { at, h, id, newState, put, set, state, sync, visible } from "./dom.js";
import { clock, count, many, rate, span } from "./format.js";
import { Plot, SPAN_S } from "./plot.js";
import { get } from "./api.js";
import { propose } from "./actions.js";
import { address, showContract } from "./contract.js";

const CARDS_MAX = 12;
const INSTANCES_MAX = 6;
const ORDER = ["lost", "stalled", "evicted", "draining", "live"];
const plots = new Map();
const history = new Map();
let allCards = false;
let lastS = 0;
let nowS = 0;
let services = [];

/** The points that came since the last look; latencies and rates of a service that is not shown wait here. */
export async function readHistory() {
  const told = await get("/api/history", { after_s: lastS });
  for (const [service, points] of Object.entries(told.services)) {
    const kept = [...(history.get(service) ?? []), ...points];
    history.set(service, kept.filter((point) => point.time_s > nowS - SPAN_S));
    lastS = Math.max(lastS, points.at(-1)?.time_s ?? 0);
  }
}

/** Another replica has another history: begin again. */
export function forgetHistory() {
  history.clear();
  lastS = 0;
}

export const newest = (service) => (history.get(service) ?? []).at(-1);

const isTroubled = (service) =>
  service.instances.some((instance) => instance.state !== "live") || service.leases.waiting || service.leases.vacant || !service.instances.length;

export function showServices(found, timeS, failovers) {
  services = found;
  nowS = timeS;
  const wrongFirst = [...found].sort((a, b) => Boolean(isTroubled(b)) - Boolean(isTroubled(a)));
  const shown = allCards ? wrongFirst : wrongFirst.slice(0, CARDS_MAX);
  sync(at("cards"), shown, (service) => service.service, makeCard, updateCard);
  at("more-services").hidden = found.length <= CARDS_MAX;
  put(at("more-services"), allCards ? "Show fewer services" : `Show all ${found.length} services`);
  for (const service of shown) drawPlots(service.service, failovers);
}

function drawPlots(service, failovers) {
  const marks = failovers.filter((one) => one.service === service).map((one) => one.begun_s);
  const points = history.get(service) ?? [];
  for (const plot of plots.get(service)) plot.draw(points, nowS, marks);
}

function makeCard(service) {
  const throughput = new Plot("Requests", [
    { field: "requests_per_s", css: "", name: "all" },
    { field: "failures_per_s", css: "wrong", name: "failed" },
  ], "/s", (point) => `${rate(point.requests_per_s)}/s, ${rate(point.failures_per_s)}/s failed`);
  const latency = new Plot("Latency", [
    { field: "p50_ms", css: "", name: "p50" },
    { field: "p99_ms", css: "second", name: "p99" },
  ], " ms", (point) => (point.p99_ms === null ? "no answers" : `${point.p50_ms.toFixed(1)} / ${point.p99_ms.toFixed(1)} ms`));
  plots.set(service.service, [throughput, latency]);
  const card = h("article", { class: "card", id: `service-${service.service}`, tabindex: -1 });
  const link = h("a", { href: address(service.service), class: "small", "aria-label": `Contract of ${service.service}` }, "Contract");
  // The address may be there already: then nothing changes, and it is read again.
  link.addEventListener("click", () => location.hash === link.hash && showContract(service.service));
  card.parts = {
    title: h("h3", {}, service.service, " ", link),
    words: h("p"),
    body: h("tbody"),
    more: h("button", { class: "small", onclick: () => expand(card) }),
  };
  const heads = ["Instance", "State", "Active / standby"].map((name) => h("th", {}, name));
  const numbers = [["Lag", ""], ["Heard", ""], ["Running", "wide"], ["Loop lag", "wide"]]
    .map(([name, css]) => h("th", { class: `number ${css}` }, name));
  card.append(card.parts.title, card.parts.words, h("div", { class: "plots" }, throughput.figure, latency.figure),
    h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ...heads, ...numbers,
      h("th", { class: "wide" }, "Process"), h("th", { class: "act" }, "Change"))), card.parts.body)), card.parts.more);
  return card;
}

function expand(card) {
  card.all = !card.all;
  updateCard(card, services.find((service) => `service-${service.service}` === card.id));
}

function updateCard(card, service) {
  const { words, body, more } = card.parts;
  const sorted = [...service.instances].sort((a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state));
  const wrong = sorted.filter((instance) => instance.state !== "live").length;
  const shown = card.all ? sorted : sorted.slice(0, Math.max(INSTANCES_MAX, wrong));
  sync(words, facts(service), (fact) => fact.key, () => newState(), (node, fact) => state(node, fact.state, fact.text));
  sync(body, shown, (instance) => instance.instance_id, makeInstance, updateInstance);
  more.hidden = sorted.length <= INSTANCES_MAX;
  put(more, card.all ? "Show fewer instances" : `Show all ${sorted.length} instances`);
}

/** What is said of a service beside its name; a sign only where there is something to say. */
function facts(service) {
  const live = service.instances.filter((instance) => instance.state === "live").length;
  const all = live === service.instances.length && live > 0;
  const { held = 0, waiting = 0, vacant = 0 } = service.leases;
  const found = [{ key: "instances", state: all ? "live" : "lost", text: `${live} of ${many(service.instances.length, "instance")} live` }];
  if (held + waiting + vacant) found.push({ key: "held", state: waiting + vacant ? "waiting" : "held", text: `${count(held)} of ${many(held + waiting + vacant, "resource")} active` });
  if (waiting) found.push({ key: "waiting", state: "waiting", text: `${count(waiting)} waiting` });
  if (vacant) found.push({ key: "vacant", state: "vacant", text: `${count(vacant)} vacant` });
  if (service.unfollowed) found.push({ key: "alone", state: "no_standby", text: `${count(service.unfollowed)} without a standby` });
  for (const pause of service.paused ?? []) found.push({ key: `paused ${pause.what}`, state: "waiting", text: `${pause.what} paused` });
  if (service.depth) found.push({ key: "depth", state: "live", text: `${many(service.depth, "request")} in the queue` });
  return found;
}

function makeInstance(instance) {
  const row = h("tr");
  const name = instance.instance_id;
  const button = (verb, words) => h("button", { onclick: () => propose(verb, { instance_id: name }, `${words} ${name}`) }, words);
  row.state = newState();
  row.figures = [h("td"), h("td", { class: "number" }), h("td", { class: "number" }), h("td", { class: "number wide" }), h("td", { class: "number wide" }), h("td", { class: "wide" })];
  row.why = h("div", { class: "muted" });
  row.append(h("td", {}, id(name)), h("td", {}, row.state, row.why), ...row.figures,
    h("td", { class: "act" }, button("drain", "Drain"), button("disconnect", "Disconnect")));
  return row;
}

function updateInstance(row, instance) {
  state(row.state, instance.state);
  set(row.state, "title", `since ${clock(instance.since)}`);
  put(row.why, instance.state === "live" ? "" : visible(instance.reason));
  const roles = instance.active + instance.standby ? `${count(instance.active)} / ${count(instance.standby)}` : "group";
  const texts = [roles, count(instance.lag_entries), span(Math.max(0, instance.heartbeat_age_s)), count(instance.running),
    span(instance.loop_lag_s), visible(`${instance.host}:${instance.pid} ${instance.version}`)];
  texts.forEach((text, n) => put(row.figures[n], text));
}

export function begin() {
  at("more-services").addEventListener("click", () => {
    allCards = !allCards;
    showServices(services, nowS, []);
  });
}
