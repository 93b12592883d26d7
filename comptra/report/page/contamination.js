/* What overlaps test sets, with the shared words marked, and what was compared with nothing. */
page.sections.contamination = async function (element, data, page) {
  const { el, number } = page;
  const DROPPED = { paragraph: "dropped with its paragraph", pair: "pair dropped", none: "not dropped" };
  const MATCH = { ngram: "shared n-grams", short_text: "whole short text", near_duplicate: "near-duplicate" };
  const AT_ONCE = 20; // hits that are shown before the reader asks for more
  const severalFolders = new Set(data.languages.map((one) => one.folder)).size > 1;
  const place = (row) => `${row.benchmark} ${row.split}`;
  const sum = (values) => values.reduce((total, value) => total + value, 0);

  const evaluated = (data.tests.length && data.total && (await page.data("evaluation"))) || { sentences: [] };

  element.append(unchecked(), summary());
  if (data.total) element.append(chart(), table());
  element.append(byLanguage());
  const list = data.total ? hits() : null;
  if (list) element.append(list.element);
  if (data.between.length) element.append(between());

  // --- what was not checked ---

  function unchecked() {
    const never = data.languages.filter((one) => one.status === "never").length;
    if (!data.unchecked.length) return el("p", { class: "good" }, "All pairs were compared with all test sets that were asked for.");
    const of = new Map();
    for (const line of data.unchecked) {
      const key = severalFolders ? `${line.language}, ${line.folder}` : line.language;
      of.set(key, [...(of.get(key) || []), line.text]);
    }
    return el("div", { class: "unchecked", role: "note" },
      el("h3", { class: "bad" }, "Not checked"),
      never ? el("p", {}, `${number(never)} of ${number(data.languages.length)} sets of pairs were compared with no test set.`) : null,
      el("ul", {}, [...of].map(([name, lines]) => el("li", {}, el("b", {}, page.marked(name)), ": ", lines.map((text, i) => [i ? "; " : "", page.marked(text)]).flat(2)))));
  }

  function summary() {
    const checked = data.languages.filter((one) => one.status !== "never");
    if (!checked.length) return el("p", {}, "No set of pairs went through decontamination.");
    const [pairs, lost] = [sum(checked.map((one) => one.counts.pairs || 0)), sum(checked.map(droppedPairs))];
    // The translations of all languages are compared with the same texts.
    const sizes = new Map(data.rows.map((row) => [`${row.side === "sentence" ? row.language : ""} ${place(row)}`, row.benchmark_texts || 0]));
    const texts = sum([...sizes.values()]);
    return el("p", {}, data.total
      ? `${number(data.total)} overlaps of ${number(pairs)} pairs with test sets; ${number(lost)} pairs (${page.share(lost, pairs)}) were dropped.`
      : `No overlap: ${number(pairs)} pairs share nothing with the ${number(texts)} texts that they were compared with.`);
  }

  function droppedPairs(one) {
    return one.status === "audit" ? 0 : (one.counts.pairs_dropped_with_paragraph || 0) + (one.counts.pairs_dropped || 0);
  }

  // --- numbers ---

  function chart() {
    const bars = data.rows.flatMap((row) => Object.entries(row.dropped).map(([what, count]) =>
      ({ place: place(row), side: `${row.side}s`, what: DROPPED[what], count })));
    const places = [...new Set(bars.map((bar) => bar.place))];
    const sides = [...new Set(bars.map((bar) => bar.side))];
    const [width, height] = [8 * Math.min(40, Math.max(...places.map((name) => name.length))) + 10, 60 + sides.length * (30 + 24 * places.length)];
    return page.chart({
      marginLeft: width, marginRight: 90, marginBottom: 40, height, x: { label: "overlapping texts", grid: true }, y: { label: null }, fy: { label: null },
      color: { domain: [DROPPED.paragraph, DROPPED.pair, DROPPED.none], range: ["var(--c2)", "var(--c1)", "var(--c8)"], legend: true },
      marks: [
        Plot.barX(bars, Plot.groupY({ x: "sum" }, { x: "count", y: "place", fy: "side", fill: "what", order: [DROPPED.paragraph, DROPPED.pair, DROPPED.none] })),
        Plot.ruleX([0]),
      ],
    }, {
      title: "Overlaps by test set and side",
      description: `Bars: ${number(sum(bars.map((bar) => bar.count)))} texts of the data that overlap ${places.length === 1 ? places[0] : `${places.length} test sets`}, by what became of them.`,
    });
  }

  function table() {
    const columns = [
      { title: "Test set", value: (row) => place(row) },
      { title: "Language", value: "language" },
      ...(severalFolders ? [{ title: "Folder", value: "folder" }] : []),
      { title: "Side", value: "side" },
      { title: "Overlapping texts", number: true, value: (row) => (row.hits ? el("button", { type: "button", class: "link", onclick: () => page.show("contamination", { folder: severalFolders ? row.folder : "", language: row.language, side: row.side, set: place(row) }) }, number(row.hits)) : 0) },
      { title: "Dropped with the paragraph", number: true, value: (row) => row.dropped.paragraph || 0 },
      { title: "Pair dropped", number: true, value: (row) => row.dropped.pair || 0 },
      { title: "Not dropped", number: true, value: (row) => row.dropped.none || 0 },
      { title: "Texts of the test set that are hit", number: true, value: (row) => `${number(row.texts_hit)} of ${number(row.benchmark_texts)}` },
    ];
    const [hit, clean] = [data.rows.filter((row) => row.hits), data.rows.filter((row) => !row.hits)];
    const clear = clean.length ? el("details", {}, el("summary", {}, `Compared without an overlap: ${number(clean.length)} combinations of test set, language and side`),
      page.table(columns, clean, { label: "Compared without an overlap", wide: true })) : null;
    return el("div", {}, page.table(columns, hit, { label: "Overlaps by test set, language and side", wide: true }), clear);
  }

  function byLanguage() {
    const checked = data.languages.filter((one) => one.status !== "never");
    if (!checked.length) return el("div");
    const rules = (one) => [
      one.rules.ngram_size ? `${one.rules.ngram_size} words (${one.rules.tokenizer})` : "not known",
      one.rules.near_duplicate_threshold ? `ROUGE-L above ${one.rules.near_duplicate_threshold}` : null,
    ].filter(Boolean).join(", ");
    const columns = [
      { title: "Language", value: "language" },
      ...(severalFolders ? [{ title: "Folder", value: "folder" }] : []),
      { title: "Paragraphs", number: true, value: (one) => one.counts.records ?? null },
      { title: "dropped", number: true, value: (one) => (one.status === "audit" ? 0 : one.counts.paragraphs_dropped ?? null) },
      { title: "Pairs", number: true, value: (one) => one.counts.pairs ?? null },
      { title: "dropped", number: true, value: droppedPairs },
      { title: "Share", number: true, value: (one) => page.share(droppedPairs(one), one.counts.pairs) },
      { title: "Rule", value: rules },
      { title: "When", value: (one) => one.finished || "–" },
    ];
    return el("details", { open: !data.total }, el("summary", {}, "What was dropped, by language"), page.table(columns, checked, { label: "What was dropped, by language" }));
  }

  // --- hits ---

  /* A text with the spans that it shares as <mark>. */
  function marked(part, language) {
    const { code, dir } = page.language(language);
    const nodes = [];
    let last = 0;
    for (const [start, end] of part.spans) {
      nodes.push(page.marked(part.text.slice(last, start)), el("mark", {}, page.marked(part.text.slice(start, end))));
      last = end;
    }
    nodes.push(page.marked(part.text.slice(last)));
    const notes = [
      part.length ? `The first ${number(part.text.length)} of ${number(part.length)} characters. ` : "",
      part.spans.length || !part.length ? "" : "The shared words are in the part that is cut off.",
    ].join("");
    return [el("p", { class: "text", lang: code || null, dir }, nodes), notes ? el("p", { class: "note" }, notes) : null];
  }

  function bothTexts(first, second, language, labels) {
    return el("div", { class: "both" }, [first, second].map((part, i) =>
      el("div", {}, el("h5", {}, labels[i]), marked(part, language))));
  }

  /* Where a test set that a hit is of was evaluated, and how systems translated that very sentence. */
  function testNote(hit) {
    const tests = data.tests.filter((test) => test.benchmark === hit.benchmark && test.split === hit.split.split(" (")[0]);
    if (!tests.length) return null;
    const seen = hit.dropped === "none" ? "Models that were trained on these pairs have seen it." : "Models that were trained on the filtered files have not seen it.";
    return el("div", { class: "effect" },
      el("p", { class: hit.dropped === "none" ? "warn" : "note" }, `This run evaluates systems on this test set. ${seen}`),
      el("ul", {}, tests.map((test) => el("li", {}, direction(hit, test)))));
  }

  function direction(hit, test) {
    const title = page.marked(`${page.language(test.src).name} to ${page.language(test.tgt).name}`);
    const group = evaluated.sentences.find((one) => one.dataset === test.dataset && one.src === test.src && one.tgt === test.tgt);
    if (!group) return [el("a", { href: "#evaluation" }, title), `, ${number(test.systems)} ${test.systems === 1 ? "system" : "systems"}`];
    const isText = (text) => text.normalize("NFC").slice(0, hit.other.text.length) === hit.other.text;
    const place = [group.sources, group.references || []].map((texts) => texts.findIndex(isText)).find((found) => found >= 0);
    if (place === undefined) return [el("a", { href: page.fragment("evaluation", { group: group.id }) }, title), ": the page does not show this sentence"];
    const [metric] = group.metrics;
    const scores = metric ? group.systems.map((system) => [system.label, system.scores[metric.name]?.[place]]).filter(([, score]) => score !== null && score !== undefined) : [];
    return [el("a", { href: page.fragment("evaluation", { group: group.id, sentence: group.numbers[place] }) }, title, `, sentence ${group.numbers[place]}`),
      scores.length ? [`: ${metric.title} `, scores.slice(0, 8).map(([label, score], i) => [i ? ", " : "", page.text(label), ` ${number(score, metric.digits)}`])] : null];
  }

  function card(hit) {
    const pair = hit.pair === null ? "the whole paragraph" : hit.pairs ? `pairs ${hit.pair + 1} to ${hit.pair + hit.pairs}` : `pair ${hit.pair + 1}`;
    const params = hit.pair === null ? { q: `"${hit.id}/"` } : { id: `${hit.id}/p${hit.pair}`, in: severalFolders ? hit.folder : "" };
    return el("article", { class: "hit" },
      el("h4", {}, page.marked(`${place(hit)}, text ${hit.benchmark_id}`)),
      el("p", { class: "note" }, page.marked(`${hit.language}, ${hit.side}, `), el("a", { href: page.fragment("pairs", params) }, page.marked(`${hit.id}, ${pair}`)), ": ",
        el("span", { class: hit.dropped === "none" ? "bad" : null }, DROPPED[hit.dropped]), "; ",
        hit.match === "near_duplicate" ? `near-duplicate, ROUGE-L F1 ${number(hit.similarity)}`
          : hit.match === "short_text" ? `holds the whole text (${number(hit.tokens)} tokens)` : `${number(hit.tokens)} tokens in shared n-grams`),
      bothTexts(hit.text, hit.other, hit.text_language, ["Data", "Test set"]), testNote(hit));
  }

  function hits() {
    const filters = { folder: "", language: "", side: "", set: "", dropped: "", match: "", id: "" };
    const values = { folder: (hit) => hit.folder, language: (hit) => hit.language, side: (hit) => hit.side, set: place, dropped: (hit) => hit.dropped, match: (hit) => hit.match, id: (hit) => String(hit.id) };
    const names = { dropped: DROPPED, match: MATCH };
    const labels = { folder: "Folder", language: "Language", side: "Side", set: "Test set", dropped: "Outcome", match: "Kind" };
    const selects = {};
    const cards = el("div", { class: "cards" }), status = el("p", { class: "status", "aria-live": "polite" }), more = el("button", { type: "button" });
    let limit = AT_ONCE;
    for (const key of Object.keys(labels)) {
      const options = [...new Set(data.hits.map(values[key]))];
      if (options.length < 2) continue;
      selects[key] = el("select", { onchange: (event) => { filters[key] = event.target.value; filters.id = ""; limit = AT_ONCE; draw(); page.replace("contamination", filters); } },
        el("option", { value: "" }, "all"), options.map((value) => el("option", { value }, names[key] ? names[key][value] : page.plainly(value))));
    }
    more.addEventListener("click", () => { limit += AT_ONCE; draw(); });

    function draw() {
      const found = data.hits.filter((hit) => Object.entries(filters).every(([key, value]) => !value || values[key](hit) === value));
      cards.replaceChildren(...found.slice(0, limit).map(card));
      const sample = data.hits.length < data.total ? ` (a sample; the run has ${number(data.total)})` : "";
      status.replaceChildren(`${number(found.length)} of ${number(data.hits.length)} overlaps in this page${sample}`, filters.id ? [", only those of ", filters.id].join("") : "", ". ",
        filters.id ? el("button", { type: "button", class: "link", onclick: () => page.show("contamination", {}) }, "Show all") : "");
      more.textContent = `Show ${number(Math.min(AT_ONCE, found.length - limit))} more`;
      more.hidden = found.length <= limit;
    }

    draw();
    return {
      element: el("div", { class: "hits" }, el("h3", {}, "The overlaps"),
        el("form", { class: "filters screen", "aria-label": "Overlaps", onsubmit: (event) => event.preventDefault() },
          Object.entries(selects).map(([key, select]) => el("label", {}, el("span", {}, labels[key]), select))),
        status, cards, more),
      show(params) {
        for (const key of Object.keys(filters)) {
          filters[key] = params[key] || "";
          if (selects[key]) selects[key].value = filters[key];
        }
        limit = AT_ONCE;
        draw();
        if (Object.values(filters).some(Boolean)) status.scrollIntoView({ block: "start", behavior: "instant" });
      },
    };
  }

  // --- between benchmarks ---

  function between() {
    return el("div", {}, el("h3", {}, "Test sets that overlap each other"),
      el("p", {}, "Demonstrations that overlap a test set raise its scores."),
      data.between.map((row) => el("details", {},
        el("summary", {}, page.marked(`${row.language}: ${row.first.join(" ")} and ${row.second.join(" ")}, ${number(row.count)} ${row.count === 1 ? "pair" : "pairs"} of texts`),
          row.pool ? el("span", { class: "warn" }, " (demonstrations are drawn from one of them)") : null),
        row.pairs.slice(0, AT_ONCE).map((pair) => bothTexts(pair.text, pair.other, row.language, [`${row.first.join(" ")}, ${pair.first_id}`, `${row.second.join(" ")}, ${pair.second_id}`])),
        row.count > AT_ONCE ? el("p", { class: "note" }, `The first ${AT_ONCE} of ${number(row.count)}.`) : null)));
  }

  return { show(params) { if (list) list.show(params); } };
};
