"""The parts of `bench_full`: their commands, and the tables of their results."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.measured_process import Cost
from bench.processes import Processes, largest_difference
from finetune.core.files import read_json

SCRIPTS = Path(__file__).resolve().parents[1]
TRAINED = "baseline,ours,checkpointing,compile"
DECODED = "generate,greedy,greedy-graphs,lossless,lossless-graphs,floor"
# Options of a measurement in small: two batches of the notebook, two clips.
TINY = {
    "training": ["--clips", "32", "--steps", "1", "--only", "baseline,ours"],
    "decoding": ["--limit", "2", "--batches", "1,2", "--rounds", "1"],
}
LOSS_TOLERANCE = 1e-2  # of two trainings in bfloat16 whose sums have another order


@dataclass
class Tables:
    """The content of bench_full.json.

    Attributes:
        header: machine and versions.
        training: what `bench_train.py --json` writes.
        decoding: what `bench_decode.py --json` writes.
        processes: the same training in one and in two processes; empty with one GPU.
        failed: by part, the error.
    """

    header: dict[str, str]
    training: dict[str, Any] = field(default_factory=dict)
    decoding: dict[str, Any] = field(default_factory=dict)
    processes: list[Processes] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def command(part: str, size: str, tiny: bool, output: Path) -> list[str]:
    """The command of `training` or `decoding`."""
    script, only = ("bench_train.py", TRAINED) if part == "training" else ("bench_decode.py", DECODED)
    options = ["--size", size, "--only", only, "--json", str(output), *(TINY[part] if tiny else [])]
    return [sys.executable, str(SCRIPTS / script), *options]


def measure(tables: Tables, size: str, tiny: bool, folder: Path, run: Callable[[Sequence[str], Path], Cost]) -> Tables:
    """Runs both benchmarks; `run` runs a command and writes its output to a file. A part that fails is recorded."""
    for part in ("training", "decoding"):
        output, log = folder / f"{part}.json", folder / f"{part}.log"
        cost = run(command(part, size, tiny, output), log)
        if cost.code == 0 and output.is_file():
            setattr(tables, part, read_json(output))
        else:
            end = log.read_text(encoding="utf-8", errors="replace").strip() if log.is_file() else ""
            tables.failed[part] = f"exit code {cost.code}: {end[-1500:]}"
    if tables.training and not {"baseline", "ours"} <= tables.training["variants"].keys():
        tables.failed["training"] = (folder / "training.log").read_text(encoding="utf-8", errors="replace")[-1500:]
    return tables


def training_table(training: dict[str, Any]) -> list[str]:
    """Training: each variant against the notebook's recipe."""
    rows = training["variants"]
    base = rows.get("baseline")
    lines = [
        "| training | clips/s | audio s/s | memory (GB) | of the limit (%) | x the notebook |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        ratio = f"{row['clips_per_second'] / base['clips_per_second']:.2f}" if base else "-"
        speed = f"{row['clips_per_second']:.2f} | {row['audio_seconds_per_second']:.1f}"
        lines.append(f"| {name} | {speed} | {row['memory'] / 1e9:.2f} | {100 * row['share_of_limit']:.1f} | {ratio} |")
    return lines


def decoding_table(decoding: dict[str, Any]) -> list[str]:
    """Decoding: each decoder and batch size against transformers' generate and the lower bound."""
    lines = [
        "| batch | decoder | wrong words of drafts | ms/clip | x generate | x floor | texts as greedy |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in decoding["lines"]:
        drafts = "-" if row["corrupted"] is None else f"{100 * row['corrupted']:.0f} %"
        ratios = [f"{row[key]:.2f}" if row[key] is not None else "-" for key in ("over_generate", "over_floor")]
        equal = "-" if row["as_greedy"] is None else f"{row['as_greedy']} of {row['clips']}"
        lines.append(
            f"| {row['batch']} | {row['way']} | {drafts} | {row['ms']:.1f} | {ratios[0]} | {ratios[1]} | {equal} |"
        )
    return lines


def processes_table(results: list[Processes]) -> list[str]:
    """One process against two."""
    lines = ["| processes | clips/s | x one process | wall time of the command (s) |", "|---|---|---|---|"]
    for row in results:
        ratio = row.clips_per_second / results[0].clips_per_second
        lines.append(f"| {row.processes} | {row.clips_per_second:.2f} | {ratio:.2f} | {row.seconds:.0f} |")
    steps = len(results[0].losses)
    return [
        *lines,
        "",
        f"Largest relative difference of the losses of {steps} steps: {largest_difference(results):.1e}.",
    ]


def markdown(tables: Tables) -> str:
    """All tables that were measured, and what failed."""
    parts = [[f"{name}: {value}" for name, value in tables.header.items()]]
    if tables.training:
        parts.append([*tables.training["header"][:4], "", *training_table(tables.training)])
    if tables.decoding:
        parts.append([*tables.decoding["header"][:2], "", *decoding_table(tables.decoding)])
    if tables.processes:
        parts.append(processes_table(tables.processes))
    parts += [[f"Failed: {part}. {error}"] for part, error in tables.failed.items()]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"
