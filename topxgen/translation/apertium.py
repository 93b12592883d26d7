"""Apertium, rule-based machine translation from Debian packages (https://www.apertium.org)."""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

from topxgen.common import checksums
from topxgen.common.errors import UsageError
from topxgen.common.lines import split_lines
from topxgen.common.needs import APERTIUM, Need
from topxgen.common.provenance import digest
from topxgen.text.languages import Language
from topxgen.text.words import unicode_words, visible
from topxgen.translation import Translation, TranslatorSettings, no_progress

# Apertium marks an unknown word with *, one that is missing from its bilingual dictionary with @, and one that it cannot
# inflect with #. Only the first two are not translated.
_MARK = re.compile(r"(?<![\w*@#])([*@#])+(?=\w)")
# In a locale that is not installed, or not UTF-8, its programs print nothing and exit with 0.
_LOCALE = "C.UTF-8"


def installed_pairs() -> list[str]:
    return subprocess.run(["apertium", "-l"], capture_output=True, encoding="utf-8").stdout.split()


def _plain(sentence: str) -> str:
    """One line without control and invisible characters and without characters that look like Apertium's marks."""
    printable = "".join(char if char.isprintable() else " " for char in visible(sentence))
    return _MARK.sub("", " ".join(printable.split()))


def _feed(stdin: IO[str], text: str) -> None:
    with contextlib.suppress(BrokenPipeError), stdin:  # a process that failed reads no more
        stdin.write(text)


def _digest(pair: str) -> str:
    """Of the dictionaries and rules of a pair, which its mode names: other ones translate otherwise."""
    mode = Path(os.environ.get("APERTIUM_DATADIR") or "/usr/share/apertium", "modes", f"{pair}.mode")
    named = re.findall("'([^']+)'", mode.read_text("utf-8")) if mode.is_file() else ()
    return digest([f"{Path(name).name} {checksums.sha256_of(Path(name))}" for name in named if Path(name).is_file()])


def need(source: Language, target: Language) -> Need:
    """The pair, by the codes that Debian's packages have."""
    codes = [language.iso639_1 or language.iso639_3 for language in (source, target)]
    return Need(APERTIUM, "-".join(codes))


class Apertium:
    """See topxgen.translation for the interface; the confidence is the share of words that Apertium translated."""

    block_size = 2048

    def __init__(self, _: TranslatorSettings | None = None):
        """Raises UsageError naming the packages if Apertium is not installed."""
        if shutil.which("apertium") is None:
            raise UsageError(
                "Apertium is not installed: run 'sudo apt-get install apertium apertium-eu-en' (Debian, Ubuntu; the "
                "second package is the language pair), or pass another --back_translator"
            )
        self.settings: dict[str, str] = {}  # after `check`

    def load(self) -> None:
        """Does nothing: each call of `translate` starts a process."""

    @property
    def version(self) -> str:
        return subprocess.run(["apertium", "-V"], capture_output=True, encoding="utf-8").stdout.strip()

    def check(self, source: Language, target: Language) -> None:
        self.settings[f"apertium_pair {source.name}"] = _digest(self._pair(source, target))

    def translate(
        self, sentences: list[str], source: Language, target: Language, on_done: Callable[[int], None] = no_progress
    ) -> list[Translation]:
        pair = self._pair(source, target)
        plain = [_plain(sentence) for sentence in sentences]
        with_words = [i for i, sentence in enumerate(plain) if unicode_words(sentence)]
        on_done(len(sentences) - len(with_words))
        lines = self._run(pair, [plain[i] for i in with_words], on_done)
        translations = [Translation("", 0.0)] * len(sentences)  # a sentence without words has no translation
        for i, line in zip(with_words, lines, strict=True):
            translations[i] = self._read(line, plain[i])
        return translations

    def _run(self, pair: str, sentences: list[str], on_done: Callable[[int], None]) -> list[str]:
        """Apertium's output for each sentence, in one process for all of them."""
        if not sentences:
            return []
        # A blank line keeps the rules from applying across sentences.
        text, output, finished = "\n\n".join(sentences) + "\n", [], 0
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", errors="replace")
        environment = os.environ | {"LC_ALL": _LOCALE}
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as stderr,
            subprocess.Popen(["apertium", pair], stderr=stderr, env=environment, **pipes) as process,
        ):
            threading.Thread(target=_feed, args=(process.stdin, text), daemon=True).start()
            for line in process.stdout:
                output.append(line)
                if not line.strip() and finished < len(sentences) - 1:
                    finished += 1
                    on_done(1)
            exit_code = process.wait()
            stderr.seek(0)
            detail = split_lines(stderr.read().strip())
            if exit_code < 0 or exit_code > 128:  # of it, or of a program of its pipeline
                raise UsageError(
                    f"apertium {pair} was killed, perhaps for lack of memory; finished work is on disk: re-run the same command"
                )
            if exit_code or (detail and not any(map(str.strip, output))):
                raise UsageError(
                    f"apertium {pair} failed ({detail[-1] if detail else 'no message'}); is the language pair fully "
                    "installed?"
                )
        on_done(len(sentences) - finished)
        lines = "".join(output).rstrip("\n").split("\n\n")
        if len(lines) == len(sentences):
            return lines
        if len(sentences) == 1:
            return [" ".join("".join(output).split())]
        # A sentence broke the separators: bisect to find it, so that the others are translated.
        middle = len(sentences) // 2
        return self._run(pair, sentences[:middle], no_progress) + self._run(pair, sentences[middle:], no_progress)

    @staticmethod
    def _read(line: str, sentence: str) -> Translation:
        marks = [match.group() for match in _MARK.finditer(line)]
        unknown = sum("*" in mark or "@" in mark for mark in marks)
        words = len(unicode_words(sentence))
        return Translation(_MARK.sub("", line).strip(), round(max(0.0, 1 - unknown / max(words, 1)), 4))

    @staticmethod
    def _pair(source: Language, target: Language) -> str:
        listed = installed_pairs()
        for a in (source.iso639_1, source.iso639_3):
            for b in (target.iso639_1, target.iso639_3):
                if a and b and f"{a}-{b}" in listed:
                    return f"{a}-{b}"
        raise UsageError(
            f"Apertium has no installed pair from {source.name} to {target.name} (installed: {', '.join(sorted(listed)) or 'none'}); "
            f"'apt-cache search apertium' lists the packages, or pass another --back_translator"
        )

    def close(self) -> None:
        """Does nothing: no process outlives a call."""
