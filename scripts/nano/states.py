"""Stage 4 of the build: projector and language model train on encoder states, which are computed once and stored.

`states/V/NNNN.f16` has the states (T, D) of the items of variant V, one after another, and `NNNN.json` their rows.
Variants are other items, with other effects. A variant keeps the shards of audio that existed when it was begun.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from finetune.core.files import sha256_file
from finetune.model.conformer import encode, project
from finetune.model.granite import EncodedAudio, SpeechModel
from nano.arithmetic import autocast
from nano.clips import find_shards, open_clips, split
from nano.decoder import Decoder
from nano.plan import Plan
from nano.rounds import Item, draw, make_batches
from nano.sentences import BESIDE
from nano.sounds import Sounds
from nano.stage import Budget, Losses, OutOfTimeError
from nano.tasks import Example
from nano.token_loss import add_token_loss

SHARD_BATCHES = 30  # about half an hour of audio


@dataclass(frozen=True)
class StateRow:
    """Where the states of an item are in its shard, and what was said."""

    start: int
    frames: int
    language: str
    text: str
    phrase: str
    key: str


@torch.no_grad()
def store_states(model: SpeechModel, encoder: Path, audio: Path, folder: Path, plan: Plan, budget: Budget) -> None:
    """Computes the states of all variants that are missing, `hours` of audio each.

    Args:
        model: its encoder is used.
        encoder: the file with its weights; the states of another one are refused.
        audio: folder of the shards.
        folder: where the variants are stored.
        plan: of the build.
        budget: the time of this run.

    Raises:
        OutOfTimeError: the budget is over; finished shards are kept.
        SystemExit: the states are of another encoder.
    """
    model.eval()
    for variant in range(plan.variants):
        place = folder / str(variant)
        place.mkdir(parents=True, exist_ok=True)
        if (place / "done").exists():
            continue
        inputs = {"encoder": sha256_file(encoder), "shards": find_shards(audio)}
        if (place / "inputs.json").exists():
            stored = json.loads((place / "inputs.json").read_text(encoding="utf-8"))
            if stored["encoder"] != inputs["encoder"]:
                raise SystemExit(f"{place}: has states of another encoder; delete {folder}")
            inputs = stored
        _write(place / "inputs.json", inputs)
        sounds = Sounds(split(open_clips(audio, inputs["shards"]))[0], plan.effects, 10 + variant)
        items = draw(sounds.clips, plan.task_shares, plan.hours * 3600, 3, variant)
        batches = make_batches(
            [(item.seconds,) for item in items], plan.encoder_limits, np.random.default_rng((3, variant))
        )
        parts = [batches[start : start + SHARD_BATCHES] for start in range(0, len(batches), SHARD_BATCHES)]
        for number, part in enumerate(parts):
            if (place / f"{number:04d}.json").exists():
                continue
            if budget.over:
                raise OutOfTimeError(f"states: stopped before part {number} of {len(parts)} of variant {variant}")
            _write_shard(model, sounds, [[items[row] for row in batch] for batch in part], place / f"{number:04d}")
            print(f"states: part {number + 1} of {len(parts)} of variant {variant + 1} of {plan.variants}", flush=True)
        (place / "done").touch()


def _write_shard(model: SpeechModel, sounds: Sounds, batches: list[list[Item]], path: Path) -> None:
    rows, start = list[dict[str, Any]](), 0
    with path.with_suffix(".f16").open("wb") as out:
        for batch in batches:
            features, frames = sounds.features(batch, masked=False)
            with autocast():
                hidden, _ = encode(model.encoder, features, frames)
            for item, states, count in zip(batch, hidden, frames.tolist(), strict=True):
                out.write(states[:count].half().numpy().tobytes())
                rows.append(asdict(StateRow(start, count, item.language, item.text, item.phrase, item.key)))
                start += count
    _write(path.with_suffix(".json"), rows)


def _write(path: Path, content: Any) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content), encoding="utf-8")
    part.replace(path)


@dataclass(frozen=True)
class _Stored:
    """An item with stored states: the number of its shard, and its row."""

    shard: int
    row: StateRow
    variant: int


@dataclass(frozen=True)
class StateBatch:
    """Items with their examples, and the key of the random numbers of the rows that are copied."""

    chosen: list[tuple[_Stored, Example]]
    key: str


class StateRounds:
    """Rounds of the stage that trains on stored states.

    Args:
        decoder: its language model trains, and the projector.
        folder: of the variants, all of which are complete.
        plan: of the build.
        seed: of the random numbers.
    """

    def __init__(self, decoder: Decoder, folder: Path, plan: Plan, seed: int) -> None:
        self.decoder, self.plan, self.seed = decoder, plan, seed
        self.files, self.items = list[NDArray[np.float16]](), list[_Stored]()
        for variant, path in _shards(folder):
            found = json.loads(path.read_text(encoding="utf-8"))
            states = np.memmap(path.with_suffix(".f16"), np.float16, "r")
            self.items += [_Stored(len(self.files), StateRow(**row), variant) for row in found]
            self.files.append(states.reshape(sum(row["frames"] for row in found), -1))

    def state(self) -> dict[str, Any]:
        return {}

    def batches(self, number: int, state: dict[str, Any]) -> list[StateBatch]:
        """All items follow each other in the order of a pass over them; the next pass has another order."""
        chosen = list[tuple[_Stored, Example]]()
        for place in range(number * self.plan.round_items, (number + 1) * self.plan.round_items):
            epoch, position = divmod(place, len(self.items))
            item = self.items[int(self._order(epoch)[position])]
            row, key = item.row, f"{item.variant} {item.row.key}"
            chosen.append((item, self.decoder.tasks.example(row.language, row.text, row.phrase, key, epoch)))
        sizes = [_size(item, example) for item, example in chosen]
        batches = make_batches(sizes, self.plan.align_limits, np.random.default_rng((self.seed, number)))
        return [
            StateBatch([chosen[row] for row in batch], f"{self.seed} {number} {place}")
            for place, batch in enumerate(batches)
        ]

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if getattr(self, "_ordered", None) != epoch:
            self._ordered = epoch
            self._permutation = np.random.default_rng((self.seed, 1, epoch)).permutation(len(self.items))
        return self._permutation

    def losses(self, batch: StateBatch) -> Losses:
        losses, model = Losses(), self.decoder.model
        states = [self._states(item) for item, _ in batch.chosen]
        frames = torch.tensor([len(item) for item in states])
        hidden = nn.utils.rnn.pad_sequence(states, True)
        with autocast():
            embeds, ctc = project(model.projector, hidden, frames), model.ctc_logits(hidden)
        audio = EncodedAudio(hidden, frames, embeds, model.num_audio_tokens(frames))
        examples = [example for _, example in batch.chosen]
        text = self.decoder.add_speech(losses, examples, audio, ctc)
        text = text + self.plan.token_weight * add_token_loss(losses, model, audio, examples)
        losses.total = text + BESIDE * self.decoder.add_beside(losses, self.plan.copies, self.plan.spelled, batch.key)
        losses.seconds = float(frames.sum()) * 0.02
        return losses

    def _states(self, item: _Stored) -> Tensor:
        states = self.files[item.shard][item.row.start : item.row.start + item.row.frames]
        return torch.from_numpy(states.astype(np.float32))


def _size(item: _Stored, example: Example) -> tuple[float, float]:
    """Seconds and tokens."""
    return item.row.frames * 0.02, item.row.frames / 5 + 20 + len(example.target) + example.list_tokens


def _shards(folder: Path) -> Iterator[tuple[int, Path]]:
    for place in sorted(folder.glob("*/"), key=lambda path: int(path.name)):
        for path in sorted(place.glob("[0-9]*.json")):
            yield int(place.name), path
