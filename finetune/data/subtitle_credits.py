"""Finds the credits of those who wrote subtitles: they stand among the cues, but nobody speaks them."""

import re

_WORDS = (
    r"(?:english |deutsche |german |french )?(?:sub(?:title|titled|titling|s)?s?|(?:closed )?caption(?:s|ed|ing)?|"
    r"transcribed|transcription|transcript|translated|synced|ripped|(?:untertitel|ondertitel)(?:t|s|d|ung|ing)?|"
    r"sous-titr(?:es?|age|é)|subt[ií]tulos?|subtitul(?:ado|ación)|legend(?:as?|ado|agem)|sottotitol(?:i|ato)|"
    r"napisy|субтитры)"
)
_BY = (
    "by|von|vom|der|des|durch|im auftrag|par|réalisés|sociét[ée]|por|realizados|pela|pelo|creati|a cura|e revisione|"
    "door|ingediend|stworzone|przez|сделал|создавал|:|©"
)
_SITES = (
    r"(?:amara\.org|opensubtitles\.(?:org|com)|addic7ed\.com|subscene\.com|podnapisi\.(?:net|com)|titlovi\.com|"
    r"tvsubtitles\.net|yifysubtitles\.\w+|yts\.\w{2}|osdb\.link)"
)
# Everywhere in a file: a site of subtitles alone or with one of these words, and its advertisements.
_SITE = re.compile(rf"\W*(?:https?://)?(?:www\.)?{_SITES}(?:/\S*)?\W*", re.IGNORECASE)
_WITH_SITE = re.compile(
    rf"(?:(?<!\w){_WORDS}(?!\w)|字幕|remove all ads|advertise your|rate this subtitle).*{_SITES}"
    rf"|{_SITES}.*(?:(?<!\w){_WORDS}(?!\w)|字幕)",
    re.IGNORECASE,
)
# At both ends of a file: "Subtitles by Anna Berg", "Untertitelung des ZDF, 2020", "Translator: Jane Reviewer: Bob".
_USUAL = re.compile(
    rf"\W*{_WORDS}\s*(?:{_BY})(?:(?<=\W)|(?!\w))|\W*字幕\s*(?:by|由|志愿者|製作|制作|提供|组|組|:|：)"
    r"|\W*(?:translator|transcriber|traducteur|traductor|tradutor|traduttore|übersetzung)\s?: .*"
    r"(?:reviewer|relecteur|revisor|revisore|lektorat)\s?: ",
    re.IGNORECASE,
)
MAX_WORDS = 15  # of a credit


def is_credit(text: str, at_end: bool = False) -> bool:
    """Whether a text is a credit of subtitles.

    Args:
        text: the text of a cue or of a row.
        at_end: it is one of the first or last cues of its file.
    """
    if len(text.split()) > MAX_WORDS:
        return False
    is_certain = _SITE.fullmatch(text) or _WITH_SITE.search(text)
    return bool(is_certain or (at_end and _USUAL.match(text)))
