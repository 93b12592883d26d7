"""Folders of translations, as main.py and the original leave them, for the tests of comptra.evaluate."""

import json
import random
from pathlib import Path

from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

from comptra import evaluation_sets
from comptra.report import Options
from comptra.report.sections import evaluation
from topxgen.runs.folders import find
from topxgen.text import languages

RUN = "{}_to_{}_5_shot_seed_122_llm_vanilla_None_0_0"


UDHR = ("--dataset_name_or_path", "udhr")


def udhr(src="English", tgt="Basque"):
    return evaluation_sets.load(
        "udhr", languages.find(src), languages.find(tgt), folder=None, max_samples=None, need_pool=False
    )


def worse(texts: list[str], share: float, seed: int = 0) -> list[str]:
    """`texts` with that share of their words left out."""
    chance = random.Random(seed)
    return [" ".join(word for word in text.split() if chance.random() >= share) for text in texts]


def write(folder, sentences, translations, manifest=None, step=0):
    """A folder of main.py, or without a manifest of the original's."""
    folder.mkdir(parents=True)
    lines = (
        json.dumps({"sentence": sentence, "translation": translation}, ensure_ascii=False) + "\n"
        for sentence, translation in zip(sentences, translations, strict=True)
    )
    (folder / f"translate_{step}.jsonl").write_text("".join(lines), encoding="utf-8")
    if manifest:
        (folder / "manifest_translate.json").write_text(json.dumps({"settings": manifest}))
    return folder


def settings(dataset="udhr", src="English", tgt="Basque", **more):
    return {"dataset_name_or_path": dataset, "src": src, "tgt": tgt, "max_samples": None, **more}


def original(tmp_path, model, translations=None, src="English", tgt="Basque", test=None):
    test = test or udhr(src, tgt)
    return write(tmp_path / model / RUN.format(src, tgt), test.sources, translations or worse(test.references, 0.2))


def ntrex_sides(ntrex, count=400):
    return [
        (ntrex / f"newstest2019-{name}.txt").read_text(encoding="utf-8").split("\n")[:count]
        for name in ("src.eng", "ref.eus")
    ]


def paired(baseline, systems, references, trials, tokenize="13a"):
    """sacrebleu's p-values by metric, one a system, from its default seed."""
    named = [("baseline", baseline), *((str(i), system) for i, system in enumerate(systems))]
    tests = {"bleu": BLEU(tokenize=tokenize), "chrf": CHRF(word_order=2)}
    _, results = PairedTest(named, tests, [references], "ar", n_samples=trials)()
    results.pop("System")
    return {
        name: [result.p_value for result in column[1:]] for name, column in zip(tests, results.values(), strict=True)
    }


def collected(root: Path, **more) -> tuple[dict, Options]:
    """The data of the section, as the page holds them, and what it tells the reader."""
    options = Options(**more)
    data = evaluation.collect(find(root), options)
    return json.loads(json.dumps(data)), options


def notices(options: Options, level: str) -> str:
    return "\n".join(one.text for one in options.notices if one.level == level)


def run(root: Path, model: str, share: float, tgt: str = "Basque", translations=None, **more) -> Path:
    """Translations as main.py leaves them: references with that share of their words left out."""
    test = udhr("English", tgt)
    folder = root / model / RUN.format("English", tgt)
    return write(
        folder, test.sources, translations or worse(test.references, share), settings(tgt=tgt, model=model, **more)
    )
