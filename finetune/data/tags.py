"""Finds annotations in transcripts: tags such as `<unk>` and `[noise]`, markup, and HTML entities.

Annotations are not spoken, but a model that is trained on them writes them. `strip_tags` keeps every spoken word: it
removes an annotation that is certain, keeps the words of one that contains words, and leaves one that is not certain.
"""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

# An annotation is certain if all its words are in these two sets, and one is in the first.
_EVENTS = """
    applause beep beeps breath breathes breathing breaths buzz chatter cheering cheers chuckle chuckles chuckling clap
    clapping claps clearing clears click clicks cough coughing coughs cries crosstalk crying dtmf exhale exhales gasp
    gasps giggle giggles giggling groan groans hesitation hiccup humming inaudible indecipherable indiscernible
    indistinct inhale inhales interjection knocking knocks laugh laughing laughs laughter lipsmack mumble mumbles
    mumbling music noise noises nonspeech nonvocal nsn oov overlap overlapping pause pauses redacted ringing rings
    rustling screams sigh sighing sighs sil silence singing sings smack sneeze sneezes sniff sniffing sniffle sniffs
    sobbing sobs spn squeak tsk typing unclear unintelligible unk unrecognizable untranscribed vocalized whispering
    whispers whistles whistling yawn yawns
    applaus geräusch geräusche husten hustet klatschen lachen lacht musik räuspern räuspert seufzen seufzt stille
    unverständlich
    applaudissements bruit bruits incompréhensible musique rires soupir toux respiration
    aplausos música pausa respiración risas ruido ruidos silencio suspiro ininteligible
    inaudível respiração risadas risos ruído ruídos silêncio tosse ininteligível
    applausi musica risata risate rumore rumori silenzio sospiro incomprensibile
    笑 笑い 笑い声 拍手 咳 音楽 不明 雑音 無音 聞き取れず 笑声 掌声 音乐 噪音 咳嗽 静音 听不清
"""
_DETAILS = """
    a all audio background bell both brief cross door end foreign language lip lips loud loudly mouth multiple non of
    other people phone quiet quietly ring short long soft softly sound sounds speaker speakers speech start static
    talk the throat tone two unknown
"""
EVENTS, DETAILS = frozenset(_EVENTS.split()), frozenset(_DETAILS.split())
_ENTITY = re.compile(r"&(?:\#\d{1,7}|\#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_TAG = (
    rf"(?P<entity>{_ENTITY.pattern})"
    + r"""
  | (?P<angle>\\?[<＜]{1,2}(?:/?[^\s<>＜＞][^<>＜＞]{0,80}|\s+/?\w[\w|:-]*\s*/?)[>＞]{1,2})
  | (?P<square>[\[［【〔]{1,2}[^\[\]［］【】〔〕]{0,80}[\]］】〕]{1,2})
  | (?P<curly>[{｛]{1,2}[^{}｛｝]{0,80}[}｝]{1,2})
  | (?P<variant>(?<=\w)\(\d{1,2}\))
  | (?P<double>\(\([^()]{0,200}\)\))
  | (?P<round>[(（][^()（）]{0,80}[)）])
  | (?P<chat>(?<!\S)&[=+~-][^\W\d][\w:-]*)
  | (?P<sign>(?<!\S)[%\#][^\W\d][\w-]*\#?)
  | (?P<bang>(?<!\S)![^\W\d_]+(?!\S))
  | (?P<stars>\*{1,3}[^\W\d](?:[^*]{0,60}[^*\s])?\*{1,3}(?!\w))
  | (?P<wrapped>(?<!\w)(?P<mark>[+~_=|@^/]{1,3})\s*[^\W\d](?:[^+~_=|@^/]{0,40}[^+~_=|@^/\s])?\s*(?P=mark)(?!\w))
  | (?P<speaker_change>(?<!\S)>{2,3}(?=\s|\w))
  | (?P<music>[♩♪♫♬]+)
  | (?P<token>(?<!\S)(?:SIL|SPN|NSN|UNK)(?!\S))  # of Kaldi lexicons; named, but not removed
"""
)
_MAYBE = re.compile(r"[&<＜\[［【〔{｛(（%#!*+~_=|@^/>♩♪♫♬]|SIL|SPN|NSN|UNK")  # each tag has one of these
_SIGNS = "<>＜＞[]［］【】〔〕{}｛｝()（）%#*+~_=|@^/!& \t"
_SWITCHBOARD = re.compile(r"[{｛][A-Z]\s+([^{}]*)[}｝]")  # {F uh, }: a letter for the kind, then spoken words
_SPOKEN = re.compile(r"[\[［](\w+)-([^\[\]]+)[\]］]")  # [laughter-yes]: spoken while laughing


@dataclass(frozen=True)
class Tag:
    """An annotation and its position; `replacement` is None if it must be kept, because it may be spoken."""

    text: str
    start: int
    end: int
    replacement: str | None


def find_tags(text: str, extra: Sequence[str] = ()) -> list[Tag]:
    """The annotations of a text, in their order.

    Args:
        text: a transcript.
        extra: further annotations, such as `xxx`; case does not matter, and a part of a word does not match.
    """
    tags = list[Tag]()
    if not (extra or _MAYBE.search(text)):
        return tags
    for match in _pattern(tuple(extra)).finditer(text):
        if tag := _tag(match, text):
            tags.append(tag)
    return tags


def strip_tags(text: str, extra: Sequence[str] = ()) -> str:
    """The text without annotations, entities as characters, white space folded."""
    for _ in range(3):  # "&amp;lt;b&amp;gt;" becomes "&lt;b&gt;", and this a tag
        text = _ENTITY.sub(lambda match: html.unescape(match[0]), text)
    for _ in range(3):  # "[noise (loud)]" contains another annotation
        text = _strip_once(text, extra)
    return text


def without_tags(text: str, extra: Sequence[str] = ()) -> str:
    """The text with a space for each annotation, also for one that may be spoken."""
    parts, start = list[str](), 0
    for tag in find_tags(text, extra):
        parts, start = [*parts, text[start : tag.start], " "], tag.end
    return "".join([*parts, text[start:]])


def is_known(annotation: str) -> bool:
    """Whether an annotation certainly names an event, such as "door noise"; signs and digits do not count."""
    words = {*re.findall(r"[^\W\d_]+", annotation.lower())}
    return bool(words & EVENTS) and words <= EVENTS | DETAILS


@cache
def _pattern(extra: tuple[str, ...]) -> re.Pattern[str]:
    items = [re.escape(item).replace(r"\ ", r"\s+") for item in sorted(extra, key=len, reverse=True)]
    own = "|".join(f"{_edge('<!', item[0])}{item}{_edge('!', item[-1])}" for item in items)
    return re.compile(rf"(?P<extra>(?i:{own})) | {_TAG}" if own else _TAG, re.VERBOSE)


def _edge(direction: str, char: str) -> str:
    """A boundary of a word, if the annotation begins or ends with a letter or digit."""
    return rf"(?{direction}\w)" if char.isalnum() else ""


def _tag(match: re.Match[str], text: str) -> Tag | None:
    """The tag of a match; None if the match is not an annotation."""
    kind, tag = str(match.lastgroup), match[0]
    kind = "wrapped" if kind == "mark" else kind
    if kind == "entity" and html.unescape(tag) == tag:
        return None
    known = is_known(tag)
    if (kind == "bang" or (kind == "wrapped" and " " in tag)) and not known:  # "a + b + c"
        return None
    return Tag(tag, match.start(), match.end(), _replacement(kind, tag, known, _is_glued(match, text)))


def _replacement(kind: str, tag: str, known: bool, glued: bool) -> str | None:
    """What `strip_tags` writes for an annotation; None keeps it."""
    words = tag.strip(_SIGNS)
    if kind in ("entity", "token"):
        return None
    if kind == "chat":  # CHAT: &=laughs is an event, &-uh is spoken, &+fr is a part of a word
        return {"=": " ", "-": words.strip("-"), "~": words}.get(tag[1])
    if kind in ("extra", "angle", "variant", "speaker_change", "music") or known or not words:
        return "" if kind == "variant" else " "
    if kind == "square" and (spoken := _SPOKEN.fullmatch(tag)) and is_known(spoken[1]):
        return spoken[2]
    if kind == "curly" and (spoken := _SWITCHBOARD.fullmatch(tag)):
        return spoken[1]
    if kind in ("square", "curly"):
        return None if glued else " "  # th[e]: a part of a word
    return words if kind in ("double", "sign", "stars") else None


def _is_glued(match: re.Match[str], text: str) -> bool:
    before, after = text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]
    return before.isalnum() or after.isalnum()


def _strip_once(text: str, extra: Sequence[str]) -> str:
    result, start = "", 0
    for tag in find_tags(text, extra):
        if tag.replacement is None:
            continue
        result += text[start : tag.start]
        if not tag.replacement.strip() and text[tag.end : tag.end + 1] in tuple(",.;:!?…"):
            result = result.rstrip()  # "yes [noise], no" becomes "yes, no"
        else:
            result += tag.replacement
        start = tag.end
    return " ".join((result + text[start:]).split()) if start else text
