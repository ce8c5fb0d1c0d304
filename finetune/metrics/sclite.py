"""Writes references and hypotheses in the formats of other tools: NIST's TRN, STM and CTM, and JSON Lines.

sclite reads them: `sclite -r test.ref.trn -h test.adapted.trn -i spu_id`, or `-r test.ref.stm stm -h
test.adapted.ctm ctm`. Texts are normalized with the preset of the scores. Control characters, and the characters
that sclite uses for alternatives, fragments and comments, are removed; "/" stays, because it separates only in braces.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.core import files
from finetune.metrics.normalizer import normalize

_CONTROL = r"\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"  # without white space
_MARKUP = re.compile(rf"[(){{}}@;*~\\{_CONTROL}]")


@dataclass(frozen=True)
class Segment:
    """One utterance of a transcript file; `speaker` is "" if unknown, `duration` is in seconds."""

    id: str
    speaker: str
    duration: float
    text: str


def trn(segments: Sequence[Segment], preset: str) -> list[str]:
    """`words (speaker-id)`, one line for each utterance; a line without words is an empty hypothesis."""
    return [
        f"{_text(item, preset)} ({label})".lstrip() if _text(item, preset) else f" ({label})"
        for item, label in zip(segments, labels_of(segments), strict=True)
    ]


def stm(segments: Sequence[Segment], preset: str) -> list[str]:
    """`file channel speaker start end words`; each utterance is a file.

    Words that begin with "<" follow the label `<o>`, because sclite reads the first one as a label.
    """
    return [
        f"{label} 1 {_name(item.speaker) or 'unknown'} 0.000 {item.duration:.3f} "
        f"{'<o> ' if _text(item, preset).startswith('<') else ''}{_text(item, preset)}".rstrip()
        for item, label in zip(segments, labels_of(segments), strict=True)
    ]


def ctm(segments: Sequence[Segment], preset: str) -> list[str]:
    """`file channel start duration word`. Word times are not known: words are spaced evenly over the utterance."""
    lines = [";; word times are not measured: words are spaced evenly over each utterance"]
    for item, label in zip(segments, labels_of(segments), strict=True):
        words = _text(item, preset).split()
        each = item.duration / max(1, len(words))
        lines += [f"{label} 1 {number * each:.3f} {each:.3f} {word}" for number, word in enumerate(words)]
    return lines


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Writes UTF-8 lines that end with "\\n" on every platform; a failure keeps the earlier file."""
    files.write_lines(path, (f"{line}\n".encode() for line in lines))


def write_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Writes JSON Lines. A lone surrogate, which UTF-8 cannot encode, is written as an escape."""
    write_lines(path, (json.dumps(row, ensure_ascii=not _encodable(row)) for row in rows))


def _encodable(row: Mapping[str, object]) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(item: Segment, preset: str) -> str:
    return " ".join(_MARKUP.sub("", normalize(item.text, preset)).encode("utf-8", "replace").decode().split())


def _name(text: str) -> str:
    return re.sub(rf"[\s(){{}};{_CONTROL}]+", "_", text).encode("utf-8", "replace").decode()


def labels_of(segments: Sequence[Segment]) -> list[str]:
    """`speaker-id` of each segment, without spaces and brackets; a number makes equal labels unique."""
    used: set[str] = set()
    labels = []
    for item in segments:
        label = name = f"{_name(item.speaker).replace('-', '_') or 'unknown'}-{_name(item.id)}"
        count = 1
        while label in used:
            count += 1
            label = f"{name}_{count}"
        used.add(label)
        labels.append(label)
    return labels
