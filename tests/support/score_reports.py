"""Reports of comptra.evaluate made by hand: what its --json holds, with all marks."""

from collections.abc import Sequence

METHODS = {
    "zero-shot": {"method_translate": "vanilla", "k": 0},
    "few-shot": {"method_translate": "vanilla", "k": 5},
    "TEaR": {"method_translate": "TEaR", "k": 5},
    "CompTra": {"method_translate": "vanilla", "k": 5, "steps": 1, "method_divide": "llm", "merge_prompt": "vanilla"},
    "best of 8": {"method_translate": "vanilla", "k": 5, "num_return_sequences": 8, "selection_method": "blaser"}
    | {"temperature": 0.7, "top_p": 0.95},
}
COMMON = {
    **{"retriever_type": "bm25s", "template_key": "11", "prompt_style": "chat", "num_beams": 1, "seed": 122, "steps": 0},
    **{"num_return_sequences": 1, "selection_method": "greedy", "temperature": 0.0, "top_p": 1.0},
}  # fmt: skip
METRICS = {
    "bleu": {"title": "BLEU", "higher_is_better": True, "low": 0.0, "high": 100.0},
    "chrf": {"title": "chrF++", "higher_is_better": True, "low": 0.0, "high": 100.0},
    "metricx": {"title": "MetricX-24", "higher_is_better": False, "low": 0.0, "high": 25.0},
    "comet": {"title": "COMET", "higher_is_better": True, "low": 0.0, "high": 1.0},
}


def system(name: str, src: str, tgt: str, scores: dict, **more) -> dict:
    settings = COMMON | METHODS.get(name, {})
    path = f"outputs/{name}/gemma-3-27b-it/{src}_to_{tgt}_{settings.get('k', 5)}_shot_seed_122_llm_vanilla_None_0_0"
    row = {
        "name": path,
        "path": path,
        "sentences": 1012,
        "missing": 0,
        "unanswered": 0,
        "empty": 0,
        "settings": settings,
    }
    return row | {"translations_digest": "0", "scores": scores, "faults": {"copied": 1}} | more


def group(src: str, tgt: str, systems: Sequence[dict], metrics: Sequence[str] = ("bleu", "chrf"), **more) -> dict:
    found = {
        "dataset": "flores", "src": src, "tgt": tgt, "step": 0, "sentences": 1012, "test_set": {}, "sources_digest": "1",
        "references_digest": "2", "baseline": systems[0]["path"] if len(systems) > 1 else None, "systems": list(systems),
        "titles": {name: METRICS[name]["title"] for name in metrics}, "signatures": {name: f"{name}|v:1" for name in metrics},
        "metrics": {name: dict(METRICS[name]) for name in metrics}, "clusters": {}, "warnings": [],
    }  # fmt: skip
    return found | more


def report(*groups: dict, **more) -> dict:
    found = {"trials": 1000, "bootstrap": 0, "seed": 12345, "versions": {}, "skipped": {}, "failed_metrics": {}}
    return found | {"groups": list(groups), "summary": [], "notes": []} | more


def value(score: float, better: bool | None = None, **more) -> dict:
    return {"score": score, "segments": 1012, "better": better} | more


def with_all_marks(languages: Sequence[str] = ("Basque", "Hausa", "Igbo")) -> dict:
    """Systems in both directions, of which one lacks a language, with each mark somewhere."""
    groups = []
    for place, language in enumerate(languages):
        for src, tgt in (("English", language), (language, "English")):
            rows = []
            for number, name in enumerate(METHODS):
                if name == "TEaR" and tgt == languages[-1]:
                    continue
                better = [None, True, False, None, True][number]
                scores = {
                    "bleu": value(
                        10 + number + place, better, difference=number, p=0.01, p_holm=0.02, interval=[9.0, 15.5]
                    ),
                    "chrf": value(40 + number + place / 10, better),
                    "metricx": value(9 - number, better),
                    "comet": value(0.5 + number / 100, better),
                }
                if name == "best of 8":
                    scores["comet"]["interference"] = ["blaser chose among 8 candidates"]
                if name == "CompTra":
                    scores["metricx"]["segments"] = 1000
                rows.append(system(name, src, tgt, scores))
            one = group(src, tgt, rows, tuple(METRICS), clusters={"chrf": [rows[-1]["path"], rows[-2]["path"]]})
            one["metrics"]["comet"]["reliability"] = {
                "status": "weak",
                "note": "Spearman below 0.4",
                "source": "SSA-MTE",
            }
            groups.append(one)
    groups[0]["warnings"] = ["the training data of TEaR was not decontaminated against flores"]
    return report(*groups)
