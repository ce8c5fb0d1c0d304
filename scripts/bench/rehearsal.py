"""The stages of `rehearse_full`, their costs, and the table of results."""

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

from bench.measured_process import Cost, run_measured
from finetune.core.files import read_jsonl, write_json
from finetune.data.manifest import Utterance, write_manifest

ROOT = Path(__file__).resolve().parents[2]
VOCABULARY = ROOT / "data" / "vocabulary"
RECIPE = ROOT / "recipes" / "granite_1b.yaml"
STOPPED = 128 + 15
FIRST_STEP = "base model:"  # training prints the scores of the base just before the first step
BATCH = 4  # clips of a step
GOALS = {  # bytes of a stage, seconds of a step
    "resident": 12e9,
    "transcribe": 6e9,
    "step": 25.0,
}
HEAD = "| stage | wall time (s) | CPU time (s) | resident, all processes (GB) | largest process (GB) |"
RULE = "|---|---|---|---|---|"


@dataclass(frozen=True)
class Plan:
    """What is rehearsed: dimensions, arithmetic, and numbers of clips and tokens."""

    folder: Path
    tiny: bool
    dtype: str
    train: int
    scored: int
    tokens: int

    @property
    def run(self) -> Path:
        return self.folder / "runs" / "rehearsal"

    def manifest(self, split: str) -> Path:
        return self.folder / "data" / f"{split}.jsonl"

    def overrides(self) -> dict[str, object]:
        """The settings of the recipe that are overridden: paths, a step of four clips, little to decode."""
        seconds = BATCH * max(row["duration"] for row in read_jsonl(self.manifest("train")))
        return {
            "name": self.run.name,
            "runs": self.run.parent,
            "model.base": self.folder / "base",
            "model.dtype": self.dtype,
            **{f"data.{split}": self.manifest(split) for split in ("train", "valid", "test")},
            "train.batch_seconds": round(seconds + 0.01, 2),
            "train.accumulation": 1,
            "train.epochs": 1,
            "decode.max_new_tokens": self.tokens,
            "evaluate.probes": "false",
            "export.clips": self.scored,
            "machine.processes": 1,
            "machine.workers": 0,  # the pages that a worker shares with its parent would count twice
        }


@dataclass(frozen=True)
class Stage:
    """A command that must end with an exit code. One with `stop_at` is stopped once its output has this text."""

    name: str
    command: list[str]
    code: int = 0
    stop_at: str | None = None


@dataclass
class Result:
    """The content of the JSON file."""

    header: dict[str, object]
    stages: dict[str, Cost] = field(default_factory=dict)
    failed: str = ""  # the stage that ended with another exit code
    step_seconds: list[float] = field(default_factory=list)  # of the steps after the resumed one

    def missed(self) -> list[str]:
        """The goals that were not reached."""
        lines = []
        for name, cost in self.stages.items():
            goal = GOALS.get(name, GOALS["resident"])
            if cost.resident > goal:
                lines.append(f"{name}: {cost.resident / 1e9:.2f} GB resident, goal {goal / 1e9:.0f} GB")
        if self.step_seconds and min(self.step_seconds) > GOALS["step"]:
            lines.append(f"a step: {min(self.step_seconds):.1f} s, goal {GOALS['step']:.0f} s")
        return lines


def arithmetic(cuda: bool, native: bool) -> tuple[str, str]:
    """The value of `model.dtype`, and the reason for it.

    Args:
        cuda: whether there is a GPU.
        native: whether the processor computes in bfloat16.
    """
    if cuda:
        return "auto", "bfloat16 on the GPU"
    if native:
        return "bfloat16", "bfloat16, for which this processor has instructions"
    return "auto", "float32, because this processor emulates bfloat16; frozen weights are held in bfloat16"


def write_clips(plan: Plan) -> None:
    """Writes manifests of the embedded clips whose durations are nearest to 2.3 s."""
    plan.manifest("train").parent.mkdir(parents=True)
    for split, count in (("train", plan.train), ("valid", plan.scored), ("test", plan.scored)):
        rows = sorted(
            read_jsonl(VOCABULARY / f"{split}.jsonl"), key=lambda row: (abs(row["duration"] - 2.3), row["id"])
        )
        clips = [
            Utterance(row["id"], str(VOCABULARY / row["audio_filepath"]), row["duration"], row["text"])
            for row in rows[:count]
        ]
        write_manifest(plan.manifest(split), clips)


def stages(plan: Plan, script: str) -> list[Stage]:
    """The commands in their order; `script --write-base` writes the base."""
    overrides = [part for key, value in plan.overrides().items() for part in ("--set", f"{key}={value}")]
    finetune, python = [sys.executable, "-m", "finetune"], [sys.executable]
    base = [*python, script, "--write-base", "--folder", str(plan.folder), *(["--tiny"] if plan.tiny else [])]
    clip = read_jsonl(plan.manifest("test"))[0]["audio_filepath"]
    export = str(plan.run / "export")

    few = ["--limit", str(plan.scored), "--max-new-tokens", str(plan.tokens)]

    def stage(name: str, command: str, code: int = 0, stop_at: str | None = None) -> Stage:
        return Stage(name, [*finetune, command, str(RECIPE), *overrides], code, stop_at)

    return [
        Stage("write the base", base),
        stage("prepare", "prepare"),
        stage("train: score the base, one step, checkpoint", "train", STOPPED, FIRST_STEP),
        stage("train: resume, the other steps, score", "train"),
        stage("evaluate", "evaluate"),
        stage("export", "export"),
        Stage("verify", [*finetune, "verify", export, "--engine", "transformers", *few]),
        Stage("transcribe", [*finetune, "transcribe", clip, "--model", export, "--max-new-tokens", str(plan.tokens)]),
    ]


def rehearse(plan: Plan, planned: list[Stage], header: dict[str, object], say: Callable[[str], object]) -> Result:
    """Runs the stages until one fails; their output is in `folder/logs`."""
    result, logs = Result(header), plan.folder / "logs"
    logs.mkdir()
    env = {"HF_HUB_OFFLINE": "1", "FINETUNE_CACHE": "off", "PYTHONPATH": str(ROOT)}
    for number, stage in enumerate(planned):
        log = logs / f"{number}.log"
        cost = run_measured(stage.command, log, stage.stop_at, env)
        result.stages[stage.name] = cost
        say(row(stage.name, cost))
        if cost.code != stage.code:
            result.failed = stage.name
            say(f"\n{stage.name}: exit code {cost.code}\n{log.read_text(encoding='utf-8', errors='replace')[-3000:]}")
            break
    result.step_seconds = step_seconds(plan.run / "metrics.jsonl")
    return result


def step_seconds(metrics: Path) -> list[float]:
    """Seconds of each step that follows another one of the same process, from the times of `metrics.jsonl`."""
    if not metrics.is_file():
        return []
    times = [row["time"] for row in read_jsonl(metrics) if row["kind"] == "step"][1:]  # the first was before the stop
    return [round(after - before, 3) for before, after in pairwise(times)]


def row(name: str, cost: Cost) -> str:
    """A line of the Markdown table."""
    memory = f"{cost.resident / 1e9:.2f} | {cost.largest / 1e9:.2f}"
    return f"| {name} | {cost.seconds:.1f} | {cost.cpu_seconds:.1f} | {memory} |"


def markdown(result: Result) -> str:
    """The header, the table and the goals."""
    lines = [f"{name}: {value}" for name, value in result.header.items()]
    table = [HEAD, RULE, *(row(name, cost) for name, cost in result.stages.items())]
    steps = ", ".join(f"{seconds:.2f} s" for seconds in result.step_seconds)
    notes = [f"A step of {BATCH} clips: {steps}."] if steps else []
    notes += [f"Failed: {result.failed}."] if result.failed else []
    notes += [f"Goal missed: {line}." for line in result.missed()]
    return "\n".join([*lines, "", *table, "", *notes]) + "\n"


def write_results(folder: Path, result: Result) -> None:
    """Writes rehearsal.json and rehearsal.md."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "rehearsal.json", {**asdict(result), "missed": result.missed()})
    (folder / "rehearsal.md").write_text(markdown(result), encoding="utf-8")


def exit_code(result: Result, strict: bool) -> int:
    """1 if a stage failed, or with `strict` if a goal was missed."""
    return 1 if result.failed or (strict and result.missed()) else 0
