"""Which pairs are kept, and how paragraphs are grouped for translation."""

import pytest

from topxgen.common.records import Paragraph
from topxgen.generation import back_translation
from topxgen.text import languages
from topxgen.translation import Translation, by_steps

BASQUE, ENGLISH = languages.find("Basque"), languages.find("English")
LONG = "This sentence is long enough to be kept here"


def translation(text: str, **more):
    return Translation(text, 0.5, **more)


def pairs(*translations) -> tuple[dict, list[dict]]:
    item = back_translation.SplitParagraph(
        Paragraph("p", "text", "topic"), [f"s{i}" for i in range(len(translations))], []
    )
    return back_translation._pairs(item, list(translations), None, ENGLISH), item.rejects


def test_a_pair_needs_a_full_stop_and_a_translation_without_an_error():
    record, rejects = pairs(
        translation(f"{LONG}."), translation(f"{LONG}. "), translation(LONG), translation(f"{LONG}!"),
        translation(f"{LONG}.", error="HTTP 400"), translation("Short.")
    )  # fmt: skip
    assert (
        record["propositions"] == ["s0", "s1"]
        and record["confidences"] == [0.5, 0.5]
        and record["scores"] == [None, None]
    )
    assert [(reject["sentence"], reject["reason"]) for reject in rejects] == [
        ("s2", "translation_no_full_stop"),
        ("s3", "translation_no_full_stop"),
        ("s4", "translation_failed"),
        ("s5", "translation_too_short"),
    ]
    assert rejects[2]["detail"] == "HTTP 400" and "detail" not in rejects[0]


@pytest.mark.parametrize(
    ("name", "kept", "dropped"),
    [
        ("English", ".", "!?…;।。"),
        ("Nepali", "।.", "?!"),
        ("Urdu", "۔.", "؟"),
        ("Chinese (Traditional)", "。", "？！"),
        ("Amharic", "።", "፧"),
        ("Greek", ".", ";"),
        ("Thai", ".? ก", ""),  # which has no full stop
    ],
)
def test_a_full_stop_is_that_of_the_target_language(name, kept, dropped):
    language = languages.find(name)
    reasons = back_translation.pair_reject_reasons([LONG + end for end in kept + dropped], None, language)
    assert reasons == [None] * len(kept) + ["no_full_stop"] * len(dropped)


@pytest.mark.parametrize(("key", "usual", "other"), [("segments", 1, 2), ("truncated", False, True)])
def test_segments_and_cuts_at_the_limit_are_recorded(key, usual, other):
    assert key not in pairs(translation(f"{LONG}."), translation(f"{LONG}."))[0]
    assert pairs(translation(f"{LONG}."), translation(f"{LONG}.", **{key: other}))[0][key] == [usual, other]
    assert pairs(translation(LONG, **{key: other}))[1][0][key] == other


def test_a_block_ends_when_it_has_so_many_sentences():
    paragraphs = [Paragraph(str(i), f"{LONG}|{LONG}|short", None) for i in range(5)]
    blocks = list(back_translation._blocks(paragraphs, lambda text: text.split("|"), None, BASQUE, 4))
    assert [[item.paragraph.id for item in block] for block in blocks] == [["0", "1"], ["2", "3"], ["4"]]
    assert all(len(item.sentences) == 2 and item.rejects[0]["reason"] == "sentence_too_short" for item in blocks[0])


@pytest.mark.parametrize(
    ("truncated", "end", "reasons"),
    [(True, end, ["sentence_unfinished"]) for end in ("", ",", " [sic]", "**")]
    + [(True, end, []) for end in (".”", " 1948.", "! 👍🏽", ".[1]", ". »", ".**", "।\u200f")]
    + [(False, "", [])],
)
def test_the_last_sentence_of_a_text_that_was_cut_needs_an_end(truncated, end, reasons):
    """Its translation would be that of half a sentence, or a whole one."""
    paragraph = Paragraph("p", f"{LONG}|{LONG}{end}", None, truncated)
    [[item]] = back_translation._blocks([paragraph], lambda text: text.split("|"), None, BASQUE, 4)
    assert [reject["reason"] for reject in item.rejects] == reasons and len(item.sentences) == 2 - len(reasons)


def test_a_block_without_sentences_is_reported_once():
    reported = []
    on_sentence = by_steps(reported.append, 3, 0)  # three paragraphs without a sentence to translate
    by_steps(on_sentence, 0, 0)(0)  # as the translator reports its own steps
    assert sum(reported) == 3
    on_sentence = by_steps(reported.append, 3, 7)
    for _ in range(7):
        on_sentence(1)
    assert sum(reported) == 6
