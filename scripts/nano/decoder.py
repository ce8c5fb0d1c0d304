"""The losses of the language model: examples with audio or without, by language and task."""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from finetune.model.granite import EncodedAudio, SpeechModel
from finetune.training.loss import IGNORE, token_loss
from nano.stage import Losses
from nano.tasks import Example, Tasks


def sequences(
    model: SpeechModel, tasks: Tasks, examples: Sequence[Example], audio_tokens: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Right-padded prompts with targets (B, L), and their labels (B, L)."""
    ids, labels = [], []
    for example, count in zip(examples, audio_tokens, strict=True):
        before = tasks.prompt(example).around(model.audio_token_id, count)
        ids.append(torch.tensor([*before, *example.target]))
        labels.append(torch.tensor([IGNORE] * len(before) + [*example.target]))
    pad = nn.utils.rnn.pad_sequence
    return pad(ids, True, model.tokenizer.pad_token_id), pad(labels, True, IGNORE)


def add_text_losses(
    losses: Losses, model: SpeechModel, tasks: Tasks, examples: Sequence[Example], audio: EncodedAudio | None = None
) -> Tensor:
    """The mean loss over the target tokens of a batch, with its audio or without; the groups are added to `losses`."""
    counts = [0] * len(examples) if audio is None else audio.num_tokens.tolist()
    ids, labels = sequences(model, tasks, examples, counts)
    hidden = model.language_model(inputs_embeds=model.embed(ids, audio), use_cache=False).last_hidden_state
    groups = defaultdict[str, list[int]](list)
    for row, example in enumerate(examples):
        groups[example.group].append(row)
    total = hidden.new_zeros(())
    for group, rows in sorted(groups.items()):
        loss = token_loss(hidden[rows], labels[rows], model.logits, smoothing=0.0)
        losses.add(group, loss, int((labels[rows] != IGNORE).sum()))
        total = total + loss
    return total / (labels != IGNORE).sum()
