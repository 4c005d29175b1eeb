"use strict";
const record = JSON.parse(document.getElementById("record").textContent);
const page = document.getElementById("report");
const length = (share) => `${100 * share}%`;
const MOST = 60; // classes of a matrix that can be read
const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;

/** An element with properties, and children that are elements or text: text never becomes markup. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}
const section = (title, note, ...children) => {
  const element = make("section", {}, make("h2", {}, title), note ? make("p", { className: "note" }, note) : null, ...children);
  page.append(element);
  return element;
};
const facts = (pairs) => make("dl", { className: "facts" }, ...pairs.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));

function picture(index) {
  const photo = record.photos[index];
  const src = photo.src ? `data:image/jpeg;base64,${photo.src}` : "";
  return make("img", { src, alt: `${photo.name}, labelled ${photo.label}` });
}
function answer([label, score], truth) {
  const bar = make("span", { className: "bar" });
  bar.style.width = length(score);
  return make("div", { className: label === truth ? "answer true" : "answer" }, make("span", { title: label }, label), make("span", {}, percent(score, 0)), bar);
}
function card(index, words, heat) {
  const photo = record.photos[index];
  return make("li", { className: "photo" }, picture(index),
    heat ? make("img", { className: "heat", src: `data:image/jpeg;base64,${heat}`, alt: `evidence for the answer ${photo.answers[0][0]}` }) : null,
    words ? make("p", { className: "warn" }, words) : null,
    ...photo.answers.map((one) => answer(one, photo.label)),
    photo.answers.length ? null : make("p", {}, photo.label),
    make("p", { className: "name", title: photo.name }, photo.name));
}
const cards = (indices, words = () => null, heat = {}) => make("ul", { className: "photos" }, ...indices.map((index, place) => card(index, words(place), heat[index])));

function head() {
  document.title = `${record.title}: report`;
  const verdict = record.verdict;
  const first = make("section", {}, make("h1", {}, record.title));
  if (verdict) {
    first.append(make("div", { className: "hero" }, make("p", { className: "big" }, percent(verdict.accuracy)),
      make("p", { className: "note" }, `of ${verdict.photos} photos are classified correctly by a network that did not see them. `
        + `With 95 % certainty, the true share is between ${percent(verdict.low)} and ${percent(verdict.high)} (${verdict.how}).`)),
    facts([["macro-F1", percent(verdict.macro_f1)], ["temperature", verdict.temperature.toFixed(2)], ...record.facts]));
  } else {
    first.append(facts(record.facts));
  }
  if (record.commands.length) first.append(make("pre", {}, record.commands.join("\n")));
  for (const note of record.notes) first.append(make("p", { className: "note" }, note));
  page.append(first);
}

function classes() {
  const share = (one) => {
    const [line, dot] = [make("i"), make("b")];
    Object.assign(line.style, { left: length(one.low), width: length(one.high - one.low) });
    dot.style.left = length(one.recall);
    return make("span", { className: "span", title: `${percent(one.low)} to ${percent(one.high)}` }, line, dot);
  };
  const names = ["class", "photos", "right", "", "95 % interval", "precision", "F1"];
  const rows = record.classes.map((one) => make("tr", {}, make("td", {}, one.label, one.small ? make("span", { className: "note" }, " too few to judge") : null),
    ...[one.images, percent(one.recall)].map((text) => make("td", { className: "number" }, String(text))), make("td", {}, share(one)),
    ...[`${percent(one.low, 0)} to ${percent(one.high, 0)}`, percent(one.precision), percent(one.f1)].map((text) => make("td", { className: "number" }, text))));
  const heads = names.map((name, place) => make("th", { className: place ? "number" : "", scope: "col" }, name));
  section("Each class", "Right: share of the photos of the class. Precision: share of the answers that name it.",
    make("div", { className: "scroll" }, make("table", { className: "list" }, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows))));
}

function matrix() {
  const names = record.classes.map((one) => one.label);
  const shown = make("div", { id: "cell", tabIndex: -1 });
  const cells = new Map();
  Object.entries(record.photos).forEach(([index, photo]) => {
    if (photo.given === undefined) return;
    const key = `${photo.truth},${photo.given}`;
    cells.set(key, [...(cells.get(key) ?? []), index]);
  });
  const open = (row, column, button) => {
    document.querySelectorAll(".cell[aria-pressed=true]").forEach((one) => one.setAttribute("aria-pressed", "false"));
    button.setAttribute("aria-pressed", "true");
    const found = cells.get(`${row},${column}`) ?? [], total = record.matrix[row][column];
    const title = row === column ? `${names[row]}, correct` : `${names[row]}, taken for ${names[column]}`;
    const more = found.length < total ? ` (${found.length} of ${total} shown)` : ` (${total})`;
    shown.replaceChildren(make("h3", {}, title + more), cards(found));
  };
  if (names.length > MOST) {
    const buttons = record.confusions.map(([row, column]) => {
      const button = make("button", { className: "pick" }, `${names[row]} taken for ${names[column]}: ${record.matrix[row][column]}`);
      button.addEventListener("click", () => open(row, column, button));
      return make("li", {}, button);
    });
    section("What is taken for what", "The most frequent mistakes. Choose one to see its photos.", make("ul", { className: "picks" }, ...buttons), shown);
    return;
  }
  const body = record.matrix.map((counts, row) => {
    const total = Math.max(1, counts.reduce((sum, count) => sum + count, 0));
    return make("tr", {}, make("th", { scope: "row", title: names[row] }, names[row]), ...counts.map((count, column) => {
      const cell = make(count ? "button" : "div", { className: "cell" }, count ? String(count) : "");
      if (count) {
        cell.style.background = `rgb(var(--${row === column ? "right" : "wrong"}) / ${0.12 + 0.83 * Math.sqrt(count / total)})`;
        if (count / total > 0.35) cell.style.color = "#fff";
        cell.title = `${names[row]} taken for ${names[column]}: ${count}`;
        cell.setAttribute("aria-pressed", "false");
        cell.addEventListener("click", () => open(row, column, cell));
      }
      return make("td", {}, cell);
    }));
  });
  const top = make("tr", {}, make("th", {}, ""), ...names.map((name) => make("th", { scope: "col", title: name }, make("span", {}, name))));
  const table = make("table", { className: names.length > 15 ? "matrix many" : "matrix" }, make("thead", {}, top), make("tbody", {}, ...body));
  section("What is taken for what", "A row for each true class, a column for each answer. Choose a cell to see its photos.", make("div", { className: "scroll" }, table), shown);
  const worst = record.confusions[0];
  if (worst) {
    const button = table.tBodies[0].rows[worst[0]].cells[worst[1] + 1].firstChild;
    open(worst[0], worst[1], button);
  }
}

function histogram(title, bins, low, high) {
  const most = Math.max(1, ...bins);
  const bars = bins.map((count) => { const bar = make("i", { title: String(count) }); bar.style.height = length(count / most); return bar; });
  return make("div", {}, make("h3", { className: "note" }, title), make("div", { className: "bars" }, ...bars), make("div", { className: "ends" }, make("span", {}, low), make("span", {}, high)));
}

function curve(chart) {
  const xs = chart.lines.flatMap((line) => line.points.map(([x]) => x)), ys = chart.lines.flatMap((line) => line.points.map(([, y]) => y));
  const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const space = "http://www.w3.org/2000/svg", drawing = document.createElementNS(space, "svg");
  drawing.setAttribute("class", "curve"); drawing.setAttribute("viewBox", "0 0 100 100"); drawing.setAttribute("preserveAspectRatio", "none");
  for (const line of chart.lines) {
    const path = document.createElementNS(space, "polyline");
    path.setAttribute("points", line.points.map(([x, y]) => `${(100 * (x - left)) / (right - left || 1)},${100 - (100 * (y - low)) / (high - low || 1)}`).join(" "));
    drawing.append(path);
  }
  const keys = chart.lines.map((line, place) => `${place ? "- -" : "—"} ${line.name}`).join("   ");
  return make("div", {}, make("h3", { className: "note" }, `${chart.title}: ${low.toFixed(2)} to ${high.toFixed(2)}; ${keys}`), drawing, make("div", { className: "ends" }, make("span", {}, `epoch ${left}`), make("span", {}, `${right}`)));
}

head();
if (record.curves.length) section("How it learnt", "", make("div", { className: "two" }, ...record.curves.map(curve)));
if (record.matrix) {
  matrix();
  classes();
  const why = Object.keys(record.heat).length ? " Below each photo: the evidence for the wrong answer (red) and against it (blue); the network saw the part inside the line." : "";
  if (record.mistakes.length) section("The worst mistakes", `Wrong answers with the highest scores. Bold: the photo's own label.${why}`, cards(record.mistakes, () => null, record.heat));
  if (record.unsure.length) section("The least certain answers", "Photos whose two best scores are closest: more photos like these help most.", cards(record.unsure));
}
if (record.suspects.length) {
  const link = record.suggestions ? make("a", { className: "button", download: "suggestions.csv", href: `data:text/csv;base64,${record.suggestions}` }, "Suggestions as CSV") : null;
  section("Labels that may be wrong", "Photos whose own label gets the lowest score from networks that did not see them. Edit the column action of the CSV, and pass it to the next run with --suggestions.", cards(record.suspects.map((one) => one.index), (place) => record.suspects[place].words), link);
}
if (record.pairs.length) {
  section("Copies", "Identical files and near-duplicates. They stay on one side of each split, so that no photo is judged by a network that saw its copy.",
    make("ul", { className: "pairs" }, ...record.pairs.map((pair) => make("li", { className: "pair" }, picture(pair.first), picture(pair.second),
      make("p", { className: pair.warn ? "warn" : "" }, pair.words)))));
}
if (record.broken.length) {
  section("Files that cannot be used", "", make("div", { className: "scroll" }, make("table", { className: "list" }, ...record.broken.map(([name, problem]) => make("tr", {}, make("td", {}, name), make("td", {}, problem))))));
}
section("The photos", "", make("div", { className: "two" },
  histogram("shorter side, pixels", ...record.sides), histogram("brightness", ...record.brightness),
  histogram("photos of a class, classes sorted by size", ...record.counts)),
record.odd.length ? make("h3", {}, "Odd photos") : null, record.odd.length ? cards(record.odd.map((one) => one.index), (place) => record.odd[place].words) : null);
if (record.augmented.length) {
  section("What augmentation does", "On the left, photos as they are served; next to them, as the network sees them in its first epochs. You should still be able to tell the class.", make("ul", { className: "strips" },
    ...record.augmented.map((src) => make("li", {}, make("img", { src: `data:image/jpeg;base64,${src}`, alt: "a photo and its augmented versions" })))));
}
