"""The parser of the commands, arguments that several share (RECIPE and --set, fields of options), a type."""

import argparse
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never, TypeVar

from finetune.core.options import field_names
from finetune.core.renamed import DEVICE_HINT, is_device

BYTES = {"k": 10**3, "m": 10**6, "g": 10**9}

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Subparsers = argparse._SubParsersAction


T = TypeVar("T")
SETTING = re.compile(r"-{0,2}[a-z_]+\.[a-z_.]+=.*", re.DOTALL)  # train.epochs=3
INVALID_CHOICE = re.compile(r"invalid choice: '?([^' ]+)'? \(choose from (.*)\)$")


class Parser(argparse.ArgumentParser):
    """A parser that names what a misspelled command, option or value could mean.

    An option that a command does not have is an error of the command, with its usage; argparse prints the program's.
    """

    given: Sequence[str] = ()

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        self.given = args or ()
        parsed, rest = super().parse_known_args(args, namespace)
        if rest:
            options = [action for name in rest if (action := _similar(name.split("=")[0], self._option_string_actions))]
            settings = [
                f"; a setting needs --set: --set {name.lstrip('-')}" for name in rest if SETTING.fullmatch(name)
            ]
            hints = options
            if "--set" in self._option_string_actions:
                hints = (
                    settings or options or ["; settings of a recipe need --set KEY=VALUE"] * rest[0].startswith("--")
                )
            self.error(f"unrecognized arguments: {' '.join(rest)}{''.join(hints[:1])}")
        return parsed, rest

    def error(self, message: str) -> Never:
        names = [name.partition("=")[0] for name in self.given if re.match("--[a-z]", name)]
        known = (*self._option_string_actions,)
        if "required" in message and (wrong := [name for name in names if not any(k.startswith(name) for k in known)]):
            message += f"; unrecognized arguments: {wrong[0]}{_similar(wrong[0], known)}"  # it can be the missing one
        choice = INVALID_CHOICE.search(message)
        super().error(message + (_similar(choice[1], re.findall(r"[^', ]+", choice[2])) if choice else ""))


def _similar(name: str, names: Iterable[str]) -> str:
    """A suggestion for the end of a message, or ""."""
    if name.startswith("-") and is_device(name):
        return f"; {DEVICE_HINT}"
    plain = {known.lstrip("-"): known for known in names}  # the dashes would make short options similar
    return "".join(f"; did you mean {plain[match]}?" for match in get_close_matches(name.lstrip("-"), plain, 1))


def add_options(parser: argparse.ArgumentParser, defaults: object, *options: tuple[str, str, str]) -> None:
    """Adds options whose types and defaults are those of a dataclass: name, placeholder and what it is."""
    for name, placeholder, what in options:
        default = getattr(defaults, name.replace("-", "_"))
        shown = f"{default:g}" if isinstance(default, float) else default
        parser.add_argument(f"--{name}", type=type(default), metavar=placeholder, help=f"{what} (default: {shown})")


def chosen_options(args: argparse.Namespace, options: type[T]) -> T:
    """A dataclass of options with the arguments that were given. Raises its errors, such as RecipeError."""
    return options(**{name: value for name in field_names(options) if (value := getattr(args, name)) is not None})


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file; see recipes/")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="override a setting, such as train.learning_rate=1e-4; can be repeated",
    )


def add_untranscribed_arguments(parser: argparse.ArgumentParser, defaults: object) -> None:
    """MODEL, SOURCE, -o, --overwrite and --max-duration of the commands that read untranscribed audio."""
    parser.add_argument("model", metavar="MODEL", help="trained recipe, run directory, exported folder or base model")
    parser.add_argument("source", metavar="SOURCE", help="manifest with or without texts, folder of audio, audio file")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="manifest to write, .jsonl")
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
    add_options(parser, defaults, ("max-duration", "S", "longest clip; a longer recording is cut at pauses"))


def add_array_arguments(parser: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument(
        "--shard", metavar="N/COUNT", help="do the part of job N of an array of COUNT jobs; see docs/cluster.md"
    )
    parts.add_argument("--merge", action="store_true", help="finish after all jobs of an array")
    return parts


def add_shard_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--codec", choices=("flac", "opus"), default="flac", help="of written audio (default: flac)")
    parser.add_argument(
        "--shard-size",
        type=parse_bytes,
        default="500M",
        metavar="SIZE",
        help="bytes of a shard or Parquet file, such as 1G (default: 500M)",
    )


def parse_bytes(text: str) -> int:
    """A size such as 500M. Raises ArgumentTypeError for another form."""
    number, unit = (text[:-1], BYTES[text[-1].lower()]) if text[-1:].lower() in BYTES else (text, 1)
    try:
        size = int(float(number) * unit)
    except (ValueError, OverflowError):
        size = 0
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size, such as 500M or 1G")
    return size


def add_gguf_dtype(parser: argparse.ArgumentParser, default: str) -> None:
    """`--gguf-dtype`; None if it is not given."""
    parser.add_argument(
        "--gguf-dtype",
        choices=("F32", "F16", "BF16", "Q8_0", "Q4_K_M"),
        help=f"data type of GGUF files (default: {default}); Q4_K_M needs llama-quantize",
    )
