// Building and updating the page. Everything shown is set as text: no string ever becomes markup.

/** An element; `props` are attributes, `on…` listeners; children are elements or text. */
export function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== undefined && child !== ""));
  return node;
}

export const at = (id) => document.getElementById(id);

/** Touch the page only where it changes: a selection or a screen reader is not disturbed. */
export function put(node, text) {
  if (node.textContent !== String(text)) node.textContent = text;
}

export function set(node, name, value) {
  if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

const rowsOf = new WeakMap();

/** Make the children of `parent` those of `items`, in order; rows whose key stays, stay. */
export function sync(parent, items, keyOf, make, update) {
  const old = rowsOf.get(parent) ?? new Map();
  const rows = new Map();
  const keys = new Set(items.map(keyOf));
  for (const [key, row] of old) if (!keys.has(key)) row.remove();
  let next = parent.firstChild;
  for (const item of items) {
    const key = keyOf(item);
    const row = old.get(key) ?? make(item);
    update?.(row, item);
    rows.set(key, row);
    if (row === next) next = row.nextSibling;
    else parent.insertBefore(row, next);
  }
  rowsOf.set(parent, rows);
}

/** What would be invisible, or turn the line around, is written out. */
export function visible(text) {
  return String(text).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

/** An id in its own type and its own direction. */
export const id = (text) => h("bdi", { class: "id" }, visible(text));

const SIGNS = {
  live: "●", held: "●", stalled: "▲", draining: "◐", lost: "✕", evicted: "■",
  waiting: "▲", vacant: "✕", no_standby: "◐", stale: "✕",
};

export function state(node, name, words = name) {
  set(node, "data-state", name);
  put(node, `${SIGNS[name] ?? "?"} ${words}`);
  return node;
}

export const newState = () => h("span", { class: "state" });
