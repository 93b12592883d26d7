"""Public multilingual texts, from the Hub or a local folder, with the embedded UDHR as the offline twin.

Sentences: FLORES-200 dev (as FLORES+, `openlanguagedata/flores_plus`). Paragraphs: the 240 parallel
contexts of XQuAD (`google/xquad`). Both: the Universal Declaration of Human Rights in data/udhr/.
"""

import json
from pathlib import Path

from comptra import languages
from comptra.errors import UserError, reason
from comptra.languages import Language

UDHR = Path(__file__).parent.parent / "data" / "udhr"
XQUAD_CODES = ("ar", "de", "el", "en", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh")
_XQUAD_FLORES = {"ar": "arb_Arab", "zh": "zho_Hans"}
# Where FLORES+ renamed a FLORES-200 language.
_FLORES_PLUS = {"zho_Hans": "cmn_Hans", "zho_Hant": "cmn_Hant", "sat_Beng": "sat_Olck", "tgl_Latn": "fil_Latn"}
SENTENCE_SOURCES = ("flores", "udhr")
PARAGRAPH_SOURCES = ("xquad", "udhr")


def example_sentences(source: str, language: Language, option: str = "--example_sentences") -> list[str]:
    """Sentences of `language` from "flores" (dev), "udhr" or a folder.

    A folder holds FLORES in its publishers' layout (dev/eus_Latn.dev, also below flores200_dataset/) or
    eus_Latn.txt or Basque.txt, one sentence a line.
    Raises UserError saying what to accept, export or pass when they cannot be had.
    """
    if source == "flores":
        config = _FLORES_PLUS.get(language.flores, language.flores)
        return _hub("openlanguagedata/flores_plus", config, "dev", "text", option, "FLORES")
    if source == "udhr":
        return udhr(language)
    return _lines(_sentence_file(source, language, option))


def _sentence_file(source: str, language: Language, option: str) -> Path:
    """The file of a folder that holds sentences of `language`."""
    codes = dict.fromkeys((language.flores, _FLORES_PLUS.get(language.flores, language.flores)))
    layouts = ("dev/{}.dev", "flores200_dataset/dev/{}.dev", "{}.txt")
    names = [*(layout.format(code) for layout in layouts for code in codes), f"{language.name}.txt"]
    for name in names:
        if (Path(source) / name).is_file():
            return Path(source) / name
    raise UserError(
        f"no sentences in {language.name} in {source!r}: pass {option} {' or '.join(SENTENCE_SOURCES)}, or a folder "
        f"that holds one of {', '.join(names)}"
    )


def parallel_sentences(source: str, first: Language, second: Language) -> list[tuple[str, str]]:
    """Pairs of sentences in two languages from "flores" (dev), "udhr" or a folder (as for example_sentences).

    Raises UserError when a side is missing, or the sides are not equally long.
    """
    if source == "udhr":
        return _parallel_udhr(first, second)
    if source == "flores":
        sides = [example_sentences(source, language, "--demonstration_pool") for language in (first, second)]
    else:
        sides = [_text(_sentence_file(source, language, "--demonstration_pool")) for language in (first, second)]
    if len(sides[0]) != len(sides[1]):
        raise UserError(
            f"{source}: {len(sides[0])} lines in {first.name} but {len(sides[1])} in {second.name}; the two sides of a "
            "parallel text must have the same number of lines"
        )
    return [(a.strip(), b.strip()) for a, b in zip(*sides, strict=True) if a.strip() and b.strip()]


def _parallel_udhr(first: Language, second: Language) -> list[tuple[str, str]]:
    """Aligned paragraphs: those of the articles that have as many paragraphs in both languages."""
    sides: list[dict[str, list[str]]] = []
    for language in (first, second):
        articles: dict[str, list[str]] = {}
        for line in _udhr_lines(language):
            article, text = line.split("\t", 1)
            articles.setdefault(article, []).append(text)
        sides.append(articles)
    return [
        pair
        for article, texts in sides[0].items()
        if len(texts) == len(sides[1].get(article, []))
        for pair in zip(texts, sides[1][article], strict=True)
    ]


def example_paragraphs(source: str, languages_file: str | None = None) -> dict[str, list[str]]:
    """Paragraphs by language name from "xquad", "udhr" or a folder; parallel where the source is.

    A folder holds XQuAD in its publishers' layout (xquad.es.json, also below xquad/) or one text file a
    language (spa_Latn.txt or Spanish.txt, one paragraph a line).
    """
    if source == "xquad":
        option = "--example_paragraphs"
        return {
            _xquad_name(code): list(
                dict.fromkeys(_hub("google/xquad", f"xquad.{code}", "validation", "context", option, "XQuAD"))
            )
            for code in XQUAD_CODES
        }
    if source == "udhr":
        # The twelve languages of XQuAD, so that prompts look alike with either source.
        return {name: udhr(languages.find(name)) for name in map(_xquad_name, XQUAD_CODES)}
    folder = Path(source)
    found = {}
    for code in XQUAD_CODES:
        for name in (f"xquad.{code}.json", f"xquad/xquad.{code}.json"):
            if (folder / name).is_file():
                found[_xquad_name(code)] = _squad_contexts(folder / name)
    if not found and folder.is_dir():
        for language in languages.load(languages_file).values():
            for name in (f"{language.flores}.txt", f"{language.name}.txt"):
                if (folder / name).is_file():
                    found[language.name] = _lines(folder / name)
    if not found:
        raise UserError(
            f"no example paragraphs in {source!r}: pass --example_paragraphs {' or '.join(PARAGRAPH_SOURCES)}, or a "
            "folder that holds xquad.es.json and the like, or text files such as Spanish.txt"
        )
    return found


def udhr(language: Language) -> list[str]:
    """The paragraphs of the Universal Declaration of Human Rights that are at least 40 characters long."""
    texts = [line.split("\t", 1)[1] for line in _udhr_lines(language)]
    return [text for text in texts if len(text) >= 40]


def _udhr_lines(language: Language) -> list[str]:
    path = UDHR / f"{language.flores}.tsv"
    if not path.exists():
        raise UserError(f"the embedded UDHR has no {language.name}; pass a folder or a Hub set of your own")
    return _lines(path)


def _xquad_name(code: str) -> str:
    if code in _XQUAD_FLORES:
        return languages.find(_XQUAD_FLORES[code]).name
    return next(language.name for language in languages.load().values() if language.iso639_1 == code)


def _squad_contexts(path: Path) -> list[str]:
    try:
        articles = json.loads(path.read_text(encoding="utf-8"))["data"]
        return [paragraph["context"] for article in articles for paragraph in article["paragraphs"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not SQuAD JSON: {error!r}") from None


def _lines(path: Path) -> list[str]:
    lines = [line.strip() for line in _text(path) if line.strip()]
    if not lines:
        raise UserError(f"{path} is empty")
    return lines


def _text(path: Path) -> list[str]:
    try:
        # Not splitlines(): a form feed or a line separator inside a sentence would shift all that follow.
        return path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None


def _hub(repo: str, config: str, split: str, column: str, option: str, what: str) -> list[str]:
    import datasets

    try:
        return list(datasets.load_dataset(repo, config, split=split)[column])
    except Exception as error:  # the Hub client raises dozens of types; the cause is in the message
        raise UserError(
            f"cannot load {what} from the Hub ({repo}, {config}: {reason(error)}). If it is gated, accept its terms on "
            f"its page and export HF_TOKEN; without internet pass {option} udhr (embedded) or {option} FOLDER"
        ) from None
