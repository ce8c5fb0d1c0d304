"""Scores of the embedded model on clips that never trained, by language and voice, and on sounds without speech."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.core.config import AugmentSection
from finetune.core.options import DecodingOptions
from finetune.core.prompts import DEFAULT_PROFILE, TRANSLATE
from finetune.data.audio import SAMPLE_RATE
from finetune.data.manifest import Utterance
from finetune.data.probes import SECONDS, guard_probes, probe_waves
from finetune.inference.encode import encode_batches
from finetune.inference.recognize import transcribe_batch
from finetune.metrics.hallucination import Probe, false_keywords, summarize_probes
from finetune.metrics.keyword_terms import words_of
from finetune.metrics.normalizer import normalize
from finetune.metrics.translation import translation_scores
from finetune.metrics.wer import score
from finetune.model.ctc import greedy_text
from finetune.model.granite import SpeechModel
from nano.clips import Clips
from nano.encoder import ctc_text
from nano.rounds import Item
from nano.scaffold import TARGETS
from nano.sounds import Sounds
from nano.tasks import DEFAULT_NORMALIZER, ENGLISH, NORMALIZERS, Tasks

CLIPS, SEED = 200, 0  # of each set; chooses the clips and their effects
DISTRACTORS = (9, 99)  # in lists with one word of the clip
RARE, SHORTEST = 2, 4  # a word to tell occurs at most so often in training, and has so many letters
MUSIC = ("melody", "chords", "beeps", "dial tone")
Wave = NDArray[np.float32]


class ClipTranscriber:
    """Transcribes utterances whose samples are made from their ids; 0 `max_new_tokens` leave the language model out."""

    def __init__(
        self, model: SpeechModel, wave: Callable[[str], Wave], max_new_tokens: int, decoder: Any = "greedy"
    ) -> None:
        self.model, self.wave, self.llm = model.eval(), wave, max_new_tokens > 0
        self.options = DecodingOptions(decoder, max_new_tokens=max(1, max_new_tokens), batch_seconds=120.0)

    @torch.inference_mode()
    def transcribe(self, items: Sequence[Utterance]) -> tuple[list[str], list[str]]:
        """The texts of the CTC head, and those of the language model."""
        drafts, texts = [""] * len(items), [""] * len(items)
        batches = encode_batches(
            self.model, items, self.options.batch_seconds, lambda chosen: [self.wave(item.id) for item in chosen]
        )
        for batch, audio, _ in batches:
            logits, chosen = self.model.ctc_logits(audio.states), [items[index] for index in batch]
            for row, index in enumerate(batch):
                drafts[index] = greedy_text(logits[row, : int(audio.num_frames[row])])
            if self.llm:
                found = transcribe_batch(self.model, audio, chosen, DEFAULT_PROFILE.transcribe(), self.options)
                for index, hypothesis in zip(batch, found, strict=True):
                    texts[index] = hypothesis.text
        return drafts, texts


def score_clips(
    model: SpeechModel, clips: Clips, tasks: Tasks, effects: AugmentSection, max_new_tokens: int, limit: int
) -> dict[str, Any]:
    """The scores of clips, as fractions.

    Args:
        model: the model.
        clips: clips for evaluation.
        tasks: with the phrase book, and the sentences for training, by which a word is rare.
        effects: what is done to clips.
        max_new_tokens: of the language model; 0 if it has not been trained with audio.
        limit: clips of each set.
    """
    sounds = Sounds(clips, effects, SEED)
    clean = ClipTranscriber(model, lambda row: clips.wave(int(row)), max_new_tokens)
    noisy = ClipTranscriber(model, lambda row: sounds.wave(_item(clips, int(row))), max_new_tokens)
    result: dict[str, Any] = {"clips": {}, "with effects": {}}
    for name, items in _sets(clips, limit, SEED).items():
        result["clips"][name] = _error_rates(clean, items)
    for language, items in _languages(clips, limit, SEED).items():
        result["with effects"][language] = _error_rates(noisy, items)
    if max_new_tokens:
        result["keywords"] = {
            language: found
            for language, items in _languages(clips, limit, SEED).items()
            if (found := _keyword_scores(clean, items, tasks.texts.get(language, ()), SEED))
        }
        result["translation"] = _translations(clean, clips, tasks.phrase_book, limit, SEED)
    return result


def _item(clips: Clips, row: int) -> Item:
    return Item((row,), clips.num_samples[row] / SAMPLE_RATE, clips.value("language", row), "", "", f"score {row}", 0)


def _utterances(clips: Clips, rows: NDArray[np.int64], limit: int, seed: int) -> list[Utterance]:
    """Up to `limit` of the rows; the id of an utterance is its row."""
    chosen = np.sort(np.random.default_rng(seed).permutation(rows)[:limit]).tolist()
    return [
        Utterance(
            str(row), "", clips.num_samples[row] / SAMPLE_RATE, clips.texts[row], language=clips.value("language", row)
        )
        for row in chosen
    ]


def _sets(clips: Clips, limit: int, seed: int) -> dict[str, list[Utterance]]:
    """The clips of each language, and of each engine in it."""
    languages, engines = clips.columns["language"], clips.columns["engine"]
    sets = {}
    for number, language in enumerate(languages[0]):
        for place, engine in enumerate(engines[0]):
            rows = np.flatnonzero((languages[1] == number) & (engines[1] == place))
            if len(rows):
                sets[f"{language} {engine}"] = _utterances(clips, rows, limit, seed)
    return sets


def _languages(clips: Clips, limit: int, seed: int) -> dict[str, list[Utterance]]:
    names, numbers = clips.columns["language"]
    return {
        name: _utterances(clips, np.flatnonzero(numbers == place), limit, seed)
        for place, name in enumerate(names)
        if (numbers == place).any()
    }


def _error_rates(transcriber: ClipTranscriber, items: list[Utterance]) -> dict[str, float]:
    drafts, texts = transcriber.transcribe(items)
    preset = NORMALIZERS.get(items[0].language, DEFAULT_NORMALIZER)
    ctc = score([ctc_text(item.text) for item in items], drafts, preset)
    rates = {"clips": len(items), "ctc_cer": ctc.cer, "ctc_wer": ctc.wer}
    if transcriber.llm:
        llm = score([item.text for item in items], texts, preset)
        rates |= {"llm_cer": llm.cer, "llm_wer": llm.wer}
    return {name: round(value, 4) for name, value in rates.items()}


def _keyword_scores(
    transcriber: ClipTranscriber, items: list[Utterance], texts: Sequence[str], seed: int
) -> dict[str, float | int]:
    """Recall of a rare word of each clip without a list and with one, and the WER with distractors only."""
    preset = NORMALIZERS.get(items[0].language, DEFAULT_NORMALIZER)
    counts = Counter(word for text in texts for word in words_of(text))
    rare = {
        item.id: min(found, key=lambda word: (counts[word], word))
        for item in items
        if (found := [w for w in words_of(item.text) if len(w) >= SHORTEST and counts[w] <= RARE])
    }
    chosen = [item for item in items if item.id in rare]
    pool = sorted({*rare.values(), *(word for word, count in counts.items() if count <= RARE)})
    if not chosen or len(pool) <= max(DISTRACTORS):
        return {}
    rng, scores = np.random.default_rng((seed, 1)), dict[str, float | int]()

    def asked(distractors: int, told: bool) -> list[Utterance]:
        rows = []
        for item in chosen:
            words = {*words_of(item.text)}
            drawn = [pool[n] for n in rng.permutation(len(pool))[: distractors + 20].tolist() if pool[n] not in words]
            listed = [*drawn[:distractors], *([rare[item.id]] if told else [])]
            rows.append(replace(item, keywords=tuple(listed[n] for n in rng.permutation(len(listed)))))
        return rows

    for name, rows in {
        "no list": chosen,
        **{f"told among {count}": asked(count, True) for count in DISTRACTORS},
        f"{max(DISTRACTORS)} distractors": asked(max(DISTRACTORS), False),
    }.items():
        written = transcriber.transcribe(rows)[1]
        hits = sum(
            f" {normalize(rare[row.id], preset)} " in f" {normalize(text, preset)} "
            for row, text in zip(rows, written, strict=True)
        )
        false = sum(
            len(false_keywords(row.text, text, row.keywords, preset)) for row, text in zip(rows, written, strict=True)
        )
        scores[f"{name}: recall"] = round(hits / len(rows), 4)
        scores[f"{name}: wer"] = round(score([row.text for row in rows], written, preset).wer, 4)
        scores[f"{name}: false keywords per clip"] = round(false / len(rows), 4)
    return {"clips": len(chosen), **scores}


def _translations(
    transcriber: ClipTranscriber, clips: Clips, phrase_book: Mapping[str, Mapping[str, str]], limit: int, seed: int
) -> dict[str, dict[str, float]]:
    """BLEU and chrF into English, and from English into each language of the phrase book."""
    pairs = defaultdict[tuple[str, str], list[int]](list)
    for row, phrase in enumerate(clips.phrases):
        source = clips.value("language", row)
        for target in TARGETS:
            if phrase_book.get(phrase, {}).get(target) and target != source and ENGLISH in (source, target):
                pairs[source, target].append(row)
    scores = {}
    for (source, target), rows in sorted(pairs.items()):
        items = [
            replace(item, task=TRANSLATE, target_language=target, text=phrase_book[clips.phrases[int(item.id)]][target])
            for item in _utterances(clips, np.array(rows), limit, seed)
        ]
        found = translation_scores([item.text for item in items], transcriber.transcribe(items)[1], target)
        scores[f"{source}>{target}"] = {"clips": len(items), "bleu": round(found.bleu, 1), "chrf": round(found.chrf, 1)}
    return scores


def score_no_speech(model: SpeechModel, max_new_tokens: int, decoder: Any = "greedy") -> dict[str, float]:
    """Words a minute of each kind of sound, of the language model or, before it is trained, of the CTC head."""
    waves = no_speech_waves()
    items = [Utterance(name, "", SECONDS, "") for name in waves]
    transcriber = ClipTranscriber(model, lambda name: waves[name], max_new_tokens, decoder)
    texts = transcriber.transcribe(items)[int(transcriber.llm)]
    return words_in_a_minute(dict(zip(waves, texts, strict=True)))


def no_speech_waves() -> dict[str, Wave]:
    """Sounds without speech by name, of `SECONDS` each, 16 kHz."""
    return {name: wave.astype(np.float32) for name, wave in {**probe_waves(0), **guard_probes(0)}.items()}


def words_in_a_minute(texts: Mapping[str, str]) -> dict[str, float]:
    """Words a minute of each kind of sound, from the texts of `no_speech_waves`."""
    probes = defaultdict[str, list[Probe]](list)
    for name, text in texts.items():
        kind = "silence" if name == "silence" else "music" if name.startswith(MUSIC) else "noise"
        probes[kind].append(Probe(kind, SECONDS, text))
    return {kind: round(summarize_probes(found).words_per_minute, 1) for kind, found in probes.items()}
