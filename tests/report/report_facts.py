"""Metrics of an evaluation in which nothing is remarkable, for tests of what a report says of it."""

import json
from typing import Any

from finetune.report.facts import Facts

SCORE = {
    "wer": 0.1,
    "cer": 0.05,
    "substitutions": 60,
    "deletions": 25,
    "insertions": 15,
    "hits": 915,
    "reference_words": 1000,
    "interval": {"low": 0.08, "high": 0.12, "blocks": 20, "note": ""},
    "blocks": {"unit": "speaker", "note": ""},
    "normalizer": "basic@1",
    "raw_wer": 0.1,
    "raw_cer": 0.05,
    "utterances": 100,
    "utterances_wrong": 40,
    "prompted": {"utterances": 0, "said": 0},
    "truncated": 0,
    "empty_hypotheses": 0,
    "flags": {},
    "without_flagged": {"utterances": 100, "wer": 0.1},
    "frequency": [
        {"name": "unseen", "words": 50, "missed": 10, "inserted": 0},
        {"name": "1 to 5", "words": 950, "missed": 75, "inserted": 0},
    ],
    "entities": [],
    "numerals": {"errors": 100, "numeral": 10, "style": 0},
    "style": {"words": 900, "case_errors": 0, "marks_said": 0, "marks_right": 0, "marks_invented": 0},
    "audio_seconds": 3600.0,
    "seconds": 100.0,
    "rtfx": 36.0,
    "terms": {
        kind: {
            "recall": 0.95,
            "precision": 1.0,
            "support": 100,
            "false_alarms": 0,
            "terms_said": 20,
            "macro_recall": 0.95,
            "low": 0.9,
            "high": 1.0,
            "note": "",
        }
        for kind in ("seen", "unseen")
    },
}
DIFFERENCE = {
    "difference": -0.1,
    "low": -0.15,
    "high": -0.05,
    "probability_better": 1.0,
    "p_value": 0.001,
    "p_holm": 0.001,
    "detectable": 0.03,
    "blocks": 20,
    "note": "",
    "mapsswe": {"segments": 100, "mean_difference": -1.0, "z": -5.0, "p_value": 0.001, "note": ""},
}
SAME = {**DIFFERENCE, "difference": 0.001, "low": -0.004, "high": 0.006, "p_value": 0.6, "p_holm": 0.6}


def group(column: str, **rows: tuple[int, float]) -> dict[str, Any]:
    """A table of groups with (words, WER of both models), each interval 0.02 wide on either side."""
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
                "interval": {which: {"low": wer - 0.02, "high": wer + 0.02} for which in ("base", "adapted")},
                "difference": SAME,
                "p_holm": 0.6,
            }
            for name, (words, wer) in rows.items()
        ],
    }


def metrics() -> dict[str, Any]:
    details = {"confusions": [], "normalizer_changes": [], "terms": []}
    probes = {"clips": 8, "with_output": 0, "share": 0.0, "words_per_minute": 0.0, "truncated": 0, "outputs": []}
    return json.loads(
        json.dumps(
            {
                "schema": 2,
                "settings": {
                    "normalizer": "basic@1",
                    "replicas": 1000,
                    "seed": 1,
                    "instruction": "write",
                    "decoder": "speculative",
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
                "decode": {
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
                "keyword_lists": {},
                "suspicious": 0,
            }
        )
    )


def facts(found: dict[str, Any] | None = None, **changes: Any) -> Facts:
    unremarkable = {
        "metrics": found or metrics(),
        "recipe": {
            "data": {"canary": ["c"], "replay": ["r"]},
            "train": {"interpolate": [0.9], "max_canary_loss": 0.02},
            "parts": {"ctc_head": {"mode": "frozen"}},
        },
        "valid": [(1, 0.2), (2, 0.199)],
        "leaked": {"clips": 0, "sentences": 0, "audio": 0, "speakers": 0},
        "flagged_errors": 0,
    }
    return Facts(**{**unremarkable, **changes})
