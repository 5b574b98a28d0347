// Outlines of the objects in view, where they are large enough to be told apart, and their rows.

import { ask, debounce } from "./dom.js";
import { tracePath } from "./overlay.js";

const SMALLEST = 7; // screen px across a mean object, below which outlines hide it

export class ObjectOutlines {
  constructor(page) {
    this.page = page;
    this.shown = true;
    this.sets = [];
    this.selected = null;
    page.overlay.painters.push((context, zoom) => this.paint(context, zoom));
    const update = debounce(180, () => this.update());
    page.viewer.addHandler("animation-finish", update);
    page.viewer.addHandler("resize", update);
    page.viewer.addHandler("open", update);
  }

  build() {
    this.selected = null;
    this.sets = this.page.groups
      .filter(({ group }) => group.objects)
      .map((state) => ({ state, paths: new Map(), box: null, diameter: this.diameter(state.group.objects) }));
    this.update();
  }

  // Diameter of a mean object, slide px.
  diameter(objects) {
    const areas = objects.classes.map((each) => each.mean_area).filter(Number.isFinite);
    const pixel = objects.unit === "µm" && this.page.about.mpp ? this.page.about.mpp[1] : 1;
    return areas.length ? Math.sqrt((4 * Math.max(...areas)) / Math.PI) / pixel : 0;
  }

  visible(set) {
    return this.shown && set.state.layer.visible && set.diameter * this.page.view.zoom >= SMALLEST;
  }

  async update() {
    const seen = this.page.view.box;
    for (const set of this.sets) {
      if (!this.visible(set) || (set.box && contains(set.box, seen))) continue;
      const box = grow(seen, 0.2);
      try {
        const address = `objects/${set.state.number}?box=${box.map((v) => v.toFixed(1))}`;
        const { many, objects } = await ask(address);
        set.box = many ? null : box;
        set.paths = new Map();
        for (const { value, rings } of objects) {
          if (!set.paths.has(value)) set.paths.set(value, new Path2D());
          set.paths.get(value).addPath(tracePath(rings));
        }
        this.page.say(many ? "Too many objects to outline each; zoom in" : "");
      } catch (error) {
        this.page.panel.showProblems([error.message]);
      }
    }
    this.overlay();
  }

  overlay() {
    this.page.overlay.draw();
  }

  paint(context, zoom) {
    for (const set of this.sets) {
      if (!this.visible(set)) continue;
      for (const { value, colour } of set.state.group.classes) {
        const path = set.paths.get(value);
        if (!path || !set.state.shown.has(value)) continue;
        context.lineJoin = "round";
        context.lineWidth = 3.2 / zoom;
        context.strokeStyle = "rgb(0 0 0 / .45)";
        context.stroke(path);
        context.lineWidth = 1.6 / zoom;
        context.strokeStyle = colour;
        context.stroke(path);
      }
    }
    if (this.selected) {
      context.lineWidth = 6 / zoom;
      context.strokeStyle = "#fff";
      context.stroke(this.selected);
      context.lineWidth = 3 / zoom;
      context.strokeStyle = "#111";
      context.stroke(this.selected);
    }
  }

  async select(x, y) {
    this.selected = null;
    let found = null;
    for (const { state } of this.sets) {
      if (!state.layer.visible) continue;
      try {
        found = await ask(`object/${state.number}?at=${x.toFixed(2)},${y.toFixed(2)}`);
      } catch (error) {
        this.page.panel.showProblems([error.message]);
      }
      if (found) break;
    }
    if (found) this.selected = tracePath(found.rings);
    this.page.panel.showObject(found ? found.row : null);
    this.overlay();
  }
}

function contains(outer, inner) {
  return outer[0] <= inner[0] && outer[1] <= inner[1] && outer[2] >= inner[2] && outer[3] >= inner[3];
}

function grow([x0, y0, x1, y1], share) {
  const [dx, dy] = [(x1 - x0) * share, (y1 - y0) * share];
  return [x0 - dx, y0 - dy, x1 + dx, y1 + dy];
}
