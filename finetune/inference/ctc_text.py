"""Transcripts of the encoder's CTC head alone, without the language model, as an independent hypothesis."""

from collections.abc import Sequence

import torch

from finetune.core.progress import advance
from finetune.data.features import pad_features
from finetune.data.manifest import Utterance
from finetune.inference.encode import clip_features
from finetune.model.ctc import greedy_text
from finetune.model.granite import SpeechModel


@torch.inference_mode()
def ctc_texts(model: SpeechModel, utterances: Sequence[Utterance]) -> list[str]:
    """The greedy CTC text of each utterance, computed one utterance at a time.

    Raises:
        DataError: audio that cannot be used.
    """
    texts = []
    for item in utterances:
        features, frames = pad_features([clip_features(model, item)])
        logits = model.ctc_logits(model.encode(features, frames).states)
        advance(item.duration)
        texts.append(greedy_text(logits[0, : int(frames[0])]))
    return texts
