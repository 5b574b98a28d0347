// The page of a folder: its results, and how far each is.

import { ask, el, speak, swatch, write } from "./dom.js";

function makeCard(slide) {
  const blocks = slide.total === null ? "" : ` · ${slide.done} of ${slide.total} blocks`;
  return el("a", { className: "card", href: `slides/${slide.number}/` },
    el("img", { src: `slides/${slide.number}/thumbnail`, alt: "", loading: "lazy" }),
    el("div", {},
      el("strong", {}, slide.name),
      el("span", { className: "faint" }, `${slide.state}${blocks}${slide.failures ? ` · ${slide.failures} failed` : ""}`),
      slide.classes.map((each) => el("div", { className: "row" },
        swatch(each.colour),
        el("span", { className: "grow" }, each.name),
        el("span", {}, each.mm2 === null ? "" : `${write(each.mm2)} mm²`),
        el("span", {}, each.objects === null ? "" : `${write(each.objects)} objects`))),
      slide.error && slide.state !== "finished" ? el("span", { className: "note" }, speak(slide.error)) : null));
}

async function open() {
  const cards = document.querySelector("#cards");
  try {
    const { name, slides } = await ask("gallery");
    document.title = name;
    document.querySelector("#title").textContent = `${name}: ${slides.length} results`;
    const sort = document.querySelector("#sort");
    const names = new Set(slides.flatMap(({ classes }) => classes.map((each) => each.name)));
    const keys = { number: (s) => s.number, name: (s) => s.name, state: (s) => s.state };
    for (const each of names) {
      for (const [what, text] of [["mm2", "area"], ["objects", "objects"]]) {
        const key = `${what} ${each}`; // the largest first
        keys[key] = ({ classes }) => -(classes.find((found) => found.name === each)?.[what] ?? -1);
        sort.append(el("option", { value: key }, `${text} of ${each}`));
      }
    }
    const show = () => {
      const by = keys[sort.value];
      const order = (a, b) => (by(a) < by(b) ? -1 : by(a) > by(b) ? 1 : a.number - b.number);
      cards.replaceChildren(...[...slides].sort(order).map(makeCard));
    };
    sort.addEventListener("change", show);
    show();
  } catch (error) {
    cards.append(el("p", { className: "note" }, error.message));
  }
}

open();
