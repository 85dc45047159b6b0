// Resources, page by page: the server searches, sorts (what is wrong first) and cuts; never all are here.

import { at, h, id, newState, put, set, state, sync } from "./dom.js";
import { get } from "./api.js";
import { clock, count, many, moment } from "./format.js";
import { propose } from "./actions.js";

const ROWS = matchMedia("(max-width: 600px)").matches ? 8 : 20;
const TYPING_MS = 150;
const UNSEEN_MS = 10_000;
const STANDBYS_MAX = 3;
let wanted = { text: "", service: "", troubled: false, offset: 0 };
let asked = 0;
let askedMs = -Infinity;
let visibleNow = true;

/** Out of sight it is read seldom; `now` when something has happened. */
export async function readResources(now = false) {
  const isDue = visibleNow || now || performance.now() - askedMs > UNSEEN_MS;
  if (!isDue) return;
  askedMs = performance.now();
  const mine = ++asked;
  const query = { text: wanted.text, troubled: wanted.troubled, offset: wanted.offset, limit: ROWS };
  if (wanted.service) query.service = wanted.service;
  const page = await get("/api/resources", query);
  if (mine !== asked) return; // a later question has been asked meanwhile
  if (!page.rows.length && page.offset) {
    wanted.offset = 0;
    await readResources(true);
    return;
  }
  show(page);
}

function show(page) {
  sync(at("rows"), page.rows, (row) => JSON.stringify([row.service, row.resource]), make, update);
  const all = page.matched === page.total ? many(page.total, "resource") : `${count(page.matched)} of ${many(page.total, "resource")}`;
  put(at("resources-count"), page.rows.length ? all : `no resource matches (of ${count(page.total)})`);
  const last = page.offset + page.rows.length;
  put(at("page"), page.rows.length ? `${count(page.offset + 1)}–${count(last)} of ${count(page.matched)}` : "");
  at("previous").disabled = page.offset === 0;
  at("next").disabled = last >= page.matched;
}

function make(row) {
  const node = h("tr");
  node.state = newState();
  node.active = h("td");
  node.epoch = h("td", { class: "number wide" });
  node.standbys = h("td");
  node.since = h("td", { class: "wide" });
  const order = { service: row.service, resources: [row.resource] };
  const button = h("button", { onclick: () => propose("failover", order, `Fail ${row.resource} over`) }, "Fail over");
  node.append(h("td", {}, id(row.resource), " ", h("span", { class: "muted" }, row.service)), h("td", {}, node.state),
    node.active, node.epoch, node.standbys, node.since, h("td", { class: "act" }, button));
  return node;
}

const WORDS = { vacant: "vacant", waiting: "waiting", no_standby: "no standby", held: "held", retired: "retired", idle: "idle" };

function update(node, row) {
  const said = row.trouble || row.state;
  state(node.state, said, WORDS[said]);
  const who = row.active ?? (row.trouble === "waiting" ? `for ${row.owner}` : "nobody");
  put(node.active, who);
  put(node.epoch, count(row.epoch));
  put(node.standbys, standbys(row.standbys));
  put(node.since, `${clock(row.since)} ${row.reason}`);
  set(node.since, "title", moment(row.since));
}

function standbys(found) {
  const told = found.slice(0, STANDBYS_MAX).map((one) =>
    `${one.instance_id} ${one.state === "live" ? `lag ${count(one.lag_entries)}` : one.state}`);
  if (found.length > STANDBYS_MAX) told.push(`and ${found.length - STANDBYS_MAX} more`);
  return told.join(", ") || "none";
}

/** Ask for something else than before, from the first page unless it says otherwise. */
export function want(changes) {
  wanted = { ...wanted, offset: 0, ...changes };
  at("troubled").checked = wanted.troubled;
  at("of-service").value = wanted.service;
  return readResources(true).catch(() => {}); // the next turn says what is wrong
}

export function showServiceNames(names) {
  const select = at("of-service");
  if (select.names === names.join()) return;
  select.names = names.join();
  select.replaceChildren(h("option", { value: "" }, "all"), ...names.map((name) => h("option", { value: name }, name)));
  select.value = wanted.service;
}

export function begin() {
  let typing = 0;
  at("text").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => want({ text: at("text").value.trim() }), TYPING_MS);
  });
  at("troubled").addEventListener("change", (event) => want({ troubled: event.target.checked }));
  at("of-service").addEventListener("change", (event) => want({ service: event.target.value }));
  at("previous").addEventListener("click", () => want({ offset: Math.max(0, wanted.offset - ROWS) }));
  at("next").addEventListener("click", () => want({ offset: wanted.offset + ROWS }));
  new IntersectionObserver(([entry]) => {
    visibleNow = entry.isIntersecting;
    if (visibleNow) readResources(true).catch(() => {}); // the next turn says what is wrong
  }).observe(at("resources"));
}
