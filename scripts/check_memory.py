"""Compares the memory that `finetune check` counts with that of real training steps of the embedded model on a CPU.

    python scripts/check_memory.py                       # 24 clips of 5 s; minutes
    python scripts/check_memory.py --clips 64 --seconds 10

Each row is a process of its own. "allocated" is the peak of what torch has allocated in a step, above the weights and
with AdamW's moments (torch.profiler); "resident" is the peak of the process's memory in another process without the
profiler. "counted" is what `finetune check` adds up for a step above the weights, without libraries and margin.
"""

import argparse
import multiprocessing
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from finetune.core.config import Recipe
from finetune.model.granite import SpeechModel, load_model
from finetune.model.trainable import open_parts, set_mode
from finetune.planning.activations import LargestBatch
from finetune.planning.memory import LIBRARIES, plan_memory
from finetune.training.loss import token_loss
from finetune.training.parts import checkpoint_activations, trainable_parts

BASE = str(Path(__file__).resolve().parents[1] / "data" / "granite-speech-nano")
TEXT, TARGETS = 30, 20  # positions of a row besides its audio, and how many of them are targets
CASES = [
    (encoder, dtype, checkpointing)
    for encoder in ("frozen", "full")
    for dtype in ("float32", "bfloat16")
    for checkpointing in (False, True)
]
HEAD = "encoder  weights   checkpointing    counted MB  allocated MB  ratio  resident MB"


def recipe_of(encoder: str, dtype: str, checkpointing: bool) -> Recipe:
    parts = {"projector": {"mode": "full"}, "encoder": {"mode": encoder, "blocks": 2}}
    return Recipe.model_validate(
        {
            "name": "memory",
            "model": {"base": BASE, "dtype": dtype},
            "data": {"test": ["none"]},
            "parts": parts,
            "machine": {"gradient_checkpointing": checkpointing},
        }
    )


class Step:
    """A training step on random features."""

    def __init__(self, recipe: Recipe, clips: int, frames: int) -> None:
        torch.manual_seed(0)
        self.model: SpeechModel = load_model(BASE, recipe.model.dtype)
        open_parts(self.model, trainable_parts(recipe.parts))
        checkpoint_activations(self.model, recipe.machine)
        set_mode(self.model, training=True)
        audio = int(self.model.num_audio_tokens(torch.tensor([frames]))[0])
        self.features, self.frames = torch.randn(clips, frames, 160), torch.full((clips,), frames)
        self.ids = torch.full((clips, audio + TEXT), 100)
        self.ids[:, 3 : 3 + audio] = self.model.audio_token_id
        self.labels = torch.full_like(self.ids, -100)
        self.labels[:, -TARGETS:] = 7
        self.parameters = [value for value in self.model.hf.parameters() if value.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-5, fused=True)

    def run(self) -> None:
        with self.model.autocast():
            hidden, _ = self.model(self.features, self.frames, self.ids)
            loss = token_loss(hidden, self.labels, self.model.logits, 0.0)
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def counted(case: tuple[str, str, bool], clips: int, frames: int) -> float:
    recipe = recipe_of(*case)
    model = load_model(BASE, "float32", "meta")
    with torch.device("meta"):
        open_parts(model, trainable_parts(recipe.parts))
    positions = int(model.num_audio_tokens(torch.tensor([frames]))[0]) + TEXT
    batch = LargestBatch(clips, frames, clips, positions, clips * TARGETS)
    plan = plan_memory(model, recipe, batch, "cpu", 1, None)
    return plan.low - LIBRARIES["cpu"][0] - plan.weights - plan.trained


def allocated(case: tuple[str, str, bool], clips: int, frames: int) -> float:
    from torch.profiler import ProfilerActivity, profile

    step = Step(recipe_of(*case), clips, frames)
    step.run()  # so that AdamW has its moments
    moments = sum(2 * value.nbytes for value in step.parameters)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step.run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak + moments


def resident(case: tuple[str, str, bool], clips: int, frames: int) -> float:
    step, peak, stop = Step(recipe_of(*case), clips, frames), [0], threading.Event()

    def watch() -> None:
        while not stop.is_set():
            peak[0] = max(peak[0], int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
            time.sleep(0.002)

    thread = threading.Thread(target=watch)
    thread.start()
    for _ in range(2):
        step.run()
    stop.set()
    thread.join()
    return peak[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=5.0)
    args = parser.parse_args()
    frames = round(args.seconds * 50)
    print(HEAD)
    for case in CASES:
        values = []
        for measure in (counted, allocated, resident):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                values.append(pool.submit(measure, case, args.clips, frames).result() / 1e6)
        ratio = values[0] / values[1]
        name = "yes" if case[2] else "no"
        row = f"{case[0]:9}{case[1]:10}{name:15}{values[0]:12.0f}{values[1]:14.0f}{ratio:7.2f}{values[2]:13.0f}"
        print(row, flush=True)


if __name__ == "__main__":
    main()
