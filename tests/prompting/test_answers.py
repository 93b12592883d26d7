"""What is taken from an answer as its translation."""

import pytest

from topxgen.corpora.tables import read_lines
from topxgen.prompting.answers import chat_answer, clean_answer, cut_repetition


def test_eight_occurrences_of_a_pair_are_a_repetition():
    def loop(times: int) -> str:
        return " ".join(["hasi da", *["bai ez"] * times])

    assert cut_repetition(loop(7)) == loop(7)
    assert cut_repetition(loop(8)) == "hasi da bai ez"
    assert cut_repetition("bai " * 9) == "bai bai" and cut_repetition("bai " * 8) == "bai " * 8
    long = " ".join(f"el lado {i} de la casa {i}" for i in range(12))
    assert cut_repetition(long) == long, "a text may have a pair as often"
    assert cut_repetition(f"{long} {loop(8)}") == f"{long} hasi da bai ez"


def test_clean_answer():
    assert clean_answer("\n bat \nbi") == "bat"
    assert clean_answer("bat ## bi ## hiru", stop="##") == "bat"
    assert clean_answer("<think>x</think>bat") == "bat"
    assert clean_answer('"bat"') == '"bat"', "raw prompts are answered as the training data is written"


@pytest.mark.parametrize(
    "answer",
    [
        "```\nKaixo mundua.\n```",
        "```text\nKaixo mundua.\n```",
        "Here is the translation.\n\n~~~\nKaixo mundua.\n~~~\nA note.",
        "```Kaixo mundua.```",
        "`Kaixo mundua.`",
        '"Kaixo mundua."',
        "“Kaixo mundua.”",
        "«Kaixo mundua.»",
        "„Kaixo mundua.“",
        "'Kaixo mundua.'",
        '**"Kaixo mundua."**',
        "**Kaixo mundua.**\n\n(Literally: hello.)",
        "Here is the translation:\n\nKaixo mundua.",
        "Basque: Kaixo mundua.",
        "**Translation:** Kaixo mundua.",
        "<think>Hm.</think>\n\n**Basque:** “Kaixo mundua.”\n\nNote: short.",
        "**Thinking:**\nHm.\nHm.\n\n**Answer:**\nKaixo mundua.",
        "### Reasoning\nHm.\n### Translation\nKaixo mundua.",
        "**Step 1: Analysis**\nHm\n\n**Step 2: Translation into Basque**\n\nKaixo mundua.",
        "Thought process: Hm.\nFinal answer: Kaixo mundua.",
        "think\nHm.\nanswer\nKaixo mundua.",  # s1 without special tokens
        "```thinking\nHm.\n```\n```\nKaixo mundua.\n```",
        "Kaixo mundua.<｜end▁of▁sentence｜><｜User｜>Bye",
        "Kaixo mundua.<|END_OF_TURN_TOKEN|>",
        "<|header_start|>assistant<|header_end|>\n\nKaixo mundua.<|eot|>",
        "<role>ASSISTANT</role>Kaixo mundua.<|role_end|>",
        "Kaixo mundua.[e~[",
        "Kaixo mundua.[|endofturn|]",
        "Kaixo mundua.<turn|>",
        "[unused16]Hm.\nHm.[unused17]Kaixo mundua.[unused10]",
        "<think>Hm.</think><answer>It is <|begin_of_box|>Kaixo mundua.<|end_of_box|></answer>",
        "Basque translation: Kaixo mundua.",
        "In Basque: Kaixo mundua.",
        "The translation is `Kaixo mundua.`",
        'The Basque translation of "Hello world." is "Kaixo mundua."',
        "**Translation (Basque):** Kaixo mundua.",
        "Here is the translation: Kaixo mundua.",
        "Sure! Here's the sentence translated into Basque: **Kaixo mundua.**",
        "Here's my translation for you:\n> Kaixo mundua.",
        "Of course!\n\nKaixo mundua.",
        "Sure, here is the Basque translation.\n\nKaixo mundua.\n\nLet me know if it helps.",
        "Okay.\nHere is the translation:\n\nKaixo mundua.",
        "## Translation\n\nKaixo mundua.",
        "**Basque translation**\n\nKaixo mundua.",
        "# Kaixo mundua.",
        '{"translation": "Kaixo mundua."}',
        '```json\n{\n  "translation": "Kaixo mundua."\n}\n```',
        'Here is the JSON:\n{"itzulpena": "Kaixo mundua."}\n\nNote: short.',
        '{"reasoning": "Short.", "translation": "Kaixo mundua."}',
        '{"source": "Hello world.", "Basque": "Kaixo \\u006dundua."}',
        '["Kaixo mundua."]',
        r"\boxed{Kaixo mundua.}",
        "The sentence is short.\n\n$$\\boxed{\\text{Kaixo mundua.}}$$",
        "1. Kaixo mundua.",
        "**1) Kaixo mundua.**",
        "(1) Kaixo mundua.\n\nNote: short.",
        "<|im_start|>assistant\nKaixo mundua.<|im_end|>\n<|im_start|>user\nMore?",
        "Kaixo mundua.<|eot_id|>",
        "<s>Kaixo mundua.</s>",
        "Kaixo mundua.<end_of_turn>\nuser",
        "assistant\n\nKaixo mundua.",
        "<|start_header_id|>assistant<|end_header_id|>\n\nKaixo mundua.<|eot_id|>",
        '<translation lang="eu">Kaixo mundua.</translation>',
        "<Basque>\nKaixo mundua.\n</Basque>",
        "<target>Kaixo mundua.</target>",
        "Final answer: Kaixo mundua.",
        "**Output:** Kaixo mundua.",
        "Hello world. → Kaixo mundua.",
        "=> Kaixo mundua.",
        'Hello world. = "Kaixo mundua."',
        "English: Hello world.\nBasque: Kaixo mundua.",
        "---\nKaixo mundua.\n---",
        "Here is your translation in Basque:\n---\nKaixo mundua.\n---\nAnything else?",
        "Translated text: Kaixo mundua.",
        "Kaixo mundua. (Literally: hello, world)",
        "Kaixo mundua. — (lit. hello, world)",
        "- Kaixo mundua.",
        "• Kaixo mundua.",
        '"""Kaixo mundua."""',
        "'''\nKaixo mundua.\n'''",
        "\ufeffKaixo mundua.\u200b",
    ],
)
def test_what_chat_models_put_around_a_translation(answer):
    assert chat_answer(answer, "Hello world.", "Basque") == "Kaixo mundua."


@pytest.mark.parametrize(
    "answer, source",
    [
        ('"Kaixo mundua."', '"Hello world."'),
        ('"Kaixo", esan zuen. "Agur."', 'He said "hello" and "bye".'),
        ("'Ya'yan Hausa'", "Hausa children"),
        ("Zerrenda: bat, bi.", "A list: one, two."),
        ("**Kaixo** eta **agur**", "Hello and bye"),
        ("Basque: euskara", "Basque: the Basque language"),
        ("Hau da arrazoia:", ""),
        ("Hau da arrazoia:\n\n(Literal: this is the reason.)", ""),
        ("Hau da arrazoia:\n\nI used the definite form.", "This is the reason:"),
        ("Here you are:\nHau da arrazoia:", "This is the reason:"),
        ("“Hartzea betebehar bat da.”", 'To take it is a duty."'),
        ("> 5 urte", "> 5 years"),
        ("# 3 kalea", "# 3 street"),
        ("Basque:", "Basque"),
        ("Okay.", "Okay."),
        ("(Txaloak)\n\nA note.", "(Applause)"),
        ("Okay.\nA note.", "Okay."),
        ("Here is the translation: a film", "Here is the translation: a film"),
        ("Answer: a film", "Answer: a film"),
        ("- Kaixo", "- Hello"),
        ("Kaixo</s> etiketa da.", "The tag is </s>."),
        ("<b>Kaixo</b>", "<b>Hello</b>"),
        ("Barack Obama", "Barack Obama"),
        ("2 + 2 = 4", "2 + 2 = 4"),
        ("---\nA note.", "---"),
        ("Barack Obama\n\n(Names stay.)", "Barack Obama"),
        ("Assistant\n\n(One who helps.)", "Assistant"),
    ],
)
def test_what_belongs_to_a_translation(answer, source):
    kept = answer.removeprefix("Here you are:\n").partition("\n")[0]
    assert chat_answer(answer, source, "Basque") == kept


@pytest.mark.parametrize(
    "answer, source",
    [
        ("1. Liga hasi da.", "The first league began."),
        ("1. mendean hasi zen.", "It began long ago."),
        ("1. Kaixo mundua.", "1. Hello world."),
        ("(1) Kaixo mundua.", "(1) Hello world."),
        ('{"a": "b"}', '{"a": "c"}'),
        (r"Hau \boxed{da}.", r"This is \boxed{it}."),
        ("{a} Kaixo.", "{a} Hello."),
        ('["Kaixo"] esan zuen.', '"Hello", he said.'),
        ("Bizi zen (noted for his work)", "Hello world."),
        ("| Kaixo | Agur |", "| Hello | Bye |"),
    ],
)
def test_numbers_objects_and_boxes_of_a_source(answer, source):
    assert chat_answer(answer, source, "Basque") == answer


@pytest.mark.parametrize(
    "answer",
    [
        '{"translation": "Kaixo mun',  # cut
        '{"formal": "Kaixo.", "informal": "Aupa."}',
        '{"error": "I cannot translate this."}',
        '{"translation": ["Kaixo.", "Aupa."]}',
        '{"translation": ' + "[" * 100_000,
        r"\boxed{Kaixo} or \boxed{Aupa}",
        r"So it is \boxed{Kaixo mun",
        "1. Kaixo mundua.\n2. Aupa mundua.",
        "- Kaixo mundua.\n- Aupa mundua.",
        '<tool_call>\n{"name": "translate", "arguments": {"text": "Kaixo mundua."}}\n</tool_call>',
        '[TOOL_CALLS][{"name": "translate", "arguments": {}}]',
        "<steps_of_mine>Hm.\nHm.</steps_of_mine>\nKaixo mundua.",
        "<internal>Hm.</internal>\nKaixo mundua.",
        "<inner>Hm.</inner> Kaixo mundua.",
        '["Kaixo mundua.", "Aupa mundua."]',
        "| English | Basque |\n|---|---|\n| Hello world. | Kaixo mundua. |",
        "Thinking: it greets the world.",
        "<｜end▁of▁sentence｜>Kaixo mundua.",
        "### Instruction:\nKaixo mundua.",
    ],
)
def test_answers_in_which_the_translation_is_not_clear_are_not_read(answer):
    assert chat_answer(answer, "Hello world.", "Basque") == ""


@pytest.mark.parametrize(
    "answer, translation",
    [
        ("thought\nKaixo, laguna.", "Kaixo, laguna."),  # Gemma 4, without its special tokens
        ("thought\nIt greets.\nKaixo, laguna.", ""),
        ("Thinking...\nIt greets.\n...done thinking.\n\nKaixo, laguna.", ""),
        ("### Analysis\nIt greets.\n\nKaixo, laguna.", ""),
    ],
)
def test_a_label_of_thoughts_is_no_translation_of_a_sentence(answer, translation):
    assert chat_answer(answer, "Hello, my good friend.", "Basque") == translation
    assert chat_answer("Analysis\n\nA note.", "Analyse", "English") == "Analysis"


SOURCE, BRIDGE = "The bridge was closed last winter.", "Zubia joan den neguan itxi zuten."


@pytest.mark.parametrize(
    "answer",
    [
        *(f"{label} {BRIDGE}" for label in (
            "Itzulpena:", "Euskarazko itzulpena:", "Euskaraz:", "**Basque (Euskara):**", "eu:", "eus_Latn:", "English → Basque:", "[Basque]",
            "Basque -", "Target:", "My translation:", "Assistant:", "Traducción:", "Voici la traduction :", "Hona hemen itzulpena:",
        )),
        *(f"{said}\n\n{BRIDGE}\n\nI used the past tense." for said in (
            "Here you go!", "Got it!", "Okay, let me translate that.", "Here is the sentence translated to Basque", "Translating to Basque...",
            "I'd be happy to help.", "Voici la traduction", "Hona hemen itzulpena.", "Sure!\n\nHere is the translation in Basque:", "[Basque]", "model",
            "Hona hemen itzulpena.\nItzulpena:",
        )),
        *(f"{said} {BRIDGE}" for said in (
            "Sure!", "Below is the translation.", "In Basque, this would be:", "This translates to:", f"{SOURCE} —",
        )),
        f"Sure!\n\nHere is the translation:\n\n```text\n{BRIDGE}\n```\nI used the past tense.",
        f"{BRIDGE}\n\n```\nzubia = bridge\n```",
        f"Let me think.\nThe word bridge is zubia.\n\nFinal translation: {BRIDGE}",
        f"The user wants Basque.\nHere is what I would write for it.\n\n{BRIDGE}",
        f"Thought for 3 seconds\n\n{BRIDGE}",
        f"> {SOURCE}\n\n{BRIDGE}",
        f"- English: {SOURCE}\n- Basque: {BRIDGE}",
        f'So, the translation is "{BRIDGE}"',
        f"{BRIDGE} ({SOURCE})",
        f"{BRIDGE} (Basque)",
        f"{BRIDGE} ###",
        f"[{BRIDGE}]",
        f"({BRIDGE})",
        f"***{BRIDGE}***",
        f"“{BRIDGE}\"",
        f"– {BRIDGE}",
        f"a) {BRIDGE}",
        f"<pad> {BRIDGE}</s>",
        f"Here it is: <translation>{BRIDGE}</translation>",
        f"<translated_text>{BRIDGE}</translated_text>\n<notes>x</notes>",
        f"{BRIDGE}</translation>",
        f'[{{"translation": "{BRIDGE}"}}]',
        f'{{"result": {{"translation": "{BRIDGE}"}}}}',
        f'{{"source": "{SOURCE}", "target": "{BRIDGE}"}}',
        f'{{"translation": "{BRIDGE}"',
        f"json\n{{'translation': '{BRIDGE}'}}",
    ],
)  # fmt: skip
def test_labels_announcements_and_thoughts_aloud(answer):
    assert chat_answer(answer, SOURCE, "Basque") == BRIDGE


@pytest.mark.parametrize(
    "answer",
    [
        "Okay, so the user wants Basque.\nThe word bridge is zubia, and it",
        "We need to translate this. The user gave",
        "I'm sorry, but I can't translate this.",
        "(Thinking: The word bridge is zubia.)",
    ],
)
def test_thoughts_and_excuses_alone_are_not_read(answer):
    assert chat_answer(answer, SOURCE, "Basque") == ""


@pytest.mark.parametrize(
    "answer, source, target",
    [
        ("Sure! The bridge is closed.", "Noski! Zubia itxita dago.", "English"),
        ("I'm sorry, I can't do that.\nA note.", "Barkatu, ezin dut hori egin.", "English"),
        ("The question read: \"Is it closed?\"", "Galdera hau zen: “Itxita al dago?”", "English"),
        ("The volcano known as \"Don Goyo\" is active.", "“Don Goyo” sumendia aktibo dago.", "English"),
        ("The bridge was closed in the winter.\nA note.", SOURCE, "Basque"),  # not translated
        ("Dem tok say the user no go come.\nA note.", "They said that he will not come.", "Nigerian Pidgin"),
        ("Euskara\nThe name of the language.", "Basque", "Basque"),
        ("Euskara\nHizkuntza bat da.", "Basque", "Basque"),
        ("The user wants am.\nA note.", "He wants it.", "Nigerian Pidgin"),
        ("The user must press the button.\nI used \"must\".", "Erabiltzaileak botoia sakatu behar du.", "English"),
        ("The book is translated into English.\nA note.", "Liburua ingelesera itzulita dago.", "English"),
        ("Fassarar doka ba ta bayyana ba.\nI used the formal register here.", "The interpretation of the law is unclear.", "Hausa"),
        ("Itzulpena: zer da?", "Translation: what is it?", "Basque"),
        ("(Txaloak)", "(Applause)", "Basque"),
        ("Dịch bệnh bùng phát năm 2020. Nhiều người đã chết.", "The epidemic broke out in 2020. Many people died.", "Vietnamese"),
        ("Suy giảm miễn dịch. (2019)", "Immunodeficiency. (2019)", "Vietnamese"),
        ("Il fut traduit en justice. Il nia les faits.", "He was brought before the court. He denied it.", "French"),
        ("Okay. Nakuja.", "Fine, I'm coming.", "Swahili"),
        ("Hmm, ez dakit.", "Hmm, I don't know.", "Basque"),
        ("Okay, The Boston Globe egunkariak jakitera eman du.", "Okay, The Boston Globe reports it.", "Basque"),
        ("Hausa - mutanen Sahel ne.", "The Hausa are a people of the Sahel.", "Hausa"),
        ("Deutsch – eine schwere Sprache.", "German – a hard language.", "German"),
        ("—¿Vienes? —preguntó.", "'Are you coming?' he asked.", "Spanish"),
        ("C#", "C Sharp", "German"),
    ],
)  # fmt: skip
def test_what_only_looks_like_talk_around_a_translation(answer, source, target):
    assert chat_answer(answer, source, target) == answer.partition("\n")[0]


@pytest.mark.parametrize(
    "answer, source, target, translation",
    [
        ('Translation: The police called it a "random act."', "Ta ce mana kamar haka ne", "English", 'The police called it a "random act."'),
        ("Okay. Here is the translation: Nakuja.", "Fine, I'm coming.", "Swahili", "Nakuja."),
        ("Bản dịch: Cầu đóng cửa.", "The bridge is closed.", "Vietnamese", "Cầu đóng cửa."),
        ("Basque: Hara: itxita.", "Look: it is closed.", "Basque", "Hara: itxita."),
        ("Sure! Here is the translation into English.\n\nIt is closed.", "Itxita dago.", "English", "It is closed."),
        ("Here is the translation: 10:15ean zen.", "It was at 10:15.", "Basque", "10:15ean zen."),
        ("Here is the translation:\n\n(Lehena) Denok gara aske.", "First: All are free.", "Basque", "(Lehena) Denok gara aske."),
        ('"Bai," said the man.\n"Yes," esan zuen gizonak.', '"Bai," said the man.', "Basque", '"Yes," esan zuen gizonak.'),
        ('English: "It is closed."\n"Itxita."', '"It is closed."', "Basque", '"Itxita."'),
        ('English: " It is closed."\nItxita.', '" It is closed."', "Basque", "Itxita."),
        ('"Zubia "joan den" neguan itxi zuten."', SOURCE, "Basque", 'Zubia "joan den" neguan itxi zuten.'),
        ('""Bai", esan zuen."', '"Yes," he said.', "Basque", '"Bai", esan zuen.'),
        ('"Bai", esan zuen. "Ez."', "Yes, he said. No.", "Basque", '"Bai", esan zuen. "Ez."'),
        ('"Esan "bai" ozen."', '"Say "yes" loudly."', "Basque", '"Esan "bai" ozen."'),
    ],
)  # fmt: skip
def test_a_label_is_removed_without_what_it_announces(answer, source, target, translation):
    assert chat_answer(answer, source, target) == translation


@pytest.mark.parametrize(
    "label", ["English:", "Here is the English translation:", "Certainly! Here is the translation:"]
)
def test_what_is_said_before_an_english_translation(label):
    for between in (" ", "\n\n"):
        assert chat_answer(f"{label}{between}{SOURCE}", BRIDGE, "English") == SOURCE


@pytest.mark.timeout(60)
def test_thousands_of_spaces_are_read_quickly():
    answer = f"Kaixo{' ' * 8000}mundua."
    assert chat_answer(answer, "Hello world.", "Basque") == answer


def test_a_json_object_is_read_where_the_source_begins_with_a_bracket():
    assert chat_answer('{"translation": "Kaixo."}', "[Laughs] Hello.", "Basque") == "Kaixo."


@pytest.mark.parametrize("source", ["Hello, my good friend.", "你好，我的朋友。", "សួស្តីមិត្តល្អរបស់ខ្ញុំ។"])
def test_a_source_that_is_repeated_before_its_translation(source):
    assert chat_answer(f"{source}\nKaixo, laguna.", source, "Basque") == "Kaixo, laguna."


def test_an_english_translation_has_no_ordinal_with_a_full_stop():
    assert chat_answer("1. One goal.", "Gol 1.", "English") == "One goal."


@pytest.mark.parametrize("code, name", [("eus", "Basque"), ("hau", "Hausa"), ("urd", "Urdu")])
def test_no_reference_is_changed(ntrex, code, name):
    sources, references = (read_lines(ntrex / f"newstest2019-{file}.txt") for file in ("src.eng", f"ref.{code}"))
    for source, reference in zip(sources, references, strict=True):
        text = " ".join(reference.split())
        assert chat_answer(text, source, name) == text
