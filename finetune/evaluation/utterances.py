"""Reads the utterances to score, and converts them to the clips of a scorecard."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.core.errors import DataError
from finetune.core.languages import row_language
from finetune.core.unicode_text import composed
from finetune.core.wording import count
from finetune.data.acoustics import bandwidth, snr
from finetune.data.audio import load_utterance
from finetune.data.audit import audit, stated_utterances
from finetune.data.byte_range import in_folder
from finetune.data.cells import cell_seconds, cell_text
from finetune.data.corpora import read_corpus
from finetune.data.formats.tables import read_table
from finetune.data.manifest import PROMPT_COLUMNS, VERSION_KEY, Utterance, read_manifest
from finetune.data.problems import format_problems
from finetune.data.row import Row
from finetune.data.row_prompt import instruction_of
from finetune.data.segment_times import LONGEST
from finetune.metrics.scorecard import Clip

MAX_PROBLEMS = 5  # clips that an error message lists
LoadAudio = Callable[[Utterance], NDArray[np.float32]]  # samples at 16 kHz


def read_utterances(path: Path, audio_required: bool = True) -> list[Utterance]:
    """Reads a manifest or a table of clips; paths of audio are relative to its folder.

    A manifest that `finetune prepare` wrote is read as it is. For any other file the audio is measured, so that its
    rows give the same samples as in `prepare`.

    Args:
        path: the file.
        audio_required: False where only texts are needed; durations that every row states are then not measured.

    Raises:
        DataError: the file cannot be read, or a clip cannot be used (the message names each one).
    """
    if path.suffix.lower() == ".jsonl" and all(VERSION_KEY in row.values for row in read_table(path)):
        return [
            replace(item, audio_filepath=in_folder(path.parent, item.audio_filepath)) for item in read_manifest(path)
        ]
    rows = read_corpus(str(path), path.parent, audio_required=audio_required)
    durations = [cell_seconds(row.values.get("duration")) or 0.0 for row in rows]
    stated = all(row.fault is None and 0 < duration < LONGEST for row, duration in zip(rows, durations, strict=True))
    if not audio_required and stated:
        return stated_utterances(rows, str(path))
    return audited_utterances(rows, str(path))


def audited_utterances(rows: Sequence[Row], source: str) -> list[Utterance]:
    """Utterances of all rows, with measured durations and without limits on length or speaking rate.

    A row without words in its transcript stays: every recognized word is an insertion.

    Raises:
        DataError: a clip cannot be used (the message names each one).
    """
    audited = audit(
        rows,
        min_duration=0.0,
        max_duration=math.inf,
        max_chars_per_second=math.inf,
        special_tokens=(),
        wordless="keep",
        max_dropped=0,
    )
    if audited.dropped:
        raise DataError(
            f"{source}: {len(audited.dropped)} of {count(len(rows), 'clip')} cannot be used. A score without "
            f"them is not comparable; fix or remove them\n{format_problems(audited.dropped)}"
        )
    return audited.kept


def check_audio(utterances: Sequence[Utterance]) -> None:
    """Decodes all clips, so that none of them stops a comparison after a system has worked for hours.

    Raises:
        DataError: clips cannot be read; the message names the first ones.
    """
    problems = []
    with ThreadPoolExecutor(2) as pool:
        for item, result in zip(utterances, pool.map(_problem, utterances), strict=True):
            if result:
                problems.append(f"{item.id}: {result}")
    if problems:
        more = [f"... and {count(len(problems) - MAX_PROBLEMS, 'more clip')}"] if len(problems) > MAX_PROBLEMS else []
        raise DataError("\n".join(["clips cannot be read; nothing was scored", *problems[:MAX_PROBLEMS], *more]))


def _problem(item: Utterance) -> str:
    try:
        load_utterance(item)
    except DataError as error:
        return str(error)
    return ""


def languages_of(item: Utterance) -> tuple[str, str]:
    """The languages of the speech and of its translation ("" for a transcription), as codes where they are known."""
    target = item.target_language if item.is_translation else ""
    return row_language(item.language) or item.language, row_language(target) or target


def group_name(value: object) -> str:
    """A cell as the name of a group: with one form of accents and spaces, 1.0 (a column of pandas with gaps) as 1."""
    is_integer = isinstance(value, float) and value.is_integer()
    return " ".join(composed(f"{value:.0f}" if is_integer else cell_text(value)).split())


def clip_of(item: Utterance, instruction: str, measure_audio: bool, load_audio: LoadAudio = load_utterance) -> Clip:
    """Converts an utterance to a clip for scoring.

    Args:
        item: the utterance.
        instruction: the default instruction.
        measure_audio: read the audio and measure bandwidth (Hz) and signal-to-noise ratio (dB).
        load_audio: reads the audio.

    Raises:
        DataError: the audio cannot be read.
    """
    extra = {key: group_name(value) for key, value in item.extra.items()}
    columns = {"speaker": item.speaker, "language": item.language, **extra}
    columns |= {name: value for name in PROMPT_COLUMNS if (value := getattr(item, name))}
    columns |= {"channel": str(item.channel)} if item.channel is not None else {}
    measures, (language, target) = {"duration": item.duration}, languages_of(item)
    if measure_audio:
        wave = load_audio(item)
        measures |= {"bandwidth": round(bandwidth(wave)), "snr": round(snr(wave), 1)}
    return Clip(
        item.id,
        item.text,
        item.duration,
        item.speaker,
        extra.get("recording") or item.audio_filepath,
        instruction_of(item, instruction),
        item.keywords,
        target,
        columns,
        measures,
        language,
    )
