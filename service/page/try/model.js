// The card of the model being served, from GET /models.

import { element, number, percent } from "../element.js";

const MAX_CLASSES_LISTED = 12; // next to the question; the card lists all

/** Fills in the card; `served` is the body of GET /models. */
export function showModel(served) {
  document.getElementById("model-note").hidden = true;
  document.getElementById("model").replaceChildren(
    ...facts(served).flatMap(([name, text]) => [element("dt", "", name), element("dd", "", text)]),
  );
  showLabels(served.labels);
  showChoice(served);
}

function facts({ name, version, engine, precision, device, speed, manifest, keeps_images: kept }) {
  const { network, preprocess, training, accuracy } = manifest;
  const top1 = accuracy?.top1?.[precision] ?? training.top1;
  const found = [
    ["name", `${name}, version ${version}`],
    ["network", `${network.variant}, ${number(network.parameters / 1e6)} M parameters`],
    ["input", `${preprocess.input_size} × ${preprocess.input_size} pixels`],
    ["engine", `${engine} on ${device}`],
    ["precision", precision],
    ["trained on", training.dataset],
  ];
  if (speed.images_per_second) found.push(["speed", `${number(speed.images_per_second)} images/s (engine only)`]);
  if (kept) found.push(["stores", kept === "all" ? "all images sent to it" : `images whose answers are “${kept}”`]);
  if (top1) found.push(["top-1", percent(top1)]);
  return found;
}

function showLabels(labels) {
  const few = labels.length <= MAX_CLASSES_LISTED;
  const list = few ? `: ${labels.join(", ")}` : "";
  document.getElementById("classes").textContent = `Recognises ${labels.length.toLocaleString("en")} classes${list}.`;
  const box = document.getElementById("labels");
  box.querySelector("summary").textContent = `${labels.length.toLocaleString("en")} labels`;
  box.querySelector("ul").replaceChildren(...labels.map((label) => element("li", "", label)));
  box.hidden = false;
}

/** Why this engine and precision were chosen; hidden if there was no alternative. */
function showChoice({ engine, precision, choice }) {
  const box = document.getElementById("choice");
  box.hidden = !(choice?.candidates.length > 1);
  if (box.hidden) return;
  const most = Math.max(1, ...choice.candidates.map((one) => one.images_per_second ?? 0));
  box.querySelector("summary").textContent = `Why ${engine} ${precision}: ${choice.reason}`;
  box.querySelector("ul").replaceChildren(...choice.candidates.map((one) => candidate(one, most)));
}

function candidate({ engine, precision, images_per_second: speed, objection }, most) {
  const bar = element("span", "bar");
  bar.style.inlineSize = `${(100 * (speed ?? 0)) / most}%`;
  const text = objection ?? (speed ? `${number(speed)} images/s` : "not measured");
  return element("li", objection ? "out" : "", element("span", "", `${engine} ${precision}`), element("span", "note", text), bar);
}
