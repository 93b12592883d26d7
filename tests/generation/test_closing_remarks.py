"""Remarks to the user in other languages than English, and lists that are numbered by letters or Roman numbers."""

import pytest

from tests.support.runs import ROOT
from topxgen.generation.closing_remarks import is_closing_remark
from topxgen.generation.parsing import numbered_texts

BAT, BI = "Mendiak oso altuak dira.", "Itsasoa urdina da (eta handia)."


@pytest.mark.parametrize(
    "remark",
    [
        "Espero dut testu hauek lagungarriak izatea.",
        "Gehiago behar baduzu, esan lasai.",
        "Ina fatan wannan zai taimaka maka!",
        "Enwere m olileanya na nke a nyere gị aka.",
        "Nizeye ko izi nyandiko zigufasha.",
        "मलाई आशा छ यी पाठहरू उपयोगी हुनेछन्।",
        "Waxaan rajaynayaa in qoraalladani ku caawin doonaan.",
        "Mugia tulisan ieu aya mangpaatna.",
        "**Natumai maandishi haya yatakusaidia.**",
        "امید ہے کہ یہ تحریریں آپ کے لیے مفید ہوں گی۔",
        "Ndiyathemba ukuba le mibhalo iluncedo.",
        "Espero que esto te ayude.",
        "¡Espero que te sean útiles!",
        "Espero que te ayude. ¿Quieres algo más?",
        "Si necesitas más textos, avísame.",
        "Agardo que estes textos che axuden.",
        "Espero que isso ajude!",
        "J’espère que ces textes vous aideront.",
        "N'hésitez pas à demander d'autres textes.",
        "Ich hoffe, diese Texte helfen dir weiter.",
        "Lass mich wissen, ob du Anpassungen brauchst.",
        "Spero che questi testi ti siano utili.",
        "Semoga teks ini bermanfaat.",
        "आशा है कि ये पाठ आपके लिए उपयोगी होंगे।",
        "Laguntza gehiago behar baduzu, hemen nago.",
        "Je, ungependa maandishi zaidi?",
        "के तपाईंलाई थप पाठ चाहिन्छ?",
        "کیا آپ مزید متن چاہتے ہیں؟",
        "¿Quieres que escriba más textos?",
        "Voulez-vous d'autres textes ?",
        "Soll ich weitere Texte schreiben?",
        "Shin kuna son karin rubutu?",
        "Ị chọrọ ederede ndị ọzọ?",
        "Ufuna eminye imibhalo?",
        "Ma u baahan tahay qoraallo dheeraad ah?",
        "Zalantzarik baduzu, galdetu lasai.",
        "Testu hauek euskaraz idatzita daude.",
        "Hauek dira bi testuak.",
        "Testuek 60 hitz inguru dituzte.",
        "Waɗannan su ne rubutu biyu.",
        "Kuna son in rubuta ƙarin rubutu?",
        "Ọ bụrụ na ịchọrọ ihe ọzọ, gwa m.",
        "Urashaka ko nandika indi myandiko?",
        "यी दुई पाठहरू हुन्।",
        "कृपया थप जानकारी चाहिए मलाई भन्नुहोस्।",
        "Haddii aad wax kale u baahan tahay, ii sheeg.",
        "Ieu dua téks anu dipénta.",
        "Haya ni maandishi mawili.",
        "Kumbuka: maandishi haya ni asilia.",
        "اگر آپ کو مزید کچھ چاہیے تو بتائیں۔",
        "Ukuba ufuna enye into, ndixelele.",
        "Best regards,",
    ],
)
def test_remarks_to_the_user_below_a_text_are_left_out(remark):
    assert numbered_texts(f"1. {BAT}\n\n2. {BI}\n\n{remark}", 2) == [BAT, BI]
    assert numbered_texts(f"1. {BAT} {remark}\n2. {BI}", 2) == [f"{BAT} {remark}".replace("**", ""), BI], "in a text"
    assert numbered_texts(f"1. {remark}\n2. {BI}", 2)[1] == BI, "all that there is of a text"


@pytest.mark.parametrize(
    "sentence",
    [
        "Espero que mañana no llueva en la montaña.",
        "Si necesitas agua, el pueblo está cerca.",
        "Natumaini kesho mvua haitanyesha.",
        "Testu hura oso zaharra da.",
        "Ich hoffe auf den Frühling.",
        "Semoga esok hari cerah.",
        "Ina fatan gobe za a yi ruwa.",
        "¿Quieres que vaya al mercado mañana?",
        "Shin kuna lafiya?",
        "Hast du ihm geholfen?",
        "Vuoi sapere un segreto?",
        "Voulez-vous savoir pourquoi ?",
        "Shin kuna amfani da waya?",
        "क्या आप मेरी मदद कर सकते हैं?",
        "کیا آپ میری مدد کریں گے؟",
        "Ufuna uncedo kwabanye abantu.",
        "Want sy help die mense.",
        "User manual: read it.",
        "Remember the sea.",
    ],
)
def test_sentences_that_begin_like_a_remark_stay(sentence):
    assert numbered_texts(f"1. {BAT}\n\n2. {BI}\n\n{sentence}", 2) == [BAT, f"{BI} {sentence}"]


def test_no_text_of_the_declaration_of_human_rights_is_a_remark():
    texts = [cell for path in (ROOT / "data/udhr").glob("*.tsv") for cell in path.read_text("utf-8").split("\t")]
    assert len(texts) > 500 and not [text for text in texts if is_closing_remark(text)]


@pytest.mark.parametrize(
    "labels",
    [("a)", "b)"), ("a.", "b."), ("A.", "B."), ("(a)", "(b)"), ("i.", "ii."), ("I.", "II."), ("i)", "ii)"), ("**I.**", "**II.**"), ("(i)", "(ii)")],
)  # fmt: skip
def test_letters_and_roman_numbers_number_lists(labels):
    first, second = labels
    for before in ("", "Hona hemen bi testuak:\n\n"):
        assert numbered_texts(f"{before}{first} {BAT}\n\n{second} {BI}", 2) == [BAT, BI]


@pytest.mark.parametrize(
    "layout",
    ["- 1. {}\n- 2. {}", "#1 {}\n#2 {}", "① {}\n② {}", "<1>{}</1>\n<2>{}</2>", "<text>{}</text>\n<text>{}</text>", "First text: {}\n\nSecond text: {}",
     "**Text One:** {}\n\n**Text Two:** {}", "1. 🏔️ {}\n2. {} ✅"],
)  # fmt: skip
def test_other_layouts_of_a_list(layout):
    assert numbered_texts(layout.format(BAT, BI), 2) == [BAT, BI]


@pytest.mark.parametrize(
    "layout",
    ["1. testua 1: {}\n2. testua 2: {}", "1. **पाठ 1:** {}\n2. **पाठ 2:** {}", "1. متن 1\n{}\n\n2. متن 2\n{}", "1. «téks 1» {}\n2. «téks 2» {}",
     "1. Text 1 (Basque): {}\n2. Text 2 (Basque): {}", "1. [Lehen testua] {}\n2. [Bigarren testua] {}", "1. Lehen testua: {}\n2. Bigarren testua: {}",
     "1. <umbhalo>{}</umbhalo>\n2. <umbhalo>{}</umbhalo>", "1. [TEXT 1 STARTS] {} [TEXT 1 ENDS]\n2. [TEXT 2 STARTS] {} [TEXT 2 ENDS]",
     "1. {} (end of text 1)\n2. {} (end of text 2)", "1. … {}\n2. … {}", "पाठ 1: {}\nपाठ 2: {}"],
)  # fmt: skip
def test_labels_that_all_texts_have(layout):
    assert numbered_texts(layout.format(BAT, BI), 2) == [BAT, BI]


@pytest.mark.parametrize(
    "texts",
    [["Etxea: handia da.", "Mendia: altua da."], ["Bat 1 da.", "Hiru 2 dira."], ["[Barrez] Kaixo zioen.", "Agur zioen."],
     ["Urte 1990 ona zen.", "Urte 1991 txarra zen."], ["Zer da hori? Etxea da.", "Nor da hori? Jon da."]],
)  # fmt: skip
def test_beginnings_that_are_no_labels(texts):
    assert numbered_texts(f"1. {texts[0]}\n2. {texts[1]}", 2) == texts


def test_roman_numbers_go_on_to_ten_and_letters_beyond():
    texts = [f"{name} da." for name in ("Bat", "Bi", "Hiru", "Lau", "Bost", "Sei")]
    for labels in (("i", "ii", "iii", "iv", "v", "vi"), "abcdef"):
        answer = "\n".join(f"{label}) {text}" for label, text in zip(labels, texts, strict=True))
        assert numbered_texts(answer, 6) == texts
        assert numbered_texts(answer, 5) is None


@pytest.mark.parametrize(
    "answer",
    [
        f"1. Bi mendi:\na) {BAT}\nb) {BI}",
        f"{BAT}\na) {BAT}\nb) {BI}",
        "I. Mundu Gerra 1914an hasi zen.\n\nII. Mundu Gerra 1939an hasi zen.",
        f"b) {BAT}\nc) {BI}",
        f"a) {BAT}\nb) {BI}\nc) {BAT}",
        f"a) {BAT} b) {BI}",
    ],
)
def test_letters_that_number_no_list_of_texts(answer):
    assert numbered_texts(answer, 2) is None
    assert numbered_texts("A. Agirre idazlea zen.", 1) is None, "an initial"


def test_white_space_within_lines_is_one_space():
    assert numbered_texts("1. Bat  bi\thiru. \n  Lau  da.\n2. Bi.", 2) == ["Bat bi hiru. Lau da.", "Bi."]
