// One photo: its card in the grid, and what is shown once it is opened.

import { element, number, percent } from "../element.js";
import { alternatives, headline } from "./answer.js";
import { hideHeat, showHeat, showSeen } from "./heat.js";
import { draw } from "./waterfall.js";

export class Photo {
  /** `state`: waiting, sent, answered or error. `explained`: whether the predictions have their `cam`. */
  constructor(file, { onOpen, onRetry }) {
    Object.assign(this, { file, number: number, state: "waiting", answer: null, problem: null, explained: false });
    this.item = document.getElementById("photo").content.cloneNode(true).querySelector("li");
    this.find(".file").textContent = file.name;
    this.find(".open").addEventListener("click", () => onOpen(this));
    this.find(".again").addEventListener("click", () => onRetry(this));
    this.showPicture();
    this.say("waiting", "waiting");
  }

  find(selector) {
    return this.item.querySelector(selector);
  }

  get isOpen() {
    return this.item.classList.contains("opened");
  }

  get explains() {
    return this.explained && this.find("img") !== null;
  }

  /** Those that are shown, best first. */
  get labels() {
    return this.answer ? this.answer.predictions.slice(0, this.count).map(({ label }) => label) : [];
  }

  get score() {
    return this.answer ? this.answer.predictions[0].score : -1;
  }

  showPicture() {
    const image = this.find("img");
    const url = URL.createObjectURL(this.file);
    image.addEventListener("load", () => {
      URL.revokeObjectURL(url);
      this.find(".picture").style.setProperty("--ratio", image.naturalWidth / image.naturalHeight);
      this.frame();
    });
    image.addEventListener("error", () => {
      URL.revokeObjectURL(url);
      image.replaceWith(element("span", "none", this.file.name.split(".").pop().slice(0, 5)));
      if (this.answer) this.showLabels(this.count); // without heat maps: there is no picture to draw them on
    });
    image.src = url;
  }

  say(state, text) {
    this.state = this.item.dataset.state = state;
    this.problem = null;
    this.find(".answer").textContent = { answered: text, error: "No answer" }[state] ?? text;
    this.find(".score").textContent = "";
    this.find(".words").textContent = "";
    this.find(".again").hidden = true;
  }

  wait(text) {
    this.say("waiting", "waiting");
    this.find(".words").textContent = text;
  }

  /** About a photo that keeps its answer. */
  note(text) {
    this.find(".words").textContent = text;
  }

  fail(problem) {
    this.say("error");
    this.problem = problem;
    this.find(".words").textContent = problem.message;
    this.find(".again").hidden = problem.permanent;
  }

  /** `answer`: a result of /classify; `count`: how many labels to show. */
  show(answer, count) {
    Object.assign(this, { answer, explained: Boolean(answer.predictions[0].cam) });
    this.say("answered", headline(answer));
    this.item.classList.toggle("doubtful", answer.confident === false);
    this.find(".score").textContent = percent(this.score);
    this.find(".words").textContent = alternatives(answer);
    this.showLabels(count);
    this.frame();
  }

  /** The best `count` labels; to point at, where there is something to see. */
  showLabels(count) {
    Object.assign(this, { count, kept: null });
    this.restore();
    this.find(".bars").replaceChildren(...this.answer.predictions.slice(0, count).map((one) => this.bar(one)));
    this.find(".why").hidden = !this.explains;
  }

  bar(prediction) {
    const filled = element("span", "fill");
    filled.style.inlineSize = `${100 * prediction.score}%`;
    const row = element(this.explains ? "button" : "span", "guess", filled, element("span", "label", prediction.label), element("span", "score", percent(prediction.score)));
    if (this.explains) this.listen(row, prediction);
    return element("li", "", row);
  }

  /** A mouse or the keyboard shows a heat map while it is on the label; a click or a tap keeps it. */
  listen(row, prediction) {
    row.type = "button";
    row.ariaPressed = "false";
    const show = () => this.heat(prediction);
    const leave = () => this.restore();
    row.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && show());
    row.addEventListener("pointerleave", leave);
    row.addEventListener("focus", () => row.matches(":focus-visible") && show());
    row.addEventListener("blur", leave);
    row.addEventListener("click", () => {
      const kept = row.ariaPressed === "true";
      for (const other of this.find(".bars").querySelectorAll("button")) other.ariaPressed = "false";
      row.ariaPressed = String(!kept);
      this.kept = kept ? null : prediction;
      this.restore();
    });
  }

  heat(prediction) {
    showHeat((selector) => this.find(selector), prediction);
  }

  restore() {
    if (this.kept) this.heat(this.kept);
    else hideHeat((selector) => this.find(selector));
  }

  /** What the model saw, once both the answer and the picture are there. */
  frame() {
    const [best] = this.explains ? this.answer.predictions : [];
    if (best && this.find("img").naturalWidth) this.find(".crop").hidden = !showSeen(this.find(".picture"), best.cam.box);
  }

  showTiming(serverTiming, elapsedMs, { engine, precision }) {
    this.find(".timing summary").textContent = `${number(elapsedMs)} ms, ${engine} ${precision}`;
    draw(this.find(".timing"), serverTiming, elapsedMs);
  }

  open(isOpen) {
    this.item.classList.toggle("opened", isOpen);
    this.find(".open").ariaExpanded = String(isOpen);
  }
}
