"""Results of an evaluation to which no rule of advice applies, for tests of the report."""

import json
from typing import Any

from finetune.core.config import Recipe
from finetune.metrics.results import EvaluationResults
from finetune.report.facts import Facts, Overlap

SCORE = {
    "wer": 0.1,
    "cer": 0.05,
    "substitutions": 60,
    "deletions": 25,
    "insertions": 15,
    "hits": 915,
    "reference_words": 1000,
    "char_errors": 250,
    "reference_chars": 5000,
    "interval": {"low": 0.08, "high": 0.12, "blocks": 20, "note": ""},
    "blocks": {"unit": "speaker", "note": "", "scope": "other speakers", "speakers": 20},
    "normalizer": "basic@2",
    "raw_wer": 0.1,
    "raw_cer": 0.05,
    "utterances": 100,
    "utterances_wrong": 40,
    "prompted": {"utterances": 0, "in_reference": 0},
    "truncated": 0,
    "empty_hypotheses": 0,
    "flags": {},
    "without_flagged": {"utterances": 100, "wer": 0.1},
    "frequency": [
        {"name": "unseen", "words": 50, "missed": 10, "inserted": 0},
        {"name": "1 to 5", "words": 950, "missed": 75, "inserted": 0},
    ],
    "entities": [],
    "numerals": {"errors": 100, "numeral": 10, "style": 0, "words": 1000, "numeral_words": 100},
    "style": {"words": 900, "case_errors": 0, "marks": 0, "marks_correct": 0, "marks_inserted": 0},
    "audio_seconds": 3600.0,
    "seconds": 100.0,
    "rtfx": 36.0,
    "terms": {
        kind: {
            "recall": 0.95,
            "precision": 1.0,
            "support": 100,
            "false_alarms": 0,
            "terms_in_references": 20,
            "macro_recall": 0.95,
            "low": 0.9,
            "high": 1.0,
            "note": "",
        }
        for kind in ("seen", "unseen")
    },
}
DIFFERENCE: dict[str, Any] = {
    "difference": -0.1,
    "low": -0.15,
    "high": -0.05,
    "probability_better": 1.0,
    "p_value": 0.001,
    "p_holm": 0.001,
    "detectable": 0.03,
    "blocks": 20,
    "note": "",
    "scope": "other speakers",
    "speakers": 20,
    "mapsswe": {"segments": 100, "mean_difference": -1.0, "z": -5.0, "p_value": 0.001, "note": ""},
}
SAME: dict[str, Any] = {**DIFFERENCE, "difference": 0.001, "low": -0.004, "high": 0.006, "p_value": 0.6, "p_holm": 0.6}


def group(column: str, **rows: tuple[int, float]) -> dict[str, Any]:
    """A table of groups with (words, WER of both models); each interval is the WER ± 0.02."""
    wers = [wer for _, wer in rows.values()]
    return {
        "column": column,
        "note": "",
        "worst": {"adapted": max(rows, key=lambda name: rows[name][1])},
        "gap": {"adapted": max(wers) - min(wers)},
        "rows": [
            {
                "name": name,
                "clips": 10,
                "speakers": 5,
                "words": words,
                "wer": {"base": wer, "adapted": wer},
                "interval": {
                    system: {"low": wer - 0.02, "high": wer + 0.02, "blocks": 5} for system in ("base", "adapted")
                },
                "difference": {
                    key: value for key, value in SAME.items() if key not in ("mapsswe", "p_holm", "scope", "speakers")
                },
                "p_holm": 0.6,
                "ranked": True,
                "unit": "speaker",
                "note": "",
            }
            for name, (words, wer) in rows.items()
        ],
    }


def metrics() -> dict[str, Any]:
    """The content of evaluation/metrics.json; each call returns a new copy."""
    decoding = {"acceptance": 0.7, "passes": 3.0, "seconds": 0.6, "gave_up": 0, "accepted_by": {"llm": 100}}
    details = {"confusions": [], "normalizer_changes": [], "terms": []}
    probes = {"clips": 8, "with_output": 0, "fraction": 0.0, "words_per_minute": 0.0, "truncated": 0, "outputs": []}
    return json.loads(
        json.dumps(
            {
                "schema_version": 5,
                "settings": {
                    "normalizer": "basic@2",
                    "replicas": 1000,
                    "groups": ["accent"],
                    "probes": True,
                    "keyword_lists": [],
                    "seed": 1,
                    "instruction": "write",
                    "decoder": "speculative",
                },
                "provenance": {
                    "made": "2026-01-01T00:00:00+00:00",
                    "toolkit": "0.1.0",
                    "commit": None,
                    "python": "3.12",
                    "libraries": {"torch": "2"},
                    "device": "a processor",
                    "dtype": "float32",
                    "system": "Linux",
                },
                "scores": {name: {"base": {**SCORE, "wer": 0.2}, "adapted": SCORE} for name in ("test", "canary")},
                "differences": {"test": DIFFERENCE, "canary": SAME},
                "details": {"test": {"base": details, "adapted": details}},
                "groups": {
                    "test": [
                        group("duration", short=(500, 0.1), long=(500, 0.1)),
                        group("accent", north=(500, 0.1), south=(500, 0.1)),
                    ]
                },
                "decoding": {name: {"base": decoding, "adapted": decoding} for name in ("test", "canary")},
                "decoders": {
                    "greedy_seconds": 100.0,
                    "speculative_seconds": 60.0,
                    "tokens_equal": True,
                    "acceptance": 0.7,
                    "greedy_wer": 0.1,
                    "speculative_wer": 0.1,
                    "greedy_passes": 9.0,
                    "speculative_passes": 3.0,
                },
                "probes": {"base": probes, "adapted": probes},
                "keyword_lists": None,
                "suspicious": 0,
            }
        )
    )


def results(content: dict[str, Any] | None = None) -> EvaluationResults:
    return EvaluationResults.model_validate(metrics() if content is None else content)


def recipe(**sections: dict[str, Any]) -> Recipe:
    data = {"train": ["t"], "valid": ["v"], "test": ["s"], **sections.pop("data", {})}
    return Recipe.model_validate({"name": "x", "model": {"base": "-"}, "data": data, **sections})


def facts(content: dict[str, Any] | None = None, **changes: Any) -> Facts:
    fields = {
        "results": results(content),
        "recipe": recipe(
            data={"canary": ["c"], "replay": ["r"]}, train={"interpolate": [0.9], "max_canary_loss": 0.02}
        ),
        "valid": [(1, 0.2), (2, 0.199)],
        "overlap": Overlap(0, 0, 0, 0),
        "flagged_errors": 0,
    }
    return Facts(**{**fields, **changes})
