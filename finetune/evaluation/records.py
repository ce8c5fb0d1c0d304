"""Utterance by utterance: what a score needs to know of each, and the rows and transcripts that evaluate writes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.core.errors import DataError
from finetune.core.run_dir import RunDir
from finetune.data.acoustics import bandwidth, snr
from finetune.data.audio import load_audio
from finetune.data.audit import audit, report
from finetune.data.corpora import read_corpus, read_table
from finetune.data.hub import Row
from finetune.data.manifest import Utterance, read_manifest
from finetune.metrics.sclite import Segment, ctm, stm, trn, write_lines
from finetune.metrics.scorecard import Clip, SystemOutput, flags_of
from finetune.metrics.wer import errors_per_utterance

if TYPE_CHECKING:
    from finetune.inference.recognize import Hypothesis  # torch with it, which files of hypotheses do without


def usable(rows: Sequence[Row], source: str) -> list[Utterance]:
    """Every row of a corpus as it is, whatever its length, with its audio measured.

    Raises:
        DataError: a row cannot be used (all are named).
    """
    checked = audit(
        rows, min_duration=0.0, max_duration=math.inf, max_chars_per_second=math.inf, special_tokens=(), workers=2
    )
    if checked.dropped:
        raise DataError(
            f"{source}: {len(checked.dropped)} of {len(rows)} clips cannot be used, and a score without "
            f"them would be that of another set\n{report(checked.dropped)}"
        )
    return checked.kept


def clips_of_file(path: Path) -> list[Utterance]:
    """The manifest, with audio that is looked for from its folder; without durations the audio is measured."""
    if path.suffix.lower() != ".jsonl" or any("duration" not in row.values for row in read_table(path)):
        return usable(read_corpus(str(path), path.parent), str(path))
    return [replace(item, audio_filepath=str(path.parent / item.audio_filepath)) for item in read_manifest(path)]


def instruction_of(item: Utterance, otherwise: str) -> str:
    """What the clip's prompt asks: its column `instruction`, such as "translate the speech to French"."""
    return str(item.extra.get("instruction") or otherwise)


def sets_of(decoded: dict[str, list[Utterance]]) -> dict[str, tuple[str, list[int]]]:
    """What is scored by itself: test and canary without translations, and each corpus of a canary that has several.

    Japanese has no words to count: beside other speech it is a set of its own, `preset_of` says how it is scored.
    """
    sets = {}
    for split, utterances in decoded.items():
        corpora: dict[str, list[int]] = {}
        for index, item in enumerate(utterances):
            corpora.setdefault(str(item.extra.get("corpus", "")), []).append(index)
        spoken = [index for index, item in enumerate(utterances) if not item.extra.get("target_language")]
        worded = [index for index in spoken if not is_japanese(utterances[index])]
        sets[split] = (split, worded or spoken or list(range(len(utterances))))
        if split == "canary" and len(corpora) > 1:
            sets |= {f"{split}: {corpus}": (split, chosen) for corpus, chosen in corpora.items()}
        left = [index for index in spoken if worded and is_japanese(utterances[index])]
        if left and not any(left == chosen for _, chosen in sets.values()):
            sets[f"{split}: Japanese"] = (split, left)
    return sets


def is_japanese(item: Utterance) -> bool:
    return item.language.lower().partition("-")[0] in ("ja", "jpn", "japanese")


def preset_of(items: Sequence[Utterance], otherwise: str) -> str:
    """The normalizer of a set: for Japanese the one that counts characters, whatever the recipe says of words."""
    return "ja-cer@1" if all(map(is_japanese, items)) else otherwise


def clip_of(item: Utterance, instruction: str, measured: bool) -> Clip:
    columns = {"speaker": item.speaker, "language": item.language, **{key: str(v) for key, v in item.extra.items()}}
    measures = {"duration": item.duration}
    if measured:
        wave = load_audio(item.audio_filepath, item.offset, item.duration)
        measures |= {"bandwidth": round(bandwidth(wave)), "snr": round(snr(wave), 1)}
    return Clip(
        item.id,
        item.text,
        item.duration,
        item.speaker,
        str(item.extra.get("recording", item.audio_filepath)),
        instruction_of(item, instruction),
        item.keywords,
        str(item.extra.get("target_language") or ""),
        columns,
        measures,
    )


def heard_of(hypothesis: "Hypothesis") -> SystemOutput:
    return SystemOutput(hypothesis.text, hypothesis.seconds, hypothesis.truncated)


def hypothesis_row(item: Utterance, hypothesis: "Hypothesis") -> dict[str, Any]:
    return {
        "id": item.id,
        "audio_filepath": item.audio_filepath,
        "duration": item.duration,
        "text": item.text,
        "pred_text": hypothesis.text,
        "log_probability": round(hypothesis.log_probability, 4),
        "time": round(hypothesis.seconds, 4),
        "truncated": hypothesis.truncated,
    }


def rows_of(
    name: str, items: Sequence[Utterance], clips: Sequence[Clip], heard: dict[str, list[SystemOutput]], preset: str
) -> Iterable[dict[str, Any]]:
    """Both systems side by side, in the leaderboards' keys; `pred_text` is the adapted model's."""
    errors = {
        which: errors_per_utterance([clip.text for clip in clips], [found.text for found in texts], preset)
        for which, texts in heard.items()
    }
    flagged = {which: flags_of(clips, texts, preset) for which, texts in heard.items()}
    for index, item in enumerate(items):
        base, adapted = (heard[which][index] for which in ("base", "adapted"))
        yield {
            "set": name,
            "id": item.id,
            "audio_filepath": item.audio_filepath,
            "offset": item.offset,
            "duration": item.duration,
            "time": round(adapted.seconds, 4),
            "text": item.text,
            "pred_text": adapted.text,
            "pred_text_base": base.text,
            "speaker": item.speaker,
            "language": item.language,
            "words": errors["base"][index][1],
            "errors": errors["adapted"][index][0],
            "errors_base": errors["base"][index][0],
            "flags": flagged["adapted"][index],
            "flags_base": flagged["base"][index],
            **clips[index].measures,
        }


def write_transcripts(
    run: RunDir, name: str, clips: Sequence[Clip], heard: dict[str, list[SystemOutput]], preset: str
) -> None:
    texts = {
        "ref": [clip.text for clip in clips],
        **{which: [item.text for item in items] for which, items in heard.items()},
    }
    for which, column in texts.items():
        segments = [
            Segment(clip.id, clip.speaker, clip.duration, text) for clip, text in zip(clips, column, strict=True)
        ]
        for form, lines in (("trn", trn), ("stm", stm), ("ctm", ctm)):
            if (form, which) != ("ctm", "ref"):
                write_lines(run.transcripts(name, which, form), lines(segments, preset))
