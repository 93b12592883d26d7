"""Flags from YAML files: a file for one script, or a run file with a section for each stage (docs/experiments.md).

A run file gives values in three ways, the first of which counts: in the section of a stage; at the top, for all stages that have
such a flag; and by the table DEFAULTS, which leads the files of one stage to the next.
"""

import json
import re
from argparse import Action
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from topxgen.common.errors import UsageError, did_you_mean
from topxgen.common.files import refuse_stand_in
from topxgen.common.lines import split_lines
from topxgen.common.records import TRANSLATE_DIR_FLAGS, default_translate_dir

if TYPE_CHECKING:
    from topxgen.common.cli import Parser

SECTIONS = ("datagen", "decontamination", "train", "main", "evaluate")
SEVERAL = ("train", "main")  # may be a list: the stage runs once for each
VARIANTS = "variants"  # a key at the top of experiment files (topxgen/experiments/comparison.py)
SLURM = "slurm"  # a key at the top that is no flag: what jobs ask for (topxgen/experiments/slurm.py)
LAUNCHER = "launcher"  # a key of train that is no flag: the words before train.py, such as accelerate launch
COMMAND_LINE_ONLY = {
    "api_key": "keys come from the environment (OPENAI_API_KEY, CO_API_KEY, ANTHROPIC_API_KEY) or the command line",
    "dry_run": "pass it on the command line",
    "config": "a file names no other one",
    "help": "pass it on the command line",
    "version": "pass it on the command line",
}
TRANSLATE_DIR = "datagen.translate_dir"  # by default, named after the back-translator
_REFERENCE = re.compile(r"\$\{([^{}]*)\}")


class Plain(str):
    """A number, true or false, as the file writes it: 1e-5 stays 1e-5."""

    def as_json(self) -> Any:
        if self.lower() in ("true", "false"):
            return self.lower() == "true"
        try:
            return int(self, 0)
        except ValueError:
            return float(self)


Value = str | list | dict | None  # lists and mappings hold values


class Values(dict[str, Value]):
    """The values of an entry by flag; `shared` are those that the file gives to all stages."""

    shared: tuple[str, ...] = ()


class Default(NamedTuple):
    """The value of a flag that neither the section nor the top of the file gives, where all it refers to is given."""

    section: str
    flag: str
    value: str
    # A flag of the section, and the values with which this one is given.
    when: tuple[str, tuple[str | None, ...]] | None = None
    passed: bool = True  # False: the script has the same default; for references only


_GENERATED_PAIRS = ("dataset_name_or_path", (None, "topxgen", "ours"))

DEFAULTS = (
    Default("datagen", "output_dir", "${output_dir}"),
    Default("decontamination", "input_dir", "${datagen.output_dir}/${datagen.translate_dir}"),
    Default("decontamination", "output_dir", "${decontamination.input_dir}", passed=False),
    Default("decontamination", "languages", "${datagen.languages}"),
    Default("train", "data_dir", "${decontamination.output_dir}", _GENERATED_PAIRS),
    Default("train", "data_dir", "${datagen.output_dir}/${datagen.translate_dir}", _GENERATED_PAIRS),
    Default("train", "target_languages", "${datagen.languages}"),
    Default("train", "output_dir", "${output_dir}/train"),
    Default("main", "model_name_or_path", "${train.output_dir}"),
    Default("main", "output_dir", "${output_dir}/translations"),
    Default("evaluate", "dirs", "${main.output_dir}"),
)


def read(path: Path) -> dict[str, Value]:
    """The keys and values of a YAML file (1.2). Numbers, true and false stay as they are written (Plain), null is None.

    Raises UsageError for what is no YAML, no mapping, a key that occurs twice and a tag.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist; pass a YAML file")
    refuse_stand_in(path)
    try:
        tree = _parsed(path.read_bytes().decode("utf-8-sig"), str(path))
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8; convert it") from None
    if not isinstance(tree, dict | None):
        raise UsageError(f"{path} is not a mapping; write flag: value on each line")
    return tree or {}


def _parsed(text: str, where: str) -> Value:
    """The value that YAML text stands for. Raises UsageError as `read` does."""
    import ruamel.yaml  # takes as long as --help may

    try:
        node = ruamel.yaml.YAML(typ="safe", pure=True).compose(text)
        return None if node is None else _Reader(where).value(node)
    except ruamel.yaml.error.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = text.split("\n")[mark.line : mark.line + 1]
        hint = '; inside [ ] quote a reference: "${…}"' if line and "${" in line[0] else ""
        raise UsageError(f"{where}, line {mark.line + 1}: {error.problem or error.context}{hint}") from None
    except ruamel.yaml.error.YAMLError as error:
        raise UsageError(f"{where} is not YAML: {split_lines(str(error))[0]}") from None
    except RecursionError:
        raise UsageError(f"{where} is nested too deeply") from None


def read_changed(path: Path, changes: Iterable[str]) -> dict[str, Value]:
    """The file, with `changes` such as "train.seed=3": values at the top, of all entries of a section, or of a section of one
    variant ("variants.hot.datagen.temperature=1.5"), written as in the file.

    Raises UsageError for a flag of a section that a variant has a value of its own for, which would hide the change.
    """
    tree = read(path)
    for change in changes:
        name, _, value = change.partition("=")
        *place, flag = name.rsplit(".", 2)
        entries = _entries_at(tree, place)
        # An empty value is a shell variable that is not set.
        if not (flag and value.strip() and entries and all(isinstance(entry, dict) for entry in entries)):
            shown = f"{name}=***" if re.search("key|token|secret", name, re.IGNORECASE) else change
            raise UsageError(
                f"--set {shown!r} is not name=value or section.flag=value with a section of {path}, or "
                f"{VARIANTS}.NAME.section.flag=value with a section of that variant"
            )
        for variant in _variants(tree) if len(place) == 1 else ():
            own = f"{VARIANTS}.{variant}.{place[0]}"
            if any(flag in entry for entry in _entries_at(tree, own.rsplit(".", 1)) if isinstance(entry, dict)):
                raise UsageError(
                    f"--set {change!r} has no effect on the variant {variant}, which has a {flag} of its own: write {own}.{flag}="
                )
        for entry in entries:
            entry[flag] = _parsed(value, f"--set {change!r}")
    return tree


def _entries_at(tree: Mapping[str, Value], place: Sequence[str]) -> list[Value]:
    """The mappings at [], ["section"] or ["variants.NAME", "section"]; [] if there is no such place."""
    owner = tree
    if len(place) > 1:
        prefix, _, variant = place[0].partition(".")
        owner = _variants(tree).get(variant) if prefix == VARIANTS else None
    if place:
        owner = owner.get(place[-1]) if isinstance(owner, dict) and place[-1] in SECTIONS else None
    return owner if isinstance(owner, list) else [owner]


def _variants(tree: Mapping[str, Value]) -> Mapping[str, Value]:
    variants = tree.get(VARIANTS)
    return variants if isinstance(variants, dict) else {}


class _Reader:
    """Makes values of the nodes of a YAML file."""

    KINDS = ("str", "int", "float", "bool", "null", "timestamp", "map", "seq")
    MAX_VALUES = 100_000  # aliases of aliases would grow without end

    def __init__(self, where: str):
        self._where, self._count = where, 0

    def value(self, node) -> Value:
        kind = str(node.tag).removeprefix("tag:yaml.org,2002:")
        self._count += 1
        if self._count > self.MAX_VALUES:
            raise self._error(node, f"more than {self.MAX_VALUES:,} values")
        if kind not in self.KINDS:
            raise self._error(node, f"{node.tag} is not supported; write the value without a tag")
        if kind == "map":
            values, merged = {}, {}
            for key, value in node.value:
                name = key.value
                if not isinstance(name, str):
                    raise self._error(key, "a key is a list or a mapping; write flag: value")
                if name in values:
                    raise self._error(key, f"{name} is there twice; remove one of them")
                values[name] = self.value(value)
                if str(key.tag).endswith(":merge"):  # <<: *name, whose values are defaults
                    merged = values.pop(name)
                    if not isinstance(merged, dict):
                        raise self._error(value, "<< takes a mapping, as in <<: *name")
            return merged | values
        if kind == "seq":
            return [self.value(item) for item in node.value]
        return {"null": None, "str": node.value, "timestamp": node.value}.get(kind, Plain(node.value))

    def _error(self, node, problem: str) -> UsageError:
        return UsageError(f"{self._where}, line {node.start_mark.line + 1}: {problem}")


def references(value: Value) -> list[str]:
    """The names in ${…} of all strings in a value."""
    if isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        return [name for item in items for name in references(item)]
    return [name.strip() for name in _REFERENCE.findall(value)] if isinstance(value, str) else []


class RunFile:
    """The values of a file: of all stages if it has a section of one of them, else of one script.

    A section that is null or not there is a stage that does not run.
    """

    def __init__(self, tree: Mapping[str, Value], path: Path | str, named: Iterable[str] = ()):
        """`path` is for messages; `named`: values at the top that what is not in `tree` refers to.

        Raises UsageError for a section that is no mapping.
        """
        self.path, self._tree = path, tree
        self.is_run = any(name in tree for name in SECTIONS)
        self.shared = {name: value for name, value in tree.items() if not (self.is_run and name in SECTIONS)}
        self.sections = {name: self._entries(name) for name in SECTIONS if self.is_run and tree.get(name) is not None}
        self._named = {*named, *references(dict(tree))}  # by references

    @classmethod
    def read(cls, path: Path, changes: Iterable[str] = ()) -> "RunFile":
        return cls(read_changed(path, changes), path)

    def _entries(self, section: str) -> list[dict[str, Value]]:
        value = self._tree[section]
        entries = value if isinstance(value, list) and section in SEVERAL else [value]
        if not entries or not all(isinstance(entry, dict) for entry in entries):
            several = ", or a list of such mappings" if section in SEVERAL else ""
            raise UsageError(f"{self.path}: {section} is not a mapping of flags to values{several}; {{}} has no flags")
        return entries

    def is_list(self, section: str) -> bool:
        return isinstance(self._tree.get(section), list)

    def where(self, section: str = "", number: int = 0) -> str:
        """The place of an entry, for messages."""
        entry = f" {number + 1}" if section and self.is_list(section) else ""
        return f"{self.path}, section {section}{entry}" if section and self.is_run else str(self.path)

    def stage(self, section: str, flags: Collection[str]) -> list[Values]:
        """For each entry of a section, which has these flags, the values by flag; [] for a stage that does not run.

        Raises UsageError for an unknown key, a reference to what is not there, and a cycle of references.
        """
        try:
            if not self.is_run:
                return [self._flat(flags)]
            return [self._values(section, number, flags) for number in range(len(self.sections.get(section, ())))]
        except RecursionError:
            raise UsageError(f"{self.where(section)}: the references lead in a circle") from None

    def shared_value(self, name: str) -> Value:
        """A value at the top, its references resolved; None if there is none."""
        return self._resolve(self.shared.get(name), str(self.path))

    def check_shared(self, flags: Iterable[str], mappings: bool = False) -> None:
        """Raise UsageError for a value at the top that is no flag of any stage and that nothing refers to.

        `mappings`: look at these only, which may be misspelt sections.
        """
        flags = [flag for flag in flags if flag not in COMMAND_LINE_ONLY]
        for name in self.shared:
            if mappings and not isinstance(self.shared[name], dict | list):
                continue
            if name in COMMAND_LINE_ONLY:
                self._check_key(name, flags, "")
            if name not in flags and name not in self._named and name != SLURM:
                known = [*flags, *SECTIONS, SLURM]
                raise UsageError(
                    f"{self.path}: {name} is neither a section nor a flag, and nothing refers to it{did_you_mean(name, known)}"
                )

    def _flat(self, flags: Collection[str]) -> Values:
        values = Values()
        for name in self.shared:
            if name in flags:
                self._check_key(name, flags, "")
                values[name] = self._resolve(self.shared[name], str(self.path), (name,))
        for name in self.shared:
            if name not in flags and name not in self._named:
                self._check_key(name, flags, "")
        return values

    def _values(self, section: str, number: int, flags: Collection[str]) -> Values:
        own, where = self.sections[section][number], self.where(section, number)
        keys = [*flags, LAUNCHER] if section == "train" else flags
        for name in own:
            self._check_key(name, keys, section)
        values = Values((name, self._resolve(value, where, (f"{section}.{name}",))) for name, value in own.items())
        # --output_dir of every script but the first is a folder in the run's
        values.shared = tuple(
            name
            for name, value in self.shared.items()
            if name in flags and name not in own and name != "output_dir" and value is not None
        )
        for name in values.shared:
            self._check_key(name, keys, "")
            values[name] = self._resolve(self.shared[name], where, (name,))
        for row in DEFAULTS:
            if row.section == section and row.passed and row.flag not in own and self._applies(row, number):
                value = self._resolve(row.value, where, (f"{section}.{row.flag}",))
                if values.setdefault(row.flag, value) != value and row.flag in self.shared:
                    raise UsageError(
                        f"{where}: {row.flag} is {_text(values[row.flag])} at the top of the file, and by default {_text(value)} "
                        f"({row.value}); write in the section which it is"
                    )
                own = {**own, row.flag: value}  # the first row counts
        return values

    def _check_key(self, name: str, flags: Collection[str], section: str) -> None:
        where = self.where(section)
        if reason := COMMAND_LINE_ONLY.get(name):
            raise UsageError(f"{where}: {name} cannot be set in a file; {reason}")
        if name not in flags:
            known = [flag for flag in flags if flag not in COMMAND_LINE_ONLY]
            raise UsageError(f"{where}: unknown key {name}{did_you_mean(name, known)}; see --help")

    # References

    def _resolve(self, value: Value, where: str, stack: tuple[str, ...] = ()) -> Value:
        """`value` with the values that its references name; in a list a reference to a list adds its items."""
        if isinstance(value, dict):
            return {name: self._resolve(item, where, stack) for name, item in value.items()}
        if isinstance(value, list):
            items = []
            for item in value:
                found = self._resolve(item, where, stack)
                items += found if isinstance(found, list) and isinstance(item, str) else [found]
            return items
        if not isinstance(value, str) or isinstance(value, Plain):
            return value
        if whole := _REFERENCE.fullmatch(value):
            return self._lookup(whole[1].strip(), where, stack)

        def part(match: re.Match) -> str:
            found = self._lookup(match[1].strip(), where, stack)
            if not isinstance(found, str):
                kind = "null" if found is None else "a list" if isinstance(found, list) else "a mapping"
                raise UsageError(f"{where}: {match[0]} is {kind}, which cannot be a part of {value!r}")
            return found

        return _REFERENCE.sub(part, value)

    def _lookup(self, name: str, where: str, stack: tuple[str, ...]) -> Value:
        if name in stack:
            cycle = " -> ".join([*stack[stack.index(name) :], name])
            raise UsageError(f"{where}: the references lead in a circle: {cycle}")
        section, dot, flag = name.partition(".")
        if dot and section in SECTIONS and self.is_run:
            if section not in self.sections:
                raise UsageError(f"{where}: ${{{name}}} refers to section {section}, which the file does not have")
            found = [
                self._of_section(section, number, flag, where, (*stack, name))
                for number in range(len(self.sections[section]))
            ]
            if all(value == found[0] for value in found):
                return found[0]
            items = [item for value in found for item in (value if isinstance(value, list) else [value])]
            return [item for i, item in enumerate(items) if item not in items[:i]]
        if name in self.shared:
            return self._resolve(self.shared[name], where, (*stack, name))
        hint = f"; write ${{{name}.FLAG}}" if name in self.sections else did_you_mean(name, self._names())
        raise UsageError(
            f"{where}: ${{{name}}} refers to nothing{hint}; a reference names a value at the top of the file, or section.flag"
        )

    def _names(self) -> list[str]:
        own = [f"{section}.{flag}" for section, entries in self.sections.items() for flag in entries[0]]
        return [*self.shared, *own, *(f"{row.section}.{row.flag}" for row in DEFAULTS if row.section in self.sections)]

    def _given(self, section: str, number: int, flag: str) -> Value:
        """The value of a flag in an entry of a section as `stage` gives it, its references not resolved; None if there is none."""
        own = self.sections[section][number]
        if flag in own:
            return own[flag]
        if self.shared.get(flag) is not None and flag != "output_dir":
            return self.shared[flag]
        rows = (row for row in DEFAULTS if (row.section, row.flag) == (section, flag))
        return next((row.value for row in rows if self._applies(row, number)), None)

    def _of_section(self, section: str, number: int, flag: str, where: str, stack: tuple[str, ...]) -> Value:
        """The value that `${section.flag}` refers to."""
        own, value, name = self.sections[section][number], self._given(section, number, flag), f"{section}.{flag}"
        if value is not None or (flag in own and name != TRANSLATE_DIR):
            return self._resolve(value, where, stack)
        if name == TRANSLATE_DIR:
            given = {key: value for key, value in {**self.shared, **own}.items() if key in TRANSLATE_DIR_FLAGS}
            flags = self._resolve(given, where, stack)
            uses_nllb = str(flags.get("use_nllb")).lower() in ("true", "1", "yes")
            return default_translate_dir(flags | {"use_nllb": uses_nllb})
        raise UsageError(f"{where}: ${{{name}}} refers to a value that is not given{did_you_mean(name, self._names())}")

    def _applies(self, row: Default, number: int) -> bool:
        """Whether all that a row of DEFAULTS refers to is given."""
        if row.when is not None:
            given = {**self.shared, **self.sections[row.section][number]}
            if self._resolve(given.get(row.when[0]), self.where(row.section, number)) not in row.when[1]:
                return False
        return all(map(self._is_given, _REFERENCE.findall(row.value)))

    def _is_given(self, name: str) -> bool:
        section, dot, flag = name.partition(".")
        if not dot:
            return name in self.shared
        numbers = range(len(self.sections.get(section, ())))
        if name == TRANSLATE_DIR:
            return bool(numbers)
        return bool(numbers) and all(self._given(section, number, flag) is not None for number in numbers)


def for_script(path: Path, parser: "Parser") -> tuple[Values, str]:
    """The values that a file has for the script with this parser, and where they are. Raises UsageError."""
    file = RunFile.read(path)
    entries = file.stage(parser.section, parser.flags())
    if not entries:
        found = ", ".join(file.sections) or "no section that is not null"
        raise UsageError(f"{path} has no section {parser.section} (it has {found})")
    if len(entries) > 1:
        raise UsageError(
            f"{path} has {len(entries)} entries in section {parser.section}; python scripts/run.py {path} runs them all"
        )
    entries[0].pop(LAUNCHER, None)
    return entries[0], file.where(parser.section)


def words(flags: Mapping[str, Action], values: Mapping[str, Value], where: str) -> tuple[list[str], list[str]]:
    """`values`, by flag, as words of a command line: those of positional arguments, and the others.

    Raises UsageError for values that no words can give: a list for a flag that takes one value, say.
    """
    positional, others, keys = [], [], {}
    for name, value in values.items():
        if value is None:
            continue
        action = flags[name]
        if action.dest in keys:
            raise UsageError(f"{where}: {keys[action.dest]} and {name} are the same flag; remove one of them")
        keys[action.dest] = name
        takes_list = action.nargs not in (None, "?")
        if isinstance(value, dict):
            if action.type is None or action.type.__name__ != "json_object":
                raise UsageError(f"{where}: {name} takes no mapping")
            try:
                value = json.dumps(_as_json(value), ensure_ascii=False)
            except ValueError:  # .inf, .nan
                raise UsageError(f"{where}: {name} has a number that JSON does not have: {_text(value)}") from None
        if isinstance(value, list) and not takes_list:
            raise UsageError(f"{where}: {name} takes one value, not a list of {len(value)}")
        items = value if isinstance(value, list) else [value]
        if not items or not all(isinstance(item, str) for item in items):
            raise UsageError(f"{where}: {name} is {_text(value)}; write a list of values, or null for none")
        if "" in items and action.dest != "api_key":
            raise UsageError(f"{where}: {name} is empty; write a value, or null for none")
        if home := next((item for item in items if item.startswith("~/")), None):
            raise UsageError(f"{where}: {name} is {home}; only a shell expands ~, write the whole path")
        bad = [item for item in items if item.startswith("-") and (len(items) > 1 or item == "--")]
        if not action.option_strings:
            bad = [item for item in items if item.startswith("-")]
            positional += items
        else:
            flag = next(flag for flag in action.option_strings if flag.startswith("--"))
            others += [f"{flag}={items[0]}"] if items[0].startswith("-") else [flag, *items]
        if bad:
            raise UsageError(f"{where}: {name} has the value {bad[0]!r}, which looks like a flag")
    return positional, others


def _as_json(value: Value) -> Any:
    if isinstance(value, dict):
        return {name: _as_json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    return value.as_json() if isinstance(value, Plain) else value


def _text(value: Value) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)
