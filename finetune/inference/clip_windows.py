"""The windows of a clip: one, or several for a clip that is longer than the longest window."""

from dataclasses import replace

from finetune.core.options import MAX_WINDOW
from finetune.data.manifest import Utterance
from finetune.inference.encode import load_waveforms
from finetune.inference.longform import speech_windows
from finetune.inference.vad import energy_vad


def clip_windows(utterance: Utterance, max_window: float) -> list[Utterance]:
    """Cuts a clip at pauses, as `finetune transcribe` cuts a recording; a clip without speech stays in one piece.

    Args:
        max_window: limit of a window in seconds; the largest one is the default of a recipe, which cuts no clip.

    Returns:
        The windows in order, or the utterance itself if it is not cut.

    Raises:
        DataError: unusable audio.
    """
    if utterance.duration <= max_window or max_window >= MAX_WINDOW:
        return [utterance]
    (samples,) = load_waveforms([utterance])
    windows = [
        replace(utterance, id=f"{utterance.id}@{start:.2f}", offset=utterance.offset + start, duration=end - start)
        for start, end in speech_windows(energy_vad([samples]), max_window)
    ]
    return windows or [utterance]
