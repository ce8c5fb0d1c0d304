"""Options for decoding and transcribing: the same types for recipes, the command line, exports and the Python API.

Their defaults and ranges are defined only here. This file does not import pydantic or torch, because an exported folder
contains a copy of it.
"""

import math
from dataclasses import asdict, dataclass, fields, replace
from numbers import Integral, Real
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from finetune.core.errors import RecipeError
from finetune.core.keyword_list import parse_keywords
from finetune.core.languages import SPEECH_LANGUAGES, TRANSLATION_TARGETS, language_code
from finetune.core.prompts import DEFAULT_PROFILE, INSTRUCTION, PromptProfile

MAX_SAMPLING_WEIGHT = 1000.0  # occurrences of a clip in an epoch
COMPARE_FOLDER = "runs/compare"  # hypotheses that `finetune compare` keeps
FORMATS = ("text", "json", "srt", "vtt", "tsv")  # of a printed transcript; the first is the default
# Options that only one decoder has.
DECODER_OF = {"num_beams": "beam", "ctc_weight": "beam", "max_entropy": "relaxed", "min_probability": "relaxed"}
MAX_KEYWORDS = 2000  # that the CTC head searches for; a window of 30 s then takes seconds
MIN_WINDOW, MAX_WINDOW = 1.0, 30.0  # seconds; bounds of the longest window of audio that a model gets


@dataclass(frozen=True)
class Range:
    """Bounds of a number, for `Annotated`. Pydantic checks them in a recipe, `check_options` in a dataclass."""

    gt: float | None = None
    ge: float | None = None
    le: float | None = None

    def check(self, value: float) -> float:
        """Returns the value. Raises ValueError if it is out of range or not a finite number."""
        if not math.isfinite(value):
            raise ValueError("must be a finite number")
        for bound, in_range, text in (
            (self.gt, self.gt is None or value > self.gt, "greater than"),
            (self.ge, self.ge is None or value >= self.ge, "greater than or equal to"),
            (self.le, self.le is None or value <= self.le, "less than or equal to"),
        ):
            if not in_range:
                raise ValueError(f"must be {text} {bound:g}")
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return handler(source) | {name: bound for name, bound in asdict(self).items() if bound is not None}


def check_options(options: Any) -> None:
    """Checks the types, choices and ranges of a dataclass.

    Raises:
        RecipeError: a value is not allowed; the message starts with the name of its field.
    """
    for name, hint in get_type_hints(type(options), include_extras=True).items():
        value = getattr(options, name)
        if get_origin(hint) is Literal and value not in get_args(hint):
            raise RecipeError(f"{name}: {value!r} is not one of {', '.join(map(str, get_args(hint)))}")
        if hint is str and not isinstance(value, str):
            raise RecipeError(f"{name}: must be a string, got {value!r}")
        if get_origin(hint) is Annotated:
            number, kind = (Integral, "an integer") if get_args(hint)[0] is int else (Real, "a number")
            if isinstance(value, bool) or not isinstance(value, number):
                raise RecipeError(f"{name}: must be {kind}, got {value!r}")
            try:
                hint.__metadata__[0].check(value)
            except ValueError as error:
                raise RecipeError(f"{name}: {error}, got {value!r}") from error


def field_names(options: type) -> tuple[str, ...]:
    """The names of a dataclass's fields."""
    return tuple(item.name for item in fields(options))


def choices(options: type, name: str) -> tuple[str, ...]:
    """The allowed values of a `Literal` field."""
    return get_args(get_type_hints(options)[name])


@dataclass(frozen=True)
class DecodingOptions:
    """Options of the language model that writes the text of an utterance.

    Raises:
        RecipeError: a value out of range.
    """

    decoder: Literal["greedy", "speculative", "relaxed", "beam"] = "speculative"
    """Speculative decoding drafts with the CTC head and writes the same text as greedy decoding. Relaxed decoding also
    accepts draft tokens that are likely enough: faster, and not lossless. Beam search is slower and more accurate."""
    max_entropy: Annotated[float, Range(ge=0)] = 0.7
    """For relaxed decoding: an utterance whose CTC entropy (nats) is below this in every frame keeps its CTC text
    (arXiv 2603.11243 uses 0.7, or 3.0 for speed)."""
    min_probability: Annotated[float, Range(gt=0, le=1)] = 0.2
    """For relaxed decoding: a draft token with at least this probability is accepted (arXiv 2603.11243 uses 0.2 and
    0.1)."""
    max_new_tokens: Annotated[int, Range(ge=1)] = 200
    """Tokens per utterance."""
    batch_seconds: Annotated[float, Range(gt=0)] = 240.0
    """Padded audio in a batch."""
    max_window: Annotated[float, Range(ge=MIN_WINDOW, le=MAX_WINDOW)] = MAX_WINDOW
    """Longest piece of audio, in seconds, that the model gets. Longer audio is cut at pauses, in evaluation too. With
    the default, evaluation and validation cut no clip, and `finetune transcribe` and `serve` use the limit of the model
    (`limits.json`)."""
    keyword_method: Literal["auto", "prompt", "ctc", "both"] = "auto"
    """How expected words of a clip are used: in the prompt, which the model must know; or ctc: a word replaces what was
    written in its place if it fits the audio better by the CTC head (arXiv 2406.07096), with any model. With auto, a
    recipe uses prompt, and an export ctc if its model was not trained with keyword prompts."""
    terms: tuple[str, ...] = ()
    """Words and phrases that every clip may have, used by ctc; in a recipe also the path of a file with one per line.
    An export keeps them."""
    num_beams: Annotated[int, Range(ge=2, le=64)] = 8
    """For beam search: texts that are kept at each token."""
    ctc_weight: Annotated[float, Range(ge=0)] = 0.2
    """For beam search: factor of the log probability of the CTC head, which is added to that of the language model to
    choose among the found texts; with 0, the language model chooses alone."""
    cuda_graphs: bool = False
    """On a CUDA GPU: short passes of the language model have fixed shapes and are replayed as CUDA graphs, which need
    less time to start and a larger cache. Not yet measured on a GPU. No effect on a CPU, or during training."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "extra": "forbid",
        "use_attribute_docstrings": True,
        "allow_inf_nan": False,
    }

    def __post_init__(self) -> None:
        check_options(self)
        object.__setattr__(self, "terms", parse_keywords(self.terms, commas=True))

    def in_prompt(self, keywords: tuple[str, ...]) -> tuple[str, ...]:
        """The keywords of a clip that its prompt has."""
        return () if self.keyword_method == "ctc" else keywords

    def by_ctc(self, keywords: tuple[str, ...]) -> tuple[str, ...]:
        """The keywords of a clip and the terms of all clips that are written by the CTC head."""
        return tuple(dict.fromkeys([*(keywords if self.keyword_method in ("ctc", "both") else ()), *self.terms]))


@dataclass(frozen=True)
class TranscribeOptions:
    """Options for audio of any length: prompt, windows, decoding.

    `channel` accepts `mix`, `left`, `right`, `each` or the number of a channel. `language` and `translate_to` accept a
    code (`fr`, `fr-CA`) or an English name (`French`) and are stored as a code. An empty `language` means that
    it is not known, an empty `translate_to` means no translation. `keywords` accepts one string with commas and is
    stored as a tuple.

    Raises:
        RecipeError: a value out of range, an unknown language, a translation into the spoken language, or a keyword
            with a comma or a control character.
    """

    instruction: str = INSTRUCTION
    decoding: DecodingOptions = DecodingOptions(max_new_tokens=400)
    vad: Literal["level", "silero"] = "level"
    """How pauses are detected: by sound level, or with silero-vad (extra [vad])."""
    no_speech: Annotated[float, Range(ge=0, le=1)] = 0.0
    """A window gets no text if the CTC head is less certain than this that it contains speech (0 to 1); 0 is off. A
    model folder states its own (`limits.json`), calibrated by its export or by `finetune calibrate`."""
    channel: str = ""
    """Channel of audio with several: `mix` averages, a number from 0 (or `left`, `right`) chooses one, `each` gives one
    transcript a channel. Empty averages too, with a note."""
    language: str = ""
    translate_to: str = ""
    keywords: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "channel", parse_channel(self.channel))
        check_options(self)
        if not isinstance(self.decoding, DecodingOptions):
            raise RecipeError(f"decoding: must be DecodingOptions, got {self.decoding!r}")
        object.__setattr__(self, "language", language_code(self.language, SPEECH_LANGUAGES))
        object.__setattr__(self, "translate_to", language_code(self.translate_to, TRANSLATION_TARGETS))
        object.__setattr__(self, "keywords", parse_keywords(self.keywords))
        if self.translate_to and self.language == self.translate_to:
            raise RecipeError(f"translate_to: the speech is {SPEECH_LANGUAGES[self.language]} already")

    def prompt(self, profile: PromptProfile = DEFAULT_PROFILE) -> str:
        """The instruction in the prompt, without keywords.

        Args:
            profile: the prompts of the model.
        """
        if self.translate_to:
            return profile.translate(self.translate_to)
        return profile.transcribe(default=self.instruction, language=self.language)

    @property
    def text_language(self) -> str:
        """The language of the text; "" if it is not known."""
        return self.translate_to or self.language

    def effective_decoding(self, bpe_head: bool = False) -> DecodingOptions:
        """The decoding options; greedy instead of drafts for a text that no CTC head can write.

        That is a translation, and Japanese without a head of tokens.

        Args:
            bpe_head: whether the model has a second CTC head, of tokens of the language model.
        """
        without_draft = self.translate_to or (self.language == "ja" and not bpe_head)
        if without_draft and self.decoding.decoder != "beam":
            return replace(self.decoding, decoder="greedy")
        return self.decoding


@dataclass(frozen=True)
class SegmentOptions:
    """Options for cutting long recordings with a transcript into clips.

    Raises:
        RecipeError: a value out of range, or lengths that contradict each other.
    """

    min_duration: Annotated[float, Range(gt=0)] = 5.0
    """Shortest clip in seconds, where the recording allows it."""
    max_duration: Annotated[float, Range(ge=1)] = 20.0
    """Longest clip in seconds."""
    shortest: Annotated[float, Range(gt=0)] = 0.5
    """Words that stand alone between two places without text, or with a doubtful one, are a clip if they are at least
    this long, in seconds; shorter ones are set aside."""
    min_score: Annotated[float, Range(ge=0, le=1)] = 0.05
    """A word with a lower score (0 to 1) is set aside: how probable its characters are, compared with the most probable
    ones."""
    padding: Annotated[float, Range(ge=0, le=2)] = 0.1
    """Seconds of the pause that a clip keeps before its first and after its last word."""
    language: str = "en"
    """Language of the numbers in texts that state no language."""

    def __post_init__(self) -> None:
        check_options(self)
        if not self.shortest <= self.min_duration <= self.max_duration / 2:
            raise RecipeError(
                f"shortest {self.shortest:g} s, min_duration {self.min_duration:g} s, max_duration "
                f"{self.max_duration:g} s: the first must not exceed the second, nor the second half of the third"
            )


@dataclass(frozen=True)
class SynthesisOptions:
    """Options for synthetic clips of terms or sentences.

    Raises:
        RecipeError: a value out of range.
    """

    kind: Literal["terms", "sentences"] = "terms"
    """What the lines of the source are."""
    language: str = "en"
    """Language of the sentences."""
    per_term: Annotated[int, Range(ge=1)] = 20
    """Sentences for each term."""
    voices_per_sentence: Annotated[int, Range(ge=1)] = 2
    """Voices that speak each sentence, in turn."""
    speed: Annotated[float, Range(ge=0, le=0.5)] = 0.1
    """Largest change of the speaking rate, as a fraction."""
    pitch: Annotated[float, Range(ge=0, le=0.5)] = 0.08
    """Largest change of the pitch, as a fraction, for engines that can change it."""
    model: str = "ibm-granite/granite-4.0-1b-speech"
    """The model that transcribes each clip to check it."""
    max_general_errors: Annotated[float, Range(ge=0, le=1)] = 0.5
    """A clip is set aside if the model misses a larger fraction of the words that are not part of a term."""
    seed: Annotated[int, Range(ge=0)] = 0
    """Seed of the choice of sentences, speaking rate and pitch."""

    def __post_init__(self) -> None:
        check_options(self)


def parse_channel(channel: str | int) -> str:
    """The channel as `mix`, `each` or its number from 0; "" stays.

    Raises:
        RecipeError: something else.
    """
    names = {"left": "0", "right": "1"}
    text = str(channel).strip().lower()
    if isinstance(channel, bool) or not (text in ("", "mix", "each", *names) or (text.isascii() and text.isdigit())):
        raise RecipeError(f"channel {channel!r} is not mix, left, right, each or a number from 0")
    return names.get(text) or (str(int(text)) if text.isdigit() else text)


def override(options: TranscribeOptions, **values: Any) -> TranscribeOptions:
    """The options with new values, by field name of `TranscribeOptions` or `DecodingOptions`. None keeps the old value.

    Raises:
        RecipeError: a value out of range, or an unknown name.
    """
    changed = {name: value for name, value in values.items() if value is not None}
    decoding = {name: changed.pop(name) for name in field_names(DecodingOptions) if name in changed}
    if unknown := changed.keys() - {*field_names(TranscribeOptions)}:
        raise RecipeError(f"unknown option {min(unknown)!r}")
    options = replace(options, **changed)
    return replace(options, decoding=replace(options.decoding, **decoding))
