"use strict";
/* What the sections share. Section NAME has a file NAME.js beside this one (and parts of it in NAME_*.js, which come first):

     page.sections.NAME = async function (element, data, page) {
       element.append(page.el("p", {}, "…"));
       return { show(params) {} };   // optional: called for #NAME?key=value, at the start and when the fragment changes
     };

   `data` is what its collect() returned. Text of models and files gets into the page as text alone: children of page.el and
   page.text are strings, never markup; nothing here sets innerHTML. */
const page = (() => {
  const sections = {};
  const states = new Map(); // name -> {element, promise, controller}
  const colors = ["var(--c1)", "var(--c2)", "var(--c3)", "var(--c4)", "var(--c5)", "var(--c6)", "var(--c7)", "var(--c8)"];
  let followed = null; // the section that a link led to, and where it is on the screen; null once the reader scrolls
  let languages = { languages: {}, names: {} };

  // --- elements ---

  /* An element. attributes: on* are listeners (functions); true is "", false, null and undefined are left out. children: nodes,
     strings, numbers, arrays of them; null, undefined and false are nothing. */
  function el(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2).toLowerCase(), value);
      else if (name === "href" && !/^(#|https:)/.test(value)) continue;
      else element.setAttribute(name, value === true ? "" : value);
    }
    return add(element, ...children);
  }

  /* Append children, as those of `el`, to an element. */
  function add(element, ...children) {
    for (const child of children.flat(Infinity)) {
      if (child === null || child === undefined || child === false) continue;
      element.append(child instanceof Node ? child : String(child));
    }
    return element;
  }

  /* Characters that show nothing, or change how others are shown: control and format characters, tags, lone surrogates. Not
     U+200C and U+200D, which Urdu, Hindi and others are written with. */
  const INVISIBLE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb]|[\u{e0000}-\u{e0fff}]|\p{Surrogate}/gu;
  const NAMES = {
    0x00ad: "soft hyphen", 0x200b: "zero-width space", 0x200e: "left-to-right mark", 0x200f: "right-to-left mark", 0x2028: "line separator",
    0x2029: "paragraph separator", 0x202a: "left-to-right embedding", 0x202b: "right-to-left embedding", 0x202c: "end of direction",
    0x202d: "left-to-right override", 0x202e: "right-to-left override", 0x2060: "word joiner", 0x2066: "left-to-right isolate",
    0x2067: "right-to-left isolate", 0x2068: "first strong isolate", 0x2069: "end of isolate", 0x061c: "Arabic letter mark", 0xfeff: "byte order mark",
  };

  /* Nodes of a string: its text, and a visible mark for each character that shows nothing. */
  function marked(string) {
    const nodes = [];
    let last = 0;
    for (const match of string.matchAll(INVISIBLE)) {
      if (match.index > last) nodes.push(string.slice(last, match.index));
      const code = match[0].codePointAt(0);
      const label = "U+" + code.toString(16).toUpperCase().padStart(4, "0");
      nodes.push(el("span", { class: "invisible", title: NAMES[code] || "invisible character" }, label));
      last = match.index + match[0].length;
    }
    nodes.push(string.slice(last));
    return nodes;
  }

  /* The same as a string, for charts, options and labels. */
  const plainly = (string) => marked(String(string ?? "")).map((node) => node.textContent ?? node).join("");

  /* Text of a language as an element of its own direction; `languageName` may be missing. Invisible characters are shown as marks. */
  function text(string, languageName) {
    const { code, dir } = language(languageName);
    return el("bdi", { class: "text", lang: code || null, dir }, marked(String(string ?? "")));
  }

  /* {name, code (BCP 47), dir, script, endonym} of a language by English name or code of FLORES; what is unknown has dir "auto". */
  function language(name) {
    const of = (table) => (Object.hasOwn(table, name) ? table[name] : null); // a name may be that of a property of all objects
    let row = of(languages.languages);
    if (!row) {
      const code = of(languages.names) || name;
      row = Object.values(languages.languages).find((one) => one[3] === code);
    }
    if (!row) return { name: name || "", code: "", dir: "auto", script: "", endonym: "" };
    const [code, script, dir, , endonym] = row;
    return { name, code: `${code}-${script}`, dir, script, endonym };
  }

  /* Whether this computer can show a text: where no font has its letters, the browser draws all of them alike, as a box. */
  function hasFont(string) {
    const letters = [...new Set(string.match(/(?![\u0000-\u024f])\p{L}/gu) || [])].slice(0, 8);
    if (letters.length < 2) return true;
    const context = Object.assign(document.createElement("canvas"), { width: 40, height: 40 }).getContext("2d", { willReadFrequently: true });
    context.font = `24px ${getComputedStyle(document.body).fontFamily}`;
    context.textBaseline = "middle";
    const drawn = letters.map((letter) => {
      context.clearRect(0, 0, 40, 40);
      context.fillText(letter, 4, 20);
      return context.getImageData(0, 0, 40, 40).data.join();
    });
    return new Set(drawn).size > 1;
  }

  // --- numbers ---

  const integers = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });
  /* 12,345; 0.0123; 3.14: four significant digits of what is no integer. "–" for null. */
  function number(value, digits) {
    if (value === null || value === undefined || Number.isNaN(value)) return "–";
    if (digits !== undefined) return value.toLocaleString("en-GB", { minimumFractionDigits: digits, maximumFractionDigits: digits });
    if (Number.isInteger(value)) return integers.format(value);
    return Math.abs(value) >= 1000 ? integers.format(value) : value.toLocaleString("en-GB", { maximumSignificantDigits: 4 });
  }

  function share(part, whole) {
    return whole ? `${number((100 * part) / whole, 1)} %` : "–";
  }

  // --- tables and charts ---

  /* A table of few rows. columns: strings, or {title, value: key | row => string, number or node, number: true}. rows: arrays or
     objects. options: caption, wide, header: true if the first column names the row. */
  function table(columns, rows, options = {}) {
    const specs = columns.map((column, i) => (typeof column === "string" ? { title: column, value: i } : { value: i, ...column }));
    const cell = (row, spec) => {
      const value = typeof spec.value === "function" ? spec.value(row) : row[spec.value];
      if (typeof value === "number") return number(value, spec.digits);
      if (value === null || value === undefined) return "–";
      return typeof value === "string" ? marked(value) : value;
    };
    const isNumber = (spec) => spec.number ?? (rows.length > 0 && rows.every((row) => {
      const value = typeof spec.value === "function" ? spec.value(row) : row[spec.value];
      return typeof value === "number" || value === null || value === undefined;
    }));
    const classes = specs.map((spec) => (isNumber(spec) ? "number" : spec.class || null));
    const head = el("tr", {}, specs.map((spec, i) => el("th", { scope: "col", class: classes[i], title: spec.help }, spec.title)));
    const body = rows.map((row) => el("tr", {}, specs.map((spec, i) =>
      options.header !== false && i === 0 && specs.length > 1
        ? el("th", { scope: "row", class: classes[i] }, cell(row, spec))
        : el("td", { class: classes[i] }, cell(row, spec)))));
    const caption = options.caption && el("caption", {}, options.caption);
    const element = el("table", { class: options.wide ? "wide" : null }, caption, el("thead", {}, head), el("tbody", {}, body));
    return el("div", { class: rows.length > 30 ? "scroll tall" : "scroll", tabindex: "0", role: "region", "aria-label": options.caption || options.label || specs[0].title }, element);
  }

  /* A figure of Observable Plot: redrawn at the width it has, at most `plotOptions.maxWidth`; plotOptions may be a function of the
     width. describe.title: caption;
     describe.description: what the chart shows, for who cannot see it, and under the caption with describe.note;
     describe.table: {columns, rows}, the same data. Colours of categories are `page.colors` unless others are given. */
  function chart(plotOptions, describe) {
    const optionsAt = typeof plotOptions === "function" ? plotOptions : () => plotOptions;
    const holder = el("div", { class: "plot", role: "img", "aria-label": `${describe.title}. ${describe.description || ""}` });
    let drawn = 0;
    const draw = (space) => {
      const { maxWidth = 900, ...given } = optionsAt(Math.round(space));
      const width = Math.min(Math.round(space), maxWidth);
      if (width < 40 || width === drawn) return;
      drawn = width;
      const ownRange = given.color && !given.color.scheme && !given.color.range && (given.color.domain || given.color.type === "categorical");
      const color = ownRange ? { ...given.color, range: colors } : given.color;
      const style = { background: "transparent", color: "var(--ink)", fontFamily: "inherit", ...given.style };
      const svg = Plot.plot({ ...given, ...(color ? { color } : {}), style, width });
      svg.setAttribute("aria-hidden", "true");
      holder.replaceChildren(svg);
    };
    new ResizeObserver((entries) => draw(entries[0].contentRect.width)).observe(holder);
    return el("figure", {},
      el("figcaption", {}, describe.title, describe.note && el("span", { class: "note" }, describe.note)),
      holder,
      describe.table && el("details", { class: "screen" }, el("summary", {}, "The numbers"), table(describe.table.columns, describe.table.rows, { label: describe.title })));
  }

  // --- data ---

  async function bytes(id) {
    const script = document.getElementById(id);
    if (!script) return null;
    const base64 = script.textContent;
    const packed = Uint8Array.fromBase64 ? Uint8Array.fromBase64(base64) : Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
    return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip")));
  }

  /* The data of a section, or of another `name`, as collect() returned them; null if the page has none. */
  async function data(name) {
    const response = await bytes(`data-${name}`);
    return response && response.json();
  }

  const loaded = new Map();
  /* Run a library that the page holds; the Content-Security-Policy knows its hash. */
  function library(file) {
    if (!loaded.has(file)) {
      loaded.set(file, (async () => {
        const script = document.createElement("script");
        script.textContent = await (await bytes(`library-${file}`)).text();
        document.head.append(script);
      })());
    }
    return loaded.get(file);
  }

  // --- sections and fragments ---

  /* Render a section once. */
  function render(name) {
    const state = states.get(name);
    if (!state.promise) {
      state.promise = (async () => {
        const body = state.element.querySelector(".body");
        if (!body) return;
        try {
          for (const file of state.element.dataset.libraries.split(" ").filter(Boolean)) await library(file);
          const content = document.createDocumentFragment();
          const holder = el("div", { class: "body" });
          content.append(holder);
          const value = await data(name);
          body.replaceWith(content);
          state.controller = (await sections[name](holder, value, page)) || {};
        } catch (error) {
          console.error(error);
          const line = el("p", { class: "bad" }, `This section cannot be shown: ${error.message}`);
          (state.element.querySelector(".body") || state.element).replaceChildren(line);
        }
      })();
    }
    return state.promise;
  }

  function route() {
    const [name, query = ""] = location.hash.slice(1).split("?");
    return states.has(name) ? { name, params: Object.fromEntries(new URLSearchParams(query)) } : null;
  }

  function fragment(section, params) {
    const entries = Object.entries(params || {}).filter(([, value]) => value !== null && value !== undefined && value !== "");
    const query = new URLSearchParams(entries).toString();
    return `#${section}${query ? "?" + query : ""}`;
  }

  /* Go to a section and hand it `params`, which become the fragment (#section?key=value). */
  function show(section, params) {
    const target = fragment(section, params);
    if (location.hash === target) follow();
    else location.hash = target;
  }

  /* Write the state of a section into the fragment, without a new entry in the history and without going there. */
  function replace(section, params) {
    history.replaceState(null, "", fragment(section, params));
    current(section);
  }

  async function follow() {
    const target = route();
    if (!target) return;
    const state = states.get(target.name);
    followed = { element: state.element };
    current(target.name);
    const hash = location.hash;
    await render(target.name);
    if (location.hash !== hash) return; // the reader has gone on meanwhile
    state.element.scrollIntoView({ block: "start", behavior: "instant" });
    if (state.controller && state.controller.show) await state.controller.show(target.params);
    if (followed) followed.top = state.element.getBoundingClientRect().top;
  }

  function current(name) {
    for (const link of document.querySelectorAll("nav a")) {
      if (link.hash === `#${name}`) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }

  /* Say something to a screen reader. */
  function announce(string) {
    document.getElementById("live").textContent = string;
  }

  async function start() {
    theme();
    if (typeof DecompressionStream === "undefined") {
      for (const wait of document.querySelectorAll(".wait")) wait.textContent = "This browser is too old for this page: it cannot decompress its data.";
      return;
    }
    for (const element of document.querySelectorAll("main > section")) states.set(element.id, { element });
    languages = (await data("languages")) || languages;
    addEventListener("hashchange", follow);
    // The first section comes alone: until it has its height, those below are near, too, and would take its time.
    if (!route() && states.size) await render(states.keys().next().value);
    const near = new IntersectionObserver((entries) => {
      for (const entry of entries) if (entry.isIntersecting) render(entry.target.id);
    }, { rootMargin: "400px" });
    const reading = new IntersectionObserver((entries) => {
      for (const entry of entries) if (entry.isIntersecting && !followed) current(entry.target.id);
    }, { rootMargin: "-10% 0px -80% 0px" });
    for (const { element } of states.values()) {
      near.observe(element);
      reading.observe(element);
    }
    // What a link led to is current until the reader scrolls, though at the end of the page another section may be further up.
    for (const event of ["wheel", "touchmove", "keydown", "pointerdown"]) addEventListener(event, () => { followed = null; }, { passive: true });
    // Sections above may be rendered later: what a link led to stays where it is on the screen, unless something else scrolls.
    const moved = () => (followed && followed.top !== undefined ? followed.element.getBoundingClientRect().top - followed.top : 0);
    new ResizeObserver(() => scrollBy({ top: moved(), behavior: "instant" })).observe(document.getElementById("content"));
    addEventListener("scroll", () => { if (Math.abs(moved()) > 5) followed = null; }, { passive: true });
    addEventListener("beforeprint", () => { for (const name of states.keys()) render(name); });
    await follow();
    document.documentElement.dataset.ready = "true";
    idle([...states.keys()].filter((name) => !states.get(name).element.dataset.large));
  }

  /* Render what no reader has come to yet, one section at a time, so that searching the page and printing it find all of it. */
  function idle(names) {
    if (!names.length) return;
    const later = window.requestIdleCallback || ((task) => setTimeout(task, 50));
    later(async () => {
      await render(names[0]);
      idle(names.slice(1));
    });
  }

  function theme() {
    const select = document.getElementById("theme");
    const apply = (value) => {
      if (value) document.documentElement.dataset.theme = value;
      else delete document.documentElement.dataset.theme;
    };
    try { select.value = localStorage.getItem("topxgen-theme") || ""; } catch { /* no storage for files */ }
    apply(select.value);
    select.addEventListener("change", () => {
      apply(select.value);
      try { localStorage.setItem("topxgen-theme", select.value); } catch { /* as above */ }
    });
  }

  return { sections, colors, el, add, text, marked, plainly, language, hasFont, number, share, table, chart, data, library, show, replace, fragment, render, announce, start };
})();
