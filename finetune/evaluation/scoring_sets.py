"""Divides test and canary utterances into the sets that are scored separately."""

import logging
from collections.abc import Mapping, Sequence

from finetune.core.languages import row_language
from finetune.data.manifest import Utterance
from finetune.data.scripts import has_other_script, is_unspaced
from finetune.metrics.multilingual import has_number_words
from finetune.metrics.normalizer import WITH_LANGUAGE

log = logging.getLogger(__name__)

JAPANESE_NORMALIZER = "ja-cer@2"  # Japanese is written without spaces: characters are scored instead of words


def scoring_sets(splits: Mapping[str, Sequence[Utterance]]) -> dict[str, tuple[str, list[int]]]:
    """The sets by name: the split of a set, and the indices of its utterances in the split.

    Test and canary are sets without their translations. If the canary has several corpora, each corpus is a set too.
    If there are Japanese utterances among other languages, they are a set of their own (`normalizer_for` scores it).
    """
    sets = {}
    for split, utterances in splits.items():
        corpora: dict[str, list[int]] = {}
        for index, item in enumerate(utterances):
            corpora.setdefault(str(item.extra.get("corpus", "")), []).append(index)
        transcripts = [index for index, item in enumerate(utterances) if not item.extra.get("target_language")]
        spaced = [index for index in transcripts if not is_japanese(utterances[index])]
        sets[split] = (split, spaced or transcripts or list(range(len(utterances))))
        if split == "canary" and len(corpora) > 1:
            sets |= {f"{split}: {corpus}": (split, indices) for corpus, indices in corpora.items()}
        japanese = [index for index in transcripts if spaced and is_japanese(utterances[index])]
        if japanese and not any(japanese == indices for _, indices in sets.values()):
            sets[f"{split}: Japanese"] = (split, japanese)
    return sets


def is_japanese(item: Utterance) -> bool:
    """Whether the language is Japanese or, without a language, most letters are kana or Han characters."""
    if item.language:
        return item.language.lower().replace("_", "-").partition("-")[0] in ("ja", "jpn", "japanese")
    return is_unspaced(item.text) and not has_other_script(item.text, "ja")


def normalizer_for(utterances: Sequence[Utterance], default: str) -> str:
    """The normalizer of a set: `ja-cer@2` if all its utterances are Japanese, else `with_language(default)`."""
    return JAPANESE_NORMALIZER if all(map(is_japanese, utterances)) else with_language(utterances, default)


def with_language(utterances: Sequence[Utterance], preset: str) -> str:
    """`openasr-multi@2026-08` with the language of the utterances; any other preset as it is.

    English utterances are scored with `openasr@2026-08`, as the leaderboard does. Without one language that num2words
    has, a warning says that numbers stay digits.
    """
    if preset != WITH_LANGUAGE:
        return preset
    languages = sorted({row_language(item.language) or item.language for item in utterances})
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
