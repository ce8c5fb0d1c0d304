"""Types of a scorecard: the scores of one system on one set, their details, and the comparison of two systems.

Rates are fractions. `finetune.metrics.scorecard` computes these values; `finetune.metrics.results` stores them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from finetune.core.wording import count, verb
from finetune.metrics.alignment import Confusion
from finetune.metrics.blocks import Scope
from finetune.metrics.mapsswe import Mapsswe
from finetune.metrics.normalizer import UNSPACED
from finetune.metrics.significance import Interval, PairedDifference
from finetune.metrics.terms import TermRecall, TermSummary
from finetune.metrics.translation import TranslationScores
from finetune.metrics.wer import WordErrors, error_rate
from finetune.metrics.words import EntityRecall, FrequencyBin, NumeralErrors, Style


@dataclass(frozen=True)
class BlockUnit:
    """The unit of intervals and tests (speaker, recording or utterance), and for whom their results hold.

    `note` names coarser units with too few blocks, `speakers` counts the known speakers; see `blocks.Blocks`.
    """

    unit: str
    note: str
    scope: Scope
    speakers: int


@dataclass(frozen=True)
class PromptedKeywords:
    """Number of utterances with keywords in the prompt, and with a keyword in the reference."""

    utterances: int
    in_reference: int


@dataclass(frozen=True)
class SubsetWer:
    """WER of some of the utterances."""

    utterances: int
    wer: float

    @classmethod
    def of(cls, rows: Sequence[int], errors: Sequence[int], words: Sequence[int]) -> "SubsetWer":
        """From the numbers of the utterances, and the errors and reference words of all utterances."""
        return cls(len(rows), error_rate(sum(errors[i] for i in rows), sum(words[i] for i in rows)))


@dataclass(frozen=True)
class EmptyReferences:
    """Utterances without words in the reference, those with words in the hypothesis, and the number of these words.

    All these words are insertions. `ids` has the first utterances with words.
    """

    utterances: int
    with_words: int
    words: int
    ids: list[str]


@dataclass(frozen=True)
class TermScores(TermSummary):
    """A summary of terms with the 95 % interval of the recall; `low` and `high` are None without occurrences."""

    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclass(frozen=True)
class TermsBySeen:
    """Scores of terms that occur in the training texts (`seen`), and of the other terms."""

    seen: TermScores
    unseen: TermScores


@dataclass(frozen=True)
class SetScores(WordErrors):
    """The scores of one system on one set that need neither training texts nor a list of terms.

    Attributes:
        interval: interval of the WER.
        blocks: the unit that the bootstrap resamples.
        normalizer: the preset of all scores except `raw_wer`, `raw_cer`, `style` and `translation`.
        raw_wer: WER of the texts as written, with casing and punctuation.
        raw_cer: CER of the texts as written.
        utterances: number of utterances.
        utterances_wrong: utterances with at least one word error.
        prompted: keywords in prompts.
        truncated: hypotheses that reached the limit of tokens.
        empty_hypotheses: hypotheses without text.
        flags: number of hypotheses by flag of `hallucination.FLAGS`; flags without hypotheses are absent.
        without_flagged: WER without the flagged hypotheses.
        entities: recall of numbers, dates, names and other entities.
        numerals: word errors that involve a numeral.
        style: casing and punctuation.
        audio_seconds: duration of all utterances.
        seconds: time of recognition; 0 is unknown.
        rtfx: seconds of audio recognized per second; None if `seconds` is 0.
        translation: BLEU and chrF by target language; empty unless references are translations.
        chrf: chrF of a set of translations as a fraction, over all target languages; None for transcriptions. The WER
            of such a set compares words with one possible translation and decides nothing.
        empty_references: words on clips without speech; None in results up to version 0.2.0.
    """

    interval: Interval
    blocks: BlockUnit
    normalizer: str
    raw_wer: float
    raw_cer: float
    utterances: int
    utterances_wrong: int
    prompted: PromptedKeywords
    truncated: int
    empty_hypotheses: int
    flags: dict[str, int]
    without_flagged: SubsetWer
    entities: list[EntityRecall]
    numerals: NumeralErrors
    style: Style
    audio_seconds: float
    seconds: float
    rtfx: float | None
    translation: dict[str, TranslationScores] = field(default_factory=dict)
    empty_references: EmptyReferences | None = None
    chrf: float | None = None

    @property
    def error_name(self) -> Literal["WER", "CER"]:
        """What `wer` is: CER under a preset without spaces, which scores each character as a word."""
        return "CER" if self.normalizer in UNSPACED else "WER"

    @property
    def without_words(self) -> bool:
        """Whether transcriptions have no reference words: their WER is no rate, and only the insertions say something.

        It is 0 or 1, as `wer.error_rate` says.
        """
        return self.chrf is None and not self.reference_words

    @property
    def with_speech(self) -> int:
        """Clips whose reference is not empty."""
        return self.utterances - (self.empty_references.utterances if self.empty_references else 0)

    @property
    def silent(self) -> int:
        """Clips whose reference is not empty, but whose hypothesis is."""
        empty = self.empty_references
        return self.empty_hypotheses - (empty.utterances - empty.with_words if empty else 0)

    @property
    def mostly_silent(self) -> bool:
        """Whether half of the speech has no text: an error rate of 100 % is then below that of many wrong texts."""
        return self.with_speech > 0 and 2 * self.silent >= self.with_speech

    @property
    def inserted(self) -> Literal["inserted words", "inserted characters"]:
        """What `insertions` counts."""
        return "inserted characters" if self.error_name == "CER" else "inserted words"

    @property
    def raw_error(self) -> float:
        """`wer` of the texts as written: the CER if `wer` is one, because words as written would be whole sentences."""
        return self.raw_cer if self.error_name == "CER" else self.raw_wer

    def set_scores(self) -> dict[str, Any]:
        """The fields of `SetScores` by name, without those of a subclass."""
        return {item.name: getattr(self, item.name) for item in fields(SetScores)}


@dataclass(frozen=True, kw_only=True)
class Scores(SetScores):
    """All scores of one system on one set.

    Attributes:
        frequency: word errors by frequency of the word in the training texts; empty for a preset without words.
        terms: None without a list of terms.
    """

    frequency: list[FrequencyBin]
    terms: TermsBySeen | None = None


@dataclass(frozen=True)
class NormalizerChange:
    """A text that the normalizer empties, or shortens by more than half."""

    id: str
    side: Literal["reference", "hypothesis"]
    text: str


@dataclass(frozen=True)
class TermRow(TermRecall):
    """One term, and whether it occurs in the training texts."""

    seen: bool


@dataclass(frozen=True)
class Details:
    """The lists from which the scores are computed; `terms` has the terms in references or hypotheses."""

    confusions: list[Confusion]
    normalizer_changes: list[NormalizerChange]
    terms: list[TermRow]


@dataclass(frozen=True)
class Scorecard:
    """One system on one set."""

    scores: Scores
    details: Details


@dataclass(frozen=True, kw_only=True)
class Comparison(PairedDifference):
    """A paired difference, MAPSSWE as a second test, and the p-value adjusted for the number of sets (Holm).

    `p_holm` is None if the difference is not one of several tests of the same question. `scope` is for whom the result
    holds, and `speakers` the number of known speakers (`blocks.Blocks`). `metric` is the compared error: for a set of
    translations it is `1 - chrF`, tested as in `score_intervals`, without MAPSSWE.
    """

    mapsswe: Mapsswe
    scope: Scope
    speakers: int
    p_holm: float | None = None
    metric: Literal["WER", "1 - chrF"] = "WER"


def empty_references_note(scores: SetScores) -> str:
    """A sentence on the words that a system writes where the reference is empty; "" without empty references."""
    empty = scores.empty_references
    if empty is None or not empty.utterances:
        return ""
    start = f"{empty.utterances} of {scores.utterances} clips have an empty reference"
    if not empty.words:
        return f"{start}; no words were recognized on them"
    return (
        f"{start}; {count(empty.words, 'word')} {verb(empty.words, 'was', 'were')} recognized on "
        f"{empty.with_words} of them, such as {empty.ids[0]!r}: insertions"
    )
