// What is drawn over the tiles: outlines of objects and of regions.

export class Overlay {
  constructor(viewer, view) {
    this.view = view;
    this.canvas = document.querySelector("#overlay");
    viewer.canvas.append(this.canvas); // below OpenSeadragon's map of the whole slide
    this.painters = [];
    for (const event of ["update-viewport", "resize", "open"]) {
      viewer.addHandler(event, () => this.draw());
    }
  }

  draw() {
    const { canvas } = this;
    const ratio = window.devicePixelRatio || 1;
    const { width, height } = document.querySelector("#stage").getBoundingClientRect();
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    const { zoom, left, top } = this.view.transform;
    context.setTransform(zoom * ratio, 0, 0, zoom * ratio, left * ratio, top * ratio);
    for (const paint of this.painters) paint(context, zoom);
  }
}

export function tracePath(rings) {
  const path = new Path2D();
  for (const ring of rings) {
    for (let i = 0; i < ring.length; i += 2) {
      if (i) path.lineTo(ring[i], ring[i + 1]);
      else path.moveTo(ring[i], ring[i + 1]);
    }
    path.closePath();
  }
  return path;
}
