"""Base and adapted model on test and canary: every hypothesis kept, word errors with an interval."""

import json
import logging
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch

from finetune.config import Recipe
from finetune.data.manifest import Utterance, read_manifest
from finetune.decoding.recognize import DecodeOptions, Hypothesis, decoding_summary, recognize
from finetune.decoding.thresholds import Thresholds
from finetune.metrics.significance import bootstrap_wer, paired_difference
from finetune.metrics.terms import read_terms, summarize, term_recall
from finetune.metrics.wer import errors_per_utterance, score
from finetune.model.adapter import load_adapter
from finetune.model.granite import GraniteSpeech, load_model
from finetune.runs import RunDir, write_json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluateResult:
    """Scores by split and model (rates are fractions), and how the two decoders compare on test."""

    scores: dict[str, dict[str, dict[str, Any]]]
    differences: dict[str, dict[str, Any]]
    decode: dict[str, Any]
    seconds: float


def evaluate(recipe: Recipe, run: RunDir) -> EvaluateResult:
    """Decodes, scores and writes `evaluation/<split>.<base|adapted>.jsonl` and `evaluation/scores.json`.

    Raises:
        DataError: the list of terms cannot be read.
        CheckpointError: no adapter has been trained in this run.
    """
    started = time.monotonic()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    manifests = {split: run.manifest(split) for split in ("test", "canary")}
    splits = {split: read_manifest(path) for split, path in manifests.items() if path.is_file()}
    terms = read_terms(recipe.data.terms) if recipe.data.terms else []
    taught = [item.text for item in read_manifest(run.manifest("train"))]
    seen = {row.term for row in term_recall(taught, taught, terms, recipe.evaluate.normalizer) if row.support}
    heard: dict[str, dict[str, list[Hypothesis]]] = {split: {} for split in splits}
    for which in ("base", "adapted"):
        model = load_model(recipe.model.base, recipe.model.dtype, device, recipe.model.revision)
        if which == "adapted":
            load_adapter(model, run.best)
        for split, utterances in splits.items():
            heard[split][which] = recognize(model, utterances, _options(recipe, recipe.decode.decoder))
            _write(run, split, which, utterances, heard[split][which])
    decode = _compare_decoders(model, splits["test"], recipe)

    scores: dict[str, dict[str, dict[str, Any]]] = {}
    differences: dict[str, dict[str, Any]] = {}
    for split, utterances in splits.items():
        scores[split] = {which: _score(recipe, utterances, heard[split][which], terms, seen) for which in heard[split]}
        references, groups = [item.text for item in utterances], _blocks(utterances)
        errors = {which: errors_per_utterance(references, [h.text for h in hypotheses], recipe.evaluate.normalizer)
                  for which, hypotheses in heard[split].items()}
        pair = paired_difference([e for e, _ in errors["base"]], [e for e, _ in errors["adapted"]],
                                 [w for _, w in errors["base"]], groups, recipe.evaluate.replicas, recipe.seed)
        differences[split] = asdict(pair)
        for which, entry in scores[split].items():
            log.info("%-6s %-7s WER %5.1f %% (95 %%: %.1f to %.1f)  CER %5.1f %%", split, which, 100 * entry["wer"],
                     100 * entry["interval"]["low"], 100 * entry["interval"]["high"], 100 * entry["cer"])
    write_json(run.evaluation / "scores.json", {"scores": scores, "differences": differences, "decode": decode})
    return EvaluateResult(scores, differences, decode, round(time.monotonic() - started, 1))


def _options(recipe: Recipe, decoder: str) -> DecodeOptions:
    decode = recipe.decode
    relaxed = Thresholds(decode.max_entropy, decode.min_probability) if decoder == "relaxed" else None
    return DecodeOptions(recipe.model.instruction, decoder != "greedy", decode.batch_seconds, decode.max_new_tokens,
                         relaxed)


def _blocks(utterances: list[Utterance]) -> list[str]:
    """What the bootstrap draws: speakers where there are ten or more, else utterances."""
    speakers = {item.speaker for item in utterances}
    by_speaker = len(speakers) >= 10 and "" not in speakers
    return [item.speaker if by_speaker else item.id for item in utterances]


def _write(run: RunDir, split: str, which: str, utterances: list[Utterance], heard: list[Hypothesis]) -> None:
    path = run.hypotheses(split, which)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as out:
        for item, hypothesis in zip(utterances, heard, strict=True):
            row = {"id": item.id, "audio_filepath": item.audio_filepath, "duration": item.duration, "text": item.text,
                   "pred_text": hypothesis.text, "log_probability": round(hypothesis.log_probability, 4),
                   "time": round(hypothesis.seconds, 4), "truncated": hypothesis.truncated}
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def _score(recipe: Recipe, utterances: list[Utterance], heard: list[Hypothesis], terms: list[str],
           seen: set[str]) -> dict[str, Any]:
    references, hypotheses = [item.text for item in utterances], [item.text for item in heard]
    preset = recipe.evaluate.normalizer
    pairs = errors_per_utterance(references, hypotheses, preset)
    interval = bootstrap_wer([e for e, _ in pairs], [w for _, w in pairs], _blocks(utterances),
                             recipe.evaluate.replicas, recipe.seed)
    entry = {**asdict(score(references, hypotheses, preset)), "interval": asdict(interval), "normalizer": preset,
             "raw_wer": score(references, hypotheses, "none").wer, "truncated": sum(item.truncated for item in heard),
             "decoding": decoding_summary(heard)}
    if terms:
        rows = term_recall(references, hypotheses, terms, preset)
        entry["terms"] = {
            "seen": summarize([row for row in rows if row.term in seen]),
            "unseen": summarize([row for row in rows if row.term not in seen])}
    return entry


def _compare_decoders(model: GraniteSpeech, utterances: list[Utterance], recipe: Recipe) -> dict[str, Any]:
    """Greedy against speculative on the adapted model: the same tokens, the time and the acceptance."""
    greedy = recognize(model, utterances, _options(recipe, "greedy"))
    speculative = recognize(model, utterances, _options(recipe, "speculative"))
    differing = [a.id for a, b in zip(greedy, speculative, strict=True) if a.tokens != b.tokens]
    if differing:
        log.warning("speculative decoding differs from greedy on %d clips: %s", len(differing), differing[:3])
    drafted = sum(item.drafted for item in speculative)
    return {
        "greedy_seconds": round(sum(item.seconds for item in greedy), 3),
        "speculative_seconds": round(sum(item.seconds for item in speculative), 3),
        "tokens_equal": not differing,
        "acceptance": round(sum(item.accepted for item in speculative) / max(1, drafted), 4),
        "greedy_passes": round(sum(item.passes for item in greedy) / len(greedy), 2),
        "speculative_passes": round(sum(item.passes for item in speculative) / len(speculative), 2)}
