"""Settings that an earlier version did not have equal their defaults."""

from typing import Any

import pytest

from finetune.core.config import Recipe
from finetune.core.defaults import default_settings, without_new_defaults
from finetune.core.recipe import known_keys
from finetune.core.run_dir import flatten


def settings(**data: Any) -> dict[str, Any]:
    recipe = {"name": "x", "model": {"base": "b"}, "data": {"test": ["t"], **data}}
    content: dict[str, Any] = Recipe.model_validate(recipe).model_dump(mode="json")
    return {name: content[name] for name in ("data", "model", "augment", "parts", "train", "seed")}


def without(content: dict[str, Any], key: str) -> dict[str, Any]:
    name, _, rest = key.partition(".")
    if not rest:
        return {other: value for other, value in content.items() if other != name}
    return {**content, name: without(content[name], rest)}


def test_every_setting_has_a_default_except_the_required_ones() -> None:
    assert {*known_keys()} - flatten(default_settings()).keys() == {"name", "model.base", "data.test"}


@pytest.mark.parametrize("key", ["train.optimizer", "parts.language_model", "augment", "data.text.case", "seed"])
def test_a_key_that_is_not_stored_is_left_out_only_with_its_default(key: str) -> None:
    content = settings()
    stored = without(content, key)
    assert without_new_defaults(content, stored) == stored
    changed = settings()
    changed["train"]["optimizer"], changed["parts"]["language_model"]["layers"] = "adamw-8bit", 2
    changed["augment"]["speed"], changed["data"]["text"]["case"], changed["seed"] = 0.1, "lower", 2
    (kept,) = flatten(without_new_defaults(changed, stored)).keys() - flatten(stored).keys()
    assert kept.startswith(key)


def test_required_settings_are_never_left_out() -> None:
    content = settings()
    assert without_new_defaults(content, {})["model"] == {"base": "b"}
    assert without_new_defaults(content, {})["data"] == {"test": ["t"]}


def test_settings_inside_of_corpora_are_compared_too() -> None:
    content = settings(train=["a", {"path": "b", "weight": 2.0}])
    stored = settings(train=["a", {"path": "b", "weight": 2.0}])
    del stored["data"]["train"][1]["text_style"], stored["data"]["train"][1]["tags"]
    assert without_new_defaults(content, stored) == stored != content
    styled = settings(train=["a", {"path": "b", "weight": 2.0, "text_style": "raw"}])
    assert without_new_defaults(styled, stored)["data"]["train"][1]["text_style"] == "raw"
    longer = settings(train=["a", {"path": "b", "weight": 2.0}, "c"])
    assert without_new_defaults(longer, stored)["data"]["train"] == longer["data"]["train"]
