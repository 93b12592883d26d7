"""The card of a data set, README.md: front matter that `datasets` and the Hub read, and what a user of the data has to know.

Everything from models and files is escaped, and paths of the machine are masked.
"""

import html
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import topxgen
from topxgen.common import lineage
from topxgen.common.console import markdown_table, printable
from topxgen.common.masks import masked, masked_word
from topxgen.decontamination import report
from topxgen.publication import origins
from topxgen.publication.origins import Model, Origin
from topxgen.publication.parquet import features
from topxgen.publication.sources import ALL, Selection
from topxgen.runs.folders import Run
from topxgen.statistics import tables
from topxgen.statistics.corpus import Corpus
from topxgen.statistics.corpus import Pair as CorpusPair
from topxgen.statistics.describe import Options as StatisticsOptions
from topxgen.statistics.describe import describe

if TYPE_CHECKING:
    from topxgen.publication.dataset import Options, Part, Published

MAX_CELL_CHARS = 400  # of a sample
SAMPLES = 5
# Of the number of rows, as the Hub names them.
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
COLUMNS = {
    "source": "the translation, by `back_translator`",
    "target": "the sentence that was translated; a model learns to write it",
    "src, tgt": "their languages, by the codes of FLORES-200",
    "score": "its quality by `scorer`, higher is better; null without",
    "confidence": "the back-translator's own, 0 to 1; null where it has none",
    "topic": "what the paragraph was to be about",
    "paragraph_id, paragraph": "where the sentence stands; with sentences that are in no pair",
    "id": "of the pair: its paragraph, and its place in it",
}
CITATION = """@inproceedings{zebaze-etal-2025-topxgen,
    title = "{T}op{XG}en: Topic-Diverse Parallel Data Generation for Low-Resource Machine Translation",
    author = "Zebaze, Armel and Sagot, Beno{\\^i}t and Bawden, Rachel",
    booktitle = "Findings of the Association for Computational Linguistics: EMNLP 2025",
    year = "2025"
}"""


def card(run: Run, published: "Published", sections: Sequence[str], options: "Options") -> str:
    """The card; `sections`: that of each config (`section`)."""
    parts, models = published.parts, origins.models([one for part in published.parts for one in part.origins])
    title = options.repository or masked(run.root.resolve().name)
    blocks = [
        _front_matter(published, models),
        f"# {escape(title)}",
        _introduction(parts, models),
        *_warnings(published),
        _usage(parts, options),
        "## Columns\n\n"
        + markdown_table(["column", "what it holds"], [[f"`{name}`", text] for name, text in COLUMNS.items()]),
        _terms(models),
        _making(published, options),
        *sections,
        _commands(parts, options),
        "## Checksums\n\n`sha256sum -c SHA256SUMS` in this folder checks all files.",
        f"## Citation\n\nPlease cite the method, and name this data set:\n\n```bibtex\n{CITATION}\n```",
    ]
    return "\n\n".join(filter(None, blocks)) + "\n"


def _front_matter(published: "Published", models: list[Model]) -> str:
    from ruamel.yaml import YAML

    parts = published.parts
    total = sum(part.pairs for part in parts)
    sides = (language for part in parts for language in (part.config.language, part.config.target))
    codes = {language.iso639_1 or language.iso639_3 for language in sides}
    bound = [model for model in models if model.licence is None or model.licence.restricts] or models
    identifiers = sorted({model.licence.hub if model.licence else "unknown" for model in bound})
    values: dict = {"language": sorted(codes)}
    if len(identifiers) == 1:
        values["license"] = identifiers[0]
    else:  # the terms of several models apply together
        values |= {"license": "other", "license_name": "terms-of-the-models", "license_link": "#licence-and-terms"}
    values |= {
        "task_categories": ["translation"],
        "size_categories": [next((name for limit, name in SIZES if total < limit), "10M<n<100M")],
        "language_creators": [*(["found"] if _native(parts) else []), "machine-generated"],
        "annotations_creators": ["machine-generated"],
        "multilinguality": ["translation"],
        "tags": ["topxgen", "synthetic", "parallel-corpus", "back-translation", "low-resource-languages"],
    }
    if any(source.filtered is None for part in parts for source in part.config.sources):
        values["tags"].append("not-decontaminated")
    configs = [(part.config.name, [part]) for part in parts]
    if len(parts) > 1:
        configs.insert(0, (ALL, parts))
    values["configs"] = [
        {
            "config_name": name,
            **({"default": True} if name == ALL else {}),
            "data_files": [
                {"split": split, "path": [f"{part.config.folder}/{split}.parquet" for part in of if split in part.rows]}
                for split in _splits(of)
            ],
        }
        for name, of in configs
    ]
    values["dataset_info"] = [
        {
            "config_name": name,
            "features": features(),
            "splits": [
                {"name": split, "num_bytes": _sum(of, "bytes", split), "num_examples": _sum(of, "rows", split)}
                for split in _splits(of)
            ],
            "download_size": sum(_sum(of, "files", split) for split in _splits(of)),
            "dataset_size": sum(_sum(of, "bytes", split) for split in _splits(of)),
        }
        for name, of in configs
    ]
    yaml, text = YAML(typ="safe", pure=True), io.StringIO()
    yaml.default_flow_style, yaml.allow_unicode, yaml.sort_base_mapping_type_on_output = False, True, False
    yaml.dump(values, text)
    return f"---\n{text.getvalue()}---"


def _splits(parts: Iterable["Part"]) -> list[str]:
    return [name for name in ("train", "validation") if any(name in part.rows for part in parts)]


def _sum(parts: Iterable["Part"], what: str, split: str) -> int:
    return sum(getattr(part, what).get(split, 0) for part in parts)


def _introduction(parts: list["Part"], models: list[Model]) -> str:
    total = sum(part.pairs for part in parts)
    made = "; ".join(escape(f"{model.name} {model.made} {model.languages}") for model in models)
    named = ", ".join(dict.fromkeys(part.config.language.name for part in parts))
    native = _native(parts)
    texts = f"Texts in {escape(', '.join(native))} were given, not generated. " if native else ""
    all_native = len(native) == len({part.config.language.name for part in parts})
    whose = "Translations" if all_native else "Texts and translations"
    return (
        f"{total:,} synthetic sentence pairs in {escape(named)}: {made}. Made with TopXGen toolkit {topxgen.__version__}. {texts}{whose} "
        "are the output of models: they may be wrong, biased or offensive, and nobody has read all of them."
    )


def _native(parts: Iterable["Part"]) -> list[str]:
    """The languages with texts that were given."""
    given = (one.source.language.name for part in parts for one in part.origins if one.is_native)
    return list(dict.fromkeys(given))


def _warnings(published: "Published") -> Iterator[str]:
    sources = [source for part in published.parts for source in part.config.sources]
    if missing := [source for source in sources if source.filtered is None]:
        named = ", ".join(dict.fromkeys(source.language.name for source in missing))
        yield (
            f"**Not decontaminated: {escape(named)}. Sentences of test sets may be in the data; do not report scores of models that were "
            "trained on it without a check.**"
        )
    for path in published.cut:
        yield f"**The last line of {escape(path.name)} was not complete and is left out: a run was writing it, or was killed.**"
    lines = dict.fromkeys(line for part in published.parts for one in part.origins for line in one.unknown)
    if lines:
        yield "**Not known about this data, or not consistent:**\n\n" + "\n".join(f"- {escape(line)}" for line in lines)


def _usage(parts: list["Part"], options: "Options") -> str:
    name, example = options.repository or "FOLDER", parts[0].config.name
    rows = [
        [
            escape(part.config.name),
            *(f"{part.rows.get(split, 0):,}" for split in ("train", "validation")),
            f"{part.paragraphs:,}",
        ]
        for part in parts
    ]
    everything = ""
    if len(parts) > 1:
        everything = f'load_dataset("{name}")                         # config "{ALL}": all languages\n'
    code = f"from datasets import load_dataset\n\nload_dataset({json.dumps(name)}, {json.dumps(example)})\n{everything}"
    return (
        f"## Use\n\n```python\n{code}```\n\n"
        + markdown_table(["config", "train", "validation", "paragraphs"], rows, right=3)
        + "\n\n"
        "A paragraph is in one split only, and no sentence of the validation split, nor one that is nearly the same, is in the "
        "training split, in any config and on either side."
    )


def _terms(models: list[Model]) -> str:
    rows = []
    for model in models:
        terms = model.licence
        unknown = "**not known: look them up before you use the data**"
        title = f"[{escape(terms.name)}]({terms.url})" if terms else unknown
        binds = escape(terms.binds_outputs) if terms else ""
        rows.append([escape(model.name), escape(f"{model.made} {model.languages}"), title, binds])
    text = "## Licence and terms\n\nThe data is bound by the terms of the models that made it.\n\n"
    text += markdown_table(["model", "what it did", "terms", "what they say of outputs"], rows)
    if any(model.licence and model.licence.non_commercial for model in models):
        text += "\n\n**Not for commercial use**, by the terms of one of these models."
    return text


def _making(published: "Published", options: "Options") -> str:
    """How pairs were selected and split."""
    selection, validation = options.selection, published.validation
    lines = []
    if selection.min_score is not None:
        lines.append(f"Pairs with a score of at least {selection.min_score:g} (`--min_score`).")
    if selection.percentile is not None:
        thresholds = ", ".join(f"{escape(p.config.name)}: above {p.measured.threshold:.4g}" for p in published.parts)
        lines.append(
            f"Pairs above the {selection.percentile:g}th percentile of the scores of their config ({thresholds})."
        )
    before: dict[tuple, dict[str, None]] = {}  # the counts of languages, by what was selected and how
    for origin in (one for part in published.parts for one in part.origins):
        for found in lineage.selections([origin.link]):
            counts = f" {found['kept']:,} of {found['of']:,}" if found["kept"] is not None else ""
            rule = (found["what"], masked(str(found["metric"])), found["flag"])
            before.setdefault(rule, {})[f"{origin.source.language.name}{counts}"] = None
    for (what, metric, flag), counts in before.items():
        lines.append(
            f"In the run, {escape(what)} was selected by {escape(metric)} (`{flag}`): {escape(', '.join(counts))}."
        )
    if selection == Selection() and not lines:
        lines.append("All pairs that the run kept; paragraphs without pairs are left out.")
    if validation.asked:
        sizes = ", ".join(
            f"{escape(name)} {validation.pairs[name]:,} of {asked:,}" for name, asked in validation.asked.items()
        )
        lines.append(
            f"Validation split, pairs of those asked for: {sizes}; seed {options.seed}. Paragraphs that share a text with others, or nearly, "
            "stay in the training split."
        )
    return "## Selection and splits\n\n" + "\n".join(f"- {line}" for line in lines)


def section(part: "Part", seed: int) -> str:
    """What the card says of a config: contamination, statistics, samples. `part.sample` is read."""
    config, kept = part.config, part.sample.in_order()
    whole = len(kept) == part.records
    stage = "published" if whole else f"random {len(kept):,} of {part.records:,} paragraphs"
    corpora: dict[str, Corpus] = {}  # by back-translator: two have the same sentences
    for paragraph in kept:
        by = paragraph.pairs[0].back_translator if part.has_several else ""
        path = re.sub(r"[^\w.@:/ -]+", "_", f"{config.name}/{by}".rstrip("/"))
        corpus = corpora.setdefault(by, Corpus(path, stage, config.language, config.target, pairs=[]))
        corpus.paragraphs.append(paragraph.text)
        corpus.topics.append(paragraph.pairs[0].topic)
        corpus.pairs += [CorpusPair(pair.target, pair.source, pair.score, pair.scorer) for pair in paragraph.pairs]
    statistics = tables.markdown(describe([*corpora.values()], StatisticsOptions(seed=seed)))
    shown = part.sample.items()[::-1][:SAMPLES]
    pairs = [pair for paragraph in shown for pair in paragraph.pairs[:1]]
    rows = [
        [escape(cut(pair.target)), escape(cut(pair.source)), "" if pair.score is None else f"{pair.score:.3f}"]
        for pair in pairs
    ]
    samples = markdown_table([escape(config.language.name), escape(config.target.name), "score"], rows)
    return "\n\n".join(
        [
            f"## {escape(config.name)}",
            *(f"### From prompts to pairs\n\n{text}" for text in [_funnels(part)] if text),
            f"### Contamination\n\n{_contamination(part.origins)}",
            f"### Statistics\n\n{statistics.strip()}",
            f"### Samples\n\n{samples}",
        ]
    )


def _funnels(part: "Part") -> str:
    """A table for each source: how many there are at each step, and what it removed."""
    blocks = []
    for origin in part.origins:
        if origin.funnel is None:
            continue
        rows = []
        for step in origin.funnel.steps:
            changes = [f"{_plain(reason)} {-count:,}" for reason, count in step.removed.items()]
            changes += [f"{_plain(reason)} +{count:,}" for reason, count in step.added.items()]
            rows.append([_plain(step.name), f"{step.count:,}", ", ".join(changes)])
        head = f"Pairs by {escape(origin.source.back_translator)}.\n\n" if len(part.origins) > 1 else ""
        blocks.append(head + markdown_table(["step", "number", "removed from it"], rows))
    left_out = {
        "without two sides": part.measured.empty,
        "by score": part.measured.pairs - part.measured.empty - part.pairs,
    }
    named = ", ".join(f"{name} {-count:,}" for name, count in left_out.items() if count)
    if blocks:
        blocks.append(f"Published: {part.pairs:,} of {part.measured.pairs:,} pairs{f' ({named})' if named else ''}.")
    return "\n\n".join(blocks)


def _plain(name: str) -> str:
    return escape(name.replace("_", " "))


def _contamination(found: list[Origin]) -> str:
    blocks = []
    for origin in found:
        source = origin.source
        head = f"Pairs by {escape(source.back_translator)}. " if len(found) > 1 else ""
        if source.filtered is None:
            blocks.append(f"{head}**Not decontaminated.**")
            continue
        removed = dict.fromkeys(
            f"{masked_word(text['benchmark'])} {masked(text['split'])} ({text['language']})"
            for link in lineage.walk([origin.link])
            for text in link.get("removed", ())
        )
        named = ", ".join(escape(text) for text in removed) or "nothing that a manifest names"
        blocks.append(f"{head}What overlaps these texts was removed: {named}.")
        if origin.report is not None:
            rules = report.rules(origin.report["settings"]) if "settings" in origin.report else ()
            blocks.append(masked("".join([*rules, *report.language_tables(origin.report)])).strip())
    return "\n\n".join(blocks)


def _commands(parts: list["Part"], options: "Options") -> str:
    found = dict.fromkeys(command for part in parts for one in part.origins for command in one.commands.values())
    own = " ".join(options.command)
    listed = "\n\n".join([*(f"python {command}" for command in found), f"python {own}"])
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", listed)), default=0))
    return (
        "## Commands\n\nFolders outside the working directory are shortened to their last part (…/name).\n\n"
        f"{fence}text\n{printable(listed)}\n{fence}"
    )


def cut(text: str) -> str:
    return text if len(text) <= MAX_CELL_CHARS else f"{text[:MAX_CELL_CHARS]}…"


def escape(text: object) -> str:
    """A text on one line, in which nothing is Markdown or HTML and control characters are visible."""
    plain = html.escape(printable(" ".join(str(text).split())), quote=False)
    return "".join(f"\\{char}" if char in "\\`*_{}[]#|~" else char for char in plain)
