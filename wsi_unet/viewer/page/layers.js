// The layers of tiles: the slide, and what lies over it. All share one grid of tiles.

const OSD = window.OpenSeadragon;
export const TILE = 512;

export class Layers {
  constructor(viewer, about) {
    this.viewer = viewer;
    this.about = about;
    this.layers = []; // from the lowest to the topmost
  }

  // Adds a layer on top; `address` returns the query of its tiles, and null hides it.
  add(path, { query = () => "", opacity = 1, visible = true } = {}) {
    const layer = { path, query, opacity, visible, image: null, next: null, again: false };
    this.layers.push(layer);
    if (visible) this.load(layer);
    return layer;
  }

  source(layer) {
    const { padded, shape, zooms } = this.about;
    const query = layer.query();
    return {
      width: padded[1],
      height: padded[0],
      tileSize: TILE,
      minLevel: 0,
      maxLevel: zooms - 1,
      hasTransparency: () => layer.path !== "picture",
      getTileUrl: (level, x, y) => `${layer.path}/${zooms - 1 - level}/${y}/${x}${query}`,
      tileExists: (level, x, y) => {
        const side = TILE * 2 ** (zooms - 1 - level);
        return x >= 0 && y >= 0 && x * side < shape[1] && y * side < shape[0] && level < zooms;
      },
    };
  }

  // Loads a layer anew; what is seen stays until the new tiles are there.
  load(layer) {
    if (layer.next) {
      layer.again = true;
      return;
    }
    layer.next = "opening";
    const [height, width] = this.about.shape;
    this.viewer.addTiledImage({
      tileSource: this.source(layer),
      opacity: layer.image ? 0.0001 : this.opacityOf(layer), // 0 would load nothing
      clip: new OSD.Rect(0, 0, width, height),
      success: ({ item }) => {
        layer.next = item;
        this.sort();
        if (!layer.image || item.getFullyLoaded()) this.swap(layer, item);
        else {
          item.addHandler("fully-loaded-change", ({ fullyLoaded }) => {
            if (fullyLoaded) this.swap(layer, item);
          });
        }
      },
      error: () => { layer.next = null; },
    });
  }

  swap(layer, item) {
    if (layer.next !== item) return;
    const before = layer.image;
    layer.image = item;
    layer.next = null;
    item.setOpacity(this.opacityOf(layer));
    if (before) this.viewer.world.removeItem(before);
    if (layer.again) {
      layer.again = false;
      this.load(layer);
    }
  }

  sort() {
    const items = this.layers.flatMap(({ image, next }) => [image, next === "opening" ? null : next]);
    items.filter(Boolean).forEach((item, index) => {
      if (this.viewer.world.getIndexOfItem(item) !== index) this.viewer.world.setItemIndex(item, index);
    });
  }

  opacityOf(layer) {
    return layer.visible ? layer.opacity : 0;
  }

  setOpacity(layer, opacity) {
    layer.opacity = opacity;
    if (layer.image) layer.image.setOpacity(this.opacityOf(layer));
  }

  setVisible(layer, visible) {
    layer.visible = visible;
    if (visible && !layer.image && !layer.next) this.load(layer);
    if (layer.image) layer.image.setOpacity(this.opacityOf(layer));
  }

  // Asks for the tiles again, since their query or the labels changed.
  refresh(layer) {
    if (layer.visible) this.load(layer);
    else if (layer.image) {
      this.viewer.world.removeItem(layer.image);
      layer.image = null;
    }
  }

  removeAbove(kept) {
    for (const layer of this.layers.splice(kept)) {
      for (const item of [layer.image, layer.next]) {
        if (item && item !== "opening") this.viewer.world.removeItem(item);
      }
      layer.next = "gone";
    }
  }
}
