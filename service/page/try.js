// The page at /: images in, labels with bars out. Each image is a request of its own, a few at once.

import { ask, keyForm, Problem } from "./ask.js";
import { element, percent } from "./element.js";
import { showModel } from "./model.js";
import { begin } from "./requests.js";
import { draw } from "./waterfall.js";

const AT_ONCE = 4;
// Of an image that the server refuses for now; after these it is the user's turn.
const MOST_TRIES = 5;
const RETRY_MS = 3000;

const byId = (id) => document.getElementById(id);
const answers = byId("answers");
const waiting = [];
let asking = 0;
let done = [];
let resumeAt = 0;
let locked = false;
let onTheCard = "";
let nextLook = 0;

const askForKey = keyForm(byId("key"), () => {
  locked = false;
  loadModel();
  pump();
});

function lock(problem) {
  locked = true;
  setState("waiting", "key needed");
  byId("model-note").textContent = "shown when there is a key";
  askForKey(problem);
}

function setState(state, text) {
  byId("state").dataset.state = state;
  byId("state").textContent = text;
}

const identity = ({ name, version, engine, precision }) => [name, version, engine, precision].join();

async function loadModel() {
  try {
    const served = await (await ask("models")).json();
    showModel(served);
    onTheCard = identity(served);
    byId("top-k").max = served.labels.length;
    byId("top-k").value = Math.min(byId("top-k").value, served.labels.length);
    setState("ready", "ready");
  } catch (problem) {
    if (problem.code === "unauthorized") return lock(problem);
    noteDown(problem);
    clearTimeout(nextLook);
    nextLook = setTimeout(loadModel, problem.retryAfterMs || RETRY_MS);
  }
}

function noteDown(problem) {
  setState("down", problem.code === "unreachable" ? "not reachable" : "not ready");
  byId("model-note").textContent = problem.message;
}

/** Newest images first; those of one batch in their order. */
function add(files) {
  const cards = [...files].map(newCard);
  answers.prepend(...cards.map((card) => card.item));
  waiting.push(...cards);
  byId("tools").hidden = answers.children.length === 0;
  pump();
}

function newCard(file) {
  const item = byId("answer").content.cloneNode(true).querySelector("li");
  const card = { file, item, tries: 0, find: (selector) => item.querySelector(selector) };
  card.find("h3").textContent = file.name;
  showThumbnail(card.find("img"), file);
  card.find(".again").addEventListener("click", () => {
    card.tries = 0;
    waiting.push(card);
    say(card, "waiting", "waiting");
    pump();
  });
  say(card, "waiting", "waiting");
  return card;
}

function showThumbnail(image, file) {
  const url = URL.createObjectURL(file);
  const release = () => URL.revokeObjectURL(url);
  image.addEventListener("load", release);
  image.addEventListener("error", () => {
    release();
    image.replaceWith(element("span", "thumbnail none", file.name.split(".").pop().slice(0, 5)));
  });
  image.src = url;
}

/** `state`: waiting, asking, error or answered. */
function say(card, state, text) {
  card.item.dataset.state = state;
  card.find(".words").textContent = text;
  card.find(".again").hidden = true;
}

function pump() {
  while (!locked && asking < AT_ONCE && waiting.length && performance.now() >= resumeAt) classify(waiting.shift());
}

async function classify(card) {
  asking += 1;
  card.tries += 1;
  say(card, "asking", "asking");
  const end = begin();
  try {
    const body = await read(card.file);
    const sentAt = performance.now();
    const response = await ask(`classify?top_k=${byId("top-k").value || 1}`, {
      method: "POST",
      headers: { "Content-Type": card.file.type.startsWith("image/") ? card.file.type : "application/octet-stream" },
      body,
    });
    const answer = await response.json();
    const elapsedMs = performance.now() - sentAt;
    end(elapsedMs);
    showAnswer(card, answer.results[0].predictions);
    draw(card.find(".timing"), response.headers.get("Server-Timing") ?? "", elapsedMs);
    setState("ready", "ready");
    if (identity(answer.model) !== onTheCard) loadModel(); // another one may serve since
  } catch (problem) {
    end();
    refuse(card, problem);
  }
  asking -= 1;
  pump();
  if (asking === 0 && waiting.length === 0) announce();
}

async function read(file) {
  try {
    return await file.arrayBuffer();
  } catch {
    throw new Problem("unreadable", "This cannot be read", "open a folder first and take its images");
  }
}

function showAnswer(card, predictions) {
  say(card, "answered", "");
  card.find(".bars").replaceChildren(...predictions.map(bar));
  done.push({ text: `${card.file.name}: ${predictions[0].label}, ${percent(predictions[0].score)}`, failed: false });
}

function bar({ label, score }) {
  const filled = element("span", "bar");
  filled.style.inlineSize = `${100 * score}%`;
  return element("li", "", element("span", "label", label), element("span", "score", percent(score)), element("span", "track", filled));
}

function refuse(card, problem) {
  if (!card.item.isConnected) return;
  if (problem.code === "unauthorized") {
    waiting.unshift(card);
    say(card, "waiting", "waiting for the key");
    return lock(problem);
  }
  if (problem.retryAfterMs && card.tries < MOST_TRIES) return comeAgain(card, problem);
  if (problem.code === "unreachable") loadModel(); // and again, until it is back
  say(card, "error", problem.message);
  card.find(".again").hidden = problem.lasting;
  done.push({ text: `${card.file.name}: ${problem.message}`, failed: true });
}

/** What one image is told holds for all that wait: the server is the same. */
function comeAgain(card, problem) {
  waiting.unshift(card);
  resumeAt = Math.max(resumeAt, performance.now() + problem.retryAfterMs);
  say(card, "waiting", `${problem.message}. Asked again in ${problem.retryAfterMs / 1000} s.`);
  setTimeout(pump, resumeAt - performance.now() + 1);
}

/** To a screen reader: one image's label, or how it went with many. */
function announce() {
  const failed = done.filter((one) => one.failed).length;
  byId("announcement").textContent = done.length === 1 ? done[0].text : `${done.length} images are done, ${failed} of them failed`;
  done = [];
}

function takeFiles(event) {
  const files = (event.clipboardData ?? event.dataTransfer).files;
  if (files.length === 0) return;
  event.preventDefault();
  add(files);
}

for (const input of [byId("files"), byId("camera")]) {
  input.addEventListener("change", () => {
    add(input.files);
    input.value = "";
  });
}
document.addEventListener("paste", takeFiles);
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  takeFiles(event);
});
byId("clear").addEventListener("click", () => {
  waiting.length = 0;
  done = [];
  answers.replaceChildren();
  byId("tools").hidden = true;
  byId("files").focus();
});
loadModel();
