// Requests to this server: the API key, and errors as text.

const STORED = "repvgg-api-key";

let key = "";
try {
  key = sessionStorage.getItem(STORED) ?? "";
} catch {
  // The browser blocks storage: the key lasts as long as the page.
}

/** `code` as in the server's problem documents, or one of ours: unreachable, unreadable, unexpected. `permanent`: the
 * same request would fail again. `retryAfterMs`: 0 if the server gave none. */
export class Problem extends Error {
  constructor(code, title, detail, { permanent = false, retryAfterMs = 0 } = {}) {
    super(`${title}: ${detail}`);
    Object.assign(this, { code, detail, permanent, retryAfterMs });
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

/** Returns the response if it succeeded. Throws a Problem. */
export async function ask(path, options = {}) {
  const headers = new Headers(options.headers);
  if (hasKey()) headers.set("X-API-Key", key);
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options, headers });
  } catch {
    throw new Problem("unreachable", "The server cannot be reached", "check that it is running and that this device is online");
  }
  if (response.ok) return response;
  throw await problemOf(response);
}

async function problemOf(response) {
  if (!response.headers.get("Content-Type")?.startsWith("application/problem+json")) {
    const title = `Unexpected response: ${response.status} ${response.statusText}`;
    return new Problem("unexpected", title, "it comes from a proxy in front of the service, not from the service");
  }
  const document = await response.json();
  return new Problem(document.code, document.title, document.detail, {
    permanent: response.status < 500 && response.status !== 429,
    retryAfterMs: 1000 * Number(response.headers.get("Retry-After")),
  });
}

/** Wires the API key form; `retry` runs once a key is entered. Returns a function that shows the form. */
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
    form.querySelector("label").textContent = hasKey() ? `The key was rejected: ${problem.detail}` : "This server requires an API key";
    form.hidden = false;
    input.focus();
  };
}
