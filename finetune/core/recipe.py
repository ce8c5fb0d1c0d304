"""Reads a recipe: YAML and `--set` to typed values, each with where it came from.

A YAML file is read as plain strings and converted by each field's type, so `1e-5` is a number and
`no` is what its field says. `--set a.b=value` goes over the file, the file over its goal's preset.
"""

import difflib
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml
from pydantic import BaseModel, ValidationError

from finetune.core.config import GOALS, Recipe, contradictions
from finetune.core.errors import RecipeError


@dataclass(frozen=True)
class Setting:
    """One resolved value and where it came from: `default`, `goal accent`, `recipe.yaml:12` or `--set ...`."""

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


def known_keys(section: Any = Recipe, prefix: str = "") -> list[str]:
    """Every dotted key of a recipe."""
    keys = []
    for name, kind in field_types(section).items():
        if field_types(kind):
            keys += known_keys(kind, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def _flatten(node: yaml.Node, where: str, prefix: str = "") -> dict[str, tuple[Any, str]]:
    """Dotted keys of a YAML mapping with their raw values and `file:line`."""
    found: dict[str, tuple[Any, str]] = {}
    if not isinstance(node, yaml.MappingNode):
        raise RecipeError(f"{where}:{node.start_mark.line + 1}: a recipe is a mapping of keys to values")
    for key_node, value in node.value:
        line = f"{where}:{key_node.start_mark.line + 1}"
        key = prefix + str(key_node.value)
        if isinstance(value, yaml.MappingNode):
            inner = _flatten(value, where, key + ".")
        elif isinstance(value, yaml.SequenceNode):
            if not all(isinstance(item, yaml.ScalarNode) and item.value.strip() for item in value.value):
                raise RecipeError(f"{line}: {key}: a list of plain values is wanted")
            inner = {key: ([item.value for item in value.value], line)}
        else:
            inner = {key: (_plain(value.value, value.style), line)}
        for name, entry in inner.items():
            if name in found:
                raise RecipeError(f"{entry[1]}: {name} stands twice")
            found[name] = entry
    return found


def _plain(text: str, style: str | None = None) -> str | None:
    return None if style is None and text.strip().lower() in {"", "~", "null"} else text


def _as_field(key: str, value: Any) -> Any:
    """A raw value as its field's kind writes it: lists from `a,b`, None from `none` where there may be none."""
    kind: Any = Recipe
    for part in key.split("."):
        kind = field_types(kind)[part]
    if get_origin(kind) is list and not isinstance(value, list):
        text = value or ""
        text = text[1:-1] if text[:1] + text[-1:] == "[]" else text
        return [part.strip() for part in text.split(",") if part.strip()]
    if isinstance(value, str) and value.strip().lower() == "none" and type(None) in get_args(kind):
        return None
    return value


def _nearest(key: str, known: list[str]) -> str | None:
    """The known key most like an unknown one, first by the whole of it, then by its last part."""
    names = {name.rpartition(".")[2]: name for name in reversed(known)}
    whole = difflib.get_close_matches(key, known, 1, 0.8)
    last = difflib.get_close_matches(key.rpartition(".")[2], names, 1, 0.6)
    return whole[0] if whole else names[last[0]] if last else None


def _nest(flat: dict[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, last = key.split(".")
        level = nested
        for section in sections:
            level = level.setdefault(section, {})
        level[last] = value
    return nested


def load_recipe(path: str | Path, overrides: list[str] | None = None) -> tuple[Recipe, list[Setting]]:
    """Reads, overrides and checks a recipe.

    Args:
        path: the YAML file.
        overrides: `a.b=value` strings, as after `--set`; a list is written `a,b`.

    Returns:
        The frozen recipe, and every setting with its origin, in the order of the sections.

    Raises:
        RecipeError: no such file, broken YAML, an unknown key (with the nearest known one), a wrong
            value; each with file:line or the override that brought it.
    """
    path = Path(path)
    try:
        node = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
    except FileNotFoundError as error:
        raise RecipeError(f"{path}: no such file; a recipe is wanted, such as recipes/quickstart.yaml") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        hint = " (indent with spaces)" if "\\t" in str(error.problem) else ""
        raise RecipeError(f"{path}:{line}: not valid YAML: {error.problem}{hint}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not valid YAML: {error}") from error
    if node is None:
        raise RecipeError(f"{path}: the recipe is empty")
    flat = _flatten(node, str(path))
    for item in overrides or []:
        key, equals, value = item.partition("=")
        if not equals:
            raise RecipeError(f"--set {item}: wants key=value")
        flat[key.strip()] = (_plain(value), f"--set {item}")
    known = known_keys()
    for key, (value, origin) in list(flat.items()):
        if any(name.startswith(f"{key}.") for name in known):
            if value is not None:
                raise RecipeError(f"{origin}: '{key}' is a section; its settings stand below it, indented")
            del flat[key]
            continue
        if key not in known:
            near = _nearest(key, known)
            raise RecipeError(f"{origin}: unknown key '{key}'" + (f"; did you mean '{near}'?" if near else ""))
        flat[key] = (_as_field(key, value), origin)
    flat.setdefault("name", (path.stem, "default"))
    goal, goal_origin = flat.get("train.goal", (None, ""))
    preset = {key: value for key, value in GOALS.get(str(goal), {}).items() if key not in flat}
    flat.update({key: (value, f"goal {goal}") for key, value in preset.items()})
    try:
        recipe = Recipe.model_validate(_nest({key: value for key, (value, _) in flat.items()}))
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            key = ".".join(str(part) for part in problem["loc"] if isinstance(part, str))
            origin = flat[key][1] if key in flat else str(path)
            lines.append(f"{origin}: {key}: {problem['msg']}" + (f", got {problem['input']!r}" if key in flat else ""))
        raise RecipeError("\n".join(lines)) from error
    for key, text in contradictions(recipe):
        if key in preset:
            raise RecipeError(f"{goal_origin}: {key}, set by train.goal: {goal}: {text}")
        raise RecipeError(f"{flat[key][1] if key in flat else path}: {key}: {text}")
    return recipe, [Setting(key, _value(recipe, key), flat[key][1] if key in flat else "default") for key in known]


def _value(recipe: Recipe, key: str) -> Any:
    value: Any = recipe
    for part in key.split("."):
        value = getattr(value, part)
    return value
