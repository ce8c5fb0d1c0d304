"""The options of an export, those of an older one, and calibrated thresholds."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from finetune.core.errors import ModelError
from finetune.core.model_limits import ModelLimits, write_limits
from finetune.core.options import DecodingOptions, TranscribeOptions
from finetune.inference.saved_options import (
    CALIBRATION,
    clip_options,
    options_for,
    options_path,
    read_options,
    write_options,
)


@pytest.fixture
def export(tmp_path: Path) -> Path:
    options_path(tmp_path).parent.mkdir()
    return tmp_path


def test_any_other_folder_has_the_defaults(tmp_path: Path) -> None:
    assert read_options(tmp_path) is None and options_for(tmp_path) == TranscribeOptions()
    assert options_for("org/model") == TranscribeOptions()


def test_saved_options_are_read_back_without_those_of_a_call(export: Path) -> None:
    saved = TranscribeOptions(
        "\u00e9coute", DecodingOptions("greedy", batch_seconds=9.0, max_window=12.0), vad="silero"
    )
    write_options(export, TranscribeOptions(**{**vars(saved), "language": "fr", "keywords": ("a",)}))
    assert read_options(export) == options_for(export) == saved


def test_the_options_of_version_0_1_are_read(export: Path) -> None:
    old = {
        "instruction": "write", "decoder": "relaxed", "max_entropy": 0.5, "min_probability": 0.1, "batch_seconds": 99.0,
        "max_new_tokens": 400, "max_window": 30.0, "vad": "level", "format": "text",
    }  # fmt: skip
    options_path(export).write_text(json.dumps(old))
    assert read_options(export) == TranscribeOptions("write", DecodingOptions("relaxed", 0.5, 0.1, 400, 99.0))


def test_the_window_of_an_earlier_version_is_that_of_the_limits(export: Path) -> None:
    write_options(export, TranscribeOptions())
    options_path(export).write_text(json.dumps(json.loads(options_path(export).read_text()) | {"max_window": 4.5}))
    write_limits(export, ModelLimits(max_duration=4.5))
    assert options_for(export).decoding.max_window == 4.5 and clip_options(export).decoding.max_window == 30.0


@pytest.mark.parametrize(("limit", "window"), [(0.5, 1.0), (4.5, 4.5), (60.0, 30.0)])
def test_the_limits_of_the_model_are_the_defaults(export: Path, limit: float, window: float) -> None:
    write_limits(export, ModelLimits(max_duration=limit, no_speech=0.25))

    def options(max_window: float) -> TranscribeOptions:
        return TranscribeOptions(no_speech=0.25, decoding=DecodingOptions(max_new_tokens=400, max_window=max_window))

    assert options_for(export) == options(window), "a base model has no options"
    assert clip_options(export) == options(30.0), "clips are not cut, as in evaluation"
    write_options(export, replace(options(12.0), no_speech=0.75))
    assert options_for(export) == clip_options(export) == options(12.0), "a later calibration is used"


def test_how_keywords_are_used_follows_from_the_limits_unless_it_is_stated(export: Path) -> None:
    write_limits(export, ModelLimits(keyword_prompts="untrained"))
    assert options_for(export).decoding.keyword_method == "ctc", "a base model"
    write_options(export, TranscribeOptions(decoding=DecodingOptions(terms=("stent", "New York"))))
    assert options_for(export).decoding == DecodingOptions(keyword_method="ctc", terms=("stent", "New York"))
    for method in ("both", "prompt"):  # that a recipe states
        write_options(export, TranscribeOptions(decoding=DecodingOptions(keyword_method=method)))  # type: ignore[arg-type]
        assert options_for(export).decoding.keyword_method == method
    write_limits(export, ModelLimits(keyword_prompts="trained"))
    write_options(export, TranscribeOptions())
    assert options_for(export).decoding.in_prompt(("stent",)) == ("stent",)
    assert options_for(export).decoding.by_ctc(("stent",)) == ()


@pytest.mark.parametrize("broken", ["{", "{}", '{"instruction": "x"}', "[]", '{"decoding": {"decoder": "x"}}'])
def test_damaged_options_are_refused(export: Path, broken: str) -> None:
    options_path(export).write_text(broken)
    with pytest.raises(ModelError, match=r"settings\.json: not the options of an export .*; run"):
        read_options(export)


def test_calibrated_thresholds_replace_the_saved_ones(export: Path) -> None:
    write_options(export, TranscribeOptions())
    (export / CALIBRATION).write_text('{"max_entropy": 2.5, "min_probability": 0.05, "wer": 0.1}')
    decoding = options_for(export).decoding
    assert (decoding.max_entropy, decoding.min_probability, decoding.decoder) == (2.5, 0.05, "speculative")
    for broken in ("{", "[]", '{"max_entropy": 1.0}', '{"max_entropy": 1, "min_probability": 7}'):
        (export / CALIBRATION).write_text(broken)
        with pytest.raises(ModelError, match="not a calibration"):
            options_for(export)
