"""Compares settings with those that an earlier version of the toolkit stored, which has fewer keys."""

from functools import cache
from typing import Any

from finetune.core.config import Recipe
from finetune.core.data_config import CorpusEntry

WITHOUT_DEFAULT: dict[str, Any] = {"name": "-", "model": {"base": "-"}, "data": {"test": ["-"]}}


@cache
def default_settings() -> dict[str, Any]:
    """The defaults of a recipe as nested JSON, without the keys that have none."""
    content = Recipe.model_validate(WITHOUT_DEFAULT).model_dump(mode="json")
    return {
        name: {key: item for key, item in value.items() if key not in WITHOUT_DEFAULT.get(name, {})}
        if isinstance(value, dict)
        else value
        for name, value in content.items()
        if name != "name"
    }


@cache
def _entry_defaults() -> dict[str, Any]:
    """The defaults of a corpus."""
    return {name: field.default for name, field in CorpusEntry.model_fields.items() if not field.is_required()}


def without_new_defaults(current: dict[str, Any], stored: dict[str, Any]) -> dict[str, Any]:
    """Settings without the keys that are not stored and have their default, also inside of corpora.

    A key that an earlier version did not have is then equal to that version's behavior.

    Args:
        current: sections of a recipe, as JSON.
        stored: what a run has recorded of these sections.
    """
    result: dict[str, Any] = _without(current, stored, default_settings())
    return result


def _without(current: Any, stored: Any, defaults: Any) -> Any:
    if isinstance(current, list) and isinstance(stored, list) and len(current) == len(stored):
        return [_without(item, other, _entry_defaults()) for item, other in zip(current, stored, strict=True)]
    if not isinstance(current, dict) or not isinstance(stored, dict):
        return current
    kept, known = dict[str, Any](), defaults if isinstance(defaults, dict) else {}
    for key, value in current.items():
        if key in stored:
            kept[key] = _without(value, stored[key], known.get(key))
        elif isinstance(value, dict) and value:
            if inner := _without(value, {}, known.get(key)):
                kept[key] = inner
        elif key not in known or value != known[key]:
            kept[key] = value
    return kept
