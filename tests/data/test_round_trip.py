"""One corpus gives the same samples in every command: corpus, audit, manifest, and all readers of a manifest."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.core.files import read_jsonl
from finetune.data.audio import load_utterance
from finetune.data.audit import audit
from finetune.data.corpora import read_corpus
from finetune.data.manifest import Utterance, read_manifest, write_manifest
from finetune.evaluation.utterances import read_utterances

RATES = {"a": 16_000, "b": 44_100, "c \u00fc@1": 8_000}  # a sampling rate for each file
SECONDS = 4.0
IDS = st.text(st.characters(), min_size=1, max_size=8).filter(lambda name: " ".join(name.split()) == name)
ROWS = st.builds(
    dict,
    audio_filepath=st.sampled_from([f"{name}.wav" for name in RATES]),
    start=st.none() | st.floats(0, 2),
    length=st.none() | st.floats(0.2, 2),
    channel=st.sampled_from([None, 0, 1]),
    id=st.none() | IDS,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audio")
    for name, rate in RATES.items():
        sides = np.random.default_rng(rate).uniform(-0.3, 0.3, (round(SECONDS * rate), 2))
        soundfile.write(folder / f"{name}.wav", sides.astype(np.float32), rate, "FLOAT")
    return folder


def corpus_row(row: dict[str, Any], number: int) -> dict[str, Any]:
    """A row with the times as start and end; without times it is a whole file."""
    start, length = row.pop("start"), row.pop("length")
    if start is not None:
        row |= {"start": start, "end": start + (length or 1.0)}
    return {key: value for key, value in row.items() if value is not None} | {"text": f"words {number}"}


def audited(path: Path) -> list[Utterance]:
    result = audit(
        read_corpus(str(path), path.parent / "media"),
        min_duration=0,
        max_duration=60,
        max_chars_per_second=1000,
        special_tokens=(),
        workers=1,
    )
    return result.kept


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(ROWS, min_size=1, max_size=5))
def test_every_reader_gives_the_same_samples(folder: Path, rows: list[dict[str, Any]]) -> None:
    source, manifest = folder / "corpus.jsonl", folder / "manifest.jsonl"
    source.write_text("\n".join(json.dumps(corpus_row(row, number)) for number, row in enumerate(rows)))
    utterances = audited(source)
    if not utterances:
        return
    write_manifest(manifest, utterances)
    waves = {item.id: load_utterance(item) for item in utterances}
    for read in (read_manifest(manifest), read_utterances(manifest), audited(manifest)):
        assert [item.id for item in read] == [item.id for item in utterances]
        assert all(np.array_equal(load_utterance(item), waves[item.id]) for item in read)
        assert [(item.text, item.channel, item.audio_digest) for item in read] == [
            (item.text, item.channel, item.audio_digest) for item in utterances
        ]


def test_a_manifest_of_version_1_gives_the_same_samples(folder: Path) -> None:
    """Version 1 left out an offset of 0."""
    manifest, old = folder / "new.jsonl", folder / "old.jsonl"
    path = str(folder / "a.wav")
    write_manifest(manifest, [Utterance("x", path, 1.5, "one"), Utterance("y", path, 2.0, "two", offset=1.5)])
    rows = [{key: value for key, value in row.items() if value != 0.0} for row in read_jsonl(manifest)]
    old.write_text("\n".join(json.dumps({key: row[key] for key in row if key != "manifest_version"}) for row in rows))
    assert "offset" not in read_jsonl(old)[0] and "offset" in read_jsonl(old)[1]
    waves = [load_utterance(item) for item in read_manifest(manifest)]
    assert [len(wave) for wave in waves] == [24_000, 32_000]
    for read in (read_manifest(old), read_utterances(old), audited(old)):
        assert all(np.array_equal(load_utterance(a), b) for a, b in zip(read, waves, strict=True))


def test_texts_are_scored_without_audio(folder: Path) -> None:
    path = folder / "texts.jsonl"
    rows = [{"id": "x", "audio_filepath": "gone.wav", "duration": 2.5, "text": ""}]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert [(item.id, item.duration) for item in read_utterances(path, audio_required=False)] == [("x", 2.5)]


def test_changed_audio_is_a_warning(folder: Path) -> None:
    manifest = folder / "changed.jsonl"
    write_manifest(manifest, [Utterance("x", str(folder / "a.wav"), 1.0, "one", audio_digest="0" * 32)])
    result = audit(
        read_corpus(str(manifest), folder),
        min_duration=0,
        max_duration=60,
        max_chars_per_second=99,
        special_tokens=(),
        workers=1,
    )
    assert [problem.kind for problem in result.warnings] == ["audio changed", "several channels"]
