"""The section `data` of a recipe: corpora, their settings and the rules for rows; `core.config` has the others."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from finetune.core.options import MAX_SAMPLING_WEIGHT


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class TextSection(Section):
    """Rules for the transcripts of all splits; without them, no transcript is changed."""

    tags: Literal["keep", "strip"] = "keep"
    """strip removes annotations such as <unk>, [noise] and *cough*, and turns HTML entities into characters."""
    extra_tags: list[str] = []
    """Further annotations, such as xxx, by their exact text; upper and lower case are the same."""
    numbers: Literal["keep", "words"] = "keep"
    """words writes numbers in words, in the language of the row; docs/data.md lists what is converted."""
    language: str = "en"
    """The language of rows without a language, for numbers."""
    punctuation: Literal["keep", "strip"] = "keep"
    """strip removes punctuation, except apostrophes and hyphens inside words and signs of numbers."""
    case: Literal["keep", "lower"] = "keep"
    """lower converts to lower case, as the base model writes."""


class CorpusEntry(Section):
    """A corpus with settings. A corpus without settings is only its path. The values of a row come first."""

    path: str = Field(min_length=1)
    """A .jsonl, .csv, .tsv or .parquet file, a folder, or hf:NAME:SPLIT; docs/corpora.md lists all formats."""
    weight: float = Field(1.0, gt=0, le=MAX_SAMPLING_WEIGHT)
    """How often a clip occurs in an epoch of training; at 0.5, each epoch uses a new random half of the clips."""
    max_clips: int | None = Field(None, ge=1)
    """Use a random sample of this many rows, the same each time; the default is all rows."""
    task: Literal["transcribe", "translate"] | None = None
    """What the model is asked for; the default is transcribe, or translate for a row with a target_language."""
    language: str = ""
    """The spoken language."""
    target_language: str = ""
    """The language of the text of a translation."""
    text_style: Literal["raw", "punctuated"] | None = None
    """The style of the text, which chooses the prompt; the default is model.instruction."""
    instruction: str = ""
    """The text after the audio in the prompt, instead of that of task and text_style."""
    text_column: str = ""
    """The column with the text, such as translation; the default is the usual column of transcripts."""
    tags: dict[str, str] = {}
    """Columns that are added to each row, by name, for evaluate.groups."""

    @model_serializer(mode="wrap")
    def _plain(self, handler: SerializerFunctionWrapHandler) -> Any:
        """Only the path if there is nothing else, as it is written in a recipe."""
        return handler(self) if self.model_fields_set - {"path"} else self.path


def _as_entry(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


Corpora = list[Annotated[CorpusEntry, BeforeValidator(_as_entry, json_schema_input_type=str | CorpusEntry)]]


class DataSection(Section):
    train: Corpora = []
    """Training corpora: .jsonl, .csv, .tsv, .parquet, a folder, or hf:NAME:SPLIT. Empty for `finetune score`."""
    valid: Corpora = []
    """Validation corpora, which choose the best adapter."""
    test: Corpora = Field(min_length=1)
    """Test corpora; `finetune score` scores each of them separately."""
    canary: Corpora = []
    """Corpora of general speech, which show what the model forgets."""
    replay: Corpora = []
    """Corpora of general speech that are mixed into training, against forgetting."""
    replay_weight: float = Field(1.0, gt=0, le=MAX_SAMPLING_WEIGHT)
    """How often a replay clip occurs in an epoch; at 0.5, each epoch uses a new random half of the clips."""
    terms: str | None = None
    """A text file with one term per line; the recall of the terms is reported."""
    text: TextSection = TextSection()
    min_duration: float = Field(0.2, gt=0)
    """Shortest clip, in seconds; shorter clips are dropped."""
    max_duration: float = Field(30.0, gt=0)
    """Longest clip, in seconds; longer clips are dropped, see too_long."""
    too_long: Literal["drop", "segment"] = "drop"
    """segment cuts longer clips of train with the CTC head of the base model, see docs/segment.md."""
    max_chars_per_second: float = Field(40.0, gt=0)
    """A clip with more characters of transcript per second is dropped."""
    max_bad_fraction: float = Field(0.02, ge=0, le=1)
    """Largest fraction of dropped clips in a split; above it the run stops."""
    allow_leaks: bool = False
    """Continue although train or replay contains audio of valid, test or canary."""
