"""`finetune score` on small local sets in the format of the sets of the Open ASR Leaderboard on the hub."""

import hashlib
import json
import logging
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
from pydantic import TypeAdapter

from finetune.cli.main import main
from finetune.core.array_job import Shard
from finetune.core.errors import DataError
from finetune.core.files import read_json, read_jsonl, sha256_file, write_json
from finetune.core.options import INSTRUCTION, DecodingOptions
from finetune.core.recipe import load_recipe
from finetune.core.run_dir import RunDir
from finetune.data.manifest import Utterance, write_manifest
from finetune.evaluation.score import Decoder, ScoreResult, score, score_shard, score_table, set_names
from finetune.inference.recognize import Hypothesis, recognize
from finetune.metrics.normalizer import normalize
from finetune.model.granite import SpeechModel
from tests.conftest import ROOT, embedded

OPENASR = ROOT / "recipes" / "openasr.yaml"
EMPTY = ("(um)", "ignore_time_segment_in_scoring")  # not scored, by the rules of the leaderboard


def parquet(path: Path, clips: list[Utterance], extra: tuple[str, ...] = ()) -> Path:
    """Writes clips as `datasets` does: audio as {bytes, path}; and ids that are not unique."""
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
def settings(sets: list[Path], tmp_path: Path, nano: Path) -> list[str]:
    """Overrides of the recipe: the test sets, the embedded model, and a folder for runs."""
    return [f"runs={tmp_path}", f"model.base={nano}", f"data.test={','.join(map(str, sets))}"]


@pytest.fixture
def command(settings: list[str]) -> Callable[..., int]:
    def call(*overrides: str) -> int:
        return main(["score", str(OPENASR), *(part for value in [*settings, *overrides] for part in ("--set", value))])

    return call


def _inputs_of_version_0_2(runs: Path, record: Path) -> str:
    """The hash of everything that the hypotheses of a set depended on, when decoding had five settings."""
    settings = read_json(runs / "openasr" / "score" / "scores.json")["settings"]
    names = ("decoder", "max_entropy", "min_probability", "max_new_tokens", "batch_seconds")
    source = read_json(runs / "openasr" / "score" / "scores.json")["sets"][record.name.partition(".")[0]]["source"]
    files = [Path(source), *sorted(Path(settings["model"]["base"]).glob("*.safetensors"))]
    inputs = [
        source,
        settings["model"],
        {name: settings["decode"][name] for name in names},
        *(sha256_file(path) for path in files if path.is_file()),
    ]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def test_all_sets_are_read_before_one_is_decoded(sets: list[Path], tmp_path: Path, nano: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"audio_filepath": "gone.wav", "text": "gone"}\n', encoding="utf-8")
    recipe, _ = load_recipe(OPENASR, [f"runs={tmp_path}", f"model.base={nano}", f"data.test={sets[0]},{bad}"])

    def decoder(utterances: Sequence[Utterance]) -> list[Hypothesis]:
        pytest.fail("a set was decoded")

    with pytest.raises(DataError, match="bad.jsonl: 0 of 1 audio files exist"):
        score(recipe, RunDir(tmp_path / "openasr"), decoder)


def test_scores_of_two_sets(
    command: Callable[..., int],
    settings: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        assert command() == 0
    content = read_json(tmp_path / "openasr" / "score" / "scores.json")
    assert (
        list(content["sets"]) == ["easy", "hard"] and content["settings"]["evaluate"]["normalizer"] == "openasr@2026-08"
    )
    result = TypeAdapter(ScoreResult).validate_python(content)  # the type refuses unknown and missing keys
    assert result.settings.model.instruction == INSTRUCTION
    rates, audio, seconds = [], 0.0, 0.0
    for name, count, unscored in (("easy", 4, 2), ("hard", 3, 0)):
        lines = (tmp_path / "openasr" / "score" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        assert {"audio_filepath", "duration", "time", "text", "pred_text"} <= rows[0].keys()
        assert rows[0]["text"][0].isupper() and rows[0]["text"].endswith(".")  # not normalized
        entry = content["sets"][name]
        assert (entry["utterances"], entry["unscored"], len(rows)) == (count, unscored, count)
        assert entry["wer"] == jiwer.wer(
            *([normalize(row[key], "openasr@2026-08") for row in rows] for key in ("text", "pred_text"))
        )
        rates.append(round(100 * entry["wer"], 2))
        audio, seconds = audio + sum(row["duration"] for row in rows), seconds + sum(row["time"] for row in rows)
    assert content["macro_wer"] == pytest.approx(np.mean(rates) / 100)
    assert content["rtfx"] == pytest.approx(audio / seconds, rel=0.01)
    out = capsys.readouterr().out
    assert "easy: 4 clips, 2 without a reference" in caplog.text
    last = out.splitlines()[-1]
    assert last.startswith("mean WER of 2 sets") and f"{np.mean(rates):.2f}" in last

    files = [tmp_path / "openasr" / "score" / f"{name}.jsonl" for name in ("easy", "hard")]
    written = [path.stat().st_mtime_ns for path in files]
    assert command("evaluate.normalizer=whisper-en@1") == 0  # scored again, not decoded again
    assert [path.stat().st_mtime_ns for path in files] == written
    again = read_json(tmp_path / "openasr" / "score" / "scores.json")["sets"]["hard"]
    assert again["normalizer"] == "whisper-en@1"
    assert again["seconds"] == pytest.approx(content["sets"]["hard"]["seconds"], abs=0.01)
    for record in (tmp_path / "openasr" / "score").glob("*.done.json"):  # as version 0.2 wrote it
        write_json(record, {**read_json(record), "inputs": _inputs_of_version_0_2(tmp_path, record)})
    assert command() == 0 and [path.stat().st_mtime_ns for path in files] == written
    command("evaluate.normalizer=none")  # the two references that are empty otherwise are scored too: a new decoding
    assert files[0].stat().st_mtime_ns > written[0] and files[1].stat().st_mtime_ns == written[1]


def test_clips_are_transcribed_again_if_their_audio_changes(settings: list[str], tmp_path: Path) -> None:
    """Under the same names, also if the parts of an array were decoded before."""
    rate, noise = 16_000, np.random.default_rng(0)
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", noise.normal(0, 0.1, rate), rate)
    rows = [{"id": name, "audio_filepath": f"{name}.wav", "text": "x"} for name in "ab"]
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    decoded = list[list[str]]()

    def decoder(utterances: Sequence[Utterance]) -> list[Hypothesis]:
        decoded.append([item.id for item in utterances])
        return [Hypothesis(item.id, "x", (), 0.0, 0.5) for item in utterances]

    recipe, _ = load_recipe(OPENASR, [*settings, f"data.test={tmp_path / 'set.jsonl'}", "evaluate.normalizer=basic@2"])
    whole, parts = RunDir(tmp_path / "whole"), RunDir(tmp_path / "parts")
    for _ in range(2):
        score(recipe, whole, decoder)
        for number in (1, 2):
            score_shard(recipe, parts, Shard(number, 2), decoder)
    score(recipe, parts, decoder, merge=True)
    assert decoded == [["a", "b"], ["a"], ["b"]]
    soundfile.write(tmp_path / "b.wav", noise.normal(0, 0.1, rate), rate)
    score(recipe, whole, decoder)
    with pytest.raises(DataError, match="the hypotheses of shards 2/2 are missing"):
        score(recipe, parts, decoder, merge=True)
    for number in (1, 2):
        score_shard(recipe, parts, Shard(number, 2), decoder)
    score(recipe, parts, decoder, merge=True)
    assert decoded[3:] == [["a", "b"], ["b"]]


def test_a_set_without_reference_words_has_no_wer_and_no_part_in_the_mean(settings: list[str], tmp_path: Path) -> None:
    clips = embedded("test", 3)
    for name, text in (("speech", "one two three four"), ("silent", "")):
        rows = [{"id": item.id, "audio_filepath": item.audio_filepath, "text": text} for item in clips]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def decoder(utterances: Sequence[Utterance]) -> list[Hypothesis]:
        return [Hypothesis(item.id, "one two three", (), 0.0, 0.5) for item in utterances]

    source = ",".join(str(tmp_path / f"{name}.jsonl") for name in ("speech", "silent"))
    recipe, _ = load_recipe(OPENASR, [*settings, f"data.test={source}", "evaluate.normalizer=basic@2"])
    result = score(recipe, RunDir(tmp_path / "openasr"), decoder)
    assert result.macro_wer == 0.25
    table = score_table(result)
    (silent,) = (line for line in table if line.startswith("silent "))
    assert "no words, 9 inserted" in silent and "100.00" not in silent
    assert any(line.startswith("mean WER of 1 set") and "25.00" in line for line in table)
    recipe, _ = load_recipe(
        OPENASR, [*settings, f"data.test={tmp_path / 'silent.jsonl'}", "evaluate.normalizer=basic@2"]
    )
    assert score(recipe, RunDir(tmp_path / "other"), decoder).macro_wer is None


@pytest.mark.parametrize("preset", ["basic@2", "openasr@2026-08"])
def test_an_empty_reference_is_scored_except_by_the_rules_of_the_leaderboard(
    settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], preset: str
) -> None:
    """The same WER from `finetune score` and `finetune compare`, with and without durations in the manifest."""
    clips = embedded("test", 3)
    rows: list[dict[str, Any]] = [
        {"id": item.id, "audio_filepath": item.audio_filepath, "text": item.text, "duration": item.duration}
        for item in (*clips, replace(clips[0], id="quiet", text=""))
    ]
    for name in ("test", "nodur"):
        path = tmp_path / f"{name}.jsonl"
        path.write_text(
            "".join(
                json.dumps({k: v for k, v in row.items() if name == "test" or k != "duration"}) + "\n" for row in rows
            )
        )
    texts = {row["id"]: row["text"] or "made up" for row in rows}
    for name, text in (("one", "made up"), ("two", "")):
        hypotheses = [{"id": key, "pred_text": text if key == "quiet" else value} for key, value in texts.items()]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in hypotheses))

    def decoder(utterances: Sequence[Utterance]) -> list[Hypothesis]:
        return [Hypothesis(item.id, texts[item.id], (), 0.0, 0.5, 1, 0, 0, False) for item in utterances]

    source = ",".join(str(tmp_path / f"{name}.jsonl") for name in ("test", "nodur"))
    recipe, _ = load_recipe(OPENASR, [*settings, f"data.test={source}", f"evaluate.normalizer={preset}"])
    result = score(recipe, RunDir(tmp_path / "openasr"), decoder)
    words = sum(len(item.text.split()) for item in clips)
    kept = preset == "basic@2"
    for entry in result.sets.values():
        assert (entry.utterances, entry.unscored, entry.insertions) == ((4, 0, 2) if kept else (3, 1, 0))
        assert entry.wer == pytest.approx(2 / words if kept else 0)
    assert score_table(result)[0] == f"model: {recipe.model.base} (model.base of the recipe)"
    assert any("test: 1 of 4 clips have an empty reference; 2 words" in line for line in score_table(result)) == kept
    for name in ("test", "nodur"):
        files = [str(tmp_path / f"{item}.jsonl") for item in ("one", "two", name)]
        assert main(["compare", *files[:2], "--manifest", files[2], "--json", str(tmp_path / "o.json")]) == 0
        systems = read_json(tmp_path / "o.json")["systems"]
        assert [entry["insertions"] for entry in systems.values()] == [2, 0]
        assert systems[files[0]]["wer"] == pytest.approx(2 / words)
        assert f"{files[0]}: 1 of 4 clips have an empty reference; 2 words" in capsys.readouterr().out


def test_hypotheses_are_kept_until_the_decoding_options_change(
    settings: list[str], sets: list[Path], tmp_path: Path
) -> None:
    decoded: list[list[str]] = []

    def decoder(utterances: Sequence[Utterance]) -> list[Hypothesis]:
        decoded.append([item.text for item in utterances])
        return [Hypothesis(item.id, item.text, (), 0.0, 0.5, 1, 0, 0, False) for item in utterances]

    def score_with(decoder: Decoder, *overrides: str) -> None:
        recipe, _ = load_recipe(OPENASR, [*settings, *overrides])
        score(recipe, RunDir(tmp_path / "openasr"), decoder)

    for overrides, count in (((), 2), ((), 0), (("decode.max_new_tokens=100",), 2), ((), 2)):
        decoded.clear()
        score_with(decoder, *overrides)
        assert len(decoded) == count
    hard = Path(shutil.copy(sets[1], tmp_path / "hard.parquet"))
    for texts, count in ((None, 2), (["Another.", "Text.", "Here."], 1), (None, 0)):  # the content of one set changes
        decoded.clear()
        if texts:
            table = pyarrow.parquet.read_table(hard)
            pyarrow.parquet.write_table(table.set_column(1, "text", [texts]), hard)
        score_with(decoder, f"data.test={sets[0]},{hard}", "decode.max_new_tokens=90")
        assert len(decoded) == count
    content = read_json(tmp_path / "openasr" / "score" / "scores.json")
    assert content["macro_wer"] == 0 and [entry["rtfx"] for entry in content["sets"].values()] == pytest.approx(
        [entry["audio_seconds"] / (0.5 * entry["utterances"]) for entry in content["sets"].values()], rel=0.01
    )
    assert content["rtfx"] == pytest.approx(
        sum(entry["audio_seconds"] for entry in content["sets"].values())
        / sum(0.5 * entry["utterances"] for entry in content["sets"].values())
    )


def test_japanese_is_scored_in_characters(settings: list[str], tmp_path: Path) -> None:
    items = [replace(item, text="今日は晴れ", language="ja") for item in embedded("test", 2)]
    write_manifest(tmp_path / "japanese.jsonl", items)
    recipe, _ = load_recipe(OPENASR, [*settings, f"data.test={tmp_path / 'japanese.jsonl'}"])

    def decoder(utterances: Sequence[Utterance]) -> list[Hypothesis]:
        return [Hypothesis(item.id, "今日は雨", (), 0.0, 0.5, 1, 0, 0, False) for item in utterances]

    scores = score(recipe, RunDir(tmp_path / "openasr"), decoder).sets["japanese"]
    assert (scores.normalizer, scores.reference_words, scores.wer) == ("ja-cer@2", 10, 0.4)


def test_japanese_among_other_languages_is_scored_apart(settings: list[str], tmp_path: Path) -> None:
    texts = [("今日は晴れ", "ja"), ("guten morgen", "de")]
    items = [
        replace(item, text=text, language=code) for item, (text, code) in zip(embedded("test", 2), texts, strict=True)
    ]
    write_manifest(tmp_path / "mixed.jsonl", items)
    changes = [f"data.test={tmp_path / 'mixed.jsonl'}", "evaluate.normalizer=basic@2"]
    recipe, _ = load_recipe(OPENASR, [*settings, *changes])

    def decoder(utterances: Sequence[Utterance]) -> list[Hypothesis]:
        hypotheses = {"ja": "今日は雨だ", "de": "guten morgen"}
        return [Hypothesis(item.id, hypotheses[item.language], (), 0.0, 0.5, 1, 0, 0, False) for item in utterances]

    scores = score(recipe, RunDir(tmp_path / "openasr"), decoder).sets["mixed"]
    assert (scores.normalizer, scores.reference_words, scores.wer, scores.utterances) == ("basic@2", 2, 0.0, 1)
    tasks = {task.name: {name: item.value for name, item in task.scores.items()} for task in scores.tasks}
    assert tasks == {"transcribe de": {"WER": 0.0, "CER": 0.0}, "transcribe ja": {"CER": 0.4}}


class SlowFile(Utterance):
    """A clip whose audio file takes `READ_SECONDS` to open."""

    READ_SECONDS = 3.0

    def __getattribute__(self, name: str) -> Any:
        if name == "audio_filepath":
            time.sleep(self.READ_SECONDS)
        return super().__getattribute__(name)


def test_seconds_do_not_include_reading_of_files(model: Callable[[], SpeechModel], clips: list[Utterance]) -> None:
    started = time.perf_counter()
    hypotheses = recognize(model(), [SlowFile(**vars(clips[0]))], "write", DecodingOptions("greedy", max_new_tokens=2))
    assert time.perf_counter() - started > SlowFile.READ_SECONDS
    assert 0 < hypotheses[0].seconds < SlowFile.READ_SECONDS


def test_the_clips_of_a_batch_share_its_seconds(model: Callable[[], SpeechModel], clips: list[Utterance]) -> None:
    started = time.perf_counter()
    hypotheses = recognize(model(), clips[:4], "write", DecodingOptions("greedy", max_new_tokens=2))
    assert 0 < sum(item.seconds for item in hypotheses) <= time.perf_counter() - started


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
def test_an_unreadable_clip_is_an_error(
    command: Callable[..., int], tmp_path: Path, row: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {"text": "fine", "audio": {"bytes": Path(embedded("test", 1)[0].audio_filepath).read_bytes(), "path": None}}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([good, row]), tmp_path / "bad.parquet")
    assert command(f"data.test={tmp_path / 'bad.parquet'}") == 1
    assert re.search(message, capsys.readouterr().err)


def test_a_set_without_references_is_an_error(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pyarrow.parquet.read_table(parquet(tmp_path / "empty.parquet", embedded("test", 1)))
    pyarrow.parquet.write_table(table.set_column(1, "text", [["(um)"]]), tmp_path / "empty.parquet")
    assert command(f"data.test={tmp_path / 'empty.parquet'}") == 1
    assert "every reference is empty after normalizer" in capsys.readouterr().err


def test_set_names() -> None:
    assert list(
        set_names(
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


def test_the_recipe_follows_the_leaderboard() -> None:
    recipe, _ = load_recipe(OPENASR)
    assert recipe.model.instruction == "can you transcribe the speech into a written format?"
    assert (recipe.decode.max_new_tokens, recipe.decode.max_entropy, recipe.decode.min_probability) == (200, 0.7, 0.2)
    assert len(recipe.data.test) == 8 and len(set_names([entry.path for entry in recipe.data.test])) == 8


def test_a_recipe_without_training_data_cannot_train(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["run", str(OPENASR), "--set", f"runs={tmp_path}"]) == 2
    assert "data.train: empty, so nothing can be trained; `finetune score`" in capsys.readouterr().err
    assert main(["check", str(OPENASR)]) == 0
    assert "\ndata.train is empty: this recipe is for `finetune score`\n" in capsys.readouterr().out
    assert main(["check", str(OPENASR), "--set", "data.train=a.jsonl"]) == 2
    assert "data.valid: is missing" in capsys.readouterr().err


def test_jobs_of_an_array_give_the_scores_of_one_process(
    settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(name: str, *arguments: str) -> int:
        overrides = [part for value in (*settings, f"name={name}") for part in ("--set", value)]
        return main(["score", str(OPENASR), *overrides, *arguments])

    assert run("whole") == 0
    assert run("jobs", "--shard", "2/2") == 0
    assert run("jobs", "--merge") == 1
    assert "easy: the hypotheses of shards 1/2 are missing" in capsys.readouterr().err
    assert run("jobs", "--shard", "1/2") == 0
    shard = tmp_path / "jobs" / "score" / "shards" / "easy.1-2.jsonl"
    before = shard.stat().st_mtime_ns
    assert run("jobs", "--shard", "1/2") == 0 and shard.stat().st_mtime_ns == before  # it is not decoded again
    assert run("jobs", "--merge") == 0
    whole, jobs = (read_json(tmp_path / name / "score" / "scores.json") for name in ("whole", "jobs"))
    for content in (whole, jobs):
        content["rtfx"] = None
        for entry in content["sets"].values():
            entry |= {"seconds": None, "rtfx": None}
    assert whole == jobs
    files = [tmp_path / name / "score" / "easy.jsonl" for name in ("whole", "jobs")]
    texts = [[row["pred_text"] for row in read_jsonl(file)] for file in files]
    assert texts[0] == texts[1] and len(texts[0]) == 4


def test_parts_of_another_model_are_not_merged(settings: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [part for value in settings for part in ("--set", value)]
    for part in ("1/2", "2/2"):
        assert main(["score", str(OPENASR), *overrides, "--shard", part]) == 0
    assert main(["score", str(OPENASR), *overrides, "--set", "decode.decoder=greedy", "--merge"]) == 1
    assert "shards 1/2, 2/2 are missing" in capsys.readouterr().err
