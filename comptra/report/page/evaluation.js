const SORTS = { larger: "largest difference first", a: "where A is better first", b: "where B is better first", order: "order of the test set" };
const SHOWN = 150; // rows of the list; more on demand
const OPEN = 3; // reports, and tables of single directions, that are shown at once

/* --- Scores --- */

/* A cell of a table of comptra.evaluate: a text, or [score, marks]; `width`: the most marks of its column. */
function cell(value, width, legend) {
  if (typeof value === "string") return page.marked(value);
  const [score, marks] = value;
  const own = [...marks].map((mark) => page.el("span", { class: /[!~<]/.test(mark) ? "warn" : null, title: legend[mark] }, mark));
  return [page.el("span", { class: marks.includes("^") ? "best" : null }, page.marked(score)), page.el("span", { class: "marks", style: `min-width: ${width}ch` }, own)];
}

function scores(table, legend) {
  const columns = table.header.map((title, i) => {
    const width = Math.max(0, ...table.rows.map((row) => (Array.isArray(row[i]) ? row[i][1].length : 0)));
    return { title: page.el("span", {}, page.marked(title)), value: (row) => cell(row[i], width, legend), number: i >= table.described };
  });
  return page.table(columns, table.rows, { caption: table.title });
}

function problems(lines) {
  return lines.length ? page.el("ul", { class: "notices" }, lines.map((line) => page.el("li", { class: "problem" }, page.el("b", {}, "Stale"), " ", page.el("span", {}, page.marked(line))))) : null;
}

function unknown(paths) {
  if (!paths.length) return null;
  return page.el("details", { class: "warn" }, page.el("summary", {}, `${page.number(paths.length)} of the scored runs could not be checked: their translations or references are not here`),
    page.el("ul", {}, paths.map((path) => page.el("li", { class: "path" }, page.marked(path)))));
}

function notes(lines) {
  const serious = lines.filter((line) => /^(warning:|UNEQUAL|!|<|~)/.test(line) || line.includes("not computed"));
  const others = lines.filter((line) => !serious.includes(line));
  const list = (items) => page.el("ul", { class: "notes" }, items.map((line) => page.el("li", {}, page.marked(line))));
  return [
    serious.length ? page.el("div", { class: "warnings" }, list(serious)) : null,
    others.length ? page.el("details", { open: others.length < 9 }, page.el("summary", {}, "Signatures, tests and settings"), list(others)) : null,
  ];
}

/* `isOpen`: of many reports, such as those of rounds, some wait behind their names. */
function report(one, isOpen) {
  const marks = Object.entries(one.marks);
  const skipped = Object.entries(one.skipped);
  const title = page.el("h3", {}, "Scores ", page.el("span", { class: "path muted" }, one.path ? page.marked(one.path) : "computed for this page"));
  const content = [
    problems(one.problems),
    unknown(one.unknown),
    page.el("div", { class: "tables" }, one.tables.map((table) => scores(table, one.marks))),
    marks.length ? page.el("dl", { class: "legend" }, marks.map(([mark, meaning]) => page.el("div", {}, page.el("dt", {}, mark), page.el("dd", {}, meaning)))) : null,
    notes(one.notes),
    skipped.length ? page.el("div", { class: "warnings" }, page.el("p", {}, "Not scored:"), page.el("ul", {}, skipped.map(([folder, why]) => page.el("li", {}, page.marked(why.includes(folder) ? why : `${folder}: ${why}`))))) : null,
    one.directions.length ? page.el("details", { open: one.directions.length <= OPEN }, page.el("summary", {}, "Each direction with intervals and p-values"), page.el("div", { class: "tables" }, one.directions.map((own) => scores({ ...own.table, title: own.title }, one.marks)))) : null,
    page.el("div", { class: "grid" }, one.panels.map(panel)),
  ];
  return isOpen ? [title, content] : page.el("details", { class: "report" }, page.el("summary", {}, title), content);
}

/* A metric against training steps, a line for each direction and training, bands for 95 % intervals. */
function panel(one) {
  const shown = (score) => page.number(score, one.digits);
  const points = one.series.flatMap((line) => line.points.map(([step, score, low, high]) => ({ step, score, low, high, line: line.label })));
  const color = (direction) => (one.series.find((line) => line.direction === direction) || one.series[0]).label;
  const baselines = Object.entries(one.baselines).map(([direction, score]) => ({ score, line: color(direction), direction }));
  const hasBands = points.some((point) => point.low < point.high);
  const lines = one.series.map((line) => {
    const [first, last] = [line.points[0], line.points[line.points.length - 1]];
    return `${line.label}: ${shown(first[1])} at step ${page.number(first[0])}, ${shown(last[1])} at step ${page.number(last[0])}`;
  });
  return page.chart({
    marginBottom: 36, x: { label: "step", ticks: 6 }, y: { label: one.axis, grid: true, nice: true }, color: { type: "categorical", domain: one.series.map((line) => line.label), legend: one.series.length > 1 }, height: 300,
    marks: [
      hasBands ? Plot.areaY(points, { x: "step", y1: "low", y2: "high", fill: "line", fillOpacity: 0.15 }) : null,
      Plot.ruleY(baselines, { y: "score", stroke: "line", strokeDasharray: "4,4", title: (base) => `baseline, ${base.direction}: ${shown(base.score)}` }),
      Plot.lineY(points, { x: "step", y: "score", stroke: "line", marker: "dot" }),
      Plot.tip(points, Plot.pointerX({ x: "step", y: "score", title: (point) => `${point.line}\nstep ${page.number(point.step)}: ${shown(point.score)}${point.low < point.high ? ` [${shown(point.low)}, ${shown(point.high)}]` : ""}`, fill: "var(--raised)", stroke: "var(--edge)" })),
    ],
  }, {
    title: `${one.title} against training steps`,
    description: `${lines.join("; ")}.`,
    note: [hasBands ? "bands: 95 % intervals" : "", baselines.length ? "dashed: baseline" : ""].filter(Boolean).join("; ") || null,
    table: {
      columns: ["line", "step", ...[one.axis, "low", "high"].map((title, i) => ({ title, value: i + 2, digits: one.digits }))],
      rows: [...points.map((point) => [point.line, point.step, point.score, ...(point.low < point.high ? [point.low, point.high] : [null, null])]),
        ...baselines.map((base) => [`baseline, ${base.direction}`, null, base.score, null, null])],
    },
  });
}

function comparison(one) {
  return [
    page.el("h3", {}, `Comparison ${one.experiment} `, page.el("span", { class: "path muted" }, page.marked(one.path))),
    problems(one.problems),
    unknown(one.unknown),
    page.el("div", { class: "tables" }, one.tables.map((table) => scores(table, {}))),
    notes(one.notes),
  ];
}

/* --- Differences of two texts --- */

const segmenters = new Map();
function segmenter(code) {
  if (!segmenters.has(code)) {
    let made;
    try { made = new Intl.Segmenter(code || undefined, { granularity: "word" }); } catch { made = new Intl.Segmenter(undefined, { granularity: "word" }); }
    segmenters.set(code, made);
  }
  return segmenters.get(code);
}

/* The words of a text, each with the white space behind it. */
function words(string, code) {
  const found = [];
  for (const { segment } of segmenter(code).segment(string)) {
    if (!segment.trim() && found.length) found[found.length - 1] += segment;
    else found.push(segment);
  }
  return found;
}

/* For each of two texts its runs of words, [text, whether the other one lacks it]; null if they are too long to compare. */
function differences(first, second, code) {
  const both = [words(first, code), words(second, code)];
  const parts = Diff.diffArrays(...both, { comparator: (a, b) => a.trim() === b.trim(), timeout: 400 });
  if (!parts) return null;
  const at = [0, 0], runs = [[], []];
  for (const part of parts) {
    for (const side of part.added ? [1] : part.removed ? [0] : [0, 1]) {
      runs[side].push([both[side].slice(at[side], at[side] + part.count).join(""), part.added || part.removed]);
      at[side] += part.count;
    }
  }
  return runs;
}

/* A text in its language, with the words marked that `runs` says. */
function text(string, runs, language, kind) {
  const { code, dir } = page.language(language);
  const nodes = runs ? runs.map(([part, isOwn]) => {
    if (!isOwn || !part.trim()) return page.marked(part);
    const end = part.match(/\s*$/)[0];
    return [page.el("mark", { class: kind }, page.marked(part.slice(0, part.length - end.length))), page.marked(end)];
  }) : page.marked(string);
  return page.el("bdi", { class: "text", lang: code || null, dir }, nodes);
}

/* --- Sentences --- */

function option(value, label, chosen) {
  return page.el("option", { value, selected: value === chosen }, label);
}

function field(label, control) {
  return page.el("label", {}, page.el("span", {}, label), control);
}

/* Two systems side by side. Returns show(params). */
function viewer(groups, element) {
  const state = { group: groups[0].id, a: "", b: "", metric: "", sort: "larger", show: "all", search: "", marks: "each", sentence: null };
  let rows = [], limit = SHOWN;

  const controls = {};
  const choose = (name, label) => {
    const control = page.el("select", { name, onchange: () => { state[name] = control.value; if (name === "group") state.sentence = null; refresh(); } });
    controls[name] = control;
    return field(label, control);
  };
  const search = page.el("input", { type: "search", name: "search", oninput: () => { state.search = search.value; refresh(); } });
  controls.search = search;
  const swap = page.el("button", { type: "button", onclick: () => { [state.a, state.b] = [state.b, state.a]; refresh(); } }, "Swap A and B");
  const summary = page.el("p", { class: "summary" });
  const count = page.el("p", { class: "muted", role: "status" });
  const list = page.el("div", { class: "list", role: "listbox", tabindex: "0", "aria-label": "Sentences", onkeydown: key });
  const head = page.el("div", { class: "list-head muted", "aria-hidden": "true" });
  const more = page.el("button", { type: "button", hidden: true, onclick: () => { limit += SHOWN; draw(); } }, "Show more sentences");
  const detail = page.el("article", { class: "sentence", "aria-label": "The sentence" });
  page.add(element,
    page.el("h3", { id: "evaluation-sentences" }, "Two systems side by side"),
    page.el("form", { class: "controls", onsubmit: (event) => event.preventDefault() },
      choose("group", "Test set and direction"), choose("a", "System A"), choose("b", "System B"), swap,
      choose("metric", "Score"), choose("sort", "Sort"), choose("show", "Show"), field("Search", search), choose("marks", "Mark")),
    summary, count, page.el("div", { class: "pair" }, page.el("div", {}, head, list, more), detail));

  const group = () => groups.find((one) => one.id === state.group) || groups[0];
  const system = (side) => group().systems.find((one) => one.id === state[side]);
  const metric = () => group().metrics.find((one) => one.name === state.metric);

  /* What `side` scores, and how much better A is than B, whichever way the metric goes; null without both. */
  function score(side, place) {
    const own = metric() && system(side).scores[metric().name];
    return own ? own[place] : null;
  }
  function better(place) {
    const [a, b] = [score("a", place), score("b", place)];
    return a === null || b === null ? null : (metric().higher ? 1 : -1) * (a - b);
  }
  const differ = (place) => system("a").translations[place] !== system("b").translations[place];
  const faultsOf = (one, place) => Object.entries(one.faults).filter(([, places]) => places.includes(place)).map(([fault]) => fault);

  /* The controls' choices, after the group or a fragment has changed. */
  function complete() {
    const one = group();
    state.group = one.id;
    const known = new Set(one.systems.map((own) => own.id));
    if (!known.has(state.a)) state.a = one.systems[0].id;
    if (!known.has(state.b) || state.a === state.b) {
      const others = one.systems.filter((own) => own.id !== state.a).sort((x, y) => (y.corpus ?? 0) - (x.corpus ?? 0));
      state.b = (others[0] || one.systems[0]).id;
    }
    if (!metric()) state.metric = one.metrics.length ? one.metrics[0].name : "";
    if (!metric() || !Object.hasOwn(SORTS, state.sort)) state.sort = metric() ? "larger" : "order";
    const faults = [...new Set(one.systems.flatMap((own) => Object.keys(own.faults)))];
    if (state.show.startsWith("fault:") && !faults.includes(state.show.slice(6))) state.show = "all";
    const fill = (name, options) => controls[name].replaceChildren(...options.map(([value, label]) => option(value, label, state[name])));
    fill("group", groups.map((own) => [own.id, `${own.dataset || "test set"}: ${own.src} to ${own.tgt}${own.id.match(/-\d+$/) && groups.filter((x) => x.src === own.src && x.tgt === own.tgt && x.dataset === own.dataset).length > 1 ? ` (${own.total} sentences)` : ""}`]));
    for (const side of ["a", "b"]) fill(side, one.systems.map((own) => [own.id, own.corpus === null ? own.label : `${own.label} (chrF++ ${page.number(own.corpus, 2)})`]));
    fill("metric", one.metrics.length ? one.metrics.map((own) => [own.name, own.title + (own.higher ? "" : " (lower is better)")]) : [["", "none"]]);
    fill("sort", Object.entries(SORTS).filter(([name]) => metric() || name === "order"));
    fill("show", [["all", "all"], ["differing", "different translations"], ["faults", "any fault of A or B"], ...faults.map((fault) => [`fault:${fault}`, `${fault.replaceAll("_", " ")} (A or B)`])]);
    fill("marks", [["each", "words that the other lacks"], ...(one.references ? [["reference", "words that the reference lacks"]] : []), ["none", "nothing"]]);
    if (state.marks === "reference" && !one.references) state.marks = controls.marks.value = "each";
    search.value = state.search;
  }

  function matches(place) {
    const one = group(), [a, b] = [system("a"), system("b")];
    if (state.show === "differing" && !differ(place)) return false;
    if (state.show === "faults" && !faultsOf(a, place).length && !faultsOf(b, place).length) return false;
    if (state.show.startsWith("fault:") && ![a, b].some((own) => faultsOf(own, place).includes(state.show.slice(6)))) return false;
    const wanted = state.search.trim().normalize().toLowerCase();
    if (!wanted) return true;
    const texts = [one.sources[place], one.references && one.references[place], a.translations[place], b.translations[place]];
    return texts.some((own) => own && own.normalize().toLowerCase().includes(wanted));
  }

  function select() {
    const places = group().numbers.map((_, place) => place).filter(matches);
    const by = { larger: (place) => Math.abs(better(place)), a: better, b: (place) => -better(place) }[state.sort];
    if (by) {
      const value = new Map(places.map((place) => [place, better(place) === null ? -Infinity : by(place)]));
      places.sort((x, y) => value.get(y) - value.get(x) || x - y);
    }
    rows = places;
  }

  function refresh(write = true) {
    complete();
    select();
    limit = SHOWN;
    if (state.sentence === null || !rows.some((place) => group().numbers[place] === state.sentence)) state.sentence = rows.length ? group().numbers[rows[0]] : null;
    describe();
    draw();
    if (write) remember();
  }

  function remember() {
    const { group, a, b, sentence, metric, sort, show, search, marks } = state;
    page.replace("evaluation", { group, a, b, sentence, metric, sort: sort === "larger" ? "" : sort, show: show === "all" ? "" : show, search, marks: marks === "each" ? "" : marks });
  }

  function describe() {
    const one = group();
    const shown = one.numbers.length;
    const statement = shown === one.total ? `All ${page.number(one.total)} sentences of the test set.`
      : `${page.number(shown)} of ${page.number(one.total)} sentences: ${page.number(one.differing)} whose translations differ most, ${page.number(shown - one.differing)} drawn at random. Others did not fit into the page.`;
    const compared = one.numbers.map((_, place) => better(place)).filter((value) => value !== null);
    const wins = [compared.filter((value) => value > 0).length, compared.filter((value) => value < 0).length];
    const missing = ["a", "b"].filter((side) => system(side).missing).map((side) => ` ${side.toUpperCase()} has translated ${page.number(system(side).sentences)} of ${page.number(system(side).sentences + system(side).missing)} sentences.`);
    summary.textContent = [statement,
      metric() ? ` By ${metric().title} A is better in ${page.number(wins[0])} of them, B in ${page.number(wins[1])}, and they are equal in ${page.number(compared.length - wins[0] - wins[1])}.` : " They have no scores.",
      ` Translations differ in ${page.number(one.numbers.filter((_, place) => differ(place)).length)}.`, ...missing].join("");
    count.textContent = `${page.number(rows.length)} of ${page.number(shown)} sentences are listed.`;
  }

  function draw() {
    const one = group(), digits = metric() ? metric().digits : 2, source = page.language(one.src);
    head.replaceChildren(...["", "source", ...(metric() ? ["A", "B", "better by"] : [])].map((title, i) => page.el("span", { class: i > 1 ? "number" : null }, title)));
    const items = rows.slice(0, limit).map((place) => {
      const difference = better(place);
      return page.el("div", { role: "option", id: `sentence-${one.numbers[place]}`, "aria-selected": String(one.numbers[place] === state.sentence), "data-place": place, onclick: () => go(place) },
        page.el("span", { class: "number" }, page.number(one.numbers[place])),
        page.el("span", { class: "start", lang: source.code || null, dir: source.dir }, page.marked(one.sources[place].slice(0, 160))),
        metric() ? ["a", "b"].map((side) => page.el("span", { class: "number" }, page.number(score(side, place), digits))) : null,
        metric() ? page.el("span", { class: `number ${difference > 0 ? "of-a" : difference < 0 ? "of-b" : ""}` }, difference === null ? "–" : (difference > 0 ? "A +" : difference < 0 ? "B +" : "") + page.number(Math.abs(difference), digits)) : null);
    });
    list.replaceChildren(...(items.length ? items : [page.el("div", { role: "option", "aria-disabled": "true", "aria-selected": "false" }, "No sentence is like that.")]));
    more.hidden = rows.length <= limit;
    mark();
    look();
  }

  function mark() {
    for (const item of list.querySelectorAll("[aria-selected]")) item.setAttribute("aria-selected", String(item.id === `sentence-${state.sentence}`));
    if (state.sentence === null) list.removeAttribute("aria-activedescendant");
    else list.setAttribute("aria-activedescendant", `sentence-${state.sentence}`);
    const own = document.getElementById(`sentence-${state.sentence}`);
    if (own) list.scrollTop = Math.max(Math.min(list.scrollTop, own.offsetTop), own.offsetTop + own.offsetHeight - list.clientHeight);
  }

  function go(place) {
    state.sentence = group().numbers[place];
    const position = rows.indexOf(place);
    if (position >= limit) { limit = position + SHOWN; draw(); } else { mark(); look(); }
    remember();
  }

  function key(event) {
    const position = rows.findIndex((place) => group().numbers[place] === state.sentence);
    const moves = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
    if (!(event.key in moves) || event.ctrlKey || event.metaKey || event.altKey || !rows.length) return;
    event.preventDefault();
    go(rows[Math.min(Math.max(position + moves[event.key], 0), rows.length - 1)]);
  }

  function side(name, place, runs) {
    const one = group(), own = system(name), string = own.translations[place];
    const values = one.metrics.map((each) => [each.title, own.scores[each.name][place], each.digits]).filter(([, value]) => value !== null);
    return page.el("div", { class: `side side-${name}` },
      page.el("h5", {}, page.el("b", { class: `of-${name}` }, name.toUpperCase()), " ", page.marked(own.label)),
      string === null ? page.el("p", { class: "warn" }, "not translated yet") : string === "" ? page.el("p", { class: "warn" }, "empty") : page.el("p", { class: "translation" }, text(string, runs, one.tgt, name)),
      page.el("p", { class: "muted" }, values.map(([title, value, digits]) => `${title} ${page.number(value, digits)}`).join(" · "),
        faultsOf(own, place).map((fault) => [" ", page.el("span", { class: "fault" }, fault.replaceAll("_", " "))])),
      tree(own.trees[place], one));
  }

  function look() {
    const one = group(), place = one.numbers.indexOf(state.sentence);
    if (place < 0) return detail.replaceChildren();
    const [a, b] = [system("a"), system("b")].map((own) => own.translations[place] ?? "");
    const { code } = page.language(one.tgt), reference = one.references && one.references[place];
    let runs = [null, null], note = null;
    if (state.marks === "each" && a !== b) runs = differences(a, b, code) || ((note = "too long for their differences to be marked"), [null, null]);
    if (state.marks === "reference") runs = [a, b].map((own) => (differences(own, reference, code) || [null])[0]);
    const position = rows.indexOf(place);
    const step = (by, label) => page.el("button", { type: "button", disabled: !rows[position + by] && rows[position + by] !== 0, onclick: () => go(rows[position + by]) }, label);
    detail.replaceChildren(...[
      page.el("div", { class: "head" }, page.el("h4", {}, `Sentence ${page.number(state.sentence)} of ${page.number(one.total)}`), step(-1, "Previous"), step(1, "Next")),
      page.el("div", { class: "texts" },
        page.el("div", { class: "side" }, page.el("h5", {}, `Source (${one.src})`), page.el("p", {}, page.text(one.sources[place], one.src))),
        page.el("div", { class: "side" }, page.el("h5", {}, `Reference (${one.tgt})`), reference === null ? page.el("p", { class: "muted" }, "no reference is here") : page.el("p", {}, page.text(reference, one.tgt))),
        side("a", place, runs[0]), side("b", place, runs[1])),
      note && page.el("p", { class: "warn" }, note),
      state.marks === "each" && a === b ? page.el("p", { class: "muted" }, "Both translations are the same.") : null,
    ].filter(Boolean));
  }

  refresh(false);
  return (params) => {
    if (!Object.keys(params).length) return;
    for (const name of ["group", "a", "b", "metric", "sort", "show", "search", "marks"]) if (name in params) state[name] = params[name];
    state.sentence = Number(params.sentence) || null;
    const wanted = state.sentence;
    complete();
    if (wanted !== null && group().numbers.includes(wanted)) {
      select();
      if (!rows.some((place) => group().numbers[place] === wanted)) Object.assign(state, { show: "all", search: "" });
    }
    refresh(false);
    if (wanted !== null && state.sentence !== wanted) page.announce(`Sentence ${wanted} is not in this page`);
    element.scrollIntoView({ block: "start" });
  };
}

/* How CompTra came to a translation: phrases with their translations, from the smallest up; drafts. */
function tree(node, one) {
  if (!node) return null;
  const draft = (own) => {
    const versions = [...(own.d || []), own.t];
    return versions.slice(1).map((refined, k) => {
      const runs = differences(versions[k], refined, page.language(one.tgt).code) || [null, null];
      return page.el("p", {}, page.el("span", { class: "muted" }, k ? "then " : "draft "), text(versions[k], runs[0], one.tgt, "a"), page.el("span", { class: "muted" }, " refined "), text(refined, runs[1], one.tgt, "b"));
    });
  };
  const merged = (own) => own.a && page.el("details", {}, page.el("summary", {}, "How the model merged them"), page.el("pre", {}, page.marked(own.a)));
  const phrase = (own) => page.el("li", {},
    page.text(own.s, one.src), page.el("span", { class: "arrow", "aria-label": "translated as" }, " → "), own.t ? page.text(own.t, one.tgt) : page.el("span", { class: "warn" }, "empty"),
    (own.m || []).map((mark) => [" ", page.el("span", { class: "fault" }, mark)]),
    own.c && page.el("ul", {}, own.c.map(phrase)), merged(own), draft(own));
  return page.el("details", { class: "tree", open: true }, page.el("summary", {}, node.c ? `${node.c.length} phrases, which were merged` : "Draft"),
    node.c && page.el("ul", {}, node.c.map(phrase)), merged(node), draft(node));
}

page.sections.evaluation = function (element, data) {
  page.add(element, data.reports.map((one, i) => report(one, i < OPEN || one.problems.length > 0)), data.comparisons.map(comparison));
  const groups = data.sentences.filter((one) => one.systems.length);
  if (!groups.length) return {};
  const holder = page.el("div", { class: "viewer" });
  element.append(holder);
  return { show: viewer(groups, holder) };
};
