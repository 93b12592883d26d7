"""What chat models say around a translation: labels ("Itzulpena:"), announcements ("Sure! Here you go:"), thoughts without marks.

English talk differs from a translation into another language by its frequent words, from an untranslated source by the words
that it does not share with that. No text of NTREX-128 and the UDHR in 140 other languages is taken for it.
"""

import re
from functools import cache, lru_cache

from topxgen.text import languages
from topxgen.text.words import unicode_words

# "Translation" in languages of the world; with a hyphen: how such words begin.
_TRANSLATION_WORDS = (
    "translat- itzulpen- fassar- ntụgharị ntughari nsụgharị ubuhinduzi ubusobanuro अनुवाद turjum- tarjum- tarjamah- tafsiri ترجمہ "
    "ترجمة الترجمة ترجمه tarjima- inguqul- uguqul- itumọ- traduc- tradu- terjemahan tłumaczeni- "
    "překlad preklad prijevod prevod превод перевод переклад übersetzung vertaling oversettelse- oversættelse- översättning- þýðing- fordítás- "
    "käännös tõlge tulkojums vertimas çeviri- tərcümə- cyfieithiad aistriúchán përkthim- μετάφραση תרגום অনুবাদ ਅਨੁਵਾਦ અનુવાદ மொழிபெயர்ப்பு "
    "అనువాదం ಅನುವಾದ വിവർത്തനം පරිවර්තනය ဘာသာပြန်ချက် ትርጉም თარგმანი թարգմանություն pagsasalin"
)
_UNSPACED = "翻译 翻譯 译文 譯文 翻訳 번역 คำแปล ຄຳແປ"
_BEGINNINGS = tuple(word[:-1] for word in _TRANSLATION_WORDS.split() if word[-1] == "-")
_WHOLE_WORDS = frozenset(_TRANSLATION_WORDS.split())
_IN_WORDS = (*_UNSPACED.split(), "ản dịch")  # Vietnamese has "dịch" in words for an epidemic, services, immunity
# Words that make a label, and those that may stand beside them.
_MAKE_LABELS = "answer output response result target tgt solution assistant ai bot model"
_IN_LABELS = (
    "the my your final in into to from of source text sentence version language english original a full complete proposed "
    "better improved refined revised corrected proofread "
    "kwa ya mu n'asụsụ asụsụ basa bahasa lugha af میں زبان भाषा भाषामा en au auf em"
)
_LABEL_WORDS, _BESIDE = frozenset(_MAKE_LABELS.split()), frozenset(_IN_LABELS.split())
_WORD = re.compile(r"[^\s\d.,;:!?()\[\]\"'“”«»*_<>{}]+")
_BRACKETED = re.compile(r"\[([^\[\]]{1,40})\][*_]*\s*[:：]?\s*")
_MARKED = re.compile(r"([^:：]{1,60}?)[*_]*\s*(?:[:：]|\s[-–—](?=\s|\Z))[\s*_]*")
_COURTESY = (
    r"(?:(?:sure|certainly|of course|absolutely|okay|ok|alright|all right|great|got it|understood|no problem|you['’]re welcome|here (?:you go|it is)"
    r"|gladly|with pleasure|my pleasure|(?:i['’](?:d|ll) be )?(?:happy|glad) to help)\b(?: thing)?[!.,…]+[*_]*(?:\s+|$))"
)
_COURTESIES = re.compile(rf"[*_]*{_COURTESY}+", re.I)
_SPOKEN = re.compile(rf"[*_]*{_COURTESY.replace('[!.,…]', '[!.…]')}+", re.I)  # "Ok, …" may begin a translation
_ANNOUNCES = re.compile(
    r"(?:here(?:['’]s| is| are| you go| it is)|this is|below is|the|yes|so|therefore|thus|based on|following|in|as|i(?:['’]d| would)|this|it)\b.{0,80}"
    r"\b(?:translat\w+|would be|reads?|is|as)$|(?:let me|i['’]ll|i will|i['’]d be (?:glad|happy) to|now,? )\b.{0,30}\btranslate\b.{0,60}"
    r"|(?:here(?:['’]s| is)|(?:this|below|the following) is)\b.{0,30}\btranslation\b.{0,40}|translating\b.{0,60}",
    re.I,
)
# Frequent words of English; those of the second list are no words of other languages, or rare ones.
_ENGLISH_WORDS = (
    "the this that these those you your i d ll ve m let we me my it s t is are be been would could should will can need have has of to into for "
    "with and from as here there what which how so but because since not don first then now if its was were in on at or an a they"
)
_WORDS_OF_ENGLISH_ALONE = "the this that these you your would should could let need with which here what it they"
_ENGLISH, _ENGLISH_ONLY = frozenset(_ENGLISH_WORDS.split()), frozenset(_WORDS_OF_ENGLISH_ALONE.split())
_MIN_ENGLISH, _MIN_ENGLISH_OF_THOUGHTS, _MAX_LABEL = 0.4, 0.3, 60
_LIKE_ENGLISH = re.compile("english|pidgin|creole|krio|patois|scots|tok pisin|bislama|sranan", re.I)
# Not any user: texts about software have them.
_USER = r"the user(?:['’]s)? (?:wants?|ask(?:s|ed)|is asking|has asked|gave|has given|provide[sd]|needs|request\w*|would like|prompt|input|query)"
_THINKS = re.compile(
    rf"[\s>*_(]*(?:hmm+|okay, (?:so|the|i)|let me|let['’]s|first, (?:i|we|the)|(?:we|i) (?:need|have|should|must)|{_USER}|alright, let|wait,|🤔)(?!\w)",
    re.I,
)
_EXCUSES = re.compile(rf"\b(?:{_USER}|language model|sorry|apologi[sz]e|i can(?:no|['’])t)\b", re.I)


@cache
def _rows(target: str) -> list[languages.Language]:
    return [row for row in languages.load().values() if target in languages.names_of(row)]


@cache
def _names(target: str) -> frozenset[str]:
    """Words by which a language is called: its English name, its own one, its codes."""
    names = {name for row in _rows(target) for name in (row.endonym, row.iso639_1, row.iso639_3, row.flores)}
    return frozenset(word for name in {target, *names} for word in _words(name))


@lru_cache(maxsize=1 << 10)
def says_translation(text: str) -> bool:
    """Whether a word of `text` means "translation" or "to translate" in some language."""
    if any(word in text for word in _IN_WORDS):
        return True
    words = _WORD.findall(text.casefold())
    return not _WHOLE_WORDS.isdisjoint(words) or any(word.startswith(_BEGINNINGS) for word in words)


def _words(text: str) -> list[str]:
    return [word.strip("()[],.") for word in text.casefold().replace("→", " ").replace("->", " ").split()]


def is_label(text: str, target: str) -> bool:
    """Whether `text` names nothing but the translation: "Basque translation", "English → Basque", "Itzulpena (euskara)"."""
    if len(text) > _MAX_LABEL:
        return False
    words, names = list(filter(None, _words(text))), _names(target) if target else frozenset()

    def makes_one(word: str) -> bool:  # names have endings and prefixes: euskaraz, af-soomaali
        is_name = word in names or any(len(name) > 3 and name in word for name in names)
        return is_name or word in _LABEL_WORDS or says_translation(word)

    made = list(map(makes_one, words))
    return len(words) <= 7 and any(made) and all(m or w in _BESIDE for m, w in zip(made, words, strict=True))


def behind_label(line: str, source: str, target: str) -> str | None:
    """What follows a label at the beginning of `line`; "" if nothing does, None without a label or if `source` may have one."""
    if is_label(source, target) or 0 < _colons(line) <= _colons(source):
        return None
    bare = line.strip().lstrip(">*_# \t")
    for pattern in (_BRACKETED, _MARKED):
        if (found := pattern.match(bare)) and is_label(found[1], target):
            is_subject = re.search(r"[-–—]\s*\Z", found[0]) and (
                re.search(r"\s[-–—]\s", source) or _names(target) & {*_words(source)}
            )
            return None if is_subject else bare[found.end() :]  # "Hausa – a people of the Sahel"
    return "" if is_label(bare.strip("*_#[]"), target) else None


def _colons(text: str) -> int:
    return len(re.findall("[:：]", text))


def announces(line: str, source: str, target: str) -> bool:
    """Whether a line is a label, or a sentence that announces a translation."""
    bare = line.strip(" \t*_#>:：.…")
    if behind_label(line, source, target) == "":
        return True
    if says_translation(source):
        return False
    is_courtesy = _COURTESIES.fullmatch(f"{line.strip(' *_#>:：')}. ") and not _COURTESIES.match(f"{source} ")
    bare = _COURTESIES.sub("", bare, count=1)
    is_clear = target != "English" or not line.rstrip(" *_").endswith((".", "!", "?"))
    if is_courtesy or (is_clear and len(bare) <= _MAX_LABEL and says_translation(bare)):
        return True
    is_english = target == "English" and says_translation(bare) and bool(_ANNOUNCES.fullmatch(bare))
    return is_english or (not _LIKE_ENGLISH.search(target) and bool(_ANNOUNCES.fullmatch(bare)))


def is_talk(line: str, source: str, target: str) -> bool:
    """Whether a line is English that is neither the translation nor `source`: a thought, an explanation."""
    if not target or says_translation(source) or line.lstrip().startswith(("{", "[", "<")):
        return False
    if _LIKE_ENGLISH.search(target):
        return target == "English" and bool(re.search(rf"\b{_USER}\b|\btranslat", line, re.I))
    words = unicode_words(line)
    of_source = set(unicode_words(source))
    if sum(word in of_source for word in words) >= len(words) / 2:
        return False
    frequent = [word for word in words if word in _ENGLISH]
    if thinks(line):  # "Hmm, ez dakit." does not
        return len(frequent) >= _MIN_ENGLISH_OF_THOUGHTS * len(words) or bool(_EXCUSES.search(line))
    is_english = len(frequent) >= _MIN_ENGLISH * len(words) or excuses(line) or says_translation(line)
    return len(words) > 1 and is_english and not _ENGLISH_ONLY.isdisjoint(frequent)


def is_in_another_script(line: str, source: str, target: str) -> bool:
    """Whether a line is neither in the script of `target` nor a part of `source`, such as a name."""
    from topxgen.text.language_id import is_in_script

    known = any(map(str.isalpha, line)) and line.strip(" .*_") not in source
    rows = _rows(target) if known else ()
    return bool(rows) and not any(is_in_script(line, row.script) for row in rows)


def thinks(line: str) -> bool:
    """Whether an answer that begins so, and has a label later, begins with thoughts."""
    return bool(_THINKS.match(line))


def excuses(line: str) -> bool:
    """Whether a line that is_talk is a thought or an excuse instead of a translation."""
    return thinks(line) or bool(_EXCUSES.search(line))


def behind_preface(line: str, source: str, target: str) -> str:
    """`line` without an announcement at its beginning: up to a colon or before a quotation, or in sentences of their own."""
    if says_translation(source):
        return line
    while (sentence := re.match(r"[^.!?…:：]{1,120}[.!…]+\s+(?=\S)", line)) and announces(sentence[0], source, target):
        if not (spoken := _SPOKEN.match(line)):
            if not is_talk(sentence[0], source, target):  # "Il fut traduit en justice." may be a translation
                break
            line = line[sentence.end() :]
            continue
        rest = line[spoken.end() :]
        is_own = re.match(r"[*_]*ok(?:ay)?\b", line, re.I) and behind_preface(rest, source, target) == rest
        if is_own or _LIKE_ENGLISH.search(target):  # other languages have "okay", too
            break
        line = rest
    for mark in (r" is (?=[\"“«`*].*[\"”»`*.]\Z)", "[:：]", r" (?=[\"“«`*].*[\"”»`*.]\Z)"):
        found = re.search(mark, line)
        if found and ":" not in mark and re.search("[:：].", line[: found.start()]):
            continue  # "Translation: She said it is "impossible"": the quotation is a part of what the label announces
        is_of_source = ":" in mark and _colons(line) <= _colons(source)
        rest = line[found.end() :].strip() if found and not is_of_source else ""
        if rest.strip("*_") and _is_preface(line[: found.start()], source, target):
            return re.sub(r"\A(\*\*|__)\s*(?!.*\1)", "", rest)
    return line


def _is_preface(text: str, source: str, target: str) -> bool:
    bare = text.strip(" \t*_#>")
    if len(bare) > 120 or re.search(r"\w\.\s", bare):
        return False
    return says_translation(bare) or announces(bare, source, target) or is_talk(bare, source, target)
