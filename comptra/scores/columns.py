"""What a system is: model, method, k, … as the columns of tables, from the settings of its run or from the names of its folders."""

import re
from collections.abc import Mapping
from pathlib import Path

from comptra import methods
from comptra.methods import maps
from topxgen import retrieval
from topxgen.common.translation_folders import asks_llm
from topxgen.translation.nllb import NUM_BEAMS

COLUMNS = ("model", "method", "k", "retriever", "template", "selection", "decoding", "checkpoint", "seed")
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
# {k}_shot_seed_{seed}_{divider}_{merge_prompt}_{number_of_subproblems}_{steps}_{refining}
_RUN = re.compile(
    r"_(?P<k>\d+)_shot_seed_(?P<seed>\d+)(?:_(?P<divider>.+)_(?P<merge>[^_]+)_\w+_(?P<steps>\d+)_(?P<refining>\d+))?$"
)
MAPS_CANDIDATES = len(maps.KINDS) + 1  # with the zero-shot one
_NAMED_FOLDERS = 6  # above a run of the original code, that may name a method or a retriever


def columns_of(settings: Mapping, path: Path) -> dict[str, str]:
    """The value of each of COLUMNS; "" for what is unknown, or makes no difference to these translations.

    `settings` are those that main.py records, {} where there are none, as for the original code; then the names of the
    folders say what they can. `path` is the folder of a run, `…/{model}/{run}`.
    """
    values = {name: value for name, value in settings.items() if value is not None} or _settings_in_names(path)
    checkpoint, base = _CHECKPOINT.fullmatch(path.parent.name), values.get("base_model", "")
    # A checkpoint's folder is named after its step: the model is the base of an adapter, "" of another one.
    of_checkpoint = Path(base).name if base != values.get("model") else ""
    translate = values.get("method_translate", "vanilla")
    has_examples = bool(values.get("k")) and translate not in methods.WITHOUT_DEMONSTRATIONS
    template = str(values.get("template_key", "")) if asks_llm(values) else ""
    return {
        "model": of_checkpoint if checkpoint else path.parent.name,
        "method": _method(values, translate, has_examples),
        "k": str(values.get("k", "")) if has_examples or translate == "vanilla" else "",
        "retriever": values.get("retriever_type", "") if has_examples else "",
        "template": "chat" if values.get("prompt_style") == "chat" else template,
        "selection": _selection(values),
        "decoding": _decoding(values),
        "checkpoint": checkpoint[1] if checkpoint else "",
        "seed": str(values.get("seed", "")),
    }


def _method(values: Mapping, translate: str, has_examples: bool) -> str:
    if not {"method_translate", "steps", "k"} & values.keys():
        return ""
    name = ("few-shot" if has_examples else "zero-shot") if translate == "vanilla" else translate
    if steps := values.get("steps", 0):
        parts = [values.get(key) for key in ("method_divide", "mode_divide", "merge_prompt")]
        parts = [part for part in parts if part not in (None, "vanilla")] + ([f"{steps} steps"] if steps > 1 else [])
        others = "" if translate in ("vanilla", methods.DIVIDE_ONLY) else f", {translate}"
        name = f"CompTra ({', '.join(parts)}){others}"
    for key, what in (("number_of_refining_steps", "refined"), ("refine_after_merge", "merge refined")):
        if times := values.get(key):
            name += f", {what}" + (f" {times} times" if isinstance(times, int) and times > 1 else "")
    return name


def _selection(values: Mapping) -> str:
    candidates, method = values.get("num_return_sequences", 1), values.get("selection_method", "")
    if method and values.get("method_translate") == "maps":  # by BLASER, unless another metric is chosen
        candidates, method = candidates * MAPS_CANDIDATES, method.replace("greedy", "blaser")
    return f"{method} of {candidates}" if candidates > 1 and method not in ("", "greedy") else ""


def _decoding(values: Mapping) -> str:
    if values.get("own_temperature"):
        return "the model's temperature"
    if "temperature" not in values:
        return ""
    if not asks_llm(values):
        return f"beam {NUM_BEAMS}"
    beams, temperature = values.get("num_beams", 1), values["temperature"]
    parts = [f"beam {beams}" if beams > 1 else f"T={temperature:g}" if temperature else "greedy"]
    if temperature and values.get("top_p", 1) != 1:
        parts.append(f"p={values['top_p']:g}")
    if values.get("repetition_penalty", 1) != 1:
        parts.append(f"penalty {values['repetition_penalty']:g}")
    return ", ".join(parts)


def _settings_in_names(path: Path) -> dict:
    """The settings in the names of a run's folders: of the run, and of a method or retriever above it."""
    found: dict = {}
    if match := _RUN.search(path.name):
        found = {"k": int(match["k"]), "seed": int(match["seed"])}
        if match["steps"] is not None:
            found |= {"steps": int(match["steps"]), "number_of_refining_steps": int(match["refining"])}
            if found["steps"]:
                found |= {"method_divide": match["divider"], "merge_prompt": match["merge"]}
    known_methods = {name.lower(): name for name in methods.METHODS}
    known_retrievers = {name.lower(): name for name in retrieval.RETRIEVERS if name not in ("lcs", "grakel")}
    for folder in list(path.parents)[1:_NAMED_FOLDERS]:
        name = folder.name.lower()
        if name in known_methods and "method_translate" not in found:
            found["method_translate"] = known_methods[name]
        elif name in known_retrievers and "retriever_type" not in found:
            found["retriever_type"] = known_retrievers[name]
    return found
