"""`finetune convert`: a corpus in another format: manifest, NeMo, Lhotse, Hugging Face data set, tar shards."""

import argparse
from pathlib import Path

from finetune.cli.arguments import Subparsers, add_shard_arguments
from finetune.core.terminal import visible
from finetune.core.wording import count, length_text


def add_parser(subparsers: Subparsers) -> None:
    text = "write a corpus in another format: manifest, nemo, lhotse, hf, shards"
    parser = subparsers.add_parser(
        "convert",
        help=text,
        description="Reads a corpus of any format and writes it in another one. Rows that cannot be used are reported "
        "and left out. docs/corpora.md describes the formats.",
        epilog="example: finetune convert data/train.csv shards/train --to shards --shard-size 1G",
    )
    parser.add_argument("source", metavar="IN", help="a corpus, as in data.train of a recipe")
    parser.add_argument("out", metavar="OUT", type=Path, help="the file or folder to write")
    parser.add_argument(
        "--to",
        choices=("manifest", "nemo", "lhotse", "hf", "shards"),
        help="the format; by default manifest for .jsonl and lhotse for .jsonl.gz",
    )
    add_shard_arguments(parser)
    parser.add_argument(
        "--audio",
        type=Path,
        metavar="DIR",
        help="write each clip as a file into DIR (for manifest, nemo, lhotse); by default the audio stays in place",
    )
    parser.add_argument("--split", default="train", help="split of a Hugging Face data set (default: train)")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Converts and prints what was written. Raises the errors of `data.convert.convert`."""
    from finetune.data.convert import ConvertOptions, convert

    options = ConvertOptions(args.to, args.codec, args.shard_size, args.split, args.audio, args.overwrite)
    result = convert(args.source, args.out, options)
    if problems := (result.dropped + result.warnings).text():
        print(visible(problems))
    left_out = result.dropped.total
    rows = f"; {count(left_out, 'row')} left out" if left_out else ""
    files = f"{len(result.files)} files in {args.out}" if len(result.files) > 1 else str(result.files[0])
    print(visible(f"{count(result.clips, 'clip')}, {length_text(result.seconds / 3600)}{rows}: {files}"))
    return 0
