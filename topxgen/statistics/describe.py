"""The statistics of corpora: their size and lengths, and their diversity on samples of equal size."""

import logging
import math
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from topxgen.common.console import ONCE, Progress
from topxgen.common.errors import UsageError
from topxgen.inference import ModelSettings
from topxgen.retrieval import encoders
from topxgen.statistics import diversity
from topxgen.statistics.corpus import Corpus
from topxgen.text import sentence_splitting
from topxgen.text.languages import Language
from topxgen.text.words import is_blank, unicode_words

logger = logging.getLogger(__name__)

PERCENTILES = (5, 25, 50, 75, 95)
SIDES = ("sentences", "translations")


@dataclass(frozen=True)
class Options:
    """`sample`: how many sentences at most the diversity is computed of; `encode`: (texts, language) -> vectors (n, d), or None for a
    language that the encoder does not know (see `encoding`); `count_tokens`: texts -> their number of tokens; `topics`: all of a
    topics file, None for no file."""

    sample: int = 1000
    seed: int = 122
    encode: Callable[[list[str], Language], object] | None = None
    count_tokens: Callable[[list[str]], int] | None = None
    topics: Collection[str] | None = None
    categories: Mapping[str, str] = field(default_factory=dict)  # of these topics, where the file has them


def encoding(encoder) -> Callable[[list[str], Language], object]:
    """`encode` of Options by an encoder of topxgen.retrieval.encoders: None for languages that it was not trained on, whose
    vectors would say little about meaning."""

    def encode(texts: list[str], language: Language):
        if not encoders.was_trained_on(encoder, language):
            logger.info(f"no Vendi score of {language.name}, which the encoder was not trained on", extra=ONCE)
            return None
        with Progress(f"encode {language.name}", len(texts), "texts") as bar:
            return encoder.encode(texts, language, bar.update)

    return encode


def token_counter(model: str) -> Callable[[list[str]], int]:
    """`count_tokens` of Options by a model's tokenizer, without special tokens. Raises UsageError if it does not load."""
    from topxgen.inference.tokenizer import load_tokenizer, plain_ids

    tokenizer = load_tokenizer(ModelSettings(model))

    def count_tokens(texts: list[str]) -> int:
        return sum(
            len(ids)
            for start in range(0, len(texts), 1000)
            for ids in plain_ids(tokenizer, texts[start : start + 1000])
        )

    return count_tokens


def describe(corpora: Sequence[Corpus], options: Options) -> list[dict]:
    """The statistics of each corpus, all of one language.

    Measures of diversity depend on the size of the sample, so that all corpora have the same number of sentences and of words
    in it: those of the smallest one that has any. Values that cannot be computed are None.
    """
    texts = [_texts(corpus) for corpus in corpora]
    described = [_size(corpus, *sides, options) for corpus, sides in zip(corpora, texts, strict=True)]
    for number, side in enumerate(SIDES):
        languages = [corpus.target if number else corpus.language for corpus in corpora]
        measured = _diversity([sides[number] for sides in texts], languages, options)
        for part, values in zip(described, measured, strict=True):
            part[side] = values
    return described


def _texts(corpus: Corpus) -> tuple[list[str], list[str]]:
    """The sentences, those of the paragraphs where there are no pairs, and the translations."""
    if corpus.pairs is not None:
        return [pair.sentence for pair in corpus.pairs], [pair.translation for pair in corpus.pairs]
    return [sentence for sentences in _split(corpus) for sentence in sentences], []


def _split(corpus: Corpus) -> list[list[str]]:
    splitter = sentence_splitting.load("sentencex", corpus.language, corpus.paragraphs)
    return [splitter.split(paragraph) for paragraph in corpus.paragraphs]


def _size(corpus: Corpus, sentences: list[str], translations: list[str], options: Options) -> dict:
    counts: dict = {
        "paragraphs": len(corpus.paragraphs),
        "sentences": len(sentences) if corpus.pairs is None else sum(map(len, _split(corpus))),
        "pairs": None if corpus.pairs is None else len(corpus.pairs),
    }
    words = {}
    for side, texts in zip(SIDES, (sentences, translations), strict=True):
        has_any = side == "sentences" or corpus.pairs is not None
        words[side] = _word_counts(texts)
        counts[f"words_of_{side}"] = sum(words[side]) if has_any else None
        if options.count_tokens:
            counts[f"tokens_of_{side}"] = options.count_tokens(texts) if has_any else None
    return {
        "path": corpus.path,
        "stage": corpus.stage,
        "language": corpus.language.name,
        "target_language": corpus.target.name if corpus.target else None,
        "is_cut": corpus.is_cut,
        "counts": counts,
        "lengths": {
            "words_per_paragraph": summary(_word_counts(corpus.paragraphs)),
            "words_per_sentence": summary(words["sentences"]),
            "words_per_translation": summary(words["translations"]),
        },
        "topics": topic_statistics(corpus, options.topics, options.categories),
        "scores": score_statistics(corpus),
    }


def _word_counts(texts: list[str]) -> list[int]:
    return [len(unicode_words(text)) for text in texts]


def summary(values: Iterable[float]) -> dict[str, float] | None:
    """Mean, extremes and percentiles (interpolated linearly); None of nothing."""
    import numpy as np

    values = np.fromiter(values, np.float64)
    if not len(values):
        return None
    percentiles = zip((f"p{p}" for p in PERCENTILES), np.percentile(values, PERCENTILES), strict=True)
    ends = {"mean": float(values.mean()), "min": float(values.min()), "max": float(values.max())}
    return ends | {name: float(value) for name, value in percentiles}


def topic_statistics(
    corpus: Corpus, known: Collection[str] | None, categories: Mapping[str, str] | None = None
) -> dict | None:
    """How many topics the paragraphs have, and what share of a file's topics `known` has a paragraph, also by category. None
    without topics.

    `effective_topics`: exp of the entropy of the topics, the number of equally frequent ones that would be as diverse (Hill
    1973, "Diversity and Evenness").
    """
    counts = Counter(topic for topic in corpus.topics if topic)
    if not counts:
        return None
    total = counts.total()
    values = {
        "with_topic": total,
        "topics": len(counts),
        "effective_topics": math.exp(-sum(n / total * math.log(n / total) for n in counts.values())),
    }
    if known is not None:
        known = set(known)
        values |= {
            "in_file": len(known),
            "covered": len(known & counts.keys()),
            "coverage": len(known & counts.keys()) / len(known),
            "not_in_file": sum(n for topic, n in counts.items() if topic not in known),
        }
        sizes = Counter(categories[topic] for topic in known if topic in (categories or ()))
        covered = Counter(categories[topic] for topic in known & counts.keys() if topic in (categories or ()))
        values["by_category"] = {
            name: {"in_file": size, "covered": covered[name], "coverage": covered[name] / size}
            for name, size in sorted(sizes.items())
        }
    return values


def score_statistics(corpus: Corpus) -> dict[str, dict]:
    """The quality scores, by scorer ("" if the records do not name it): scores of two cannot be compared."""
    scores: dict[str, list[float]] = {}
    for pair in corpus.pairs or ():
        if pair.score is not None:
            scores.setdefault(pair.scorer or "", []).append(pair.score)
    return {scorer: {"scored": len(values)} | summary(values) for scorer, values in sorted(scores.items())}


def _diversity(sides: list[list[str]], languages: list[Language | None], options: Options) -> list[dict | None]:
    """The measures for each list of texts, empty ones left out, on samples of equal size; None where there are none."""
    sides = [[text for text in texts if not is_blank(text)] for texts in sides]
    size = min([options.sample, *(len(texts) for texts in sides if texts)])
    samples = []
    for texts in sides:  # the same for the same texts and seed
        order = list(range(len(texts)))
        random.Random(f"sample {options.seed}").shuffle(order)
        samples.append([texts[i] for i in order[:size]])
    tokens = [list(map(unicode_words, sample)) for sample in samples]
    words = min((sum(map(len, lists)) for lists in tokens if lists), default=0)
    scores = _vendi_scores(samples, languages, options)
    return [
        _measures(texts, sample, lists, words) | {"vendi_score": score} if texts else None
        for texts, sample, lists, score in zip(sides, samples, tokens, scores, strict=True)
    ]


def _vendi_scores(samples: list[list[str]], languages: list[Language | None], options: Options) -> list[float | None]:
    """That of each sample, None where there is none. All texts of a language are encoded together: samples have some in common."""
    scores: list[float | None] = [None] * len(samples)
    for language in dict.fromkeys(languages) if options.encode else ():
        members = [i for i, sample in enumerate(samples) if sample and languages[i] == language]
        texts = [text for i in members for text in samples[i]]
        vectors = options.encode(texts, language) if texts else None
        start = 0
        for i in members if vectors is not None else ():
            try:
                scores[i] = diversity.vendi_score(vectors[start : start + len(samples[i])])
            except ValueError as error:
                raise UsageError(f"no Vendi score of {language.name}: {error}; pass another --encoder") from None
            start += len(samples[i])
    return scores


def _measures(texts: list[str], sample: list[str], tokens: list[list[str]], words: int) -> dict:
    cut = first_words(tokens, words)
    return {
        "sample": len(sample),
        "sample_words": sum(map(len, cut)),
        "type_token_ratio": diversity.moving_type_token_ratio(word for text in texts for word in unicode_words(text)),
        **{f"distinct_{n}": diversity.distinct_n(cut, n) for n in range(1, 5)},
        "compression_ratio": diversity.compression_ratio(sample[: len(cut)]),
        "self_bleu": diversity.self_bleu(tokens),
    }


def first_words(tokens: list[list[str]], words: int) -> list[list[str]]:
    """The texts up to the first `words` words, the last one cut."""
    cut = []
    for end, text in zip(accumulate(map(len, tokens)), tokens, strict=True):
        if end - len(text) >= words:
            break
        cut.append(text[: len(text) - max(end - words, 0)])
    return cut
