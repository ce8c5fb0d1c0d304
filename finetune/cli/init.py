"""`finetune init`: asks what a training is for, divides a corpus into splits, and writes a first recipe."""

import argparse
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from finetune.cli.arguments import Subparsers
from finetune.core.errors import DataError, FinetuneError
from finetune.core.goals import GOALS
from finetune.core.keyword_list import term_list
from finetune.core.terminal import visible
from finetune.core.wording import count, length_text, verb

if TYPE_CHECKING:
    from finetune.data.manifest import Utterance
    from finetune.planning.new_recipe import NewRecipe

DESCRIPTION = (
    "Reads a folder of clips, a table or a Hugging Face data set, divides it into train, valid and test without common "
    "speakers (from 10 on) or sentences, and writes a recipe. In a terminal, it asks for what the arguments leave open."
)
QUESTIONS = {
    "source": "Corpus: a folder of clips, a table (.csv, .tsv, .jsonl, .parquet) or hf:NAME:SPLIT",
    "goal": f"Goal: {', '.join(GOALS)}, or none",
    "model": "Base model: a hub name or a folder",
    "terms": "File with the words that matter, one in each line, or none",
    "name": "Name of the recipe",
}
NONE = "none"
TRANSLATION = {"translation", "translated", "ubersetzung", "traduction", "traduccion", "traducao", "traduzione"}
TOO_LONG = "audio too long"  # kind of problem, see `data.problems`
NAME = re.compile(r"[\w-]+")
Ask = Callable[[str], str]


def add_parser(subparsers: Subparsers, ask: Ask | None = None) -> None:
    parser = subparsers.add_parser(
        "init",
        help="write a first recipe and its manifests from a folder, a table or a data set",
        description=DESCRIPTION,
        epilog="example: finetune init my_clips/ --goal vocabulary --terms terms.txt --name clinic",
    )
    parser.add_argument("source", nargs="?", metavar="SOURCE", help=QUESTIONS["source"])
    parser.add_argument("--goal", choices=(*GOALS, NONE), help="what to adapt to")
    parser.add_argument("--model", help="the base (default: ibm-granite/granite-4.0-1b-speech)")
    parser.add_argument("--terms", help="file with one term in each line")
    parser.add_argument("--canary", default="", help="corpus of general speech, which shows what the model forgets")
    parser.add_argument("--name", help="of the recipe NAME.yaml and the folder NAME (default: that of the source)")
    parser.add_argument("--yes", action="store_true", help="ask nothing, and take the default for the rest")
    parser.set_defaults(run=lambda args: run(args, ask or (input if sys.stdin.isatty() else None)))


def run(args: argparse.Namespace, ask: Ask | None) -> int:
    """Writes NAME/train.jsonl, valid.jsonl and test.jsonl, and NAME.yaml; audio that is not a file goes to NAME/media.

    Raises:
        DataError: no source is given, a corpus cannot be read or is too small, the list of terms does not exist, or a
            file exists.
        ModelError: the model is neither a model folder nor OWNER/NAME.
    """
    from finetune.data.corpora import preview_rows
    from finetune.model.model_config import read_config
    from finetune.model.model_source import check_spelling
    from finetune.planning.new_recipe import DEFAULT_MODEL, recipe_text

    answers = Answers(args, None if args.yes else ask)
    source = answers.get("source", "", _check_source)
    goal = answers.get("goal", NONE, _check_goal)
    model, terms = answers.get("model", DEFAULT_MODEL, check_spelling), answers.get("terms", NONE, _check_terms)
    name = answers.get("name", default_name(source), _check_name)
    recipe, folder = Path(f"{name}.yaml"), Path(name)
    terms = "" if terms == NONE else terms
    if args.canary:
        preview_rows(args.canary)
    blocks = read_config(model).encoder_config.num_layers if Path(model).is_dir() else None
    train = write_splits(source, folder)
    translation = translation_column(train[0])
    if translation:
        print(visible(f"column {translation!r} is not trained; {recipe} shows how it can be (docs/tasks.md)"))
    new = replace(
        _new_recipe(name, folder, model, goal, train, terms, args.canary),
        translation=translation,
        language=train[0].language,
        blocks=blocks,
    )
    recipe.write_text(recipe_text(new), encoding="utf-8")
    print(visible(f"{recipe}: written; next:\n  finetune check {recipe}\n  finetune run {recipe}"))
    return 0


def _check_source(source: str) -> None:
    from finetune.data.corpora import preview_rows

    if not source:
        raise DataError("pass a corpus: finetune init SOURCE, such as a folder of clips or a table")
    preview_rows(source)


def _check_goal(goal: str) -> None:
    if goal not in (*GOALS, NONE):
        raise DataError(f"choose one of {', '.join(GOALS)}, or {NONE}")


def _check_terms(terms: str) -> None:
    if terms in (NONE, ""):
        return
    if not Path(terms).is_file():
        raise DataError(f"{terms}: no such file; --terms is a text file with one term in each line")
    term_list(terms)


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise DataError(f"--name {name!r}: use letters, digits, - and _")
    for path in (Path(f"{name}.yaml"), Path(name)):
        if path.exists():
            raise DataError(f"{path}: exists; choose another --name")


def translation_column(first: "Utterance") -> str:
    """The column that has the translation of the text, by its name and the first row of train; or ""."""
    from finetune.data.time_names import words_of

    filled = [name for name, value in first.extra.items() if isinstance(value, str) and value.strip()]
    names = [name for name in filled if TRANSLATION & {*words_of(name)} or name == "target_text"]
    return names[0] if names and not first.is_translation else ""


class Answers:
    """The values of the arguments, else of the questions, else defaults."""

    def __init__(self, args: argparse.Namespace, ask: Ask | None) -> None:
        self.args, self.ask = args, ask

    def get(self, name: str, default: str, check: Callable[[str], object]) -> str:
        """A value; an answer that `check` refuses is asked again. Raises the errors of `check` for other values."""
        given: str | None = getattr(self.args, name)
        if given is not None or self.ask is None:
            check(value := default if given is None else given)
            return value
        while True:
            question = f"{QUESTIONS[name]} [{default}]: " if default else f"{QUESTIONS[name]}: "
            try:
                answer = self.ask(question).strip() or default
            except EOFError as error:
                raise DataError("the input ended before the last answer; pass arguments, or --yes") from error
            try:
                check(answer)
            except FinetuneError as error:
                print(visible(str(error)))
            else:
                return answer


def default_name(source: str) -> str:
    """The name of the corpus, in letters that suit files and YAML."""
    stem = source.removeprefix("hf:").split(":")[0].rstrip("/").rsplit("/", 1)[-1].split(".")[0]
    return (
        "".join(char if char.isalnum() or char in "-_" else "_" for char in stem) + "_recipe" if stem else "my_recipe"
    )


def write_splits(source: str, folder: Path) -> "list[Utterance]":
    """Writes the manifests, prints what they have, and returns the rows of train. After an error no folder is left.

    Raises:
        DataError: the corpus cannot be read, has too few different clips, or the folder cannot be written.
    """
    from finetune.core.files import output_folder

    with output_folder(folder):
        try:
            return _write_splits(source, folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # it can have audio of a Parquet file or a data set
            raise


def _write_splits(source: str, folder: Path) -> "list[Utterance]":
    from finetune.data.manifest import Utterance, seconds_of, write_manifest
    from finetune.data.new_splits import new_splits

    utterances = _usable(source, folder)
    splits = new_splits(utterances)
    parts = dict[str, list[Utterance]]()
    for item, split in zip(utterances, splits.names, strict=True):
        parts.setdefault(split, []).append(item)
    if len(parts) < 3:
        raise DataError(
            f"{source}: {count(len(utterances), 'usable clip')} with "
            f"{count(splits.different, f'different {splits.disjoint}')} are too "
            "few for train, valid and test"
        )
    for split in ("train", "valid", "test"):
        write_manifest(folder / f"{split}.jsonl", parts[split])
        hours = seconds_of(parts[split]) / 3600
        print(visible(f"{folder / split}.jsonl: {count(len(parts[split]), 'clip')}, {length_text(hours)}"))
    if splits.column:
        added = f"; {' and '.join(splits.added)} {verb(len(splits.added), 'is', 'are')} taken from its train"
        print(visible(f"column {splits.column!r} states them{added if splits.added else ''}"))
    else:
        print(splits.note())
    return parts["train"]


def _usable(source: str, folder: Path) -> "list[Utterance]":
    """The utterances that `finetune prepare` keeps with the default limits; prints why others are left out."""
    from finetune.core.data_config import CorpusEntry, DataSection
    from finetune.data.convert import ConvertOptions, convert
    from finetune.data.manifest import read_manifest
    from finetune.data.prepare_split import row_settings

    limits = row_settings(DataSection(test=[CorpusEntry(path=source)]), "train")
    with TemporaryDirectory(prefix="finetune-init-") as work:
        options = ConvertOptions("manifest", media=folder.absolute() / "media", limits=limits)
        result = convert(source, Path(work) / "all.jsonl", options)
        utterances = read_manifest(Path(work) / "all.jsonl")
    if problems := (result.dropped + result.warnings).text():
        print(visible(problems))
    if number := result.dropped.total:
        long = "; `finetune segment` cuts long recordings" if TOO_LONG in result.dropped.counts else ""
        total = number + len(utterances)
        kinds = ", ".join(f"{kind} ({rows:,})" for kind, rows in result.dropped.counts.most_common())
        print(f"{number:,} of {total:,} rows {verb(number, 'is', 'are')} left out: {kinds}{long}")
    return utterances


def _new_recipe(
    name: str, folder: Path, model: str, goal: str, train: "list[Utterance]", terms: str, canary: str
) -> "NewRecipe":
    from finetune.data.manifest import seconds_of
    from finetune.model.granite import default_device
    from finetune.planning.machine import memory_of
    from finetune.planning.new_recipe import NewRecipe

    device = default_device()
    card = (memory_of(device) or 0) / 1e9 if device == "cuda" else 0.0
    hours, longest = seconds_of(train) / 3600, max(item.duration for item in train)
    return NewRecipe(name, folder, model, "" if goal == NONE else goal, hours, card, terms, canary, longest=longest)
