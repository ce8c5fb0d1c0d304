"""The limits that the embedded model states about itself, in its `limits.json`."""

from pathlib import Path

from finetune.core.model_limits import ModelLimits
from finetune.core.prompts import DEFAULT_PROFILE
from finetune.evaluation.no_speech import calibrate_no_speech
from finetune.evaluation.utterances import read_utterances
from finetune.model.granite import SpeechModel

MAX_DURATION = 3.0  # seconds; the README of the model has the WER of longer audio (scripts/bench_longform.py)
BATCH_SECONDS, SEED = 60.0, 0


def limits_of(model: SpeechModel, vocabulary: Path) -> ModelLimits:
    """The limits of a model that was trained in English, whose texts keyword lists still make worse.

    Args:
        model: the model.
        vocabulary: folder of data/vocabulary, on whose valid clips `no_speech` is calibrated.
    """
    clips = read_utterances(vocabulary / "valid.jsonl")
    return ModelLimits(
        max_duration=MAX_DURATION,
        keyword_prompts="untrained",
        instruction=DEFAULT_PROFILE.transcribe(),
        no_speech=calibrate_no_speech(model.eval(), clips, BATCH_SECONDS, SEED).threshold,
    )
