"""Apertium, rule-based machine translation from Debian packages (https://www.apertium.org)."""

import re
import shutil
import subprocess
from collections.abc import Callable
from typing import ClassVar

from topxgen.common.errors import UsageError
from topxgen.text.languages import Language
from topxgen.text.words import unicode_words
from topxgen.translation import Translation, TranslatorSettings, no_tick

# Apertium marks a word it does not know with *, one missing from its bilingual dictionary with @, and one
# that it cannot inflect with #. Only the first two were not translated.
_MARK = re.compile(r"(?<![\w*@#])([*@#])+(?=\w)")


def _plain(sentence: str) -> str:
    """One line without control characters, nor marks of its own that would be taken for Apertium's."""
    printable = "".join(char if char.isprintable() else " " for char in sentence)
    return _MARK.sub("", " ".join(printable.split()))


class Apertium:
    """See topxgen.translation for the interface; the confidence is the share of words Apertium knows."""

    block_size = 2048

    settings: ClassVar[dict] = {}  # there is nothing to set

    def __init__(self, _: TranslatorSettings | None = None):
        """Raises UsageError naming the packages when Apertium is not installed."""
        if shutil.which("apertium") is None:
            raise UsageError(
                "Apertium is not installed: run 'sudo apt-get install apertium apertium-eu-en' (Debian, Ubuntu; the "
                "second package is the language pair), or pass another --back_translator"
            )

    def load(self) -> None:
        """A process is started for each call."""

    @property
    def version(self) -> str:
        return subprocess.run(["apertium", "-V"], capture_output=True, encoding="utf-8").stdout.strip()

    def check(self, source: Language, target: Language) -> None:
        self._pair(source, target)

    def translate(
        self, sentences: list[str], source: Language, target: Language, tick: Callable[[int], None] = no_tick
    ) -> list[Translation]:
        pair = self._pair(source, target)
        plain = [_plain(sentence) for sentence in sentences]
        filled = [i for i, sentence in enumerate(plain) if unicode_words(sentence)]
        lines = self._run(pair, [plain[i] for i in filled])
        translations = [Translation("", 0.0)] * len(sentences)  # nothing to say about a sentence without words
        for i, line in zip(filled, lines, strict=True):
            translations[i] = self._read(line, plain[i])
        tick(len(sentences))
        return translations

    def _run(self, pair: str, sentences: list[str]) -> list[str]:
        """Apertium's output for each sentence, in one process for all of them."""
        if not sentences:
            return []
        # A blank line keeps the rules from reaching over into the next sentence.
        result = subprocess.run(
            ["apertium", pair],
            input="\n\n".join(sentences) + "\n",
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
        if result.returncode:
            detail = result.stderr.strip().splitlines()
            raise UsageError(
                f"apertium {pair} failed ({detail[-1] if detail else 'no message'}); is the pair installed whole?"
            )
        lines = result.stdout.rstrip("\n").split("\n\n")
        if len(lines) == len(sentences):
            return lines
        if len(sentences) == 1:
            return [" ".join(result.stdout.split())]
        # Some sentence upset the separators: find it by halves rather than lose the rest.
        middle = len(sentences) // 2
        return self._run(pair, sentences[:middle]) + self._run(pair, sentences[middle:])

    @staticmethod
    def _read(line: str, sentence: str) -> Translation:
        marks = [match.group() for match in _MARK.finditer(line)]
        unknown = sum("*" in mark or "@" in mark for mark in marks)
        words = len(unicode_words(sentence))
        return Translation(_MARK.sub("", line).strip(), round(max(0.0, 1 - unknown / max(words, 1)), 4))

    @staticmethod
    def _pair(source: Language, target: Language) -> str:
        listed = subprocess.run(["apertium", "-l"], capture_output=True, encoding="utf-8").stdout.split()
        for a in (source.iso639_1, source.iso639_3):
            for b in (target.iso639_1, target.iso639_3):
                if a and b and f"{a}-{b}" in listed:
                    return f"{a}-{b}"
        raise UsageError(
            f"Apertium has no installed pair from {source.name} to {target.name} (installed: {', '.join(sorted(listed)) or 'none'}); "
            f"'apt-cache search apertium' lists Debian's, or pass another --back_translator"
        )

    def close(self) -> None:
        """Nothing is held between calls."""
