// One request's time by stage, as measured by the server (Server-Timing) and by this page.

import { element, number } from "../element.js";

/** `read;dur=0.1, infer;dur=0.8;desc="batch=4"` -> [{name, ms, note}] */
function parse(serverTiming) {
  return serverTiming.split(",").map((metric) => {
    const [name, ...parameters] = metric.trim().split(";");
    const values = Object.fromEntries(parameters.map((parameter) => parameter.split("=", 2)));
    const note = /desc="([^"]*)"/.exec(metric)?.[1] ?? "";
    return { name, ms: Number(values.dur ?? 0), note };
  });
}

/** The stages in order; time that the server does not attribute is `other`, time outside the server is `network`. */
function stages(serverTiming, elapsedMs) {
  const measured = parse(serverTiming);
  const named = measured.filter((stage) => stage.name !== "total");
  const totalMs = measured.find((stage) => stage.name === "total")?.ms ?? 0;
  const otherMs = totalMs - named.reduce((sum, stage) => sum + stage.ms, 0);
  return [...named, { name: "other", ms: Math.max(0, otherMs) }, { name: "network", ms: Math.max(0, elapsedMs - totalMs) }];
}

/** Fills in `.waterfall` and `.legend` of `box`. */
export function draw(box, serverTiming, elapsedMs) {
  const shown = stages(serverTiming, elapsedMs);
  const sumMs = shown.reduce((sum, stage) => sum + stage.ms, 0);
  let startMs = 0;
  const steps = shown.map((stage) => {
    const step = element("span", `stage ${stage.name}`);
    step.style.marginInlineStart = `${(100 * startMs) / sumMs}%`;
    step.style.inlineSize = `${(100 * stage.ms) / sumMs}%`;
    startMs += stage.ms;
    return step;
  });
  const texts = shown.map((stage) => element("span", `key ${stage.name}`, `${stage.name} ${number(stage.ms)}`));
  const batch = shown.find((stage) => stage.note)?.note.replace("batch=", "batch of ");
  box.querySelector(".waterfall").replaceChildren(...steps);
  box.querySelector(".legend").replaceChildren(...texts, element("span", "", `= ${number(elapsedMs)} ms${batch ? `, ${batch}` : ""}`));
  box.hidden = false;
}
