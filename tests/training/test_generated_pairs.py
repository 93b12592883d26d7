"""Generated pairs as decontamination.py wrote them, and a one-line error for each mistake in them."""

import hashlib
import shutil

import pytest

from tests.support.pairs import (
    BASQUE,
    HAUSA,
    counts,
    generated,
    record,
    refusal,
    scored,
    source,
    write,
)
from tests.support.runs import in_process
from topxgen.text import languages
from topxgen.training.pairs import Pair
from topxgen.training.training_data import load

pytestmark = pytest.mark.usefixtures("no_shared_cache")


def test_generated_pairs_in_file_order_with_their_paragraphs_as_groups(tmp_path):
    path = generated(
        tmp_path,
        "Basque",
        record(
            ("Lehen esaldia da.", "The first sentence.", 3.0), ("Bigarren esaldia.", "The second one.", 4.0), id="7"
        ),
        record(("Hirugarren esaldia.", "The third one is it.", None), topic="x", extra=[1]),
    )
    generated(tmp_path, "Hausa", record(("Wannan jimla ce.", "This is a sentence.", 1.0), id="7"))
    found, facts = load(source("ours", HAUSA, BASQUE, HAUSA, data_dir=tmp_path))
    assert [pair.tgt for pair in found] == ["Hausa", "Basque", "Basque", "Basque"]
    assert found[1] == Pair("The first sentence.", "Lehen esaldia da.", "English", "Basque", found[2].group)
    assert len({pair.group for pair in found}) == 3, "an id is one of its language"
    assert counts(facts) == {"read": 3, "pairs": 3}
    assert facts["languages"]["English to Basque"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert load(source("topxgen", HAUSA, BASQUE, data_dir=tmp_path))[0] == found


def test_short_texts_and_forbidden_characters_are_dropped(tmp_path):
    ten, nine = "0123456789", "012345678"
    pairs_ = [
        (ten, ten),
        (nine, ten),
        (ten, nine),
        (f" {nine}\n", ten),
        (ten, "# heading of"),
        ("> a quotation", ten),
        ("a#", ten),
        ("", ""),
    ]
    generated(tmp_path, "Basque", record(*((*pair, 1.0) for pair in pairs_)))
    found, facts = load(source("topxgen", data_dir=tmp_path))
    assert [(pair.target, pair.source) for pair in found] == [(ten, ten)]
    assert counts(facts) == {"read": 8, "too_short": 5, "forbidden_characters": 2, "pairs": 1}


def test_files_of_the_original_code_are_read(tmp_path):
    def texts(number: int) -> dict:
        return {"propositions": [f"{number}. esaldia da."], "translations": ["The first sentence."]}

    generated(
        tmp_path,
        "Basque",
        {"sentence": "a", **texts(1)},
        {"sentence": "b", **texts(2), "scores": [None]},
        {"sentence": "c", **texts(3), "scores": []},
        {"sentence": "d", **texts(4), "scores": None},
        {"sentence": "a", **texts(5)},
        {"sentence": "e", "propositions": [], "translations": [], "scores": []},
    )
    found, _ = load(source("topxgen", data_dir=tmp_path))
    assert len(found) == 5 and len({pair.group for pair in found}) == 5
    assert "5 of 5 pairs of English to Basque" in refusal(load, source("topxgen", data_dir=tmp_path, percentile=50))


@pytest.mark.parametrize(
    "broken, says",
    [
        ({"translations": ["One sentence."]}, "field translations: expected 2 items, one per proposition, got 1"),
        ({"scores": [1.0]}, "field scores: expected 2 items, one per proposition, got 1"),
        ({"propositions": ["Esaldi bat.", 3]}, "field propositions[1]: expected text, got integer"),
        ({"translations": "ab"}, "field translations: expected list, got text"),
        ({"propositions": None}, "field propositions: expected list, got null"),
        ({"scores": ["1", "2"]}, "field scores[0]: expected number or null, got text"),
        ({"scores": [True, False]}, "field scores[0]: expected number or null, got true or false"),
    ],
)
def test_malformed_records(tmp_path, broken, says):
    good = scored(1.0, 2.0)
    path = generated(tmp_path, "Basque", good, {**good, **broken})
    assert refusal(load, source("topxgen", data_dir=tmp_path)).startswith(f"{path}, line 2: {says}")


def test_a_line_that_is_not_json(tmp_path):
    path = generated(tmp_path, "Basque", scored(1.0))
    path.write_text(path.read_text() + "{nothing\n")
    assert f"{path}, line 2" in refusal(load, source("topxgen", data_dir=tmp_path))


def test_missing_generated_pairs(tmp_path):
    assert "pass --data_dir" in refusal(load, source("ours"))
    assert f"--data_dir {tmp_path / 'nowhere'} does not exist" in refusal(
        load, source("ours", data_dir=tmp_path / "nowhere")
    )
    generated(tmp_path, "Hausa", scored(1.0))
    message = refusal(load, source("ours", data_dir=tmp_path))
    assert (
        f"{tmp_path} has no Basque_translate_filtered.jsonl (languages present: Hausa)" in message
        and "decontamination" not in message
    )
    generated(tmp_path / "nllb", "Basque", scored(1.0))
    assert f"pass --data_dir {tmp_path / 'nllb'}" in refusal(load, source("ours", data_dir=tmp_path))
    shutil.rmtree(tmp_path / "nllb")
    write(tmp_path / "Basque_translate.jsonl", scored(1.0))
    assert f"run decontamination.py --input_dir {tmp_path} --languages 'Basque' first" in refusal(
        load, source("ours", data_dir=tmp_path)
    )
    generated(tmp_path, "Basque")
    assert "topxgen holds no pairs of English to Basque" in refusal(load, source("topxgen", data_dir=tmp_path))
    generated(tmp_path, "Basque", record(("labur", "short", 1.0)))
    assert "(read 1, too_short 1)" in refusal(load, source("topxgen", HAUSA, BASQUE, data_dir=tmp_path))


def test_translations_into_another_language(tmp_path):
    generated(tmp_path, "Basque", scored(1.0))
    (tmp_path / "settings_translate.json").write_text('{"target_language": "French"}')
    assert "are into French, not English: pass --src 'French'" in refusal(load, source("ours", data_dir=tmp_path))
    found, _ = load(source("ours", src=languages.find("French"), data_dir=tmp_path))
    assert found[0].src == "French"


def test_decontaminated_elsewhere_translations_into_another_language(tmp_path):
    write(tmp_path / "Basque_translate.jsonl", scored(1.0))
    words = ("--input_dir", tmp_path, "--languages", "Basque", "--benchmarks", "udhr", "--output_dir", tmp_path / "out")
    assert in_process("decontamination.py", *words, "--target_language", "French").returncode == 0
    assert "are into French, not English" in refusal(load, source("ours", data_dir=tmp_path / "out"))
    assert in_process("decontamination.py", *words, "--target_language", "English").returncode == 0
    assert load(source("ours", data_dir=tmp_path / "out"))[0][0].src == "English"


def test_lone_surrogates_are_replaced(tmp_path):
    generated(tmp_path, "Basque", record(("Esaldi luze bat \ud800", "One long \udfff sentence", 1.0)))
    assert load(source("ours", data_dir=tmp_path))[0][0].target == "Esaldi luze bat ?"
