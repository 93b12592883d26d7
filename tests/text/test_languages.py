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
    assert len(codes) == len(set(codes)) == 204
    from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES

    assert set(FAIRSEQ_LANGUAGE_CODES) <= set(codes)
    assert all(language.script == language.flores.split("_")[1] and language.terminators for language in table)


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


@pytest.mark.parametrize("row", ["\teus_Latn", "Basque\t", "../evil\teus_Latn"])
def test_a_bad_row_is_named(tmp_path, row):
    table = tmp_path / "mine.tsv"
    table.write_text(f"name\tflores\n{row}\n", encoding="utf-8")
    with pytest.raises(UsageError, match="line 2"):
        languages.find("Basque", str(table))
