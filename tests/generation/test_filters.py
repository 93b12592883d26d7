"""What rejects a text, a sentence or a pair, at each limit; a filter of one's own; responses into texts."""

import random
from itertools import combinations, pairwise

import pytest

from topxgen.common.errors import UsageError
from topxgen.generation.back_translation import pair_reject_reasons
from topxgen.generation.filters import FILTERS, PASSAGE_FILTERS, TOPXGEN_FILTERS, load_filters, reject_reason
from topxgen.generation.funnel import PAIR_REASONS, TEXT_REASONS
from topxgen.generation.parsing import finished_passages, listed_passages, numbered_texts, whole_text
from topxgen.text import language_id, languages, sentence_splitting
from topxgen.text.near_duplicates import NearDuplicates

BASQUE, CHINESE, ENGLISH = map(languages.find, ("Basque", "Chinese (Simplified)", "English"))
ALL = load_filters(TOPXGEN_FILTERS)


def reason(text: str, language=BASQUE, filters=ALL) -> str | None:
    return reject_reason(text, language, filters)


def apart(words: list[str]) -> str:
    """The words with numbers between them, so that no word bigram repeats."""
    return " ".join(f"{word} {i}" for i, word in enumerate(words))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", "too_few_words"),
        ("   ", "too_few_words"),
        ("bi hitz", "too_few_words"),
        ("hiru hitz dira", None),
        ("a\x00b c d", "binary"),
        ("bi\thitz eta", "binary"),  # parsers turn white space into spaces
        ("pribatua \ue000 bat da", "binary"),
        ("esleitu \u0378 gabe da", "binary"),
        ("bikoteko \ud800 erdia da", "binary"),
        ("broken \ufffd bytes here", "binary"),
        ("zero\u200bzabalera eta \u00ad marratxoa", None),  # format characters are text
        ("bat bi " * 74 + "bat", None),
        ("bat bi " * 75, "repeated_word_bigram"),
        ("hiru hitz " + "x" * 75, None),  # 74 character bigrams
        ("hiru hitz " + "x" * 76, "repeated_character_bigram"),
        ("hiru " + "x" * 76 + " " + "luzeena" * 11, None),  # only the longest word counts
        (apart(["luzea"] * 17), None),  # 136 pairs of "luzea" with itself
        (apart(["luzea"] * 18), "repeated_word_pair"),  # 153
        (apart(["lehen"] * 10 + ["geroa"] * 15), "repeated_word_pair"),  # 150 ordered pairs
        (apart(["lehen"] * 13 + ["geroa"] * 12), "repeated_word_pair"),  # 156, of words as rare as possible
        (apart(["lehen"] * 9 + ["geroa", "lehen"] + ["geroa"] * 14), None),  # 149
        (apart(["lehe"] * 10 + ["geroa"] * 15), None),  # 4 characters
        (apart(["lehen"] + ["geroa"] * 17), None),
    ],
)
def test_filters_at_their_limits(text, expected):
    assert reason(text) == expected


def test_each_filter_has_its_own_name():
    every = load_filters(FILTERS)
    assert list(FILTERS) == list(every) == [function.__name__ for function in every.values()]
    assert ("unfinished", *FILTERS, "near_duplicate") == TEXT_REASONS and all(row.help for row in FILTERS.values())


@pytest.mark.parametrize(
    "text, expected", [("a" * 10, "too_short"), ("a" * 11, None), ("bat bi", "too_short"), ("\x00" * 10, "binary")]
)
def test_passages_of_10_characters_are_too_short(text, expected):
    assert reason(text, filters=load_filters(PASSAGE_FILTERS)) == expected


def test_a_text_without_spaces_is_counted_in_characters():
    assert reason("我们喜欢读书", CHINESE) is None
    assert reason("我们喜欢读书") == "too_few_words"


def test_a_filter_of_ones_own(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "def shouting(text, language):\n    return text.isupper()\n\n"
        "def too_long(text, language):\n    return f'{len(text)} characters, {language.name}' if len(text) > 20 else None\n"
    )
    chosen = load_filters([f"{path}:shouting", "too_few_words", f"{path}:too_long"])
    assert reason("BAT BI HIRU", filters=chosen) == "shouting"
    assert reason("BAT BI", filters=chosen) == "shouting" and reason("bat bi", filters=chosen) == "too_few_words"
    assert reason("bat bi hiru lau bost", filters=chosen) is None
    assert reason("bat bi hiru lau boste", filters=chosen) == "too_long (21 characters, Basque)"
    assert reason("bat bi " * 100, filters=load_filters(["too_few_words"])) is None, "only the filters that were named"
    with pytest.raises(UsageError, match=r"--filters 'too_few_word' does not exist.*did you mean too_few_words"):
        load_filters(["too_few_word"])


def test_only_above_the_threshold_is_a_near_duplicate():
    known = NearDuplicates(0.5)
    known.add("a", "bat bi hiru lau")
    assert known.match("bat bi bost sei") is None  # ROUGE-L F1 is 0.5
    assert known.match("bat bi hiru sei") == ("a", 0.75)
    assert NearDuplicates(0.499).match("bat bi bost sei") is None, "nothing was kept yet"


def test_co_occurrence_equals_counting_every_pair():
    rng = random.Random(0)
    for _ in range(60):
        tokens = rng.choices(["alpha", "gamma", "delta", "epsilon", "a", "be"], k=rng.randint(5, 60))
        pairs = {}
        for a, b in combinations(tokens, 2):
            if len(a) >= 5 and len(b) >= 5:
                pairs[a, b] = pairs.get((a, b), 0) + 1
        bigrams = list(pairwise(tokens))
        expected = max(pairs.values(), default=0) >= 150
        if max(map(bigrams.count, bigrams)) < 75:
            assert (reason(" ".join(tokens)) == "repeated_word_pair") == expected


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "text",
    [
        "x" * 1_000_000,
        "hitz bat " * 200_000,
        "\n" * 1_000_000,
        "1. " * 300_000,
        "1. **a" * 200_000,
        "1. a\n" + "(a)\n" * 200_000 + "2. b",
        "1. _a" * 200_000,
        "1. (" + ") " * 300_000 + "x",
        "1. b " + "[" * 300_000,
        "# " * 300_000,
        "1. b\n##\n" * 50_000,
    ],
)
@pytest.mark.medium
def test_huge_answers_are_judged_quickly(text):
    reason(text)
    numbered_texts(text, 2)
    listed_passages(finished_passages(text))


@pytest.mark.parametrize(
    "answer, n, texts",
    [
        ("1. Bat.\n2. Bi.", 2, ["Bat.", "Bi."]),
        ("Sure:\n1. Bat\nbat.\n\n2. Bi.\n", 2, ["Bat bat.", "Bi."]),
        ("**1.** Bat.\n2) Bi.", 2, ["Bat.", "Bi."]),
        ("१. एक।\n२. दुई।", 2, ["एक।", "दुई।"]),
        ("1. In 1999. He came.\n2. Bi.", 2, ["In 1999. He came.", "Bi."]),
        ("1. Bat.\n\n20. mendean bi.\n2. Hiru.", 2, ["Bat. 20. mendean bi.", "Hiru."]),
        ("1. Bat.", 2, None),
        ("1. Bat.\n2. Bi.\n3. Hiru.", 2, None),
        ("2. Bi.\n1. Bat.", 2, None),
        ("2. Bi.\n1. Bat.\n3. Hiru.", 2, None),
        ("1. \n2. Bi.", 2, None),
        ("  1) Bat.\n\t2.) Bi.", 2, ["Bat.", "Bi."]),
        ("# 1. Bat.\n__2.__ Bi.", 2, ["Bat.", "Bi."]),
        ("1.Bat.\n2. Bi.", 2, ["Bat.", "Bi."]),
        ("1.5 km dira.\n2.5 km dira.", 2, None),
        ("0001. Bat.\n2. Bi.", 2, None),  # numbers have at most three digits
        ("001. Bat.\n2. Bi.", 2, ["Bat.", "Bi."]),
        # All on one line: a number stands between sentences, before no small letter, and there are no more than two.
        ("1. Bat. 2. Bi.", 2, ["Bat.", "Bi."]),
        ("Hona hemen: 1) Bat. **2)** Bi.", 2, ["Bat.", "Bi."]),
        ("१. एक हो। २. दुई हो।", 2, ["एक हो।", "दुई हो।"]),
        ("1、他来了。2、他走了。", 2, ["他来了。", "他走了。"]),
        ("1. Bat. 2. Bi. 3. Hiru.", 2, None),
        ("1. Hiria 2 etxe da 2. Bi.", 2, None),
        ("1. Bat. 2. mendean. 2. Bi.", 2, ["Bat. 2. mendean.", "Bi."]),
        ("1. Bat. 1990. Urtean. 2. Bi. 3. mendean.", 2, ["Bat. 1990. Urtean.", "Bi. 3. mendean."]),
        ("1. Bat.\n2. mendean hasi zen.\n2. Bi.\n3. mendean.", 2, ["Bat. 2. mendean hasi zen.", "Bi. 3. mendean."]),
        ("1. Bat.\n2. mendean hasi zen.", 2, None),
        ("1. bat\n2. bi", 2, ["bat", "bi"]),
        ("1. UMbeki.\n2. uMandela.", 2, ["UMbeki.", "uMandela."]),
        ("1. 2020 წელს.\n2. ბი.", 2, ["2020 წელს.", "ბი."]),
        ("1. Nota: hau da.\n2. **Bi etxe**", 2, ["Nota: hau da.", "Bi etxe"]),
        ("1. Bat.\nIf you climb it, you see far.\n2. Bi.", 2, ["Bat. If you climb it, you see far.", "Bi."]),
        ("1. Bat.\n1. Bis.\n2. Bi.", 2, ["Bat. 1. Bis.", "Bi."]),
        ("", 2, None),
        ("Bat. Bi.", 2, None),
    ],
)
def test_numbered_answers(answer, n, texts):
    assert numbered_texts(answer, n) == texts


BAT, BI = "Mendiak oso altuak dira.", "Itsasoa urdina da (eta handia)."


@pytest.mark.parametrize(
    "answer",
    [
        # remarks below the last text
        "1. {}\n\n2. {}\n\n---\n**Note:** I wrote two original texts.",
        "1. {}\n2. {}\nNote: both are original.\n\n- one\n- two",
        "1. {}\n\n2. {}\n\nEnglish translations:\n\n1. Mountains.\n2. The sea.",
        "1. {}\n\n2. {}\n\nNote that I tried to keep the style informative.",
        # placeholders without a space, quotation marks around each text
        "1. [text1] {}\n2. [text2] {}",
        '1. "{}"\n\n2. "{}"',
        "1. «{}»\n2. «{}»",
        "1. {}\n\n2. {}\n\n(Bi testu dira, jatorrizkoak.)",
        "1. {}\n\n2. {} (Note: original text)",
        "1. {} (14 words)\n\n2. {} [approx. 120 words]",
        "1. {}\n\n2. {}\n\n**Oharra:** bi testu idatzi ditut.",
        "1. {}\n\n2. {}\n\nनोट: दुई पाठ।",
        "1. {}\n\n2. {}\n\nنوٹ: یہ متن اصلی ہیں۔",
        "1. {}\n\n2. {}\n\nI hope this helps! Let me know if you need more.",
        "1. {}\n\n2. {}\n\nShall I continue with more paragraphs?",
        "1. {}\n\n2. {}\n\nMy apologies if there are any errors in the texts.",
        "1. {}\n\n2. {}\n\nThat concludes the two passages.",
        "1. {}\n\n2. {}\n\nEach paragraph has about 60 words.",
        "1. {}\n\n2. {}\n\nKeywords: itsasoa, mendia",
        "1. {}\n\n2. {}\n\nHuman: write more",
        "1. {}\n\n2. {}\n\nWould you like me to write more texts?\n\nThank you.",
        "1. {}\r\n\r\n2. {}\r\n\r\n***\r\nBi testu.",
        # and below each
        "Hona hemen:\n\n---\n\n1. {}\n\n---\n\n2. {}\n\n---\n",
        "1. {}\n\n*(Translation: Mountains are high.)*\n\n2. {}\n\n(English: The sea is blue.)",
        # echoed placeholders and labels
        "1. [text 1] {}\n2. [text 2] {}",
        "1. [testua 1] {}\n2. (Testua 2): {}",
        "1. **Text 1:** {}\n2. Text 2: {}",
        "1. <text>{}</text>\n2. <text>{}</text>",
        "1. [text 1]{}[/text 1]\n2. <text 2>\n{}\n</text 2>",
        "1. [{}]\n2. [{}]",
        "Text 1:\n{}\n\nText 2:\n{}",
        "**Testua 1:** {}\n\n**Testua 2:** {}",
        "### Testua 1\n\n{}\n\n### Testua 2\n\n{}",
        "[text 1]\n{}\n[text 2]\n{}",
        # markup and titles
        "**1.** **{}**\n\n**2.** {}",
        "(1) {}\n(2) *{}*",
        "1\\. {}\n2\\. {}",
        "1. **Mendiak**\n{}\n\n2. ## Itsasoa\n\n{}",
        "### 1. Mendiak\n\n{}\n\n**2. Itsasoa**\n\n{}",
        "```text\n1. {}\n\n2. {}\n```\nThese texts are original.",
    ],
)
def test_what_is_no_text_is_left_out(answer):
    assert numbered_texts(answer.format(BAT, BI), 2) == [BAT, BI]


@pytest.mark.parametrize(
    "numbering",
    ["{}: ", "{}.- ", "{}.-", "{} - ", "{} – ", "({}) ", "（{}）", "[{}] ", "{}º ", "{}.º ", "{}° ", "{}/ ", "{}.", "{}। ", "{}۔ ", "{}。",
     "{}\ufe0f\u20e3 ", "#{}: ", "**{}:** ", "No. {}: ", "Testua {} - ", "{}. testua: ", "[insert text {} here]\n"],
)  # fmt: skip
@pytest.mark.parametrize("digits", ["12", "१२", "١٢", "۱۲", "১২"])
def test_numbers_as_models_write_them(numbering, digits):
    first, second = map(numbering.format, digits)
    for between in ("\n", "\n\n"):
        assert numbered_texts(f"{first}{BAT}{between}{second}{BI}", 2) == [BAT, BI]


def test_what_is_no_list_is_none():
    for answer in (
        f"{BAT}\n\n{BI}",
        f"1: {BAT}\n{BI}",
        f"1990: {BAT}\n1991: {BI}",
        f"1 mendi.\n2 mendi. {BI}",
        f"12:30 {BAT}\n2-1 {BI}",
        f"1: {BAT} [2] {BI}",
        f"Livingston 1 - 0 Rangers: {BAT}\nLivingston 2 - 0 Rangers: {BI}",
    ):
        assert numbered_texts(answer, 2) is None, answer


@pytest.mark.parametrize(
    "answer",
    [
        "1. {}\n\n2. {}\n\n✅ Done.",
        "1. {}\n\n2. {}\n✅ Both are 3 paragraphs long.\n\nDone!",
        "1. {}\n\n2. {}\n\nAmaiera.",
        "1. {}\n\n✅\n\n2. {}\n\nEskerrik asko!",
        "1. {}\n2. {}\n\nसमाप्त।",
        "1. {}\n2. {}\n\n[End of texts]",
        "1. {}\n2. {} [END]",
        "1. {}\n\n2. {}\n\nI'd be happy to revise them.",
        "1. {}\n\n2. {}\n\nThanks for reading!",
        "1. [insert text 1 here] {}\n2. [insert text 2 here]\n{}",
        "1. {} [Insert your second text here]\n2. {}",
        "1. <your first paragraph> {}\n2. {}",
        "1. [Testua] {}\n2. {}",
        "1. [Rubutu] {}\n2. **[Rubutu]** {}",
        "1. [पाठ १]: {}\n2. [पाठ २]: {}",
        "1. [نص] {}\n2. <متن> {}",
        "1. [Idatzi hemen 1. testua] {}\n2. [Idatzi hemen 2. testua] {}",
        "1. (Hasiera) {}\n2. (Hasiera) {}",
        "1. Testua: {}\n2. **Testua:** {}",
        "1. Testua - {}\n2. Testua - {}",
    ],
)
def test_remarks_and_placeholders_are_left_out(answer):
    assert numbered_texts(answer.format(BAT, BI), 2) == [BAT, BI]


@pytest.mark.parametrize(
    "text",
    [
        "Nota bat idatzi zuen, eta (gero) hiru * lau * bost.",
        "Mendiak dira. I have a dream esan zuen.",
        '"Bai", esan zuen. "Noski."',
        "Note that the sea is high.",
        "1990. urtean _hitz_bat_ idatzi zuen: [sic] hau.",
        "[Bilboko] mendiak altuak dira.",
        "(Hau da) mendia: bat, bi (hiru) [1].",
        "1990 urtean jaio zen. 2: bi dira [text messages].",
        "Kaixo: hau mendia da.",
        "Mendiak altuak dira, eta ibaiak luzeak dira hemen. Bai noski!",
        "Mendiak 🏔 altuak dira. ✅ Done.",
    ],
)
def test_what_looks_like_it_stays(text):
    assert numbered_texts(f"1. {BAT}\n2. {text}", 2) == [BAT, text]


def test_labels_of_single_texts_stay():
    assert numbered_texts(f"1. Atzo: {BAT}\n2. Gaur: {BI}", 2) == [f"Atzo: {BAT}", f"Gaur: {BI}"]
    assert numbered_texts(f"1. Atzo: {BAT}", 1) == [f"Atzo: {BAT}"]


def test_paragraphs_below_the_first_stay():
    for paragraph in (
        "Hiru dira guztira.",
        "✅ Hiru dira.\n✅ Lau dira.",
        "3: Bi eta bat dira.",
        "[1] Iturria da hau.",
    ):
        text = f"{BAT} Ibaiak ere luzeak dira.\n\n{paragraph}"
        assert numbered_texts(f"1. {text}\n\n2. {text}", 2) == [" ".join(text.split())] * 2
    chinese = "海是蓝色的，山很高，人们喜欢在夏天去那里。" * 3 + "\n\n他来了。"
    assert whole_text(chinese) == [chinese.replace("\n\n", " ")]


def test_words_in_bold_are_plain_and_paragraphs_stay():
    answer = f"1. **Aro zaharra:** {BAT}\n\n**Aro berria:** {BI}\n\n2. **Mendi**ak _oso_ altuak."
    assert numbered_texts(answer, 2) == [f"Aro zaharra: {BAT} Aro berria: {BI}", "Mendiak oso altuak."]


def test_whole_answers():
    assert whole_text(" Bat.\nBi. ") == ["Bat. Bi."]
    assert whole_text(" \n ") is None


def test_sentence_and_pair_filters():
    identifier = language_id.load("cld2")
    long_basque = "Gizon-emakume guztiak aske jaiotzen dira, duintasun eta eskubide berberak dituztela."
    long_english = "All human beings are born free and equal in dignity and rights."
    reasons = sentence_splitting.sentence_reject_reasons([long_basque, "Laburra da.", long_english], identifier, BASQUE)
    assert reasons == [None, "too_short", "other_language"]
    translations = [
        long_english,
        long_english[:-1],
        "Too short.",
        long_basque,
        long_english[:-1] + "!",
        long_english + " ",
    ]
    reasons = pair_reject_reasons(translations, identifier, ENGLISH)
    assert reasons == [None, "no_full_stop", "too_short", "other_language", "no_full_stop", None]
    assert pair_reject_reasons([long_english[:-1] + "…", "1" * 40 + ".", "-" * 40 + "."], None, ENGLISH) == [
        "no_full_stop",
        None,
        "no_words",
    ]
    assert {f"translation_{name}" for name in reasons if name} <= set(PAIR_REASONS)


def test_forty_characters_are_enough_and_thirty_nine_are_not():
    text = "All human beings are born free and equal in dignity and rights"
    reasons = pair_reject_reasons([text[:39] + ".", text[:38] + "."], None, ENGLISH)
    assert reasons == [None, "too_short"]
    reasons = sentence_splitting.sentence_reject_reasons([text[:40], text[:39]], None, ENGLISH)
    assert reasons == [None, "too_short"]
