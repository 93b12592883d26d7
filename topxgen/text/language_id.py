"""Language identification: CLD2 or langid.py (both with their models), or a fastText model (NLLB's, GlotLID, OpenLID, lid.176).

An identifier has `knows(language) -> bool` and `is_language(texts, language) -> list[bool]`.
"""

import mmap
import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from topxgen.common.errors import UsageError
from topxgen.common.hub import hub_call
from topxgen.common.needs import FILES, HUB_ID, Need
from topxgen.text.languages import Language
from topxgen.text.words import UNSPACED_SCRIPTS, as_utf8, is_blank, visible

MIN_SCRIPT_SHARE = 0.25  # of the letters; sentences about products and formulas have many Latin ones
# Other forms of letters, which no identifier knows: full-width, mathematical 𝐛𝐨𝐥𝐝, circled, ligatures, the shapes of Arabic letters
# and half-width kana. Not all that NFKC changes: it takes Thai and Lao vowels apart.
_OTHER_FORMS = re.compile(
    "[\u0132\u0133\u0149\u017f\u01c4-\u01cc\u01f1-\u01f3\u0587\u2100-\u214f\u2160-\u217f\u2460-\u24ff\ufb00-\ufdff\ufe70-\ufefc\uff01-\uffdc"
    "\U0001d400-\U0001d7ff\U0001f110-\U0001f189]+"
)

# ISO 639-3 codes of the languages for which FLORES-200 has those of macrolanguages.
CURRENT_CODES = {"est": "ekk", "zho": "cmn"}
# For doubts(); no text of NTREX-128, XQuAD and the UDHR at hand (155 languages) comes near.
MIN_TEXTS, SAMPLE = 20, 200
MIN_IN_SCRIPT = 0.5  # of the texts; at hand all are
MAX_MISREAD = 0.01  # of the texts; at hand none, and 0.04 of Basque ones that were read as Windows-1252
MIN_OTHER = 80  # percent of the text in another language; at hand 35


def load(name_or_path: str):
    """The identifier "cld2" or "langid", or the fastText model at a path or in a Hub repository (`org/name` with a `model.bin`, or
    `org/name/file.bin`). Raises UsageError if it cannot be loaded."""
    if name_or_path in EMBEDDED:
        return EMBEDDED[name_or_path]()
    path = Path(name_or_path)
    if not path.is_file():
        path = _from_hub(name_or_path)
    return FastText(path)


class _Identifier:
    def is_language(self, texts: list[str], language: Language) -> list[bool]:
        """Whether each text is identified as the language, and written in its script: one code may stand for Uzbek in Latin and in
        Cyrillic letters."""
        codes, plain = self.codes(language), map(_plain, texts)
        return [self.identify(text) in codes and is_in_script(text, language.script) for text in plain]


class CLD2(_Identifier):
    """Google's Compact Language Detector 2; the package contains its tables."""

    def __init__(self):
        try:
            import pycld2
        except ImportError:
            raise UsageError(
                "--lid_model cld2 needs pycld2: pip install pycld2 (on aarch64, such as GH200, that needs a C++ compiler; or "
                "pass --lid_model langid, or a fastText model, such as --lid_model cis-lmu/glotlid)"
            ) from None
        self._pycld2 = pycld2

    def knows(self, language: Language) -> bool:
        return bool(language.cld2)

    @staticmethod
    def codes(language: Language) -> set[str]:
        return set(language.cld2.split(","))

    def identify(self, text: str) -> str:
        """The CLD2 code of the main language of `text`; "un" for unknown."""
        return self.main_language(text)[1]

    def main_language(self, plain: str) -> tuple[str, str, int]:
        """(CLD2's name of the main language, its code, percent of the text)."""
        try:
            # By default it takes a text for HTML: "x < y" and all that follows would be a tag.
            name, code, percent, _ = self._pycld2.detect(plain, isPlainText=True, bestEffort=True)[2][0]
        except self._pycld2.error:
            return "Unknown", "un", 0
        return name.title(), code, percent


class Langid(_Identifier):
    """langid.py (Lui and Baldwin 2012) as py3langid has it: Python alone, with the model, so on aarch64, too."""

    def __init__(self):
        try:
            from py3langid import langid
        except ImportError:
            raise UsageError("--lid_model langid needs py3langid: pip install 'py3langid>=0.4'") from None
        langid.classify("")  # loads the model
        self._classify, self._labels = langid.classify, set(langid.IDENTIFIER.labels)

    def knows(self, language: Language) -> bool:
        return language.iso639_1 in self._labels

    @staticmethod
    def codes(language: Language) -> set[str]:
        return {language.iso639_1}

    def identify(self, text: str) -> str:
        """The ISO 639-1 code of `text`; "" where nothing is left of it."""
        return self._classify(text)[0] if text.strip() else ""


EMBEDDED = {"cld2": CLD2, "langid": Langid}


class FastText(_Identifier):
    """A fastText classifier; its labels may be FLORES codes, ISO 639-3 or ISO 639-1 codes."""

    def __init__(self, path: Path):
        try:
            import fasttext
        except ImportError:
            raise UsageError("a fastText --lid_model needs fasttext-predict: pip install fasttext-predict") from None
        try:
            self._model = fasttext.load_model(str(path))
        except ValueError as error:
            raise UsageError(
                f"--lid_model {path}: {error}; pass cld2, langid, a fastText .bin or .ftz file, or a Hub id"
            ) from None
        self._labels = _read_labels(path)

    def knows(self, language: Language) -> bool:
        return bool(self._labels & _labels(language))

    @staticmethod
    def codes(language: Language) -> set[str]:
        return _labels(language)

    def identify(self, text: str) -> str:
        """The label of `text`, without fastText's prefix."""
        labels, _ = self._model.predict(text)
        return labels[0].removeprefix("__label__") if labels else ""


def doubts(texts: Sequence[str], language: Language) -> str:
    """Why texts, as a whole, are not what their writers wrote in a language; "" if there is no reason, or there are few texts."""
    sample = [text for text in texts[:: max(1, len(texts) // SAMPLE)] if not is_blank(text)]
    if len(sample) < MIN_TEXTS:
        return ""
    misread = sum(as_utf8(text) != text for text in sample)
    if misread > MAX_MISREAD * len(sample):
        return f"{misread} of {len(sample)} texts hold UTF-8 that was read as Latin-1 (Ã© for é)"
    plain = list(map(_plain, sample))
    own_script = sum(is_in_script(text, language.script) for text in plain)
    if own_script < MIN_IN_SCRIPT * len(plain):
        return (
            f"{len(plain) - own_script} of {len(plain)} texts are not in {language.name}'s script ({language.script})"
        )
    try:
        identifier = CLD2()
    except UsageError:  # not all machines have a package of it
        return ""
    name, code, percent = identifier.main_language(" ".join(plain))
    if percent >= MIN_OTHER and identifier.knows(language) and code not in {"un", *identifier.codes(language)}:
        return f"{percent} % of the text is {name} according to CLD2, not {language.name}"
    return ""


def is_in_script(text: str, script: str) -> bool:
    if not (pattern := _letters_of(script)):
        return True
    letters = "".join(pattern.findall(text))
    if script in ("Hans", "Hant"):
        # A character in only one of these sets, of two bytes each, is of the writing that the set was made for.
        simplified, traditional = (len(letters.encode(charset, "ignore")) for charset in ("gb2312", "big5"))
        if simplified != traditional and (simplified > traditional) != (script == "Hans"):
            return False
    return len(letters) >= MIN_SCRIPT_SHARE * sum(map(str.isalpha, text))


@cache
def _letters_of(script: str):
    """A pattern of runs of letters of a script (ISO 15924); None for one that Unicode does not know, as a table of the user's may have."""
    import regex

    names = UNSPACED_SCRIPTS[script].unicode_scripts if script in UNSPACED_SCRIPTS else (script,)
    scripts = "".join(rf"\p{{Script={name}}}" for name in names)
    try:
        return regex.compile(rf"[\p{{L}}&&[{scripts}]]+", regex.V1)
    except regex.error:
        return None


@cache
def _no_text():
    """Control and format characters, fillers, lone surrogates and non-characters: CLD2 takes them for invalid UTF-8 or other scripts,
    fastText for letters. Joiners are part of Persian words, but not of Latin ones."""
    import regex

    joiners = r"|(?<=\p{Latin})[\u200c\u200d]+"
    return regex.compile(
        r"[[\p{Cc}\p{Cf}\p{Cn}\p{Cs}\p{Default_Ignorable_Code_Point}]--[\u200c\u200d]]+" + joiners, regex.V1
    )


def _plain(text: str) -> str:
    """`text` as one line with single spaces and plain letters, without what is no text, nor what would cut words."""
    if not text.isascii():
        text = _OTHER_FORMS.sub(lambda forms: unicodedata.normalize("NFKC", forms[0]), text)
    return _no_text().sub("", " ".join(visible(text).split()))


def _read_labels(path: Path) -> set[str]:
    """The labels in a fastText file, adjacent in its dictionary; predict-only fastText has no function for them."""
    labels, end = set(), None
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for match in re.finditer(rb"__label__([\w-]+)\0", data):
            if end is not None and match.start() - end > 1 << 20:
                break
            labels.add(match.group(1).decode())
            end = match.end()
    return labels


def _labels(language: Language) -> set[str]:
    codes = {language.flores, language.iso639_3, language.iso639_1, f"{language.iso639_3}_{language.script}"}
    # NLLB and GlotLID use different codes for a few macrolanguages; NTREX's code is often the other one.
    codes |= {language.ntrex, language.ntrex.split("_")[0]}
    # So do GlotLID, which has one Chinese script, and OpenLID.
    current = CURRENT_CODES.get(language.iso639_3, language.iso639_3)
    codes |= {
        f"{current}_{'Hani' if language.script in ('Hans', 'Hant') else language.script}",
        f"{current}_{language.script}",
    }
    return codes - {""}


def needs(name_or_path: str) -> list[Need]:
    """What `load` gets from the Hub."""
    if name_or_path in EMBEDDED or Path(name_or_path).is_file():
        return []
    repo, file = _hub_file(name_or_path)
    return [Need(FILES, repo, files=(file,))] if HUB_ID.fullmatch(repo) else []


def _hub_file(name: str) -> tuple[str, str]:
    repo, _, file = name.rpartition("/") if name.count("/") == 2 else (name, "", "model.bin")
    return repo, file


def _from_hub(name: str) -> Path:
    repo, file = _hub_file(name)
    if not HUB_ID.fullmatch(repo):
        raise UsageError(
            f"--lid_model {name!r} does not exist; pass cld2, langid, the path of a fastText model, or a Hub id such as cis-lmu/glotlid"
        )
    from huggingface_hub import hf_hub_download

    return Path(hub_call(name, lambda: hf_hub_download(repo, file)))
