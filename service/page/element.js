// Builds elements from text, never from markup, so that a file name or a label cannot inject a tag.

/** element("p", "note", "text", child, ...) */
export function element(tag, className = "", ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

const PERCENT = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 1 });
const ROUND = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export const percent = (part) => PERCENT.format(part);
export const number = (value) => ROUND.format(value < 100 ? value : Math.round(value));
