// What became of a request: the same answer as `ipc-cli explain`.

import { at, h, put, visible } from "./dom.js";
import { get } from "./api.js";
import { clock, moment, span } from "./format.js";

/** Does it look like `<caller>.<n>`? A resource may look so too: then both are searched for. */
export const isRequestId = (text) => /^[!-~]+\.[!-~]+$/.test(text);

export async function explain(requestId) {
  const section = at("answer");
  section.hidden = false;
  put(at("answer-title"), `Request ${visible(requestId)}`);
  at("story").replaceChildren(h("p", {}, "Looking…"));
  section.scrollIntoView({ block: "start" });
  section.focus({ preventScroll: true });
  try {
    at("story").replaceChildren(...told(await get("/api/explain", { request_id: requestId })));
  } catch (error) {
    at("story").replaceChildren(h("p", { class: "bad" }, `✕ ${visible(error.message)}`));
  }
}

function told(story) {
  const accepted = story.steps.find((step) => step.word === "accepted");
  const pairs = [
    ["standing", story.standing],
    ["method", `${story.service}.${story.method || "?"}`],
    ["route", story.resource === null ? "group" : `resource ${story.resource}`],
    ["caller", story.caller],
    ["trace", story.trace_id || "-"],
    ["accepted", accepted ? moment(accepted.at_s) : "its request is not kept any more"],
    ["deadline", story.deadline_s ? moment(story.deadline_s) : "-"],
  ];
  const facts = pairs.flatMap(([name, value]) => [h("dt", {}, name), h("dd", { class: name === "standing" ? "standing" : "" }, visible(value))]);
  const zero = (accepted ?? story.steps[0])?.at_s;
  const rows = story.steps.map((step) => h("tr", {},
    h("td", {}, clock(step.at_s, 3)), h("td", { class: "number" }, span(step.at_s - zero)), h("td", {}, step.word), h("td", {}, visible(step.text))));
  const heads = h("tr", {}, h("th", {}, "Time"), h("th", { class: "number" }, "After"), h("th", {}, "What"), h("th", {}, "How"));
  return [h("dl", {}, ...facts), h("div", { class: "scroll" }, h("table", {}, h("thead", {}, heads), h("tbody", {}, ...rows)))];
}

export function begin() {
  at("answer-close").addEventListener("click", () => {
    at("answer").hidden = true;
    at("text").focus();
  });
}
