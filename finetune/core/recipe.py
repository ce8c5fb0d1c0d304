"""Reads a recipe: YAML and `--set` to typed settings, each with its origin; writes `resolved.json`.

A value is converted by the type of its field: `1e-5` is a number, and `no` is text in a text field. `--set a.b=value`
overrides the file; the file overrides the preset of its goal.
"""

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from finetune.core.config import Recipe
from finetune.core.contradictions import contradictions
from finetune.core.errors import DataError, RecipeError
from finetune.core.files import write_json
from finetune.core.goals import GOALS
from finetune.core.keyword_list import term_list
from finetune.core.layouts import HUB_NAMES
from finetune.core.raw_settings import CORPORA, MAX_SHOWN, VERSION_KEY, RawValue, parse, parse_overrides, short
from finetune.core.renamed import DEVICE_HINT, NEW_VALUES, RENAMED, is_device
from finetune.core.run_dir import flatten
from finetune.version import __version__

REQUIRED = {
    "model.base": "required; set model.base to a local folder or a hub name such as "
    f"{', '.join(HUB_NAMES)}; to try the toolkit, use the embedded model data/granite-speech-nano of the "
    "source tree (`finetune demo DIR` copies it)"
}
# Names of other toolkits, which no spelling leads to.
USUAL_NAMES = {
    "lr": "train.learning_rate",
    "batch_size": "train.batch_seconds",
    "gradient_accumulation_steps": "train.accumulation",
    "num_train_epochs": "train.epochs",
    "max_steps": "train.epochs",
    "save_steps": "machine.checkpoint_every",
    "eval_steps": "train.evaluate_every",
    "early_stopping_patience": "train.patience",
    "report_to": "machine.trackers",
    "precision": "model.dtype",
    "beam_size": "decode.num_beams",
    "hotwords": "decode.terms",
    "babble": "augment.noise",
}
OTHER_SECTION = 0.8  # least similarity of a suggested name from another section
PATHS = ("runs", "model.base", "data.terms")  # where `~` is the home directory, as in paths of corpora


@dataclass(frozen=True)
class Setting:
    """One resolved value and its origin: `default`, `goal accent`, `recipe.yaml:12` or `--set ...`."""

    key: str
    value: Any
    origin: str


def field_types(section: Any) -> dict[str, Any]:
    """The fields of a section with their types; empty for a type that is not a section."""
    if is_dataclass(section):
        return {field.name: get_type_hints(section)[field.name] for field in fields(section)}
    if isinstance(section, type) and issubclass(section, BaseModel):
        return {name: field.annotation for name, field in section.model_fields.items()}
    return {}


class ResolvedRecipe(Recipe):
    """The content of `resolved.json`. A setting without a value is absent."""

    toolkit_version: str
    """Version of the toolkit that wrote the file."""


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> tuple[Recipe, list[Setting]]:
    """Reads, overrides and validates a recipe.

    Args:
        path: the YAML file, or the `resolved.json` of a run.
        overrides: `a.b=value` strings, as after `--set`; a list is written `a,b`.

    Returns:
        The frozen recipe, and every setting with its origin, in the order of the sections.

    Raises:
        RecipeError: no such file, invalid YAML, an unknown key (with the nearest known key), an invalid value; each
            with file:line or the override that set it.
    """
    path = Path(path)
    raw = _check_keys({**parse(path), **parse_overrides(overrides)})
    raw.setdefault("name", RawValue(path.stem, "default"))
    return _resolve(raw, str(path))


def recipe_from_values(values: Mapping[str, Any]) -> Recipe:
    """Builds a recipe from nested values with the structure of a YAML file, and checks it in the same way.

    Raises:
        RecipeError: an unknown key, an invalid value, a contradiction.
    """
    plain = {name: to_jsonable_python(value) if field_types(type(value)) else value for name, value in values.items()}
    raw = {key: RawValue(value, "Recipe") for key, value in flatten(plain).items()}
    return _resolve(_check_keys(raw), "Recipe")[0]


def _resolve(raw: dict[str, RawValue], source: str) -> tuple[Recipe, list[Setting]]:
    """Adds the preset of the goal, validates all values, and rejects contradictions."""
    goal = raw.get("train.goal", RawValue(None, ""))
    preset = {
        key: RawValue(value, f"goal {goal.value}")
        for key, value in GOALS.get(str(goal.value), {}).items()
        if key not in raw
    }
    raw = raw | preset
    recipe = _validate(raw, source)
    for key, text in contradictions(recipe):
        if key in preset:
            raise RecipeError(f"{goal.origin}: {key}, set by train.goal: {goal.value}: {text}")
        raise RecipeError(f"{raw[key].origin if key in raw else source}: {key}: {text}")
    return recipe, [
        Setting(key, get_setting(recipe, key), raw[key].origin if key in raw else "default") for key in known_keys()
    ]


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Like `load_recipe`, but returns only the recipe."""
    return load_recipe(path, overrides)[0]


def save_recipe(path: Path, recipe: Recipe) -> None:
    """Writes every setting and the version of the toolkit as JSON; `load_recipe` reads it, because JSON is YAML."""
    write_json(path, {VERSION_KEY: __version__, **recipe.model_dump(mode="json", exclude_none=True)})


def known_keys(section: Any = Recipe, prefix: str = "") -> list[str]:
    """Every dotted key of a recipe."""
    keys = []
    for name, field_type in field_types(section).items():
        if field_types(field_type):
            keys += known_keys(field_type, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def get_setting(recipe: Recipe, key: str) -> Any:
    """The value at a dotted key; corpora as they are written in a recipe."""
    value: Any = recipe
    for part in key.split("."):
        value = getattr(value, part)
    return [entry.model_dump(mode="json", exclude_unset=True) for entry in value] if key in CORPORA else value


def _check_keys(raw: dict[str, RawValue]) -> dict[str, RawValue]:
    """Prepares values for their fields; rejects unknown and renamed keys, and a value for a section."""
    known, checked = known_keys(), {}
    for key, (value, origin) in raw.items():
        if any(name.startswith(f"{key}.") for name in known):
            if value is not None:
                raise RecipeError(f"{origin}: '{key}' is a section; put its settings below it, indented")
        elif key in known:
            try:
                checked[key] = RawValue(_as_field(key, value), origin)
            except RecipeError as error:
                raise RecipeError(f"{origin}: {key}: {error}") from error
        elif key in RENAMED:
            values = f": {NEW_VALUES[key]}" if key in NEW_VALUES else ""
            raise RecipeError(f"{origin}: '{key}' was renamed to '{RENAMED[key]}'{values}")
        else:
            nearest = _nearest(key, known)
            if nearest in CORPORA and key.startswith(f"{nearest}."):
                raise RecipeError(f"{origin}: {nearest}: must be a list, such as [{{path: clips.jsonl, weight: 2}}]")
            hint = DEVICE_HINT if is_device(key) else f"did you mean '{nearest}'?" if nearest else ""
            raise RecipeError(f"{origin}: unknown key '{short(key)}'" + (f"; {hint}" if hint else ""))
    return checked


def _as_field(key: str, value: Any) -> Any:
    """Converts a raw value for its field: `a,b` and tuples to lists, paths to text, `none` to None."""
    field_type: Any = Recipe
    for part in key.split("."):
        field_type = field_types(field_type)[part]
    value = _with_text_paths(value)
    if key in CORPORA and (hasattr(value, "columns") or hasattr(value, "column_names")):  # it lists its columns
        kind = type(value).__name__
        raise RecipeError(f"must be a list of files, got a {kind}; write it to a file, such as clips.parquet")
    if key in PATHS and isinstance(value, str):
        value = os.path.expanduser(value)
    in_brackets = isinstance(value, str) and value[:1] + value[-1:] == "[]" and not os.path.isfile(value)  # after --set
    if get_origin(field_type) is tuple and (value is None or isinstance(value, str)) and not in_brackets:
        return _list_file(value) if value else []
    if get_origin(field_type) in (list, tuple) and (value is None or isinstance(value, str)):
        text = value or ""
        text = text[1:-1] if text[:1] + text[-1:] == "[]" else text
        return [part.strip() for part in re.split(r",(?![^{}]*\})", text) if part.strip()]  # not inside {a,b}.jsonl
    if isinstance(value, str) and value.strip().lower() == "none" and type(None) in get_args(field_type):
        return None
    return value


def _list_file(path: str) -> list[str]:
    """The lines of a list; the recipe keeps them, so a run does not depend on the file. Raises RecipeError."""
    try:
        if lines := term_list(os.path.expanduser(path)):
            return [line for _, line in lines]
    except DataError as error:
        if os.path.isfile(path):  # Path.is_file fails on a long list
            raise RecipeError(str(error)) from error
        place = "" if Path(path).is_absolute() else f"; relative paths start in {Path.cwd()}"
        other = "give a file with one word or phrase per line, or a list such as [a, b]"
        raise RecipeError(f"{str(error).replace(path, short(path))}; {other}{place}") from error
    raise RecipeError(f"{path}: is empty; give a file with one word or phrase per line, or remove the setting")


def _with_text_paths(value: Any) -> Any:
    """A value with its paths as text, also those in lists, tuples and corpora; tuples become lists."""
    if isinstance(value, list | tuple):
        return [_with_text_paths(item) for item in value]
    if isinstance(value, dict):
        return {name: _with_text_paths(item) for name, item in value.items()}
    return str(value) if isinstance(value, Path) else value


def _nearest(key: str, known: list[str]) -> str | None:
    """The known key that is most similar to an unknown key; compares full keys first, then their last parts."""
    names = {name.rpartition(".")[2]: name for name in reversed(known)}
    key = key[:MAX_SHOWN]
    place, _, last = key.rpartition(".")
    if usual := USUAL_NAMES.get(last):
        own = f"{place}.{usual.rpartition('.')[2]}"
        return own if own in known else usual
    full_matches = difflib.get_close_matches(key, known, 1, 0.8)
    if full_matches:
        return full_matches[0]
    section = f"{key.partition('.')[0]}."
    sections = {f"{name.partition('.')[0]}." for name in known}

    def similarity(name: str) -> tuple[float, float]:
        """That of the last parts; that of the full keys decides between equal ones."""
        parts = difflib.SequenceMatcher(None, name, last).ratio()
        return parts, difflib.SequenceMatcher(None, names[name], key).ratio()

    def is_near(name: str) -> bool:
        """A name of another section must be more similar, or be a word of the key, as in `train.lora_rank`."""
        own = section not in sections or names[name].startswith(section)
        return own or name in last.split("_") or similarity(name)[0] >= OTHER_SECTION

    near = [name for name in difflib.get_close_matches(last, names, 5, 0.6) if is_near(name)]
    return names[max(near, key=similarity)] if near else None


def _validate(raw: dict[str, RawValue], source: str) -> Recipe:
    """Builds the recipe. Raises RecipeError with every invalid value."""
    try:
        return Recipe.model_validate(_nest({"model": {}, **{key: entry.value for key, entry in raw.items()}}))
    except ValidationError as error:
        # By the start and the end of a line: a value of a union has a message for each of its types.
        lines = dict[tuple[str, str], list[str]]()
        for problem in error.errors():
            key = ".".join(str(part) for part in problem["loc"] if isinstance(part, str))
            known = next((name for name in raw if f"{key}.".startswith(f"{name}.")), "")
            if known:
                item = f"{key[len(known) + 1 :]}: " if known in CORPORA and key != known else ""
                line = f"{raw[known].origin}: {known}: {item}", f", got {short(repr(problem['input']))}"
                lines.setdefault(line, []).append(problem["msg"])
            else:
                lines[f"{source}: {key}: ", ""] = [REQUIRED.get(key, problem["msg"])]
        text = (f"{start}{' or '.join(messages)}{end}" for (start, end), messages in lines.items())
        raise RecipeError("\n".join(text)) from error


def _nest(flat: dict[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, last = key.split(".")
        level = nested
        for section in sections:
            level = level.setdefault(section, {})
        level[last] = value
    return nested
