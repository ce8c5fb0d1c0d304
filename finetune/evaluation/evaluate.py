"""Base and adapted model on test and canary: every hypothesis kept, what got better, what it cost, how sure that is."""

import logging
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from finetune.core.config import Recipe
from finetune.core.files import write_json
from finetune.core.provenance import provenance
from finetune.core.run_dir import SCHEMA, RunDir
from finetune.data.manifest import Utterance, read_manifest
from finetune.data.probes import write_probes
from finetune.evaluation.decode import decode_utterances, system_output
from finetune.evaluation.keyword_lists import evaluate_keyword_lists
from finetune.evaluation.probes import evaluate_probes
from finetune.evaluation.scoring_sets import normalizer_for, scoring_sets
from finetune.evaluation.utterance_rows import hypothesis_row, utterance_rows, write_transcripts
from finetune.evaluation.utterances import clip_of
from finetune.inference.ctc_text import ctc_texts
from finetune.inference.recognize import Hypothesis, decoding_summary
from finetune.metrics.reference_check import agreeing_against
from finetune.metrics.sclite import write_rows
from finetune.metrics.scorecard import ScoringOptions, comparison, group_tables, scorecard
from finetune.metrics.significance import holm
from finetune.metrics.terms import column_terms, read_terms, term_recall
from finetune.metrics.wer import score
from finetune.metrics.words import word_counts
from finetune.model.adapter import load_adapter
from finetune.model.granite import GraniteSpeech, load_model, resolved_dtype

log = logging.getLogger(__name__)

SYSTEMS = ("base", "adapted")


@dataclass(frozen=True)
class EvaluateResult:
    """Scores by set and model (rates are fractions), and how the two decoders compare on test."""

    scores: dict[str, dict[str, dict[str, Any]]]
    differences: dict[str, dict[str, Any]]
    decode: dict[str, Any]
    seconds: float


def evaluate(recipe: Recipe, run: RunDir) -> EvaluateResult:
    """Decodes, scores and writes `evaluation/`: `metrics.json`, and per utterance what was heard.

    Raises:
        DataError: the list of terms cannot be read.
        CheckpointError: no adapter has been trained in this run.
    """
    started = time.monotonic()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    decoded = {
        split: read_manifest(run.manifest(split)) for split in ("test", "canary") if run.manifest(split).is_file()
    }
    setting = _setting(recipe, run, decoded["test"])
    instruction, options = recipe.model.instruction, recipe.decode
    probes = write_probes(run.probes, recipe.seed) if recipe.evaluate.probes else []
    heard: dict[str, dict[str, list[Hypothesis]]] = {split: {} for split in decoded}
    trials: dict[str, dict[str, Any]] = {"probes": {}, "keyword_lists": {}}
    for which in SYSTEMS:
        model = load_model(recipe.model.base, recipe.model.dtype, device, recipe.model.revision)
        if which == "adapted":
            load_adapter(model, run.best)
        for split, utterances in decoded.items():
            heard[split][which] = decode_utterances(model, utterances, instruction, options)
            write_rows(run.hypotheses(split, which), map(hypothesis_row, utterances, heard[split][which]))
        if probes:
            trials["probes"][which] = asdict(evaluate_probes(model, probes, instruction, options))
        if recipe.evaluate.keyword_lists and setting.terms:
            keyword_scores = evaluate_keyword_lists(
                model,
                decoded["test"],
                instruction,
                options,
                list(setting.terms),
                sorted(setting.trained),
                recipe.evaluate.keyword_lists,
                setting.preset,
                setting.seed,
            )
            trials["keyword_lists"][which] = [asdict(row) for row in keyword_scores]
    decode = _compare_decoders(model, decoded["test"], heard["test"]["adapted"], recipe)
    suspects = _suspicious(model, decoded["test"], heard["test"], setting.preset)
    write_rows(run.suspicious, suspects)

    result: dict[str, dict[str, Any]] = {"scores": {}, "differences": {}, "details": {}, "groups": {}}
    rows: list[dict[str, Any]] = []
    for name, (split, chosen) in scoring_sets(decoded).items():
        items = [decoded[split][i] for i in chosen]
        counted = replace(setting, preset=normalizer_for(items, setting.preset))
        clips = [clip_of(item, recipe.model.instruction, split == "test") for item in items]
        texts = {which: [system_output(found[i]) for i in chosen] for which, found in heard[split].items()}
        cards = {which: scorecard(clips, found, counted) for which, found in texts.items()}
        result["scores"][name] = {
            which: {**entry, "decoding": decoding_summary([heard[split][which][i] for i in chosen])}
            for which, (entry, _) in cards.items()
        }
        result["details"][name] = {which: details for which, (_, details) in cards.items()}
        result["differences"][name] = comparison(clips, texts["base"], texts["adapted"], counted)
        tables = group_tables(clips, texts, recipe.evaluate.groups, counted)
        result["groups"][name] = [asdict(table) for table in tables]
        for column in {*recipe.evaluate.groups} - {table.column for table in tables}:
            log.info("%-6s no clip has a %s: nothing is known of groups by it", name, column)
        if name in decoded:
            write_transcripts(run, name, clips, texts, counted.preset)
            rows += utterance_rows(name, items, clips, texts, counted.preset)
        _tell(name, result["scores"][name], result["differences"][name])
    canaries = [difference for name, difference in result["differences"].items() if name != "test"]
    for difference, adjusted in zip(canaries, holm([found["p_value"] for found in canaries]), strict=True):
        difference["p_holm"] = adjusted  # so many tests for the same question: did general speech get worse?
    write_rows(run.utterances, rows)
    machine = torch.cuda.get_device_name() if device == "cuda" else device
    write_json(
        run.scores,
        {
            "schema": SCHEMA,
            "settings": {
                **recipe.evaluate.model_dump(),
                "seed": recipe.seed,
                "instruction": recipe.model.instruction,
                "decoder": recipe.decode.decoder,
            },
            "provenance": provenance(machine, resolved_dtype(recipe.model.dtype, device)),
            **result,
            "decode": decode,
            **trials,
            "suspicious": len(suspects),
        },
    )
    return EvaluateResult(result["scores"], result["differences"], decode, round(time.monotonic() - started, 1))


def _setting(recipe: Recipe, run: RunDir, test: list[Utterance]) -> ScoringOptions:
    """How to count, with the recipe's terms, or those of the test manifest's columns `terms` and `keywords`."""
    preset = recipe.evaluate.normalizer
    taught = [
        item.text
        for split in ("train", "replay")
        if run.manifest(split).is_file()
        for item in read_manifest(run.manifest(split))
    ]
    cells = [cell for item in test for cell in (item.keywords, item.extra.get("terms"))]
    terms = read_terms(recipe.data.terms) if recipe.data.terms else column_terms(cells, preset)
    seen = frozenset(row.term for row in term_recall(taught, taught, terms, preset) if row.support)
    return ScoringOptions(
        preset, recipe.evaluate.replicas, recipe.seed, tuple(terms), seen, word_counts(taught, preset)
    )


def _suspicious(
    model: GraniteSpeech, utterances: list[Utterance], heard: dict[str, list[Hypothesis]], preset: str
) -> list[dict[str, Any]]:
    """Clips whose text stands alone against base, adapted and the CTC head, the most suspicious first."""
    texts = {which: [item.text for item in heard[which]] for which in SYSTEMS}
    doubt = agreeing_against([item.text for item in utterances], [texts[which] for which in SYSTEMS], preset)
    chosen = [index for index, value in enumerate(doubt) if value > 0]  # the CTC head is asked only about these
    items = [utterances[index] for index in chosen]
    drafts = ctc_texts(model, items)
    readings = [*([texts[which][index] for index in chosen] for which in SYSTEMS), drafts]
    rows = [
        {
            "id": item.id,
            "audio_filepath": item.audio_filepath,
            "offset": item.offset,
            "duration": item.duration,
            "text": item.text,
            "pred_text": adapted,
            "pred_text_base": base,
            "pred_text_ctc": draft,
            "suspicion": round(value, 4),
        }
        for item, base, adapted, draft, value in zip(
            items, *readings, agreeing_against([item.text for item in items], readings, preset), strict=True
        )
    ]
    return sorted((row for row in rows if row["suspicion"] > 0), key=lambda row: -row["suspicion"])


def _compare_decoders(
    model: GraniteSpeech, utterances: list[Utterance], heard: list[Hypothesis], recipe: Recipe
) -> dict[str, Any]:
    """Greedy against speculative on the adapted model: the same tokens, the time and the acceptance."""
    greedy, speculative = (
        heard
        if recipe.decode.decoder == decoder
        else decode_utterances(model, utterances, recipe.model.instruction, replace(recipe.decode, decoder=decoder))
        for decoder in ("greedy", "speculative")
    )
    differing = [a.id for a, b in zip(greedy, speculative, strict=True) if a.tokens != b.tokens]
    if differing:
        log.warning("speculative decoding differs from greedy on %d clips: %s", len(differing), differing[:3])
    texts, preset = [item.text for item in utterances], recipe.evaluate.normalizer
    greedy_wer = score(texts, [item.text for item in greedy], preset).wer
    drafted = sum(item.drafted for item in speculative)
    return {
        "greedy_seconds": round(sum(item.seconds for item in greedy), 3),
        "speculative_seconds": round(sum(item.seconds for item in speculative), 3),
        "greedy_wer": greedy_wer,
        "speculative_wer": score(texts, [item.text for item in speculative], preset).wer if differing else greedy_wer,
        "tokens_equal": not differing,
        "acceptance": round(sum(item.accepted for item in speculative) / max(1, drafted), 4),
        "greedy_passes": round(sum(item.passes for item in greedy) / len(greedy), 2),
        "speculative_passes": round(sum(item.passes for item in speculative) / len(speculative), 2),
    }


def _tell(name: str, scores: dict[str, dict[str, Any]], difference: dict[str, Any]) -> None:
    for which, entry in scores.items():
        log.info(
            "%-6s %-7s WER %5.1f %% (95 %%: %.1f to %.1f)  as written %5.1f %%  CER %5.1f %%",
            name,
            which,
            100 * entry["wer"],
            100 * entry["interval"]["low"],
            100 * entry["interval"]["high"],
            100 * entry["raw_wer"],
            100 * entry["cer"],
        )
    if note := difference["note"] or scores["adapted"]["blocks"]["note"]:
        log.info("%-6s %s", name, note)
    if given := scores["adapted"]["prompted"]["said"]:
        log.warning(
            "%s: %d of %d prompts hold a keyword that is said in their clip: this is how well the model hears "
            "words that it is told",
            name,
            given,
            scores["adapted"]["utterances"],
        )
