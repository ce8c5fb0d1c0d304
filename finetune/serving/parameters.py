"""The parameters of a transcription request: names, checks, and the options that they become.

A parameter that this server cannot honour is an error, so nothing is dropped in silence.
"""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, TypeVar

from finetune.core.errors import RecipeError
from finetune.core.keyword_list import parse_keywords
from finetune.core.languages import SPEECH_LANGUAGES, language_code
from finetune.core.options import TranscribeOptions, override
from finetune.core.terminal import visible
from finetune.serving.errors import MAX_MESSAGE, ApiError

FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
STREAMED = ("json", "text")
GRANULARITIES = ("word", "segment")
TRANSLATION_TARGET = "en"  # of OpenAI's translations
NAMES = (
    "model", "response_format", "language", "languages", "prompt", "keywords", "hotwords", "timestamp_granularities",
    "chunking_strategy", "temperature", "stream", "target_language", "deadline",
)  # fmt: skip
NO_SPEAKERS = "this model does not know who speaks"
REFUSED = {
    "include": "log probabilities of single tokens are not available",
    "known_speaker_names": NO_SPEAKERS,
    "known_speaker_references": NO_SPEAKERS,
}
MAX_SHOWN = 100  # characters of a wrong value in a message

T = TypeVar("T")
Fields = Mapping[str, Sequence[str]]
Task = Literal["transcribe", "translate"]


@dataclass(frozen=True)
class Parameters:
    """What a request asks for.

    Attributes:
        task: transcribe or translate.
        form: one of FORMATS.
        granularities: which times a `verbose_json` has.
        stream: whether the text is sent as it is written.
        options: how the audio is transcribed.
        deadline: seconds; None is the limit of the server.
    """

    task: Task
    form: str
    granularities: tuple[str, ...]
    stream: bool
    options: TranscribeOptions
    deadline: float | None


def read_parameters(fields: Fields, task: Task, defaults: TranscribeOptions) -> Parameters:
    """Checks the text fields of a request.

    Args:
        fields: values by name.
        task: of the endpoint.
        defaults: the options of the model.

    Raises:
        ApiError: an unknown or refused parameter, or a wrong value.
    """
    _check_names(fields)
    form = _format(fields)
    granularities = _granularities(fields, form)
    stream = _stream(fields)
    if stream and form not in STREAMED:
        raise ApiError(400, f"stream needs response_format {' or '.join(STREAMED)}", "stream", "invalid_value")
    if _number(fields, "temperature") not in (None, 0.0):
        raise ApiError(400, "temperature must be 0: the text is not sampled", "temperature", "invalid_value")
    return Parameters(task, form, granularities, stream, _options(fields, task, defaults), _deadline(fields))


def model_name(fields: Fields) -> str | None:
    """The model that a request names, if it does. Raises ApiError for several."""
    return _one(fields, "model")


def check_query(names: Iterable[str]) -> None:
    """Refuses parameters in the URL, where they would have no effect; others, such as `api-version`, are allowed.

    Raises:
        ApiError: a parameter of a request is in the URL.
    """
    for name in names:
        plain = name.partition("[")[0]
        if plain in NAMES or plain in REFUSED:
            raise ApiError(400, f"{plain} is in the URL; send it as a field of the form", plain, "invalid_value")


def _check_names(fields: Fields) -> None:
    for name in fields:
        plain = name.partition("[")[0]
        if plain in REFUSED:
            raise ApiError(400, f"{plain}: {REFUSED[plain]}", plain, "unsupported_parameter")
        if plain == "chunking_strategy":
            continue
        if name not in NAMES:
            near = difflib.get_close_matches(name[:MAX_SHOWN], NAMES, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; the parameters are file, {', '.join(NAMES)}"
            raise ApiError(400, f"unknown parameter {name[:MAX_SHOWN]!r}{hint}", name[:MAX_SHOWN], "unknown_parameter")
    _check_chunking(fields)


def _check_chunking(fields: Fields) -> None:
    """Pauses are always found by VAD; how, is an option of the model."""
    values = {name: values[-1] for name, values in fields.items() if name.startswith("chunking_strategy")}
    for name, value in values.items():
        if (name, value) in {("chunking_strategy", "auto"), ("chunking_strategy[type]", "server_vad")}:
            continue
        message = f"{name[:MAX_SHOWN]}: the server cuts at pauses with its own thresholds; send auto, or nothing"
        raise ApiError(400, message, "chunking_strategy", "unsupported_parameter")


def _granularities(fields: Fields, form: str) -> tuple[str, ...]:
    values = tuple(dict.fromkeys(fields.get("timestamp_granularities", ())))
    if wrong := [item for item in values if item not in GRANULARITIES]:
        raise _wrong("timestamp_granularities", wrong[0], " or ".join(GRANULARITIES))
    if values and form != "verbose_json":
        message = "timestamp_granularities needs response_format verbose_json"
        raise ApiError(400, message, "timestamp_granularities", "invalid_value")
    return values or ("segment",)


def _options(fields: Fields, task: Task, defaults: TranscribeOptions) -> TranscribeOptions:
    prompt, target = _one(fields, "prompt") or None, _one(fields, "target_language")
    words = [word for name in ("keywords", "hotwords") for item in fields.get(name, ()) for word in _words(name, item)]
    language, keywords = _language(fields), _valid("keywords", lambda: parse_keywords(words))
    if task == "transcribe":
        if target:
            message = "target_language is a parameter of /v1/audio/translations"
            raise ApiError(400, message, "target_language", "unsupported_parameter")
        return _valid("prompt", lambda: override(defaults, language=language, instruction=prompt, keywords=keywords))
    if prompt:
        message = "prompt: a translation has its own instruction; target_language chooses the language"
        raise ApiError(400, message, "prompt", "unsupported_parameter")
    target = target or TRANSLATION_TARGET
    return _valid(
        "target_language", lambda: override(defaults, language=language, translate_to=target, keywords=keywords)
    )


def _words(name: str, value: str) -> list[str]:
    """The words of a value. A JSON list is an error: its brackets and quotation marks would be in the words."""
    if value.strip().startswith("[") and value.strip().endswith("]"):
        with suppress(ValueError, RecursionError):
            json.loads(value)
            message = f"{name}: not a JSON list; send each word as a field {name}[] of its own, or words with commas"
            raise ApiError(400, message, name, "invalid_value")
    return re.split("[,;]", value)


def _language(fields: Fields) -> str:
    """The spoken language; "" if none, or several, are stated."""
    stated = _one(fields, "language")
    one = _valid("language", lambda: language_code(stated, SPEECH_LANGUAGES))
    names = fields.get("languages", ())
    several = _valid("languages", lambda: {language_code(item, SPEECH_LANGUAGES) for item in names if item})
    if one and several and one not in several:
        raise ApiError(400, "language is not one of languages", "language", "invalid_value")
    return one or (several.pop() if len(several) == 1 else "")


def _valid(name: str, make: Callable[[], T]) -> T:
    """A value of a parameter. Raises ApiError with its name for one that the options do not allow."""
    try:
        return make()
    except RecipeError as error:
        raise ApiError(400, visible(str(error))[:MAX_MESSAGE], name, "invalid_value") from error


def _deadline(fields: Fields) -> float | None:
    value = _number(fields, "deadline")
    if value is not None and not value > 0:  # NaN neither
        raise ApiError(400, "deadline must be a number of seconds above 0", "deadline", "invalid_value")
    return value


def _one(fields: Fields, name: str) -> str | None:
    values = fields.get(name, ())
    if len(values) > 1:
        raise ApiError(400, f"{name} is given {len(values)} times", name, "invalid_value")
    return values[0].strip() if values else None


def _format(fields: Fields) -> str:
    value = _one(fields, "response_format") or "json"
    if value == "diarized_json":
        message = f"response_format diarized_json: {NO_SPEAKERS}"
        raise ApiError(400, message, "response_format", "unsupported_parameter")
    if value not in FORMATS:
        raise _wrong("response_format", value, ", ".join(FORMATS))
    return value


def _stream(fields: Fields) -> bool:
    value = (_one(fields, "stream") or "false").lower()
    if value not in ("true", "false", "1", "0"):
        raise _wrong("stream", value, "true or false")
    return value in ("true", "1")


def _number(fields: Fields, name: str) -> float | None:
    value = _one(fields, name)
    try:
        return float(value) if value else None
    except ValueError as error:
        raise _wrong(name, value or "", "a number") from error


def _wrong(name: str, value: str, allowed: str) -> ApiError:
    return ApiError(400, f"{name}: {value[:MAX_SHOWN]!r} is not {allowed}", name, "invalid_value")
