"""Scoring a base model as leaderboards do, on small local sets of the shape in which the hub has theirs."""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from numpy.typing import NDArray

from finetune.cli.main import main
from finetune.core.files import read_json
from finetune.core.options import DecodingOptions
from finetune.core.recipe import load_recipe
from finetune.data.manifest import Utterance
from finetune.evaluation import score as module
from finetune.inference import recognize
from finetune.metrics.normalizer import normalize
from finetune.model.granite import GraniteSpeech
from tests.conftest import ROOT, embedded

OPENASR = ROOT / "recipes" / "openasr.yaml"
EMPTY = ("(um)", "ignore_time_segment_in_scoring")  # nothing to score, by the leaderboard's rules


def parquet(path: Path, clips: list[Utterance], extra: tuple[str, ...] = ()) -> Path:
    """As datasets writes it: audio as {bytes, path}, and ids that are not unique."""
    texts = [*(clip.text.capitalize() + "." for clip in clips), *extra]
    audio = [
        {"bytes": Path(clips[number % len(clips)].audio_filepath).read_bytes(), "path": None}
        for number in range(len(texts))
    ]
    pyarrow.parquet.write_table(pyarrow.table({"audio": audio, "text": texts, "id": ["x"] * len(texts)}), path)
    return path


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sets")
    canary, test = embedded("canary", 4), embedded("test", 5)
    return [parquet(folder / "easy.parquet", canary, EMPTY), parquet(folder / "hard.parquet", test[:3])]


@pytest.fixture
def command(sets: list[Path], tmp_path: Path, nano: Path) -> Callable[..., int]:
    def call(*overrides: str) -> int:
        settings = [f"runs={tmp_path}", f"model.base={nano}", f"data.test={','.join(map(str, sets))}", *overrides]
        return main(["score", str(OPENASR), *(part for setting in settings for part in ("--set", setting))])

    return call


def test_sets_of_the_published_shape(
    command: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        assert command() == 0
    found = read_json(tmp_path / "openasr" / "score" / "scores.json")
    assert list(found["sets"]) == ["easy", "hard"] and found["settings"]["evaluate"]["normalizer"] == "openasr@2026-08"
    rates, audio, seconds = [], 0.0, 0.0
    for name, count, unscored in (("easy", 4, 2), ("hard", 3, 0)):
        lines = (tmp_path / "openasr" / "score" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        assert {"audio_filepath", "duration", "time", "text", "pred_text"} <= rows[0].keys()
        assert rows[0]["text"][0].isupper() and rows[0]["text"].endswith(".")  # raw, as the leaderboard keeps it
        entry = found["sets"][name]
        assert (entry["utterances"], entry["unscored"], len(rows)) == (count, unscored, count)
        assert entry["wer"] == jiwer.wer(
            *([normalize(row[key], "openasr@2026-08") for row in rows] for key in ("text", "pred_text"))
        )
        rates.append(round(100 * entry["wer"], 2))
        audio, seconds = audio + sum(row["duration"] for row in rows), seconds + sum(row["time"] for row in rows)
    assert found["macro_wer"] == pytest.approx(np.mean(rates) / 100)
    assert found["rtfx"] == pytest.approx(audio / seconds, rel=0.01)
    out = capsys.readouterr().out
    assert "easy: 4 clips, 2 without a reference" in caplog.text
    last = out.splitlines()[-1]
    assert last.startswith("mean of 2 sets (macro)") and f"{np.mean(rates):.2f}" in last

    monkeypatch.setattr(module, "load_model", lambda *_: pytest.fail("decoded again"))
    assert command("evaluate.normalizer=whisper-en@1") == 0  # scored again, and no more
    again = read_json(tmp_path / "openasr" / "score" / "scores.json")["sets"]["hard"]
    assert again["normalizer"] == "whisper-en@1"
    assert again["seconds"] == pytest.approx(found["sets"]["hard"]["seconds"], abs=0.01)
    with pytest.raises(pytest.fail.Exception, match="decoded again"):
        command("evaluate.normalizer=none")  # which scores the two others as well


def test_another_model_or_set_is_decoded_anew(
    command: Callable[..., int], sets: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def listen(
        model: object, clips: list[Utterance], instruction: str, options: DecodingOptions
    ) -> list[recognize.Hypothesis]:
        asked.append([clip.text for clip in clips])
        return [recognize.Hypothesis(clip.id, clip.text, (), 0.0, 0.5, 1, 0, 0, False) for clip in clips]

    monkeypatch.setattr(module, "decode_utterances", listen)
    monkeypatch.setattr(module, "load_model", lambda *_: object())
    for overrides, decoded in (((), 2), ((), 0), (("decode.max_new_tokens=100",), 2), ((), 2)):
        asked.clear()
        assert command(*overrides) == 0 and len(asked) == decoded
    found = read_json(tmp_path / "openasr" / "score" / "scores.json")
    assert found["macro_wer"] == 0 and [entry["rtfx"] for entry in found["sets"].values()] == pytest.approx(
        [entry["audio_seconds"] / (0.5 * entry["utterances"]) for entry in found["sets"].values()], rel=0.01
    )


def test_the_clock_stands_while_files_are_read(
    model: Callable[[], GraniteSpeech], clips: list[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    load = recognize.load_segments

    def slow(*arguments: Any) -> NDArray[np.float32]:
        now[0] += 100.0
        return load(*arguments)

    monkeypatch.setattr(recognize, "load_segments", slow)
    monkeypatch.setattr(recognize.time, "perf_counter", lambda: now[0])
    found = recognize.recognize(model(), clips[:2], "write", DecodingOptions("greedy", max_new_tokens=2))
    assert now[0] == 200.0 and [item.seconds for item in found] == [0.0, 0.0]


@pytest.mark.parametrize(
    "row, message",
    [
        (
            {"text": "lost", "audio": {"bytes": b"no sound", "path": None}},
            r"1 of 2 clips cannot be used.*\n.*unreadable",
        ),
        ({"text": "a", "audio": {"bytes": None, "path": "gone.wav"}}, "1 of 2 clips cannot be used"),
    ],
)
def test_a_clip_that_cannot_be_heard_stops_it(
    command: Callable[..., int], tmp_path: Path, row: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {"text": "fine", "audio": {"bytes": Path(embedded("test", 1)[0].audio_filepath).read_bytes(), "path": None}}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([good, row]), tmp_path / "bad.parquet")
    assert command(f"data.test={tmp_path / 'bad.parquet'}") == 1
    assert re.search(message, capsys.readouterr().err)


def test_a_set_without_a_reference_is_refused(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pyarrow.parquet.read_table(parquet(tmp_path / "empty.parquet", embedded("test", 1)))
    pyarrow.parquet.write_table(table.set_column(1, "text", [["(um)"]]), tmp_path / "empty.parquet")
    assert command(f"data.test={tmp_path / 'empty.parquet'}") == 1
    assert "no clip has a reference" in capsys.readouterr().err


def test_names_of_sets() -> None:
    assert list(
        module._names(
            [
                "hf:org/sets:ami:test",
                "hf:org/sets:librispeech:test.clean",
                "hf:org/other:test",
                "a/test.jsonl",
                "b/test.jsonl",
                "b/My set.csv",
                "hf:org/more:test",
            ]
        )
    ) == ["ami.test", "librispeech.test.clean", "org_other.test", "test", "test-2", "My_set", "org_more.test"]


def test_the_recipe_is_the_published_protocol() -> None:
    recipe, _ = load_recipe(OPENASR)
    assert recipe.model.instruction == "can you transcribe the speech into a written format?"
    assert (recipe.decode.max_new_tokens, recipe.decode.max_entropy, recipe.decode.min_probability) == (200, 0.7, 0.2)
    assert len(recipe.data.test) == 8 and len(module._names(recipe.data.test)) == 8


def test_a_recipe_for_scoring_cannot_train_and_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["run", str(OPENASR), "--set", f"runs={tmp_path}"]) == 2
    assert "data.train: empty, so nothing can be trained; `finetune score`" in capsys.readouterr().err
    assert main(["check", str(OPENASR)]) == 0
    assert "\ndata.train is empty: this recipe is for `finetune score`\n" in capsys.readouterr().out
    assert main(["check", str(OPENASR), "--set", "data.train=a.jsonl"]) == 2
    assert "data.valid: is missing" in capsys.readouterr().err
