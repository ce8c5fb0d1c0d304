"""Measures what augmentation costs: CPU time of each effect, and how long training steps wait for augmented clips.

    OMP_NUM_THREADS=1 python scripts/bench_augment.py                       # recipes/noise.yaml, two workers
    OMP_NUM_THREADS=1 python scripts/bench_augment.py --set machine.workers=0

The first table is the CPU time for a second of audio, of one process that loads clips with one effect on each. The
second trains on the first batches of an epoch, without and with the recipe's augmentation: seconds of the steps,
seconds in which a step waits for its clips, and CPU time of the workers.
"""

import argparse
import resource
import time
from collections.abc import Iterator
from pathlib import Path

from finetune.core.config import AugmentSection, Recipe
from finetune.core.recipe import read_recipe
from finetune.data.audio import SAMPLE_RATE
from finetune.data.effects.codecs import CODECS
from finetune.data.manifest import Utterance, read_manifest
from finetune.model.granite import load_model
from finetune.model.trainable import open_parts, set_mode, trained_parameters
from finetune.training.batches import BatchSource
from finetune.training.collate import MicroAudio, batch_from_audio
from finetune.training.dataset import SpeechDataset
from finetune.training.distributed import make_accelerator
from finetune.training.optimizer import build_optimizer
from finetune.training.parts import trainable_parts
from finetune.training.plan import plan_epoch
from finetune.training.signals import Stop
from finetune.training.step import OptimizerStep

ROOT = Path(__file__).resolve().parent.parent
CLIPS = 60  # of the first table
ALONE: dict[str, dict[str, object]] = {
    "reading and decoding alone": {},
    "speed": {"speed": 0.1},
    **{
        f"noise: {kind}": {"noise": [kind], "noise_probability": 1}
        for kind in ("white", "pink", "hum", "music", "babble")
    },
    "telephone": {"telephone": 1},
    **{f"codec: {name}": {"codecs": [name], "codec_probability": 1} for name in CODECS},
    "clipping": {"clipping": 1},
}


def cpu_seconds(who: int = resource.RUSAGE_SELF) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes/noise.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--batches", type=int, default=40)
    args = parser.parse_args()
    recipe = read_recipe(args.recipe, ["machine.workers=2", *args.set])
    manifest = Path(recipe.data.train[0].path)
    clips = [
        Utterance(item.id, str(manifest.parent / item.audio_filepath), item.duration, item.text)
        for item in read_manifest(manifest)
    ]
    print("| effect on each clip | CPU ms for a second of audio |\n|---|---|")
    model = load_model(recipe.model.base, recipe.model.dtype)
    data = SpeechDataset(model, recipe, clips)
    for name, settings in ALONE.items():
        print(f"| {name} | {alone(data, recipe, settings):.1f} |", flush=True)
    print(f"\n| {args.batches} steps, {recipe.machine.workers} workers | seconds | waiting | CPU s of workers |")
    print("|---|---|---|---|")
    for name, used in (("without augmentation", with_augment(recipe, AugmentSection())), (args.recipe.name, recipe)):
        seconds, waiting, workers = steps(used, clips, args.batches)
        print(f"| {name} | {seconds:.1f} | {waiting:.2f} ({waiting / seconds:.1%}) | {workers:.1f} |", flush=True)


def with_augment(recipe: Recipe, augment: AugmentSection) -> Recipe:
    return recipe.model_copy(update={"augment": augment})


def alone(data: SpeechDataset, recipe: Recipe, settings: dict[str, object]) -> float:
    """CPU milliseconds to load a second of audio in this process."""
    recipe = with_augment(recipe, AugmentSection.model_validate(settings))
    recipe = recipe.model_copy(update={"machine": recipe.machine.model_copy(update={"workers": 0})})
    source, started, samples = BatchSource(data, recipe, Path(), "", False), cpu_seconds(), 0
    for micro in source.audio(([index] for index in range(CLIPS)), 0):
        samples += sum(len(wave) for wave in micro.audio)
    return 1000 * (cpu_seconds() - started) / (samples / SAMPLE_RATE)


def steps(recipe: Recipe, clips: list[Utterance], count: int) -> tuple[float, float, float]:
    """Seconds of `count` steps of one micro-batch, seconds of waiting in them, CPU seconds of the workers."""
    model = load_model(recipe.model.base, recipe.model.dtype)
    open_parts(model, trainable_parts(recipe.parts))
    set_mode(model, training=True)
    parameters = trained_parameters(model)
    data = SpeechDataset(model, recipe, clips)
    optimizer = build_optimizer(recipe, parameters)
    step = OptimizerStep(recipe, make_accelerator(), model, model, optimizer, parameters, data)
    limits = (recipe.train.batch_seconds, recipe.train.batch_tokens, 1, recipe.seed, 0)
    chosen = data.open_epoch(0)
    plan = [
        batch for batches in plan_epoch(data.durations, data.positions, *limits, chosen)[:count] for batch in batches
    ]
    waits = list[float]()

    def timed(audio: Iterator[MicroAudio]) -> Iterator[MicroAudio]:
        while True:
            started = time.monotonic()
            micro = next(audio, None)
            waits.append(time.monotonic() - started)
            if micro is None:
                return
            yield micro

    audio = timed(iter(BatchSource(data, recipe, Path(), "", False).audio(plan, 0)))
    before, started = cpu_seconds(resource.RUSAGE_CHILDREN), 0.0
    for number, (batch, micro) in enumerate(zip(plan, audio, strict=False)):
        started = started or time.monotonic()  # the start of the workers is not counted
        step.run([batch], [batch], iter([batch_from_audio(data, micro)]), number, Stop(), None)
    seconds = time.monotonic() - started
    for _ in audio:
        pass
    return seconds, sum(waits[1:count]), cpu_seconds(resource.RUSAGE_CHILDREN) - before


if __name__ == "__main__":
    main()
