// Dead letters: which requests failed for good, and why.

import { at, h, id, put, sync, visible } from "./dom.js";
import { get } from "./api.js";
import { count, many, moment } from "./format.js";
import { propose } from "./actions.js";
import { explain } from "./explain.js";

const SHOWN = 20;
let all = false;
let letters = [];

export async function readLetters() {
  const told = await get("/api/dlq");
  letters = told.letters;
  const total = Math.max(told.total ?? 0, letters.length);
  const more = total > letters.length ? `the newest ${count(letters.length)} of ${count(total)}; all: ipc-cli dlq list` : "";
  put(at("letters-count"), total ? `✕ ${many(total, "request")} failed for good ${more}` : "● none");
  show();
}

function show() {
  const items = all ? letters : letters.slice(0, SHOWN);
  sync(at("letter-list"), [...items, ...(letters.length > SHOWN ? ["more"] : [])], (one) => one.request_id ?? one, make,
    (row, one) => one === "more" && put(row.firstChild, all ? "Show fewer" : `Show all ${letters.length}`));
}

function make(letter) {
  if (letter === "more") return h("li", {}, h("button", { onclick: () => { all = !all; show(); } }));
  const name = letter.request_id;
  return h("li", {},
    h("div", {}, h("strong", { class: "bad" }, `✕ ${visible(letter.error_code)}: ${visible(letter.error)}`)),
    h("div", {}, `${letter.service}.${letter.method}`, " ", letter.resource === null ? "" : id(letter.resource)),
    h("div", { class: "muted" }, `${moment(letter.since)}  `, id(name), " ",
      h("button", { onclick: () => explain(name) }, "Explain"), " ",
      h("button", { class: "act", onclick: () => propose("dlq-redrive", { request_id: name }, `Redrive ${name}`) }, "Redrive")));
}
