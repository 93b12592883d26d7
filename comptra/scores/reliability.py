"""Reliability of a metric in a language: what its model was trained on, and where it was compared with human judgements.

Only what a publication says is in the tables; what none is known to say is "unknown". A metric has to know each language
that it reads, and the least known one decides.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypedDict

from comptra.scores.metrics import Metric
from topxgen.text.languages import Language
from topxgen.text.words import UNSPACED_SCRIPTS

VALIDATED = ("validated", "trained", "surface")  # need no mark
STATUSES = ("weak", "unknown", *VALIDATED)  # from the least to the most reliable


class Reliability(TypedDict):
    """`status`: surface (compares strings: of no language more than of another), trained (on human judgements of the language),
    validated (compared with such judgements), unknown, weak (agrees little with people, or the model does not know the
    language)."""

    status: str
    note: str
    source: str


def _codes(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Languages that models were pre-trained on: ISO 639-1, where there is none 639-3. XLM-R's and mT5's are those of the model cards of
# facebook/xlm-roberta-xl and bigscience/mt0-base.
XLMR = _codes(
    "af am ar as az be bg bn br bs ca cs cy da de el en eo es et eu fa fi fr fy ga gd gl gu ha he hi hr hu hy id is it ja jv ka kk "
    "km kn ko ku ky la lo lt lv mg mk ml mn mr ms my nb ne nl om or pa pl ps pt ro ru sa sd si sk sl so sq sr su sv sw ta te th "
    "tl tr ug uk ur uz vi xh yi zh"
)
MT5 = _codes(
    "af am ar az be bg bn ca ceb co cs cy da de el en eo es et eu fa fi fr fy ga gd gl gu ha haw he hi hmn ht hu hy id ig is it ja "
    "jv ka kk km kn ko ku ky la lb lo lt lv mg mi mk ml mn mr ms mt my nb ne nl ny pa pl ps pt ro ru sd si sk sl sm sn so sq sr "
    "st su sv sw ta te tg th tl tr uk ur uz vi xh yi yo zh zu"
)
# Of AfroXLM-R (17 African languages, by the model card of Davlan/afro-xlmr-base), which went on from XLM-R.
AFRO_XLMR = XLMR | _codes("ig ny pcm rw rn sn st yo zu")
# Other languages of direct assessments (DA) at WMT than English, by the first year. Of WMT17 to WMT21 they are as many as the card of
# RicardoRei/wmt-da-human-evaluation counts (25 with English), of WMT22 those of wmt-sqm-human-evaluation.
_DA = {
    15: "cs de fi fr ru", 16: "ro tr", 17: "lv zh", 18: "et", 19: "gu kk lt", 20: "iu ja km pl ps ta",
    21: "ha is bn hi xh zu", 22: "hr liv sah uk",
}  # fmt: skip
_SINCE_17 = "cs de fi fr ru tr"  # of the older ones those that came again


def _da(first: int, last: int) -> frozenset[str]:
    again = _codes(_SINCE_17) if first > 15 else frozenset()
    return again.union({"en"}, *(_codes(text) for year, text in _DA.items() if first <= year <= last))


# Languages of Africa south of the Sahara in FLORES-200, but Afrikaans: ISO 639-3.
AFRICAN = _codes(
    "aka amh bam bem cjk dik dyu ewe fon fuv gaz hau ibo kam kbp kik kin kmb knc kon lin lua lug luo mos nso nus nya plt run sag sna "
    "som sot ssw swh taq tir tsn tso tum twi umb wol xho yor zul vmw pcm"
)
AFRIMTE = _codes("ary arz hau ibo kik luo som swh twi xho yor eng fra")
# Of 11 of its 14 pairs, as code that reads the data names them (github.com/estebangatein/afri-eval).
SSA_MTE = _codes("eng fra por amh ewe hau kik kin luo nya twi vmw wol yor")

_SSA_NOTE = (
    "most metrics stay below a Spearman correlation of 0.4 with people on the African pairs of SSA-MTE at WMT25; which of its pairs are "
    "of this language is not in the table"
)
_SSA_SOURCE = "Li et al. 2025, Evaluating WMT 2025 Metrics Shared Task Submissions on the SSA-MTE African Challenge Set"


@dataclass(frozen=True)
class Coverage:
    """What is known of a metric. Codes are ISO 639-1 or 639-3."""

    source: str  # of the languages it was trained on
    model: str = ""  # the model it was trained from, for notes
    seen: frozenset[str] | None = None  # languages of that; None: it says itself which it knows
    judgements: str = ""  # for notes
    trained: frozenset[str] = frozenset()
    validated: frozenset[str] = frozenset()
    validation: str = ""
    note: str = ""  # for all languages that have no note of their own


_README = "README of google-research/metricx"
_METRICX_24 = Coverage(f"Juraska et al. 2024; {_README}", "mT5", MT5, "DA of WMT15 to WMT22", _da(15, 22))
_METRICX_23 = Coverage(f"Juraska et al. 2023; {_README}", "mT5", MT5, "DA of WMT15 to WMT21", _da(15, 21))
_COMET_DA = _da(17, 20)
_MLQE = _codes("ne ro si et de zh ru")  # MLQE-PE: Fomicheva et al. 2022
_AFRI = "AfroXLM-R"
_SSA_COMET = Coverage(
    "Li et al. 2025, SSA-COMET: Do LLMs Outperform Learned Metrics in Evaluating MT for Under-Resourced African Languages?",
    _AFRI,
    None,
    "SSA-MTE",
    SSA_MTE,
    note="made for African languages; of its 14 pairs 11 are in the table, none of them of this language",
)
_AFRICOMET = Coverage(
    "Wang et al. 2024, AfriMTE and AfriCOMET: Enhancing COMET to Embrace Under-resourced African Languages",
    _AFRI,
    AFRO_XLMR | AFRIMTE,
    "DA of well-resourced languages",
    validated=AFRIMTE,
    validation="AfriMTE, 13 language pairs (Spearman correlation 0.406 in all)",
    note="trained on DA of well-resourced languages, which are not in the table",
)
_GEMBA = Coverage(
    "Kocmi and Federmann 2023, Large Language Models Are State-of-the-Art Evaluators of Translation Quality; GEMBA-MQM",
    note="depends on the LLM; published figures are of OpenAI's models on English-German, English-Russian and Chinese-English",
)
# fmt: off
COVERAGE: dict[str, Coverage] = {
    "blaser-qe": Coverage("Seamless Communication et al. 2023; Duquenne et al. 2023 (SONAR)", "SONAR (200 languages)",
                          note="trained on XSTS judgements; of which languages is not in the table"),
    "metricx-24": _METRICX_24,
    "metricx-24-qe": _METRICX_24,
    "metricx-23": _METRICX_23,
    "metricx-23-qe": _METRICX_23,
    "comet": Coverage("Rei et al. 2022, COMET-22; its model card", "XLM-R", XLMR, "DA of WMT17 to WMT20", _COMET_DA),
    "xcomet": Coverage("Guerreiro et al. 2024, xCOMET", "XLM-R XL", XLMR, "DA of WMT17 to WMT20, MLQE-PE and MQM", _COMET_DA | _MLQE),
    "cometkiwi": Coverage("Rei et al. 2022, CometKiwi; its model card", "InfoXLM, which goes on from XLM-R", XLMR,
                          "DA of WMT17 to WMT20 and MLQE-PE", _COMET_DA | _MLQE),
    "ssa-comet": _SSA_COMET,
    "ssa-comet-qe": _SSA_COMET,
    "africomet": _AFRICOMET,
    "africomet-qe": _AFRICOMET,
    "gemba-da": _GEMBA,
    "gemba-mqm": _GEMBA,
    "gemba-esa": _GEMBA,
    "mt-ranker": Coverage("Moosa et al. 2024, MT-Ranker: Reference-free Machine Translation Evaluation by Inter-system Ranking", "mT5", MT5,
                          note="trained on entailment, human against machine translations and synthetic pairs, without human judgements"),
}
# fmt: on
_WORDS = ("bleu-13a", "ter")  # of texts without spaces they see one word


def reliability(name: str, row: Metric, src: Language, tgt: Language) -> Reliability:
    """What is known of the metric `name` for translations from `src` into `tgt`."""
    if name in COVERAGE:
        coverage = COVERAGE[name]
        languages = (tgt, src) if "source" in row.reads else (tgt,)
        found = [_of(coverage, language) for language in languages]
        return min(found, key=lambda value: STATUSES.index(value["status"]))
    if name in _WORDS and tgt.script in UNSPACED_SCRIPTS:
        note = f"{tgt.name} is written without spaces, and this metric compares words"
        return Reliability(status="weak", note=note, source="Post 2018 (sacreBLEU)")
    if row.target.startswith("comptra.scores.surface:"):
        return Reliability(status="surface", note="compares strings", source="")
    return Reliability(status="unknown", note="not in the table of this program", source="")


def _of(coverage: Coverage, language: Language) -> Reliability:
    def found(status: str, note: str, source: str = coverage.source) -> Reliability:
        return Reliability(status=status, note=f"{language.name}: {note}", source=source)

    if _has(coverage.trained, language) and not (_is_african(language) and coverage is not _SSA_COMET):
        return found("trained", f"trained on human judgements of it ({coverage.judgements})")
    if _has(coverage.validated, language):
        return found("validated", f"compared with human judgements of it: {coverage.validation}")
    if coverage.seen is not None and not _has(coverage.seen, language):
        return found("weak", f"{coverage.model} was not trained on it")
    if coverage.model not in ("", _AFRI) and _is_african(language):
        return found("weak", _SSA_NOTE, _SSA_SOURCE)
    if coverage.note:
        return found("unknown", coverage.note)
    without = f"no human judgements of it ({coverage.judgements})"
    return found("unknown", f"{coverage.model} was trained on it, but {without}")


def _has(codes: Iterable[str], language: Language) -> bool:
    return language.iso639_1 in codes or language.iso639_3 in codes


def _is_african(language: Language) -> bool:
    return language.iso639_3 in AFRICAN
