// A picture of what is seen, with the scale bar.

import { save } from "./dom.js";

export function takeScreenshot(page) {
  const tiles = page.viewer.drawer.canvas;
  const picture = document.createElement("canvas");
  picture.width = tiles.width;
  picture.height = tiles.height;
  const context = picture.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, picture.width, picture.height);
  context.drawImage(tiles, 0, 0);
  context.drawImage(page.overlay.canvas, 0, 0, picture.width, picture.height);
  drawScale(context, picture);
  picture.toBlob((blob) => save(blob, `${page.about.name.replace(/\.(ome\.)?zarr$/, "")}.png`));
}

function drawScale(context, picture) {
  const ratio = picture.width / document.querySelector("#stage").clientWidth;
  const width = document.querySelector("#scale-bar").clientWidth * ratio;
  const text = document.querySelector("#scale-text").textContent;
  const left = 16 * ratio;
  const bottom = picture.height - 16 * ratio;
  context.font = `${13 * ratio}px system-ui, sans-serif`;
  const room = Math.max(width, context.measureText(text).width);
  context.fillStyle = "rgb(255 255 255 / .85)";
  context.fillRect(left - 8 * ratio, bottom - 28 * ratio, room + 16 * ratio, 36 * ratio);
  context.fillStyle = "#111";
  context.fillText(text, left, bottom - 10 * ratio);
  context.fillRect(left, bottom - 3 * ratio, width, 3 * ratio);
}
