"""The languages of Granite Speech, with their codes and names."""

from finetune.core.errors import RecipeError

# From the model card of granite-4.0-1b-speech: it transcribes the first six, and translates between English and all
# of these.
SPEECH_LANGUAGES = {
    "en": "English",
    "fr": "French",
    "de": "German",
    "es": "Spanish",
    "pt": "Portuguese",
    "ja": "Japanese",
}
TRANSLATION_TARGETS = {**SPEECH_LANGUAGES, "it": "Italian", "zh": "Mandarin"}


def language_code(name: str | None, languages: dict[str, str]) -> str:
    """The two-letter code of a language: `fr` for `fr`, `fr-CA` or `French`, "" for None or "".

    Raises:
        RecipeError: the language is not in `languages`.
    """
    if not name:
        return ""
    spelling = name.strip().lower().replace("_", "-")
    by_name = {value.lower(): code for code, value in languages.items()}
    code = by_name.get(spelling, spelling.split("-")[0])
    if code in languages:
        return code
    raise RecipeError(f"language {name!r} is not one of " + ", ".join(f"{c} ({n})" for c, n in languages.items()))
