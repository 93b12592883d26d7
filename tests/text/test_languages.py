from dataclasses import replace

import pytest

from topxgen.common.errors import UsageError
from topxgen.text import languages

# The ten main languages of the TopXGen paper: name, FLORES, NTREX, TICO-19
MAIN_TEN = [
    ("Basque", "eus_Latn", "eus_Latn", ""),
    ("Hausa", "hau_Latn", "hau_Latn", "ha"),
    ("Igbo", "ibo_Latn", "ibo_Latn", ""),
    ("Kinyarwanda", "kin_Latn", "kin_Latn", "rw"),
    ("Nepali", "npi_Deva", "nep_Deva", "ne"),
    ("Somali", "som_Latn", "som_Latn", "so"),
    ("Sundanese", "sun_Latn", "", ""),
    ("Swahili", "swh_Latn", "swa_Latn", "sw"),
    ("Urdu", "urd_Arab", "urd_Arab", "ur"),
    ("Xhosa", "xho_Latn", "xho_Latn", ""),
]


@pytest.mark.parametrize("name, flores, ntrex, tico", MAIN_TEN)
def test_main_ten(name, flores, ntrex, tico):
    language = languages.find(name)
    assert (language.flores, language.ntrex, language.tico) == (flores, ntrex, tico)
    assert language.cld2, "CLD2 knows all ten"


def test_every_flores_language_is_there_once():
    table = languages.load().values()
    codes = [language.flores for language in table]
    assert len(codes) == len(set(codes)) == 204 + 11
    from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES

    assert set(FAIRSEQ_LANGUAGE_CODES) <= set(codes)
    scripts = {code: code.split("_")[1] for code in codes} | {"sat_Beng": "Olck"}  # it holds Ol Chiki
    assert all(language.script == scripts[language.flores] and language.terminators for language in table)


def test_cld2_codes_are_cld2s():
    import pycld2

    known = {code for _, code in pycld2.LANGUAGES}
    assert {code for row in languages.load().values() for code in row.cld2.split(",") if code} <= known


def test_scripts_and_direction():
    assert languages.find("Urdu").right_to_left and languages.find("Hebrew").right_to_left
    assert not languages.find("Basque").right_to_left
    assert "।" in languages.find("Nepali").terminators and "۔" in languages.find("Urdu").terminators


def test_found_by_code_and_any_case():
    assert languages.find("eus_latn") == languages.find("BASQUE") == languages.find("Basque")


def test_unknown_name_answers_with_the_closest():
    with pytest.raises(UsageError, match=r"unknown language 'Swahli'.*Swahili"):
        languages.find("Swahli")


def test_rows_of_the_users_own(tmp_path):
    table = tmp_path / "mine.tsv"
    table.write_text("name\tflores\tcld2\nKlingon\ttlh_Latn\ttlh\n", encoding="utf-8")
    klingon = languages.find("Klingon", str(table))
    assert (klingon.script, klingon.direction, klingon.iso639_3) == ("Latn", "ltr", "tlh")
    assert languages.find("Basque", str(table)).flores == "eus_Latn"


@pytest.mark.parametrize(
    "row", ["\teus_Latn", "Basque\t", "../evil\teus_Latn", "Ladin\tlld", "Ladin\tlld-Latn", "Ladin\tlld_latn"]
)
def test_a_bad_row_is_named(tmp_path, row):
    table = tmp_path / "mine.tsv"
    table.write_text(f"name\tflores\n{row}\n", encoding="utf-8")
    with pytest.raises(UsageError, match="line 2"):
        languages.find("Basque", str(table))


# Names that the original code used, in prompts and in published folders, with the codes they mean.
ORIGINAL_NAMES = {
    "Arabic": ("arb_Arab", "arb_Arab", "ar"), "Chinese": ("zho_Hans", "zho_Hans", "zh"), "Luganda": ("lug_Latn", "", "lg"),
    "Malagasy": ("plt_Latn", "mlg_Latn", ""), "Meitei": ("mni_Beng", "", ""), "Norwegian": ("nob_Latn", "nob_Latn", ""),
    "Oromo": ("gaz_Latn", "orm_Ethi", "om"), "Uzbek": ("uzn_Latn", "uzb_Latn", ""), "N'ko": ("nqo_Nkoo", "", ""),
    "Emakhuwa": ("vmw_Latn", "", ""), "Azerbaidjani": ("azj_Latn", "aze_Latn", ""), "Dhivehi": ("div_Thaa", "div_Thaa", ""),
    "Malay": ("zsm_Latn", "msa_Latn", "ms"), "Kurdish Sorani": ("ckb_Arab", "ckb_Arab", "ckb"),
    "Kurdish Kurmanji": ("kmr_Latn", "kmr_Latn", "ku"), "Latin American Spanish": ("spa_Latn", "spa_Latn", "es-LA"),
    "Farsi": ("pes_Arab", "fas_Arab", "fa"), "Nigerian fufulde": ("fuv_Latn", "", "fuv"), "Muanmar": ("mya_Mymr", "mya_Mymr", "my"),
    "Pashto": ("pbt_Arab", "pus_Arab", "ps"), "Brazilian Portuguese": ("por_Latn", "por_Latn", "pt-BR"),
    "Ethiopian Tigrinya": ("tir_Ethi", "tir_Ethi", "ti"), "Dinka": ("dik_Latn", "", "din"), "Kanuri": ("knc_Latn", "", "kr"),
}  # fmt: skip


@pytest.mark.parametrize("name", ORIGINAL_NAMES)
def test_names_of_the_original(name):
    language = languages.find(name)
    assert (language.flores, language.ntrex, language.tico) == ORIGINAL_NAMES[name]
    assert language.name == name, "prompts and folders have the name given"


# Names in the lists of NTREX-128 and TICO-19 that are no row's.
PUBLISHED_NAMES = {
    "Azerbaijani (Latin)": "azj_Latn", "Central Kurdish (Sorani)": "ckb_Arab", "Northern Kurdish (Kurmanji)": "kmr_Latn",
    "Hassaniyya": "mey_Arab", "Pushto": "pbt_Arab", "Shona (Latin)": "sna_Latn", "Sindhi (Arabic)": "snd_Arab", "Panjabi": "pan_Guru",
    "Serbian (Cyrillic)": "srp_Cyrl", "Tajik (Cyrillic)": "tgk_Cyrl", "Tonga (Tonga Islands)": "ton_Latn", "English (US)": "eng_Latn",
    "Arabic (Modern Standard)": "arb_Arab", "Khmer (Central)": "khm_Khmr", "Tigrinya (Ethiopian)": "tir_Ethi",
}  # fmt: skip


def test_names_of_the_benchmarks():
    assert {name: languages.find(name).flores for name in PUBLISHED_NAMES} == PUBLISHED_NAMES


@pytest.mark.parametrize(
    "name", ["French (Canada)", "Serbian (Latin)", "Spanish (Mexico)", "Congolese Swahili", "Tigrinya (Eritrean)"]
)
def test_a_variety_with_a_file_of_its_own_is_no_other_name_of_the_language(name):
    """It would be scored on the language's file."""
    with pytest.raises(UsageError, match="unknown language"):
        languages.find(name)


def test_other_names_are_of_rows_and_no_row_has_two_meanings():
    table = languages.load()
    assert set(languages.other_names().values()) <= {row.flores for row in table.values()}
    assert not {name.casefold() for name in languages.other_names()} & {name.casefold() for name in table}
    # Every language of NTREX-128 has a row (its English, French … of a region are variants of one).
    assert {
        "div_Thaa",
        "fuc_Latn",
        "hmn_Latn",
        "mey_Arab",
        "nde_Latn",
        "shi_Arab",
        "tah_Latn",
        "ton_Latn",
        "ven_Latn",
    } <= {row.ntrex for row in table.values()}


def test_codes():
    for code in ("eus", "EU", "eus_latn", "Eus_Latn"):
        assert languages.find(code).name == "Basque"
    assert languages.find("swa_Latn").name == "Swahili" and languages.find("N’Ko").flores == "nqo_Nkoo"
    with pytest.raises(
        UsageError, match=r"did you mean Norwegian Bokmål, |did you mean Chinese \(Simplified\), Chinese"
    ):
        languages.find("zh")


@pytest.mark.parametrize(
    "name, hint",
    [
        ("Basque,Hausa", "separate names by spaces: Basque Hausa"),
        ("Basque, Tok Pisin", 'separate names by spaces: Basque "Tok Pisin"'),
        ("Lugandda", "did you mean Luganda"),
        ("", "names are English"),
    ],
)
def test_hints(name, hint):
    with pytest.raises(UsageError, match=hint):
        languages.find(name)


def test_a_column_may_have_another_name():
    from topxgen.corpora import tables

    assert tables.language_of("Luganda") == "lug_Latn" and tables.language_of("luganda ") == "lug_Latn"


def test_an_example_paragraph_is_in_no_other_name_of_the_language():
    from topxgen.generation.pipelines.topxgen import TopXGen

    pipeline = object.__new__(TopXGen)
    pipeline._paragraphs = {"Modern Standard Arabic": ["a"], "Spanish": ["b"]}
    pipeline._languages = {"Arabic": languages.find("Arabic")}
    pipeline._args = type("Arguments", (), {"languages_file": None})
    assert pipeline._others("Arabic") == ["Spanish"]


@pytest.mark.parametrize("iso, code", [("ar", "arb_Arab"), ("az", "azj_Latn"), ("kr", "knc_Latn")])
def test_an_iso_code_is_of_the_usual_script(iso, code):
    """The tokens of M2M-100 and the files of TICO-19 and SMOL that are named so are no texts in another one."""
    assert languages.find(iso).flores == code and not languages.find("arb_Latn").tico


def test_rows_of_the_users_own_have_an_id(tmp_path):
    (tmp_path / "rows.tsv").write_text("name\tflores\tcld2\nLadin\tlld_Latn\t\nBasque\teus_Latn\teu\n")
    rows = languages.load(str(tmp_path / "rows.tsv"))
    ids = [languages.row_id(row) for row in (rows["Ladin"], rows["Basque"], replace(rows["Ladin"], cld2="it"))]
    assert all(ids) and len(set(ids)) == 3
    assert {languages.row_id(languages.find(name)) for name in ("Basque", "Luganda", "Muanmar", "eng_Latn")} == {""}
