// The page at /docs: /openapi.json made readable, with a curl command for every way to call an operation.

import { ask, hasKey, keyForm } from "./ask.js";
import { element } from "./element.js";

const byId = (id) => document.getElementById(id);
const showKeyForm = keyForm(byId("key"), load);
const HERE = new URL(".", location.href).href.replace(/\/$/, "");
const FORM = "-F images=@photo.jpg -F images=@other.jpg";

let schemas = {};

async function load() {
  try {
    const described = await (await ask("openapi.json")).json();
    const served = await ask("models").then((response) => response.json()).catch(() => ({}));
    show(described, served);
  } catch (problem) {
    if (problem.code === "unauthorized") showKeyForm(problem);
    byId("note").textContent = problem.message;
  }
}

/** `served`: the body of GET /models, whose name and version complete the commands; empty while it fails. */
function show({ info, paths, components, tags }, served) {
  schemas = components.schemas;
  byId("note").textContent = `${info.description} Version ${info.version}.`;
  const operations = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method: method.toUpperCase(), ...operation })),
  );
  const sections = tags.map(({ name }) => [name, operations.filter((operation) => operation.tags[0] === name)]);
  byId("contents").replaceChildren(...sections.flatMap(([tag, members]) => [element("h2", "", tag), list(members)]));
  byId("operations").replaceChildren(...sections.flatMap(([tag, members]) => [element("h2", "tag", tag), ...members.map((one) => card(one, served))]));
  if (location.hash) byId(location.hash.slice(1))?.scrollIntoView();
}

function list(operations) {
  return element("ul", "", ...operations.map(({ operationId, method, path }) => {
    const link = element("a", "", element("span", "method", method), ` ${path}`);
    link.href = `#${operationId}`;
    return element("li", "", link);
  }));
}

function card(operation, served) {
  const { operationId, method, path, description = "", parameters = [], requestBody, responses } = operation;
  const title = element("h3", "", element("span", "method", method), ` ${path}`);
  const made = element("section", "panel operation", title, element("p", "", inline(description)));
  made.id = operationId;
  made.append(...commands(operation, served).map(command));
  if (parameters.length) made.append(element("h4", "", "Parameters"), table(parameters.map(parameterRow)));
  if (requestBody) made.append(...bodies(requestBody));
  made.append(element("h4", "", "Responses"), element("div", "", ...Object.entries(responses).map(answer)));
  return made;
}

/** Text with `code` in backticks, as in docstrings. */
function inline(text) {
  const whole = element("span");
  whole.append(...text.split("`").map((piece, i) => (i % 2 ? element("code", "", piece) : piece)));
  return whole;
}

function parameterRow({ name, in: place, required, description = "", schema }) {
  const type = `${typeOf(schema)}, ${place}${required ? "" : ", optional"}`;
  return [element("code", "", name), element("span", "note", type), inline(description)];
}

function table(rows) {
  return element("table", "", element("tbody", "", ...rows.map((row) => element("tr", "", ...row.map((cell) => element("td", "", cell))))));
}

function bodies({ description = "", content }) {
  const shown = Object.entries(content).filter(([, { schema }]) => schema?.$ref);
  return [element("h4", "", "Body"), element("p", "", inline(description)), ...shown.map(([type, { schema }]) => element("div", "", element("p", "note", type), fields(schema)))];
}

function answer([status, { description, content = {} }]) {
  const [type, { schema, example } = {}] = Object.entries(content)[0] ?? ["no body"];
  const made = element("details", "", element("summary", "", element("strong", "", status), ` ${description}`), element("p", "note", type));
  const shown = example ?? (schema && sample(schema));
  if (shown !== undefined && type.includes("json")) made.append(element("pre", "", JSON.stringify(shown, null, 2)));
  if (schema?.$ref) made.append(fields(schema));
  return made;
}

/** The fields of a named schema, each with its type. */
function fields(schema) {
  const { properties = {}, required = [], description = "" } = resolve(schema);
  const rows = Object.entries(properties).map(([name, property]) => [
    element("code", "", name),
    element("span", "note", `${typeOf(property)}${required.includes(name) ? "" : ", optional"}`),
    inline(property.description ?? ""),
  ]);
  return element("div", "", element("p", "", inline(description)), table(rows));
}

function resolve(schema) {
  return schema.$ref ? schemas[schema.$ref.split("/").pop()] : schema;
}

function typeOf(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(typeOf).filter((type) => type !== "null").join(" or ");
  if (schema.type === "array") return `list of ${typeOf(schema.items ?? {})}`;
  return schema.type ?? "anything";
}

/** A sample value that fits the schema. */
function sample(schema) {
  const { type, properties = {}, items, anyOf } = resolve(schema);
  if (anyOf) return sample(anyOf[0]);
  if (type === "object") return Object.fromEntries(Object.entries(properties).map(([name, property]) => [name, sample(property)]));
  if (type === "array") return items ? [sample(items)] : [];
  return { string: "...", integer: 0, number: 0.5, boolean: true }[type] ?? null;
}

/** curl sends a request that has a body as POST. */
function commands({ method, path, requestBody }, served) {
  const url = HERE + path.replace(/{(\w+)}/g, (_, name) => encodeURIComponent(served[name] ?? name.toUpperCase()));
  const verb = method === "GET" || requestBody ? "" : `-X ${method}`;
  const key = hasKey() ? "-H 'X-API-Key: KEY'" : "";
  const inputs = Object.entries(requestBody?.content ?? { "": {} });
  // Nobody can type binary tensors after JSON.
  const typed = inputs.filter(([type, { example }]) => !type || example || requestBody.content["image/*"]);
  return typed.map(([type, { schema, example }]) => ["curl", verb, key, curlBody(type, schema, example), url].filter(Boolean).join(" "));
}

/** How curl sends a body of this type: JSON as in its example, raw bytes from a file. */
function curlBody(type, schema, example) {
  if (example) return `-H 'Content-Type: ${type}' -d '${JSON.stringify(example)}'`;
  if (schema?.format === "binary") return `-H 'Content-Type: ${type.replace("*", "jpeg")}' --data-binary @photo.jpg`;
  return type === "multipart/form-data" ? FORM : "";
}

function command(text) {
  const button = element("button", "quiet copy", "Copy");
  button.type = "button";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  });
  // Browsers offer the clipboard only over https and on localhost.
  return element("div", "command", element("pre", "", text), ...(navigator.clipboard ? [button] : []));
}

load();
