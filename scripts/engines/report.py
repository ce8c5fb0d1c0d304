"""Makes the table of docs/engines.md: each engine and format, compared with the toolkit by `finetune verify`.

    scripts/engines/report runs/quickstart --lora runs/lora --results FOLDER [--write docs/engines.md]

RUN needs `finetune export` with the formats hf and peft, and gguf and mlx if they are to be listed; the run of --lora,
which trains LoRA of the language model only, vllm-lora. Each comparison is a process. Its result is kept in
FOLDER/NAME.json and not measured again; delete it to repeat it. An engine or an export that is missing, or an engine
that fails, is a line that says so.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START, END = "<!-- made by scripts/engines/report -->", "<!-- end -->"
HEAD = """| engine | version | format | clips | equal texts | WER (%) | real-time factor | peak memory |
|---|---|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Comparison:
    """One line of the table.

    Attributes:
        name: Name of its result.
        engine: A name of `finetune verify --engine`.
        format: What the line says if it was not run.
        folder: The export in the run.
        of_lora: Whether it is in the run of --lora.
        options: More options.
    """

    name: str
    engine: str
    format: str
    folder: str = "export"
    of_lora: bool = False
    options: tuple[str, ...] = ()


COMPARISONS = (
    Comparison("transformers", "transformers", "hf"),
    Comparison("transformers-4.57", "transformers-4.57", "hf"),
    Comparison("peft", "peft", "peft", "export-peft"),
    Comparison("vllm", "vllm", "hf"),
    Comparison("vllm-lora", "vllm-lora", "vllm-lora", "export-vllm-lora", True),
    Comparison("mlx", "mlx", "hf"),
    Comparison("mlx-8bit", "mlx", "mlx 8 bit", "export-mlx"),
    Comparison("llamacpp-f32", "llamacpp", "gguf F32", options=("--gguf-dtype", "F32")),
    Comparison("llamacpp-q8_0", "llamacpp", "gguf Q8_0", options=("--gguf-dtype", "Q8_0")),
    Comparison("crispasr-f32", "crispasr", "crispasr F32", options=("--gguf-dtype", "F32")),
    Comparison("crispasr-f16", "crispasr", "crispasr F16", options=("--gguf-dtype", "F16")),
    Comparison("onnx", "onnx", "onnx", "export-onnx"),
    Comparison("llamacpp-q4_k_m", "llamacpp", "gguf Q4_K_M", options=("--gguf-dtype", "Q4_K_M")),
)


def compare(item: Comparison, run: Path, lora: Path | None, results: Path, options: list[str]) -> dict[str, Any]:
    """The result of a comparison, from its file if it is there, or `{"reason": ...}` if it was not run."""
    file, home = results / f"{item.name}.json", lora if item.of_lora else run
    if file.is_file():
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found
    if home is None or not (home / item.folder).is_dir():
        return {"reason": f"{item.folder} is missing" if home else "no run in --lora"}
    command = [sys.executable, "-m", "finetune", "verify", str(home / item.folder), "--engine", item.engine]
    done = subprocess.run([*command, *item.options, *options, "--json", str(file)], capture_output=True, text=True)
    if file.is_file():
        return compare(item, run, lora, results, options)
    return {"reason": done.stderr.strip().splitlines()[0].removeprefix("finetune: ") if done.stderr else "no message"}


def line(item: Comparison, result: dict[str, Any]) -> str:
    """A line of the table."""
    if "reason" in result:
        reason = result["reason"].replace("|", "\\|")
        return f"| {item.engine} | not run: {reason} | {item.format} | | | | | |"
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return (
        f"| {item.engine} | {versions} | {result['format']} | {result['clips']} | {result['equal']} | "
        f"{100 * result['engine_wer']:.1f} | {result['engine_seconds'] / result['audio_seconds']:.2f} | "
        f"{result['peak_memory_bytes'] / 1e9:.1f} GB |"
    )


def replaced(text: str, table: str) -> str:
    """A page with another table between the marks. Raises ValueError if it has no marks."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"no {START} and {END}")
    return f"{before}{start}\n{table}\n{end}{after}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="scripts/engines/report"
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    parser.add_argument("--lora", type=Path, metavar="RUN", help="a run directory with export-vllm-lora")
    parser.add_argument("--results", type=Path, required=True, metavar="FOLDER", help="results of each comparison")
    parser.add_argument("--only", nargs="+", choices=[item.name for item in COMPARISONS], metavar="NAME")
    parser.add_argument("--write", type=Path, metavar="FILE", help="replace the table in this page")
    parser.add_argument("--limit", metavar="N", help="use the first N clips only")
    parser.add_argument("--clips", metavar="MANIFEST", help="other clips than the test set of the run")
    args = parser.parse_args(argv)
    args.results.mkdir(parents=True, exist_ok=True)
    lines = [HEAD]
    for item in COMPARISONS:
        if not args.only or item.name in args.only:
            options = [
                *(["--limit", args.limit] if args.limit else []),
                *(["--clips", args.clips] if args.clips else []),
            ]
            lines.append(line(item, compare(item, args.run, args.lora, args.results, options)))
            print(lines[-1], flush=True)
    if args.write:
        args.write.write_text(replaced(args.write.read_text(encoding="utf-8"), "\n".join(lines)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
