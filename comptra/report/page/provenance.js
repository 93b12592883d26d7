const SHORT_HASH = /^[0-9a-f]{16}([0-9a-f]{48})?$/;

/* A command as a shell takes it, a flag with its values on each line. */
function shell(words) {
  const quoted = words.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`));
  const lines = [];
  for (const word of quoted) {
    if (!lines.length || word.startsWith("--")) lines.push(word);
    else lines[lines.length - 1] += ` ${word}`;
  }
  return lines.join(" \\\n    ");
}

const isObject = (item) => typeof item === "object" && item !== null && !Array.isArray(item);
const isFlat = (item) => typeof item !== "object" || item === null || (Array.isArray(item) && item.every((one) => typeof one !== "object" || one === null));

/* Any JSON value, as text, a list of names and values, or a table. */
function value(item) {
  if (item === null || item === undefined) return page.el("span", { class: "muted" }, "none");
  if (isFlat(item)) {
    const string = Array.isArray(item) ? item.map(String).join(", ") || "none" : String(item);
    return SHORT_HASH.test(item) ? page.el("code", {}, string) : page.marked(string);
  }
  return isObject(item) ? pairs(item) : page.el("ol", {}, item.map((one) => page.el("li", {}, value(one))));
}

/* Names and values: short ones in columns, each that has parts below. */
function pairs(object) {
  const entries = Object.entries(object);
  if (!entries.length) return page.el("span", { class: "muted" }, "none");
  if (entries.length > 1 && entries.every(([, item]) => isObject(item))) return matrix(entries);
  const flat = entries.filter(([, item]) => isFlat(item));
  return [
    flat.length ? page.el("dl", { class: "pairs" }, flat.map(([name, item]) => page.el("div", {}, page.el("dt", {}, page.marked(name)), page.el("dd", {}, value(item))))) : null,
    entries.filter(([, item]) => !isFlat(item)).map(([name, item]) => page.el("div", { class: "part" }, page.el("div", { class: "muted" }, page.marked(name)), value(item))),
  ];
}

/* What is of several languages, say: a row for each, with a column for each figure at any depth. */
function matrix(entries) {
  const rows = entries.map(([name, item]) => [name, leaves(item)]);
  const columns = [...new Set(rows.flatMap(([, row]) => Object.keys(row)))];
  return page.table(["", ...columns.map((column) => ({ title: column, value: ([, row]) => (isFlat(row[column]) && typeof row[column] === "number" ? row[column] : row[column] === undefined ? null : value(row[column])) }))],
    rows, { label: "Figures by name" });
}

function leaves(item, prefix = "") {
  return Object.fromEntries(Object.entries(item).flatMap(([name, part]) => (isObject(part) ? Object.entries(leaves(part, `${prefix}${name}.`)) : [[prefix + name, part]])));
}

function duration(step) {
  const seconds = (Date.parse(step.finished) - Date.parse(step.started)) / 1000;
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 120) return `${page.number(seconds)} s`;
  return seconds < 7200 ? `${page.number(seconds / 60, 1)} min` : `${page.number(seconds / 3600, 1)} h`;
}

function languages({ languages: names }) {
  return names.length > 3 ? `${names.length} languages` : names.join(", ");
}

const time = (text) => (text ? text.replace("T", " ").replace(/(\+00:00|Z)$/, " UTC") : "–");

/* The lineage of a step, of several languages by name, or of translations. */
function chains(item) {
  if (item.kind) return lineage(item);
  return Object.entries(item).map(([name, link]) => (link && link.kind ? [page.el("div", { class: "muted" }, page.marked(name)), lineage(link)]
    : Array.isArray(link) ? link.map(lineage) : [page.el("div", { class: "muted" }, page.marked(name)), value(link)]));
}

function details(title, content) {
  return page.el("details", {}, page.el("summary", {}, title), content);
}

/* A chain of models and data, each with what it was made from. */
function lineage(link) {
  if (!link || typeof link !== "object") return null;
  if (!link.kind) return value(link);
  const { links = [], kind, name, stage, ...rest } = link;
  return page.el("ul", { class: "chain" }, page.el("li", {},
    page.el("b", {}, kind === "model" ? "model " : "data "), page.el("span", { class: "path" }, page.marked(String(name))),
    stage ? ` made by ${stage}` : "",
    Object.keys(rest).some((key) => rest[key] !== null && rest[key].length !== 0) ? details("more", pairs(rest)) : null,
    links.map(lineage)));
}

/* The stages as a table, and each in detail. */
function steps(element, all) {
  element.append(page.el("p", {}, "Each row is a manifest, which a stage writes when it has finished, or the settings of a stage that has not. ",
    "The commands repeat the run; settings are all that decides its results."));
  element.append(page.table([
    { title: "stage", value: "stage" },
    { title: "languages", value: (step) => languages(step), class: "nowrap" },
    { title: "folder", value: (step) => page.el("span", { class: "path" }, page.marked(step.folder)) },
    { title: "started", value: (step) => time(step.started), class: "nowrap" },
    { title: "took", value: duration, class: "number" },
    { title: "state", value: (step) => (step.complete ? "complete" : page.el("b", { class: "warn" }, "not finished")) },
  ], all, { label: "Stages", wide: true }));

  element.append(page.el("h3", {}, "Stages in detail"));
  for (const step of all) {
    element.append(page.el("details", { class: "step" },
      page.el("summary", {}, page.el("b", {}, step.stage), ` ${languages(step)} `, page.el("span", { class: "path" }, page.marked(step.folder))),
      page.el("p", { class: "note" }, page.marked(step.files.slice(0, 4).join(", ")), step.files.length > 4 ? ` and ${step.files.length - 4} more` : ""),
      step.command ? [page.el("h4", {}, "Command"), page.el("pre", {}, page.marked(shell(step.command)))] : null,
      step.settings ? [page.el("h4", {}, "Settings that decide the result"), pairs(step.settings)] : null,
      Object.keys(step.facts).length ? [page.el("h4", {}, "What it recorded"), pairs(step.facts)] : null,
      step.lineage ? [page.el("h4", {}, "What it was made from"), chains(step.lineage)] : null,
      step.versions ? [page.el("h4", {}, "Versions"), value(Object.entries(step.versions).map(([name, version]) => `${name} ${version}`))] : null));
  }
}

page.sections.provenance = async function (element, data) {
  const meta = await page.data("page");
  if (data.steps.length) steps(element, data.steps);
  if (data.records.length) {
    element.append(page.el("h3", {}, "Recorded by the run file"), page.table([
      { title: "stage", value: "stage" },
      { title: "folder", value: (one) => page.el("span", { class: "path" }, page.marked(one.folder)) },
      { title: "started", value: (one) => time(one.started), class: "nowrap" },
      { title: "hours", value: "hours" },
      { title: "exit code", value: (one) => (one.exit_code ? page.el("b", { class: "warn" }, `${one.exit_code} (incomplete)`) : "0") },
      { title: "flags", value: (one) => details("flags", page.el("pre", {}, page.marked(shell(one.words || [])))) },
      { title: "files", value: (one) => details(`${Object.keys(one.outputs || {}).length} written`, pairs({ read: one.inputs, written: one.outputs })) },
    ], data.records, { label: "Stages that the run file recorded", wide: true }));
  }

  const changed = meta.sources.filter((file) => file.changed);
  page.add(element, page.el("h3", {}, "This page"),
    page.el("p", {}, `Made from ${page.number(meta.sources.length)} files. With the run at hand, their digests say whether the page still fits it.`),
    changed.length ? page.el("p", { class: "warn" }, `${page.number(changed.length)} of them changed while they were read: a stage was writing them.`) : null,
    page.el("pre", {}, page.marked(shell(meta.command))),
    details("Files and digests", page.table([
      { title: "file", value: (file) => page.el("span", { class: "path" }, page.marked(file.path)) },
      { title: "bytes", value: "size" },
      { title: "SHA-256", value: (file) => (file.sha256 ? page.el("code", {}, file.sha256) : "changed while it was read") },
    ], meta.sources, { label: "Files that the page was made from" })));
};
