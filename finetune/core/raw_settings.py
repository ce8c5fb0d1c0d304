"""The settings of a recipe as text: the dotted keys of a YAML file and of `--set`, each value with its origin."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from finetune.core.data_config import CorpusEntry
from finetune.core.errors import RecipeError
from finetune.core.yaml_text import compose, line_of, read_yaml

WITH_SETTINGS = re.compile(r"\s*\[(.*,)?\s*\{[^{}]*(:\s|[\"']:)")  # a mapping in a list; {a,b}.jsonl is none
QUOTED = re.compile(r"\s*\[(.*,)?\s*([\"']).*\2\s*(,.*)?\]\s*$")  # a list with an item in quotes
MAX_SHOWN = 100  # characters of a value in a message
CORPORA = {f"data.{name}" for name in ("train", "valid", "test", "canary", "replay")}
VERSION_KEY = "toolkit_version"  # in resolved.json; not a setting


class RawValue(NamedTuple):
    """A value before conversion (a string, a list of strings or None) and its origin."""

    value: Any
    origin: str


def parse(path: Path) -> dict[str, RawValue]:
    """The dotted keys of a YAML file with their raw values.

    Raises:
        RecipeError: the file cannot be read, is empty or is not a mapping; a key is set twice.
    """
    node = read_yaml(path)
    if node is None:
        raise RecipeError(f"{path}: the recipe is empty")
    raw = _flatten(node, str(path))
    raw.pop(VERSION_KEY, None)
    return raw


def _flatten(node: yaml.Node, path: str, prefix: str = "") -> dict[str, RawValue]:
    """The dotted keys of a YAML mapping, with `path:line` as their origin."""
    raw: dict[str, RawValue] = {}
    if not isinstance(node, yaml.MappingNode):
        raise RecipeError(f"{path}:{line_of(node)}: a recipe must be a mapping of keys to values")
    for key_node, value in node.value:
        origin = f"{path}:{line_of(key_node)}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise RecipeError(f"{origin}: a key must be plain text")
        key = prefix + str(key_node.value)
        if isinstance(value, yaml.MappingNode):
            inner = _flatten(value, path, key + ".")
        elif isinstance(value, yaml.SequenceNode):
            inner = {key: RawValue([_list_item(item, key, path, origin) for item in value.value], origin)}
        else:
            inner = {key: RawValue(_text_or_none(value.value, value.style), origin)}
        for name, entry in inner.items():
            if name in raw:
                raise RecipeError(f"{entry.origin}: {name} is set twice")
            raw[name] = entry
    return raw


def _list_item(node: yaml.Node, key: str, path: str, origin: str) -> Any:
    """An item of a list: a plain value, or for a list of corpora a mapping with the settings of one."""
    if isinstance(node, yaml.ScalarNode) and node.value.strip():
        return node.value
    if key in CORPORA and isinstance(node, yaml.MappingNode):
        entry, known = dict[str, Any](), CorpusEntry.model_fields
        for name, value in _flatten(node, path, "").items():
            section, _, rest = name.partition(".")
            if section not in known:
                nearest = difflib.get_close_matches(section[:MAX_SHOWN], known, 1)
                hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
                raise RecipeError(f"{value.origin}: {key}: unknown key '{short(section)}' of a corpus{hint}")
            if rest:
                entry.setdefault(section, {})[rest] = value.value
            elif value.value is not None:
                entry[section] = value.value
        return entry
    section = "; the settings of a section have no dashes" if isinstance(node, yaml.MappingNode) else ""
    raise RecipeError(f"{origin}: {key}: must be a list of plain values{section}")


def _text_or_none(text: str, style: str | None = None) -> str | None:
    """None for an empty, `~` or `null` value without quotes."""
    return None if style is None and text.strip().lower() in {"", "~", "null"} else text


def parse_overrides(overrides: Sequence[str]) -> dict[str, RawValue]:
    """The dotted keys of `a.b=value` strings with their raw values. Raises RecipeError for another value."""
    if not isinstance(overrides, list | tuple) or not all(isinstance(override, str) for override in overrides):
        raise RecipeError(f"overrides: must be a list such as ['train.epochs=2'], got {short(repr(overrides))}")
    raw = {}
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise RecipeError(f"--set {short(override)}: must be KEY=VALUE")
        origin = f"--set {short(override)}"
        raw[key.strip()] = _yaml_list(key.strip(), value, origin) or RawValue(_text_or_none(value), origin)
    return raw


def _yaml_list(key: str, text: str, origin: str) -> RawValue | None:
    """The items of a list of corpora such as `[{path: a.jsonl, max_clips: 6}]`, or with quotes; None for others."""
    if not (QUOTED.match(text) or (key in CORPORA and WITH_SETTINGS.match(text))):
        return None
    node = compose(text, origin)
    if not isinstance(node, yaml.SequenceNode):
        return None
    return RawValue([_list_item(item, key, origin, origin) for item in node.value], origin)


def short(text: str) -> str:
    """A text for a message."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]} ..."
