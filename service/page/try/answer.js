// An answer in words.

import { percent } from "../element.js";

// A second label is named if it is at least so likely, compared with the best.
const NAMED = 1 / 3;
const MAX_NAMED = 5;

/** "cat"; of an answer that is not confident "Not sure: cat or dog?". Bundles without a threshold never say so. */
export function headline({ predictions, confident }) {
  const [best, second] = predictions;
  if (confident !== false) return best.label;
  const other = second && second.score >= NAMED * best.score ? ` or ${second.label}` : "";
  return `Not sure: ${best.label}${other}?`;
}

/** Which labels hold the truth, where the answer is not confident and the bundle can tell; otherwise "". */
export function alternatives({ confident, set }) {
  if (confident !== false || !set || set.labels.length < 2) return "";
  const more = set.labels.length - MAX_NAMED;
  const named = set.labels.slice(0, MAX_NAMED).join(", ");
  return `With ${percent(set.coverage)} probability one of these: ${named}${more > 0 ? ` and ${more} more` : ""}.`;
}
