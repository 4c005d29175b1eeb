// Latency and throughput of this page's requests, as figures and sparklines.

import { number } from "../element.js";

const KEPT = 60;

const latenciesMs = [];
const rates = [];
let inFlight = 0;
let busySince = 0;
let answered = 0;

/** Call when a request is sent. Returns a function to call when it ends: with its milliseconds, or nothing if it failed. */
export function begin() {
  if (inFlight === 0) [busySince, answered] = [performance.now(), 0];
  inFlight += 1;
  return (elapsedMs) => {
    inFlight -= 1;
    if (elapsedMs !== undefined) record(elapsedMs);
  };
}

/** Throughput is counted since the page was last idle, so that the user's pauses do not count. */
function record(elapsedMs) {
  answered += 1;
  keep(latenciesMs, elapsedMs);
  keep(rates, (1000 * answered) / (performance.now() - busySince));
  const sorted = [...latenciesMs].sort((a, b) => a - b);
  const median = sorted[sorted.length >> 1];
  show("latency", latenciesMs, `${number(elapsedMs)} ms, median ${number(median)}`);
  show("throughput", rates, `${number(rates.at(-1))} images/s`);
}

function keep(values, value) {
  values.push(value);
  if (values.length > KEPT) values.shift();
}

function show(name, values, text) {
  document.getElementById(name).textContent = text;
  const line = document.getElementById(`${name}-line`);
  const most = Math.max(...values);
  const drawn = values.length > 1 ? values : [values[0], values[0]];
  const step = 100 / (drawn.length - 1);
  const points = drawn.map((value, i) => `${(i * step).toFixed(1)},${(28 - (26 * value) / most).toFixed(1)}`);
  line.querySelector("polyline").setAttribute("points", points.join(" "));
  line.querySelector("polygon").setAttribute("points", ["0,30", ...points, "100,30"].join(" "));
}
