"""The parts of a long recording with their words, as subtitles and annotation files state them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import fmean

PAUSE = 0.6  # seconds between two words that begin a new segment
LONGEST = 20.0  # seconds; longer segments of words are cut at their longest pause
MARGIN = 0.1  # seconds that a segment of words has before and after its words, at most half of the pause


@dataclass(frozen=True)
class Cue:
    """A part of a recording.

    Attributes:
        where: its position in the file, such as ":12" for a line.
        start: seconds.
        end: seconds.
        text: its words; None if it has none.
        speaker: a name, or "".
        channel: from 0; None for all.
        recording: the name of the recording in a file of several recordings, or "".
        extra: further columns of its row.
    """

    where: str
    start: float
    end: float
    text: str | None
    speaker: str = ""
    channel: int | None = None
    recording: str = ""
    extra: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Annotation:
    """The cues of a file in their order.

    Attributes:
        cues: the parts that a row can be.
        notes: what was left out or changed, with the number of times.
        media: names of the audio that the file states, the preferred one first.
    """

    cues: Sequence[Cue]
    notes: Counter[str] = field(default_factory=Counter)
    media: Sequence[str] = ()


def order_notes(cues: Iterable[Cue]) -> Counter[str]:
    """Notes about cues that are out of order, overlap with another speaker, or have rounded times."""
    notes: Counter[str] = Counter()
    last: dict[tuple[str, str, int | None], float] = {}
    cues = list(cues)
    for cue in cues:
        key = (cue.recording, cue.speaker, cue.channel)
        notes["cues start before the cue above them"] += cue.start < last.get(key, 0.0)
        last[key] = cue.start
    in_order = sorted(cues, key=lambda cue: (cue.recording, -1 if cue.channel is None else cue.channel, cue.start))
    notes["cues overlap with one of another speaker in the same channel, so both are in their audio"] += sum(
        first.end > second.start + MARGIN
        and first.speaker != second.speaker
        and (first.recording, first.channel) == (second.recording, second.channel)
        for first, second in pairwise(in_order)
    )
    if len(cues) > 2 and any(cue.start for cue in cues) and not any(cue.start % 1 or cue.end % 1 for cue in cues):
        notes[
            "cues of files with times of whole seconds only, so probably rounded: words at the edges are cut off"
        ] += len(cues)
    return +notes


def join_words(words: Iterable[Cue]) -> list[Cue]:
    """Segments of the words of a recording: one for each speaker and channel between two pauses.

    A segment ends at a pause of PAUSE seconds. If it is longer than LONGEST, it is cut at its longest pause.
    """
    groups: dict[tuple[str, int | None, str], list[Cue]] = {}
    for word in words:
        groups.setdefault((word.recording, word.channel, word.speaker), []).append(word)
    segments = list[Cue]()
    for group in groups.values():
        group.sort(key=lambda word: word.start)
        parts = list(_parts(group))
        for index, part in enumerate(parts):
            before = part[0].start - parts[index - 1][-1].end if index else 2 * part[0].start
            after = parts[index + 1][0].start - part[-1].end if index + 1 < len(parts) else 0.0
            segments.append(_joined(part, _margin(before), _margin(after)))
    return segments


def _margin(pause: float) -> float:
    return max(0.0, min(MARGIN, pause / 2))


def _parts(words: Sequence[Cue]) -> Iterator[Sequence[Cue]]:
    """The words between two pauses."""
    pauses = [second.start - first.end for first, second in pairwise(words)]
    starts = [0, *(index for index, pause in enumerate(pauses, 1) if pause >= PAUSE), len(words)]
    for start, end in pairwise(starts):
        yield from _short_parts(words[start:end])


def _short_parts(words: Sequence[Cue]) -> Iterator[Sequence[Cue]]:
    """Parts of at most LONGEST seconds, or of one word."""
    todo = [words]
    while todo:
        part = todo.pop()
        if len(part) == 1 or part[-1].end - part[0].start <= LONGEST:
            yield part
            continue
        middle = (part[0].start + part[-1].end) / 2  # of equal pauses, the one in the middle
        cut = max(
            range(1, len(part)), key=lambda i: (round(part[i].start - part[i - 1].end, 3), -abs(part[i].start - middle))
        )
        todo += [part[cut:], part[:cut]]


def _joined(words: Sequence[Cue], before: float, after: float) -> Cue:
    extra = dict(words[0].extra)
    confidences = [float(str(word.extra["confidence"])) for word in words if "confidence" in word.extra]
    if confidences:
        extra["confidence"] = round(fmean(confidences), 4)
    return replace(
        words[0],
        start=round(words[0].start - before, 6),
        end=round(max(word.end for word in words) + after, 6),
        text=" ".join(word.text for word in words if word.text),
        extra=extra,
    )
