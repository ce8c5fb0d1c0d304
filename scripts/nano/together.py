"""Stage 5 of the build: encoder, projector and language model train together, on everything."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finetune.model.conformer import encode, project
from finetune.model.granite import EncodedAudio
from nano.arithmetic import autocast
from nano.decoder import Decoder
from nano.encoder import EncoderRounds, add_ctc_losses
from nano.plan import Plan
from nano.rounds import Item, make_batches
from nano.sentences import BESIDE
from nano.stage import Losses
from nano.tasks import Example
from nano.token_loss import add_token_loss


@dataclass(frozen=True)
class TaskBatch:
    """Items with their examples, and the key of the random numbers of the rows that are copied."""

    chosen: list[tuple[Item, Example]]
    key: str


class TogetherRounds:
    """Rounds of the last stages.

    Args:
        decoder: its model trains.
        audio: folder of the shards.
        plan: of the build.
        ctc_weight: weight of the CTC losses.
        seed: of the random numbers.
    """

    def __init__(self, decoder: Decoder, audio: Path, plan: Plan, ctc_weight: float, seed: int) -> None:
        self.decoder, self.plan, self.ctc_weight, self.seed = decoder, plan, ctc_weight, seed
        self.encoder_rounds = EncoderRounds(decoder.model, audio, plan, plan.task_shares, seed)

    def state(self) -> dict[str, object]:
        return self.encoder_rounds.state()

    def batches(self, number: int, state: dict[str, object]) -> list[TaskBatch]:
        self.encoder_rounds.open(state)
        chosen = [
            (item, self.decoder.tasks.example(item.language, item.text, item.phrase, item.key, item.epoch))
            for item in self.encoder_rounds.items(number)
        ]
        sizes = [
            (item.seconds, 10 * item.seconds + 20 + len(example.target) + example.list_tokens)
            for item, example in chosen
        ]
        batches = make_batches(sizes, self.plan.together_limits, np.random.default_rng((self.seed, number, 3)))
        return [
            TaskBatch([chosen[row] for row in batch], f"{self.seed} {number} {place}")
            for place, batch in enumerate(batches)
        ]

    def losses(self, batch: TaskBatch) -> Losses:
        model, losses, items = self.decoder.model, Losses(), [item for item, _ in batch.chosen]
        features, frames = self.encoder_rounds.sounds.features(items)
        with autocast():
            states, middle = encode(model.encoder, features, frames)
            embeds, logits = project(model.projector, states, frames), (model.ctc_logits(states), middle)
        audio = EncodedAudio(states, frames, embeds, model.num_audio_tokens(frames))
        examples = [example for _, example in batch.chosen]
        text = self.decoder.add_speech(losses, examples, audio, logits[0])
        if self.plan.token_weight:
            text = text + self.plan.token_weight * add_token_loss(losses, model, audio, examples)
        text = text + BESIDE * self.decoder.add_beside(losses, self.plan.copies, self.plan.spelled, batch.key)
        ctc = add_ctc_losses(losses, logits, frames, items)
        losses.total = text + self.ctc_weight * ctc
        losses.seconds = sum(item.seconds for item in items)
        return losses
