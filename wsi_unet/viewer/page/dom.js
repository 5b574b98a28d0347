// Making elements. Text from slides, models and results only ever becomes text.

export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && name !== "list") element[name] = value;
    else element.setAttribute(name, value);
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined) element.append(child); // strings become text
  }
  return element;
}

export function swatch(colour) {
  const square = el("span", { className: "swatch" });
  square.style.backgroundColor = colour; // an unusable colour is left out
  return square;
}

export function write(number, digits = 3) {
  if (number === null || number === undefined) return "–";
  if (Number.isInteger(number)) return number.toLocaleString("en");
  if (Math.abs(number) >= 1000) return Math.round(number).toLocaleString("en");
  return String(Number(number.toPrecision(digits)));
}

export function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${write(seconds / 3600, 2)} h`;
}

// Names options as the command line does: `tls_key` becomes --tls-key.
export function speak(text) {
  return text.replace(/`([a-z][a-z_]*)(=[^`]+)?`/g, (_, name) => `--${name.replaceAll("_", "-")}`);
}

export async function ask(path, options) {
  const answer = await fetch(path, options);
  if (!answer.ok) throw new Error(speak((await answer.text()).trim()) || `answer ${answer.status}`);
  return answer.json();
}

export function save(blob, name) {
  const link = el("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

export function debounce(wait, work) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), wait);
  };
}
