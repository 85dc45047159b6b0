// The last ten minutes as lines, in SVG made by hand. Lines differ by dash as well as by colour.

import { h, put, set } from "./dom.js";
import { clock } from "./format.js";

export const SPAN_S = 600;
const WIDTH = 600;
const HEIGHT = 74;
const GAP_S = 7;
const SVG = "http://www.w3.org/2000/svg";

const shape = (name, attributes) => {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
};

/** The next of 1, 2, 5, 10, 20, … */
function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}

/** `lines`: [{field, css, name}]; `say(point)` puts a point in words. */
export class Plot {
  constructor(title, lines, unit, say) {
    this.lines = lines;
    this.unit = unit;
    this.say = say;
    this.title = title;
    this.points = [];
    this.cursor = null;
    this.svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", tabindex: 0, role: "img" });
    this.grid = shape("line", { class: "grid", x1: 0, x2: WIDTH, y1: HEIGHT / 2, y2: HEIGHT / 2 });
    this.marks = shape("g", {});
    this.paths = lines.map((line) => shape("path", { class: `line ${line.css}` }));
    this.hair = shape("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
    this.svg.append(this.grid, this.marks, ...this.paths, this.hair);
    this.top = h("span", { class: "top" });
    this.words = h("b");
    const keys = lines.map((line) => h("span", { class: `key ${line.css}` }, line.name));
    this.figure = h("figure", {},
      h("figcaption", {}, `${title} `, ...keys.flatMap((key) => [key, " "]), this.words),
      h("div", { class: "plot" }, this.svg, this.top, h("span", { class: "end" }, "10 min ago → now")));
    this.listen();
  }

  listen() {
    this.svg.addEventListener("pointermove", (event) => {
      const box = this.svg.getBoundingClientRect();
      this.point(this.fromS + ((event.clientX - box.left) / box.width) * SPAN_S);
    });
    const leave = () => this.point(null);
    this.svg.addEventListener("pointerleave", leave);
    this.svg.addEventListener("blur", leave);
    this.svg.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step || !this.points.length) return;
      event.preventDefault();
      const here = this.cursor ? this.points.indexOf(this.cursor) : this.points.length;
      const next = this.points[Math.min(this.points.length - 1, Math.max(0, here + step))];
      this.point(next.time_s);
    });
  }

  /** Show the values at a time, or (null) the newest. */
  point(timeS) {
    this.cursor = timeS === null ? null : this.nearest(timeS);
    this.caption();
  }

  nearest(timeS) {
    let best = null;
    for (const point of this.points) if (!best || Math.abs(point.time_s - timeS) < Math.abs(best.time_s - timeS)) best = point;
    return best;
  }

  caption() {
    const shown = this.cursor ?? this.points.at(-1);
    const when = this.cursor ? `${clock(this.cursor.time_s)}: ` : "";
    put(this.words, shown ? when + this.say(shown) : "nothing heard yet");
    this.hair.setAttribute("visibility", this.cursor ? "visible" : "hidden");
    if (this.cursor) {
      const x = this.x(this.cursor.time_s);
      this.hair.setAttribute("x1", x);
      this.hair.setAttribute("x2", x);
    }
    set(this.svg, "aria-label", `${this.title}: ${this.words.textContent}. Arrow keys go through the last ten minutes.`);
  }

  x(timeS) {
    return ((timeS - this.fromS) / SPAN_S) * WIDTH;
  }

  /** `marks`: times at which resources moved. */
  draw(points, nowS, marks) {
    this.points = points.filter((point) => point.time_s >= nowS - SPAN_S);
    this.fromS = nowS - SPAN_S;
    const top = ceiling(Math.max(0, ...this.points.flatMap((point) => this.lines.map((line) => point[line.field] ?? 0))));
    put(this.top, `${top.toLocaleString("en-US")}${this.unit}`);
    this.lines.forEach((line, n) => this.paths[n].setAttribute("d", this.path(line, top)));
    this.marks.replaceChildren(...marks.filter((timeS) => timeS >= this.fromS).map((timeS) =>
      shape("line", { class: "mark", x1: this.x(timeS), x2: this.x(timeS), y1: 0, y2: HEIGHT })));
    if (this.cursor && !this.points.includes(this.cursor)) this.cursor = this.nearest(this.cursor.time_s);
    this.caption();
  }

  /** A line, broken where there is no value; nothing wrong draws no line either. */
  path(line, top) {
    let words = "";
    let beforeS = null;
    for (const point of this.points) {
      const value = point[line.field];
      if (value === null || value === undefined || (line.css === "wrong" && !value)) {
        beforeS = null;
        continue;
      }
      const joins = beforeS !== null && point.time_s - beforeS < GAP_S;
      const y = HEIGHT - 2 - (value / top) * (HEIGHT - 4);
      words += `${joins ? "L" : "M"}${this.x(point.time_s).toFixed(1)} ${y.toFixed(1)}${joins ? "" : "h1"}`;
      beforeS = point.time_s;
    }
    return words;
  }
}
