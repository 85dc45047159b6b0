// Changes: unlocked by the token, shown as a plan first, and sent only when that was confirmed.

import { at, put, visible } from "./dom.js";
import { change } from "./api.js";
import { many } from "./format.js";

const PLANNED_MAX = 6;
const SAID_MS = 8000;
const auth = { token: "", by: "" };
let pending = null;

/** Show the button if control allows changes at all. */
export function allow(actions) {
  at("unlock").hidden = !actions;
  if (!actions) lock();
}

function lock() {
  auth.token = "";
  document.body.classList.remove("unlocked");
  put(at("unlock"), "Unlock changes");
}

/** Ask about `order` of `verb`; `title` says what it is ("Drain acc-1"). */
export async function propose(verb, order, title) {
  pending = { verb, order, title };
  put(at("confirming-title"), `${title}?`);
  put(at("plan"), "Asking control what would happen…");
  put(at("refusal"), "");
  put(at("do"), title);
  at("do").disabled = true;
  at("reason").value = "";
  at("confirming").showModal();
  const plan = await send(pending, true);
  if (plan) {
    put(at("plan"), inWords(verb, plan));
    at("do").disabled = false;
  } else {
    put(at("plan"), "");
  }
}

async function send({ verb, order }, dry) {
  try {
    const asked = { ...order, by: auth.by, reason: at("reason").value, dry_run: dry };
    return await change(verb, asked, auth.token);
  } catch (error) {
    if (error.status === 401 || error.status === 403) lock();
    const hint = error.status === 401 ? ": unlock again with the right one" : "";
    const doubt = !error.status || error.status >= 500 ? " (it may still be done: look at the events)" : "";
    put(at("refusal"), `${error.message}${hint}${dry ? "" : doubt}`);
    return null;
  }
}

function inWords(verb, plan) {
  if (verb === "dlq-redrive") return redriven(plan);
  const moves = Object.entries(plan.moved);
  const lines = moves.slice(0, PLANNED_MAX).map(([resource, to]) => `${visible(resource)} → ${to}`);
  if (moves.length > PLANNED_MAX) lines.push(`… and ${many(moves.length - PLANNED_MAX, "more", "more")}`);
  const vacant = plan.vacant.length;
  if (vacant) lines.push(`✕ ${many(vacant, "resource")} without a standby: requests to them will be refused`);
  return lines.length ? `What moves:\n${lines.join("\n")}` : "No resource moves.";
}

function redriven(plan) {
  const words = plan.fate === "already_redriven" ? "It was sent again before, as" : "It is sent again as";
  return `${words} ${plan.new_request_id}`;
}

async function confirmed(event) {
  event.preventDefault();
  at("do").disabled = true;
  const asked = pending;
  const done = await send(asked, false);
  if (!done) return;
  at("confirming").close();
  say(`Done: ${asked.title}. It is recorded as asked for by console:${auth.by}.`);
}

function say(words) {
  put(at("done"), words);
  at("done").hidden = false;
  setTimeout(() => { at("done").hidden = true; }, SAID_MS);
}

function unlocked() {
  auth.by = at("who").value.trim();
  auth.token = at("token").value.trim();
  at("token").value = "";
  document.body.classList.add("unlocked");
  put(at("unlock"), `Lock changes (${visible(auth.by)})`);
}

export function begin() {
  at("unlock").addEventListener("click", () => (auth.token ? lock() : at("unlocking").showModal()));
  at("unlocking").querySelector("form").addEventListener("submit", unlocked);
  at("confirming").querySelector("form").addEventListener("submit", confirmed);
  for (const dialog of [at("unlocking"), at("confirming")]) {
    dialog.querySelector("button[value=no]").addEventListener("click", () => dialog.close());
  }
}
