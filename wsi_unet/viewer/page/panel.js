// The panel: what was found, what is being found, and how it is shown.

import { ask, duration, el, speak, swatch, write } from "./dom.js";

const STYLES = { fill: "areas", outline: "outlines", both: "both" };
const LOOKS = [
  ["hatch-not-looked", "not looked at"],
  ["hatch-waiting", "not computed yet"],
  ["hatch-failed", "failed"],
];

export class Panel {
  constructor(page) {
    this.page = page;
    this.root = document.querySelector("#panel");
    this.problems = el("div");
    this.runs = el("section", { id: "runs" });
    this.selected = el("section", { id: "selected", hidden: true });
  }

  build() {
    const { page } = this;
    const { about } = page;
    this.root.replaceChildren(...[
      el("section", {},
        el("h1", {}, about.name),
        about.slide && about.slide !== about.name ? el("div", { className: "faint" }, about.slide) : null,
        about.note ? el("div", { className: "note", id: "note" }, sentence(about.note)) : null,
        this.problems),
      this.runs,
      page.groups.map((state) => this.makeGroup(state)),
      this.selected,
      about.probabilities.length ? this.makeHeat() : [],
      about.runs.length ? this.makeLooks() : [],
      page.regions.section,
    ].flat());
    this.showProblems(about.problems);
    this.showRuns();
  }

  makeGroup(state) {
    const { page } = this;
    const { group } = state;
    const redraw = (change) => page.setClasses(state, change);
    state.toggle = el("input", {
      type: "checkbox", checked: true, title: "Show or hide",
      onchange: () => {
        page.layers.setVisible(state.layer, state.toggle.checked);
        page.objects.update();
      },
    });
    state.opacity = el("input", {
      type: "range", min: 0, max: 1, step: 0.05, value: state.layer.opacity, title: "Opacity",
      "aria-label": "Opacity",
      oninput: () => page.layers.setOpacity(state.layer, Number(state.opacity.value)),
    });
    state.select = el("select", {
      "aria-label": "Areas or outlines",
      onchange: () => redraw(() => { state.style = state.select.value; }),
    }, Object.entries(STYLES).map(([value, name]) => el("option", { value }, name)));
    state.select.value = state.style;
    return el("section", { className: "group" },
      el("div", { className: "row" },
        el("label", { className: "row grow" }, state.toggle, el("h2", {}, group.name)),
        group.finished ? null : el("span", { className: "faint" }, "not finished")),
      group.model && group.model !== group.name ? el("div", { className: "faint" }, group.model) : null,
      el("div", { className: "row" }, state.select, state.opacity),
      this.makeClasses(state, redraw),
      group.objects ? this.makeHistogram(state) : null);
  }

  makeClasses(state, redraw) {
    const { group } = state;
    const objects = new Map((group.objects?.classes ?? []).map((each) => [each.value, each]));
    const known = group.classes.some(({ mm2 }) => mm2 !== null);
    const unit = group.objects?.unit === "µm" ? "µm²" : "px²";
    const head = ["class", known ? "mm²" : "px"];
    if (objects.size) head.push("objects", "/mm²", `mean ${unit}`);
    const rows = group.classes.map((each) => {
      const toggle = el("input", {
        type: "checkbox", checked: true,
        onchange: () => redraw(() => {
          if (toggle.checked) state.shown.add(each.value);
          else state.shown.delete(each.value);
        }),
      });
      const found = objects.get(each.value);
      return el("tr", {},
        el("td", { className: "name" }, el("label", {}, toggle, swatch(each.colour), el("span", {}, each.name))),
        el("td", {}, write(known ? each.mm2 : each.pixels)),
        objects.size
          ? [el("td", {}, write(found?.objects)), el("td", {}, write(found?.density_per_mm2)),
            el("td", {}, write(found?.mean_area))]
          : []);
    });
    return el("table", { className: "classes" },
      el("thead", {}, el("tr", {}, head.map((name) => el("th", {}, name)))),
      el("tbody", {}, rows));
  }

  makeHistogram(state) {
    const { objects, classes } = state.group;
    const outlines = el("input", {
      type: "checkbox", checked: this.page.objects.shown,
      onchange: () => {
        this.page.objects.shown = outlines.checked;
        this.page.objects.update();
      },
    });
    const measurement = el("select", { "aria-label": "Measurement" },
      el("option", { value: "" }, "histogram of …"),
      objects.measurements.map((name, number) => el("option", { value: number }, name)));
    const value = el("select", { "aria-label": "Class" },
      classes.map((each) => el("option", { value: each.value }, each.name)));
    const drawing = el("div", { className: "drawing" });
    const show = async () => {
      if (measurement.value === "") return drawing.replaceChildren();
      try {
        const asked = `measurement=${measurement.value}&value=${value.value}`;
        const found = await ask(`histogram/${state.number}?${asked}`);
        return drawing.replaceChildren(...drawHistogram(found));
      } catch (error) {
        return this.showProblems([error.message]);
      }
    };
    measurement.addEventListener("change", show);
    value.addEventListener("change", show);
    return el("div", {},
      el("label", { className: "row" }, outlines, "outline objects when near"),
      el("div", { className: "row" }, measurement, classes.length > 1 ? value : null),
      drawing);
  }

  makeHeat() {
    const { page } = this;
    const { heat } = page;
    const choices = page.about.probabilities.flatMap(({ classes }, group) =>
      classes.map((name, channel) => ({ path: `heat/${group}/${channel}`, name })));
    const threshold = el("input", { type: "range", min: 0, max: 255, value: 64, "aria-label": "Threshold" });
    const said = el("span", { className: "faint" });
    const select = el("select", { "aria-label": "Probability of" },
      el("option", { value: "" }, "none"),
      choices.map(({ path, name }) => el("option", { value: path }, name)));
    heat.query = () => `?threshold=${threshold.value}&v=${page.version(0)}`;
    const show = () => {
      said.textContent = `≥ ${(threshold.value / 255).toFixed(2)}`;
      if (select.value) heat.path = select.value;
      heat.visible = Boolean(select.value);
      page.layers.refresh(heat);
    };
    select.addEventListener("change", show);
    threshold.addEventListener("change", show);
    said.textContent = "≥ 0.25";
    return el("section", {},
      el("h2", {}, "Probability"),
      el("div", { className: "row" }, select, threshold, said),
      el("div", { className: "heat" }));
  }

  makeLooks() {
    const { page } = this;
    const everywhere = page.about.runs.every((run) => run.everywhere);
    this.looksToggle = el("input", {
      type: "checkbox", checked: !everywhere,
      onchange: () => page.looks.forEach((layer) => page.layers.setVisible(layer, this.looksToggle.checked)),
    });
    const known = page.about.runs.every((run) => run.known);
    return el("section", {},
      el("label", { className: "row" }, this.looksToggle, el("h2", {}, "Where the model looked")),
      everywhere && known ? el("div", { className: "faint" }, "everywhere") : null,
      known ? null : el("div", { className: "note" }, "The run's progress isn't kept beside the labels, so where it looked isn't known."),
      everywhere ? null : LOOKS.map(([name, text]) =>
        el("div", { className: "row" }, el("span", { className: `swatch ${name}` }), text)));
  }

  showRuns() {
    const { runs } = this.page.about;
    const shown = runs.filter((run) => run.live || run.failures.length);
    this.runs.hidden = !shown.length;
    this.runs.replaceChildren(...shown.flatMap((run) => {
      const { total, done, failed, mpx_per_s: speed, seconds_left: left } = run.progress;
      const words = [`${done} of ${total} blocks`];
      if (failed) words.push(`${failed} failed`);
      if (speed) words.push(`${write(speed, 2)} Mpx/s`);
      if (speed && left) words.push(`about ${duration(left)} left`);
      return [
        el("h2", {}, `${run.name}: ${run.live ? "being computed" : "done"}`),
        el("progress", { value: done, max: total }),
        el("div", { className: "faint", id: "progress" }, words.join(" · ")),
        run.failures.length
          ? el("ul", { className: "failures" }, run.failures.slice(0, 50).map(({ error }) => el("li", {}, speak(error))))
          : "",
      ];
    }));
  }

  showProblems(problems) {
    this.problems.replaceChildren(
      ...problems.map((text) => el("div", { className: "note problem", role: "alert" }, speak(text))));
  }

  showFailure({ error }) {
    this.showSelected("Failed block", [el("div", { className: "note" }, speak(error))]);
  }

  showObject(row) {
    if (!row) {
      this.selected.hidden = true;
      return;
    }
    const values = Object.entries(row).flatMap(([name, value]) =>
      [el("dt", {}, name), el("dd", {}, typeof value === "number" ? write(value, 5) : String(value ?? "–"))]);
    this.showSelected("Object", [el("dl", { className: "values" }, values)]);
  }

  showSelected(title, content) {
    this.selected.hidden = false;
    this.selected.replaceChildren(
      el("div", { className: "row" },
        el("h2", { className: "grow" }, title),
        el("button", {
          title: "Close",
          onclick: () => {
            this.selected.hidden = true;
            this.page.objects.selected = null;
            this.page.overlay.draw();
          },
        }, "×")),
      ...content);
    this.selected.scrollIntoView({ block: "nearest" });
  }

  toggleLabels() {
    const shown = this.page.groups.some(({ toggle }) => toggle.checked);
    for (const { toggle } of this.page.groups) {
      if (toggle.checked === shown) toggle.click();
    }
  }

  nextStyle() {
    const styles = Object.keys(STYLES);
    for (const state of this.page.groups) {
      this.page.setClasses(state, () => {
        state.style = styles[(styles.indexOf(state.style) + 1) % styles.length];
        state.select.value = state.style;
      });
    }
  }

  changeOpacity(by) {
    for (const { opacity } of this.page.groups) {
      opacity.value = Number(opacity.value) + by;
      opacity.dispatchEvent(new Event("input"));
    }
  }

  toggleLooks() {
    if (this.looksToggle) this.looksToggle.click();
  }
}

function sentence(text) {
  return `${text.charAt(0).toUpperCase()}${speak(text.slice(1))}.`;
}

function drawHistogram({ count, mean, median, edges, counts }) {
  if (!count) return [el("div", { className: "faint" }, "no objects")];
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${counts.length} 100`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", "histogram");
  const most = Math.max(...counts);
  counts.forEach((number, index) => {
    const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const height = (100 * number) / most;
    for (const [name, value] of Object.entries({ x: index + 0.05, y: 100 - height, width: 0.9, height })) {
      bar.setAttribute(name, value);
    }
    svg.append(bar);
  });
  return [
    svg,
    el("div", { className: "row faint" },
      el("span", { className: "grow" }, write(edges[0])), el("span", {}, write(edges.at(-1)))),
    el("div", { className: "faint" },
      `${write(count)} objects · mean ${write(mean)} · median ${write(median)}; the outermost 0.5 % at the ends`),
  ];
}
