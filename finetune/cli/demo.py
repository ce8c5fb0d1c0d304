"""`finetune demo`: copies the embedded model, the quickstart recipe and its data from the source tree into a folder."""

import argparse
import shlex
import shutil
from functools import partial
from pathlib import Path

from finetune.cli.arguments import Subparsers
from finetune.core.errors import DataError
from finetune.core.terminal import visible

SOURCE_TREE = Path(__file__).resolve().parents[2]
RECIPE = "recipes/quickstart.yaml"
CONTENTS = (RECIPE, "data/granite-speech-nano", "data/vocabulary")


def add_parser(subparsers: Subparsers, source_tree: Path = SOURCE_TREE) -> None:
    text = "copy the embedded small model, the quickstart recipe and its data into a folder"
    parser = subparsers.add_parser("demo", help=text, description=text, epilog="example: finetune demo my_demo")
    parser.add_argument("folder", metavar="DIR", help="a new or empty folder")
    parser.set_defaults(run=partial(run, source_tree=source_tree))


def run(args: argparse.Namespace, source_tree: Path) -> int:
    """Copies `CONTENTS` (40 MB) and prints the next command.

    Raises:
        DataError: the toolkit was installed without its source tree, the folder is not empty, or cannot be written.
    """
    missing = [name for name in CONTENTS if not (source_tree / name).exists()]
    if missing:
        raise DataError(
            f"{source_tree / missing[0]}: no such file or folder; the toolkit was installed without its source "
            "tree: clone its repository and run `pip install -e .` in it, then rerun"
        )
    target = Path(args.folder)
    try:
        if target.exists() and any(target.iterdir()):
            raise DataError(f"{target}: not empty; choose another folder")
        for name in CONTENTS:
            copy = shutil.copytree if (source_tree / name).is_dir() else shutil.copyfile
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            copy(source_tree / name, target / name)
    except (OSError, ValueError, shutil.Error) as error:  # ValueError: a null byte in the name
        raise DataError(f"{target}: cannot be written ({getattr(error, 'strerror', None) or error})") from error
    print(visible(f"copied to {target}; next: cd {shlex.quote(str(target))} && finetune run {RECIPE}"))
    return 0
