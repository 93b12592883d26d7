const metricNames = ["loss", "chrF++", "BLEU"];
const lowerIsBetter = (metric) => metric === "loss";

function points(list, fields) {
  return list.filter(([, value]) => value !== null).map(([step, value]) => ({ step, value, ...fields }));
}

/* The value at a step, or null. */
function at(list, step) {
  const found = (list || []).find((point) => point[0] === step);
  return found ? found[1] : null;
}

/* Lines over steps. lines: {step, value, line}; chosen: the step of the checkpoint. More lines than colours have a panel each. */
function curves(title, label, lines, chosen, more = {}) {
  const names = [...new Set(lines.map((point) => point.line))];
  const last = Math.max(...lines.map((point) => point.step));
  const ends = names.map((name) => {
    const own = lines.filter((point) => point.line === name);
    return `${name}: ${page.number(own[0].value)} at step ${page.number(own[0].step)}, ${page.number(own.at(-1).value)} at step ${page.number(own.at(-1).step)}`;
  });
  const axes = { x: { label: "step", domain: [0, last || 1], nice: false }, y: { label, grid: true, nice: true, ...more.y } };
  const tip = Plot.tip(lines, Plot.pointer({ x: "step", y: "value", channels: { line: "line" }, fill: "var(--raised)", stroke: "var(--edge)" }));
  const together = () => {
    const dotted = lines.length <= 60 * names.length;
    const several = names.length > 1;
    return {
      ...axes, height: 270, marginLeft: 52, marginBottom: 36,
      color: { domain: names, legend: several && !dotted },
      symbol: { domain: names, legend: several && dotted },
      marks: [
        chosen ? Plot.ruleX([chosen], { stroke: "var(--edge)", strokeDasharray: "3,3" }) : null,
        chosen ? Plot.text([chosen], { x: (step) => step, text: () => "checkpoint", frameAnchor: "top", textAnchor: chosen > last / 2 ? "end" : "start", dy: -8, fill: "var(--muted)" }) : null,
        Plot.lineY(lines, { x: "step", y: "value", stroke: "line", strokeWidth: 1.6 }),
        dotted ? Plot.dot(lines, { x: "step", y: "value", fill: "line", symbol: several ? "line" : "circle", r: 2.6 }) : null,
        tip,
      ],
    };
  };
  const panels = (width) => {
    const columns = Math.max(1, Math.floor(width / 165));
    const place = (name) => names.indexOf(name);
    const cell = { fx: (point) => place(point.line) % columns, fy: (point) => Math.floor(place(point.line) / columns) };
    const firsts = names.map((line) => ({ line }));
    return {
      ...axes, x: { ...axes.x, ticks: 3, tickFormat: (step) => d3.format("~s")(step) }, y: { ...axes.y, ticks: 3 }, marginLeft: 46, marginTop: 22, marginBottom: 34,
      height: 130 * Math.ceil(names.length / columns) + 60, maxWidth: 1100, fx: { axis: null, padding: 0.12 }, fy: { axis: null, padding: 0.28 },
      marks: [
        Plot.frame({ stroke: "var(--line)" }),
        chosen ? Plot.ruleX(firsts, { x: chosen, stroke: "var(--edge)", strokeDasharray: "3,3", ...cell }) : null,
        Plot.lineY(lines, { x: "step", y: "value", z: "line", stroke: "var(--c1)", strokeWidth: 1.6, ...cell }),
        Plot.text(firsts, { text: "line", frameAnchor: "top-left", dy: -14, fill: "var(--ink)", ...cell }),
      ],
    };
  };
  return page.chart(names.length > page.colors.length ? panels : together(), {
    title, note: more.note,
    description: `${ends.slice(0, 8).join("; ")}${ends.length > 8 ? "; and others" : ""}.${chosen ? ` The checkpoint of step ${page.number(chosen)} was chosen.` : ""}`,
    table: { columns: ["step", ...names], rows: table(lines, names) },
  });
}

/* Rows of [step, value of each line]. */
function table(lines, names) {
  const rows = new Map();
  for (const { step, value, line } of lines) {
    if (!rows.has(step)) rows.set(step, [step, ...names.map(() => null)]);
    rows.get(step)[names.indexOf(line) + 1] = value;
  }
  return [...rows.values()].sort((a, b) => a[0] - b[0]);
}

/* "3.55 → 2.41" of a metric, in the colour of what became of it. */
function change(training, metric) {
  const list = (training.held_out[metric] || {})[""];
  const first = at(list, 0), now = at(list, training.chosen);
  if (now === null) return "–";
  if (first === null) return page.number(now);
  const worse = lowerIsBetter(metric) ? now > first : now < first;
  return page.el("span", {}, `${page.number(first)} → `, page.el("b", { class: worse ? "bad" : "good" }, page.number(now)), worse ? " worse" : "");
}

function state(training) {
  if (training.stopped_early) return "stopped early";
  return training.is_complete ? "complete" : page.el("b", { class: "warn" }, "not finished");
}

function overview(trainings) {
  const metrics = metricNames.filter((metric) => trainings.some((one) => (one.held_out[metric] || {})[""]));
  return page.table([
    { title: "training", value: (one) => page.el("a", { href: page.fragment("training", { folder: one.folder }) }, page.marked(one.folder)) },
    { title: "base model", value: (one) => page.el("span", { class: "path" }, page.marked(String(one.settings.model_name_or_path ?? "–"))) },
    { title: "data", value: (one) => page.marked(String(one.settings.dataset_name_or_path ?? "–")) },
    { title: "pairs", value: (one) => one.pairs[0] ?? null, number: true },
    { title: "held out", value: (one) => one.pairs[1] ?? null, number: true },
    { title: "steps", value: "steps", number: true },
    { title: "checkpoint", value: "chosen", number: true, help: "the step of the checkpoint that was chosen" },
    ...metrics.map((metric) => ({ title: `held-out ${metric}`, value: (one) => change(one, metric), class: "nowrap", help: "before training → at the checkpoint" })),
    { title: "state", value: state },
  ], trainings, { wide: true, caption: "Held-out figures: before training → at the chosen checkpoint" });
}

/* Whether there are more directions than a narrow chart can show. */
function many(training) {
  return Object.keys(training.held_out.loss || {}).length > page.colors.length;
}

/* The charts of a training. */
function detail(training) {
  const content = [];
  const overall = ((training.held_out.loss || {})[""]) || [];
  const loss = [...points(training.curves.loss || [], { line: "training" }), ...points(overall, { line: "held-out" })];
  const charts = [], rates = [];
  const note = training.averaged > 1 ? `Each point of the training loss is the mean of ${training.averaged} logged steps.` : null;
  if (loss.length) charts.push(curves("Loss", "loss", loss, training.chosen, { note }));
  for (const metric of metricNames) {
    const directions = Object.entries(training.held_out[metric] || {}).filter(([direction]) => direction);
    const lines = directions.flatMap(([direction, list]) => points(list, { line: direction }));
    if (lines.length) charts.push(curves(`Held-out ${metric} by direction`, metric, lines, training.chosen));
  }
  for (const [name, label] of [["learning_rate", "learning rate"], ["grad_norm", "norm of the gradient"], ["tokens_per_second", "tokens per second"]]) {
    const lines = points(training.curves[name] || [], { line: label });
    if (lines.length) rates.push(curves(label[0].toUpperCase() + label.slice(1), label, lines, null, name === "learning_rate" ? { y: { tickFormat: "~e" } } : { y: { zero: true } }));
  }
  content.push(charts.length > 1 && many(training) ? charts : page.el("div", { class: "grid" }, charts));
  if (rates.length) content.push(page.el("details", {}, page.el("summary", {}, "Learning rate, gradient, speed"), page.el("div", { class: "grid" }, rates)));
  if (training.worse.length) {
    content.push(page.table(["held-out", "at the checkpoint", "before training"], training.worse, { caption: "Worse than before training" }));
  }
  const left = Object.entries(training.left_out);
  if (left.length) content.push(page.el("p", {}, "Longer than --max_length and left out: ", left.map(([set, count]) => `${page.number(count)} pairs of ${set}`).join(", "), "."));
  if (training.checkpoints.length) content.push(page.el("p", { class: "note" }, `Checkpoints on disk: ${training.checkpoints.map((step) => page.number(step)).join(", ")}.`));
  return content;
}

page.sections.training = function (element, data) {
  const trainings = data.trainings;
  element.append(overview(trainings));
  const compared = trainings.flatMap((one) => points((one.held_out.loss || {})[""] || [], { line: page.plainly(one.folder) }));
  if (trainings.length > 1 && compared.length) element.append(curves("Held-out loss of all trainings", "loss", compared, null));
  const parts = new Map();
  for (const [i, training] of trainings.entries()) {
    const part = page.el("details", { class: "step", open: i < 2 && trainings.length < 5 }, page.el("summary", {}, page.el("b", {}, page.marked(training.folder))));
    const fill = () => { if (part.open && part.children.length === 1) page.add(part, detail(training)); };
    part.addEventListener("toggle", fill);
    fill();
    parts.set(training.folder, part);
    element.append(part);
  }
  return {
    show({ folder }) {
      const part = parts.get(folder);
      if (!part) return;
      part.open = true;
      part.scrollIntoView({ block: "start" });
      part.querySelector("summary").focus({ preventScroll: true });
    },
  };
};
