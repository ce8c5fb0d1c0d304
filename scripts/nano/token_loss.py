"""A CTC loss that brings audio embeddings near the embeddings of the tokens that are spoken.

The language model can then copy what it hears, as it copies from keyword lists. Without this loss a small model needs
many thousand steps before its text depends on the audio.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from finetune.model.granite import EncodedAudio, SpeechModel
from nano.stage import Losses
from nano.tasks import Example

SCALE = 6.0  # of the products of audio and token embeddings
GROUP = "tokens"  # in progress lines


def add_token_loss(losses: Losses, model: SpeechModel, audio: EncodedAudio, examples: Sequence[Example]) -> Tensor:
    """The mean over the tokens of all transcripts; `<|audio|>` is the blank. Translations have none.

    Args:
        losses: the loss is added as a group.
        model: its token embeddings are constants here.
        audio: embeddings (B, A, H) of the clips.
        examples: what is written for each.
    """
    rows = [row for row, example in enumerate(examples) if ">" not in example.group]
    targets = [examples[row].target[:-1] for row in rows]  # without the end of the text
    count = sum(map(len, targets))
    if not count:
        return audio.embeds.new_zeros(())
    known = model.language_model.get_input_embeddings().weight.detach()
    logits = SCALE * F.linear(audio.embeds[rows].float(), known)
    loss = F.ctc_loss(
        logits.log_softmax(-1).transpose(0, 1),
        torch.tensor([token for target in targets for token in target]),
        audio.num_tokens[rows],
        torch.tensor([len(target) for target in targets]),
        blank=model.audio_token_id,
        reduction="sum",
        zero_infinity=True,
    )
    losses.add(GROUP, loss, count)
    return loss / count
