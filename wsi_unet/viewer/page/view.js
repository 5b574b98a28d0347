// Where the user looks: scale bar, magnification, coordinates, and the part of the address that
// restores the place.

import { debounce, write } from "./dom.js";

const STEPS = [1, 2, 5];

export class View {
  constructor(viewer, about) {
    this.viewer = viewer;
    this.about = about;
    this.width = about.padded[1];
    const show = () => this.show();
    viewer.addHandler("animation", show);
    viewer.addHandler("resize", show);
    viewer.addHandler("animation-finish", debounce(250, () => this.remember()));
    document.querySelector("#stage").addEventListener("pointermove", (event) => this.point(event));
  }

  // Screen pixels per slide pixel.
  get zoom() {
    const { viewport } = this.viewer;
    return (viewport.getZoom(true) * viewport.getContainerSize().x) / this.width;
  }

  get centre() {
    const centre = this.viewer.viewport.getCenter(true);
    return { x: centre.x * this.width, y: centre.y * this.width };
  }

  // The part of the slide that is seen: [x0, y0, x1, y1] in slide px.
  get box() {
    const seen = this.viewer.viewport.getBounds(true);
    return [seen.x, seen.y, seen.x + seen.width, seen.y + seen.height].map((v) => v * this.width);
  }

  // Where the slide's first pixel is on the screen, and screen px per slide px.
  get transform() {
    const [x0, y0] = this.box;
    const { zoom } = this;
    return { zoom, left: -x0 * zoom, top: -y0 * zoom };
  }

  locate(x, y) {
    const { zoom, left, top } = this.transform;
    return { x: (x - left) / zoom, y: (y - top) / zoom };
  }

  go({ x, y, zoom }, immediately = false) {
    const { viewport } = this.viewer;
    const wanted = (zoom * this.width) / viewport.getContainerSize().x;
    viewport.zoomTo(wanted, null, immediately);
    viewport.panTo(new window.OpenSeadragon.Point(x / this.width, y / this.width), immediately);
    viewport.applyConstraints(immediately);
  }

  show() {
    const { mpp } = this.about;
    const { zoom } = this;
    const size = mpp ? mpp[1] / zoom : 1 / zoom; // µm, or slide px, per screen px
    const length = chooseLength(110 * size);
    document.querySelector("#scale-bar").style.width = `${length / size}px`;
    document.querySelector("#scale-text").textContent = nameLength(length, Boolean(mpp));
    document.querySelector("#magnification").textContent = mpp
      ? `${write(10 / size, 3)}×  ·  ${write(size, 3)} µm/px`
      : `${write(100 * zoom, 3)} %`;
    const { drawer } = this.viewer;
    if (drawer.setImageSmoothingEnabled) drawer.setImageSmoothingEnabled(zoom <= 1);
  }

  point(event) {
    const stage = document.querySelector("#stage").getBoundingClientRect();
    const { x, y } = this.locate(event.clientX - stage.left, event.clientY - stage.top);
    const [rows, columns] = this.about.shape;
    const inside = x >= 0 && y >= 0 && x < columns && y < rows;
    document.querySelector("#position").textContent = inside
      ? `x ${Math.floor(x)}  y ${Math.floor(y)} px`
      : "";
  }

  remember() {
    const { x, y } = this.centre;
    const zoom = Number(this.zoom.toPrecision(5));
    const place = `#x=${Math.round(x)}&y=${Math.round(y)}&zoom=${zoom}`;
    history.replaceState(null, "", place);
  }

  restore() {
    const said = new URLSearchParams(location.hash.slice(1));
    const [x, y, zoom] = ["x", "y", "zoom"].map((name) => Number.parseFloat(said.get(name)));
    if ([x, y, zoom].every(Number.isFinite) && zoom > 0) this.go({ x, y, zoom }, true);
    this.show();
  }
}

export function chooseLength(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return Math.max(...STEPS.map((step) => step * power).filter((length) => length <= most));
}

export function nameLength(length, micrometres) {
  if (!micrometres) return `${write(length)} px`;
  return length >= 1000 ? `${write(length / 1000)} mm` : `${write(length)} µm`;
}
