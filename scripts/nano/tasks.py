"""What the model is asked about a clip, and what it must write: transcripts, translations, keywords, nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from transformers import PreTrainedTokenizerBase as Tokenizer

from finetune.core.config import KeywordsSection
from finetune.core.prompts import DEFAULT_PROFILE
from finetune.model.prompt import Prompt, encode_text, render
from finetune.training.augment import sample_rng
from finetune.training.keyword_prompts import KeywordPrompts
from nano.clips import JAPANESE
from nano.scaffold import TARGETS

TRANSLATED = 0.6  # share of the clips of the phrase book that are translated
ENGLISH = "en"
KEYWORD_ROOM = 600  # tokens of a keyword list
MOST_TEXTS = 100_000  # of each language, from which distractors are taken
NORMALIZERS = {JAPANESE: "ja-cer@2"}
DEFAULT_NORMALIZER = "basic@2"
NOTHING = "none"


@dataclass(frozen=True)
class Example:
    """A prompt with its answer.

    Attributes:
        instruction, keywords: of the prompt.
        target: tokens of the answer, with the end.
        group: language and task, in progress lines.
        list_tokens: tokens of the keyword list, at most.
    """

    instruction: str
    keywords: tuple[str, ...]
    target: tuple[int, ...]
    group: str
    list_tokens: int = 0


@dataclass
class Tasks:
    """Chooses the task of a clip, another one in each epoch.

    Attributes:
        tokenizer: of the model.
        texts: sentences of each language; their words are the distractors of keyword lists.
        phrase_book: for each id the sentence in each language.
        settings: how often prompts have keywords.
        seed: of the build.
    """

    tokenizer: Tokenizer
    texts: Mapping[str, Sequence[str]]
    phrase_book: Mapping[str, Mapping[str, str]]
    settings: KeywordsSection
    seed: int = 0
    _samplers: dict[str, KeywordPrompts] = field(default_factory=dict)
    _prompts: dict[str, Prompt] = field(default_factory=dict)

    def example(self, language: str, text: str, phrase: str, key: str, epoch: int) -> Example:
        """The example of a clip in an epoch.

        Args:
            language: of the clip; "" for a sound without speech.
            text: what is said.
            phrase: its id in the phrase book, or "".
            key: identifies the clip.
            epoch: from 0.
        """
        rng = sample_rng(self.seed, epoch, f"{key}/task")
        if not language:
            return self._nothing(key, epoch, rng)
        if phrase in self.phrase_book and rng.random() < TRANSLATED:
            translations = self.phrase_book[phrase]
            others = [code for code in TARGETS if code != ENGLISH and translations.get(code)]
            target = others[rng.integers(len(others))] if language == ENGLISH and others else ENGLISH
            if target != language and translations.get(target):
                tokens = self._answer(translations[target])
                return Example(DEFAULT_PROFILE.translate(target), (), tokens, f"{language}>{target}")
        keywords, size = self._sampler(language).sample(key, text, epoch, KEYWORD_ROOM)
        group = f"{language} keys" if keywords else language
        return Example(DEFAULT_PROFILE.transcribe(), keywords, self._answer(text), group, size)

    def prompt(self, example: Example) -> Prompt:
        """The prompt of an example as tokens."""
        if example.keywords:
            return render(self.tokenizer, example.instruction, example.keywords)
        if example.instruction not in self._prompts:
            self._prompts[example.instruction] = render(self.tokenizer, example.instruction)
        return self._prompts[example.instruction]

    def _answer(self, text: str) -> tuple[int, ...]:
        return (*encode_text(self.tokenizer, text), self.tokenizer.eos_token_id)

    def _nothing(self, key: str, epoch: int, rng: np.random.Generator) -> Example:
        """A sound without speech, under any prompt."""
        language, chance = sorted(self.texts)[rng.integers(len(self.texts))], rng.random()
        keywords, size = tuple[str, ...](), 0
        if chance < 0.1:
            instruction = DEFAULT_PROFILE.translate(TARGETS[rng.integers(len(TARGETS))])
        else:
            instruction = DEFAULT_PROFILE.transcribe()
            if chance < 0.4:
                keywords, size = self._sampler(language).sample(key, "", epoch, KEYWORD_ROOM)
        return Example(instruction, keywords, self._answer(""), NOTHING, size)

    def _sampler(self, language: str) -> KeywordPrompts:
        if language not in self._samplers:
            texts = dict.fromkeys(self.texts.get(language, ())[:MOST_TEXTS])
            preset = NORMALIZERS.get(language, DEFAULT_NORMALIZER)
            rows = [(text, ()) for text in texts]
            self._samplers[language] = KeywordPrompts(self.settings, self.seed, preset, self.tokenizer, (), rows)
        return self._samplers[language]
