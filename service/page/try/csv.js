// Answers as CSV (RFC 4180), for spreadsheets.

// A spreadsheet would run a text that starts like this as a formula, even after spaces. The apostrophe makes it text:
// OWASP, "CSV Injection".
const FORMULA = /^[\s\u200b\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]|^[\t\r\n]/;

function cell(value) {
  if (typeof value === "number") return String(value);
  const safe = FORMULA.test(value) ? `'${value}` : value;
  return /[",\r\n']/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** A row for each photo, with its `count` best labels. The mark at the start tells Excel that this is UTF-8. */
export function toCsv(photos, count) {
  const numbers = Array.from({ length: count }, (_, i) => i + 1);
  const head = ["file", "confident", ...numbers.flatMap((i) => [`label_${i}`, `score_${i}`]), "error"];
  const rows = photos.map(({ file, answer, problem }) => [
    file.name,
    String(answer?.confident ?? ""),
    ...numbers.flatMap((i) => [answer?.predictions[i - 1]?.label ?? "", answer?.predictions[i - 1]?.score ?? ""]),
    problem?.message ?? "",
  ]);
  return `\ufeff${[head, ...rows].map((row) => row.map(cell).join(",")).join("\r\n")}\r\n`;
}

/** Lets the browser save it. */
export function download(text, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000); // Safari reads it a moment later
}
