// The grid of photos: which are shown, in which order, and how they are saved as a file.

import { download, toCsv } from "./csv.js";

const byId = (id) => document.getElementById(id);
const grid = byId("photos");
const names = new Intl.Collator("en", { numeric: true });

const ORDERS = {
  newest: () => 0,
  name: (one, other) => names.compare(one.file.name, other.file.name),
  highest: (one, other) => other.score - one.score,
  lowest: (one, other) => one.score - other.score,
};
const KINDS = {
  all: () => true,
  unsure: ({ answer }) => answer?.confident === false,
  failed: ({ state }) => state === "error",
};

/** Newest first; those that were added together in their order. */
let photos = [];
let arranging = false;

export const all = () => photos;
export const has = (photo) => photos.includes(photo);
export const openOne = () => photos.find((photo) => photo.isOpen);

export function add(more) {
  photos = [...more, ...photos];
  arrange();
}

export function clear() {
  photos = [];
  byId("filter").value = "";
  byId("only").value = "all";
  arrange();
}

function shown() {
  const text = byId("filter").value.trim().toLowerCase();
  const fits = (photo) => [photo.file.name, ...photo.labels].some((one) => one.toLowerCase().includes(text));
  return photos.filter(KINDS[byId("only").value]).filter(fits).sort(ORDERS[byId("sort").value]);
}

/** "20 photos, 3 not sure, 1 failed" or "4 of 20 photos" */
export function summary() {
  const counted = (kind, words) => [photos.filter(KINDS[kind]).length, words];
  const shownCount = shown().length;
  const noun = photos.length === 1 ? "photo" : "photos";
  if (shownCount < photos.length) return `${shownCount} of ${photos.length} ${noun}`;
  const parts = [[photos.length, noun], counted("unsure", "not sure"), counted("failed", "failed")];
  return parts.filter(([count]) => count).map(([count, words]) => `${count} ${words}`).join(", ");
}

/** Call when something has changed; soon afterwards, once for many changes, the grid follows. */
export function changed() {
  if (arranging) return;
  arranging = true;
  setTimeout(() => {
    arranging = false;
    arrange();
  });
}

function arrange() {
  const wanted = shown().map(({ item }) => item);
  const inPlace = wanted.length === grid.children.length && wanted.every((item, i) => item === grid.children[i]);
  if (!inPlace) {
    const focused = document.activeElement;
    grid.replaceChildren(...wanted);
    if (grid.contains(focused)) focused.focus({ preventScroll: true });
  }
  byId("summary").textContent = summary();
  byId("tools").hidden = photos.length === 0;
  byId("many").hidden = photos.length < 2;
}

/** Wires the controls; `onFilter` is called when other photos are shown, `count()`: how many labels a row of the CSV has. */
export function wireList({ onFilter, count }) {
  for (const id of ["filter", "only", "sort"]) {
    byId(id).addEventListener("input", () => {
      arrange();
      onFilter();
    });
  }
  byId("csv").addEventListener("click", () => download(toCsv(shown(), count()), "answers.csv"));
}
