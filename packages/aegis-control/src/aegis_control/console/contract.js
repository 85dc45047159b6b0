// A service's contract: its methods with the fields of their requests and replies, as its instances registered them.

import { at, h, id, visible } from "./dom.js";
import { get } from "./api.js";

const ROUTE = { resource: "names a resource", group: "any instance answers", read: "reads a resource's state" };
const BOUNDS = [
  ["minimum", "≥ "], ["exclusiveMinimum", "> "], ["maximum", "≤ "], ["exclusiveMaximum", "< "], ["multipleOf", "a multiple of "],
  ["minLength", "length ≥ "], ["maxLength", "length ≤ "], ["minItems", "items ≥ "], ["maxItems", "items ≤ "], ["pattern", "pattern "],
];

/** A part of this page with an address of its own: `/#contract=accounts`. */
export const address = (service) => `#contract=${encodeURIComponent(service)}`;

export async function showContract(service) {
  const section = at("answer");
  section.hidden = false;
  at("answer-title").textContent = `Contract of ${visible(service)}`;
  at("story").replaceChildren(h("p", {}, "Looking…"));
  section.scrollIntoView({ block: "start" });
  section.focus({ preventScroll: true });
  try {
    at("story").replaceChildren(...told(await get("/api/contract", { service })));
  } catch (error) {
    at("story").replaceChildren(h("p", { class: "bad" }, `✕ ${visible(error.message)}`));
  }
}

function told(contract) {
  const document = `/api/asyncapi?${new URLSearchParams({ service: contract.service })}`;
  const name = `${contract.service}-asyncapi.json`;
  const head = h("p", { class: "tools" }, `version ${visible(contract.version || "not given")}`,
    h("a", { href: document, download: name }, "as an AsyncAPI document"));
  return [head, ...contract.methods.flatMap(tellMethod), ...(contract.events ?? []).flatMap(tellEvent)];
}

const tellEvent = (event) => [
  h("h3", {}, id(event.name), " ", h("span", { class: "muted" }, "an event")),
  ...tellSchema("payload", event.payload_schema),
];

function tellMethod(method) {
  const route = method.reads ? "read" : method.targeted ? "resource" : "group";
  return [
    h("h3", {}, id(method.name), " ", h("span", { class: "muted" }, ROUTE[route])),
    ...tellSchema("request", method.request_schema),
    ...tellSchema("reply", method.reply_schema),
  ];
}

/** The type's own fields, then each type that it holds. */
function tellSchema(what, schema) {
  const types = Object.entries(schema.$defs ?? {});
  const own = resolved(schema, schema);
  return [
    h("h4", {}, `${what}: ${visible(own.title ?? typeOf(schema))}`),
    tableOf(own, schema),
    ...types.filter(([, type]) => type !== own).flatMap(([name, type]) => [h("h4", { class: "held" }, visible(name)), tableOf(type, schema)]),
  ];
}

function tableOf(type, whole) {
  const fields = Object.entries(type.properties ?? {});
  if (!fields.length) return h("p", { class: "muted" }, visible([typeOf(type), bounds(type), type.description].filter(Boolean).join("; ")));
  const needed = new Set(type.required ?? []);
  const rows = fields.map(([name, field]) => h("tr", {}, h("td", {}, id(name)), h("td", {}, visible(typeOf(field))),
    h("td", {}, needed.has(name) ? "needed" : byDefault(field)), h("td", {}, visible(about(field, whole)))));
  const heads = ["Field", "Type", "Default", "What"].map((text) => h("th", {}, text));
  return h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ...heads)), h("tbody", {}, ...rows)));
}

const byDefault = (field) => ("default" in field ? visible(JSON.stringify(field.default)) : "optional");

const about = (field, whole) => [field.description ?? resolved(field, whole).description, bounds(field)].filter(Boolean).join("; ");

function resolved(schema, whole) {
  const name = /^#\/\$defs\/(.*)$/.exec(schema?.$ref ?? "")?.[1];
  return (name && whole.$defs?.[name]) || schema;
}

function typeOf(schema) {
  if (typeof schema !== "object" || schema === null) return "anything";
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  const parts = schema.anyOf ?? schema.oneOf ?? schema.allOf;
  if (parts) return [...new Set(parts.map(typeOf))].join(schema.allOf ? " & " : " or ");
  if (schema.prefixItems) return `[${schema.prefixItems.map(typeOf).join(", ")}]`;
  if (schema.type === "array") return `list of ${typeOf(schema.items)}`;
  if (schema.type === "object" && !schema.properties) return `map of ${typeOf(schema.additionalProperties)}`;
  const name = Array.isArray(schema.type) ? schema.type.join(" or ") : (schema.type ?? "anything");
  return schema.format ? `${name} (${schema.format})` : name;
}

/** A choice's bounds are those of its parts. */
const bounds = (schema) =>
  [schema, ...(schema.anyOf ?? [])].flatMap((part) => BOUNDS.filter(([word]) => word in part).map(([word, sign]) => `${sign}${part[word]}`)).join(", ");

function follow() {
  const found = /^#contract=(.+)$/.exec(location.hash);
  if (!found) return;
  try {
    void showContract(decodeURIComponent(found[1]));
  } catch {
    // no name that was ever written here
  }
}

export function begin() {
  addEventListener("hashchange", follow);
  at("answer-close").addEventListener("click", () => {
    if (location.hash.startsWith("#contract=")) history.replaceState(null, "", location.pathname);
  });
  follow();
}
