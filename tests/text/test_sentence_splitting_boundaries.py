"""Where sentences end, and which stand as source sentences."""

import pytest

from topxgen.text import languages, sentence_splitting
from topxgen.text.sentence_splitting import MIN_CHARACTERS, Sentencex, sentence_reject_reasons

BASQUE = languages.find("Basque")


def split(text: str, language: str = "Basque") -> list[str]:
    return Sentencex(languages.find(language)).split(text)


class Identifier:
    def __init__(self, right: list[bool]):
        self._right = right

    def knows(self, language) -> bool:
        return True

    def is_language(self, texts, language) -> list[bool]:
        return self._right


def test_forty_characters_are_enough():
    assert MIN_CHARACTERS == 40
    assert sentence_reject_reasons(["a" * 39, "a" * 40, "a" * 41], None, BASQUE) == ["too_short", None, None]
    for char in "字かカ가":  # each is as long as three letters
        assert sentence_reject_reasons([char * 13, char * 14], None, BASQUE) == ["too_short", None]


def test_the_first_reason_counts():
    sentences = ["a" * 39, "." * 40, "a" * 40, "a" * 40]
    reasons = sentence_reject_reasons(sentences, Identifier([False, False, False, True]), BASQUE)
    assert reasons == ["too_short", "no_words", "other_language", None]


@pytest.mark.parametrize(
    "language, text, sentences",
    [
        ("Basque", "Etxea handia da. Mendia ere bai.", ["Etxea handia da.", "Mendia ere bai."]),
        (
            "Basque",
            "Hori 17. mendean gertatu zen. Gero etorri zen.",
            ["Hori 17. mendean gertatu zen.", "Gero etorri zen."],
        ),
        ("Basque", "Hura ⅩⅨ. mendean jaio zen. Gero hil zen.", ["Hura ⅩⅨ. mendean jaio zen.", "Gero hil zen."]),
        ("Hausa", "Nisa 2-½. amma ba haka ba ne.", ["Nisa 2-½. amma ba haka ba ne."]),
        ("Basque", 'Esan zuen: "Bai. Noski." Gero joan zen.', ['Esan zuen: "Bai.', 'Noski."', "Gero joan zen."]),
        ("Basque", "Hasi da (berriz. Gero amaitu da.", ["Hasi da (berriz.", "Gero amaitu da."]),
        ("Basque", 'Esan du "bai." Gero joan da.', ['Esan du "bai."', "Gero joan da."]),
        ("Nepali", "यो घर हो।त्यो पहाड हो।", ["यो घर हो।", "त्यो पहाड हो।"]),
        ("Urdu", "یہ گھر ہے۔وہ پہاڑ ہے۔", ["یہ گھر ہے۔", "وہ پہاڑ ہے۔"]),
        ("Nepali", 'उसले भन्यो "यो घर हो।" त्यो गयो।', ['उसले भन्यो "यो घर हो।"', "त्यो गयो।"]),
        # Armenian marks of question and stress stand inside words; the colon is typed for the full stop.
        ("Armenian", "Ինչո՞ւ եկար։ Գնա՛նք տուն։ Լա՜վ է։", ["Ինչո՞ւ եկար։", "Գնա՛նք տուն։", "Լա՜վ է։"]),
        ("Armenian", "Նա եկավ 15:30: Հետո գնաց:", ["Նա եկավ 15:30:", "Հետո գնաց:"]),
        # An apostrophe opens no quotation, a single quotation mark joins no sentences.
        ("Hausa", "Ga ‘yan uwa. Sun zo. ʼYan mata sun je.", ["Ga ‘yan uwa.", "Sun zo.", "ʼYan mata sun je."]),
        ("Hausa", "Ya ce: ‘Na zo. Ina so.’ Ta tafi.", ["Ya ce: ‘Na zo.", "Ina so.’", "Ta tafi."]),
        ("Somali", "Waa la'aan. Go'aanka wuu dhacay.", ["Waa la'aan.", "Go'aanka wuu dhacay."]),
        # A word of one letter is no initial.
        ("Igbo", "Ọ bụ enyi m. Ha nọ n’ụlọ a. Ọ bịara.", ["Ọ bụ enyi m.", "Ha nọ n’ụlọ a.", "Ọ bịara."]),
        ("Yoruba", "Mo rí i. Dr. J. P. Clark dé.", ["Mo rí i.", "Dr. J. P. Clark dé."]),
        ("Vietnamese", "Vâng ạ. Tôi đi.", ["Vâng ạ.", "Tôi đi."]),
        ("Estonian", "Ta tuli 1999. a. Tallinna. Ta elab seal.", ["Ta tuli 1999. a. Tallinna.", "Ta elab seal."]),
        # Nor is a short word one of the English abbreviations (Nebraska, Maine).
        ("Hausa", "Shekaru 36 ne. Ban ga kome ba.", ["Shekaru 36 ne.", "Ban ga kome ba."]),
        (
            "English",
            "He believed in me. I was happy, said Dr. Low.",
            ["He believed in me.", "I was happy, said Dr. Low."],
        ),
        # A long word before a small letter: the writer forgot the capital. A short one may be abbreviated.
        ("Hausa", "Ba su zo kasuwa tukuna. za su zo gobe.", ["Ba su zo kasuwa tukuna.", "za su zo gobe."]),
        ("Basque", "Ogia, ura etab. erosi ditu, adib. gazta.", ["Ogia, ura etab. erosi ditu, adib. gazta."]),
        # One that ends in a vowel is a word. After ! and ?, "he asked" may follow.
        ("Hausa", "Za ka je gobe. ka yi shiri.", ["Za ka je gobe.", "ka yi shiri."]),
        ("Hausa", "Ya ce a’a. abin da ya ce ke nan.", ["Ya ce a’a.", "abin da ya ce ke nan."]),
        ("Hausa", "Ya gaya min. “na dauka wasa ne.”", ["Ya gaya min.", "“na dauka wasa ne.”"]),
        ("Hausa", "Jaridar Washington DC. A safiyar nan.", ["Jaridar Washington DC.", "A safiyar nan."]),
        ("English", "He left Washington, D.C. A day later.", ["He left Washington, D.C. A day later."]),
        ("English", "He left Washington DC. A day later.", ["He left Washington DC. A day later."]),
        ("Hausa", "Dan meye? ta tambaya. Mai kyau!", ["Dan meye? ta tambaya.", "Mai kyau!"]),
        (
            "Hausa",
            "“Ka zo gobe!” in ji Musa. “Na gode.” ya amsa wa Audu.",
            ["“Ka zo gobe!” in ji Musa.", "“Na gode.” ya amsa wa Audu."],
        ),
        ("Hausa", "Ya ce “a’a!” amma ya zo.", ["Ya ce “a’a!” amma ya zo."]),
        ("Somali", "Wuxuu yiri “haa.” way tagtay.", ["Wuxuu yiri “haa.” way tagtay."]),
        ("Hausa", "A sh. goma nan. Ya zo.", ["A sh. goma nan.", "Ya zo."]),
        # Where nobody is reported to speak, the writer forgot the capital, too.
        ("Hausa", "Ya ce “ina so.” ta tafi gida.", ["Ya ce “ina so.”", "ta tafi gida."]),
        ("Hausa", "Ina yaron yake? mun neme shi ko’ina.", ["Ina yaron yake?", "mun neme shi ko’ina."]),
        ("Hausa", "Sunan littafin Wane Ne. Na karanta shi.", ["Sunan littafin Wane Ne.", "Na karanta shi."]),
        # A script without capitals: a Latin word may open a sentence.
        ("Urdu", "بارش ہوگی۔ weather.com نے کہا۔", ["بارش ہوگی۔", "weather.com نے کہا۔"]),
        ("Armenian", "«Գնա՛նք տուն։» ասաց նա։", ["«Գնա՛նք տուն։» ասաց նա։"]),
        ("Sango", "Fadë o tî akpë. ângangü sô.", ["Fadë o tî akpë.", "ângangü sô."]),
        ("Javanese", "Klawan Bangsa-Bangsa. minangka pratandha.", ["Klawan Bangsa-Bangsa.", "minangka pratandha."]),
        ("Javanese", "Bapak saka Rone. minangka kanca.", ["Bapak saka Rone. minangka kanca."]),
        ("Slovak", "Pred útokom. (1) Každý má právo.", ["Pred útokom.", "(1) Každý má právo."]),
        ("Slovak", "Pozri čl. (1) Každý má právo.", ["Pozri čl. (1) Každý má právo."]),
        ("Georgian", "ეს მე ვარ. ის შენ ხარ.", ["ეს მე ვარ.", "ის შენ ხარ."]),
        ("Burmese", "ကျား၊ မ၊ လူ။ နေကောင်းလား။", ["ကျား၊ မ၊ လူ။", "နေကောင်းလား။"]),
        ("Amharic", "ይህ አንድ ነው፡፡ ይህ ሁለት ነው፡፡", ["ይህ አንድ ነው፡፡", "ይህ ሁለት ነው፡፡"]),
        ("German", "»Das ist gut.« Er ging. ›Ja.‹ Sie blieb.", ["»Das ist gut.«", "Er ging.", "›Ja.‹", "Sie blieb."]),
        ("German", "„Komm!“ Er kam. Hinz u. Kunz, z. B. Ulm.", ["„Komm!“", "Er kam.", "Hinz u. Kunz, z. B. Ulm."]),
        ("Polish", "To dom ewentl. lub las.", ["To dom ewentl. lub las."]),
        ("French", "« Bonjour. » Il partit.", ["« Bonjour. »", "Il partit."]),
        ("Chinese (Simplified)", "他说：“好。”然后走了。", ["他说：“好。”", "然后走了。"]),
        # A sentence goes on after a quotation with a particle behind it.
        ("Japanese", "「家です。」と彼は言った。そして去った。", ["「家です。」と彼は言った。", "そして去った。"]),
        ("Japanese", "彼は「はい。」という。『山。』は本だ。", ["彼は「はい。」という。", "『山。』は本だ。"]),
        (
            "Japanese",
            "「家です。」とても大きい。「山。」はい。",
            ["「家です。」", "とても大きい。", "「山。」", "はい。"],
        ),
        ("Japanese", "「家です。」ともだちが来た。", ["「家です。」", "ともだちが来た。"]),
        ("Korean", '"가자."라고 말했다. “가자.” 그는 갔다.', ['"가자."라고 말했다.', "“가자.”", "그는 갔다."]),
        # Titles before names, and abbreviations in a script that has a full stop of its own.
        (
            "Swahili",
            "Bi. Asha na Dkt. Juma walikuja. Bw. Ali pia.",
            ["Bi. Asha na Dkt. Juma walikuja.", "Bw. Ali pia."],
        ),
        # Abbreviations before numbers and letters that stand for words
        (
            "Swahili",
            "Bei ni Tsh. 10,000. Nyumba Na. 15. Siyo Tsh. Hii.",
            ["Bei ni Tsh. 10,000.", "Nyumba Na. 15.", "Siyo Tsh.", "Hii."],
        ),
        (
            "Sundanese",
            "Di Jl. Merdeka, Rp. 10.000 (hal. 5). Ti jl. Asep.",
            ["Di Jl. Merdeka, Rp. 10.000 (hal. 5).", "Ti jl.", "Asep."],
        ),
        (
            "Modern Standard Arabic",
            "جاء د. خالد من م.ت.ف. أمس. كان أبًا. ثم غادر.",
            ["جاء د. خالد من م.ت.ف. أمس.", "كان أبًا.", "ثم غادر."],
        ),
        (
            "Urdu",
            "ڈی۔این۔اے اہم ہے۔ ایم۔ اے۔ جناح پی۔ایچ۔ڈی تھے۔",
            ["ڈی۔این۔اے اہم ہے۔", "ایم۔ اے۔ جناح پی۔ایچ۔ڈی تھے۔"],
        ),
        (
            "Urdu",
            "وہ آئی۔ بی بی سی نے کہا۔ ا۔ب۔ خان آئے۔جی ہاں۔",
            ["وہ آئی۔", "بی بی سی نے کہا۔", "ا۔ب۔", "خان آئے۔", "جی ہاں۔"],
        ),
        ("Basque", "Mutilak bi. Bi. Gero joan ziren.", ["Mutilak bi.", "Bi.", "Gero joan ziren."]),
        ("Xhosa", "UNks. Dlamini ufikile. Wahamba.", ["UNks. Dlamini ufikile.", "Wahamba."]),
        ("Hausa", "Ms. Maurice ta zo. Ta tafi.", ["Ms. Maurice ta zo.", "Ta tafi."]),
        ("Nepali", "डा. राम यु.एन. पुगे। उनी फर्के।", ["डा. राम यु.एन. पुगे।", "उनी फर्के।"]),
        ("Hindi", "वह कि. मी. चला। फिर सोया।", ["वह कि. मी. चला।", "फिर सोया।"]),
        ("Nepali", "यो घर हो. त्यो पहाड हो. किन?", ["यो घर हो.", "त्यो पहाड हो.", "किन?"]),
        # Footnotes belong to the sentence before them.
        (
            "Basque",
            "Etxea da.[1] Mendia[2] da.[3][4] Ura da. [5] Bai.",
            ["Etxea da.[1]", "Mendia[2] da.[3][4]", "Ura da. [5]", "Bai."],
        ),
        ("Nepali", "यो घर हो।[१] त्यो गयो।¹ ऊ।", ["यो घर हो।[१]", "त्यो गयो।¹", "ऊ।"]),
        # Numbers of lists, Roman ordinals, decimals in other digits, initials behind a hyphen, titles
        ("Basque", "1. Etxea. 2. Mendia.", ["1. Etxea.", "2. Mendia."]),
        ("Basque", "II. Mundu Gerra amaitu zen. Joan ziren.", ["II. Mundu Gerra amaitu zen.", "Joan ziren."]),
        ("Hausa", "Sarki Aliyu II. Ya zo.", ["Sarki Aliyu II.", "Ya zo."]),
        ("Nepali", "मूल्य ३,५००.५० हो। १. घर हो।", ["मूल्य ३,५००.५० हो।", "१. घर हो।"]),
        ("Xhosa", "I-U.S.A. lilizwe. Likhulu.", ["I-U.S.A. lilizwe.", "Likhulu."]),
        (
            "Swahili",
            "Tar. 5 Mei alifika Mt. Kilimanjaro. Alirudi.",
            ["Tar. 5 Mei alifika Mt. Kilimanjaro.", "Alirudi."],
        ),
        ("French", "M. Dupont est venu. Il part.", ["M. Dupont est venu.", "Il part."]),
        ("Burmese", '"လာမယ်။" ဟု ပြောသည်။ သူ သွားသည်။', ['"လာမယ်။" ဟု ပြောသည်။', "သူ သွားသည်။"]),
        ("Amharic", "«እመጣለሁ።» አለ። ሄደ።", ["«እመጣለሁ።» አለ።", "ሄደ።"]),
        ("Chinese (Simplified)", "“我来了。”他说。她走了。", ["“我来了。”他说。", "她走了。"]),
        ("Basque", "Ez dakit… Agian bai. 😀 Bai… noski.", ["Ez dakit…", "Agian bai. 😀", "Bai… noski."]),
        ("Amharic", "Dr. አበበ መጣ።¹ ሄደ።", ["Dr. አበበ መጣ።¹", "ሄደ።"]),
        ("Chinese (Simplified)", "他说“为了……好。”她走了。", ["他说“为了……好。”", "她走了。"]),
        ("Basque", "Prezioa 2.50 da eta etxe.eus webgunea da.", ["Prezioa 2.50 da eta etxe.eus webgunea da."]),
    ],
)
def test_sentences(language, text, sentences):
    assert split(text, language) == sentences


def test_languages_without_a_mark_between_sentences_are_named():
    warned = [language.name for language in languages.load().values() if sentence_splitting.warning(language)]
    assert warned == ["Lao", "Thai"]
