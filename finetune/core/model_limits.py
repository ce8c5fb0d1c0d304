"""What a model states about its training: `limits.json` in the folder of a base model or an export.

This file does not import pydantic or torch, because an exported folder contains a copy of it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from finetune.core.errors import ModelError, RecipeError
from finetune.core.files import read_json, write_json
from finetune.core.options import MAX_WINDOW, MIN_WINDOW, DecodingOptions, Range, check_options

FILE = "limits.json"
ADAPTATION = "adaptation.json"  # beside it in an exported folder: base, recipe and data (`exporting.adaptation`)


@dataclass(frozen=True)
class ModelLimits:
    """The limits of a model. The defaults are those of a model that states none, such as granite-4.0-1b-speech.

    Raises:
        RecipeError: a value out of range.
    """

    schema_version: Literal[1] = 1
    max_duration: Annotated[float, Range(gt=0)] = MAX_WINDOW
    """Seconds of speech that the model transcribes well in one piece; `finetune transcribe` cuts longer speech."""
    keyword_prompts: Literal["trained", "untrained", "unknown"] = "unknown"
    """Whether training had keywords in the prompt. With `untrained`, such prompts make the text worse, and `finetune
    transcribe` uses keywords by the CTC head instead (`DecodingOptions.keyword_method`)."""
    instruction: str = ""
    """The only instruction that the model was trained with; empty if it was trained with several, or not known."""
    no_speech: Annotated[float, Range(ge=0, le=1)] = 0.0
    """Calibrated threshold of `TranscribeOptions.no_speech`; 0 if it is not calibrated."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "use_attribute_docstrings": True}

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def keyword_method(self) -> Literal["auto", "prompt", "ctc", "both"]:
        """How keywords are used with this model, if nothing else is asked for: see `DecodingOptions.keyword_method`."""
        return "ctc" if self.keyword_prompts == "untrained" else DecodingOptions().keyword_method

    def with_window(self, decoding: DecodingOptions) -> DecodingOptions:
        """The options with the longest window of this model, if they set none."""
        if decoding.max_window != MAX_WINDOW:
            return decoding
        return replace(decoding, max_window=min(MAX_WINDOW, max(MIN_WINDOW, self.max_duration)))

    def after_training(self, instruction: str, record: Mapping[str, Any] | None) -> "ModelLimits":
        """The limits of a model trained from this one: training adds its typical duration, keywords and instruction.

        After a training with several prompts, such as those of translations, no instruction is the only one.

        Args:
            instruction: the instruction of the training prompts.
            record: the record of the training stage (`TrainRecord`); None if there is none.
        """
        if not record:
            return self
        return replace(
            self,
            max_duration=max(self.max_duration, record.get("typical_duration") or 0.0),
            keyword_prompts="trained" if record.get("keyword_prompts") else self.keyword_prompts,
            instruction=instruction if self.instruction and not record.get("own_prompts") else "",
        )

    def prompt_warning(self, instruction: str, keywords: bool) -> str:
        """What is wrong with a prompt for this model; "" if nothing is known to be wrong.

        Args:
            instruction: the instruction of the prompt.
            keywords: whether keywords follow it in the prompt.
        """
        if self.instruction and instruction != self.instruction:
            return (
                f"this model was trained with the instruction {self.instruction!r} only; with {instruction!r} it can "
                "write wrong text"
            )
        if keywords and self.keyword_prompts == "untrained":
            return (
                "this model was not trained with keyword prompts; keywords can make its text wrong. Use "
                "keyword_method ctc, leave them out, or train with keywords (docs/keywords.md)"
            )
        return ""


def read_limits(model: str | Path) -> ModelLimits:
    """The limits that a model folder states; the defaults for any other model. Raises ModelError for a damaged file."""
    path = Path(model) / FILE
    if not path.is_file():
        return ModelLimits()
    try:
        return ModelLimits(**read_json(path))
    except (OSError, ValueError, TypeError, RecipeError) as error:
        raise ModelError(f"{path}: not the limits of a model ({error}); correct or delete the file") from error


def write_limits(folder: Path, limits: ModelLimits) -> None:
    """Writes `limits.json` into a model folder."""
    write_json(folder / FILE, asdict(limits))
