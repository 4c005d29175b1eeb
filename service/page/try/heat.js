// Why: what each part of the photo added to a label, as a heat map on it (`explain=cam`).

import { element, number } from "../element.js";

// As in the legend: red is evidence for the label, blue against it.
const FOR = [214, 40, 40];
const AGAINST = [38, 98, 214];
const STRONGEST_ALPHA = 190;
// By the pointer of the device.
const HINTS = { fine: "Point at a label to see the evidence for it.", coarse: "Tap a label to see the evidence for it." };
const EDGE_PIXELS = 1; // a smaller crop does not count

/** One pixel a cell; the browser smooths it as it stretches it over the photo. */
function paint(canvas, grid, most) {
  [canvas.height, canvas.width] = [grid.length, grid[0].length];
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, canvas.height);
  grid.flat().forEach((value, i) => {
    pixels.data.set([...(value > 0 ? FOR : AGAINST), (STRONGEST_ALPHA * Math.abs(value)) / most], 4 * i);
  });
  context.putImageData(pixels, 0, 0);
}

/** Shows `prediction`'s heat map in the card `find` looks in, and what it means. */
export function showHeat(find, { label, cam }) {
  const strongest = cam.grid.flat().reduce((one, other) => (Math.abs(other) > Math.abs(one) ? other : one));
  paint(find(".heat"), cam.grid, Math.abs(strongest) || 1);
  find(".heat").classList.add("shown");
  find(".for").textContent = `for ${label}`;
  const did = strongest < 0 ? "took" : "added";
  const way = strongest < 0 ? "from" : "to";
  const logit = number(cam.logit).replace("-", "−");
  find(".meaning").textContent = `The strongest spot ${did} ${number(Math.abs(strongest))} ${way} its logit, ${logit}.`;
}

/** Leaves the legend of all of them, and a hint. */
export function hideHeat(find) {
  find(".heat").classList.remove("shown");
  find(".for").textContent = "for";
  find(".meaning").replaceChildren(...Object.entries(HINTS).map(([pointer, text]) => element("span", pointer, text)));
}

/** Frames what the model saw; [left, top, right, bottom] in pixels of the upright photo. Returns whether it is a part. */
export function showSeen(picture, [left, top, right, bottom]) {
  const { naturalWidth: width, naturalHeight: height } = picture.querySelector("img");
  const seen = picture.querySelector(".seen");
  const share = (length, whole) => `${(100 * length) / whole}%`;
  Object.assign(seen.style, {
    left: share(left, width), top: share(top, height), width: share(right - left, width), height: share(bottom - top, height),
  });
  seen.hidden = false;
  const cropped = Math.max(left, top, width - right, height - bottom) > EDGE_PIXELS;
  seen.classList.toggle("cropped", cropped);
  return cropped;
}
