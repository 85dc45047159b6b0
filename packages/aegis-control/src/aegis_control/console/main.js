// The page: asks control for its documents in turn, and says so when what is shown is not fresh any more.

import { at, h, put, set, state, sync, visible } from "./dom.js";
import { get, repeat } from "./api.js";
import { clock, count, many, rate } from "./format.js";
import * as actions from "./actions.js";
import * as contract from "./contract.js";
import * as explaining from "./explain.js";
import * as letters from "./letters.js";
import * as resources from "./resources.js";
import * as services from "./services.js";
import * as timeline from "./timeline.js";

const STALE_S = 4;
const LINK_MS = 500;
let shown = null;
/** Seconds of this page's own clock at which control last answered, and a leader did. */
let answeredS = 0;
let ledS = 0;
let replica = "";

const nowS = () => performance.now() / 1000;
const wallS = () => Date.now() / 1000;
const agoS = (momentS) => wallS() - (nowS() - momentS);

async function readOverview() {
  const now = await get("/api/overview");
  answeredS = nowS();
  if (now.replica !== replica) {
    services.forgetHistory();
    replica = now.replica;
  }
  if (now.services) ledS = answeredS;
  actions.allow(now.actions);
  put(at("prefix"), now.prefix === "aegis" ? "" : now.prefix);
  document.body.classList.toggle("led", Boolean(now.services));
  shown = { ...shown, ...now, services: now.services ?? shown?.services ?? [] };
  showAlarms(now.alarms);
  showFigures();
  services.showServices(shown.services, now.time_s, timeline.failovers);
  resources.showServiceNames(shown.services.map((service) => service.service));
  put(at("foot"), `Control ${now.replica} ${now.version}; ${now.leader ? `${now.leader} leads` : "nobody leads"}. Times are UTC. ` +
    (now.actions ? "" : "Read-only: control was started without console_token."));
  showLink(now);
}

async function readEvents() {
  if (await timeline.readEvents()) await resources.readResources(true);
}

// --- what is wrong -----------------------------------------------------------------------------------
const SIGN = { bad: "✕ wrong", note: "▲ note" };

function showAlarms(alarms) {
  const bad = alarms.filter((alarm) => alarm.level === "bad").length;
  const level = bad ? "bad" : alarms.length ? "note" : "ok";
  set(at("alarms"), "data-level", level);
  const verdict = bad ? `✕ ${many(bad, "thing is", "things are")} wrong` : "● All is well";
  put(at("verdict"), bad || !alarms.length ? verdict : `${verdict}, ${many(alarms.length, "thing")} to know`);
  document.title = bad ? `✕ ${bad} wrong – AegisIPC` : "● AegisIPC";
  sync(at("alarms").querySelector("ul"), alarms, (alarm) => `${alarm.level} ${alarm.part} ${alarm.service} ${alarm.what.replace(/[\d.,]+/g, "#")}`, makeAlarm, updateAlarm);
}

function makeAlarm(alarm) {
  const row = h("li", { "data-level": alarm.level });
  row.link = h("a", { href: `#${alarm.part}` });
  row.link.addEventListener("click", (event) => {
    event.preventDefault();
    goTo(alarm);
  });
  row.hint = h("div", { class: "muted" });
  row.append(h("span", { class: "level", "data-level": alarm.level }, SIGN[alarm.level]), h("div", {}, row.link, row.hint));
  return row;
}

function updateAlarm(row, alarm) {
  put(row.link, visible(alarm.what));
  put(row.hint, alarm.do);
}

function goTo({ part, service }) {
  if (part === "resources") resources.want({ service, troubled: true });
  const card = ["instances", "plots"].includes(part) ? at(`service-${service}`) : null;
  const place = card ?? at(part) ?? at("foot");
  place.scrollIntoView({ block: "start" });
  if (!place.hasAttribute("tabindex")) place.setAttribute("tabindex", "-1");
  place.focus({ preventScroll: true });
}

// --- figures -----------------------------------------------------------------------------------------
function showFigures() {
  const all = shown.services.flatMap((service) => service.instances);
  const live = all.filter((instance) => instance.state === "live").length;
  const leases = (name) => shown.services.reduce((sum, service) => sum + (service.leases[name] ?? 0), 0);
  const [held, waiting, vacant] = ["held", "waiting", "vacant"].map(leases);
  const points = shown.services.map((service) => services.newest(service.service)).filter(Boolean);
  const sum = (field) => points.reduce((total, point) => total + (point[field] ?? 0), 0);
  const slowest = Math.max(...points.map((point) => point.p99_ms ?? -1), -1);
  const lag = Math.max(...all.map((instance) => instance.lag_entries), 0);
  const figures = [
    ["Instances live", `${live} of ${all.length}`, all.length === live ? "" : `${all.length - live} not live`, live < all.length],
    ["Resources active", `${count(held)} of ${count(held + waiting + vacant)}`, [waiting && `${count(waiting)} waiting`, vacant && `${count(vacant)} vacant`].filter(Boolean).join(", "), waiting + vacant > 0],
    ["Requests", `${rate(sum("requests_per_s"))}/s`, sum("failures_per_s") ? `${rate(sum("failures_per_s"))}/s failed` : "none failed", sum("failures_per_s") > 0],
    ["Slowest p99", slowest < 0 ? "–" : `${slowest.toFixed(1)} ms`, "of the last 2 s", false],
    ["Largest lag", count(lag), "journal entries", lag > 1000],
    ["Dead letters", shown.dead_letters === null ? "–" : count(shown.dead_letters), "", shown.dead_letters > 0],
  ];
  sync(at("figures"), figures, ([name]) => name, ([name]) => h("div", {}, h("dt", {}, name), h("dd", {}, h("span"), h("small"))), (node, [, value, note, bad]) => {
    set(node, "data-level", bad ? "bad" : "ok");
    put(node.querySelector("span"), bad ? `✕ ${value}` : value);
    put(node.querySelector("small"), note);
  });
}

// --- is what is shown fresh? ------------------------------------------------------------------------
function showLink() {
  const node = at("link").firstElementChild;
  const silentS = nowS() - answeredS;
  const stale = at("stale");
  if (silentS > STALE_S) {
    const since = answeredS ? `since ${clock(agoS(answeredS))}` : "from the start";
    state(node, "stale", `stale ${since}`);
    put(stale, `✕ Stale ${since}: control does not answer this page. Below is what was last seen; it may be otherwise by now.`);
    stale.hidden = false;
    document.title = "✕ stale – AegisIPC";
  } else if (shown && nowS() - ledS > STALE_S) {
    const since = ledS ? `since ${clock(agoS(ledS))}` : "from the start";
    state(node, "stale", `no leader ${since}`);
    put(stale, `✕ Stale ${since}: this control answers, and knows of no leader (${shown.why}). Below is what was last seen.`);
    stale.hidden = false;
  } else if (shown) {
    state(node, "live", `live, ${clock(shown.time_s)}`);
    stale.hidden = true;
  }
}

// --- keys and search -----------------------------------------------------------------------------------
async function find(event) {
  event.preventDefault();
  const text = at("text").value.trim();
  const searched = resources.want({ text });
  if (explaining.isRequestId(text)) {
    await explaining.explain(text);
    return;
  }
  await searched;
  at("resources").scrollIntoView({ block: "start" });
}

function pressed(event) {
  const typing = event.target.closest("input, select, textarea, dialog");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    at("text").focus();
    at("text").select();
  }
}

function begin() {
  for (const part of [actions, contract, explaining, resources, services, timeline]) part.begin();
  at("find").addEventListener("submit", find);
  document.addEventListener("keydown", pressed);
  answeredS = nowS() - STALE_S + 2;
  setInterval(showLink, LINK_MS);
  repeat(1000, readOverview);
  repeat(1000, readEvents);
  repeat(2000, services.readHistory);
  repeat(2000, () => resources.readResources());
  repeat(3000, letters.readLetters);
}

begin();
