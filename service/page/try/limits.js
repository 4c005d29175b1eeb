// What the server accepts, shown before anything is sent.

import { Problem } from "../ask.js";
import { number } from "../element.js";

const MEBIBYTE = 2 ** 20;
const NAMES = { WEBP: "WebP" };

const megabytes = (bytes) => (bytes < MEBIBYTE ? `${number(bytes / 1024)}\u00a0KB` : `${number(bytes / MEBIBYTE)}\u00a0MB`);

function pixels(count) {
  return count < 1e6 ? `${count.toLocaleString("en")} pixels` : `${number(count / 1e6)}\u00a0megapixels`;
}

/** "JPEG or PNG, up to 32 MB and 50 megapixels each; as many as you like." */
export function limitsText({ formats, max_body_bytes: bytes, max_image_pixels: most }) {
  const names = formats.map((name) => NAMES[name] ?? name);
  const listed = `${names.slice(0, -1).join(", ")} or ${names.at(-1)}`;
  return `${listed}, up to ${megabytes(bytes)} and ${pixels(most)} each; as many as you like.`;
}

/** Throws a Problem for a file that the server would refuse; `limits`: of GET /models, null while unknown. */
export function checkSize(file, limits) {
  if (!limits || file.size <= limits.max_body_bytes) return;
  const sizes = `it has ${megabytes(file.size)}, and this server accepts ${megabytes(limits.max_body_bytes)}`;
  throw new Problem("body_too_large", "The file is too large", sizes, { permanent: true });
}
