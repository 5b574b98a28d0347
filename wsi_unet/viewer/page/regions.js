// Regions that the user draws, and what they hold. They are kept on the page only.

import { ask, el, save, write } from "./dom.js";
import { tracePath } from "./overlay.js";

export class Regions {
  constructor(page) {
    this.page = page;
    this.features = [];
    this.mode = null;
    this.points = []; // of the region being drawn, slide px
    this.surface = document.querySelector("#surface");
    this.list = el("div");
    this.section = el("section", { id: "regions" },
      el("h2", {}, "Regions"),
      el("div", { className: "faint" }, "Draw a rectangle (R) or a polygon (P) to see what it holds."),
      this.list);
    page.overlay.painters.push((context, zoom) => this.paint(context, zoom));
    const { surface } = this;
    surface.addEventListener("pointerdown", (event) => this.press(event));
    surface.addEventListener("pointermove", (event) => this.move(event));
    surface.addEventListener("pointerup", (event) => this.release(event));
    surface.addEventListener("dblclick", () => this.finish());
  }

  draw(mode) {
    if (this.mode === mode) {
      this.leave();
      return;
    }
    this.leave();
    this.mode = mode;
    this.surface.hidden = false;
    document.querySelector(`#draw-${mode}`).setAttribute("aria-pressed", "true");
    this.page.say(mode === "rectangle"
      ? "Drag a rectangle; Esc leaves off"
      : "Click corners; double click or Enter ends, Esc leaves off");
  }

  leave() {
    if (!this.mode) return;
    document.querySelector(`#draw-${this.mode}`).setAttribute("aria-pressed", "false");
    this.mode = null;
    this.points = [];
    this.surface.hidden = true;
    this.page.say("");
    this.page.overlay.draw();
  }

  locate(event) {
    const stage = this.surface.getBoundingClientRect();
    return this.page.view.locate(event.clientX - stage.left, event.clientY - stage.top);
  }

  press(event) {
    const point = this.locate(event);
    if (this.mode === "rectangle") {
      this.surface.setPointerCapture(event.pointerId);
      this.points = [point, point];
    } else this.points.push(point);
    this.page.overlay.draw();
  }

  move(event) {
    if (this.mode === "rectangle" && this.points.length) this.points[1] = this.locate(event);
    this.page.overlay.draw();
  }

  release() {
    if (this.mode === "rectangle" && this.points.length) this.finish();
  }

  ring() {
    if (this.mode !== "rectangle") return this.points.map(({ x, y }) => [x, y]);
    const [a, b] = this.points;
    return [[a.x, a.y], [b.x, a.y], [b.x, b.y], [a.x, b.y]];
  }

  finish() {
    if (!this.mode || this.points.length < 2) return;
    const ring = tidy(this.ring());
    this.leave();
    if (ring.length >= 3) this.add(ring);
  }

  add(ring) {
    const number = 1 + Math.max(0, ...this.features.map(({ properties }) => properties.number));
    const closed = [...ring, ring[0]];
    const feature = {
      type: "Feature",
      geometry: { type: "Polygon", coordinates: [closed] },
      properties: { objectType: "annotation", name: `region ${number}`, number },
    };
    this.features.push(feature);
    this.show();
    this.measure(feature);
    this.page.overlay.draw();
  }

  collection(features) {
    const plain = features.map(({ measured, problem, ...feature }) => feature);
    return JSON.stringify({ type: "FeatureCollection", features: plain });
  }

  async measure(feature) {
    if (!this.page.groups.length) return;
    try {
      feature.measured = await ask("regions", { method: "POST", body: this.collection([feature]) });
    } catch (error) {
      feature.problem = error.message;
    }
    this.show();
  }

  show() {
    const download = () => save(
      new Blob([this.collection(this.features)], { type: "application/geo+json" }),
      `${this.page.about.name.replace(/\.(ome\.)?zarr$/, "")}-regions.geojson`);
    this.list.replaceChildren(
      ...this.features.map((feature) => this.describe(feature)),
      this.features.length ? el("button", { onclick: download, id: "save-regions" }, "Save as GeoJSON") : "");
  }

  describe(feature) {
    const remove = () => {
      this.features = this.features.filter((each) => each !== feature);
      this.show();
      this.page.overlay.draw();
    };
    const head = el("div", { className: "row" },
      el("span", { className: "grow" }, feature.properties.name),
      el("button", { onclick: remove, title: "Remove" }, "×"));
    if (feature.problem) return el("div", {}, head, el("div", { className: "note" }, feature.problem));
    if (!feature.measured) {
      return el("div", {}, head, el("div", { className: "faint" }, this.page.groups.length ? "measuring …" : ""));
    }
    const [first] = feature.measured;
    const unit = first && "class_area_mm2" in first ? "mm2" : "px";
    const rows = feature.measured.map((row) => el("tr", {},
      el("td", { className: "name" }, row.class),
      el("td", {}, write(row[`class_area_${unit}`])),
      el("td", {}, row.share === null ? "–" : `${write(100 * row.share)} %`),
      el("td", {}, "objects" in row ? write(row.objects) : "–")));
    return el("div", {}, head,
      el("div", { className: "faint" },
        `${write(first?.[`region_area_${unit}`])} ${unit === "mm2" ? "mm²" : "px"} looked at`),
      el("table", { className: "measured" },
        el("thead", {}, el("tr", {}, ["class", unit === "mm2" ? "mm²" : "px", "share", "objects"]
          .map((name) => el("th", {}, name)))),
        el("tbody", {}, rows)));
  }

  paint(context, zoom) {
    const rings = this.features.map(({ geometry }) => geometry.coordinates[0].flat());
    if (this.points.length > 1) rings.push(this.ring().flat());
    context.lineJoin = "round";
    for (const [width, colour] of [[4, "#fff"], [2, "#c2185b"]]) {
      context.lineWidth = width / zoom;
      context.strokeStyle = colour;
      for (const ring of rings) context.stroke(tracePath([ring]));
    }
  }
}

// Leaves out points that repeat the one before, which a double click makes.
function tidy(ring) {
  const rounded = ring.map((point) => point.map((value) => Number(value.toFixed(2))));
  return rounded.filter(([x, y], index) => {
    const [px, py] = rounded[(index + rounded.length - 1) % rounded.length];
    return x !== px || y !== py;
  });
}
