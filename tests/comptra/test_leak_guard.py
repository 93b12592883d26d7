"""A test sentence is never shown as a demonstration with its reference, however it is spelled in the pool."""

import json
import shutil
import unicodedata
from functools import partial
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from comptra import evaluation_sets
from topxgen.retrieval import create
from topxgen.text import languages, leak_guard

SOURCE = "Onye ọ bụla nwere ikike iso n'ọchịchị obodo ya, n'onwe ya ma ọ bụ site n'aka ndị nnọchite anya a họpụtara."
REFERENCE = (
    'Everyone has the right to "take part" in the government of his country, directly or through representatives.'
)
OTHERS = [
    ("Mmiri na-ezo kemgbe ụtụtụ.", "It has been raining since the morning."),
    ("Ụlọ akwụkwọ ahụ dị nso n'ahịa.", "The school is near the market."),
    ("Nne m sịrị ofe taa.", "My mother cooked soup today."),
    ("Ọ gụrụ akwụkwọ abụọ n'izu gara aga.", "She read two books last week."),
]
SPELLINGS = {
    "equal": lambda text: text,
    "NFD": lambda text: unicodedata.normalize("NFD", text),
    "no-break space": lambda text: text.replace(" ", "\u00a0"),
    "no full stop": lambda text: text.rstrip("."),
    "quotes": lambda text: text.replace("'", "\u2019").replace('"', "\u201d"),
    "case": str.upper,
    "zero-width": lambda text: "\u200b".join(text),
    "soft hyphens": lambda text: text.replace("i", "i\u00ad"),
    "full width": lambda text: "".join(chr(ord(c) + 0xFEE0) if "a" <= c <= "z" else c for c in text),
    "dashes for spaces": lambda text: text.replace(" ", " - "),
    "brackets": lambda text: f"  ({text} )",
}
NEARLY = {
    "other words": lambda text: " ".join("mgbe" if i % 6 == 4 else word for i, word in enumerate(text.split())),
    "two words more": lambda text: f"Ee, {text.rstrip('.')} taa.",
    "within a paragraph": lambda text: f"{OTHERS[0][0]} {text} {OTHERS[1][0]} {OTHERS[2][0]} {OTHERS[3][0]}",
}
EVERY_SPELLING = SPELLINGS | NEARLY


def files(tmp_path, pool):
    def written(name, lines):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return tmp_path / name

    return (
        *("--test_files", written("test.src", [SOURCE, "Kedu?"]), written("test.ref", [REFERENCE, "How are you?"])),
        *("--demonstration_pool", written("pool.src", [s for s, _ in pool]), written("pool.ref", [r for _, r in pool])),
    )


@pytest.fixture
def run(main_here, tmp_path):
    def with_pool(pool, *more):
        flags = ("--src", "Igbo", "--tgt", "English", "--dataset_name_or_path", "files", "--prompt_style", "raw")
        return main_here(*flags, "--max_new_tokens", 8, *files(tmp_path, pool), "--output_dir", tmp_path / "out", *more)

    return with_pool


def prompts(result) -> list[str]:
    assert result.returncode == 0, result.stderr
    return result.stdout.split("---\n")[1::2]


@pytest.mark.parametrize("side", [0, 1])
def test_no_spelling_of_a_test_sentence_is_shown(run, tmp_path, side):
    """Each pair of the pool has one side of the test pair, respelled, and another text on the other side."""
    leaks = []
    for respell in (*SPELLINGS.values(), *NEARLY.values()):
        pair = list(OTHERS[0])
        pair[side] = respell((SOURCE, REFERENCE)[side])
        leaks.append(tuple(pair))
    result = run([*leaks, *OTHERS], "--k", 4, "--dry_run")
    first, second = prompts(result)
    assert all(source in first and target in first for source, target in OTHERS)
    assert "14 of the 18 pairs of the demonstration pool overlap the test set" in result.stderr
    assert "Kedu?" in second
    too_many = run([*leaks, *OTHERS], "--k", 5, "--dry_run")
    assert (
        too_many.returncode == 2
        and "--k 5 is more than the 18 pairs of the pool of files (14 of them" in too_many.stderr
    )


def test_generated_pairs_and_benchmarks_are_guarded_too(tmp_path):
    """--dataset_name_or_path topxgen and flores: every pool is compared with the whole test set."""
    igbo, english = languages.find("Igbo"), languages.find("English")
    for split, lines in (("dev", OTHERS), ("devtest", [("Kedu?", "How are you?"), (SOURCE, REFERENCE)])):
        for side, language in enumerate((igbo, english)):
            path = tmp_path / split / f"{language.flores}.{split}"
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(f"{pair[side]}\n" for pair in lines), encoding="utf-8")
    pairs = [*OTHERS, (SPELLINGS["NFD"](SOURCE), "Another translation.")]
    record = {
        "sentence": "All.",
        "propositions": [p[0] for p in pairs],
        "translations": [p[1] for p in pairs],
        "scores": [1.0] * 5,
    }
    (tmp_path / "Igbo_translate_filtered.jsonl").write_text(json.dumps(record) + "\n")
    load = partial(evaluation_sets.load, folder=tmp_path, allow_partial=True)
    for src, tgt in ((igbo, english), (english, igbo)):
        data = load("topxgen", src, tgt, max_samples=None, data_dir=tmp_path)
        sentence = data.sources[1]
        assert data.leaks[sentence] == {4} and not data.leaks[data.sources[0]]
        assert data.leaks_for(sentence) == data.leaks_for("a phrase of it") == {4} and not data.leaks_for(
            data.sources[0]
        )
        assert data.facts["leak_guard"] == {"version": leak_guard.VERSION, "leaking_pairs": 1, "equal": 1}
        # Phrases are compared with sentences that --max_samples leaves out, so that it changes no prompt.
        assert load("topxgen", src, tgt, max_samples=1, data_dir=tmp_path).leaks_for("a phrase") == {4}
    data = load("flores", igbo, english, max_samples=None)
    assert data.facts["leak_guard"] == {"version": leak_guard.VERSION, "leaking_pairs": 0}
    assert load("flores", igbo, english, max_samples=None, need_pool=False).facts["leak_guard"] is None


def test_phrases_are_not_translated_with_their_sentence(run, tmp_path):
    """CompTra retrieves demonstrations for each phrase: the pair of the whole sentence would give its reference away."""
    leak = (SPELLINGS["NFD"](SOURCE), "Give it away.")
    flags = ("--steps", 1, "--method_divide", "space", "--number_of_subproblems", 2, "--lid_model", "cld2")
    assert run([*OTHERS, leak], "--k", 4, *flags).returncode == 0
    too_many = run([*OTHERS, leak], "--k", 5, *flags, "--dry_run")
    assert too_many.returncode == 2 and "(1 of them overlap a sentence to be translated)" in too_many.stderr
    guarded = evaluation_sets.load(
        "files", *map(languages.find, ("Igbo", "English")), folder=None, max_samples=None,
        test_files=(tmp_path / "test.src", tmp_path / "test.ref"), pool_files=(tmp_path / "pool.src", tmp_path / "pool.ref"),
    )  # fmt: skip
    retriever = create("bm25s", [source for source, _ in guarded.pool], guarded.src, excluded=guarded.leaks_for)
    assert sorted(retriever.nearest(["nwere ikike iso n'ọchịchị"], 4)[0]) == [0, 1, 2, 3]


@pytest.mark.medium
def test_the_guard_is_on_record_and_results_without_it_are_not_continued(run, tiny_lm, tmp_path):
    pool = [*OTHERS, (SPELLINGS["no full stop"](SOURCE), REFERENCE)]
    folder = tmp_path / "out" / Path(tiny_lm).name / "Igbo_to_English_2_shot_seed_122_llm_vanilla_None_0_0"
    assert run(pool, "--k", 2).returncode == 0
    settings = json.loads((folder / "settings_translate.json").read_text())
    assert (settings["leak_guard"], settings["leaks_excluded"]) == (leak_guard.VERSION, 1)
    manifest = json.loads((folder / "manifest_translate.json").read_text())
    assert manifest["test_set"]["leak_guard"] == {"version": leak_guard.VERSION, "leaking_pairs": 1, "equal": 1}

    def as_an_older_version(**leak_settings: int) -> None:
        kept = {name: value for name, value in settings.items() if not name.startswith("leak")}
        (folder / "settings_translate.json").write_text(json.dumps(kept | leak_settings))

    # The first guard found fewer leaks. Where it left out as many pairs, they were the same.
    as_an_older_version(leak_guard=1, leaks_excluded=0)
    older = run(pool, "--k", 2)
    assert older.returncode == 2 and "other settings (leaks_excluded was 0, now 1)" in older.stderr
    as_an_older_version(leak_guard=1, leaks_excluded=1)
    assert run(pool, "--k", 2).returncode == 0

    as_an_older_version()
    older = run(pool, "--k", 2)
    assert older.returncode == 2 and "leaks_excluded was 0, now 1" in older.stderr
    # Without such pairs, and with those that older versions left out, the older results are continued.
    for pairs in (OTHERS, [*OTHERS, (SOURCE, REFERENCE)]):
        shutil.rmtree(tmp_path / "out")
        assert run(pairs, "--k", 2).returncode == 0
        settings = json.loads((folder / "settings_translate.json").read_text())
        as_an_older_version()
        assert run(pairs, "--k", 2).returncode == 0


def test_what_counts_as_a_leak():
    """On each boundary; kinds are those of the manifest."""
    words = [f"w{i}" for i in range(40)]
    text = " ".join(words[:20])

    def kind(pool: str, test: str = text, script: str = "Latn"):
        return leak_guard.leaks([test], [pool], script).get((0, 0))

    assert {respell: kind(SPELLINGS[respell](SOURCE), SOURCE) for respell in SPELLINGS} == dict.fromkeys(
        SPELLINGS, "equal"
    )
    for encoded in (
        SOURCE.encode("ascii", "xmlcharrefreplace").decode().replace("'", "&rsquo;"),
        quote(SOURCE),
        quote_plus(SOURCE),
        json.dumps(SOURCE)[1:-1],
        SOURCE.replace("e", "\u0435").replace("o", "\u043e").replace("a", "\u0430"),  # Cyrillic
        SOURCE.encode().decode("latin-1"),
        "".join(bytes([b]).decode("cp1252", errors="ignore") or chr(b) for b in SOURCE.encode()),
    ):
        assert kind(encoded, SOURCE) == kind(SOURCE, encoded) == "equal"
    assert kind("%90", "%91") is None, "percentages"
    assert kind("Ово је реченица.", "Ovo je rečenica.") is None, "Serbian in both scripts"
    assert {name: kind(nearly(SOURCE), SOURCE) for name, nearly in NEARLY.items()} == {
        "other words": "near_duplicate",
        "two words more": "partial",
        "within a paragraph": "partial",
    }
    around = " ".join(words[20:])
    assert kind(f"{around} {' '.join(words[:10])}") == "partial" and kind(f"{around} {' '.join(words[:9])}") is None
    assert kind(f"{around} w1 w2 w3 w4 w5 w6", "w1 w2 w3 w4 w5 w6") == "partial"
    assert kind(f"{around} w1 w2 w3 w4 w5", "w1 w2 w3 w4 w5") is None
    # ROUGE-L F1 of 7 of 10 words is 0.7, which is not above it.
    ten = words[:10]
    assert kind(" ".join(["x", *ten[:4], "y", *ten[5:9], "z"][:10]), " ".join(ten)) == "near_duplicate"
    assert kind("a w1 w2 b w4 w5 c w7 w8 w9", " ".join(ten)) is None
    assert kind("...", "...") == kind("?!", " ?! ") == "equal" and kind("...", "!") is None
    assert kind("can not", "cannot") == "equal"
    assert kind("今天天气很好。", "今天天气很好", "Hans") == "equal"
    assert kind(f"{around} {' '.join(words[:10])}", " ".join(words[:21])) is None, "10 of 21 words"
    twice = leak_guard.leaks([text, text.upper()], [f"{text} and more"], "Latn")
    assert twice == {(0, 0): "partial", (1, 0): "partial"}
    equal_tests = leak_guard.leaks(["A b.", "a B", "c"], ["a, b", "c"], "Latn")
    assert equal_tests == {(0, 0): "equal", (1, 0): "equal", (2, 1): "equal"}
    alike = [" ".join([*words[:10], *(f"{i}v{j}" for j in range(9))]) for i in range(30)]  # half of each is in all
    assert len(leak_guard.leaks(alike, [f"{around} {' '.join(words[:10])}"], "Latn")) == 30
