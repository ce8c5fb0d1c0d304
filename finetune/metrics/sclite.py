"""Hypotheses and references in the forms of other tools: NIST's TRN, STM and CTM, and JSON Lines.

sclite reads them: `sclite -r test.ref.trn -h test.adapted.trn -i spu_id`, or `-r test.ref.stm stm -h
test.adapted.ctm ctm`. Texts are those that were scored, normalized by the same preset; characters by which
sclite marks alternatives, fragments or comments, and control characters, are left out.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.metrics.normalizer import normalize

_CONTROL = r"\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"  # those that are not white space
_MARKUP = re.compile(rf"[(){{}}/@<>;*~\\{_CONTROL}]")


@dataclass(frozen=True)
class Segment:
    """What one line of a transcript file needs: `id`, `speaker` ("" is unknown), seconds of audio, text."""

    id: str
    speaker: str
    duration: float
    text: str


def trn(segments: Sequence[Segment], preset: str) -> list[str]:
    """`words (speaker-id)`, one line an utterance; a line without words is an empty hypothesis."""
    return [
        f"{_text(item, preset)} ({label})".lstrip() if _text(item, preset) else f" ({label})"
        for item, label in zip(segments, labels_of(segments), strict=True)
    ]


def stm(segments: Sequence[Segment], preset: str) -> list[str]:
    """`file channel speaker start end words`: each clip is a file of its own."""
    return [
        f"{label} 1 {_name(item.speaker) or 'unknown'} 0.000 {item.duration:.3f} {_text(item, preset)}".rstrip()
        for item, label in zip(segments, labels_of(segments), strict=True)
    ]


def ctm(segments: Sequence[Segment], preset: str) -> list[str]:
    """`file channel start duration word`. No times of words are known: they are spread evenly over the clip."""
    lines = [";; times of words are not measured: they are spread evenly over each clip"]
    for item, label in zip(segments, labels_of(segments), strict=True):
        words = _text(item, preset).split()
        each = item.duration / max(1, len(words))
        lines += [f"{label} 1 {number * each:.3f} {each:.3f} {word}" for number, word in enumerate(words)]
    return lines


def write_lines(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as out:
        out.writelines(line + "\n" for line in lines)


def write_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """JSON Lines; a lone surrogate, which UTF-8 cannot hold, is written as an escape."""
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
    """`speaker-id` without spaces or brackets, each once: a number is added where that made two equal."""
    taken: set[str] = set()
    labels = []
    for item in segments:
        label = name = f"{_name(item.speaker).replace('-', '_') or 'unknown'}-{_name(item.id)}"
        count = 1
        while label in taken:
            count += 1
            label = f"{name}_{count}"
        taken.add(label)
        labels.append(label)
    return labels
