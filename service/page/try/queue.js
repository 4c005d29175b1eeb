// Requests in order, a few at once. A missing key holds all of them back, and so does the server's Retry-After.

// Browsers open six connections to a server; the page keeps some for the rest.
const MAX_CONCURRENT = 4;
// How often a request is repeated automatically; then the user decides.
const MAX_TRIES = 5;

const waiting = [];
let inFlight = 0;
let resumeAt = 0;
let locked = false;
let events = {};

/** `onLock(problem)`: a key is needed; `onIdle()`: nothing is left to do. */
export const onEvents = (handlers) => (events = handlers);

/** A job: `send()`, a promise that throws a Problem; `wait(text)` and `fail(problem)` say so; `wanted()`: still? */
export function enqueue(...jobs) {
  waiting.push(...jobs.map((job) => ({ ...job, tries: 0 })));
  pump();
}

export function unlock() {
  locked = false;
  pump();
}

export const forgetAll = () => (waiting.length = 0);

function pump() {
  while (!locked && inFlight < MAX_CONCURRENT && waiting.length && performance.now() >= resumeAt) run(waiting.shift());
}

async function run(job) {
  if (!job.wanted()) return;
  inFlight += 1;
  job.tries += 1;
  try {
    await job.send();
  } catch (problem) {
    if (job.wanted()) refuse(job, problem);
  }
  inFlight -= 1;
  pump();
  if (inFlight === 0 && waiting.length === 0) events.onIdle();
}

function refuse(job, problem) {
  if (problem.code === "unauthorized") {
    waiting.unshift(job);
    job.wait("waiting for the key");
    locked = true;
    events.onLock(problem);
  } else if (problem.retryAfterMs && job.tries < MAX_TRIES) {
    retryLater(job, problem);
  } else {
    job.fail(problem);
  }
}

/** Retry-After applies to every waiting request: they all go to the same server. */
function retryLater(job, problem) {
  waiting.unshift(job);
  resumeAt = Math.max(resumeAt, performance.now() + problem.retryAfterMs);
  job.wait(`${problem.message}. Retrying in ${problem.retryAfterMs / 1000} s.`);
  setTimeout(pump, resumeAt - performance.now() + 1);
}
