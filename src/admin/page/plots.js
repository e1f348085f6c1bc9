// The last hour as drawings and as a table.

import { draw, make, number, replace, rough, span } from "./parts.js";

const MINUTES = 61;
const HEIGHT = 208;
const LEFT = 52;
const BOTTOM = 24;
const TOP = 8;

const total = (counts) => Object.values(counts).reduce((sum, n) => sum + n, 0);
let width = 600;
const x = (minute) => LEFT + ((width - LEFT) * minute) / MINUTES;
const y = (share) => HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share;

/** The hour's minutes in their places, the running one last; null where nothing happened. */
function places(hour) {
  const last = Math.floor(Date.parse(hour.now) / 60_000);
  const minutes = new Array(MINUTES).fill(null);
  for (const minute of hour.minutes) {
    const place = MINUTES - 1 - (last - Math.floor(Date.parse(minute.at) / 60_000));
    if (place >= 0 && place < MINUTES) minutes[place] = minute;
  }
  return minutes;
}

function frame(title, about) {
  const svg = draw("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-labelledby": title });
  svg.append(draw("desc", {}, about));
  for (const [minute, text, anchor] of [[0, "1 h ago", "start"], [30, "30 min", "middle"], [MINUTES, "now", "end"]]) {
    svg.append(draw("text", { x: x(minute), y: HEIGHT - 6, "text-anchor": anchor }, text));
  }
  return svg;
}

function line(svg, share, text) {
  svg.append(draw("line", { class: "grid", x1: LEFT, x2: width, y1: y(share), y2: y(share) }));
  svg.append(draw("text", { x: LEFT - 6, y: y(share) + 4, "text-anchor": "end" }, text));
}

/** The next number of 1, 2, 5, 10 … that is not smaller. */
function round(n) {
  const power = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= n);
}

/** Runs of places that have a value: a line is not drawn across what is not known. */
function runs(values) {
  const found = [];
  values.forEach((value, place) => {
    if (value === null) return;
    if (place > 0 && values[place - 1] !== null) found[found.length - 1].push([place, value]);
    else found.push([[place, value]]);
  });
  return found;
}

function curve(svg, values, height, kind) {
  for (const run of runs(values)) {
    const points = run.map(([place, value]) => `${x(place + 0.5).toFixed(1)},${y(height(value)).toFixed(1)}`);
    if (run.length > 1) svg.append(draw("polyline", { class: `stroke-${kind}`, points: points.join(" ") }));
    else svg.append(draw("circle", { class: `dot-${kind}`, cx: points[0].split(",")[0], cy: points[0].split(",")[1], r: 3 }));
  }
}

function outcomes(minutes, said) {
  const svg = frame("outcome-title", said);
  const most = Math.max(4, ...minutes.map((m) => (m ? Math.max(total(m.verified) + total(m.failed), total(m.sent)) : 0)));
  const top = round(most);
  for (const share of [0, 0.5, 1]) line(svg, share, rough(top * share));
  const wide = ((x(1) - x(0)) * 0.8).toFixed(1);
  minutes.forEach((minute, place) => {
    if (!minute) return;
    const [verified, failed] = [total(minute.verified) / top, total(minute.failed) / top];
    const at = x(place + 0.1).toFixed(1);
    const column = (from, share, kind, least) => {
      if (share <= 0) return;
      const high = Math.max(least, y(from) - y(from + share));
      svg.append(draw("rect", { class: kind, x: at, y: (y(from) - high).toFixed(1), width: wide, height: high.toFixed(1) }));
    };
    column(0, verified, "good", 0);
    // A few failures among many are still to be seen.
    column(verified, failed, "bad", 3);
  });
  curve(svg, minutes.map((m) => (m ? total(m.sent) : null)), (n) => n / top, "sent");
  return svg;
}

function latency(minutes, said) {
  const svg = frame("latency-title", said);
  const known = minutes.flatMap((m) => (m && m.p95_ms !== null ? [m.p50_ms, m.p95_ms] : []));
  const low = Math.floor(Math.log10(Math.max(1, Math.min(10, ...known))));
  const high = Math.max(low + 2, Math.ceil(Math.log10(Math.max(1000, ...known))));
  const height = (ms) => (Math.log10(Math.max(10 ** low, ms)) - low) / (high - low);
  for (let power = low; power <= high; power++) line(svg, (power - low) / (high - low), span(10 ** power));
  curve(svg, minutes.map((m) => (m ? m.p50_ms : null)), height, "p50");
  curve(svg, minutes.map((m) => (m ? m.p95_ms : null)), height, "p95");
  return svg;
}

/** What is shown, for when the window changes. */
let shown = null;
window.addEventListener("resize", () => shown && showHour(shown));

/** Shows `/status/hour`. */
export function showHour(hour) {
  shown = hour;
  // A unit of the drawing is a pixel, so that texts keep their size.
  width = Math.max(240, document.getElementById("outcome-plot").clientWidth);
  const minutes = places(hour);
  const sum = (what) => hour.minutes.reduce((all, m) => all + total(m[what]), 0);
  const reasons = new Map();
  for (const minute of hour.minutes) {
    for (const [reason, n] of Object.entries(minute.failed)) reasons.set(reason, (reasons.get(reason) || 0) + n);
  }
  const why = [...reasons].sort((a, b) => b[1] - a[1]).map(([reason, n]) => `${reason} ${number(n)}`).join(", ");
  const said = `${number(sum("sent"))} LTKMs sent, ${number(sum("verified"))} deliveries verified, ${number(sum("failed"))} failed${why ? ` (${why})` : ""}.`;
  const slowest = Math.max(0, ...hour.minutes.map((m) => m.p95_ms || 0));
  replace(document.getElementById("outcome-plot"), outcomes(minutes, said));
  replace(document.getElementById("latency-plot"), latency(minutes, slowest ? `In the slowest minute 95 % took ${span(slowest)} at most.` : "Nothing was verified."));
  replace(document.getElementById("hour-sum"), said);
  const cell = (text) => make("td", { class: "number" }, text);
  const took = (ms) => cell(ms === null ? "–" : span(ms));
  const rows = [...hour.minutes].reverse().map((m) => make("tr", {},
    make("th", { scope: "row" }, make("time", { datetime: m.at }, new Date(m.at).toLocaleTimeString("en-GB", { timeStyle: "short" }))),
    cell(number(total(m.sent))), cell(number(total(m.verified))), cell(number(total(m.failed))),
    took(m.p50_ms), took(m.p95_ms), took(m.commit_ms)));
  const none = make("tr", {}, make("td", { colspan: 7, class: "quiet" }, "Nothing happened."));
  document.getElementById("minute-rows").replaceChildren(...(rows.length ? rows : [none]));
  const age = Date.parse(hour.now) - Date.parse(hour.since);
  const short = age < 3_600_000 ? `The daemon started ${span(age)} ago: nothing from before is known here. ` : "";
  replace(document.getElementById("hour-since"), `${short}The minutes are in the daemon’s memory; a restart begins anew. Times in the plots are told to a quarter.`);
}
