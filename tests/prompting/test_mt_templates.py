"""The MT templates: the strings of published checkpoints, languages' own names and labels, templates of the user's own."""

import json
import os
import shutil
import unicodedata
from pathlib import Path
from unittest import mock

import pytest

from tests.support.runs import in_process, records, snapshot
from topxgen.common.errors import UsageError
from topxgen.prompting import mt_templates
from topxgen.prompting.mt_templates import get_template, trained_template
from topxgen.text import languages

# (source, target) in English and Basque; written out from the published prompts, not by the code that is tested.
PAIRS = [("ONE", "BAT"), ("TWO", "BI"), ("THREE", "HIRU"), ("FOUR", "LAU"), ("FIVE", "BOST")]
GOLDEN = records(Path(__file__).with_name("golden_templates.jsonl"))
MAIN = ["Basque", "Hausa", "Igbo", "Kinyarwanda", "Nepali", "Somali", "Sundanese", "Swahili", "Urdu", "Xhosa"]
LABELLED = [*MAIN, "English", "French", "Spanish", "German", "Portuguese", "Italian", "Hindi", "Indonesian"]
LABELLED += ["Modern Standard Arabic", "Wolof"]


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case['key']} with {case['shots']} shots")
def test_prompts_are_those_of_published_checkpoints(case):
    template = get_template(case["key"], src="English", tgt="Basque")
    assert template.get_prompt(PAIRS[: case["shots"]], "SIX") == case["prompt"]
    assert (
        get_template(str(case["key"]), "English", "Basque")
        == template
        == get_template(template.name, "English", "Basque")
    )
    assert template.key == str(case["key"])


def test_no_template_is_left_out():
    assert [(case["key"], case["shots"]) for case in GOLDEN] == [(key, k) for key in range(1, 18) for k in (0, 1, 5)]


@pytest.mark.parametrize(
    "key, src, tgt, prompt",
    [
        (8, "Basque", "English", "Euskara\nX\ntranslates into\nEnglish\n"),
        (8, "Nepali", "Urdu", "नेपाली\nX\ntranslates into\nاردو\n"),
        (10, "Xhosa", "French", "IsiXhosa: X\nFrançais:"),
        (10, "eng_Latn", "swahili", "English: X\nKiswahili:"),
        (12, "Basque", "English", "Euskarazko esaldia\nX\nEnglish translation\n"),
        (12, "French", "German", "Phrase en français\nX\nDeutsche Übersetzung\n"),
        (12, "German", "French", "Satz auf Deutsch\nX\nTraduction en français\n"),
        (12, "Wolof", "Swahili", "Mbindum wolof\nX\nTafsiri ya Kiswahili\n"),
        (12, "Swahili", "Wolof", "Sentensi ya Kiswahili\nX\nMbinde buñu sirri si wolof\n"),
        (12, "English", "Urdu", "English sentence\nX\nاردو ترجمہ\n"),
    ],
)
def test_languages_are_written_as_they_write_themselves(key, src, tgt, prompt):
    assert get_template(key, src, tgt).get_prompt([], "X") == prompt


@pytest.mark.parametrize(
    "keys, stop, stops",
    [
        ((1, 2, 3, 4, 5, 6), "\n\n", ("\n", "\n\n")),
        ((7, 8, 9, 10, 11, 12, 13, 14), "###", ("\n", "###")),
        ((15,), "\n\n", ("\n\n",)),
        ((16, 17), "###", ("###",)),
    ],
)
def test_where_an_answer_ends(keys, stop, stops):
    for key in keys:
        template = get_template(key, "English", "Basque")
        assert (template.stop, template.stops) == (stop, stops)


def test_own_names_are_in_the_script_of_the_language():
    # How names of Unicode characters begin.
    scripts = {
        "Arab": "ARABIC", "Armn": "ARMENIAN", "Beng": "BENGALI", "Cyrl": "CYRILLIC", "Deva": "DEVANAGARI",
        "Ethi": "ETHIOPIC", "Geor": "GEORGIAN", "Grek": "GREEK", "Gujr": "GUJARATI", "Guru": "GURMUKHI", "Hang": "HANGUL",
        "Hans": "CJK", "Hant": "CJK", "Hebr": "HEBREW", "Jpan": "CJK", "Khmr": "KHMER", "Knda": "KANNADA", "Laoo": "LAO",
        "Latn": "LATIN", "Mlym": "MALAYALAM", "Mymr": "MYANMAR", "Olck": "OL CHIKI", "Orya": "ORIYA", "Sinh": "SINHALA", "Taml": "TAMIL",
        "Telu": "TELUGU", "Tfng": "TIFINAGH", "Thai": "THAI", "Tibt": "TIBETAN",
    }  # fmt: skip
    written = [language for language in languages.load().values() if language.endonym]
    assert len(written) >= 190 and {*LABELLED} <= {language.name for language in written}
    for language in written:
        name, script = language.endonym, scripts[language.script]
        assert name == name.strip() == unicodedata.normalize("NFC", name)
        assert all(unicodedata.name(c).startswith(script) for c in name if c.isalpha() and c not in "ʻ"), name
        assert name[0] == name[0].title(), "as a sentence begins"


@pytest.mark.parametrize("key", [8, 10])
def test_a_language_whose_own_name_is_not_known(key, tmp_path):
    with pytest.raises(
        UsageError,
        match=r"--template_key \d+ needs the endonym of Chokwe, .*: fill the column endonym .*--languages_file",
    ):
        get_template(key, "English", "Chokwe")
    get_template(9, "English", "Chokwe")
    with pytest.raises(UsageError, match="did you mean Basque"):
        get_template(key, "English", "Basqe")
    table = tmp_path / "mine.tsv"
    table.write_text("name\tflores\tendonym\nUpper Sorbian\thsb_Latn\tHornjoserbšćina\nKlingon\ttlh_Latn\t\n")
    assert "Hornjoserbšćina" in get_template(key, "Upper Sorbian", "English", extra=str(table)).get_prompt([], "X")
    with pytest.raises(UsageError, match="needs the endonym of Klingon"):
        get_template(key, "English", "Klingon", extra=str(table))


def test_labels(tmp_path):
    prompts = {name: get_template(12, name, name).get_prompt([], "X").split("\n") for name in LABELLED}
    assert len({sentence for sentence, *_ in prompts.values()}) == len(LABELLED)
    assert all(x == "X" and sentence != translation for sentence, x, translation, _ in prompts.values())
    with pytest.raises(UsageError) as error:
        get_template(12, "English", "Tok Pisin")
    assert 'add a line "Tok Pisin" = { sentence = "...", translation = "..." } under [labels] in ' in str(error.value)
    assert str(error.value).count("\n") == 0 and "templates.toml" in str(error.value)
    own = tmp_path / "own.toml"
    own.write_text(
        'prefix = "{src_sentence}\\n"\nmiddle = "\\n{tgt_translation}\\n"\n[labels]\n'
        '"Tok Pisin" = { sentence = "Tok", translation = "Tanim tok" }\n'
    )
    assert get_template(own, "English", "Tok Pisin").get_prompt([], "X") == "English sentence\nX\nTanim tok\n"


def test_a_template_of_the_users_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.toml"
    path.write_text(
        '\ufeffprefix = "<{src}|{src_endonym}> "\nmiddle = " <{tgt}|{tgt_endonym}>: "\nheader = "{}\\n"', "utf-8"
    )
    for key in ("mine.toml", "./mine.toml", str(path), path):
        template = get_template(key, src="English", tgt="Basque")
        assert template.get_prompt([("a", "b")], "{tgt}") == (
            "{}\n<English|English> a <Basque|Euskara>: b\n\n<English|English> {tgt} <Basque|Euskara>:"
        )
        assert (template.stops, template.name, template.key) == (("\n", "\n\n"), "mine", str(key))
    path.write_text('name = "short"\nprefix = ""\nmiddle = "\\t"\nsuffix = "\\n"')
    os.utime(path, (0, 0))
    template = get_template("mine.toml", "English", "Basque")
    assert template.get_prompt([("a", "b")], "c") == "a\tb\nc\t" and template.stops == ("\n",)
    assert template.name == "short"
    path.write_text('prefix = ""\nmiddle = "="\nsuffix = "\\n- "')
    os.utime(path, (1, 1))
    assert get_template("mine.toml", "English", "Basque").stops == ("\n-",), "hyphens of words end nothing"


@pytest.mark.parametrize(
    "text, said",
    [
        (None, "--template_key {path} does not exist"),
        ("prefix = ", "cannot read {path}: "),
        (b'prefix = "\xff"', "cannot read {path}: "),
        ('prefix = "a"', "missing: middle, unknown: none; the fields are header, middle, name, prefix, suffix, those required middle, prefix"),
        ('[mine]\nprefix = "a"\nmiddle = "b"', "{path}, outside any [table]: missing: middle, prefix, unknown: mine; the"),
        ('prefix = "a"\nmiddle = "b"\nsufix = "c"', "[table]: missing: none, unknown: sufix; the fields are header"),
        ('prefix = "a"\nmiddle = 3', "middle is 3, not a string in quotation marks"),
        ('prefix = "{source}"\nmiddle = "b"', "prefix has the unknown placeholder {{source}}; choose {{src}}"),
        ('prefix = "{ src }"\nmiddle = "b"', "prefix has the unknown placeholder {{ src }}; choose {{src}}"),
        ('prefix = "a"\nmiddle = "b"\nsuffix = ""', "suffix '' cannot mark the end of an answer"),
        ('prefix = "a"\nmiddle = "b"\nsuffix = "  "', "suffix '  ' cannot mark"),
        ('prefix = "a"\nmiddle = "b"\nlabels = "c"', "labels is not a table"),
        ('prefix = "a"\nmiddle = "b"\n[labels]\nThai = {{ sentence = "c" }}', "labels in Thai: missing: translation, unknown: none; the"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_file_of_the_users_own_is_one_line(tmp_path, text, said):
    path = tmp_path / "mine.toml"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.replace("{{", "{").replace("}}", "}").encode())
    with pytest.raises(UsageError) as error:
        get_template(str(path), "English", "Basque")
    assert said.format(path=path) in str(error.value) and "\n" not in str(error.value)


def test_a_template_that_does_not_exist():
    for key in (0, 18, "99", "lables", ""):
        with pytest.raises(
            UsageError, match=rf"--template_key '{key}' does not exist; choose one of given, .*, or a .toml"
        ):
            get_template(key, "English", "Basque")
    with pytest.raises(UsageError, match="did you mean labels"):
        get_template("lables", "English", "Basque")


def test_the_template_that_a_checkpoint_was_trained_on(tiny_lm, tmp_path, monkeypatch, capsys):
    """A run of train.py, which takes the templates with own names, too."""
    run = tmp_path / "run"
    trained = in_process(
        "train.py", "--model_name_or_path", tiny_lm, "--output_dir", run, "--dataset_name_or_path", "udhr",
        "--target_languages", "Basque", "--template_key", 10, "--max_steps", 2, "--save_steps", 1, "--eval_steps", 2,
        "--num_warmup_steps", 0, "--max_length", 128, "--test_size_ratio", 2, "--use_peft",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    checkpoint = run / "checkpoint-1"
    assert checkpoint.is_dir()
    for folder in (run, checkpoint, f"{checkpoint}/"):
        assert trained_template(str(folder)) == "10"
    monkeypatch.chdir(checkpoint)
    assert trained_template(".") == "10"
    shutil.copytree(checkpoint, tmp_path / "moved")
    assert trained_template(str(tmp_path / "moved")) == "10"
    for elsewhere in (tiny_lm, str(run / "nothing"), "org/model"):
        assert trained_template(elsewhere) is None
    manifest = checkpoint / "data_manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "template_key": "none"}))
    assert trained_template(str(checkpoint)) is None
    cached = snapshot(tmp_path / "hub", "org/tuned", monkeypatch)
    (cached / "data_manifest.json").write_text('{"template_key": "14"}')
    assert trained_template("org/tuned") == "14" and trained_template("org/other") is None
    for error in (ConnectionError("refused"), ValueError("odd")):
        monkeypatch.setattr("huggingface_hub.hf_hub_download", mock.Mock(side_effect=error))
        assert trained_template(f"org/{error}") is trained_template(f"org/{error}") is None
        assert capsys.readouterr().err.count(f"cannot look up org/{error} on the Hub (") == 1
    manifest.write_text("{")
    with pytest.raises(UsageError, match=r"data_manifest.json: not JSON: cut off"):
        trained_template(str(checkpoint))


def test_the_request_to_chat_models_is_checked_as_other_prompts_are(tmp_path, monkeypatch):
    mine = tmp_path / "templates.toml"
    monkeypatch.setattr(mt_templates, "FILE", mine)
    text = Path(mt_templates.__file__).with_name("mt_templates.toml").read_text(encoding="utf-8")
    try:
        mt_templates._chat.cache_clear()
        mine.write_text(text.replace("no notes, no quotation marks", 'as {\\"text\\": 1} or {}'), encoding="utf-8")
        (message,) = mt_templates.chat_prompt("English", "Basque", [("{src}", "{tgt}")], "A {sentence}.")
        assert 'as {"text": 1} or {}' in message["content"] and "English: {src}\n   Basque: {tgt}" in message["content"]
        assert message["content"].endswith("English: A {sentence}.\nBasque:")
        for new, what in (
            ("", r"the placeholder \{sentence\} is missing"),
            ("{number}: {sentence}\\n", r"unknown placeholder \{number\}"),
        ):
            mt_templates._chat.cache_clear()
            mine.write_text(text.replace("{src}: {sentence}\\n", new), encoding="utf-8")
            with pytest.raises(UsageError, match=rf"\[chat\], request: {what}"):
                mt_templates.chat_prompt("English", "Basque", [], "A.")
    finally:
        mt_templates._chat.cache_clear()
