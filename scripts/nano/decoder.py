"""The losses of the language model: examples with audio or without, by language and task."""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from finetune.model.granite import EncodedAudio, SpeechModel
from finetune.model.prompt import Prompt
from finetune.training.copy_loss import CopyLoss
from finetune.training.loss import IGNORE, token_loss
from nano.arithmetic import autocast
from nano.audio_attention import AudioAttentionLoss, Spans
from nano.copying import LONG, CopyRows
from nano.spelled import SpelledRows
from nano.stage import Losses
from nano.tasks import Example, Tasks

COPY_WEIGHT = 0.1  # beside the loss of the text


class Decoder:
    """Computes the losses of examples.

    Args:
        model: the model.
        tasks: make prompts.
        attention_weight: of the loss of attention to the audio, beside that of the text.
    """

    def __init__(self, model: SpeechModel, tasks: Tasks, attention_weight: float = 1.0) -> None:
        self.model, self.tasks, self.attention_weight = model, tasks, attention_weight
        self.copied = CopyRows(model.tokenizer, tasks.texts)
        self.spelled = SpelledRows(model, tasks)
        self.copy_loss = CopyLoss(model)
        self.attention_loss = AudioAttentionLoss(model, self.copy_loss)

    def add_losses(self, losses: Losses, examples: Sequence[Example]) -> Tensor:
        """The loss of a batch of text; the groups are added to `losses`, as by all functions below."""
        return self._loss(losses, self._prompts(examples), examples)

    def add_speech(self, losses: Losses, examples: Sequence[Example], audio: EncodedAudio, ctc: Tensor) -> Tensor:
        """The loss of a batch with its audio and the logits (B, T, 348) of the CTC head."""
        spans = self.attention_loss.spans(ctc, audio.num_frames, examples)
        return self._loss(losses, self._prompts(examples), examples, audio, spans)

    def add_beside(self, losses: Losses, copies: int, spelled: int, key: str) -> Tensor:
        """The loss of rows that are copied, and of texts with audio that is made from them."""
        return self.add_copies(losses, copies, key) + self.add_spelled(losses, spelled, key)

    def add_spelled(self, losses: Losses, count: int, key: str) -> Tensor:
        """The loss of `count` texts with audio that is made from them."""
        made = self.spelled.batch(count, key) if count else None
        if made is None or not made.examples:
            return torch.zeros(())
        return self._loss(losses, self._prompts(made.examples), made.examples, made.audio, made.spans)

    def add_copies(self, losses: Losses, count: int, key: str) -> Tensor:
        """The loss of `count` rows of text that are copied from their lists."""
        rows = self.copied.rows(count, key)
        total = torch.zeros(())
        for is_long in (False, True):  # apart, so that short rows are not padded to the length of long ones
            chosen = [row for row in rows if (len(row[1].keywords) >= LONG[0]) == is_long]
            if chosen:
                prompts, examples = [prompt for prompt, _ in chosen], [example for _, example in chosen]
                total = total + self._loss(losses, prompts, examples) * len(chosen) / count
        return total

    def _prompts(self, examples: Sequence[Example]) -> list[Prompt]:
        return [self.tasks.prompt(example) for example in examples]

    def _loss(
        self,
        losses: Losses,
        prompts: Sequence[Prompt],
        examples: Sequence[Example],
        audio: EncodedAudio | None = None,
        spans: Sequence[Spans] | None = None,
    ) -> Tensor:
        """The mean over the target tokens, with the copy loss and, if there are `spans`, that of what is heard."""
        model = self.model
        counts = [0] * len(examples) if audio is None else audio.num_tokens.tolist()
        ids, labels = _sequences(model, prompts, examples, counts)
        listed = any(example.keywords for example in examples)
        with autocast():
            with self.copy_loss.recording() if listed or spans else nullcontext():
                hidden = model.language_model(inputs_embeds=model.embed(ids, audio), use_cache=False).last_hidden_state
            total = hidden.new_zeros(())
            if spans:
                attention, count = self.attention_loss(ids, labels, spans)
                losses.add("places", attention, max(1, count))
                total = total + self.attention_weight * attention
            if listed:
                total = total + COPY_WEIGHT * self.copy_loss(ids, labels)
        groups = defaultdict[str, list[int]](list)
        for row, example in enumerate(examples):
            groups[example.group].append(row)
        for group, rows in sorted(groups.items()):
            loss = token_loss(hidden[rows], labels[rows], model.logits, smoothing=0.0)
            losses.add(group, loss, int((labels[rows] != IGNORE).sum()))
            total = total + loss
        return total / (labels != IGNORE).sum()


def _sequences(
    model: SpeechModel, prompts: Sequence[Prompt], examples: Sequence[Example], audio_tokens: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Right-padded prompts with targets (B, L), and their labels (B, L)."""
    ids, labels = [], []
    for prompt, example, count in zip(prompts, examples, audio_tokens, strict=True):
        before = prompt.around(model.audio_token_id, count) if count else [*prompt.prefix, *prompt.suffix]
        ids.append(torch.tensor([*before, *example.target]))
        labels.append(torch.tensor([IGNORE] * len(before) + [*example.target]))
    pad = nn.utils.rnn.pad_sequence
    return pad(ids, True, model.tokenizer.pad_token_id), pad(labels, True, IGNORE)
