"""`finetune recipes`: lists, shows and copies the recipes of the source tree."""

import argparse
import shutil
from functools import partial
from pathlib import Path

from finetune.cli.arguments import Subparsers
from finetune.core.errors import DataError
from finetune.core.terminal import visible

FOLDER = Path(__file__).resolve().parents[2] / "recipes"


def add_parser(subparsers: Subparsers, folder: Path = FOLDER) -> None:
    text = "list, show or copy the recipes that come with the toolkit"
    parser = subparsers.add_parser(
        "recipes", help=text, description=text, epilog="example: finetune recipes copy noise ."
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="name and first line of each").set_defaults(run=partial(run_list, folder=folder))
    show = actions.add_parser("show", help="print a recipe")
    show.set_defaults(run=partial(run_show, folder=folder))
    copy = actions.add_parser("copy", help="copy a recipe to change it")
    copy.set_defaults(run=partial(run_copy, folder=folder))
    for action in (show, copy):
        action.add_argument("name", metavar="NAME", help="as in the list")
    copy.add_argument("out", metavar="OUT", type=Path, help="a new file, or a folder")


def find_recipes(folder: Path) -> dict[str, Path]:
    """The recipes by name. Raises DataError if the toolkit was installed without its source tree."""
    recipes = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if not recipes:
        raise DataError(
            f"{folder}: no recipes; the toolkit was installed without its source tree: clone its repository"
        )
    return recipes


def run_list(args: argparse.Namespace, folder: Path) -> int:
    """Prints name and first comment of each recipe."""
    recipes = find_recipes(folder)
    width = max(map(len, recipes))
    for name, path in recipes.items():
        print(f"{name:<{width}}  {path.read_text(encoding='utf-8').partition(chr(10))[0].lstrip('# ')}")
    return 0


def _recipe(folder: Path, name: str) -> Path:
    recipes = find_recipes(folder)
    if name.removesuffix(".yaml") not in recipes:
        raise DataError(f"{name}: no such recipe; there are {', '.join(recipes)}")
    return recipes[name.removesuffix(".yaml")]


def run_show(args: argparse.Namespace, folder: Path) -> int:
    """Prints a recipe."""
    print(visible(_recipe(folder, args.name).read_text(encoding="utf-8")), end="")
    return 0


def run_copy(args: argparse.Namespace, folder: Path) -> int:
    """Copies a recipe; an existing file is not replaced."""
    source = _recipe(folder, args.name)
    try:
        target = args.out / source.name if args.out.is_dir() else args.out
        if target.exists():
            raise DataError(f"{target}: exists; choose another name")
        shutil.copyfile(source, target)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise DataError(f"{args.out}: cannot be written ({getattr(error, 'strerror', None) or error})") from error
    print(visible(f"{target}: written; its paths start at the folder in which you run it"))
    return 0
