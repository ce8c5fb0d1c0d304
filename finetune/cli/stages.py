"""`finetune prepare`, `train`, `evaluate`, `export` and `run`: the stages of a recipe, up to the named stage."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.cli.arguments import (
    Subparsers,
    add_array_arguments,
    add_gguf_dtype,
    add_recipe_arguments,
    add_shard_arguments,
)
from finetune.cli.verify import check_engine, verify_export
from finetune.core.errors import DataError, RecipeError
from finetune.core.terminal import visible
from finetune.core.wording import count
from finetune.data.splits import SPLITS
from finetune.exporting.engines.registry import ADAPTERS, ENGINES, GGUF_FORMATS, HF, ONNX
from finetune.model.model_source import check_source

if TYPE_CHECKING:
    from finetune.core.run_dir import RunDir

HELP = {
    "prepare": "read and audit the corpora, write manifests",
    "train": "prepare, then fine-tune the model and keep the best adapter",
    "evaluate": "train, then score the base and the adapted model on test and canary, and write the report",
    "export": "evaluate, then merge the adapter, save the model in hub layout and verify it",
    "run": "run all stages and print a summary; completed stages are skipped",
}
LAST_STAGE = {"prepare": "prepare", "train": "train", "evaluate": "report", "export": "export", "run": "export"}
GGUF_DTYPE = "F16"  # of --format gguf and crispasr


def add_parser(subparsers: Subparsers) -> None:
    for name, text in HELP.items():
        example = f"example: finetune {name} recipes/quickstart.yaml --set train.epochs=2"
        parser = subparsers.add_parser(name, help=text, description=text, epilog=example)
        add_recipe_arguments(parser)
        parser.set_defaults(run=run, shard=None, merge=False, engine="local", shards=None)
        parser.set_defaults(format=HF, gguf_dtype=None, verify=None)
        if name == "export":
            parser.add_argument(
                "--format",
                choices=(HF, *ADAPTERS, *GGUF_FORMATS, ONNX),
                default=HF,
                help="hf (default): the merged model; peft, vllm-lora: an adapter; gguf: the model for llama.cpp; "
                "crispasr: for CrispASR; onnx: for onnxruntime; see docs/engines.md",
            )
            add_gguf_dtype(parser, GGUF_DTYPE)
            parser.add_argument(
                "--verify", metavar="ENGINE", choices=ENGINES, help="then run `finetune verify` with this engine"
            )
        if name == "prepare":
            parts = add_array_arguments(parser)
            parts.add_argument(
                "--engine", choices=("local", "ray"), help="ray uses the workers of a Ray cluster; see docs/cluster.md"
            )
            parts.add_argument(
                "--shards", metavar="DIR", type=Path, help="also write each split as tar shards, to DIR/train and so on"
            )
            add_shard_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the stages. Raises the errors of `pipeline.run_recipe` and of the stages."""
    from finetune.core.array_job import parse_shard
    from finetune.core.recipe import load_recipe
    from finetune.core.run_dir import damage_is_an_error

    if args.gguf_dtype and args.format not in GGUF_FORMATS:
        formats = " or ".join(GGUF_FORMATS)
        raise RecipeError(f"--gguf-dtype: --format {args.format} writes no GGUF files; add --format {formats}")
    if args.verify:
        check_engine(args.verify, args.format)
    shard = None if args.shard is None else parse_shard(args.shard)
    recipe, _ = load_recipe(args.recipe, args.overrides)
    if args.command != "prepare" and Path(recipe.model.base).is_dir():
        check_source(recipe.model.base)  # a damaged folder is an error before torch is imported

    if args.shards is not None:
        _check_shards(args.shards, [split for split in SPLITS if getattr(recipe.data, split)])

    from finetune.partial_runs import export_adapter, export_gguf, export_onnx, prepare_shard, run_prepare
    from finetune.pipeline import run_recipe, summarize
    from finetune.planning.fits import check_model, check_training
    from finetune.report.summary import format_summary

    if shard is not None:
        prepare_shard(recipe, shard)
        return 0
    if args.merge:
        run_prepare(recipe, merge=True, engine="local")
        return 0
    if args.command != "prepare":
        check_model(recipe)
    if args.command == "prepare":
        run_dir = run_prepare(recipe, merge=False, engine=args.engine)
    elif args.format in GGUF_FORMATS:
        run_dir = export_gguf(recipe, args.format, args.gguf_dtype or GGUF_DTYPE, check_training)
    elif args.format == ONNX:
        run_dir = export_onnx(recipe, check_training)
    elif args.format != HF:
        run_dir = export_adapter(recipe, args.format, check_training)
    else:
        run_dir = run_recipe(recipe, LAST_STAGE[args.command], check=check_training)
    if args.shards is not None:
        _write_shards(args, run_dir)
    if args.command == "run":
        with damage_is_an_error(run_dir.root, "delete the markers (*.done.json), then rerun"):
            print(visible(format_summary(run_dir, summarize(run_dir))))
    if args.verify:
        return verify_export(run_dir.export if args.format == HF else run_dir.exported(args.format), args.verify)
    return 0


def _write_shards(args: argparse.Namespace, run_dir: "RunDir") -> None:
    """Writes the prepared splits as tar shards."""
    from finetune.data.convert import ConvertOptions, write_split_shards

    splits = {split: path for split in SPLITS if (path := run_dir.manifest(split)).is_file()}
    options = ConvertOptions(codec=args.codec, shard_bytes=args.shard_size)
    for split, files in write_split_shards(args.shards, splits, options).items():
        print(visible(f"{split:6} {count(len(files), 'shard')} in {args.shards / split}"))


def _check_shards(folder: Path, splits: list[str]) -> None:
    """Raises DataError if the folder of a split has files."""
    from finetune.data.convert import is_used

    if used := [str(folder / split) for split in splits if is_used(folder / split)]:
        raise DataError(f"--shards {folder}: {', '.join(used)} has files already; delete it, or choose another folder")
