// The page at /: images in, answers out. Each image is its own request, so that each has its own outcome.

import { ask, keyForm, Problem } from "../ask.js";
import { percent } from "../element.js";
import { headline } from "./answer.js";
import { takeFiles } from "./input.js";
import { checkSize, limitsText } from "./limits.js";
import * as list from "./list.js";
import { showModel } from "./model.js";
import { Photo } from "./photo.js";
import { enqueue, forgetAll, onEvents, unlock } from "./queue.js";
import { begin } from "./requests.js";
import { offerSamples } from "./samples.js";

const RETRY_MS = 3000;
// Requested even if fewer are shown, so that more can be shown immediately.
const KNOWN_LABELS = 10;
// For the sets of labels of answers that are not confident.
const COVERAGE = 0.9;

const byId = (id) => document.getElementById(id);
let served = null; // the body of GET /models
let done = [];
let nextPoll = 0;

const askForKey = keyForm(byId("key"), () => {
  loadModel();
  unlock();
});

function lock(problem) {
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
  clearTimeout(nextPoll);
  try {
    served = await (await ask("models")).json();
    showModel(served);
    byId("limits").textContent = limitsText(served.limits);
    byId("top-k").max = served.labels.length;
    byId("top-k").value = count();
    offerSamples(byId("samples"), served.labels, useSample);
    setState("ready", "ready");
  } catch (problem) {
    if (problem.code === "unauthorized") return lock(problem);
    showDown(problem);
    nextPoll = setTimeout(loadModel, problem.retryAfterMs || RETRY_MS);
  }
}

function showDown(problem) {
  setState("down", problem.code === "unreachable" ? "not reachable" : "not ready");
  byId("model-note").textContent = problem.message;
}

/** How many labels are shown for each image. */
const count = () => Math.max(1, Math.min(Math.trunc(byId("top-k").value) || 1, served?.labels.length ?? Infinity));

/** One image is opened at once; of several each is, when it is clicked. */
function add(files) {
  const photos = [...files].map((file) => new Photo(file, { onOpen: toggle, onRetry: retry }));
  if (photos.length === 1) toggle(photos[0]);
  list.add(photos);
  document.body.classList.toggle("used", list.all().length > 0);
  enqueue(...photos.map((photo) => job(photo)));
}

/** The button that was clicked is gone: the focus goes to the photo. */
function useSample(file) {
  add([file]);
  list.openOne().find(".open").focus();
}

function toggle(photo) {
  const open = list.openOne();
  if (open !== photo) open?.open(false);
  photo.open(open !== photo);
  photo.item.scrollIntoView({ block: "nearest" });
  complete(photo);
}

function retry(photo) {
  photo.wait("");
  list.changed();
  enqueue(job(photo));
}

/** `quiet`: for more about a photo, which keeps its answer until then. */
function job(photo, quiet = false) {
  return {
    wanted: () => list.has(photo),
    wait: (text) => (quiet ? photo.note(text) : photo.wait(text)),
    send: () => classify(photo, quiet),
    fail(problem) {
      if (problem.code === "invalid_parameter" && !photo.askedAnew) return askAnew(photo, quiet);
      photo.asking = false;
      if (problem.code === "unreachable") loadModel(); // polls until the server is back
      if (quiet) return photo.note(problem.message);
      photo.fail(problem);
      done.push({ text: `${photo.file.name}: ${problem.message}`, failed: true });
      list.changed();
    },
  };
}

/** Another model serves, which cannot give what was asked for. */
async function askAnew(photo, quiet) {
  photo.askedAnew = true;
  await loadModel();
  enqueue(job(photo, quiet));
}

const wantsWhy = (photo) => Boolean(served?.explanations && photo.isOpen);

/** Asks for what is missing: labels, or why, where the photo is open. */
function complete(photo) {
  const known = photo.answer?.predictions.length ?? Infinity;
  if (photo.asking || !photo.answer || (known >= count() && (photo.explained || !wantsWhy(photo)))) return;
  photo.asking = true;
  enqueue(job(photo, true));
}

function query(photo) {
  const asked = new URLSearchParams({ top_k: Math.min(served?.labels.length ?? 1, Math.max(KNOWN_LABELS, count())) });
  if (wantsWhy(photo) || photo.explained) asked.set("explain", "cam");
  const levels = Object.keys(served?.manifest.confidence?.quantiles ?? {});
  if (Math.max(...levels) >= COVERAGE) asked.set("coverage", COVERAGE);
  return asked;
}

async function classify(photo, quiet) {
  if (!quiet) photo.say("sent", "classifying");
  checkSize(photo.file, served?.limits);
  const body = await read(photo.file);
  const end = begin();
  let elapsedMs;
  try {
    const sentAt = performance.now();
    const response = await ask(`classify?${query(photo)}`, {
      method: "POST",
      headers: { "Content-Type": photo.file.type.startsWith("image/") ? photo.file.type : "application/octet-stream" },
      body,
    });
    const answer = await response.json();
    elapsedMs = performance.now() - sentAt;
    photo.showTiming(response.headers.get("Server-Timing") ?? "", elapsedMs, answer.model);
    answered(photo, answer, quiet);
  } finally {
    end(elapsedMs);
  }
}

async function read(file) {
  try {
    return await file.arrayBuffer();
  } catch {
    throw new Problem("unreadable", "The file cannot be read", "if this is a folder, open it and choose the images in it");
  }
}

function answered(photo, { model, results: [result] }, quiet) {
  if (!list.has(photo)) return; // cleared in the meantime
  photo.asking = false;
  photo.show(result, count());
  if (!quiet) done.push({ text: `${photo.file.name}: ${headline(result)}, ${percent(photo.score)}`, failed: false });
  setState("ready", "ready");
  list.changed();
  if (identity(model) !== identity(served ?? {})) loadModel(); // the server was reloaded
  complete(photo);
}

const say = (text) => (byId("announcement").textContent = text);

/** For screen readers: the answer for one image, or a summary of several. */
function announce() {
  if (done.length === 0) return;
  const failed = done.filter((one) => one.failed).length;
  say(done.length === 1 ? done[0].text : `${done.length} images done, ${failed} failed`);
  done = [];
}

byId("top-k").addEventListener("input", () => {
  for (const photo of list.all()) if (photo.answer) photo.showLabels(count());
  list.changed();
});
// Once the number is final, and only for photos of which too few labels are known.
byId("top-k").addEventListener("change", () => list.all().forEach(complete));
byId("clear").addEventListener("click", () => {
  forgetAll();
  done = [];
  list.clear();
  document.body.classList.remove("used");
  byId("files").focus();
});
document.addEventListener("keydown", (event) => {
  const open = event.key === "Escape" && !event.target.closest("input, select") && list.openOne();
  if (!open) return;
  open.open(false);
  open.find(".open").focus();
});
onEvents({ onLock: lock, onIdle: announce });
list.wireList({ onFilter: () => say(list.summary()), count });
takeFiles(add);
loadModel();
