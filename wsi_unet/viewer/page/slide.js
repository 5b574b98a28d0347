// The page of one slide: puts the parts together.

import { ask, el } from "./dom.js";
import { Layers } from "./layers.js";
import { ObjectOutlines } from "./objects.js";
import { Overlay } from "./overlay.js";
import { Panel } from "./panel.js";
import { Regions } from "./regions.js";
import { takeScreenshot } from "./screenshot.js";
import { View } from "./view.js";

const OSD = window.OpenSeadragon;

class Page {
  constructor(about) {
    this.about = about;
    this.versions = about.runs.map((run) => run.version);
    this.viewer = new OSD.Viewer({
      element: document.querySelector("#viewer"),
      drawer: "canvas",
      showNavigationControl: false,
      showNavigator: true,
      navigatorPosition: "TOP_RIGHT",
      navigatorSizeRatio: 0.16,
      navigatorBackground: "#fff",
      navigatorBorderColor: "#888",
      navigatorAutoFade: false,
      subPixelRoundingForTransparency: OSD.SUBPIXEL_ROUNDING_OCCURRENCES.ALWAYS,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: true },
      maxZoomPixelRatio: 24,
      minZoomImageRatio: 0.7,
      visibilityRatio: 0.3,
      animationTime: 0.35,
      imageLoaderLimit: 5,
      timeout: 120000,
    });
    this.layers = new Layers(this.viewer, about);
    this.view = new View(this.viewer, about);
    this.overlay = new Overlay(this.viewer, this.view);
    this.objects = new ObjectOutlines(this);
    this.regions = new Regions(this);
    this.panel = new Panel(this);
    this.layers.add("picture", { query: () => `?v=${about.key}` });
    this.build();
    this.viewer.addOnceHandler("open", () => this.start());
    this.viewer.world.addOnceHandler("add-item", () => this.start());
    this.viewer.addHandler("canvas-click", (event) => this.click(event));
    this.follow();
    bindKeys(this);
  }

  start() {
    if (this.started) return;
    this.started = true;
    requestAnimationFrame(() => {
      this.viewer.viewport.goHome(true);
      this.view.restore();
      this.overlay.draw();
      document.body.dataset.ready = "yes";
    });
    addEventListener("hashchange", () => this.view.restore());
  }

  // Makes the layers that belong to the result, above the slide's.
  build() {
    this.layers.removeAbove(1);
    const { about } = this;
    this.heat = about.probabilities.length
      ? this.layers.add("heat/0/0", { visible: false, opacity: 0.65 })
      : null;
    this.groups = about.groups.map((group, number) => {
      const shown = new Set(group.classes.map(({ value }) => value));
      const state = { number, shown, style: group.objects ? "fill" : "both", group };
      state.layer = this.layers.add(`classes/${number}`, {
        opacity: group.objects ? 0.45 : 0.9,
        query: () => `?show=${[...state.shown].sort((a, b) => a - b)}&style=${state.style}&v=${this.version(group.run)}`,
      });
      return state;
    });
    this.looks = about.runs.map((run, number) =>
      this.layers.add(`looks/${number}`, {
        query: () => `?v=${this.version(number)}`,
        visible: !run.everywhere,
      }));
    this.panel.build();
    this.objects.build();
  }

  version(run) {
    return `${this.about.key}-${this.about.revision.slice(0, 12)}-${this.versions[run]}`;
  }

  // Listens for blocks that are done by now.
  follow() {
    const events = new EventSource("events");
    events.addEventListener("message", ({ data }) => this.hear(JSON.parse(data)));
    events.addEventListener("error", () => this.lose());
    events.addEventListener("open", () => this.lose(false));
    addEventListener("pagehide", () => events.close());
  }

  // Says that the server has ended, and stops saying so once it is back.
  lose(lost = true) {
    if (lost !== Boolean(this.lost)) this.say(lost ? "wsi-unet view has ended, or can't be reached" : "");
    this.lost = lost;
  }

  hear(state) {
    this.panel.showProblems(state.problems ?? []);
    if (state.revision === undefined) return;
    if (state.revision !== this.about.revision) {
      this.reopen();
      return;
    }
    state.runs.forEach((run, number) => {
      this.about.runs[number] = run;
      if (run.version !== this.versions[number]) {
        this.versions[number] = run.version;
        this.groups.filter(({ group }) => group.run === number)
          .forEach(({ layer }) => this.layers.refresh(layer));
        this.layers.refresh(this.looks[number]);
        if (this.heat) this.layers.refresh(this.heat);
      }
    });
    this.panel.showRuns();
  }

  // The result has changed as a whole: groups have come, or a run has finished.
  async reopen() {
    if (this.reopening) return;
    this.reopening = true;
    try {
      const about = await ask("description");
      if (about.revision === this.about.revision) return;
      Object.assign(this.about, about);
      this.versions = about.runs.map((run) => run.version);
      this.build();
    } catch (error) {
      this.panel.showProblems([error.message]);
    } finally {
      this.reopening = false;
    }
  }

  click(event) {
    if (!event.quick) return;
    const { x, y } = this.view.locate(event.position.x, event.position.y);
    const failed = this.about.runs.flatMap((run) => run.failures)
      .find(({ box }) => x >= box[0] && y >= box[1] && x < box[2] && y < box[3]);
    if (failed) this.panel.showFailure(failed);
    else this.objects.select(x, y);
  }

  say(text) {
    const hint = document.querySelector("#hint");
    hint.textContent = text;
    hint.hidden = !text;
  }

  setClasses(state, change) {
    change(state);
    this.layers.refresh(state.layer);
    this.objects.overlay();
  }
}

function bindKeys(page) {
  const { viewer, view } = page;
  const zoomBy = (factor) => {
    viewer.viewport.zoomBy(factor);
    viewer.viewport.applyConstraints();
  };
  const actions = {
    "zoom-in": () => zoomBy(1.6),
    "zoom-out": () => zoomBy(1 / 1.6),
    home: () => viewer.viewport.goHome(),
    "draw-rectangle": () => page.regions.draw("rectangle"),
    "draw-polygon": () => page.regions.draw("polygon"),
    screenshot: () => takeScreenshot(page),
    "full-screen": () => (document.fullscreenElement
      ? document.exitFullscreen()
      : document.documentElement.requestFullscreen()),
    "panel-toggle": () => document.body.classList.toggle("bare"),
    "help-open": () => document.querySelector("#help").showModal(),
  };
  for (const [id, action] of Object.entries(actions)) {
    document.getElementById(id).addEventListener("click", action);
  }
  const keys = {
    "+": actions["zoom-in"], "=": actions["zoom-in"], "-": actions["zoom-out"], 0: actions.home,
    1: () => view.go({ ...view.centre, zoom: 1 }),
    r: actions["draw-rectangle"], p: actions["draw-polygon"], s: actions.screenshot,
    f: actions["full-screen"], "?": actions["help-open"],
    l: () => page.panel.toggleLabels(), o: () => page.panel.nextStyle(),
    h: actions["panel-toggle"], w: () => page.panel.toggleLooks(),
    "[": () => page.panel.changeOpacity(-0.1), "]": () => page.panel.changeOpacity(0.1),
    Enter: () => page.regions.finish(), Escape: () => page.regions.leave(),
  };
  viewer.innerTracker.keyHandler = null; // OpenSeadragon's own keys: r would turn the slide
  viewer.innerTracker.keyDownHandler = null;
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("#help").open) return;
    const field = event.target.closest("input, select, button, textarea, #panel");
    if (field && (field.matches("select, input[type=range]") || event.key === "Enter")) return;
    if (steps[event.key]) {
      const [x, y] = steps[event.key].map((step) => (80 * step) / view.zoom / view.width);
      viewer.viewport.panBy(new OSD.Point(x, y));
      viewer.viewport.applyConstraints();
      event.preventDefault();
      return;
    }
    const act = keys[event.key] ?? keys[event.key.toLowerCase()];
    if (act) {
      act();
      event.preventDefault();
    }
  });
}

async function open() {
  try {
    const about = await ask("description");
    document.title = about.name;
    window.page = new Page(about); // for tests and the console
  } catch (error) {
    document.querySelector("#panel").append(el("p", { className: "note" }, error.message));
  }
}

open();
