"""Splits paragraphs into sentences, by sentencex's rules and the language's terminators or by Punkt; filters sentences."""

import re
import unicodedata
from collections.abc import Iterable, Iterator

from topxgen.common.registry import Choice, load_choice
from topxgen.text.languages import Language
from topxgen.text.words import length, unicode_words

# Classes built of (language, paragraphs), with split(paragraph) -> sentences.
SPLITTERS: dict[str, Choice] = {
    "sentencex": Choice("topxgen.text.sentence_splitting:Sentencex", "Wikimedia's rules for each language"),
    "punkt": Choice("topxgen.text.sentence_splitting:Punkt", "NLTK's Punkt, trained on the paragraphs themselves"),
}
MIN_CHARACTERS = 40  # of a sentence (words.length), as in the published system: docs/generation.md
_ALWAYS_CLOSING = frozenset("”)]」』》〉】）")
# “ ‘ « ‹ close in German and its neighbours; the others are apostrophes.
_CLOSING = _ALWAYS_CLOSING | frozenset("\"“„«»‹›'‘’‚‛`´ʻʼʽʹ′ꞌ")
_BEHIND_END, _EMOJI_OR_SPACES = _CLOSING | frozenset("*_"), frozenset(["Zs", "Cf", "Mn", "Sk", "So"])
_HIDDEN = _CLOSING | frozenset("([「『《〈【（")
_TERMINATORS = ".!?…‼⁇⁈⁉。！？｡؟۔।॥"  # in every language, beside its own
# [1] and [2, 3] anywhere, [note 1] after a word or a full stop, ¹ after a full stop.
_FOOTNOTE = (
    r"(?:\[\d{1,3}(?:\s?[,–-]\s?\d{1,3})*\]|(?<=[^\s\[\]])\[[^\[\]\n]{1,30}\](?![^\W_])"
    r"|(?<=[.!?…।۔։።။॥\"”»’])[¹²³⁰⁴-⁹]+)"
)
_ELLIPSIS = re.compile(r"…(?!\S)")  # like three full stops, which sentencex knows
_EMOJI = r"(?:[\u2600-\u27bf\u2b50\u2b55\U0001f300-\U0001faff][\ufe0f\u200d\U0001f3fb-\U0001f3ff]*)+"
_AFTER = re.compile(rf"(?:\s?{_FOOTNOTE}|\s[»›](?!\S)|\s?{_EMOJI}(?!\S))+")  # and the spaced » of French
_WORD = re.compile(r"(?<!\S)([^\W\d_][^\W\d_\u0300-\u036f]*)\.(?=\s)")  # with a full stop
_AFTER_NUMBER_OR_INITIAL, _INITIAL = re.compile(r"[\d.]\s+\Z"), re.compile(r"\s+\w\.")  # 5 a. Tallinn, i. e., a. C.
_LAST_WORD = re.compile(r"[^\W\d_][\w\u0300-\u036f\u0900-\u1fff]*\Z")
_WORD_AT_END = re.compile(r"(?:\s(?=\w\w)|\w[-'’])([^\W\d_](?:[^\W\d_]|[\u0300-\u036f])*)\.\Z")
_ENUMERATOR = re.compile(r"\.\s+\(\d{1,2}\)\s")  # (1), whose parentheses are hidden from sentencex
# Follows a quotation whose sentence continues: a particle (in Japanese: not a word that only starts like one).
_GOES_ON = {
    "Jpan": re.compile(
        r"[」』）]+(?:(?:[とをはがのもへや]|に(?:も|は)?|で(?:も|は)?)(?=[^ぁ-ゟ、。])"
        r"|と(?:[いおのはさ、]|も(?!かく|だち|に))|って|を|など)"
    ),
    "Hang": re.compile(r"[\"”’'」』]+(?=[가-힣])"),
    "Mymr": re.compile(r"[\"”’»]+\s*(?:ဟု|ဟူ|လို့)"),  # who spoke follows
    "Ethi": re.compile(r"[\"”’»]+\s*(?:አለ|አለች|አሉ|ብሎ|ብላ|በማለት|ሲል|ስትል|ሲሉ)(?!\w)"),
    "Deva": re.compile(r"[\"”’]+\s*(?:भन्|भने|भनी|कहा|कहते)"),
    **dict.fromkeys(
        ("Hans", "Hant"), re.compile(r"[”」』]+(?=[他她它我你您]?[们們]?(?:说|說|道[，。：]|问道|問道|喊))")
    ),
}
# What goes on after a question or a quotation, although a small letter begins it: "he asked", within a few words, or a conjunction.
# Without such a row, all that begins with a small letter does.
_REPORTS = {
    "hau": re.compile(
        r"\s*(?:(?:[\w'’ʼ]+\s+){0,4}?(?:ce|cewa|in ji|faɗ[aie]|fad[aie]|gaya|tambay[aie]|amsa|bayyana|sanar|furta|jaddada|ambata|"
        r"ruwaito|rubuta|karanta|mamaki|ihu|ra[ɗd]a)|kamar|kuma|amma|da|don|domin|saboda|lokacin|yayin|inda|har|sai)(?![\w'’ʼ])"
    ),
}
_FINAL_WORDS = {"hau": ("ne", "ce")}  # copulas, which end sentences, in titles ("Ni Wani Sananne Ne.") too
_CASED_SCRIPTS = frozenset(["Latn", "Cyrl", "Grek", "Armn", "Adlm"])
UNMARKED_SCRIPTS = frozenset(["Thai", "Laoo"])  # scripts without a mark for the end of a sentence
_VOWELS = "aeiouyɔɛəɩʋ"
_SYLLABIC_NASALS = frozenset(["aka", "bam", "dyu", "ewe", "fon", "ibo", "mos", "twi", "yor"])  # m and n are words, too
# In small letters before a capital.
_ABBREVIATIONS = frozenset(["al", "approx", "ca", "esp", "etc", "fig", "ing", "prof", "ref", "univ", "vol"])
# Forms of address and the like that stand before names, for languages without rules of their own
_TITLES = "Mr Mrs Ms Dr Prof St Rev Hon Gen Sen Rep Gov Capt Lt Col Sgt Ir"
_INDONESIAN_TITLES = "Drs Hj KH Jl Jln Bp Bpk Tn Ny Sdr"
_OWN_TITLES = {
    **dict.fromkeys(("ind", "jav", "min", "sun", "zsm"), _INDONESIAN_TITLES),
    "eus": "Jn And",
    "fra": "M MM Mme Mmes Mlle",
    "hau": "Alh Mal Dkt Inj",
    "ibo": "Maz Dọk Dok",
    "som": "Md Sh Jen",
    "swh": "Bi Bw Bwn Dk Dkt Mh Mhe Jen Mt",
    "xho": "Mnu uMnu UMnu Nks uNks UNks Nksz uNksz UNksz Gqr uGqr UGqr",
    "zul": "Mnu uMnu UMnu Nks uNks UNks Nksz uNksz UNksz Dkt uDkt UDkt",
}
# Currencies and the like, and in a language "number" or "page", where a number follows
_BEFORE_NUMBERS = "No Nr Nos Rp Rs Sh Shs Tsh TSh Ksh KSh Ush USh Frw Art Vol pp"
_OWN_BEFORE_NUMBERS = {
    **dict.fromkeys(("ind", "jav", "min", "sun", "zsm"), "hal Pasal tgl Tgl"),
    "eus": "zk orr or",
    "swh": "Na Uk uk tar Tar",
}
# Languages that write ordinals with a full stop: "II. Mundu Gerra"
_ORDINAL_STOPS = "eus bos ces dan est fao fin hrv hun isl lvs nno nob slk slv srp tur azj"
_INITIALS_GO_ON = re.compile(r"[^\W\d_]\.[^\W\d_]\.")  # in U.S.A.
_ROMAN = re.compile(r"(?<!\w)[IVX]+\Z")
_NOTHING, _ARABIC_LETTER = re.compile(r"(?!)"), re.compile(r"(?:^|[\s.])[ء-ے]\Z")
_NUMBER_NEXT = re.compile(r"\s*\d")
# The names of Latin letters in Urdu, of which abbreviations and initials consist: ڈی۔این۔اے
_LETTER_NAMES = (
    r"(?:اے|بی|سی|ڈی|ای|ایف|جی|ایچ|آئی|جے|کے|ایل|ایم|این|او|پی|کیو|آر|ایس|ٹی|یو|وی|ڈبلیو|ایکس|وائی|زیڈ|[ء-ے])"
)
_SPELLED = {
    "urd": re.compile(rf"(?<![^\s۔(])(?:(?:{_LETTER_NAMES}۔ )+{_LETTER_NAMES}۔|(?:{_LETTER_NAMES}۔)+{_LETTER_NAMES}\b)")
}
_OPENING_QUOTATION = re.compile(r"\s+[“\"«]")
_FULL_STOPS = "۔।॥።။។։᱾᱿"


class Sentencex:
    """Wikimedia's rule-based splitter, with the rules of the language, of a relative, or its defaults.

    Rules are added, each measured in scripts/perf/splitting_quality.py:
    - A terminator of the language ends a sentence whatever rules apply (। in Nepali, ۔ in Urdu), and nothing else does.
    - Quotation marks, apostrophes, brackets and footnotes are hidden from sentencex, which does not split inside
      quotations: one unpaired mark, or the apostrophe of a word (Hausa ‘yan), would join half a paragraph.
    - A sentence does not begin with a lower-case letter, which keeps ordinals and abbreviations together ("17. mendean"),
      unless a quotation begins, what stands before the full stop is clearly a word, or (Hausa) after a question or a quotation
      nobody is reported to speak; where the rules are not the language's own. "۔ weather.com" begins one: Urdu has no capitals.
    - A Japanese or Korean sentence goes on if a particle follows a quotation (「…。」と); "(1)" begins a sentence.
    - Small letters before a full stop and a capital letter are a word, no initial ("ndị a. Ụlọ") nor one of the English
      abbreviations that sentencex applies to every language without rules ("36 ne. Ban", Nebraska).
    - A number alone is no sentence ("1. Etxea."), nor does one end after a Roman ordinal ("II. Mundu Gerra") or in ३.५.
    - A title ("Bi. Asha") is no end, nor an abbreviation before a number ("Rp. 500"), nor an Arabic letter ("د. خالد"), nor the
      names of letters in Urdu ("ڈی۔این۔اے"), nor "." after a letter where the paragraph has । or the like ("डा. राम गए।").
    """

    def __init__(self, language: Language, paragraphs: Iterable[str] = ()):
        from sentencex import segment

        self._segment = segment
        self._code = language.sentencex or language.iso639_1 or "en"
        self._terminators = frozenset(language.terminators + _TERMINATORS)
        marks = "".join(re.escape(mark) for mark in language.terminators if not mark.isascii() and mark != "…")
        patterns = [f"[{marks}]"] if marks else []
        if language.script == "Ethi":  # two word separators, typed for ።
            patterns.append("፡፡")
        self._own_marks = re.compile("|".join(patterns)) if patterns else _NOTHING
        native_stops = "".join(mark for mark in _FULL_STOPS if mark in language.terminators)
        self._native_stop = re.compile(f"[{native_stops}]") if native_stops else _NOTHING
        titles = _OWN_TITLES.get(language.iso639_3, "")
        if language.splitting_rules != "own" or language.script != "Latn":  # else sentencex knows the language's
            titles += f" {_TITLES}"
        self._titles = frozenset(titles.split())
        self._before_numbers = frozenset(f"{_BEFORE_NUMBERS} {_OWN_BEFORE_NUMBERS.get(language.iso639_3, '')}".split())
        self._numbers_are_ordinals = language.iso639_3 in _ORDINAL_STOPS.split()
        self._spelled = _SPELLED.get(language.iso639_3, _NOTHING)
        self._goes_on = _GOES_ON.get(language.script)
        self._reports = _REPORTS.get(language.iso639_3)
        self._final_words = _FINAL_WORDS.get(language.iso639_3, ())
        self._has_capitals = language.script in _CASED_SCRIPTS
        self._own_rules = language.splitting_rules == "own"
        self._english_rules = language.sentencex in ("", "en")
        self._one_letter_words = _VOWELS if self._english_rules or not self._own_rules else ""
        if language.iso639_3 in _SYLLABIC_NASALS:
            self._one_letter_words += "mnŋ"

    def split(self, paragraph: str) -> list[str]:
        """The sentences of `paragraph`, in order, without surrounding whitespace."""
        pieces, start = [], 0
        for end in [*self._boundaries(paragraph), len(paragraph)]:
            pieces.append(paragraph[start:end])
            start = end
        return [stripped for piece in pieces if (stripped := piece.strip())]

    def _boundaries(self, paragraph: str) -> Iterator[int]:
        """Offsets at which a sentence ends and another begins."""
        start = 0
        notes = {i for match in re.finditer(_FOOTNOTE, paragraph) for i in range(*match.span())}
        visible = [i for i, char in enumerate(paragraph) if char not in _HIDDEN and i not in notes]
        plain = "".join(paragraph[i] for i in visible)
        ends = {visible[last] + 1 for last in self._last_characters(plain)}
        before_numbers = (match.start() + 1 for match in _ENUMERATOR.finditer(paragraph))
        for end in sorted(ends | {end for end in before_numbers if _ends_in_word(paragraph[:end])}):
            if self._goes_on and self._goes_on.match(paragraph, end):
                continue
            last = end - 1
            while paragraph[end : end + 1] in _CLOSING and (
                paragraph[end] in _ALWAYS_CLOSING or not paragraph[end + 1 : end + 2].isalnum()
            ):
                end += 1
            if after := _AFTER.match(paragraph, end):
                end = after.end()
            following = next((char for char in paragraph[end:] if char.isalnum() and char not in _HIDDEN), "")
            # Georgian letters are lower-case to Unicode, but have no capitals in running text.
            small = following.islower() and following != following.title()
            is_number = not any(map(str.isalpha, paragraph[start:end]))  # "1." of a list
            if following and not is_number and (not small or self._begins_small(paragraph, last, end)):
                yield end
                start = end

    def _begins_small(self, paragraph: str, last: int, end: int) -> bool:
        """Whether a sentence begins at `end` with a small letter, where the one before has its `last` character."""
        if not self._has_capitals and self._own_marks.match(paragraph[last]):
            return True
        if self._own_rules:
            return False
        asks_or_quotes = paragraph[last] in "?!" or paragraph[last + 1 : end].strip()
        unreported = self._reports and asks_or_quotes and not self._reports.match(paragraph, end)
        return bool(unreported) or _ends_clearly(paragraph, end)

    def _last_characters(self, plain: str) -> set[int]:
        """Offsets of the last characters of sentences in text without quotation marks."""
        offset, found = 0, set()
        for piece in self._segment(self._code, _ELLIPSIS.sub(".", plain)):
            last = offset + len(piece.rstrip()) - 1
            offset += len(piece)
            if last >= 0 and (plain[last] in self._terminators or "\n" in piece[len(piece.rstrip()) :]):
                found.add(last)
        for match in self._own_marks.finditer(plain):
            if plain[match.end() : match.end() + 1] not in self._terminators:  # the last of a run
                found.add(match.end() - 1)
        found |= {match.end() - 1 for match in _WORD.finditer(plain) if self._is_word(match)}
        for match in self._spelled.finditer(plain):
            found.difference_update(range(*match.span()))
        has_native_stop = bool(self._native_stop.search(plain))
        return {last for last in found if plain[last] != "." or not self._is_abbreviation(plain, last, has_native_stop)}

    def _is_abbreviation(self, plain: str, last: int, has_native_stop: bool) -> bool:
        """Whether the full stop at `last` ends a title, an abbreviation before a number, or a word of a script that has a full
        stop of its own."""
        word = _LAST_WORD.search(plain[max(last - 40, 0) : last])
        letters = word[0] if word else ""
        if plain[last - 1 : last].isdecimal() and plain[last + 1 : last + 2].isdecimal():  # sentencex knows 0 to 9
            return True
        if _INITIALS_GO_ON.match(plain, last - 1):
            return True
        if self._numbers_are_ordinals and _ROMAN.search(plain[max(last - 8, 0) : last]):
            return True
        if has_native_stop and any(unicodedata.category(char) == "Lo" for char in letters):
            return True
        if letters in self._before_numbers and _NUMBER_NEXT.match(plain, last + 1):
            return True
        if _ARABIC_LETTER.search(plain[max(last - 2, 0) : last]):
            return True
        return letters in self._titles

    def _is_word(self, match: re.Match) -> bool:
        """Whether what stands before a full stop is no abbreviation, as far as that can be seen."""
        word, letters = match[1], unicodedata.normalize("NFD", match[1])
        if word.isupper() and len(word) > 1:  # DC, which is an abbreviation of a name in English only
            return self._english_rules and not self._own_rules
        if word.lower() in self._final_words:
            return True
        if not word.islower():
            return False
        if sum(map(str.isalpha, letters)) > 1:
            return self._english_rules and word not in _ABBREVIATIONS and any(vowel in letters for vowel in _VOWELS)
        before = _AFTER_NUMBER_OR_INITIAL.search(match.string, max(match.start() - 3, 0), match.start())
        return letters[0] in self._one_letter_words and not before and not _INITIAL.match(match.string, match.end())


def _ends_clearly(paragraph: str, end: int) -> bool:
    """Whether a sentence ends there although a lower-case letter follows."""
    return bool(_OPENING_QUOTATION.match(paragraph, end)) or _ends_in_word(paragraph[:end])


def _ends_in_word(text: str) -> bool:
    """Whether the full stop at the end of `text` follows a word, not an abbreviation: one that is long or ends in a vowel."""
    match = _WORD_AT_END.search(text[-40:])
    word = match[1] if match else ""
    letters = [char for char in unicodedata.normalize("NFD", word) if char.isalpha()]
    if not letters:  # ⅩⅨ, numbers to Unicode
        return False
    is_long, ends_in_vowel = len(letters) >= 5, letters[-1] in _VOWELS
    return (is_long or ends_in_vowel) if word.islower() else (is_long and ends_in_vowel)


class Punkt:
    """NLTK's unsupervised splitter (Kiss and Strunk 2006), trained on the paragraphs themselves."""

    def __init__(self, language: Language, paragraphs: Iterable[str]):
        from nltk.tokenize.punkt import PunktLanguageVars, PunktSentenceTokenizer, PunktTrainer

        class Variables(PunktLanguageVars):
            sent_end_chars = tuple(mark for mark in language.terminators if mark != "…")

        variables = Variables()
        trainer = PunktTrainer(lang_vars=variables)
        for paragraph in paragraphs:
            trainer.train(paragraph, finalize=False)
        trainer.finalize_training()
        self._tokenizer = PunktSentenceTokenizer(trainer.get_params(), lang_vars=variables)

    def split(self, paragraph: str) -> list[str]:
        return [stripped for piece in self._tokenizer.tokenize(paragraph) if (stripped := piece.strip())]


def warning(language: Language) -> str | None:
    """What users of a language should know whose sentences nothing separates."""
    if language.script not in UNMARKED_SCRIPTS:
        return None
    return (
        f"{language.name} is written without a mark between sentences: paragraphs are split at . ? ! and line breaks only, and most "
        "pairs hold several sentences; prompts that ask for one sentence on each line give shorter pairs"
    )


def load(name: str, language: Language, paragraphs: Iterable[str]):
    """The splitter of that name; Punkt iterates over `paragraphs` once."""
    return load_choice("--splitter", name, SPLITTERS)(language, paragraphs)


def has_end(sentence: str, language: Language) -> bool:
    """Whether a sentence ends with a terminator; quotation marks, footnotes, emoji and marks of bold type may follow."""
    for char in reversed(re.sub(_FOOTNOTE, "", sentence)):
        if char not in _BEHIND_END and unicodedata.category(char) not in _EMOJI_OR_SPACES:
            return char in {*language.terminators, *_TERMINATORS}
    return False


def sentence_reject_reasons(sentences: list[str], identifier, language: Language) -> list[str | None]:
    """For each sentence None if it is kept, or too_short, no_words or other_language."""
    reasons: list[str | None] = ["too_short" if length(sentence) < MIN_CHARACTERS else None for sentence in sentences]
    for i, sentence in enumerate(sentences):
        if reasons[i] is None and not unicode_words(sentence):
            reasons[i] = "no_words"
    if identifier is not None and identifier.knows(language):
        for i, is_right in enumerate(identifier.is_language(sentences, language)):
            if reasons[i] is None and not is_right:
                reasons[i] = "other_language"
    return reasons
