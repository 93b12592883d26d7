/* The browser of pairs: filters over columns, a table with virtual rows (Tabulator), and a panel with one row and its paragraph. */
page.sections.pairs = async function (element, data, page) {
  const { el, number } = page;
  const { decode, overlapsByParagraph, fold, missingFonts } = page.pairsData;
  const NAMES = { kept: "kept", contaminated: "contaminated", rejected: "rejected", not_chosen: "not chosen", text: "text rejected" };
  const HELP = {
    kept: "a pair", contaminated: "a pair that decontamination dropped", rejected: "a sentence or pair that a filter rejected",
    not_chosen: "a translation of which another one was chosen", text: "a whole paragraph or response that was rejected",
  };
  const CELL_CHARS = 300; // of a text in a cell of the table
  const PRINTED = 25; // rows
  const model = decode(data);
  const overlaps = await overlapsByParagraph();
  const isOverlapping = (i) => model.state(i) === "contaminated" || hitsOf(i).length > 0;
  const several = (values) => new Set(values).size > 1;
  const pairSources = data.sources.filter((source) => source.has_pairs);

  // --- data ---

  function hitsOf(i) {
    if (!overlaps.size || model.letter(i) !== "p") return [];
    const hits = overlaps.get(`${model.source(i).name} ${model.language(i)} ${model.paragraphId(i)}`) || [];
    const at = model.index(i);
    return hits.filter((hit) => hit.pair === null || (hit.pair <= at && at < hit.pair + (hit.pairs || 1)));
  }

  function asJson(i) {
    const source = model.source(i);
    return {
      id: model.id(i), state: model.state(i), reason: model.reason(i) || undefined, detail: model.detail(i) || undefined,
      language: model.language(i), target_language: source.target_language || undefined, topic: model.topic(i) || undefined,
      sentence: model.sentence(i), translation: model.translation(i) ?? undefined, score: model.score(i) ?? undefined,
      scorer: model.scorer(i) || undefined, confidence: model.confidence(i) ?? undefined, folder: source.name,
      paragraph_id: model.paragraphId(i), paragraph: model.paragraph(i) ?? undefined,
      overlaps: hitsOf(i).map((hit) => ({ benchmark: hit.benchmark, split: hit.split, id: hit.benchmark_id, text: hit.other.text, dropped: hit.dropped })),
    };
  }

  // --- search ---

  const indexes = { true: { texts: [] }, false: { texts: [] } }; // with and without diacritics
  /* The folded texts of all rows; made in pieces, so that the page goes on answering. `report`: gets the share made so far. */
  function index(withDiacritics, report) {
    const made = indexes[withDiacritics];
    made.report = report || made.report;
    made.promise ||= (async () => {
      while (made.texts.length < model.count) {
        const end = performance.now() + 30;
        while (made.texts.length < model.count && performance.now() < end) {
          const i = made.texts.length;
          made.texts.push(fold(`${model.sentence(i)}\n${model.translation(i) || ""}\n${model.id(i)}`, withDiacritics));
        }
        if (made.texts.length < model.count) {
          if (made.report) made.report(made.texts.length / model.count);
          await new Promise((done) => setTimeout(done));
        }
      }
      return made.texts;
    })();
    return made.promise;
  }

  // --- filters ---

  const filters = { q: "", diacritics: "", language: "", state: "", reason: "", topic: "", min: "", max: "", folder: "", sort: "", order: "" };
  const KEYS = Object.keys(filters);
  let selected = null; // a row
  let open = false; // the panel

  /* Which rows are shown, as a function of their numbers; `report` as index has it. */
  async function matching(report) {
    const { language, state, reason, folder } = filters;
    const topic = filters.topic && fold(filters.topic, false);
    const isTopic = new Map(data.paragraphs.topic.values.map((value) => [value, !topic || fold(value || "", false).includes(topic)]));
    const min = filters.min === "" ? -Infinity : Number(filters.min), max = filters.max === "" ? Infinity : Number(filters.max);
    const isScored = filters.min !== "" || filters.max !== "";
    const terms = (filters.q.match(/"[^"]+"|\S+/g) || []).map((term) => fold(term.replace(/^"(.+)"$/, "$1"), Boolean(filters.diacritics))).filter(Boolean);
    const texts = terms.length ? await index(Boolean(filters.diacritics), report) : null;
    const shown = new Uint8Array(model.count);
    let count = 0;
    for (let i = 0; i < model.count; i++) {
      const score = model.score(i);
      shown[i] = (!language || model.language(i) === language) && (!reason || model.reason(i) === reason)
        && (!state || (state === "overlap" ? isOverlapping(i) : model.state(i) === state))
        && (!folder || model.source(i).name === folder) && (!topic || isTopic.get(model.topic(i)))
        && (!isScored || (score !== null && score >= min && score <= max))
        && (!terms.length || terms.every((term) => texts[i].includes(term)));
      count += shown[i];
    }
    return { shown, count };
  }

  let wanted = 0;
  /* Show what fits the filters; `byReader`: and keep them in the fragment, which is not for a section to set on its own. */
  async function apply(byReader = true) {
    const mine = ++wanted;
    const { shown, count } = await matching((share) => {
      if (mine === wanted) status.textContent = `Preparing the search … ${Math.round(100 * share)} %`;
    });
    if (mine !== wanted) return; // another filter came meanwhile
    active = null;
    grid.setFilter((row) => shown[row.i] === 1);
    const all = model.count < data.total ? `${number(model.count)} rows in this page (of ${number(data.total)})` : `${number(model.count)} rows`;
    status.textContent = count === model.count ? all : `${number(count)} of ${all}`;
    status.dataset.count = count;
    if (byReader) remember();
  }

  function remember() {
    const id = open && selected !== null ? model.id(selected) : "";
    page.replace("pairs", { ...filters, in: id && several(data.sources) ? model.source(selected).name : "", id });
  }

  function readControls() {
    for (const key of KEYS) {
      const control = controls[key];
      if (control) filters[key] = control.type === "checkbox" ? (control.checked ? "1" : "") : control.value;
    }
  }

  function writeControls() {
    for (const key of KEYS) {
      const control = controls[key];
      if (!control) continue;
      if (control.type === "checkbox") control.checked = Boolean(filters[key]);
      else {
        if (control.tagName === "SELECT" && ![...control.options].some((option) => option.value === filters[key])) control.append(el("option", { value: filters[key] }, filters[key]));
        control.value = filters[key];
      }
    }
  }

  function select(options) {
    return el("select", {}, options.map(([value, label]) => el("option", { value }, label)));
  }

  function counted(values) {
    const counts = new Map();
    for (const value of values) if (value) counts.set(value, (counts.get(value) || 0) + 1);
    return [...counts];
  }

  /* Kinds of rows by what `of` gives, with their numbers in the run. */
  function totals(at, name) {
    const sums = new Map();
    for (const row of data.counts) if (row[at]) sums.set(row[at], (sums.get(row[at]) || 0) + row[4]);
    return [...sums].map(([value, count]) => [value, `${name(value)} (${number(count)})`]);
  }

  const plain = (code) => code.replaceAll("_", " ");
  const anyHitKept = [...overlaps.values()].some((hits) => hits.some((hit) => hit.dropped === "none"));
  const controls = {
    q: el("input", { type: "search", placeholder: "words, \"a phrase\", an id", spellcheck: "false" }),
    diacritics: el("input", { type: "checkbox" }),
    language: select([["", "all"], ...totals(1, page.plainly)]),
    state: select([["", "all"], ...totals(2, (name) => NAMES[name]), ...(anyHitKept ? [["overlap", "overlaps a test set"]] : [])]),
    reason: select([["", "all"], ...totals(3, plain).sort((a, b) => a[1].localeCompare(b[1]))]),
    topic: el("input", { type: "text", list: "pairs-topics", spellcheck: "false" }),
    min: el("input", { type: "number", step: "any" }),
    max: el("input", { type: "number", step: "any" }),
    folder: select([["", "all"], ...data.sources.map((source) => [source.name, page.plainly(source.name)])]),
  };
  const labels = { q: "Search", diacritics: "Match diacritics", language: "Language", state: "State", reason: "Reason", topic: "Topic", min: "Score from", max: "to", folder: "Folder" };
  const isShown = {
    language: several(data.counts.map((row) => row[1])), topic: data.paragraphs.topic.values.some(Boolean), folder: pairSources.length > 1,
    reason: data.counts.some((row) => row[3]), min: data.rows.score.some((score) => score !== null),
  };
  isShown.max = isShown.min;
  let timer = null;
  const form = el("form", { class: "filters screen", role: "search", "aria-label": "Pairs", onsubmit: (event) => event.preventDefault() },
    Object.entries(controls).filter(([key]) => isShown[key] !== false).map(([key, control]) => {
      control.id = `pairs-${key}`;
      control.addEventListener(control.tagName === "SELECT" || control.type === "checkbox" ? "change" : "input", () => {
        clearTimeout(timer);
        timer = setTimeout(() => { readControls(); apply(); }, control.tagName === "SELECT" ? 0 : 120);
      });
      return el("label", { class: key }, control.type === "checkbox" ? [control, " ", labels[key]] : [el("span", {}, labels[key]), control]);
    }),
    el("button", { type: "button", class: "reset", onclick: () => { for (const key of KEYS) filters[key] = ""; writeControls(); grid.clearSort(); apply(); } }, "Clear"),
    el("datalist", { id: "pairs-topics" }, counted(data.paragraphs.topic.codes.map((code) => data.paragraphs.topic.values[code])).slice(0, 1000).map(([value]) => el("option", { value }))));
  const status = el("p", { class: "status screen", id: "pairs-status", "aria-live": "polite" });
  const holder = el("div", { class: "table" });
  const panel = el("aside", { class: "detail", hidden: true, "aria-label": "One row", tabindex: "-1" });
  const printed = el("div", { class: "printed" });
  const fonts = el("div", { class: "fonts" });
  element.append(form, fonts, status, el("div", { class: "browser" }, el("div", { class: "rows screen" }, holder), panel), printed,
    el("p", { class: "note screen keys" }, el("kbd", {}, "/"), " search, ", el("kbd", {}, "↑"), " ", el("kbd", {}, "↓"), " rows, ",
      el("kbd", {}, "Enter"), " open, ", el("kbd", {}, "Esc"), " close. Length is in characters; scores are rounded to four decimals."),
    byKind());

  function byKind() {
    const rows = data.counts.map(([source, language, state, reason, total, shown]) => [language, NAMES[state], plain(reason), data.sources[source].name, total, shown]);
    return el("details", {}, el("summary", {}, "How many of each kind are in this page"),
      page.table(["Language", "State", "Reason", "Folder", { title: "In the run", number: true }, { title: "In this page", number: true }], rows, { label: "Rows by kind" }));
  }

  // --- table ---

  const line = (string, language, cut) => {
    const { dir } = page.language(language);
    return el("div", { class: "line", dir }, page.text(string.length > CELL_CHARS ? string.slice(0, CELL_CHARS) + "…" : string, language), cut ? "…" : null);
  };
  const sentenceLine = (i) => line(model.sentence(i), model.language(i));
  const translationLine = (i) => (model.translation(i) === null ? "" : line(model.translation(i), model.source(i).target_language));
  const badge = (i) => el("span", { class: `badge ${model.state(i)}`, title: HELP[model.state(i)] }, NAMES[model.state(i)], model.reason(i) && model.reason(i) !== model.state(i) ? el("span", { class: "why" }, plain(model.reason(i))) : null);
  const of = (make) => (cell) => make(cell.getData().i);
  const byNumber = (a, b, aRow, bRow, column, direction) => {
    if (a === b) return 0;
    if (a === null) return direction === "asc" ? 1 : -1; // without a score: last
    if (b === null) return direction === "asc" ? -1 : 1;
    return a - b;
  };
  const narrow = matchMedia("screen and (max-width: 700px)");

  function columns() {
    const common = { headerSortTristate: true, sorter: byNumber, resizable: false };
    const score = { ...common, title: "Score", field: "score", width: 78, hozAlign: "right", headerHozAlign: "right", formatter: of((i) => number(model.score(i))) };
    const length = { ...common, title: "Length", field: "length", width: 92, hozAlign: "right", headerHozAlign: "right", formatter: of((i) => number(model.length(i))) };
    const state = { title: "State", field: "state", width: 140, headerSort: false, resizable: false, formatter: of(badge) };
    if (isNarrow) {
      const both = { title: "Sentence and translation", field: "i", sorter: byNumber, formatter: of((i) => el("div", {}, sentenceLine(i), translationLine(i))), resizable: false };
      return [both, { ...score, width: 76 }, { ...state, width: 92 }];
    }
    return [
      { ...common, title: "Id", field: "i", width: 172, formatter: of((i) => el("span", { class: "path" }, model.id(i))) },
      { title: "Sentence", field: "sentence", headerSort: false, widthGrow: 2, resizable: false, formatter: of(sentenceLine) },
      { title: "Translation", field: "translation", headerSort: false, widthGrow: 2, resizable: false, formatter: of(translationLine) },
      ...(isShown.min ? [score] : []), length, state,
    ];
  }

  let grid, isNarrow, active = null;
  let building = build(); // one at a time: Tabulator cannot be destroyed before it is built
  await building;
  narrow.addEventListener("change", () => {
    building = building.then(async () => {
      if (narrow.matches === isNarrow) return; // the window has changed again
      await build();
      await apply(false);
    });
  });

  async function build() {
    if (grid) grid.destroy();
    active = null;
    isNarrow = narrow.matches;
    grid = new Tabulator(holder, {
      data: Array.from({ length: model.count }, (_, i) => ({ i, score: model.score(i), length: model.length(i) })),
      index: "i", height: Math.max(320, Math.min(620, innerHeight - 220)), rowHeight: isNarrow ? 58 : 34, layout: "fitColumns",
      columnDefaults: { headerTooltip: false }, columns: columns(), placeholder: "No row fits these filters.",
      rowFormatter: (row) => row.getElement().setAttribute("aria-selected", String(row.getData().i === selected)),
      columnHeaderSortMulti: false,
    });
    grid.on("rowClick", (event, row) => choose(row.getData().i, true));
    grid.on("dataSorted", (sorters) => {
      active = null;
      const [first] = sorters;
      filters.sort = first ? (first.field === "i" ? "id" : first.field) : "";
      filters.order = first && first.dir === "desc" ? "desc" : "";
    });
    grid.on("headerClick", () => setTimeout(remember));
    await new Promise((done) => grid.on("tableBuilt", done));
    holder.setAttribute("aria-label", "Pairs and rejects");
    holder.setAttribute("aria-rowcount", model.count + 1);
    // Tabulator has a focusable element between grid and rows, which a grid may not have unless it is their group.
    holder.removeAttribute("aria-owns");
    holder.querySelector(".tabulator-tableholder").setAttribute("role", "rowgroup");
    holder.querySelector(".tabulator-table").setAttribute("role", "presentation");
    makeRoom();
  }

  /* Beside the open panel there is room for less. */
  function makeRoom() {
    if (!isNarrow) for (const column of grid.getColumns()) if (["i", "length"].includes(column.getField())) column[open ? "hide" : "show"]();
    grid.redraw(true);
  }

  /* Printed are the first rows that fit the filters, with their whole texts: the table on the screen holds those in view alone. */
  addEventListener("beforeprint", () => {
    const rows = activeRows(), shown = rows.slice(0, PRINTED);
    const cell = (string, language) => (string === null ? "–" : page.text(string, language));
    printed.replaceChildren(page.table([
      { title: "Id", value: (i) => el("span", { class: "path" }, model.id(i)) },
      { title: "Sentence", value: (i) => cell(model.sentence(i), model.language(i)) },
      { title: "Translation", value: (i) => cell(model.translation(i), model.source(i).target_language) },
      ...(isShown.min ? [{ title: "Score", value: (i) => number(model.score(i)), class: "number" }] : []),
      { title: "State", value: badge },
    ], shown, { caption: `${number(shown.length)} of ${number(rows.length)} rows that fit the filters, of ${number(data.total)} of the run`, wide: true, header: false }));
  });

  function activeRows() {
    active ||= grid.getRows("active").map((row) => row.getData().i);
    return active;
  }

  /* Select a row; `show`: open the panel, too. */
  function choose(i, show) {
    const before = selected;
    selected = i;
    for (const which of [before, i]) {
      const row = which !== null && grid.getRow(which);
      if (row) row.getElement().setAttribute("aria-selected", String(which === i));
    }
    if (show) open = true;
    if (open) detail(i);
    if (show) panel.scrollIntoView({ block: "nearest", behavior: "instant" });
    page.announce(`${NAMES[model.state(i)]} ${plain(model.reason(i) || "")}. ${model.sentence(i).slice(0, 200)}`);
    remember();
  }

  async function move(steps) {
    const rows = activeRows();
    if (!rows.length) return;
    const at = rows.indexOf(selected);
    const next = at < 0 ? (steps < 0 ? rows.length - 1 : 0) : Math.max(0, Math.min(rows.length - 1, at + steps));
    choose(rows[next], false);
    await scrollTo(rows[next]);
  }

  async function scrollTo(i) {
    try { await grid.scrollToRow(i, "nearest", false); } catch { /* it is filtered out */ }
  }

  holder.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 15, PageUp: -15, Home: -Infinity, End: Infinity }[event.key];
    if (steps !== undefined) move(steps);
    else if (event.key === "Enter" && event.target.closest(".tabulator-tableholder")) {
      if (selected === null) move(0);
      if (selected !== null) { choose(selected, true); panel.focus(); }
    } else if (event.key === "Escape") close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }, true);
  panel.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { close(); event.preventDefault(); }
  });
  controls.q.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "Enter") { focusTable(); event.preventDefault(); }
    else if (event.key === "Escape" && !controls.q.value) controls.q.blur();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
    const box = element.getBoundingClientRect();
    if (box.bottom < 0 || box.top > innerHeight) return; // another section is in view
    event.preventDefault();
    controls.q.focus();
    controls.q.select();
  });

  function focusTable() {
    holder.querySelector(".tabulator-tableholder").focus();
  }

  function close() {
    open = false;
    panel.hidden = true;
    element.querySelector(".browser").classList.remove("open");
    makeRoom();
    focusTable();
    remember();
  }

  // --- one row ---

  function detail(i) {
    const language = model.language(i), target = model.source(i).target_language;
    const paragraph = model.paragraph(i);
    const [first, end] = model.range(model.paragraphOf[i]);
    const others = Array.from({ length: end - first }, (_, n) => first + n).filter((n) => n !== i);
    const sentence = model.sentence(i);
    const candidates = others.filter((n) => model.sentence(n) === sentence && model.state(i) !== "text");
    const siblings = others.filter((n) => !candidates.includes(n));
    const rows = activeRows(), at = rows.indexOf(i);
    const step = (by, label) => el("button", { type: "button", disabled: at < 0 || at + by < 0 || at + by >= rows.length, onclick: async () => { await move(by); panel.focus(); } }, label);
    const fact = (name, ...value) => (value.every((part) => part === null || part === undefined || part === "") ? null : el("div", {}, el("dt", {}, name), el("dd", {}, ...value)));
    const filter = (key, value) => el("button", { type: "button", class: "link", title: `Show only these`, onclick: () => { filters[key] = value; writeControls(); apply(); } }, page.text(value));
    const cut = (kind) => {
      const length = model.cut(kind, i);
      return length ? el("p", { class: "note" }, `The first ${number(data.max_text)} of ${number(length)} characters.`) : null;
    };
    const isWhole = model.state(i) === "text";
    panel.replaceChildren(...[
      el("div", { class: "actions screen" }, step(-1, "Previous"), step(1, "Next"),
        el("button", { type: "button", onclick: () => copy(JSON.stringify(asJson(i), null, 2), "The row as JSON") }, "Copy as JSON"),
        el("button", { type: "button", onclick: () => copy(location.href, "The link") }, "Copy link"),
        el("button", { type: "button", class: "close", onclick: close }, "Close")),
      el("h3", {}, page.text(model.id(i)), " ", badge(i)),
      el("p", { class: "side", dir: page.language(language).dir }, page.text(sentence, language)), cut(isWhole ? "paragraph" : "sentence"),
      model.translation(i) === null ? null : el("p", { class: "side", dir: page.language(target).dir }, page.text(model.translation(i), target)), cut("translation"),
      el("dl", { class: "facts" },
        fact("Language", filter("language", language), target ? ` to ${target}` : ""),
        fact("Topic", model.topic(i) ? filter("topic", model.topic(i)) : null),
        fact("Reason", model.reason(i) ? filter("reason", model.reason(i)) : null),
        fact("Detail", model.detail(i) ? page.text(model.detail(i)) : null),
        fact("Score", model.score(i) === null ? null : number(model.score(i))),
        fact("Scorer", model.scorer(i) ? page.text(model.scorer(i)) : null),
        fact("Confidence", model.confidence(i) === null ? null : number(model.confidence(i))),
        fact("Characters", number(model.length(i)), model.translation(i) === null ? "" : ` and ${number(model.cut("translation", i) || model.translation(i).length)}`),
        pairSources.length > 1 ? fact("Folder", page.text(model.source(i).name)) : null),
      overlapList(i),
      isWhole ? null : paragraphView(i, paragraph, language),
      rowList("Other translations of this sentence", candidates),
      rowList("Other sentences of this paragraph", siblings),
    ].filter(Boolean));
    panel.hidden = false;
    const browser = element.querySelector(".browser");
    if (!browser.classList.contains("open")) {
      browser.classList.add("open");
      makeRoom();
    }
  }

  function paragraphView(i, paragraph, language) {
    if (paragraph === null || paragraph === undefined) return el("p", { class: "note" }, "The text of the paragraph is not in the files.");
    const span = model.span(i);
    const parts = span ? [paragraph.slice(0, span[0]), paragraph.slice(...span), paragraph.slice(span[1])] : [paragraph, "", ""];
    const { code, dir } = page.language(language);
    const length = model.cut("paragraph", i);
    return el("div", {}, el("h4", {}, "The paragraph"),
      el("p", { class: "paragraph text", lang: code || null, dir }, page.marked(parts[0]), parts[1] ? el("mark", {}, page.marked(parts[1])) : null, page.marked(parts[2])),
      length ? el("p", { class: "note" }, `The first ${number(data.max_text)} of ${number(length)} characters.`) : null);
  }

  function rowList(title, rows) {
    if (!rows.length) return null;
    return el("div", {}, el("h4", {}, title), el("ul", { class: "siblings" }, rows.slice(0, 200).map((n) =>
      el("li", {}, el("button", { type: "button", onclick: async () => { choose(n, true); await scrollTo(n); panel.focus(); } },
        badge(n), model.score(n) === null ? null : el("span", { class: "number" }, number(model.score(n))),
        sentenceLine(n), model.translation(n) === null ? null : translationLine(n),
        model.detail(n) ? el("span", { class: "note" }, page.text(model.detail(n).slice(0, CELL_CHARS))) : null)))),
      rows.length > 200 ? el("p", { class: "note" }, `The first 200 of ${number(rows.length)}.`) : null);
  }

  function overlapList(i) {
    const hits = hitsOf(i);
    if (!hits.length && model.state(i) !== "contaminated") return null;
    const what = { paragraph: "dropped with its paragraph", pair: "dropped", none: "not dropped" };
    const target = page.fragment("contamination", { folder: pairSources.length > 1 ? model.source(i).name : "", language: model.language(i), id: model.paragraphId(i) });
    return el("div", { class: "overlaps" }, el("h4", {}, "Overlap with test sets"),
      hits.length ? el("ul", {}, hits.slice(0, 20).map((hit) => el("li", {},
        `${hit.benchmark} ${hit.split}, text ${hit.benchmark_id}, ${hit.side}, ${what[hit.dropped]}: `, page.text(hit.other.text.slice(0, CELL_CHARS), hit.text_language))))
        : null,
      el("p", {}, hits.length ? el("a", { href: target }, "Both texts, with the shared words marked") : "The sample of hits in this page has none of this paragraph."));
  }

  async function copy(string, what) {
    try {
      await navigator.clipboard.writeText(string);
    } catch {
      const field = el("textarea", { class: "hidden", "aria-hidden": "true" });
      field.value = string;
      document.body.append(field);
      field.select();
      const copied = document.execCommand("copy");
      field.remove();
      if (!copied) return page.announce("The browser does not allow copying");
    }
    page.announce(`${what} is copied`);
    const done = el("span", { class: "note copied" }, "copied");
    panel.querySelector(".actions").append(done);
    setTimeout(() => done.remove(), 1500);
  }

  fonts.append(...missingFonts(data, model).map((problem) => el("p", { class: "warn" }, problem)));

  await apply(false);
  setTimeout(() => index(false), 300); // before the first search asks for it

  return {
    async show(params) {
      for (const key of KEYS) filters[key] = params[key] || "";
      for (const key of ["min", "max"]) if (!Number.isFinite(Number(filters[key]))) filters[key] = "";
      writeControls();
      const field = filters.sort === "id" ? "i" : filters.sort;
      if (columns().some((column) => column.field === field && column.sorter)) grid.setSort(field, filters.order === "desc" ? "desc" : "asc");
      const i = params.id ? model.find(params.id, params.in) : undefined;
      if (i !== undefined) { selected = i; open = true; }
      await apply(false);
      if (i !== undefined) {
        choose(i, true);
        await scrollTo(i);
      } else if (params.id) {
        status.textContent = `${params.id} is not in this page${model.count < data.total ? ", which has a sample of the rows" : ""}. ` + status.textContent;
      }
    },
  };
};
