/* Measures of pairs, two in a row: [name, title, label of the axis]. */
const MEASURES = [
  ["sentence_characters", "Length of sentences", "characters"], ["translation_characters", "Length of translations", "characters"],
  ["sentence_words", "Words of sentences", "words (letters, in scripts without spaces)"], ["translation_words", "Words of translations", "words (letters, in scripts without spaces)"],
  ["ratio", "Length ratio", "characters of the translation for each of the sentence"], ["sentences_per_paragraph", "Sentences of a paragraph that are left", "sentences"],
  ["confidence", "Confidence of the back-translator", "confidence"],
];
const SUMMARY = [["n", "count"], ["mean", "mean"], ["lowest", "low"], ["5 %", "p5"], ["25 %", "p25"], ["median", "p50"], ["75 %", "p75"], ["95 %", "p95"], ["highest", "high"]];
const cut = (name, length = 30) => (name.length > length ? `${name.slice(0, 12)}…${name.slice(13 - length)}` : name);
const marginFor = (names, length = 30) => Math.max(36, 16 + 7 * Math.max(...names.map((name) => cut(name, length).length)));

/* Histograms below each other, on one axis. items: [{of, summary}], where summary.bins are counts of `bins` {start, width}. */
function histograms(page, title, axis, items, { start, width }, centred) {
  const shift = centred && width === 1 ? 0.5 : 0; // the bar of 2 sentences is around 2
  const rows = items.flatMap(({ of, summary }) => {
    const most = Math.max(...summary.bins);
    return summary.bins.map((count, i) => ({ of, x1: start + i * width - shift, x2: start + (i + 1) * width - shift, height: count / most, count })).filter((row) => row.count);
  });
  const names = items.map(({ of }) => of);
  const several = names.length > 1;
  const note = items.some(({ summary }) => summary.low < start || summary.high > start + (summary.bins.length + 1) * width) ? "The first and the last bar have what lies beyond." : "";
  return page.chart({
    height: several ? 60 + 46 * names.length : 190, marginLeft: several ? marginFor(names) : 20, marginBottom: 42, marginRight: 24, marginTop: several ? 10 : 16, maxWidth: 620,
    x: { label: axis, grid: true, ...(shift ? { tickFormat: (value) => (Number.isInteger(value) ? String(value) : "") } : {}) }, y: { axis: null }, fy: { domain: names, label: null, axis: several ? "left" : null, tickFormat: (name) => cut(name) },
    marks: [
      Plot.rectY(rows, { x1: "x1", x2: "x2", y: "height", fy: "of", fill: "var(--c1)", insetLeft: 0.5 }),
      Plot.ruleX(items.map(({ of, summary }) => ({ of, median: summary.p50 })), { x: "median", fy: "of", stroke: "var(--c2)", strokeWidth: 2 }), Plot.ruleY([0]),
    ],
  }, {
    title, note: `The line is the median${items.length > 1 ? "; each row is as high as its own highest bar" : ""}. ${note}`,
    description: items.slice(0, 12).map(({ of, summary }) => `${of}: median ${page.number(summary.p50)}, nine tenths from ${page.number(summary.p5)} to ${page.number(summary.p95)}`).join("; "),
    table: { columns: ["language", ...SUMMARY.map(([name]) => name)], rows: items.map(({ of, summary }) => [of, ...SUMMARY.map(([, key]) => summary[key])]) },
  });
}

/* Paragraphs by category of the topic list, of all languages; a mark shows the share that the list has. */
function categories(page, sources, label) {
  const counts = new Map();
  for (const one of sources) for (const [name, paragraphs, pairs] of one.topics.categories) {
    const [before, pairsBefore] = counts.get(name) || [0, 0];
    counts.set(name, [before + paragraphs, pairsBefore + pairs]);
  }
  const total = d3.sum(counts.values(), ([paragraphs]) => paragraphs);
  const list = sources[0].topics.of_categories;
  const listed = d3.sum(Object.values(list));
  const rows = [...new Set([...counts.keys(), ...Object.keys(list)])].map((name) => {
    const [paragraphs, pairs] = counts.get(name) || [0, 0];
    return { name, paragraphs, pairs, share: paragraphs / total, expected: listed ? (list[name] || 0) / listed : null };
  }).sort((a, b) => b.paragraphs - a.paragraphs);
  return page.chart({
    height: 60 + 24 * rows.length, marginLeft: marginFor(rows.map((row) => row.name)), marginRight: 24, marginBottom: 42,
    x: { percent: true, label: "of the paragraphs, in %", grid: true }, y: { domain: rows.map((row) => row.name), label: null, tickFormat: (name) => cut(name) },
    marks: [Plot.barX(rows, { x: "share", y: "name", fill: "var(--c1)", insetTop: 2, insetBottom: 2 }), Plot.tickX(rows, { x: "expected", y: "name", stroke: "var(--c2)", strokeWidth: 2.5 }), Plot.ruleX([0])],
  }, {
    title: "Topics by category", note: "The mark is the category's share of the list of topics.",
    description: rows.slice(0, 5).map((row) => `${row.name} ${page.share(row.paragraphs, total)}`).join(", "),
    table: {
      columns: ["category", "paragraphs", "share", "share of the list", "pairs", ...(sources.length > 1 ? sources.map((one) => `paragraphs: ${label(one)}`) : [])],
      rows: rows.map((row) => [row.name, row.paragraphs, page.share(row.paragraphs, total), page.share(row.expected, 1), row.pairs,
        ...(sources.length > 1 ? sources.map((one) => one.topics.categories.find(([name]) => name === row.name)?.[1] ?? 0) : [])]),
    },
  });
}

/* Near-duplicates by prompt number, a row for each language, all on one scale. */
function repetition(page, parts, label) {
  const rows = parts.flatMap((part) => part.kept.map((kept, i) => {
    const [near, rejected] = [part.near_duplicate[i], part.rejected[i]];
    const texts = kept + near + rejected;
    return { of: label(part), x1: part.start + i * part.width, x2: part.start + (i + 1) * part.width, texts, near, rejected, share: near / texts };
  })).filter((row) => row.texts);
  const names = [...new Set(rows.map((row) => row.of))];
  const several = names.length > 1;
  const most = Math.max(0.01, ...rows.map((row) => row.share));
  return page.chart({
    height: several ? 60 + 46 * names.length : 220, marginLeft: several ? marginFor(names) : 40, marginBottom: 42, marginRight: 24, x: { label: "number of the prompt (native texts: of the row)", grid: true },
    y: { percent: true, label: null, domain: [0, 100 * most], axis: several ? null : "left", grid: true }, fy: { domain: names, label: null, axis: several ? "left" : null, tickFormat: (name) => cut(name) },
    marks: [Plot.rectY(rows, { x1: "x1", x2: "x2", y: "share", fy: "of", fill: "var(--c1)", insetLeft: 0.5 }), Plot.ruleY([0])],
  }, {
    title: "Near-duplicates over time, in % of the texts", note: `Prompts are judged in the order of their numbers.${several ? ` Each row is from 0 to ${page.share(most, 1)}.` : ""}`,
    description: parts.map((part) => `${label(part)}: ${page.share(d3.sum(part.near_duplicate), d3.sum(part.kept) + d3.sum(part.near_duplicate) + d3.sum(part.rejected))} of all texts`).join("; "),
    table: { columns: ["language", "from prompt", "texts", "near-duplicates", "rejected otherwise"], rows: rows.map((row) => [row.of, row.x1, row.texts, row.near, row.rejected]) },
  });
}

const hours = (seconds) => (seconds >= 3600 ? `${(seconds / 3600).toFixed(1)} h` : seconds >= 60 ? `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s` : `${Math.round(seconds)} s`);

/* When stages ran, from their manifests; languages of a stage are on one line. */
function work(page, parts) {
  const name = (part) => [part.stage, part.folder === "." ? "" : page.plainly(part.folder.replace(/_\d+_shot_seed_.*$/, ""))].filter(Boolean).join(", ");
  const rows = parts.map((part) => ({ ...part, name: name(part), from: new Date(part.started), to: new Date(part.finished) })).sort((a, b) => a.from - b.from);
  const names = [...new Set(rows.map((row) => row.name))];
  const shown = rows.filter((row) => names.indexOf(row.name) < 60);
  return page.chart({
    height: 60 + 18 * Math.min(names.length, 60), marginLeft: marginFor(names, 36), marginRight: 24, marginBottom: 42, x: { type: "utc", label: "time (UTC)", grid: true }, y: { domain: names.slice(0, 60), label: null, tickFormat: (one) => cut(one, 36) },
    marks: [Plot.ruleY(shown, { x1: "from", x2: "to", y: "name", stroke: "var(--c1)", strokeWidth: 9, strokeOpacity: 0.6 }), Plot.dot(shown, { x: "from", y: "name", fill: "var(--c1)", r: 4.5 })],
  }, {
    title: "When the stages ran", note: names.length > 60 ? `The first 60 of ${names.length}; the table has all.` : "From the start to the end of the run that finished a stage; work of runs that were stopped before is not in these times.",
    description: rows.slice(0, 12).map((row) => `${row.name}: ${hours(row.seconds)}`).join("; "),
    table: {
      columns: ["stage", "language", "folder", "started", "took", "finished in all", "unit", "paragraphs per second (last run)"],
      rows: rows.map((row) => [row.stage, row.language, row.folder, row.started.replace("T", " ").slice(0, 19), hours(row.seconds), row.count, row.unit, row.rate]),
    },
  });
}

page.sections.distributions = function (element, data, page) {
  const folders = new Set([...data.pairs, ...data.repetition].map((one) => one.folder));
  const many = new Set(data.pairs.map((one) => one.folder)).size > 1 || new Set(data.repetition.map((one) => one.folder)).size > 1;
  const label = (one) => page.plainly(many && folders.size > 1 ? `${one.language}, ${one.folder}` : one.language);
  const stages = new Set(data.pairs.map((one) => one.stage));
  if (data.pairs.length) {
    page.add(element, page.el("p", {}, `Of ${stages.has("decontaminated") ? "the pairs that are left after decontamination" : "the pairs"}${stages.size > 1 ? ", where there was one, else of all pairs" : ""}: `,
      data.pairs.map((one, i) => [i ? ", " : "", `${label(one)} ${page.number(one.pairs)}`]), "."));
    const charts = MEASURES.map(([name, title, axis]) => {
      const items = data.pairs.filter((one) => one.measures[name]).map((one) => ({ of: label(one), summary: one.measures[name] }));
      return items.length ? histograms(page, title, axis, items, data.bins[name], name === "sentences_per_paragraph") : null;
    });
    page.add(element, page.el("h3", {}, "Lengths"), page.el("div", { class: "grid" }, charts.slice(0, 6)), page.el("h3", {}, "Scores"));
    const scorers = [...new Set(data.pairs.flatMap((one) => Object.keys(one.scores)))];
    const unscored = data.pairs.filter((one) => one.unscored);
    if (unscored.length) page.add(element, page.el("p", {}, "Without a score: ", unscored.map((one, i) => [i ? ", " : "", `${label(one)} ${page.number(one.unscored)}`]), "."));
    page.add(element, page.el("div", { class: "grid" }, scorers.map((scorer) => {
      const items = data.pairs.filter((one) => one.scores[scorer]).map((one) => ({ of: label(one), summary: one.scores[scorer] }));
      return histograms(page, `Scores: ${scorer}`, "score", items, data.bins[`score ${scorer}`]);
    }), charts[6]));
  }

  const topical = data.pairs.filter((one) => one.topics);
  if (topical.length) {
    page.add(element, page.el("h3", {}, "Topics"), page.table([
      { title: "language", value: label }, { title: "topics of paragraphs", value: (one) => one.topics.distinct }, { title: "with pairs", value: (one) => one.topics.with_pairs },
      { title: "topics in the list", value: (one) => one.topics.of }, { title: "covered", value: (one) => (one.topics.of ? page.share(one.topics.distinct, one.topics.of) : "–"), class: "number" },
      { title: "paragraphs without a topic", value: (one) => one.topics.without[0] },
    ], topical, { label: "Topics" }));
    const listed = topical.filter((one) => one.topics.categories.length);
    if (listed.length) page.add(element, categories(page, listed, label));
    page.add(element, page.el("details", {}, page.el("summary", {}, "Topics with most pairs"), topical.map((one) =>
      page.table(["topic", "paragraphs", "pairs"], one.topics.most, { caption: label(one) }))));
  }

  if (data.repetition.length) page.add(element, page.el("h3", {}, "Repetition"), repetition(page, data.repetition, label));

  if (data.usage.length) {
    const total = (key) => d3.sum(data.usage, (row) => row[key]);
    const rows = data.usage.length > 1 ? [...data.usage, { stage: "all", language: "", folder: "", responses: total("responses"), prompt_tokens: total("prompt_tokens"), cached_tokens: total("cached_tokens"), completion_tokens: total("completion_tokens"), usd: data.usage.every((row) => row.usd !== null) ? total("usd") : null }] : data.usage;
    const usd = rows.some((row) => row.usd !== null && row.usd !== undefined);
    page.add(element, page.el("h3", {}, "Tokens and cost"), page.table([
      { title: "stage", value: "stage" }, { title: "language", value: "language" }, { title: "folder", value: (row) => page.el("span", { class: "path" }, page.marked(row.folder)) },
      { title: "responses", value: "responses" }, { title: "prompt tokens", value: "prompt_tokens" }, { title: "of them cached", value: "cached_tokens" }, { title: "answer tokens", value: "completion_tokens" },
      { title: "tokens of an answer", value: (row) => (row.lengths ? `${page.number(row.lengths.p50)} (${page.number(row.lengths.p5)}–${page.number(row.lengths.p95)})` : ""), help: "median, and nine tenths of them" },
      ...(usd ? [{ title: "USD", value: (row) => row.usd ?? null, digits: 2 }] : []),
    ], rows, { label: "Tokens", wide: true }));
  }
  if (data.work.length) {
    const rates = [...new Map(data.work.filter((part) => part.rate).map((part) => [`${part.stage} ${part.folder}`, part])).values()];
    page.add(element, page.el("h3", {}, "Times and throughput"), rates.length ? page.table([
      { title: "stage", value: "stage" }, { title: "folder", value: (part) => page.el("span", { class: "path" }, page.marked(part.folder)) },
      { title: "paragraphs per second", value: "rate" }, { title: "paragraphs per hour", value: (part) => Math.round(3600 * part.rate) },
    ], rates, { caption: "Rates of the last run of each stage, as it recorded them" }) : null, work(page, data.work));
  }
};
