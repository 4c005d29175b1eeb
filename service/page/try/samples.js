// Sample pictures to click, for people without a photo at hand.

import { ask } from "../ask.js";
import { element } from "../element.js";

const SAMPLES = [
  "school_bus.jpg", "cat.jpg", "teapot.jpg", "goldfish.jpg", "mushroom.jpg", "umbrella.jpg", "lemon.jpg", "ladybug.jpg",
  "dog.jpg", "orange.jpg", "banana.png", "pretzel.png",
];
const MAX_SHOWN = 8;
const MIN_KNOWN = 2;

const thing = (name) => name.split(".")[0].replaceAll("_", " ");

/** Offers those that the model has a label for; of a model that knows hardly any, some of all. `use` gets the file. */
export function offerSamples(box, labels, use) {
  const words = labels.map((label) => ` ${label.toLowerCase().replaceAll(/[^a-z]+/g, " ")} `);
  const known = SAMPLES.filter((name) => words.some((label) => label.includes(` ${thing(name)} `)));
  const few = known.length < MIN_KNOWN;
  box.querySelector("p").textContent = few
    ? "No photo at hand? Try a drawing, although this model may have no label for it:"
    : "No photo at hand? Try a drawing:";
  box.querySelector("ul").replaceChildren(...(few ? SAMPLES : known).slice(0, MAX_SHOWN).map((name) => element("li", "", button(name, use))));
  box.hidden = false;
}

function button(name, use) {
  const picture = element("img");
  Object.assign(picture, { src: `page/samples/${name}`, alt: "", width: 72, height: 72, decoding: "async" });
  const made = element("button", "sample", picture, element("span", "", thing(name)));
  made.type = "button";
  made.addEventListener("click", () => fetchSample(name).then(use, (problem) => made.setAttribute("title", problem.message)));
  return made;
}

/** A File, as if it had been chosen; the browser has the picture already. */
async function fetchSample(name) {
  const reply = await ask(`page/samples/${name}`, { cache: "default" });
  return new File([await reply.blob()], name, { type: reply.headers.get("Content-Type") });
}
