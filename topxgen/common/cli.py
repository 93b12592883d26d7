"""What the command-line scripts share: argument types, groups of flags, one-line errors, exit codes."""

import argparse
import logging
import math
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

import topxgen
from topxgen.common import signals
from topxgen.common.console import printable, setup_logging
from topxgen.common.errors import UsageError, did_you_mean
from topxgen.common.registry import OWN, Choice, accepts_own
from topxgen.common.schemas import decode

logger = logging.getLogger(__name__)
EXIT_CODES = {
    0: "success",
    2: "usage or input error; stderr says what to change",
    4: "an API is unavailable (key rejected, quota exhausted, retries exhausted), or --budget is spent; re-run to resume",
    130: "interrupted (Ctrl-C); re-run to resume",
    143: "stopped by SIGTERM or SIGUSR1; re-run to resume",
}
_ONE_LINE = str.maketrans({"\n": "\\n", "\r": "\\r"})

MAX_INT, MAX_ERROR_CHARS = 2**31 - 1, 1000

# Argument types. Each error names the value.


def parse_bool(value: str) -> bool:
    """`--flag`, `--flag true` and `--flag false` are all accepted: published scripts use each form."""
    if value.lower() in ("true", "1", "yes"):
        return True
    if value.lower() in ("false", "0", "no"):
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
    """`name`, if it is a bare file name. Raises UsageError if it is empty or a path."""
    if not name:
        raise UsageError(f"{flag} is empty; is a shell variable unset?")
    if name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise UsageError(f"{flag} {name!r} must be a plain name without slashes")
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

    `incomplete`: what exit code 3 means for this script; `uses_apis`: whether there is an exit code 4; `section`: its section in
    run files, which makes it take --config.
    """

    def __init__(self, description: str, incomplete: str = "", uses_apis: bool = False, section: str = "", **options):
        codes = EXIT_CODES | ({3: f"finished, but incomplete: {incomplete}"} if incomplete else {})
        codes = {code: text for code, text in sorted(codes.items()) if code != 4 or uses_apis}
        super().__init__(
            description=description,
            epilog="\n".join(["exit codes:", *(f"  {code:<3}  {text}" for code, text in codes.items())]),
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
            **options,
        )
        self.add_argument("--version", action="version", version=f"%(prog)s {topxgen.__version__}")
        self.section, self._origins = section, {}
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

    def words(self, values: Mapping, where: str) -> tuple[list[str], list[str]]:
        """Values of a file as words: of positional arguments, and of flags. `where` is for errors about them."""
        from topxgen.common import run_files

        words = run_files.words(self, values, where)
        actions = self.flags()
        self._origins |= {name: where for given in values for name in actions[given].option_strings or [given]}
        return words

    def parse_args(self, args=None, namespace=None):
        words = sys.argv[1:] if args is None else list(args)
        words, config = self._split_config(words)
        self._check_words(words)
        positional, more = self._from_config(config, words) if config is not None else ([], [])
        end = words.index("--") if "--" in words else len(words)
        words = [*words[:end], *more, *words[end:]]
        parsed, unexpected = self.parse_known_args([*positional, *words], namespace or ParsedFlags())
        if positional and (
            unexpected or self._count_positionals(parsed) > len(positional)
        ):  # the command line has some, too
            positional = []
            parsed, unexpected = self.parse_known_args(words, ParsedFlags())
        if unexpected:
            # A stray word may be a key, or a part of one.
            secret = any(re.search(r"(?i)api|key|token|secret", word) for word in words if word.startswith("-"))
            named = [word for word in unexpected if not (secret or re.fullmatch(r"[\w-]{16,}", word))]
            shown = f": {' '.join(map(repr, named))}" if named else ""
            self.error(f"{len(unexpected)} unexpected argument{'s' if len(unexpected) > 1 else ''}{shown}; see --help")
        parsed.given = frozenset(self._option_string_actions[flag].dest for flag in _flags_in(words))
        if config is not None and args is None:  # manifests record what repeats the run whatever becomes of the file
            sys.argv = [sys.argv[0], *positional, *words]
        return parsed

    def _count_positionals(self, parsed: argparse.Namespace) -> int:
        values = [getattr(parsed, action.dest) for action in self._get_positional_actions()]
        return sum(len(value) if isinstance(value, list) else 1 for value in values)

    def _split_config(self, words: list[str]) -> tuple[list[str], str | None]:
        """The words without --config and its value, and that value."""
        for i, word in enumerate(words if self.section else ()):
            if word == "--":
                break
            if word.startswith("--config="):
                return self._without_second_config([*words[:i], *words[i + 1 :]]), word.partition("=")[2]
            if word == "--config":
                if i + 1 == len(words) or words[i + 1].startswith("--"):
                    self.error("argument --config: expected one argument")
                return self._without_second_config([*words[:i], *words[i + 2 :]]), words[i + 1]
        return words, None

    def _without_second_config(self, words: list[str]) -> list[str]:
        if "--config" in _flags_in(words):
            self.error("argument --config: given twice; pass one file")
        return words

    def _from_config(self, config: str, words: list[str]) -> tuple[list[str], list[str]]:
        """The words that the file adds to those of the command line."""
        from topxgen.common.run_files import LAUNCHER, RunFile

        try:
            file = RunFile.read(Path(config))
            entries = file.stage(self.section, self.flags())
            if len(entries) != 1:
                several = f"has {len(entries)} entries in section {self.section}: python scripts/run.py {config} runs them all"
                missing = f"has no section {self.section} (it has {', '.join(file.sections) or 'no section that is not null'})"
                raise UsageError(f"{config} {several if entries else missing}")
            typed = {action for flag in _flags_in(words) if (action := self._option_string_actions.get(flag))}
            values = {
                name: value
                for name, value in entries[0].items()
                if name != LAUNCHER and self.flags()[name] not in typed
            }
            return self.words(values, file.where(self.section))
        except UsageError as error:
            self.error(str(error))
        except OSError as error:
            self.error(f"--config {config} cannot be read: {error.strerror}; pass another file")

    def _check_words(self, words: list[str]) -> None:
        """End with one line for unknown flags and empty values."""
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
            if word == f"{flag}=--" and action is not None:  # argparse would pass on a list
                self.error(f"argument {flag}: '--' is no value")

    def format_help(self) -> str:
        required = [action for action in self._actions if action.required]
        self.usage = " ".join(["%(prog)s", *map(_usage, required), "[flags]"])
        return super().format_help()

    def _check_value(self, action, value):
        own = ":" in str(value) and accepts_own(action.choices)  # checked by load_choice
        if action.choices is not None and value not in action.choices and not own:
            choices = [str(choice) for choice in action.choices]
            hint = did_you_mean(str(value), choices)
            raise argparse.ArgumentError(action, f"{value!r} is not one of {', '.join(choices)}{hint}")

    def error(self, message: str) -> NoReturn:
        if (flag := re.match(r"argument ([^:/]+)", message)) and flag[1] in self._origins:
            message += f" (from {self._origins[flag[1]]})"
        if len(message) > MAX_ERROR_CHARS:  # an endless value
            message = f"{message[: MAX_ERROR_CHARS // 2]}...{message[-MAX_ERROR_CHARS // 4 :]}"
        self.exit(2, f"{self.prog}: error: {message.translate(_ONE_LINE)}\n")

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
    args = parser.parse_args()
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
        logger.error("%s", error)
        return error.exit_code
    except OSError as error:  # a full disk, a read-only file system, a directory where a file should be
        logger.error("%s; %s", error, on_failure)
        return 2
    except signals.Stopped:
        logger.info("\nstopped by a signal; %s", on_failure)
        return signals.EXIT_CODE
    except KeyboardInterrupt:
        logger.info("\ninterrupted; %s", on_failure)
        return 130
