"""Reads and writes the options of a model folder: saved by its export, or calibrated later."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from finetune.core.errors import ModelError, RecipeError
from finetune.core.files import read_json
from finetune.core.model_limits import read_limits
from finetune.core.options import DecodingOptions, TranscribeOptions, field_names

CALIBRATION = "decode.json"  # written by `finetune calibrate`


def options_path(model: str | Path) -> Path:
    """Path of the options file of an export."""
    return Path(model) / "transcribe" / "settings.json"


def options_for(model: str | Path) -> TranscribeOptions:
    """The options for recordings: those of `clip_options`, with the longest window of the model if they set none.

    Raises:
        ModelError: a file is damaged.
    """
    options = clip_options(model)
    return replace(options, decoding=read_limits(model).with_window(options.decoding))


def clip_options(model: str | Path) -> TranscribeOptions:
    """The options of an export, otherwise the defaults; with the limits and the calibrated thresholds of the model.

    Clips are cut only if the recipe of the export says so, as in its evaluation.

    Raises:
        ModelError: a file is damaged.
    """
    saved = read_options(model)
    if saved is None:
        limits = read_limits(model)
        decoding = replace(TranscribeOptions().decoding, keyword_method=limits.keyword_method)
        saved = TranscribeOptions(no_speech=limits.no_speech, decoding=decoding)
    return replace(saved, decoding=_calibrated(saved.decoding, model))


def read_options(model: str | Path) -> TranscribeOptions | None:
    """The options that an export saved; None if there is no file. Raises ModelError if the file is damaged."""
    path = options_path(model)
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = read_json(path)
        content.pop("max_window", None)  # earlier versions stored that of `limits.json`
        if "decoding" not in content:  # version 0.1 wrote all options on one level
            content.pop("format")
            names = [name for name in field_names(DecodingOptions) if name in content]
            content["decoding"] = {name: content.pop(name) for name in names}
        limits = read_limits(model)
        content = {"no_speech": limits.no_speech} | content
        decoding = {"keyword_method": limits.keyword_method} | content["decoding"]
        return TranscribeOptions(**{**content, "decoding": DecodingOptions(**decoding)})
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecipeError) as error:
        raise ModelError(f"{path}: not the options of an export ({error}); run `finetune export` again") from error


def write_options(model: Path, options: TranscribeOptions) -> None:
    """Saves the options in the folder of an export's transcriber."""
    content = asdict(options)
    for name in ("channel", "language", "translate_to", "keywords", "no_speech"):  # of one call, or in `limits.json`
        del content[name]
    default = DecodingOptions()
    for name in ("keyword_method", "max_window"):
        if getattr(options.decoding, name) == getattr(default, name):  # what `limits.json` says is then used
            del content["decoding"][name]
    options_path(model).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _calibrated(decoding: DecodingOptions, model: str | Path) -> DecodingOptions:
    """The options with the thresholds that `finetune calibrate` saved in the model folder, if there are any.

    Raises:
        ModelError: the file is damaged.
    """
    path = Path(model) / CALIBRATION
    if not path.is_file():
        return decoding
    try:
        content = read_json(path)
        thresholds = {name: float(content[name]) for name in ("max_entropy", "min_probability")}
        return replace(decoding, **thresholds)  # type: ignore[arg-type]
    except (OSError, ValueError, KeyError, TypeError, RecipeError) as error:
        raise ModelError(
            f"{path}: not a calibration ({error!r}); delete it, or run `finetune calibrate` again"
        ) from error
