"""Folders of translations (docs/files.md): the original's names, and what tells apart the runs that would share one.

A name of the original's says nothing of the method, the retriever or the decoding. Runs with the defaults have that name; others
have what they differ in behind it. A folder of an older version, which had the plain name whatever its settings, is continued.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from topxgen.common.provenance import TRANSLATE_SETTINGS, read_settings

RESPONSES = "answers.jsonl"
_Values = Mapping[str, object]


def asks_llm(values: _Values) -> bool:
    asks_several = values.get("steps") or values.get("number_of_refining_steps")
    return bool(values.get("method_translate") != "nllb" or asks_several)


def _samples(values: _Values) -> bool:
    return asks_llm(values) and values.get("num_beams", 1) == 1


def _shows_pairs(values: _Values) -> bool:
    return bool(values.get("k") or (values.get("steps") and values.get("number_of_merge_demonstrations")))


def _divides(values: _Values) -> bool:
    return bool(values.get("steps"))


class _Part(NamedTuple):
    """A setting that the original's names lack: how a name shows it, if it is not the default and `holds`.

    No default: it is shown only where the folder has results of another value.
    """

    setting: str
    default: object
    shown: str
    holds: Callable[[_Values], bool] = asks_llm


_PARTS = (
    _Part(
        "method_translate", "vanilla", "{}", lambda values: asks_llm(values) and values["method_translate"] != "none"
    ),
    _Part("retriever_type", "bm25s", "{}", _shows_pairs),
    _Part("retriever_tokens", "unicode", "{}-words", _shows_pairs),
    _Part("selection_method", "greedy", "{}"),
    _Part("num_return_sequences", 1, "{}-candidates"),
    _Part("num_beams", 1, "{}-beams"),
    _Part("temperature", 0.0, "T={}", _samples),
    _Part("top_p", 1.0, "top_p={}", lambda values: _samples(values) and bool(values.get("temperature"))),
    _Part("repetition_penalty", 1.0, "penalty={}"),
    _Part("mode_divide", "vanilla", "divide-{}", lambda values: _divides(values) and values["method_divide"] == "llm"),
    _Part("number_of_merge_demonstrations", 0, "{}-merge-shots", _divides),
    _Part("refine_after_merge", 0, "{}-merge-refinements", _divides),
    _Part("template_key", None, "template-{}"),
    _Part("prompt_style", None, "{}"),
)


def values_of(args: argparse.Namespace) -> dict:
    """The flags of main.py as settings record them; template and style of the prompts are not known from flags alone."""
    unknown = {"template_key": None, "prompt_style": None}
    return {**vars(args), "temperature": args.temperature if args.do_sample else 0.0, **unknown}


def variant(values: _Values) -> list[str]:
    """What names show of flags (`values_of`) or recorded settings: the parts that are not the defaults, such as TEaR, SONAR."""
    return [
        _shown(part, values)
        for part in _PARTS
        if part.default is not None and values.get(part.setting, part.default) != part.default and part.holds(values)
    ]


def _shown(part: _Part, values: _Values) -> str:
    return part.shown.format(Path(str(values[part.setting])).name)


def differing(recorded: _Values, values: _Values) -> list[str]:
    """What names show of `values` where the recorded settings of other results have another value; none if nothing is recorded."""
    found = []
    for part in _PARTS if recorded else ():
        earlier = recorded.get(part.setting, part.default if part.holds(values) else None)
        if None not in (earlier, values.get(part.setting)) and earlier != values[part.setting]:
            found.append(_shown(part, values))
    return found


def results(folder: Path) -> Iterator[Path]:
    for path in (folder / RESPONSES, *folder.glob("translate_*.jsonl"), *folder.glob("draft_*.jsonl")):
        if path.is_file() and path.stat().st_size:
            yield path


def folder_of(plain: Path, values: _Values) -> Path:
    """The folder of a run whose name of the original's is `plain`, there or not."""
    if any(results(plain)) and not differing(read_settings(plain / TRANSLATE_SETTINGS), values):
        return plain  # of these settings, or of another program
    folder = plain.with_name("_".join([plain.name, *variant(values)]))
    while any(results(folder)) and (others := differing(read_settings(folder / TRANSLATE_SETTINGS), values)):
        folder = folder.with_name("_".join([folder.name, *others]))
    return folder


def original_name(src: str, tgt: str, args: argparse.Namespace, merge_prompt: str) -> str:
    """{src}_to_{tgt}_{k}_shot_seed_{seed}_{method_divide}_{merge_prompt}_{n}_{steps}_{refining}"""
    limit = "None" if args.number_of_subproblems < 0 else args.number_of_subproblems
    divider = Path(args.method_divide).name  # of a user's own, the file and its attribute
    return f"{src}_to_{tgt}_{args.k}_shot_seed_{args.seed}_{divider}_{merge_prompt}_{limit}_{args.steps}_{args.number_of_refining_steps}"
