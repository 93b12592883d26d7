"""What the command-line scripts share: argument types, groups of flags, one-line errors, exit codes."""

import argparse
import logging
import math
import os
import re
import select
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NoReturn, TextIO

import topxgen
from topxgen.common import failures, flag_rules, shards, signals
from topxgen.common.console import counted, printable, remember_error, setup_logging
from topxgen.common.errors import UsageError, did_you_mean
from topxgen.common.registry import OWN, Choice, accepts_own
from topxgen.common.schemas import decode

if TYPE_CHECKING:
    from topxgen.common.run_files import Values

logger = logging.getLogger(__name__)
EXIT_CODES = {
    0: "success",
    2: "usage or input error; stderr says what to change",
    4: "an API is unavailable (key rejected, quota exhausted, retries exhausted), or --budget is spent; re-run to resume",
    130: "interrupted (Ctrl-C); re-run to resume",
    141: "the program that reads stdout has ended (... | head); re-run to resume",
    143: "stopped by SIGTERM or SIGUSR1; re-run to resume",
}
_ONE_LINE = str.maketrans({"\n": "\\n", "\r": "\\r"})

EXIT_INCOMPLETE = 3  # finished, but not all of it
EXIT_NO_READER = 141  # as of a program that SIGPIPE ends
MAX_INT, MAX_ERROR_CHARS = 2**31 - 1, 1000

TRUE, FALSE = ("true", "1", "yes"), ("false", "0", "no")

# Argument types. Each error names the value.


def parse_bool(value: str) -> bool:
    """`--flag`, `--flag true` and `--flag false` are all accepted: published scripts use each form."""
    if value.lower() in TRUE:
        return True
    if value.lower() in FALSE:
        return False
    raise argparse.ArgumentTypeError(f"{value!r} is neither true nor false")


# Options of a flag: add_argument("--verbose", **FLAG)
FLAG = dict(type=parse_bool, nargs="?", const=True, default=False, metavar="BOOL")


def int_range(minimum: int, maximum: int = MAX_INT) -> Callable[[str], int]:
    """An argument type: an integer from `minimum` to `maximum`, both included."""

    def parse(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            number = None
        if number is None or not minimum <= number <= maximum:
            unbounded = maximum == MAX_INT and (number is None or number < minimum)
            limits = f"of {minimum} or more" if unbounded else f"from {minimum} to {maximum}"
            raise argparse.ArgumentTypeError(f"{value!r} is not a whole number {limits}")
        return number

    return parse


def bool_or_count(value: str) -> int:
    """An argument type: an integer from 0 to 100; true is 1 and false 0."""
    try:
        return int(parse_bool(value))
    except argparse.ArgumentTypeError:
        return int_range(0, 100)(value)


def limit(value: str) -> int | None:
    """An argument type: an integer of 1 or more; -1 is no limit, which is None."""
    if value == "-1":
        return None
    try:
        return int_range(1)(value)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}, nor -1 for all") from None


def float_range(minimum: float, maximum: float = float("inf")) -> Callable[[str], float]:
    """An argument type: a finite number from `minimum` to `maximum`, both included."""

    limits = f"of {minimum:g} or more" if maximum == float("inf") else f"from {minimum:g} to {maximum:g}"

    def parse(value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not (math.isfinite(number) and minimum <= number <= maximum):
            raise argparse.ArgumentTypeError(f"{value!r} is not a number {limits}")
        return number

    return parse


def json_object(text: str) -> dict:
    """An argument type: a JSON object, such as options for another library."""
    try:
        return decode(text.encode("utf-8", "replace"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a JSON object ({error})") from None


def check_filename(name: str, flag: str) -> str:
    """`name`, if it is a bare file name. Raises UsageError if it is empty, a path, or may be that of a file beside results."""
    if not name:
        raise UsageError(f"{flag} is empty; is a shell variable unset?")
    if name in (".", "..") or re.search(r"[/\\\x00-\x1f\x7f-\x9f]", name):
        raise UsageError(f"{flag} {name!r} must be a plain name without slashes and control characters")
    if re.fullmatch(r"\.lock.*|rates\.json|SHA256SUMS", name):
        raise UsageError(f"{flag} {name!r} is a name of files that runs keep beside their results; pass another one")
    return name


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Appends a flag's default to its help, as [default], unless the help ends with a bracket of its own."""

    def _get_help_string(self, action: argparse.Action) -> str:
        no_default = any(action.default is value for value in (None, False, argparse.SUPPRESS)) or action.default == []
        if action.required or no_default or action.help.endswith("]"):
            return action.help
        return f"{action.help} [%(default)s]"


class ParsedFlags(argparse.Namespace):
    """The flags, and beside vars() the names of those that were `given` on the command line."""

    __slots__ = ("given",)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, with the nearest flag or choice, and whose --help lists exit codes.

    `incomplete`: what exit code 3 means for this script, `codes` what others of its own; `uses_apis`: whether there is an exit code 4; `section`: its section in
    run files, which makes it take --config; `rules` and `check`: what a run file's flags must fulfil before anything runs.
    """

    def __init__(
        self,
        description: str,
        incomplete: str = "",
        codes: Mapping[int, str] = MappingProxyType({}),
        uses_apis: bool = False,
        section: str = "",
        rules: Sequence[flag_rules.Rule] = (),
        check: Callable[[argparse.Namespace], None] = lambda args: None,
        **options,
    ):
        codes = EXIT_CODES | dict(codes)
        if incomplete:
            codes[EXIT_INCOMPLETE] = f"finished, but incomplete: {incomplete}"
        codes = {code: text for code, text in sorted(codes.items()) if code != 4 or uses_apis}
        super().__init__(
            description=description,
            epilog="\n".join(["exit codes:", *(f"  {code:<3}  {text}" for code, text in codes.items())]),
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
            **options,
        )
        self.add_argument("--version", action="version", version=f"%(prog)s {topxgen.__version__}")
        self.section, self.rules, self.check = section, rules, check
        self._where, self._origins = "", {}  # of the values of a file: where they are, and by flag
        if section:
            self.add_argument(
                "--config",
                default=argparse.SUPPRESS,
                metavar="YAML",
                help="take flags from a file, flag: value on each line, or from this script's section of a run file; flags of the "
                "command line count instead of the file's (docs/experiments.md)",
            )

    def flags(self) -> dict[str, argparse.Action]:
        """Its flags and positional arguments by name, without dashes."""
        names = (
            (name.lstrip("-"), action) for action in self._actions for name in action.option_strings or [action.dest]
        )
        return {name: action for name, action in names if len(name) > 1 or name == "k"}

    def parse_args(self, args=None, namespace=None):
        words = sys.argv[1:] if args is None else list(args)
        words, config = self._split_config(words)
        self._check_words(words)
        if config is None:
            return self._parsed([], words, namespace)
        from topxgen.common import run_files

        try:
            parsed, words = self.parse_with(words, *run_files.for_script(Path(config), self))
        except UsageError as error:
            self.error(str(error))
        except OSError as error:
            self.error(f"--config {config} cannot be read: {error.strerror}; pass another file")
        if args is None:  # manifests record what repeats the run whatever becomes of the file
            sys.argv = [sys.argv[0], *words]
        return parsed

    def parse_with(self, words: list[str], values: "Values", where: str) -> tuple[ParsedFlags, list[str]]:
        """The flags of a command line and, as far as it does not give them, the `values` of a file; and the words that give both.

        Values that the file gives to all stages are left out where they have no effect. `where` is the place of the values, for
        errors. Raises UsageError for values that no words can give.
        """
        parsed, line = self._parsed_with(words, values, where)
        idle, flags = flag_rules.without_effect(self.rules, parsed), self.flags()
        if dropped := {name for name in values.shared if flags[name].dest in idle}:
            own = {name: value for name, value in values.items() if name not in dropped}
            return self._parsed_with(words, own, where)
        return parsed, line

    def _parsed_with(self, words: list[str], values: Mapping, where: str) -> tuple[ParsedFlags, list[str]]:
        from topxgen.common import run_files

        flags, typed = self.flags(), {self._option_string_actions[flag] for flag in _flags_in(words)}
        values = {name: value for name, value in values.items() if flags[name] not in typed}
        positional, more = run_files.words(flags, values, where)
        self._where = where
        self._origins = {flag: where for name in values for flag in flags[name].option_strings or [name]}
        end = words.index("--") if "--" in words else len(words)
        words = [*words[:end], *more, *words[end:]]
        if positional and self._has_positionals(words, positional):
            positional = []
        return self._parsed(positional, words), [*positional, *words]

    def _has_positionals(self, words: list[str], others: list[str]) -> bool:
        """Whether the words have positional arguments, which would come on top of the `others`."""
        parsed, unexpected = self.parse_known_args([*others, *words])
        values = [getattr(parsed, action.dest) for action in self._get_positional_actions()]
        return bool(unexpected) or sum(len(v) if isinstance(v, list) else 1 for v in values) > len(others)

    def _parsed(self, positional: list[str], words: list[str], namespace=None) -> ParsedFlags:
        parsed, unexpected = self.parse_known_args(self._switches([*positional, *words]), namespace or ParsedFlags())
        if unexpected:
            # A stray word may be a key, or a part of one.
            known = self._option_string_actions.keys() - {"--api_key"}
            others = {word.partition("=")[0] for word in words if word[:1] == "-"} - known
            secret = any(re.search(r"(?i)api|key|token|secret", word) for word in others)
            named = [word for word in unexpected if not (secret or re.fullmatch(r"[\w-]{16,}", word))]
            shown = f": {' '.join(map(repr, named))}" if named else ""
            first = unexpected[0]
            before = _flags_in(words[: words.index(first)]) if first in words and first[0] != "-" else []
            single = bool(before) and self._option_string_actions[before[-1]].nargs is None
            after = f" ({before[-1]} takes one value)" if single else ""
            self.error(f"{counted(len(unexpected), 'unexpected argument')}{shown}{after}; see --help")
        parsed.given = frozenset(self._option_string_actions[flag].dest for flag in _flags_in(words))
        return parsed

    def _switches(self, words: list[str]) -> list[str]:
        """The words, with `=true` at switches before a positional argument, which argparse would take for their value."""
        if not self._get_positional_actions():
            return words
        found = list(words)
        for i, (word, following) in enumerate(pairwise(words)):
            action = self._option_string_actions.get(word)
            if (
                action is not None
                and action.type is parse_bool
                and following.lower() not in TRUE + FALSE
                and following[:2] != "--"
            ):
                found[i] = f"{word}=true"
        return found

    def _split_config(self, words: list[str]) -> tuple[list[str], str | None]:
        """The words without --config and its value, and that value."""
        end = words.index("--") if "--" in words else len(words)
        places = [i for i in range(end) if self.section and words[i].split("=")[0] == "--config"]
        if not places:
            return words, None
        flag, equals, value = words[places[0]].partition("=")
        after = places[0] + (1 if equals else 2)
        if not equals and (after > end or words[after - 1].startswith("--")):
            self.error(f"argument {flag}: expected one argument")
        if len(places) > 1:
            self.error(f"argument {flag}: given twice; pass one file")
        return [*words[: places[0]], *words[after:]], value if equals else words[after - 1]

    def _check_words(self, words: list[str]) -> None:
        """End with one line for unknown flags and empty values."""
        for before, word in pairwise(words):
            if before.strip("-") == "api_key" and word.startswith("-"):  # it may be the key
                self.error(
                    "argument --api_key: expected one argument; pass a key that begins with '-' as --api_key=KEY"
                )
        for flag in _flags_in(words):
            if flag not in self._option_string_actions:
                # The value stays out of the message: it may be the key of a mistyped --api_key.
                # Nor does a key typed right behind it, without a space, get in.
                flag = f"{flag[:10]}..." if len(flag) > 24 and re.search(r"\d", flag) else flag
                self.error(f"unknown flag {flag}{did_you_mean(flag, self._option_string_actions)}; see --help")
        flag = ""
        for word in words:
            value = word
            if word.startswith("--"):
                flag, equals, value = word.partition("=")
                value = value if equals else flag
            action = self._option_string_actions.get(flag)
            takes_text = action is None or (action.type in (None, Path) and action.dest != "api_key")
            if value == "" and takes_text:
                self.error(f"{flag or 'an argument'} is empty; is a shell variable unset?")
            name, _, given = word.partition("=")
            if given == "--" and name in self._option_string_actions:  # argparse would pass on a list
                self.error(f"argument {name}: '--' is no value")

    def format_help(self) -> str:
        required = [action for action in self._actions if action.required]
        self.usage = " ".join(["%(prog)s", *map(_usage, required), "[flags]"])
        return super().format_help()

    def _check_value(self, action, value):
        own = ":" in str(value) and accepts_own(action.choices)  # checked by load_choice
        if action.choices is not None and value not in action.choices and not own:
            choices = [str(choice) for choice in action.choices]
            hint = did_you_mean(str(value), choices)
            if "files" in choices and os.path.exists(value):  # a test set of one's own
                hint = f"; for files of yours pass {action.option_strings[0]} files --test_files SOURCES REFERENCES"
            raise argparse.ArgumentError(action, f"{value!r} is not one of {', '.join(choices)}{hint}")

    def error(self, message: str) -> NoReturn:
        message = self.with_origin(message)
        if len(message) > MAX_ERROR_CHARS:  # an endless value
            message = f"{message[: MAX_ERROR_CHARS // 2]}...{message[-MAX_ERROR_CHARS // 4 :]}"
        remember_error(message)
        self.exit(2, f"{self.prog}: error: {message.translate(_ONE_LINE)}\n")

    def with_origin(self, message: str) -> str:
        """An error message that names a flag of a file, or misses one, also names the file."""
        if self._where and message.startswith("the following arguments are required"):
            return f"{message} ({self._where})"
        for flag in re.findall(r"(?:(?<=argument )|(?=--))[\w-]+", message):
            where = self._origins.get(flag, "")
            if where and where not in message:
                return f"{message} ({flag} is from {where})"
        return message

    def _print_message(self, message, file=None):
        super()._print_message(printable(message), file)


def _flags_in(words: list[str]) -> list[str]:
    return [word.split("=")[0] for word in words if word.startswith("--") and word != "--"]


def _usage(action: argparse.Action) -> str:
    value = action.metavar or action.dest.upper()
    repeated = f"{value} [{value} ...]" if action.nargs == "+" else value
    return " ".join([*action.option_strings[:1], repeated])


def choices_help(intro: str, table: Mapping[str, Choice], default: str = "%(default)s") -> str:
    """The help of a flag whose values are the names in `table`, each with the sentence of its row."""
    rows = [f"{name}: {choice.help}" for name, choice in table.items()]
    return f"{intro}: " + "; ".join(rows + [f"or {OWN}"] * accepts_own(table)) + f" [{default}]"


def choice(table: Mapping[str, Choice], default: str | None, intro: str, shown: str = "%(default)s") -> dict:
    """Options of a flag that takes a name in `table`: add("--x", **choice(TABLE, "a", "what it is for"))."""
    return {"choices": table, "default": default, "metavar": "NAME", "help": choices_help(intro, table, shown)}


def count(minimum: int, text: str, default: int | None = None, maximum: int = MAX_INT) -> dict:
    """Options of a flag that takes an integer of `minimum` or more: add("--n", **count(0, "how many", 5))."""
    return {"type": int_range(minimum, maximum), "default": default, "metavar": "N", "help": text}


def run_main(parser: Parser, run: Callable[[argparse.Namespace], int], on_failure: str) -> int:
    """Parse the command line, call `run` and turn its exceptions into one line and an exit code (see EXIT_CODES).

    `on_failure` says what is left after a failure and how to go on, such as "re-run the same command to resume".
    """
    setup_logging(parser.prog)
    with failures.noted(parser.prog) as outcome:
        args = parser.parse_args()
        outcome.folder = _folder_of(args)
        outcome.exit_code = _exit_code(parser, args, run, on_failure)
        return outcome.exit_code


def _folder_of(args: argparse.Namespace) -> Path | None:
    folder = getattr(args, "output_dir", None) or getattr(args, "input_dir", None)
    if folder is None or getattr(args, "num_shards", None) is None:
        return folder
    try:
        return shards.chosen(args).folder(folder)
    except UsageError:  # reported when the stage begins
        return folder


def _exit_code(
    parser: Parser, args: argparse.Namespace, run: Callable[[argparse.Namespace], int], on_failure: str
) -> int:
    try:
        with signals.handled():
            try:
                signals.stop_with_parent()
                code = run(args)
                if code and signals.stop_requested():  # incomplete since it was stopped
                    raise signals.Stopped
                return code
            except Exception:
                if signals.stop_requested():  # workers and engines got the signal, too, and ended
                    raise signals.Stopped from None
                raise
            finally:
                sys.stdout.flush()
    except UsageError as error:
        logger.error("%s", parser.with_origin(str(error)))
        return error.exit_code
    except OSError as error:  # a full disk, a read-only file system, a directory where a file should be
        if isinstance(error, BrokenPipeError) and _has_no_reader(sys.stdout):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left is flushed at the exit
            return EXIT_NO_READER
        logger.error("%s; %s", error, on_failure)
        return 2
    except signals.Stopped:
        logger.info("\nstopped by a signal; %s", on_failure)
        return signals.EXIT_CODE
    except KeyboardInterrupt:
        logger.info("\ninterrupted; %s", on_failure)
        return 130


def _has_no_reader(stream: TextIO) -> bool:
    """Whether `stream` is a pipe whose other end is closed."""
    try:
        poll = select.poll()
        poll.register(stream, 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):  # no file
        return False
