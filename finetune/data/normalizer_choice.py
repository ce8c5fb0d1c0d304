"""Chooses the normalizer of a set by the languages of its utterances."""

import logging
from collections.abc import Sequence

from finetune.core.languages import row_language
from finetune.core.wording import count, verb
from finetune.data.manifest import Utterance
from finetune.data.tags import find_tags, strip_tags
from finetune.metrics.multilingual import has_number_words
from finetune.metrics.normalizer import WITH_LANGUAGE, normalize
from finetune.metrics.scripts import has_other_script, is_unspaced

log = logging.getLogger(__name__)

NEARLY_ALL = 0.9
JAPANESE_NORMALIZER = "ja-cer@2"  # Japanese and Chinese have no spaces: characters are scored instead of words


def in_characters(item: Utterance) -> bool:
    """Whether characters are scored: the text is Japanese or Chinese or, without a language, mostly kana or Han."""
    if language := item.text_language:
        return row_language(language) in ("ja", "zh")
    return is_unspaced(item.text) and not has_other_script(item.text, "ja")


def scored_in_characters(utterances: Sequence[Utterance]) -> list[bool]:
    """`in_characters` of each utterance of a set.

    If nearly all texts with letters are in characters, so are the texts without a language, such as `OK` or an empty
    one.
    """
    flags = [in_characters(item) for item in utterances]
    lettered = [value for value, item in zip(flags, utterances, strict=True) if any(map(str.isalpha, item.text))]
    if not lettered or sum(lettered) < NEARLY_ALL * len(lettered):
        return flags
    return [value or not item.text_language for value, item in zip(flags, utterances, strict=True)]


def normalizer_for(utterances: Sequence[Utterance], default: str) -> str:
    """The normalizer of a set: `ja-cer@2` if all its texts are Japanese or Chinese, else `with_language(default)`."""
    return JAPANESE_NORMALIZER if all(scored_in_characters(utterances)) else with_language(utterances, default)


def normalizer_of_terms(test: Sequence[Utterance], default: str) -> str:
    """The normalizer by which terms are found before the evaluation: that of the transcriptions of test."""
    spoken = [item for item in test if not item.is_translation] if any(i.is_translation for i in test) else test
    chosen = spoken or test
    return JAPANESE_NORMALIZER if chosen and all(scored_in_characters(chosen)) else default


def with_language(utterances: Sequence[Utterance], preset: str) -> str:
    """`openasr-multi@2026-08` with the language of the utterances; any other preset as it is.

    English utterances are scored with `openasr@2026-08`, as the leaderboard does. Without one language that num2words
    has, a warning says that numbers stay digits.
    """
    if preset != WITH_LANGUAGE:
        return preset
    languages = sorted({row_language(item.text_language) or item.text_language for item in utterances})
    if languages == ["en"]:
        return "openasr@2026-08"
    if len(languages) == 1 and has_number_words(languages[0]):
        return f"{preset}:{languages[0]}"
    names = ", ".join(language or "(none)" for language in languages)
    log.warning(
        "%s: numbers are not written as words, because the set has no single language of num2words, but %s; set the "
        "column `language`, and score each language as a set of its own",
        preset,
        names,
    )
    return preset


def tags_note(texts: Sequence[str], preset: str) -> str:
    """A sentence on tags such as `[noise]` that a normalizer takes for words; "" without any."""
    changed = {text: [tag.text for tag in find_tags(text) if tag.replacement is not None] for text in texts}
    tagged = [
        text for text in texts if changed[text] and normalize(strip_tags(text), preset) != normalize(text, preset)
    ]
    if not tagged:
        return ""
    number, tag = len(tagged), changed[tagged[0]][0]
    return (
        f"{count(number, 'text')} {verb(number, 'has', 'have')} tags that count as words with {preset}, such as {tag!r}"
    )
