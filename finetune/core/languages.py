"""The languages of Granite Speech, with their codes and names."""

import re

from finetune.core.errors import RecipeError

# From the model card of granite-4.0-1b-speech: it transcribes the first six, and translates between English and all
# of these.
SPEECH_LANGUAGES = {
    "en": "English",
    "fr": "French",
    "de": "German",
    "es": "Spanish",
    "pt": "Portuguese",
    "ja": "Japanese",
}
TRANSLATION_TARGETS = {**SPEECH_LANGUAGES, "it": "Italian", "zh": "Mandarin"}


def language_code(name: str | None, languages: dict[str, str]) -> str:
    """The two-letter code of a language: `fr` for `fr`, `fr-CA` or `French`, "" for None or "".

    Raises:
        RecipeError: the language is not in `languages`.
    """
    if not name:
        return ""
    spelling = name.strip().lower().replace("_", "-")
    by_name = {value.lower(): code for code, value in languages.items()}
    code = by_name.get(spelling, spelling.split("-")[0])
    if code in languages:
        return code
    raise RecipeError(f"language {name!r} is not one of " + ", ".join(f"{c} ({n})" for c, n in languages.items()))


# ISO 639-1, and codes of three letters and names that are common in corpora.
_ISO_639_1 = (
    "aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en "
    "eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv "
    "ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne "
    "ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st "
    "su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu"
)
_THREE_LETTERS = (
    "eng:en fra:fr fre:fr deu:de ger:de spa:es por:pt jpn:ja ita:it zho:zh chi:zh cmn:zh nld:nl dut:nl rus:ru kor:ko "
    "ara:ar hin:hi pol:pl tur:tr ukr:uk swe:sv dan:da nor:no fin:fi ces:cs cze:cs slk:sk ell:el gre:el hun:hu ron:ro "
    "rum:ro bul:bg hrv:hr heb:he tha:th vie:vi ind:id cat:ca ben:bn tam:ta tel:te urd:ur fas:fa per:fa"
)
_NAMES = (
    "chinese:zh dutch:nl russian:ru korean:ko arabic:ar hindi:hi polish:pl turkish:tr ukrainian:uk swedish:sv "
    "danish:da norwegian:no finnish:fi czech:cs slovak:sk greek:el hungarian:hu romanian:ro bulgarian:bg croatian:hr "
    "hebrew:he thai:th vietnamese:vi indonesian:id catalan:ca "
    "englisch:en deutsch:de französisch:fr franzoesisch:fr spanisch:es portugiesisch:pt japanisch:ja italienisch:it "
    "chinesisch:zh anglais:en allemand:de français:fr francais:fr espagnol:es portugais:pt japonais:ja italien:it "
    "chinois:zh inglés:en ingles:en alemán:de aleman:de francés:fr frances:fr español:es espanol:es castellano:es "
    "portugués:pt portugues:pt japonés:ja japones:ja chino:zh inglês:en alemão:de francês:fr espanhol:es português:pt "
    "japonês:ja chinês:zh inglese:en tedesco:de francese:fr spagnolo:es portoghese:pt giapponese:ja italiano:it "
    "cinese:zh 英語:en ドイツ語:de フランス語:fr スペイン語:es ポルトガル語:pt 日本語:ja イタリア語:it 中国語:zh "
    "英语:en 德语:de 法语:fr 西班牙语:es 葡萄牙语:pt 日语:ja 意大利语:it 中文:zh 普通话:zh"
)
ISO_639_1 = frozenset(_ISO_639_1.split())
OTHER_NAMES = {name.lower(): code for code, name in TRANSLATION_TARGETS.items()} | {
    name: code for name, _, code in (entry.partition(":") for entry in f"{_THREE_LETTERS} {_NAMES}".split())
}
_VARIANTS = (
    "american australian austrian brazilian british canadian castilian european indian irish latin mexican scottish "
    "simplified standard swiss traditional uk us"
)
VARIANTS = frozenset(_VARIANTS.split())
COUNTRIES = {"jp": "ja", "cn": "zh", "us": "en", "gb": "en", "cz": "cs", "dk": "da", "gr": "el"}


def row_language(name: str) -> str:
    """The code of a row's language (`en` for `EN_us`, `eng`, `English (US)`, `Englisch`); "" for another name."""
    spelling = re.sub(r"\(.*?\)|[<>|]", "", name).strip().lower().replace("_", "-")
    code = OTHER_NAMES.get(spelling) or spelling.split("-")[0]
    if known := OTHER_NAMES.get(code) or (code if code in ISO_639_1 else ""):
        return known
    words = {OTHER_NAMES.get(word, word) for word in re.findall(r"\w+", spelling)} - VARIANTS  # American English
    return words.pop() if len(words) == 1 and words <= {*OTHER_NAMES.values()} else ""


def suggested_language(name: str) -> str:
    """The code that an unknown language name probably means, such as `ja` for `jp`; "" without a suggestion."""
    spelling = name.strip().lower().replace("_", "-").split("-")[0]
    return COUNTRIES.get(spelling) or next(
        (code for full, code in OTHER_NAMES.items() if len(spelling) > 2 and full.startswith(spelling)), ""
    )
