"""Apertium, rule-based machine translation from Debian packages (https://www.apertium.org)."""

import re
import shutil
import subprocess

from comptra.errors import UserError
from comptra.languages import Language
from comptra.translators import Translation
from comptra.words import unicode_words

# Apertium marks a word it does not know with *, one missing from its bilingual dictionary with @, and one
# that it cannot inflect with #. Only the first two were not translated.
_MARK = re.compile(r"(?<![\w*@#])([*@#])+(?=\w)")


class Apertium:
    """See comptra.translators for the interface; the confidence is the share of words Apertium knows."""

    block_size = 2048

    def __init__(self):
        if shutil.which("apertium") is None:
            raise UserError(
                "Apertium is not installed: run 'sudo apt-get install apertium apertium-eu-en' (Debian, Ubuntu; the "
                "second package is the language pair), or pass another --back_translator"
            )

    def check(self, source: Language, target: Language) -> None:
        self._pair(source, target)

    def translate(self, sentences: list[str], source: Language, target: Language) -> list[Translation]:
        if not sentences:
            return []
        pair = self._pair(source, target)
        # A blank line keeps the rules from reaching over into the next sentence. A mark of the source's own
        # would be taken for one of Apertium's.
        plain = [_MARK.sub("", " ".join(sentence.split())) for sentence in sentences]
        result = subprocess.run(
            ["apertium", pair], input="\n\n".join(plain) + "\n", capture_output=True, encoding="utf-8", errors="replace"
        )
        lines = result.stdout.rstrip("\n").split("\n\n")
        if result.returncode or len(lines) != len(plain):
            detail = result.stderr.strip().splitlines()
            raise UserError(
                f"apertium {pair} gave {len(lines)} translations for {len(plain)} sentences "
                f"({detail[-1] if detail else 'no message'}); is the language pair installed completely?"
            )
        return [self._read(line, sentence) for line, sentence in zip(lines, plain, strict=True)]

    @staticmethod
    def _read(line: str, sentence: str) -> Translation:
        marks = [match.group() for match in _MARK.finditer(line)]
        unknown = sum("*" in mark or "@" in mark for mark in marks)
        words = len(unicode_words(sentence))
        return Translation(_MARK.sub("", line).strip(), round(max(0.0, 1 - unknown / words), 4) if words else 0.0)

    @staticmethod
    def _pair(source: Language, target: Language) -> str:
        listed = subprocess.run(["apertium", "-l"], capture_output=True, encoding="utf-8").stdout.split()
        for a in (source.iso639_1, source.iso639_3):
            for b in (target.iso639_1, target.iso639_3):
                if a and b and f"{a}-{b}" in listed:
                    return f"{a}-{b}"
        raise UserError(
            f"Apertium has no installed pair from {source.name} to {target.name} (installed: {', '.join(sorted(listed)) or 'none'}); "
            f"'apt-cache search apertium' lists Debian's, or pass another --back_translator"
        )

    def close(self) -> None:
        """Nothing is held between calls."""
