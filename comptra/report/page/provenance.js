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

/* Any JSON value, as text, or as a nested list of names and values. */
function value(item) {
  if (item === null || item === undefined) return page.el("span", { class: "muted" }, "none");
  if (Array.isArray(item)) {
    if (item.every((one) => typeof one !== "object" || one === null)) return page.marked(item.map(String).join(", ") || "none");
    return page.el("ol", {}, item.map((one) => page.el("li", {}, value(one))));
  }
  if (typeof item === "object") return pairs(item);
  const text = page.marked(String(item));
  return SHORT_HASH.test(item) ? page.el("code", {}, text) : text;
}

function pairs(object) {
  const entries = Object.entries(object);
  if (!entries.length) return page.el("span", { class: "muted" }, "none");
  return page.el("dl", { class: "pairs" }, entries.map(([name, item]) => page.el("div", {}, page.el("dt", {}, page.marked(name)), page.el("dd", {}, value(item)))));
}

function duration(step) {
  const seconds = (Date.parse(step.finished) - Date.parse(step.started)) / 1000;
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 120) return `${page.number(seconds)} s`;
  return seconds < 7200 ? `${page.number(seconds / 60, 1)} min` : `${page.number(seconds / 3600, 1)} h`;
}

const time = (text) => (text ? text.replace("T", " ").replace(/(\+00:00|Z)$/, " UTC") : "–");

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

page.sections.provenance = async function (element, data) {
  const meta = await page.data("page");
  element.append(page.el("p", {}, "Each row is a manifest, which a stage writes when it has finished, or the settings of a stage that has not. ",
    "The commands repeat the run; settings are all that decides its results."));
  element.append(page.table([
    { title: "stage", value: "stage" },
    { title: "of", value: (step) => step.language || "all" },
    { title: "folder", value: (step) => page.el("span", { class: "path" }, page.marked(step.folder)) },
    { title: "started", value: (step) => time(step.started), class: "nowrap" },
    { title: "took", value: duration, class: "number" },
    { title: "state", value: (step) => (step.complete ? "complete" : page.el("b", { class: "warn" }, "not finished")) },
  ], data.steps, { label: "Stages", wide: true }));

  element.append(page.el("h3", {}, "Stages in detail"));
  for (const step of data.steps) {
    element.append(page.el("details", { class: "step" },
      page.el("summary", {}, page.el("b", {}, step.stage), ` ${step.language} `, page.el("span", { class: "path" }, page.marked(`${step.folder}/${step.file}`))),
      step.command ? [page.el("h4", {}, "Command"), page.el("pre", {}, page.marked(shell(step.command)))] : null,
      step.settings ? [page.el("h4", {}, "Settings that decide the result"), pairs(step.settings)] : null,
      Object.keys(step.facts).length ? [page.el("h4", {}, "What it recorded"), pairs(step.facts)] : null,
      step.lineage ? [page.el("h4", {}, "What it was made from"), lineage(step.lineage)] : null,
      step.versions ? [page.el("h4", {}, "Versions"), value(Object.entries(step.versions).map(([name, version]) => `${name} ${version}`))] : null));
  }

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
