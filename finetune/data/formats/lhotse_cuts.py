"""Converts cuts of Lhotse, as in a JSON manifest, to rows: one for each supervision.

The times of a supervision are relative to its cut, those of a cut to its recording. A cut whose audio is not a part of
one file, such as a MixedCut or a recording with transforms, is a fault.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from finetune.data.cells import shown
from finetune.data.problems import Finding
from finetune.data.row import Row

LONGEST = 1e9  # seconds; a larger number is not a time
SAME = 0.02  # seconds by which a supervision can exceed its cut (rounding)
CUTS = ("MonoCut", "MultiCut")
OWN = ("id", "audio_filepath", "text", "offset", "duration", "channel", "audio_digest", "manifest_version")
ARRAYS = ("storage_type", "array", "sources")  # keys of the manifest of an array, of features or of another recording


def cut_rows(cut: Mapping[str, Any], where: str) -> Iterator[Row]:
    """The rows of a cut: one for each supervision, or a fault."""
    kind = cut.get("type", "MonoCut")
    supervisions = objects(cut.get("supervisions"))
    if kind not in CUTS:
        what = "mixes several recordings" if kind == "MixedCut" else "has no speech of a recording"
        advice = "save its audio with CutSet.save_audios or to_shar, or use the cuts that it was made of"
        yield _fault(cut, where, "unreadable audio", f"a {kind} {what}; {advice}")
    elif not supervisions:
        yield _fault(cut, where, "empty transcript", "the cut has no supervision")
    for supervision in supervisions if kind in CUTS else ():
        yield supervision_row(cut, supervision, where)


def _fault(cut: Mapping[str, Any], where: str, kind: str, detail: str) -> Row:
    return Row(where, {"id": cut.get("id"), "audio_filepath": None, "text": None}, Finding(kind, detail))


def supervision_row(cut: Mapping[str, Any], supervision: Mapping[str, Any], where: str) -> Row:
    """The row of one supervision of a MonoCut or MultiCut."""
    recording = cut.get("recording")
    text = supervision.get("text")
    values: dict[str, object] = {
        "id": supervision.get("id") or cut.get("id"),
        "audio_filepath": None,
        "text": text if isinstance(text, str) else None,
    }
    values |= {key: supervision[key] for key in ("speaker", "language", "gender") if supervision.get(key)}
    values |= _custom(cut, values) | _custom(supervision, values)
    channels = supervision.get("channel") if isinstance(cut.get("channel"), list) else None
    audio = _audio(recording, _channels(cut.get("channel") if channels is None else channels))
    times = _times(cut, supervision) if not isinstance(audio, Finding) else audio
    if not isinstance(audio, Finding):
        values |= audio
        name = recording.get("id") if isinstance(recording, Mapping) else None
        if name and name != audio["audio_filepath"]:
            values.setdefault("recording", name)
    if isinstance(times, Finding):
        return Row(where, values, times)
    if not isinstance(text, str):
        return Row(where, values | times, Finding("empty transcript", "the supervision has no text"))
    return Row(where, values | times)


def _custom(item: Mapping[str, Any], values: Mapping[str, object]) -> dict[str, object]:
    """The custom values of a cut or a supervision, without arrays and what the row already has."""
    custom = item.get("custom")
    if not isinstance(custom, Mapping):
        return {}
    arrays = {
        key for key, value in custom.items() if isinstance(value, Mapping) and any(map(value.__contains__, ARRAYS))
    }
    return {str(key): value for key, value in custom.items() if key not in arrays and key not in (*OWN, *values)}


def objects(value: object) -> list[Mapping[str, Any]]:
    """The objects of a list; none if the value is not a list."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _channels(value: object) -> list[int | str]:
    """The channels of a list or a number; what is not a number has no such channel."""
    items = value if isinstance(value, list) else [0 if value is None else value]
    return [item if isinstance(item, int) else shown(item) for item in items]


def _audio(recording: object, channels: list[int | str]) -> dict[str, object] | Finding:
    """The path and the channel of a recording, or why it cannot be read from one file."""
    if not isinstance(recording, Mapping):
        return Finding("missing audio", "the cut has no recording; features alone cannot be used")
    if transforms := recording.get("transforms"):
        names = ", ".join(str(item.get("name")) for item in objects(transforms)) or shown(transforms)
        advice = "save its audio with CutSet.save_audios or to_shar, or use the original cuts"
        return Finding("unreadable audio", f"the recording has the transforms {names}; {advice}")
    sources = objects(recording.get("sources"))
    matching = [item for item in sources if channels and {*channels} <= {*_channels(item.get("channels"))}]
    if not matching:
        available = [channel for item in sources for channel in _channels(item.get("channels"))]
        in_one = "one file with " if {*channels} <= {*available} else ""
        detail = f"the recording has no {in_one}channel {_joined(channels)}; it has {_joined(available) or 'no source'}"
        return Finding("invalid channel", detail)
    source, kind = matching[0].get("source"), matching[0].get("type")
    if kind not in ("file", "url") or not isinstance(source, str) or not source:
        reasons = {
            "command": "commands are not run; save its output as audio files",
            "memory": "write the cuts with to_shar",
            "nodata": "the tar has no audio of this cut",
            "shar": "the audio is in recording.*.tar beside cuts.*.jsonl.gz; read the folder of all Shar files",
        }
        reason = reasons.get(str(kind), "write the cuts with audio files")
        return Finding("unreadable audio", f"a source of type {shown(kind)} ({shown(source)}): {reason}")
    all_channels = _channels(matching[0].get("channels"))
    if len(channels) == len(all_channels):  # the average of all channels
        return {"audio_filepath": source}
    if len(channels) > 1:
        detail = f"channels {_joined(channels)} of {len(all_channels)}; give one supervision for each channel"
        return Finding("invalid channel", detail)
    return {"audio_filepath": source, "channel": all_channels.index(channels[0])}


def _joined(values: list[int | str]) -> str:
    return " and ".join(map(str, values))


def _times(cut: Mapping[str, Any], supervision: Mapping[str, Any]) -> dict[str, object] | Finding:
    """Offset and duration in the recording; the duration alone if the row is the whole recording."""
    numbers = [cut.get("start", 0), cut.get("duration"), supervision.get("start", 0), supervision.get("duration")]
    if not all(isinstance(n, int | float) and not isinstance(n, bool) and abs(n) < LONGEST for n in numbers):
        return Finding("invalid offset", f"start and duration of cut and supervision are {shown(numbers)}")
    cut_start, cut_duration, start, duration = map(float, numbers)
    if cut_start < 0 or duration <= 0 or start >= cut_duration:
        return Finding("invalid duration", f"start and duration of cut and supervision are {shown(numbers)}")
    if start < -SAME or start + duration > cut_duration + SAME:
        detail = f"the supervision lies from {start:g} to {start + duration:g} s of a cut of {cut_duration:g} s"
        return Finding("contradictory segment", detail)
    end = min(start + duration, cut_duration)
    offset, duration = round(cut_start + max(0.0, start), 9), round(end - max(0.0, start), 9)
    recorded = cut["recording"].get("duration")
    if offset == 0 and isinstance(recorded, int | float) and duration - 1e-3 < recorded < duration + 1e-3:
        return {"duration": duration}
    return {"offset": offset, "duration": duration}
