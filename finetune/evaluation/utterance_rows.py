"""Result rows and transcripts for each utterance, as `finetune evaluate` and `finetune score` write them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from finetune.core.run_dir import RunDir
from finetune.data.manifest import Utterance
from finetune.inference.recognize import Hypothesis
from finetune.metrics.hallucination import written_language
from finetune.metrics.result_rows import UtteranceResult
from finetune.metrics.results import SYSTEMS
from finetune.metrics.sclite import Segment, ctm, stm, trn, write_lines
from finetune.metrics.scorecard import Clip, SystemOutput, flags_of
from finetune.metrics.wer import errors_per_utterance


def hypothesis_row(item: Utterance, hypothesis: Hypothesis) -> dict[str, Any]:
    """One row of a hypothesis file; `time` is seconds of decoding."""
    return {
        "id": item.id,
        "audio_filepath": item.audio_filepath,
        "offset": item.offset,
        "duration": item.duration,
        **({} if item.channel is None else {"channel": item.channel}),
        "text": item.text,
        "pred_text": hypothesis.text,
        "log_probability": round(hypothesis.log_probability, 4),
        "time": round(hypothesis.seconds, 4),
        "truncated": hypothesis.truncated,
    }


def utterance_rows(
    name: str,
    utterances: Sequence[Utterance],
    clips: Sequence[Clip],
    outputs: Mapping[str, Sequence[SystemOutput]],
    preset: str,
) -> Iterable[UtteranceResult]:
    """Rows with the results of base and adapted model, with the keys of the Open ASR Leaderboard.

    Args:
        name: the set.
        utterances: the utterances of the set.
        clips: the same utterances as clips, with their measures.
        outputs: by system (`base`, `adapted`), one output for each utterance.
        preset: the normalizer.
    """
    references = [clip.text for clip in clips]
    errors = {
        system: errors_per_utterance(references, [output.text for output in column], preset)
        for system, column in outputs.items()
    }
    flags = {system: flags_of(clips, column, preset) for system, column in outputs.items()}
    for index, item in enumerate(utterances):
        base, adapted = (outputs[system][index] for system in SYSTEMS)
        yield UtteranceResult(
            set=name,
            id=item.id,
            audio_filepath=item.audio_filepath,
            offset=item.offset,
            duration=item.duration,
            channel=item.channel,
            time=round(adapted.seconds, 4),
            text=item.text,
            pred_text=adapted.text,
            pred_text_base=base.text,
            speaker=item.speaker,
            language=item.language,
            words=errors["base"][index][1],
            errors=errors["adapted"][index][0],
            errors_base=errors["base"][index][0],
            flags=list(flags["adapted"][index]),
            flags_base=list(flags["base"][index]),
            bandwidth=clips[index].measures.get("bandwidth"),
            snr=clips[index].measures.get("snr"),
            target_language=clips[index].target_language or None,
            written_language=_written(clips[index], adapted),
            written_language_base=_written(clips[index], base),
        )


def _written(clip: Clip, output: SystemOutput) -> str | None:
    return written_language(clip.text, output.text, clip.text_language) or None


def write_transcripts(
    run: RunDir, name: str, clips: Sequence[Clip], outputs: Mapping[str, Sequence[SystemOutput]], preset: str
) -> None:
    """Writes references and hypotheses of a set as TRN, STM and CTM; references have no CTM."""
    texts = {
        "ref": [clip.text for clip in clips],
        **{system: [output.text for output in column] for system, column in outputs.items()},
    }
    for system, column in texts.items():
        segments = [
            Segment(clip.id, clip.speaker, clip.duration, text) for clip, text in zip(clips, column, strict=True)
        ]
        for extension, to_lines in (("trn", trn), ("stm", stm), ("ctm", ctm)):
            if (extension, system) != ("ctm", "ref"):
                write_lines(run.transcripts(name, system, extension), to_lines(segments, preset))
