"""Pseudo-labels are counted in a manifest by their mark, not by words in a text."""

from pathlib import Path

from finetune.data.manifest import Utterance, write_manifest
from finetune.data.pseudo_labels import COLUMN, count_pseudo_labels


def test_only_marked_rows_count(tmp_path: Path) -> None:
    rows = [
        Utterance("a", "a.wav", 1.0, "one", extra={COLUMN: True}),
        Utterance("b", "b.wav", 1.0, '"pseudo_label": true'),
        Utterance("c", "c.wav", 1.0, "two", extra={COLUMN: False}),
    ]
    write_manifest(tmp_path / "train.jsonl", rows)
    assert count_pseudo_labels(tmp_path / "train.jsonl") == 1
    assert count_pseudo_labels(tmp_path / "missing.jsonl") == 0
