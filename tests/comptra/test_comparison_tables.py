"""The tables of a comparison, from a report."""

import csv
import json
from pathlib import Path

import pytest

from comptra import evaluate, verify
from comptra.tables import variants as tables
from tests.support.evaluations import RUN, UDHR, run, settings, udhr, write
from topxgen.common.errors import UsageError


def value(mean: float, **more) -> dict:
    return {"scores": [mean], "mean": mean, "sd": None, "interval": None, **more}


def variant(name: str, texts: int | None, equal_pairs: int | None = 5) -> dict:
    return {
        "name": name,
        "seeds": [1, 2],
        "equal_pairs": equal_pairs,
        "facts": {"pairs": 5, "texts": texts, "hours": 0.25},
    }


def report(*variants: dict, **scores: dict) -> dict:
    group = {
        "dataset": "udhr", "src": "English", "tgt": "Basque", "way": 0, "sentences": 3, "titles": {"chrf": "chrF++"},
        "signatures": {"chrf": "s1"},
        "variants": {name: {"unanswered": 0, "scores": {"chrf": score}} for name, score in scores.items()},
    }  # fmt: skip
    return {
        "experiment": "e",
        "baseline": "base",
        "samples": 9,
        "seed": 1,
        "variants": list(variants),
        "groups": [group],
    }


BETTER = value(20, difference=10, difference_interval=[5, 15], p=0.00005, p_holm=0.0001, better=True) | {
    "sd": 1.5,
    "interval": [16.3, 23.7],
}
WORSE = value(5, difference=-5, difference_interval=[-9, -1], p=0.02, p_holm=0.02, better=False)
SAME = value(11, difference=1, difference_interval=[-3, 5], p=0.04, p_holm=0.08, better=None)


def test_marks_intervals_and_p_values():
    made = report(variant("up", 10), variant("base", 10), up=BETTER, down=WORSE, same=SAME, base=value(10))
    _, (title, rows) = tables.tables(made)
    assert title == "udhr from English into Basque, 3 sentences"
    assert rows[0] == ["variant", "chrF++ mean ± sd [95%]", "difference [95%]", "p", "Holm"]
    assert rows[1] == ["up", "20.00 ± 1.50 [16.30, 23.70]+", "+10.00 [+5.00, +15.00]", "<0.0001", "0.0001"]
    assert rows[2] == ["down", "5.00-", "-5.00 [-9.00, -1.00]", "0.0200", "0.0200"]
    assert rows[3][1].strip() == "11.00" and rows[4] == ["base (baseline)", "10.00 ", "-", "-", "-"]
    alone = report(variant("up", 10), variant("base", 10), up=BETTER, base=value(10))
    assert tables.tables(alone)[1][1][0] == ["variant", "chrF++ mean ± sd [95%]", "difference [95%]", "p"]
    assert tables.tables(alone | {"baseline": None})[1][1][0] == ["variant", "chrF++ mean ± sd [95%]"]
    names = ("up", "down", "base")
    two = report(*(variant(name, 1000) for name in names), up=BETTER, down=WORSE, base=value(10))
    assert tables.tables(two)[1][1][0][-1] == "Holm" and "Holm's correction over 2 variants" in tables.text(two)
    assert "Holm" not in tables.text(alone)
    assert tables.tables(two)[0][1][:2] == [
        ["variant", "seeds", "pairs", "texts", "hours"],
        ["up", "1 2", "5", "1,000", "0.250"],
    ]
    text = " ".join(tables.markdown(made).split())
    assert "| up | 20.00 ± 1.50 [16.30, 23.70]+ | +10.00 [+5.00, +15.00] | \\<0.0001 | 0.0001 |" in text
    assert tables.text(made).splitlines()[0] == "data and cost"


def test_a_note_says_of_how_many_sentences_scores_are():
    made = report(variant("base", 10), base=value(10, segments=3))
    assert "sentences that" not in tables.text(made)
    made = report(variant("base", 10), base=value(10, segments=2))
    line = "chrF++, udhr from English into Basque: of the 2 of 3 sentences that all models have a score of"
    assert line in tables.text(made) and line in tables.markdown(made)


def test_scores_have_the_decimals_of_their_metric():
    small = value(0.8546, difference=0.0034, difference_interval=[0.0011, 0.0057], p=0.02, p_holm=0.04, better=True)
    made = report(
        variant("up", 10), variant("base", 10), up=small | {"sd": 0.0021, "interval": [0.8, 0.9]}, base=value(0.8512)
    )
    (group,) = made["groups"]
    group |= {"titles": {"comet": "COMET"}, "signatures": {"comet": "s"}}
    for own in group["variants"].values():
        own["scores"] = {"comet": own["scores"].pop("chrf")}
    rows = tables.tables(made)[1][1]
    assert rows[1][:3] == ["up", "0.8546 ± 0.0021 [0.8000, 0.9000]+", "+0.0034 [+0.0011, +0.0057]"]
    assert rows[2][1] == "0.8512 "
    group["titles"], group["signatures"] = {"ter": "TER"}, {"ter": "s"}
    lines = tables.markdown(made).splitlines()
    assert "- TER: lower is better" in lines and any(line.startswith("- \\+ better, - worse") for line in lines)


def test_verify_says_what_it_does_not_compute_again(tmp_path):
    folders = {name: [[run(tmp_path / name, "m", share)]] for name, share in (("base", 0.4), ("up", 0.1))}
    args = evaluate.build_parser().parse_args([str(tmp_path), *UDHR, "--metrics", "chrf"])
    groups, _ = tables.score(folders, "base", args)
    made = report(variant("base", 10), variant("up", 10)) | {"seed": args.seed, "groups": groups}
    for part in (
        *(groups[0][key] for key in ("titles", "signatures")),
        *(v["scores"] for v in groups[0]["variants"].values()),
    ):
        part["own.py:metric"] = part["chrf"]
    for name, text in (("md", tables.markdown(made)), ("csv", tables.csv_text(made)), ("json", json.dumps(made))):
        (tmp_path / f"comparison.{name}").write_text(text, encoding="utf-8")
    audit, path = verify.verify(tmp_path), str(tmp_path / "comparison.json")
    assert path not in [problem.file for problem in audit.problems] and audit.checked["scores"] > 9
    assert audit.unchecked[path] == ["own.py:metric: not computed again"]


def test_csv_has_a_row_for_each_score():
    made = report(variant("up", 10), variant("base", None), up=BETTER, base=value(10))
    up, base = csv.DictReader(tables.csv_text(made).splitlines())
    assert (up["mean_low"], up["difference_high"], up["p_holm"], up["texts"]) == ("16.3", "15", "0.0001", "10")
    assert (base["variant"], base["p"], base["mean_low"], base["hours"]) == ("base", "", "", "0.25")


@pytest.mark.parametrize(
    "variants, says",
    [
        ([("a", 10, 5), ("b", 9, 5)], "a 10, b 9"),
        ([("a", 10, 5), ("b", 10, 5), ("untrained", None, None)], ""),
        ([("a", 10, 5), ("b", 8, 4)], ""),  # a series of sizes
        ([("a", 10, None), ("b", 9, None)], ""),  # not asked for
    ],
)
def test_unequal_numbers_are_said(variants, says):
    made = report(*(variant(*row) for row in variants), a=value(1), b=value(2))
    assert says in tables.unequal_texts(made["variants"]) and bool(says) == ("UNEQUAL" in tables.text(made))


def test_both_ways_of_a_variant_are_scored_and_each_needs_all_seeds(tmp_path):
    """One test set that is translated in two ways; empty and unanswered translations of all seeds are counted."""
    test, texts = udhr(), udhr().references[:8]

    def folder(name: str, translations: list[str], **more) -> Path:
        run = tmp_path / name / RUN.format("English", "Basque")
        return write(run, test.sources[:8], translations, settings(max_samples=8, **more))

    seeds = [
        [folder(f"{seed}-{way}", [*texts[:-2], empty, texts[-1]], k=way) for way, empty in ((0, "\u200b"), (5, "Bai."))]
        for seed in (1, 2)
    ]
    lines = seeds[1][0] / "translate_0.jsonl"
    lines.write_text(lines.read_text(encoding="utf-8").replace("}", ', "unanswered": true}', 1), encoding="utf-8")
    args = evaluate.build_parser().parse_args([str(tmp_path), *UDHR, "--metrics", "chrf", "--bootstrap", "10"])
    groups, failed = tables.score({"one": seeds}, None, args)
    assert not failed and [group["way"] for group in groups] == [0, 1]
    first, second = (group["variants"]["one"] for group in groups)
    assert (first["empty"], first["unanswered"]) == (2, 1) and (second["empty"], second["unanswered"]) == (0, 0)
    with pytest.raises(UsageError, match="one has translations from English into Basque of 1 of 2 seeds"):
        tables.score({"one": [seeds[0], seeds[1][:1]]}, None, args)
    with pytest.raises(UsageError, match=r"different numbers of ways \(one 2, two 1\)"):
        tables.score({"one": seeds, "two": [own[1:] for own in seeds]}, None, args)
