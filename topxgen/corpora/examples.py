"""Public multilingual texts that prompts show: from the Hub, a local folder, or the embedded UDHR.

Sentences: FLORES-200 dev. Paragraphs: the 240 parallel contexts of XQuAD. Both: the dev part of the Universal
Declaration of Human Rights in data/udhr/; its test part is an evaluation set and is never shown in a prompt.
"""

from functools import partial
from pathlib import Path

from topxgen.common.errors import UsageError
from topxgen.corpora import benchmarks, hub_sets
from topxgen.corpora.splits import Split, check_published
from topxgen.corpora.tables import read_lines
from topxgen.text import languages
from topxgen.text.languages import Language

SENTENCE_SOURCES = ("flores", "udhr")
PARAGRAPH_SOURCES = ("xquad", "udhr")


def example_sentences(
    source: str, language: Language, option: str = "--example_sentences", allow_partial: bool = False
) -> list[str]:
    """Sentences of `language` from "flores" (dev), "udhr" or a folder.

    A folder holds FLORES in its publishers' layout (dev/eus_Latn.dev, also below flores200_dataset/), or eus_Latn.txt
    or Basque.txt with one sentence a line. Raises UsageError, naming the remedy, if there are none.
    """
    if source == "flores":
        return _hub(benchmarks.REPOS["flores"], benchmarks.flores_codes(language)[-1], "dev", "text", option)
    if source == "udhr":
        return udhr(language)
    return [line for line in map(str.strip, _sentences_in(source, language, option, allow_partial)) if line]


def _sentences_in(source: str, language: Language, option: str, allow_partial: bool) -> list[str]:
    """The lines of the file of a folder that holds sentences of `language`."""
    flores = benchmarks.flores_files(language, "dev")
    stems = (*benchmarks.flores_codes(language), language.name)
    names = [*flores, *(f"{stem}.txt" for stem in stems)]
    for name in names:
        if (path := Path(source) / name).is_file():
            lines = read_lines(path)
            if not any(map(str.strip, lines)):
                raise UsageError(f"{path} is empty")
            if name in flores:
                english, dev = languages.find("English"), partial(benchmarks.lines_of, "flores", "dev")
                files = [Path(source) / file for file in benchmarks.flores_files(english, "dev")]
                files = [file for file in files if file.is_file() and language.flores != english.flores]
                others = [dev(english, read_lines(file), str(file)) for file in files]
                check_published(dev(language, lines, str(path)), language, others, allow_partial)
            return lines
    raise UsageError(
        f"no sentences in {language.name} in {source!r}: pass {option} {' or '.join(SENTENCE_SOURCES)}, or a folder "
        f"that holds one of {', '.join(names)}"
    )


def parallel_sentences(
    source: str, first: Language, second: Language, allow_partial: bool = False
) -> list[tuple[str, str]]:
    """Pairs of sentences in two languages from "flores" (dev), "udhr" or a folder (as for example_sentences).

    Raises UsageError if a side is missing, or the sides have different numbers of lines.
    """
    if source == "udhr":
        return [pair for _, pair in aligned_articles(_udhr(first), _udhr(second))]
    if source == "flores":
        sides = [example_sentences(source, language, "--demonstration_pool") for language in (first, second)]
    else:
        option = "--demonstration_pool"
        sides = [_sentences_in(source, language, option, allow_partial) for language in (first, second)]
    if len(sides[0]) != len(sides[1]):
        raise UsageError(
            f"{source}: {len(sides[0])} lines in {first.name} but {len(sides[1])} in {second.name}; the two sides of a "
            "parallel text must have the same number of lines"
        )
    return [(a.strip(), b.strip()) for a, b in zip(*sides, strict=True) if a.strip() and b.strip()]


def aligned_articles(first: Split, second: Split) -> list[tuple[str, tuple[str, str]]]:
    """Each article and pair of paragraphs of the benchmark "udhr" in two languages, of the articles with as many paragraphs in both."""
    sides: list[dict[str, list[str]]] = []
    for side in (first, second):
        articles: dict[str, list[str]] = {}
        for id_, text in zip(side.ids, side.texts, strict=True):
            articles.setdefault(id_.split()[0], []).append(text)
        sides.append(articles)
    return [
        (article, pair)
        for article, texts in sides[0].items()
        if len(texts) == len(sides[1].get(article, []))
        for pair in zip(texts, sides[1][article], strict=True)
    ]


def example_paragraphs(
    source: str, languages_file: str | None = None, allow_partial: bool = False
) -> dict[str, list[str]]:
    """Paragraphs by language name from "xquad", "udhr" or a folder; parallel if the source is.

    A folder holds XQuAD in its publishers' layout (xquad.es.json, also below xquad/), or one text file per language
    (spa_Latn.txt or Spanish.txt, one paragraph a line).
    """
    codes = {languages.find(flores).name: code for flores, code in benchmarks.XQUAD_CODES.items()}
    if source == "xquad":
        repo, option = benchmarks.REPOS["xquad"], "--example_paragraphs"
        return {
            name: list(dict.fromkeys(_hub(repo, f"xquad.{code}", "validation", "context", option)))
            for name, code in codes.items()
        }
    if source == "udhr":
        # The twelve languages of XQuAD, so that prompts look alike with either source.
        return {name: udhr(languages.find(name)) for name in codes}
    folder = Path(source)
    paragraphs = {}
    for name, code in codes.items():
        if any((folder / file).is_file() for file in benchmarks.xquad_files(code)):
            [split] = benchmarks.load("xquad", languages.find(name), folder, allow_partial=allow_partial)
            paragraphs[name] = split.texts
    if not paragraphs and folder.is_dir():
        for language in languages.load(languages_file).values():
            for name in (f"{language.flores}.txt", f"{language.name}.txt"):
                if (folder / name).is_file():
                    paragraphs[language.name] = _lines(folder / name)
    if not paragraphs:
        raise UsageError(
            f"no example paragraphs in {source!r}: pass --example_paragraphs {' or '.join(PARAGRAPH_SOURCES)}, or a "
            "folder that holds xquad.es.json and the like, or text files such as Spanish.txt"
        )
    return paragraphs


def udhr(language: Language) -> list[str]:
    """The paragraphs of the dev part of the Declaration that are at least 40 characters long."""
    return [text for text in _udhr(language).texts if len(text) >= 40]


def _udhr(language: Language) -> Split:
    try:
        return next(split for split in benchmarks.load("udhr", language) if split.name == "dev")
    except benchmarks.LacksLanguage:
        raise UsageError(f"the embedded UDHR has no {language.name}; pass a folder or a Hub set of your own") from None


def _lines(path: Path) -> list[str]:
    lines = [line.strip() for line in read_lines(path) if line.strip()]
    if not lines:
        raise UsageError(f"{path} is empty")
    return lines


def _hub(repo: str, config: str, split: str, column: str, option: str) -> list[str]:
    try:
        return hub_sets.column(repo, config, split, column)[0]
    except UsageError as error:
        raise type(error)(f"{error}; without internet pass {option} udhr (embedded) or {option} FOLDER") from None
