"""Stage 4 of the build: encoder, projector and language model train together, on everything."""

from pathlib import Path

import numpy as np

from finetune.model.conformer import encode, project
from finetune.model.granite import EncodedAudio, SpeechModel
from nano.decoder import add_text_losses
from nano.encoder import EncoderRounds, add_ctc_losses
from nano.plan import Plan
from nano.rounds import Item, make_batches
from nano.stage import Losses
from nano.tasks import Example, Tasks


class TogetherRounds:
    """Rounds of the last stages.

    Args:
        model: all of it trains.
        tasks: what is asked.
        audio: folder of the shards.
        plan: of the build.
        ctc_weight: weight of the CTC losses.
        seed: of the random numbers.
    """

    def __init__(self, model: SpeechModel, tasks: Tasks, audio: Path, plan: Plan, ctc_weight: float, seed: int) -> None:
        self.model, self.tasks, self.plan, self.ctc_weight, self.seed = model, tasks, plan, ctc_weight, seed
        self.heard = EncoderRounds(model, audio, plan, plan.stored, seed)

    def state(self) -> dict[str, object]:
        return self.heard.state()

    def batches(self, number: int, state: dict[str, object]) -> list[list[tuple[Item, Example]]]:
        self.heard.open(state)
        chosen = [
            (item, self.tasks.example(item.language, item.text, item.phrase, item.key, item.epoch))
            for item in self.heard.items(number)
        ]
        sizes = [
            (item.seconds, 10 * item.seconds + 20 + len(example.target) + example.list_tokens)
            for item, example in chosen
        ]
        batches = make_batches(sizes, self.plan.together_limits, np.random.default_rng((self.seed, number, 3)))
        return [[chosen[row] for row in batch] for batch in batches]

    def losses(self, batch: list[tuple[Item, Example]]) -> Losses:
        model, losses, items = self.model, Losses(), [item for item, _ in batch]
        features, frames = self.heard.sounds.features(items)
        states, middle = encode(model.encoder, features, frames)
        audio = EncodedAudio(states, frames, project(model.projector, states, frames), model.num_audio_tokens(frames))
        text = add_text_losses(losses, model, self.tasks, [example for _, example in batch], audio)
        ctc = add_ctc_losses(losses, (model.ctc_logits(states), middle), frames, items)
        losses.total = text + self.ctc_weight * ctc
        losses.seconds = sum(item.seconds for item in items)
        return losses
