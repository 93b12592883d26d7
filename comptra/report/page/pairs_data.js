/* What the browser of pairs reads: the packed columns, the overlaps of paragraphs, texts folded for its search, scripts without a font. */

function decode(packed) {
  const { paragraphs, rows } = packed;
  const count = rows.state.length;
  const paragraphOf = new Uint32Array(count), starts = new Uint32Array(count), firsts = new Uint32Array(paragraphs.rows.length + 1);
  const lengths = new Float64Array(count); // of sentences; negative: -1 - its place in `others`
  let i = 0, other = 0;
  paragraphs.rows.forEach((size, p) => {
    firsts[p] = i;
    for (let end = 0; size > 0; size--, i++) {
      paragraphOf[i] = p;
      if (rows.length[i] === null) lengths[i] = -1 - other++;
      else {
        starts[i] = end + rows.gap[i];
        lengths[i] = rows.length[i];
        end = starts[i] + rows.length[i];
      }
    }
  });
  firsts[paragraphs.rows.length] = i;
  const coded = (column) => (n) => column.values[column.codes[n]];
  const [language, topic] = [coded(paragraphs.language), coded(paragraphs.topic)];
  const sentence = (n) => lengths[n] < 0 ? packed.others[-1 - lengths[n]]
    : paragraphs.text[paragraphOf[n]].slice(starts[n], starts[n] + lengths[n]);
  const names = new Map();
  return {
    count, paragraphOf, sentence,
    range: (p) => [firsts[p], firsts[p + 1]],
    state: (n) => packed.states[rows.state[n]],
    reason: coded(rows.reason), scorer: coded(rows.scorer), detail: coded(rows.detail),
    language: (n) => language(paragraphOf[n]),
    topic: (n) => topic(paragraphOf[n]),
    source: (n) => packed.sources[paragraphs.source[paragraphOf[n]]],
    paragraphId: (n) => paragraphs.id[paragraphOf[n]],
    paragraph: (n) => paragraphs.text[paragraphOf[n]],
    span: (n) => lengths[n] < 0 ? null : [starts[n], starts[n] + lengths[n]],
    length: (n) => packed.cut.sentence[n] || (lengths[n] < 0 ? sentence(n).length : lengths[n]),
    translation: (n) => rows.translation[n],
    score: (n) => rows.score[n],
    confidence: (n) => rows.confidence[n],
    index: (n) => rows.index[n],
    letter: (n) => rows.letter[n],
    id: (n) => `${paragraphs.id[paragraphOf[n]]}/${rows.letter[n]}${rows.index[n]}`,
    cut: (kind, n) => packed.cut[kind][kind === "paragraph" ? paragraphOf[n] : n],
    find(id, source) {
      if (!names.size) for (let n = count - 1; n >= 0; n--) {
        names.set(this.id(n), n);
        names.set(`${this.source(n).name} ${this.id(n)}`, n);
      }
      return names.get(source ? `${source} ${id}` : id);
    },
  };
}

async function overlapsByParagraph() {
  const found = new Map();
  for (const hit of ((await page.data("contamination")) || { hits: [] }).hits) {
    const key = `${hit.folder} ${hit.language} ${hit.id}`;
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(hit);
  }
  return found;
}

const ASCII = /^[\x00-\x7f]*$/;
/* Marks of Latin, Greek, Cyrillic, Arabic and Hebrew, and what is not seen; vowel signs of Indic scripts are letters. */
const DIACRITICS = /(?![\u3099\u309a])[\p{Script=Inherited}\p{Cf}]|(?=[\p{Script=Arabic}\p{Script=Hebrew}])\p{M}/gu;
function fold(string, withDiacritics) {
  if (ASCII.test(string)) return string.toLowerCase();
  // Upper case first: ß is SS there, and ſ and ı become the letters that they are variants of.
  const folded = string.normalize("NFKD").toUpperCase().toLowerCase().replaceAll("ς", "σ");
  return withDiacritics ? folded : folded.replace(DIACRITICS, "");
}

/* A sentence for each language whose script no font on this computer has. */
function missingFonts(data, model) {
  const samples = new Map(), problems = [];
  for (let p = 0; p < data.paragraphs.rows.length; p++) {
    const [first, end] = model.range(p);
    if (first === end) continue;
    const language = model.language(first);
    if (!samples.has(language)) samples.set(language, "");
    if (samples.get(language).length < 2000) samples.set(language, samples.get(language) + model.sentence(first));
  }
  for (const [language, sample] of samples) {
    if (page.hasFont(sample)) continue;
    const { script } = page.language(language);
    let name = script;
    try { name = new Intl.DisplayNames(["en"], { type: "script" }).of(script); } catch { /* no code */ }
    problems.push(`This computer has no font for the script of ${language}${name ? ` (${name})` : ""}: its texts are shown as boxes. A font that has it, such as one of the Noto family, makes them readable.`);
  }
  return problems;
}

page.pairsData = { decode, overlapsByParagraph, fold, missingFonts };
