"""Reads annotation files of ELAN (.eaf): each annotation of a tier that has times is a part of the recording."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import PurePosixPath
from urllib.parse import unquote, urlparse
from xml.etree import ElementTree

from finetune.core.wording import count
from finetune.data.cells import cell_number
from finetune.data.formats.cues import Annotation, Cue
from finetune.data.formats.tiers import Tier, cues_of_tiers

NO_TIMES = "annotations without times are not read"
NUMBERS = {"ref", "id", "ids", "number", "utterance-id", "utt-id", "utterance_id"}  # tiers that number the utterances
TEXTS = ("tx", "text", "transcript", "transcription", "orth", "ort", "utterance", "utt")  # their tiers of words


def parse_elan(text: str) -> Annotation:
    """The annotations of the tiers that depend on no other tier; the participant of a tier is the speaker.

    If such a tier only numbers the utterances (`ref@SPK`), the tier of words that depends on it is read.

    Raises:
        ValueError: the text is not an annotation file of ELAN, or has a document type, which can define entities.
    """
    if re.search(r"<!\s*(?:DOCTYPE|ENTITY)", text):
        raise ValueError(": an XML file with a document type or entities is not read; save it with ELAN")
    try:
        root = ElementTree.fromstring(text.lstrip("\ufeff"))
    except ElementTree.ParseError as error:
        raise ValueError(f": damaged XML ({error})") from error
    if root.tag != "ANNOTATION_DOCUMENT":
        raise ValueError(f": not an annotation file of ELAN (<{root.tag[:40]}>)")
    header = root.find("HEADER")
    if header is not None and header.get("TIME_UNITS", "milliseconds") != "milliseconds":
        raise ValueError(f": the unit of its times is {header.get('TIME_UNITS')!r}; only milliseconds are read")
    media, origin = _media(root)
    spans = _spans(root, origin)
    tiers = {str(tier.get("TIER_ID")): tier for tier in root.iter("TIER")}
    notes: Counter[str] = Counter()
    chosen = dict[str, str]()  # the tier with the words, and the one with the speaker
    for name, element in tiers.items():
        if element.get("PARENT_REF") is None:
            chosen[_tier_of_words(name, tiers) if _is_number(name) else name] = name
    for name, element in tiers.items():
        if name not in chosen and (number := len(element.findall("ANNOTATION"))):
            notes[f"annotations of the dependent tier {name!r} are not read"] += number
    chosen_tiers = []
    for name, parent in chosen.items():
        speaker = tiers[name].get("PARTICIPANT") or tiers[parent].get("PARTICIPANT") or ""
        chosen_tiers.append(Tier(name, _cues(tiers[name], name, spans, notes), speaker))
    if notes[NO_TIMES] and not any(tier.cues for tier in chosen_tiers):
        raise ValueError(
            f": {count(notes[NO_TIMES], 'annotation')}, but none has times, so the audio of each is not known; align "
            "them with the recording in ELAN"
        )
    result = cues_of_tiers(chosen_tiers, notes)
    return Annotation(result.cues, result.notes, media)


def _spans(root: ElementTree.Element, origin: float) -> dict[str, tuple[float, float]]:
    """Start and end in seconds of each annotation that has both."""
    slots = {str(slot.get("TIME_SLOT_ID")): _seconds(slot.get("TIME_VALUE")) for slot in root.iter("TIME_SLOT")}
    spans = dict[str, tuple[float, float]]()
    for item in root.iter("ALIGNABLE_ANNOTATION"):
        start, end = (slots.get(str(item.get(f"TIME_SLOT_REF{number}"))) for number in (1, 2))
        if start is not None and end is not None:
            spans[str(item.get("ANNOTATION_ID"))] = round(start + origin, 6), round(end + origin, 6)
    return spans


def _seconds(milliseconds: str | None) -> float | None:
    if milliseconds is None:
        return None
    if (number := cell_number(milliseconds)) is None:
        raise ValueError(f": the time {milliseconds[:20]!r} is not a number of milliseconds")
    return number / 1000


def _media(root: ElementTree.Element) -> tuple[list[str], float]:
    """The names of the media files without their folders, and the start of the first one in seconds."""
    media, origin = list[str](), 0.0
    for item in root.iter("MEDIA_DESCRIPTOR"):
        address = item.get("RELATIVE_MEDIA_URL") or item.get("MEDIA_URL") or ""
        name = PurePosixPath(unquote(urlparse(address).path).replace("\\", "/")).name
        if name and not media:
            origin = _seconds(item.get("TIME_ORIGIN")) or 0.0
        media += [name] if name else []
    return media, origin


def _is_number(name: str) -> bool:
    return re.split(r"@|\s", name.lower())[0] in NUMBERS


def _tier_of_words(name: str, tiers: Mapping[str, ElementTree.Element]) -> str:
    """The tier that depends on `name` and has words by its name; or `name`."""
    children = [child for child, element in tiers.items() if element.get("PARENT_REF") == name]
    usual = [child for word in TEXTS for child in children if re.split(r"@|\s", child.lower())[0] == word]
    return next(iter(usual), name)


def _cues(
    element: ElementTree.Element, name: str, spans: Mapping[str, tuple[float, float]], notes: Counter[str]
) -> list[Cue]:
    cues = []
    for item in element.iter():
        if item.tag not in ("ALIGNABLE_ANNOTATION", "REF_ANNOTATION"):
            continue
        key = str(item.get("ANNOTATION_ID"))
        span = spans.get(key) or spans.get(str(item.get("ANNOTATION_REF")))
        if span is None:
            notes[NO_TIMES] += 1
            continue
        text = " ".join((item.findtext("ANNOTATION_VALUE") or "").split())
        cues.append(Cue(f": tier {name!r}, annotation {key}", *span, text))
    return cues
