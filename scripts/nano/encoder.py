"""Stage 1 of the build: the conformer encoder with its character CTC head, on all languages."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from finetune.data.audio import SAMPLE_RATE
from finetune.model.conformer import encode
from finetune.model.ctc import to_labels
from finetune.model.granite import SpeechModel
from finetune.training.loss import ctc_loss
from nano.arithmetic import autocast
from nano.clips import Clips, find_shards, open_clips, split
from nano.plan import Plan
from nano.rounds import Item, Shares, draw, make_batches
from nano.sounds import Sounds
from nano.stage import Losses

MIDDLE_WEIGHT = 0.3
HIRAGANA, TO_KATAKANA = range(0x3041, 0x3097), 0x60
NO_SPEECH = "none"  # group of sounds without speech, in progress lines


def ctc_text(text: str) -> str:
    """A text in the alphabet of the CTC head: katakana for hiragana, oe for the French ligature."""
    kana = "".join(chr(ord(char) + TO_KATAKANA) if ord(char) in HIRAGANA else char for char in text)
    return kana.replace("œ", "oe").replace("Œ", "oe")


def add_ctc_losses(losses: Losses, logits: tuple[Tensor, Tensor], frames: Tensor, items: Sequence[Item]) -> Tensor:
    """The loss for each label, of the last layer and of the middle one; groups are languages.

    Args:
        losses: the groups are added.
        logits: of the last layer and of the middle layer, (B, T, 348).
        frames: (B,).
        items: what was said.
    """
    labels = [to_labels(ctc_text(item.text))[0] for item in items]
    rows = defaultdict[str, list[int]](list)
    for row, item in enumerate(items):
        rows[item.language or NO_SPEECH].append(row)
    total = logits[0].new_zeros(())
    for language, chosen in sorted(rows.items()):
        targets = [labels[row] if row in chosen else None for row in range(len(items))]
        last, middle = (ctc_loss(each, frames, targets) for each in logits)
        losses.add(f"ctc {language}", last, max(1, sum(len(labels[row]) for row in chosen)))
        total = total + (1 - MIDDLE_WEIGHT) * last + MIDDLE_WEIGHT * middle
    return total / max(1, sum(map(len, labels)))


def describe(clips: Clips) -> str:
    """Hours of each language, and the characters that the CTC head cannot write."""
    names, numbers = clips.columns["language"]
    hours = np.bincount(numbers, clips.num_samples, len(names)) / SAMPLE_RATE / 3600
    parts = [f"{name} {length:.2f} h" for name, length in zip(names, hours.tolist(), strict=True)]
    omitted = sum(to_labels(ctc_text(text))[1] for text in clips.texts)
    return f"clips for training: {', '.join(parts)}" + (
        f"; {omitted} characters without a CTC label" if omitted else ""
    )


class EncoderRounds:
    """Rounds of the encoder stage.

    Args:
        model: its encoder trains.
        audio: folder of the shards; a round begins with those that exist then.
        plan: of the build.
        shares: what is drawn.
        seed: of the random numbers.
    """

    def __init__(self, model: SpeechModel, audio: Path, plan: Plan, shares: Shares, seed: int) -> None:
        self.model, self.audio, self.plan, self.shares, self.seed = model, audio, plan, shares, seed
        self.opened: dict[str, Any] = {}

    def state(self) -> dict[str, Any]:
        return {"shards": find_shards(self.audio)}

    def batches(self, number: int, state: dict[str, Any]) -> list[list[Item]]:
        self.open(state)
        items = self.items(number)
        rng = np.random.default_rng((self.seed, number, 3))
        batches = make_batches([(item.seconds,) for item in items], self.plan.encoder_limits, rng)
        return [[items[place] for place in batch] for batch in batches]

    def open(self, state: dict[str, Any]) -> None:
        """Opens the shards of a round, unless the last round had the same."""
        if self.opened != state:
            clips = split(open_clips(self.audio, state["shards"]))[0]
            print(describe(clips), flush=True)
            self.sounds, self.opened = Sounds(clips, self.plan.effects, self.seed), state

    def items(self, number: int) -> list[Item]:
        """What is heard in a round."""
        return draw(self.sounds.clips, self.shares, self.plan.round_seconds, self.seed, number)

    def losses(self, batch: list[Item]) -> Losses:
        losses = Losses()
        features, frames = self.sounds.features(batch)
        with autocast():
            states, middle = encode(self.model.encoder, features, frames)
            logits = self.model.ctc_logits(states), middle
        losses.total = add_ctc_losses(losses, logits, frames, batch)
        losses.seconds = sum(item.seconds for item in batch)
        return losses
