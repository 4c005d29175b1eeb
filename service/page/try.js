// The page at /: images in, labels with bars out. Each image is its own request; a few run at once.

import { ask, keyForm, Problem } from "./ask.js";
import { element, percent } from "./element.js";
import { showModel } from "./model.js";
import { begin } from "./requests.js";
import { draw } from "./waterfall.js";

const MAX_CONCURRENT = 4;
// How often an image is retried automatically; then the user decides.
const MAX_TRIES = 5;
const RETRY_MS = 3000;

const byId = (id) => document.getElementById(id);
const answers = byId("answers");
const waiting = [];
let inFlight = 0;
let done = [];
let resumeAt = 0;
let locked = false;
let shownModel = "";
let nextPoll = 0;

const askForKey = keyForm(byId("key"), () => {
  locked = false;
  loadModel();
  pump();
});

function lock(problem) {
  locked = true;
  setState("waiting", "key needed");
  byId("model-note").textContent = "shown once you enter a key";
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
    shownModel = identity(served);
    byId("top-k").max = served.labels.length;
    byId("top-k").value = Math.min(byId("top-k").value, served.labels.length);
    setState("ready", "ready");
  } catch (problem) {
    if (problem.code === "unauthorized") return lock(problem);
    showDown(problem);
    clearTimeout(nextPoll);
    nextPoll = setTimeout(loadModel, problem.retryAfterMs || RETRY_MS);
  }
}

function showDown(problem) {
  setState("down", problem.code === "unreachable" ? "not reachable" : "not ready");
  byId("model-note").textContent = problem.message;
}

/** Newest images first; images added together keep their order. */
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

/** `state`: waiting, sent, error or answered. */
function say(card, state, text) {
  card.item.dataset.state = state;
  card.find(".words").textContent = text;
  card.find(".again").hidden = true;
}

function pump() {
  while (!locked && inFlight < MAX_CONCURRENT && waiting.length && performance.now() >= resumeAt) classify(waiting.shift());
}

async function classify(card) {
  inFlight += 1;
  card.tries += 1;
  say(card, "sent", "classifying");
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
    if (identity(answer.model) !== shownModel) loadModel(); // the server was reloaded
  } catch (problem) {
    end();
    refuse(card, problem);
  }
  inFlight -= 1;
  pump();
  if (inFlight === 0 && waiting.length === 0) announce();
}

async function read(file) {
  try {
    return await file.arrayBuffer();
  } catch {
    throw new Problem("unreadable", "The file cannot be read", "if this is a folder, open it and choose the images in it");
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
  if (problem.retryAfterMs && card.tries < MAX_TRIES) return retryLater(card, problem);
  if (problem.code === "unreachable") loadModel(); // polls until the server is back
  say(card, "error", problem.message);
  card.find(".again").hidden = problem.permanent;
  done.push({ text: `${card.file.name}: ${problem.message}`, failed: true });
}

/** Retry-After applies to every waiting image: they all go to the same server. */
function retryLater(card, problem) {
  waiting.unshift(card);
  resumeAt = Math.max(resumeAt, performance.now() + problem.retryAfterMs);
  say(card, "waiting", `${problem.message}. Retrying in ${problem.retryAfterMs / 1000} s.`);
  setTimeout(pump, resumeAt - performance.now() + 1);
}

/** For screen readers: the label of one image, or a summary of several. */
function announce() {
  const failed = done.filter((one) => one.failed).length;
  byId("announcement").textContent = done.length === 1 ? done[0].text : `${done.length} images done, ${failed} failed`;
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
