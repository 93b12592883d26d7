"""spaCy pipelines (an optional package) by language, checked for the annotations that a caller needs."""

from functools import cache

from topxgen.common.errors import UsageError, reason
from topxgen.text.languages import Language

# spaCy's small pipelines with a parser (https://spacy.io/models), by ISO 639-1.
SPACY_MODELS = {
    "en": "en_core_web_sm", "zh": "zh_core_web_sm",
    **{code: f"{code}_core_news_sm" for code in (
        "ca", "da", "de", "el", "es", "fi", "fr", "hr", "it", "ja", "ko", "lt", "mk", "nb", "nl", "pl", "pt", "ro", "ru",
        "sl", "sv", "uk",
    )},
}  # fmt: skip
# Components that make each annotation; one is enough (https://spacy.io/api/#architecture-pipeline).
COMPONENTS = {
    "parts of speech": ("tagger", "morphologizer", "attribute_ruler"),
    "morphology": ("morphologizer", "attribute_ruler"),
    "dependencies": ("parser",),
    "named entities": ("ner", "entity_ruler", "span_ruler"),
}


def load(language: Language, model: str | None, needs: str, flag: str):
    """The pipeline `model`, or spaCy's small one for the language; `needs` is a key of COMPONENTS, `flag` the user's choice.

    Raises UsageError with the commands that install what is missing.
    """
    name = model or SPACY_MODELS.get(language.iso639_1)
    if name is None:
        raise UsageError(
            f"{flag} needs a spaCy pipeline, and spaCy has none for {language.name}: pip install spacy, then pass as --spacy_model "
            "your own or one of spacy.io/models (python -m spacy download MODEL)"
        )
    pipeline = _load(name, flag)
    kinds = set(pipeline.pipe_factories.values())
    if not kinds.intersection(COMPONENTS[needs]):
        raise UsageError(
            f"{flag} needs {needs}, but the spaCy pipeline {name!r} has only {', '.join(pipeline.pipe_names) or 'a tokenizer'}; "
            "pass another --spacy_model"
        )
    return pipeline


@cache
def _load(name: str, flag: str):
    try:
        import spacy
    except Exception as error:  # it is missing, or was built for another numpy
        raise UsageError(
            f"{flag} needs spaCy and a pipeline: pip install spacy, then python -m spacy download {name} ({reason(error)})"
        ) from None
    try:
        return spacy.load(name)
    except OSError:
        raise UsageError(
            f"{flag}: the spaCy pipeline {name!r} is not installed: python -m spacy download {name} (or --spacy_model FOLDER)"
        ) from None
    except Exception as error:  # a missing tokenizer package, another version, a damaged file
        raise UsageError(f"{flag}: the spaCy pipeline {name!r} does not load ({reason(error)})") from None
