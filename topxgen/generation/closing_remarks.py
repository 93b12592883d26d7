"""Sentences to the user below a text: "Let me know if you need more texts.", "Espero que esto ayude.", "Je, ungependa maandishi zaidi?"

A remark is a line of its own that begins as one and has a word about the texts or about help. Each half alone opens many
sentences of real texts; both together opened eight English ones, and none in the other languages, of NTREX-128, FLORES-200, XQuAD and the UDHR.
"""

import re
from functools import cache

_MAX_CHARACTERS = 250

# In English, where what it is about may be how it begins
_TO_THE_USER = re.compile(
    r"[\s*_]*(?:i(?:['’](?:ve|d|m|ll)| have| hope| trust| wrote| tried| am| can| apologi[sz]e| followed)|hope(?:fully)?|let me know|please|feel free|would you|do you|shall i|should i|want (?:me|to|another|more)|is there|"
    r"if you|you['’]re welcome|thank you|thanks|that['’]s all|that concludes|(?:my )?apologies|sorry|remember|as you can see|as an ai|is (?:this|that) what|in these|total|word count|(?:these|this|the|both|each|all)\b.{0,20}\b(?:texts?|passages|paragraphs?|articles|response)|here (?:are|is)|note that|as requested|"
    r"(?:happy|glad) to|end of)\b",
    re.I,
)
_META = re.compile(
    r"\b(?:texts?|passages?|paragraphs?|articles?|versions?|drafts?|wr(?:ite|ote|itten)|request\w*|help(?:s|ful)?|assist|"
    r"languages?|topics?|translat\w+|let me know|note that i|feel free|questions?|changes|adjust\w*|further|response|word count|instructions|guidelines|mistakes|revise|for reading|that['’]s all|as an ai|hope you (?:like|enjoy)|your (?:needs|requirements)|you wanted|looking for|errors|welcome|would you like)\b",
    re.I,
)
_SIGN_OFF = re.compile(r"\s*(?:(?:best|kind|warm) )?(?:regards|wishes|sincerely|cheers)[,.]?\s*", re.I)
# (how a remark begins, what it is about), by language
_REMARKS = {
    "Basque": (
        r"espero dut|itxaropena dut|itxaro dut|gehiago (?:behar|nahi)|(?:beste )?(?:testu|laguntza)\w* (?:gehiago )?(?:behar|nahi) (?:baduzu|izanez)|"
        r"bi testu hauek|testu hauek|testuok|esadazu|jakinarazi iezadazu|galderarik (?:baduzu|izanez)|(?:beste )?testu\w* gehiago|gehiago idaztea nahi|"
        r"zalantzarik (?:baduzu|izanez)|aldaketa\w* (?:\w+ )?(?:nahi|behar)|hauek (?:dira|hauexek)|hona hemen|(?:nahi|behar) (?:izanez gero|baduzu)|"
        r"beste (?:gai|zerbait)|lagungarri\w*|testue[kt]\w*",
        r"galdetu\w*|hemen nago|nahi duzu|esan lasai|esadazu|lagungarri\w*|lagundu\w*|lagun diezazu\w*|erabilgarri\w*|baliagarri\w*|testu\w*|gehiago|"
        r"aldaketa\w*|idatz\w*|izatea espero dut|hitz inguru",
    ),
    "Hausa": (
        r"ina fata[n]?|muna fata[n]?|idan (?:kana|kuna|kina) (?:so|bu[kƙ]ata\w*)|wa[ɗd]annan rubutu\w*|ka sanar da ni|shin (?:kana|kuna|kina)|don allah|"
        r"(?:kuna|kana|kina) (?:son?|bu[kƙ]atar?)|wa[ɗd]annan su ne|rubutun nan|ga rubutu",
        r"taimak\w*|amfan\w*|rubutu\w*|sanar da ni|gaya min|ƙarin bayani",
    ),
    "Igbo": (
        r"enwere m olileanya|e nwere m olileanya|ana m atụ anya|a na m atụ anya|olileanya m|ederede ndị a|ị (?:ga-a)?chọrọ(?=.*\?)|ọ bụrụ na ị ?chọr\w*|biko|"
        r"ndị a bụ|edere m",
        r"nyere\w*|enyemaka|inye aka|uru|ederede\w*|mee ka m mara|gwa m|dee ọzọ|mgbanwe",
    ),
    "Kinyarwanda": (
        r"nizeye ko|ndizera ko|ndizeye ko|twizeye ko|niba (?:ukeneye|wifuza|ushaka)|umenyeshe|izi nyandiko|iyi myandiko|"
        r"ese (?:urashaka|murashaka|ukeneye|mukeneye)|(?:u|mu)rashaka(?=.*\?)|i[bz]i ni|niba (?:ubi|mu)?shaka|nyandiko zombi",
        r"\w*fasha\w*|\w*fashij\w*|ingirakamaro|inyandiko|nyandiko|umwandiko|imyandiko|myandiko|umenyeshe|mbwira|\w*byanditswe|nandik\w*|mumbwire|kubaza",
    ),
    "Nepali": (
        r"(?:मलाई )?आशा (?:छ|गर्छु|गर्दछु)|(?:यदि )?तपाईं(?:लाई|ले) (?:थप|अरू|अन्य)|के तपाईं(?:लाई|ले)?|"
        r"यी (?:दुई |दुवै |दुइटै )?(?:पाठ|लेख|अनुच्छेद)(?:हरू)?|के म|यी (?:दुई|दुवै)|(?:कृपया|तपाईंलाई) (?:थप|केही|परिवर्तन|अरू)|माथिका",
        r"उपयोगी|मद्दत\S*|सहयोगी|पाठ\S*|लेख|लेखहरू\S*|अनुच्छेद\S*|भन्नुहोस्|जानकारी दिनुहोस्|थप जानकारी|चाहिए\S*|परिवर्तन",
    ),
    "Somali": (
        r"waxaan raj(?:a|e)ynayaa|haddii aad (?:u baahan tahay|u baahantahay|rabto|doonayso|doonto)|ma (?:u baahan tahay|u baahantahay|rabtaa|doonaysaa)|"
        r"labadan qoraal|qoraalladan|haddii aad|kuwani waa|(?:ma|miyaad) (?:rabtaa|jeceshahay)|fadlan",
        r"\w*caawi\w*|waxtar\w*|faa['’]iid\w*|qoraal\w*|i soo ogeysii|ii sheeg|ila soo socodsii|qoraallo\w*",
    ),
    "Sundanese": (
        r"mugia|mudah-mudahan|(?:kuring|abdi) (?:mi|nga)?harep|lamun anjeun|kadua teks|mugi|upami|ieu(?= (?:dua )?t[eé]ks)|naha (?:anjeun|aya)|punten|mangga",
        r"tulisan|ngabantu|ngabantos|bantuan|t[eé]ks\w*|wartosan|bejakeun|mangpaat kanggo",
    ),
    "Swahili": (
        r"ni?natuma(?:i|ini)|natuma(?:i|ini)|tunatuma(?:i|ini)|(?:kama|ikiwa|iwapo) (?:una|unahitaji|ungependa|unataka)|"
        r"je,? (?:una|unahitaji|ungependa|unataka)|maandishi haya|matini hi[iz]i?|ungependa|(?:haya|hizi)(?= ni (?:maandishi|matini))|tafadhali|"
        r"maandishi (?:yote|hayo)",
        r"\w*saidi[ae]\w*|ya manufaa|msaada zaidi|maandishi\w*|matini|nijulishe|niambie|niandike|marekebisho",
    ),
    "Urdu": (
        r"(?:مجھے )?امید (?:ہے|کرتا ہوں|کرتی ہوں)|اگر آپ (?:کو|چاہ\S*) |کیا آپ|یہ (?:دونوں )?(?:متن|تحریریں)|اگر آپ|کیا میں|یہ (?:دونوں|رہے|رہی)|براہ کرم|"
        r"مذکورہ",
        r"مددگار|مدد|مفید|متن|تحریر|تحریریں|کارآمد|بتائیں|بتائیے|بتا دیں|لکھوں|تبدیلی",
    ),
    "Xhosa": (
        r"ndiyathemba|ndinethemba|siyathemba|ukuba (?:ufuna|udinga|unqwenela)|(?:ingaba )?(?:ufuna|udinga|unqwenela)(?=.*\?)|le mibhalo|lo mbhalo|"
        r"ukuba (?:u|ni)\w+|(?:unga|ninga)(?:thanda|nqwenela)|le(?= yi\w+)|nceda|ezi (?:zi|zimbini)",
        r"\w*nceda|\w*ncedo|\w*ncede|umbhalo|imibhalo|mibhalo|ndazise|undazise|ndixelele|ndibhale|yimibhalo",
    ),
    "Spanish, Galician, Catalan": (
        r"espero que|agardo que|(?:si|se) (?:necesitas?|precisas?|quieres?|queres|deseas?|desexas|necessites|vols|desitges)|avísame|hazme saber|"
        r"fa(?:i|g)me saber|no dudes en|non dubides en|no dubtis a|"
        r"¿?(?:te gustaría|(?:quieres?|quieras|necesitas?|desea[sn]?|queres|precisas?|vols) (?:que|algo|m[áa]is|más|otros|outros|més))|"
        r"(?:estos|estes|aquests|ambos) (?:dos |dous |dos )?text(?:os)",
        r"ayuden?|ayudado|axuden?|ajudin?|útil(?:es|s)?|texto?s|escrib\w+|algo más|te sirvan?|más ayuda|cambios|dudes|saber",
    ),
    "Portuguese": (
        r"espero que|se (?:precisar|quiser|desejar)|avise-me|me avise|não hesite em|gostaria que eu|(?:estes|esses|ambos os) (?:dois )?textos",
        r"ajudem?|ajudado|úteis|útil|textos|avise|hesite",
    ),
    "French": (
        r"j['’]espère que|n['’]hésitez pas à|si vous (?:avez besoin|souhaitez|voulez|désirez)|souhaitez-vous|voulez-vous|dites-moi|faites-moi savoir|"
        r"ces (?:deux )?textes",
        r"textes?|vous aider\w*|vous aident|utiles?|modifications|demander|savoir|questions|que je (?:continue|écrive)",
    ),
    "German": (
        r"ich hoffe|lass(?:en sie)? mich (?:gerne )?wissen|(?:wenn|falls) (?:sie|du)|möchten sie|möchtest du|soll ich|haben sie|hast du|"
        r"diese (?:beiden |zwei )?texte|beide texte",
        r"texte?n?|hilft|helfen|geholfen|hilfreich|mich (?:gerne )?wissen|weitere fragen|anpassungen",
    ),
    "Italian": (
        r"spero che|se (?:hai bisogno|vuoi|desideri|ha bisogno|desidera)|fammi sapere|mi faccia sapere|non esitare a|vuoi|desideri|questi (?:due )?testi",
        r"ti aiuti|aiutino|utili|utile|testi|sapere|esitare",
    ),
    "Indonesian": (
        r"semoga|saya harap|saya berharap|(?:jika|apabila|kalau) anda|beri ?tahu saya|apakah anda|kedua teks|teks-teks",
        r"teks|tulisan ini|paragraf|beri ?tahu saya|membantu anda|ini membantu|bantuan lebih lanjut",
    ),
    "Hindi": (
        r"(?:मुझे )?(?:आशा|उम्मीद) है|(?:यदि|अगर) आप(?:को)?|कृपया मुझे बताएं|क्या आप(?:को)?|ये (?:दोनों )?(?:पाठ|लेख|अनुच्छेद)",
        r"उपयोगी|मददगार|मदद|सहायक|पाठ\S*|अनुच्छेद\S*|मुझे बताएं",
    ),
}
# A question about anything else may end a dialogue: "Hast du ihm geholfen?", "क्या आप मेरी मदद कर सकते हैं?"
_ABOUT_TEXTS = re.compile(
    r"text|t[eé]ks|testu|idatz|idazte|testi\b|rubutu|ederede|yandiko|qoraal|tulis|maandishi|matini|mbhalo|mibhalo|paragraf|escrib|écri|schreib|पाठ|लेख|अनुच्छेद|متن|تحریر",
    re.I,
)
_QUESTION = re.compile("[^.!।۔]*[?؟]")
_EDGE = r"[\s*_>\"“«(\[¡¿]*"


@cache
def _patterns() -> list[re.Pattern]:
    return [
        re.compile(rf"{_EDGE}(?:{start})(?!\w)(?=.*(?<!\w)(?:{topic})(?!\w))", re.I)
        for start, topic in _REMARKS.values()
    ]


def is_closing_remark(line: str) -> bool:
    """Whether a line is a sentence to the user in one of these languages."""
    if _SIGN_OFF.fullmatch(line) or (_TO_THE_USER.match(line) and _META.search(line)):
        return True
    if len(line) > _MAX_CHARACTERS or (_QUESTION.match(line) and not _ABOUT_TEXTS.search(line)):
        return False
    return any(pattern.match(line) for pattern in _patterns())
