"""`engines.json` in an exported folder: the engines in which `finetune verify` has run it, for its model card."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from finetune.core.errors import ModelError
from finetune.core.files import read_json, write_json

FILE = "engines.json"


class EngineCheck(BaseModel):
    """Counts of one verification. Texts are not kept, because they can be private.

    Attributes:
        versions: Version of each package of the engine.
        format: What the engine read, such as "hf" or "gguf F16".
        clips: Number of compared clips.
        equal: Number of clips with the text of the toolkit.
        wer: WER of the engine, a fraction.
        toolkit_wer: WER of the toolkit on the same clips.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    versions: dict[str, str]
    format: str
    clips: int
    equal: int
    wer: float
    toolkit_wer: float


class EngineChecks(BaseModel):
    """The checks of an export, by engine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    engines: dict[str, EngineCheck] = {}


def read_checks(folder: Path) -> Mapping[str, EngineCheck]:
    """The checks of an exported folder; empty without a file. Raises ModelError for a damaged file."""
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        return EngineChecks.model_validate(read_json(path)).engines
    except (OSError, ValueError, ValidationError) as error:
        raise ModelError(f"{path}: damaged ({str(error)[:200]}); delete it, then verify again") from error


def add_check(folder: Path, engine: str, check: EngineCheck) -> Mapping[str, EngineCheck]:
    """Adds a check, instead of an earlier one of the same engine. Raises ModelError for a damaged file."""
    checks = {**read_checks(folder), engine: check}
    write_json(folder / FILE, EngineChecks(engines=checks).model_dump(mode="json"))
    return checks
