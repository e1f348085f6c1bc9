// Elements, numbers and times as people read them, and the bars.

const SVG = "http://www.w3.org/2000/svg";

/** An element with its attributes and children; text is only ever text. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  return filled(element, attributes, children);
}

/** An element of a drawing. */
export function draw(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Puts children in place of those that were there, unless they say the same. */
export function replace(element, ...children) {
  const next = make("div", {}, ...children);
  if (next.innerHTML !== element.innerHTML) element.replaceChildren(...next.childNodes);
}

const WHOLE = new Intl.NumberFormat("en-GB");
const ROUGH = new Intl.NumberFormat("en-GB", { notation: "compact", maximumFractionDigits: 1 });

/** 1,234,567 */
export const number = (n) => WHOLE.format(n);

/** 1 job, 2 jobs */
export const counted = (n, one) => `${number(n)} ${one}${n === 1 ? "" : "s"}`;

/** 1.2M */
export const rough = (n) => ROUGH.format(n);

/** A share that says 100 % only of all and 0 % only of none. */
export function percent(part, all) {
  if (all === 0) return "–";
  const share = (100 * part) / all;
  if (part === all) return "100 %";
  if (part === 0) return "0 %";
  return `${Math.min(99.9, Math.max(0.1, share)).toFixed(1)} %`;
}

/** Octets with a binary prefix. */
export function octets(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; n >= 1024 && unit < units.length - 1; unit++) n /= 1024;
  return `${unit === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)} ${units[unit]}`;
}

/** A span of milliseconds in its two largest units. */
export function span(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)} s`;
  const s = Math.round(ms / 1000);
  const parts = [[Math.floor(s / 86400), "d"], [Math.floor(s / 3600) % 24, "h"], [Math.floor(s / 60) % 60, "min"], [s % 60, "s"]];
  const first = parts.findIndex(([n]) => n > 0);
  return parts.slice(first, first + 2).filter(([n]) => n > 0).map(([n, unit]) => `${n} ${unit}`).join(" ");
}

/** A moment, in this browser's time, with the exact one behind it. */
export function moment(text) {
  const at = new Date(text);
  const said = at.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });
  return make("time", { datetime: text, title: text }, said);
}

/** A badge that says how something is. */
export const badge = (kind, text) => make("span", { class: `badge ${kind}` }, text);

/** A bar of parts, each [how much, its class, its name if it has one]; what is left is grey. `about` is read out for it. */
export function bar(parts, all, about) {
  const svg = draw("svg", { class: "bar", role: "img", "aria-label": about, viewBox: "0 0 1000 10", preserveAspectRatio: "none" });
  svg.append(draw("rect", { class: "none", width: 1000, height: 10 }));
  let x = 0;
  for (const [part, kind, name] of parts) {
    if (part <= 0 || all <= 0) continue;
    // Three of a million are still to be seen.
    const width = Math.min(1000 - x, Math.max(4, (1000 * part) / all));
    svg.append(draw("rect", { class: kind, x: x.toFixed(1), width: width.toFixed(1), height: 10 }, name ? draw("title", {}, `${name}: ${number(part)}`) : null));
    x += width;
  }
  return svg;
}

/** Answers of the daemon; an error says what it said. */
export async function ask(path, token = "", signal = undefined) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { headers, signal, cache: "no-store", credentials: "omit" });
  if (answer.ok) return answer.json();
  const problem = await answer.json().catch(() => ({}));
  throw Object.assign(new Error(problem.detail || `the daemon answered ${answer.status}`), { status: answer.status });
}
