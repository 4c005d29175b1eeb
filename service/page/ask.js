// Requests to this server: the key that it may ask for, and errors in words.

const STORED = "repvgg-api-key";

let key = "";
try {
  key = sessionStorage.getItem(STORED) ?? "";
} catch {
  // A browser that stores nothing: the key lives as long as the page does.
}

/** `code` as in the problem documents of the server, or of our own: unreachable, unreadable, unexpected. `lasting`: to
 * ask the same again would not help. `retryAfterMs`: 0 if it was not told. */
export class Problem extends Error {
  constructor(code, title, detail, { lasting = false, retryAfterMs = 0 } = {}) {
    super(`${title}: ${detail}`);
    Object.assign(this, { code, detail, lasting, retryAfterMs });
  }
}

export const hasKey = () => key !== "";

function keep(newKey) {
  key = newKey;
  try {
    sessionStorage.setItem(STORED, key);
  } catch {
    // As above.
  }
}

/** The response, if it is a success. Throws a Problem. */
export async function ask(path, options = {}) {
  const headers = new Headers(options.headers);
  if (hasKey()) headers.set("X-API-Key", key);
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch {
    throw new Problem("unreachable", "The server cannot be reached", "is it running, and is this device online?");
  }
  if (response.ok) return response;
  throw await problemOf(response);
}

async function problemOf(response) {
  if (!response.headers.get("Content-Type")?.startsWith("application/problem+json")) {
    const said = `The answer was ${response.status} ${response.statusText}`;
    return new Problem("unexpected", said, "not from the service, but from something before it");
  }
  const told = await response.json();
  return new Problem(told.code, told.title, told.detail, {
    lasting: response.status < 500 && response.status !== 429,
    retryAfterMs: 1000 * Number(response.headers.get("Retry-After")),
  });
}

/** Wires the form that asks for a key; `retry` is called once there is one. Returns what shows the form. */
export function keyForm(form, retry) {
  const input = form.querySelector("input");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    keep(input.value);
    input.value = "";
    form.hidden = true;
    retry();
  });
  return (problem) => {
    form.querySelector("label").textContent = hasKey() ? `That did not open it: ${problem.detail}` : "This server asks for an API key";
    form.hidden = false;
    input.focus();
  };
}
