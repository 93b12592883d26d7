const STEPS = {
  prompts: "prompts sent", responses: "responses", texts: "texts", native_texts: "native texts", paragraphs: "paragraphs",
  sentences: "sentences", pairs: "pairs", decontaminated: "pairs without overlap with benchmarks",
};
const plain = (reason) => reason.replaceAll("_", " ");
const isOfTexts = (step) => ["responses", "texts", "native_texts"].includes(step.name);
const countOf = (one, name) => one.steps.find((step) => step.name === name)?.count;

/* Sentences of each language by what became of them: the commonest reasons by name, others together. */
function outcomes(funnels, label) {
  const rows = [];
  for (const one of funnels) {
    const [sentences, pairs] = ["sentences", "pairs"].map((name) => one.steps.find((step) => step.name === name));
    if (!sentences || !sentences.count) continue;
    for (const [reason, count] of Object.entries({ ...sentences.removed, ...(pairs?.removed || {}) })) rows.push({ of: label(one), reason: plain(reason), count, whole: sentences.count });
    const removed = Object.values({ ...sentences.removed, ...(pairs?.removed || {}) }).reduce((sum, count) => sum + count, 0);
    rows.push({ of: label(one), reason: "kept", count: sentences.count - removed, whole: sentences.count });
  }
  const totals = d3.rollup(rows, (group) => d3.sum(group, (row) => row.count), (row) => row.reason);
  const common = [...totals.keys()].filter((reason) => reason !== "kept").sort((a, b) => totals.get(b) - totals.get(a));
  const named = ["kept", ...common.slice(0, common.length > 7 ? 6 : 7)];
  return { rows: rows.map((row) => (named.includes(row.reason) ? row : { ...row, reason: "other reasons" })), domain: common.length > 7 ? [...named, "other reasons"] : named };
}

page.sections.funnel = function (element, data, page) {
  const folders = new Set(data.funnels.map((one) => one.folder));
  const meaning = (reason) => (Object.hasOwn(data.reasons, reason) ? data.reasons[reason] : null);
  const label = (one) => page.plainly(folders.size > 1 ? `${one.language}, ${one.folder}` : one.language);
  const detail = page.el("div", {});
  const select = page.el("select", { id: "funnel-of", onchange: () => choose(data.funnels[select.value], null, true) },
    data.funnels.map((one, i) => page.el("option", { value: i }, label(one))));

  if (data.funnels.length) {
    const columns = Object.keys(STEPS).filter((name) => data.funnels.some((one) => countOf(one, name) !== undefined));
    const link = (one) => page.el("a", { href: page.fragment("funnel", { language: one.language, folder: folders.size > 1 ? one.folder : "" }) }, label(one));
    if (data.funnels.length > 1) {
      page.add(element, page.table([{ title: "language", value: link }, ...columns.map((name) => ({ title: STEPS[name], value: (one) => countOf(one, name) }))],
        data.funnels, { caption: "How many there are at each step", wide: true }));
    }
    const { rows, domain } = outcomes(data.funnels, label);
    if (rows.length) {
      const names = [...new Set(rows.map((row) => row.of))];
      const left = Math.min(260, 24 + 7.2 * Math.max(...names.map((name) => name.length)));
      const share = (row) => row.count / row.whole;
      page.add(element, page.chart({
        height: 60 + 26 * names.length, marginBottom: 42, marginLeft: left, x: { percent: true, label: "of the sentences, in %" }, y: { domain: names, label: null, tickFormat: (name) => (name.length > 34 ? `${name.slice(0, 12)}…${name.slice(-21)}` : name) },
        color: { domain, legend: true, type: "categorical" },
        marks: [Plot.barX(rows, Plot.stackX({ x: share, y: "of", fill: "reason", order: domain, insetLeft: 0.5, insetRight: 0.5 })), Plot.ruleX([0])],
      }, {
        title: "What became of the sentences", description: names.map((name) => `${name}: ${page.share(d3.sum(rows.filter((row) => row.of === name && row.reason === "kept"), share), 1)} kept`).join("; "),
        table: { columns: ["language", "outcome", "sentences", "share"], rows: rows.map((row) => [row.of, row.reason, row.count, page.share(row.count, row.whole)]) },
      }));
    }
    page.add(element, page.el("h3", {}, "Step by step"), data.funnels.length > 1 ? page.el("p", {}, page.el("label", { for: "funnel-of" }, "Language "), select) : null, detail);
    choose(data.funnels[0]);
  }
  if (data.trainings.length) page.add(element, page.el("h3", {}, "Training sets"), trainings());

  /* The steps of a language; `reason`: whose examples are open. */
  function choose(one, reason, moved) {
    select.value = data.funnels.indexOf(one);
    const body = page.el("tbody", {});
    const whole = Math.max(...one.steps.map((step) => step.count), 1);
    for (const step of one.steps) {
      body.append(page.el("tr", { class: "step" }, page.el("th", { scope: "row" }, STEPS[step.name] || plain(step.name)), page.el("td", { class: "number" }, page.number(step.count)), page.el("td", {}),
        page.el("td", { class: "bar", "aria-hidden": "true" }, page.el("span", { style: `inline-size: ${(100 * step.count) / whole}%` }))));
      for (const [name, count] of Object.entries(step.removed)) reasonRows(body, one, step, name, -count, name === reason);
      for (const [name, count] of Object.entries(step.added)) reasonRows(body, one, step, name, count, false);
      if (step.name === "sentences" && one.not_chosen) reasonRows(body, one, step, "not_chosen", null, reason === "not_chosen");
    }
    const head = page.el("thead", {}, page.el("tr", {}, ["step", "there are", "removed", "share"].map((title, i) => page.el("th", { scope: "col", class: i === 1 || i === 2 ? "number" : null }, title))));
    const caption = page.el("caption", {}, `${label(one)}: ${one.steps.some((step) => step.several) ? "one prompt can bring several texts, a paragraph several sentences" : "every step"}`);
    detail.replaceChildren(page.el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Steps of ${label(one)}` }, page.el("table", { class: "wide steps" }, caption, head, body)));
    const uses = data.trainings.flatMap((training) => Object.entries(training.sources).filter(([, sources]) => sources.includes(data.funnels.indexOf(one)))
      .map(([direction]) => page.el("li", {}, page.el("span", { class: "path" }, page.marked(training.folder)), `: ${direction}, ${page.number(training.directions[direction][1].count)} of ${page.number(training.directions[direction][0].count)} pairs used`)));
    if (uses.length) detail.append(page.el("p", {}, "Trained on by:"), page.el("ul", {}, uses));
    if (moved) page.replace("funnel", { language: one.language, folder: folders.size > 1 ? one.folder : "", reason });
  }

  /* The row of a reason, and behind its button that of its examples. */
  function reasonRows(body, one, step, name, change, isOpen) {
    const examples = examplesOf(one, step, name);
    const id = `funnel-${step.name}-${name}`;
    const below = page.el("tr", { id, class: "examples", hidden: !isOpen }, page.el("td", { colspan: 4 }));
    const fill = () => below.hidden || below.firstChild.childElementCount || below.firstChild.append(...shown(one, step, name, examples));
    const toggle = (event) => {
      below.hidden = !below.hidden;
      event.currentTarget.setAttribute("aria-expanded", String(!below.hidden));
      fill();
      page.replace("funnel", { language: one.language, folder: folders.size > 1 ? one.folder : "", reason: below.hidden ? "" : name });
    };
    const title = examples.length ? page.el("button", { type: "button", class: "link", "aria-expanded": String(isOpen), "aria-controls": id, onclick: toggle }, plain(name)) : plain(name);
    const count = change === null ? page.number(one.not_chosen) : `${change > 0 ? "+" : "−"}${page.number(Math.abs(change))}`;
    body.append(page.el("tr", { class: "reason" }, page.el("th", { scope: "row" }, title, meaning(name) && page.el("span", { class: "note" }, meaning(name))), page.el("td", {}),
      page.el("td", { class: "number" }, count), page.el("td", { class: "note" }, change < 0 ? `${page.share(-change, step.count)} of the ${STEPS[step.name] || plain(step.name)}` : change === null ? "other candidates" : "")));
    if (examples.length) {
      body.append(below);
      fill();
    }
  }

  function examplesOf(one, step, name) {
    return (one.examples[name] || []).filter((example) => (example.state === "text") === isOfTexts(step));
  }

  function shown(one, step, name, examples) {
    const total = step.removed[name] ?? one.not_chosen;
    const folder = folders.size < 2 ? "" : isOfTexts(step) ? one.texts_folder : one.folder;
    const inBrowser = { language: one.language, folder, ...(name === "not_chosen" ? { state: "not_chosen" } : { reason: name }) };
    const inPairs = document.getElementById("pairs") ? page.el("a", { href: page.fragment("pairs", inBrowser) }, "all of them that the page has") : null;
    return [
      page.el("p", { class: "note" }, examples.length < total ? `${page.number(examples.length)} of ${page.number(total)}, drawn by chance` : "all", inPairs ? [" · ", inPairs] : null),
      page.el("ul", { class: "examples" }, examples.map((example) => page.el("li", {},
        page.text(example.sentence || "(no text)", example.state === "text" && ["prompt_too_long", "answer_failed"].includes(name) ? "" : one.language),
        example.translation !== undefined ? page.el("div", {}, page.text(example.translation, one.target_language)) : null,
        page.el("div", { class: "note" }, [example.topic && ["topic ", page.marked(example.topic)], example.score !== undefined && `score ${page.number(example.score)}`, example.reason && plain(example.reason), example.detail && page.marked(example.detail), page.el("code", {}, page.marked(example.id))]
          .filter(Boolean).map((part, i) => (i ? [" · ", part] : part)))))),
    ];
  }

  function trainings() {
    const rows = data.trainings.flatMap((one) => Object.entries(one.directions).map(([direction, [read, used]], i) => ({ one, direction, read, used, first: i === 0 })));
    const removed = ({ read }) => page.el("span", {}, Object.entries(read.removed).map(([reason, count], i) => [i ? ", " : "", page.el("span", { title: meaning(reason) }, plain(reason)), ` ${page.number(count)}`]));
    const ofAll = (key) => ({ one, first }) => (first ? one[key] : null);
    return page.table([
      { title: "training", value: ({ one }) => page.el("span", {}, page.el("span", { class: "path" }, page.marked(one.folder)), ` (${one.name})`) }, { title: "direction", value: "direction" },
      { title: "pairs read", value: ({ read }) => read.count }, { title: "left out", value: removed }, { title: "used", value: ({ used }) => used.count },
      { title: "to train on", value: ofAll("train"), help: "of all directions" }, { title: "held out", value: ofAll("test"), help: "of all directions" },
      { title: "each pair", value: ({ one, first }) => (first ? (one.both_directions ? "in both directions" : "in one direction") : "") },
    ], rows, { caption: "What was read and used, by direction; the last columns are of all directions together", wide: true });
  }

  return {
    show(params) {
      const one = data.funnels.find((f) => (!params.language || f.language === params.language) && (!params.folder || f.folder === params.folder) && (!params.reason || f.examples[params.reason]))
        || data.funnels.find((f) => f.language === params.language);
      if (one && (params.language || params.reason)) choose(one, params.reason);
      if (params.reason) detail.querySelector("tr.examples:not([hidden])")?.previousElementSibling?.scrollIntoView({ block: "start" });
    },
  };
};
