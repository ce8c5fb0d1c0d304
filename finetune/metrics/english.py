"""The English normalizers of Whisper and of the Open ASR Leaderboard, for comparisons with published scores.

Both run once, as in the originals; their output is not always a fixed point ("20mm" -> "20 mm" -> "20").
Known faults are kept to make scores comparable: "o'brien" -> "0 brien"; a typographic apostrophe splits a
word. Use `basic@2` if you do not compare with published scores.
"""

import re
import unicodedata
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whisper_normalizer.english import EnglishTextNormalizer

# Contractions that whisper-normalizer 0.1.15 adds to those of openai-whisper 20250625 and transformers 5.
_NOT_IN_WHISPER = (r"\bkinda\b", r"\bsorta\b", r"\bdunno\b", r"\bcause\b")

_FILLERS = (
    "hmm",
    "mm",
    "mhm",
    "mmm",
    "uh",
    "um",
    "ah",
    "aha",
    "ahh",
    "ahm",
    "eh",
    "ehehe",
    "em",
    "hm",
    "huh",
    "hum",
    "mhum",
    "uhm",
    "umm",
    "uhuh",
)
_SPELLINGS = {"ok": "okay", "kay": "okay", "etcetera": "etc"}
# After these words, 's is "is"; after any other word it is a possessive and becomes the word "s".
_PRONOUNS = ("it", "he", "she", "what", "that", "who", "here", "there", "how", "when", "where", "why", "this")
_COMPOUNDS = {
    "et cetera": "etc",
    "all right": "alright",
    "al right": "alright",
    "how ever": "however",
    "wi fi": "wifi",
    "hi fi": "hifi",
    "lo fi": "lofi",
    "sci fi": "scifi",
    "e mail": "email",
    "e book": "ebook",
    "e commerce": "ecommerce",
    "x ray": "xray",
    "t shirt": "tshirt",
    "a m": "am",
    "p m": "pm",
    "o k": "okay",
}
_COMPOUND = re.compile(r"\b(" + "|".join(_COMPOUNDS).replace(" ", r"\s+") + r")\b")


def whisper(text: str) -> str:
    """Normalizes like `EnglishTextNormalizer` of openai-whisper and transformers (arXiv 2212.04356, appendix C).

    The rules and the list of 1,739 British spellings come from the package whisper-normalizer (MIT), which copies
    openai-whisper; the contractions that it adds are removed.
    """
    return _once(_whisper_rules(), text)


def openasr(text: str) -> str:
    """Normalizes like the English normalizer of huggingface/open_asr_leaderboard in August 2026.

    Implemented from its published rules. Differences from Whisper's: it removes more fillers; 's is a possessive
    except after pronouns; some compounds and all runs of single letters or digits are merged ("b b c" -> "bbc"; "a"
    and "i" only in runs of three); "ok" is "okay". Not implemented: its table of equivalent first names ("alan" ->
    "allen"), and the few British spellings in which its list and Whisper's differ. The leaderboard then scores with
    kaldialign, which also accepts split compounds.
    """
    return _once(_openasr_rules(), text)


def _once(rules: "EnglishTextNormalizer", text: str) -> str:
    return " ".join(rules(unicodedata.normalize("NFC", text)).split())


@cache
def _whisper_rules() -> "EnglishTextNormalizer":
    from whisper_normalizer.english import EnglishTextNormalizer

    rules = EnglishTextNormalizer()
    rules.replacers = {pattern: words for pattern, words in rules.replacers.items() if pattern not in _NOT_IN_WHISPER}
    return rules


@cache
def _openasr_rules() -> "EnglishTextNormalizer":
    rules = _whisper_rules.__wrapped__()
    rules.ignore_patterns = rf"\b({'|'.join(_FILLERS)})\b"
    after_pronoun = (rf"\b({'|'.join(_PRONOUNS)})'s\b", r"\1 is")
    rules.replacers = dict(
        after_pronoun if pattern == r"'s\b" else (pattern, words) for pattern, words in rules.replacers.items()
    )
    rules.standardize_spellings.mapping = {**rules.standardize_spellings.mapping, **_SPELLINGS}
    numbers, spellings = rules.standardize_numbers, rules.standardize_spellings
    rules.standardize_numbers = lambda text: numbers(_COMPOUND.sub(_merge_compound, text))
    rules.standardize_spellings = lambda text: _merge_letters(spellings(text))
    return rules


def _merge_compound(match: re.Match[str]) -> str:
    return _COMPOUNDS[" ".join(match.group(1).split())]


def _merge_letters(text: str) -> str:
    words = []
    for single, run in groupby(text.split(), key=lambda word: len(word) == 1 and word.isalnum()):
        letters = list(run)
        merge = single and len(letters) >= (3 if {"a", "i"} & set(letters) else 2)
        words += ["".join(letters)] if merge else letters
    return " ".join(words)
