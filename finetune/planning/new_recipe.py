"""Writes a first recipe with comments, from the answers of a user and the size of the corpus."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import yaml

from finetune.core.goals import GOALS
from finetune.core.wording import length_text
from finetune.planning.hints import ENOUGH_STEPS, FEW_HOURS, FEW_STEPS

DEFAULT_MODEL = "ibm-granite/granite-4.0-1b-speech"
SMALL_CARD = 24.0  # GB, from which the language model needs no recomputed activations
SMALL_MODEL = 200_000_000  # bytes of weights
LARGEST_BATCH = {True: 120, False: 30}  # seconds of audio, with and without a GPU; a CPU needs no larger one
SPEED = 0.1  # augment.speed of all goals
EPOCHS = ((1.0, 10), (10.0, 6), (100.0, 3))  # up to so many hours of training audio; more audio has one epoch less
PROMISES = {
    "vocabulary": "rare words and names; also trains the last encoder layers and the CTC head",
    "accent": "an accent; LoRA in the encoder",
    "domain": "a domain: line, room, style and words",
    "language": "a language that the base does not know well",
    "full": "every layer; needs much data and memory",
}


@dataclass(frozen=True)
class NewRecipe:
    """What the recipe is for.

    Attributes:
        name: of the recipe and its run directory.
        folder: of train.jsonl, valid.jsonl and test.jsonl, as the recipe names it.
        model: the base.
        goal: a preset of `GOALS`, or "".
        hours: of training audio.
        card: memory of the GPU in GB; 0 for a CPU.
        terms: file with the terms that matter, or "".
        canary: corpus of general speech, or "".
        translation: a column with translations, or "".
        language: of the first row, or "".
        longest: clip of train, in seconds.
        blocks: of the encoder of the base; None if it is not known.
    """

    name: str
    folder: Path
    model: str
    goal: str
    hours: float
    card: float
    terms: str = ""
    canary: str = ""
    translation: str = ""
    language: str = ""
    longest: float = 30.0
    blocks: int | None = None


def epochs_for(hours: float) -> int:
    """Passes over the data: more of them for less audio."""
    return next((epochs for limit, epochs in EPOCHS if hours <= limit), 2)


def schedule(new: NewRecipe) -> tuple[int, int, int]:
    """Seconds of audio in a batch, batches in a step, and epochs, for the number of steps that `check` advises."""
    seconds, largest = 3600 * new.hours, LARGEST_BATCH[bool(new.card)]
    epochs = epochs_for(new.hours)
    for_step = seconds * epochs / ENOUGH_STEPS
    batch = max(math.ceil(new.longest / (1 - SPEED)), min(largest, math.floor(for_step)))
    return batch, 2 if new.card and for_step >= 2 * batch else 1, max(epochs, math.ceil(FEW_STEPS * batch / seconds))


def recipe_text(new: NewRecipe) -> str:
    """The recipe as YAML with comments."""
    goal = f"  goal: {new.goal}  # {PROMISES[new.goal]}" if new.goal in GOALS else ""
    terms = f"  terms: {_yaml(new.terms)}  # the report shows how many of these words are recognized"
    canary = (
        f"  canary: [{_yaml(new.canary)}]  # general speech, which shows what the model forgets"
        if new.canary
        else "  # canary: [general.jsonl]  # add general speech of your language: it shows what the model forgets"
    )
    batch, accumulation, epochs = schedule(new)
    lines = [
        f"# {new.name}: {length_text(new.hours)} of training audio. Written by `finetune init`.",
        f"# Next: finetune check {new.name}.yaml; finetune run {new.name}.yaml. All settings: docs/recipes.md",
        "model:",
        f"  base: {_yaml(new.model)}",
        "data:",
        *(f"  {split}: [{new.folder / split}.jsonl]" for split in ("train", "valid", "test")),
        *_translations(new),
        terms if new.terms else "",
        canary,
        *_augment(new),
        *_parts(new),
        "train:",
        goal,
        f"  epochs: {epochs}  # more can help with little audio; valid chooses the best one",
        "  batch: auto  # finds the largest batch that fits" if new.card else "",
        f"  batch_seconds: {batch}  # of audio in a batch, for enough steps",
        f"  accumulation: {accumulation}" if accumulation > 1 else "",
        f"  learning_rate: {_learning_rate(new.model)}  # try half and double",
        "  # max_canary_loss: 0.02  # with canary: choose no model that is more than 2 points worse on it",
        "machine:",
        f"  gradient_checkpointing: {str(0 < new.card <= SMALL_CARD).lower()}  # less memory, slower",
        "  workers: 4  # processes that decode audio" if new.card else "  workers: 0",
        "decode:" if new.terms else "",
        f"  terms: {_yaml(new.terms)}  # written where they are heard (docs/keywords.md)" if new.terms else "",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def _translations(new: NewRecipe) -> list[str]:
    """A comment with the entry that trains a column of translations too."""
    if not new.translation:
        return []
    return [
        f"  # To train the column {new.translation!r} too, add this entry to train, and such ones to valid and test",
        "  # (docs/tasks.md): write the codes of both languages",
        f"  #   - path: {new.folder / 'train'}.jsonl",
        "  #     task: translate",
        f"  #     language: {_yaml(new.language or 'de')}",
        f"  #     target_language: {'de' if new.language == 'en' else 'en'}",
        f"  #     text_column: {_yaml(new.translation)}",
    ]


def _yaml(text: str) -> str:
    """The text as it is if YAML reads it as one text, also within a list; else in quotes."""
    try:
        plain = yaml.safe_load(f"[{text}]") == [text]
    except yaml.YAMLError:
        plain = False
    return text if plain else json.dumps(text, ensure_ascii=False)


def _learning_rate(model: str) -> str:
    """A higher one for a small local model, such as the embedded one."""
    sizes = [path.stat().st_size for path in Path(model).glob("*.safetensors")]
    return "1e-3" if 0 < sum(sizes) < SMALL_MODEL else "1e-4"


def _augment(new: NewRecipe) -> list[str]:
    """Augmentation of little audio without a goal, which would set it."""
    return [] if new.goal or new.hours >= FEW_HOURS else ["augment:", f"  speed: {SPEED}"]


def _parts(new: NewRecipe) -> list[str]:
    """The blocks that train, if the goal trains more than the encoder has."""
    blocks = GOALS.get(new.goal, {}).get("parts.encoder.blocks", "all")
    if new.blocks is None or blocks == "all" or int(blocks) <= new.blocks:
        return []
    return ["parts:", "  encoder:", f"    blocks: all  # the goal trains {blocks}, and this encoder has {new.blocks}"]
