"""The card: true front matter, terms, statistics; escaped, and without what belongs to the machine."""

import getpass
import json
import re

import pytest

from tests.support.publishing import front_matter, make_run, publish, record, rows, write
from tests.support.runs import in_process
from topxgen.common.masks import masked, masked_json, masked_word
from topxgen.publication.card import escape


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Pairs that decontamination.py itself has filtered, with manifests whose paths are those of a machine."""
    folder = tmp_path_factory.mktemp("card") / "home" / "somebody"
    records = [record(n) for n in range(40)]
    text = "Gizon-emakume guztiak aske jaiotzen dira, duintasun eta eskubide berberak dituztela; eta ezaguera eta kontzientzia dutenez gero."
    records[3]["propositions"][0] = text
    records[3]["sentence"] = " ".join(records[3]["propositions"])
    run = make_run(
        folder / "run", {"Basque": records}, filtered=False, writer=str(folder / "models" / "gemma-3-27b-it")
    )
    pairs = run / "nllb-200-3.3B"
    command = [
        "datagen.py",
        "--model_name_or_path",
        str(folder / "models" / "gemma-3-27b-it"),
        "--output_dir",
        str(run),
        "--api_key=***",
    ]
    (run / "manifest_generate_Basque.json").write_text(json.dumps({"settings": {"model": "x"}, "command": command}))
    write(folder / "my own.txt", {"Esaldi bat": "here"})
    own = f"{folder / 'my own.txt'}:Basque"
    words = ("--languages", "Basque", "--benchmarks", "udhr", own, "--allow_missing", own)
    result = in_process("decontamination.py", "--input_dir", pairs, *words)
    assert result.returncode == 0, result.stderr
    publish(run, folder / "out", "--formats", "tmx", "moses", "--min_score", "3.2")
    return folder


def card_of(out) -> str:
    return (out / "README.md").read_text(encoding="utf-8")


def test_front_matter(demo):
    front = front_matter(demo / "out")
    total = sum(len(rows(demo / "out", split=split)) for split in ("train", "validation"))
    assert front["language"] == ["en", "eu"] and front["task_categories"] == ["translation"]
    assert front["size_categories"] == ["n<1K"] and total < 1000
    assert front["license"] == "other" and front["license_name"] == "terms-of-the-models"
    assert [c["config_name"] for c in front["configs"]] == ["Basque"]


def test_terms_of_gemma_and_nllb_are_named(demo):
    card = card_of(demo / "out")
    assert "[Gemma Terms of Use](https://ai.google.dev/gemma/terms)" in card and "Model Derivative" in card
    assert (
        "[CC BY-NC 4.0](https://creativecommons.org/licenses/by-nc/4.0/)" in card
        and "**Not for commercial use**" in card
    )
    assert "…/gemma-3-27b-it" in card and "facebook/nllb-200-3.3B" in card


def test_given_texts_are_not_called_the_output_of_a_model(tmp_path):
    run = make_run(tmp_path / "run", {"Basque": [record(n) for n in range(5)]})
    publish(run, tmp_path / "generated")
    assert front_matter(tmp_path / "generated")["language_creators"] == ["machine-generated"]
    assert "Texts and translations are the output of models" in card_of(tmp_path / "generated")
    (run / "settings_generate.json").write_text(json.dumps({"pipeline": "paragraphs"}))
    publish(run, tmp_path / "given")
    assert front_matter(tmp_path / "given")["language_creators"] == ["found", "machine-generated"]
    assert "Texts in Basque were given, not generated. Translations are the output of models" in card_of(
        tmp_path / "given"
    )


def test_terms_of_one_kind_are_the_licence_and_unknown_ones_are_said_to_be(tmp_path):
    for name, writer, translator, licence in (
        ("free", "facebook/m2m100_418M", "facebook/m2m100_1.2B", "mit"),
        ("unknown", "org/nobody-knows", "org/nor-this", "unknown"),
        ("gemma", "google/gemma-3-27b-it", "apertium", "gemma"),  # the other one leaves what is made with it free
    ):
        run = make_run(
            tmp_path / name, {"Basque": [record(n) for n in range(20)]}, writer=writer, translator=translator
        )
        publish(run, tmp_path / f"{name}-out")
        assert front_matter(tmp_path / f"{name}-out")["license"] == licence
        card = card_of(tmp_path / f"{name}-out")
        assert ("**not known: look them up before you use the data**" in card) == (name == "unknown")
        assert "Not for commercial use" not in card


def test_a_model_has_the_terms_of_what_it_was_made_from_whatever_its_folder_is_called(tmp_path):
    writer = tmp_path / "nllb-x"
    made_from = [{"kind": "model", "name": "google/gemma-3-270m"}]
    link = {"kind": "model", "name": "", "stage": "train", "links": made_from}
    write(writer / "manifest_train.json", {"lineage": link})
    run = make_run(
        tmp_path / "run", {"Basque": [record(n) for n in range(20)]}, writer=str(writer), translator="apertium"
    )
    publish(run, tmp_path / "out")
    assert front_matter(tmp_path / "out")["license"] == "gemma"


def test_what_was_removed_and_how(demo):
    card = card_of(demo / "out")
    assert "udhr test (Basque)" in card and "udhr dev (English)" in card
    assert "| dropped with their paragraph | 1 | 2 |" in card
    assert "Two texts overlap if they share 10 consecutive words" in card
    assert "**Not decontaminated" not in card and "**Not known about this data" not in card
    assert "at least 3.2 (`--min_score`)" in card
    # A card with benchmark texts would contaminate what is trained on it.
    assert "Gizon-emakume" not in card


def test_statistics_are_those_of_data_stats(demo, tmp_path):
    published = [row for split in ("train", "validation") for row in rows(demo / "out", split=split)]
    places = {row["id"]: i for i, row in enumerate(published)}
    by_paragraph = {}
    for row in sorted(published, key=lambda row: row["id"]):
        by_paragraph.setdefault(row["paragraph_id"], []).append(row)
    records = [
        {
            "id": name,
            "sentence": own[0]["paragraph"],
            "propositions": [row["target"] for row in own],
            "translations": [row["source"] for row in own],
            "scores": [row["score"] for row in own],
            "scorer": own[0]["scorer"],
            "topic": own[0]["topic"],
        }
        for name, own in by_paragraph.items()
    ]
    assert len(places) == len(published)
    write(tmp_path / "data" / "Basque_translate.jsonl", *records)
    markdown = tmp_path / "stats.md"
    in_process("scripts/data_stats.py", tmp_path / "data", "--stage", "pairs", "--markdown", markdown)
    expected = [
        line for line in markdown.read_text().splitlines() if line.startswith("| ") and not line.startswith("| Basque")
    ]
    found = card_of(demo / "out").splitlines()
    assert len(expected) > 20 and [line for line in expected if line not in found] == []


def test_sentences_of_two_back_translators_are_not_counted_twice(tmp_path):
    records = [*map(record, range(20))]
    folder = make_run(tmp_path / "run", {"Basque": records})
    others = [one | {"translations": [text.upper() for text in one["translations"]]} for one in records]
    make_run(folder, {"Basque": others}, translate_dir="llm", translator="org/<b>llm|")
    publish(folder, tmp_path / "out", "--validation_size", 0)
    card = card_of(tmp_path / "out")
    assert "| Basque | 80 | 0 | 20 |" in card and "| paragraphs | 20 | 20 |" in card
    assert "| Basque | org/_b_llm_ (published) | facebook/nllb-200-3.3B (published) |" in card
    assert "| distinct-2 | 1.000 | 1.000 |" in card


def test_the_statistics_of_many_paragraphs_are_of_a_sample_and_say_so(tmp_path, monkeypatch):
    from topxgen.publication import dataset

    monkeypatch.setattr(dataset, "STATISTICS_PARAGRAPHS", 25)
    cards = []
    for name, numbers in (("run", range(60)), ("reversed", reversed(range(60)))):
        publish(make_run(tmp_path / name, {"Basque": [record(n) for n in numbers]}), tmp_path / f"out-{name}")
        cards.append(card_of(tmp_path / f"out-{name}"))
        assert "| Basque | Basque (random 25 of 60 paragraphs) |" in cards[-1]
    # Which ones are shown depends on the seed and the texts, not on their order.
    samples = [card.partition("### Samples\n")[2].partition("\n#")[0] for card in cards]
    assert samples[0] == samples[1] and samples[0].count("\n| ") == 7


def test_samples_are_escaped(tmp_path):
    texts = [
        "<script>alert('x')</script> | pipe, `code` and [link](javascript:x) \u202eevil\u202c \x07 *b* # h",
        "<img src=x onerror=alert(1)>" * 40,
    ]
    hostile = record(1) | {"propositions": texts, "translations": texts, "topic": "<b>"}
    run = make_run(tmp_path / "run", {"Basque": [hostile]}, writer="<svg/onload=alert(1)> | `m`")
    publish(run, tmp_path / "out", "--validation_size", "0")
    card = card_of(tmp_path / "out")
    assert (
        "<script" not in card
        and "<img" not in card
        and "<svg" not in card
        and "\u202e" not in card
        and "\x07" not in card
    )
    line = next(line for line in card.splitlines() if "alert('x')" in line)
    assert len(re.findall(r"(?<!\\)\|", line)) == 4 and "\\[link\\]" in line and "\\`code\\`" in line


def test_a_fence_in_a_command_does_not_end_the_block(tmp_path):
    run = make_run(tmp_path / "run", {"Basque": [record(n) for n in range(5)]})
    command = ["datagen.py", "--prompt", "```\n# Fake heading", "--x", "$(rm)"]
    (run / "manifest_generate_Basque.json").write_text(json.dumps({"settings": {}, "command": command}))
    publish(run, tmp_path / "out", "--validation_size", "0")
    block = card_of(tmp_path / "out").split("## Commands")[1].split("## Checksums")[0]
    assert block.count("````") == 2 and "'$(rm)'" in block


def test_escape():
    assert escape("a\nb | <c> & *d* \\ `e` \u202e") == "a b \\| &lt;c&gt; &amp; \\*d\\* \\\\ \\`e\\` \\\\u202e"
    assert escape("Ñ ‌उ अ یہ") == "Ñ ‌उ अ یہ"


# Nothing of the machine


def test_nothing_that_is_published_names_folders_of_the_machine(demo):
    out = demo / "out"
    secrets = [str(demo), str(demo.parent), "somebody", str(demo / "run")]
    for path in out.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            if path.suffix == ".parquet":
                from pyarrow import parquet

                table = parquet.read_table(path)
                data += json.dumps(table.to_pylist(), ensure_ascii=False).encode() + str(table.schema.metadata).encode()
            assert not [secret for secret in secrets if secret.encode() in data], path


def test_a_scorer_that_names_a_folder_is_masked(tmp_path):
    records = [record(n) | {"scorer": "blaser (/home/somebody/models/blaser, SONAR)"} for n in range(5)]
    publish(make_run(tmp_path / "run", {"Basque": records}), tmp_path / "out", "--validation_size", "0")
    assert {row["scorer"] for row in rows(tmp_path / "out")} == {"blaser (…/blaser, SONAR)"}
    assert "somebody" not in card_of(tmp_path / "out")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("/home/somebody/models/gemma", "…/gemma"),
        ("/home/somebody/models/", "…/models"),
        ("--output_dir=/scratch/somebody/run", "--output_dir=…/run"),
        ("in /home/some body", "in …/some body"),
        ("~/models/gemma and ~somebody/x", "…/gemma and …/x"),
        ("../../somebody/run", "…/run"),
        ("https://ai.google.dev/gemma/terms", "https://ai.google.dev/gemma/terms"),
        ("file:///home/somebody/x.txt", "…/x.txt"),
        ("google/gemma-3-27b-it and/or outputs/demo", "google/gemma-3-27b-it and/or outputs/demo"),
        ("/a/x.tsv:Basque=2,English=/b/c", "…/x.tsv:Basque=2,English=…/c"),
        ("(/home/somebody/models/blaser, SONAR)", "(…/blaser, SONAR)"),
        ("/home/somebody/a\\_b/c\\_d.jsonl, 10", "…/c\\_d.jsonl, 10"),
        ("1 / 2", "1 … 2"),
        ("/", "…"),
        ("https://user:pass@host/x?api_key=abc", "https://***@host/x?api_key=***"),
        ("no path", "no path"),
    ],
)
def test_masked(text, expected):
    assert masked(text) == expected


def test_masked_words_and_json():
    assert masked_word("/home/some body/my run") == "…/my run"
    assert masked_word("--x=/home/some body/my run") == "--x=…/my run"
    assert masked_word("/a b/c.tsv:Basque=2") == "…/c.tsv:Basque=2"
    assert masked_json({"/a/b": ["/c/d", 1, None, {"e": "f"}]}) == {"…/b": ["…/d", 1, None, {"e": "f"}]}


def test_the_users_name_in_a_path_is_masked(monkeypatch):
    from topxgen.common import masks

    monkeypatch.setattr(getpass, "getuser", lambda: "somebody")
    masks._names_of_machine.cache_clear()
    try:
        assert masked("scratch/somebody/run") == "scratch/…/run" and masked("/home/somebody") == "…"
        assert masked("somebody wrote it") == "somebody wrote it"
    finally:
        masks._names_of_machine.cache_clear()
