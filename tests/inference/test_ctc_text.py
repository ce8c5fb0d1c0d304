"""Transcripts of the CTC head, on the embedded model."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from finetune.data.features import pad_features
from finetune.data.manifest import Utterance
from finetune.inference.ctc_text import ctc_texts
from finetune.inference.encode import clip_features
from finetune.metrics.wer import score
from finetune.model.ctc import greedy_text

if TYPE_CHECKING:
    from finetune.model.granite import SpeechModel


def test_text_equals_that_of_a_batch(model: "Callable[[], SpeechModel]", clips: list[Utterance]) -> None:
    loaded = model()
    texts = ctc_texts(loaded, clips[:4])
    features, frames = pad_features([clip_features(loaded, item) for item in clips[:4]])
    with torch.inference_mode():
        logits = loaded.ctc_logits(loaded.encode(features, frames).states)
    assert texts == [greedy_text(logits[row, :count]) for row, count in enumerate(frames.tolist())]
    assert score([item.text for item in clips[:4]], texts, "basic@2").cer < 0.9
    assert ctc_texts(loaded, []) == []
