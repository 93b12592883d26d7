"""Each script without spaces has a word a character."""

import pytest

from topxgen.generation.filters import TOPXGEN_FILTERS, load_filters, reject_reason
from topxgen.text import languages


@pytest.mark.parametrize(
    "language, text",
    [("Thai", "กขค"), ("Japanese", "日本語"), ("Lao", "ກຂຄ"), ("Khmer", "កខគ"), ("Burmese", "ကခဂ"), ("Standard Tibetan", "ཀཁག"), ("Chinese (Simplified)", "我们好")],
)  # fmt: skip
def test_three_characters_are_three_words(language, text):
    filters = load_filters(TOPXGEN_FILTERS)
    assert reject_reason(text, languages.find(language), filters) is None
    assert reject_reason(text[:2], languages.find(language), filters) == "too_few_words"
