"""`finetune compare` as a person meets it: systems of every kind on the same clips, its figures, codes and refusals."""

import json
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jiwer
import numpy as np
import pytest
import soundfile
from command import with_thresholds

from finetune.cli.main import main
from finetune.core.config import Recipe
from finetune.core.errors import DataError, RecipeError
from finetune.core.files import write_json
from finetune.core.run_dir import RunDir
from finetune.data.manifest import Utterance
from finetune.evaluation import endpoint, systems, whisper
from finetune.evaluation.systems import System, run_system, system_of
from finetune.export.bundle import add_transcriber
from finetune.metrics.significance import holm

WORDS = ["take", "hold", "start", "stop", "aspirin", "digoxin", "twice", "daily", "now", "again"]
CLIPS = 40
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with test.jsonl, and hypotheses good.jsonl and bad.jsonl."""
    monkeypatch.chdir(tmp_path)
    rng = random.Random(5)
    said = [" ".join(rng.choices(WORDS, k=8)) for _ in range(CLIPS)]
    soundfile.write(tmp_path / "a.wav", rng_wave(), 16_000)
    rows = [
        {
            "id": f"u{number}",
            "audio_filepath": "a.wav",
            "duration": 4.0,
            "text": text,
            "language": "en",
            "speaker": f"s{number % 12}",
        }
        for number, text in enumerate(said)
    ]
    write("test.jsonl", rows)
    for name, rate in (("bad", 0.4), ("good", 0.1)):
        write(
            f"{name}.jsonl",
            [
                {"id": row["id"], "pred_text": garbled(text, rate, rng), "time": 0.1}
                for row, text in zip(rows, said, strict=True)
            ],
        )
    return tmp_path


def rng_wave() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, 64_000)


def write(name: str, rows: list[dict[str, object]]) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


def garbled(text: str, rate: float, rng: random.Random) -> str:
    return " ".join("x" if rng.random() < rate else word for word in text.split())


@pytest.fixture
def compare(here: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["compare", *arguments])
        return code, *capsys.readouterr()

    return call


def test_two_files_are_scored_and_tested(compare: Run) -> None:
    code, out, _ = compare("bad.jsonl", "good.jsonl", "--manifest", "test.jsonl", "--json", "out/all.json")
    found = json.loads(Path("out/all.json").read_text())
    references = [row["text"] for row in read("test.jsonl")]
    for name in ("bad.jsonl", "good.jsonl"):
        wer = jiwer.wer(references, [row["pred_text"] for row in read(name)])
        assert found["systems"][name]["wer"] == wer
        assert f"{100 * wer:.1f} (" in next(line for line in out.splitlines() if line.startswith(name))
        assert found["systems"][name]["rtfx"] is None  # its time was measured elsewhere
    row = found["comparisons"]["good.jsonl"]
    assert row["high"] < 0 and row["verdict"] == "better" and row["probability_better"] == 1
    assert found["clips"] == CLIPS and found["words"] == 8 * CLIPS and found["schema"] == 1
    assert "intervals by speaker" in out and code == 0


def test_order_of_clips_and_rows_changes_no_score(compare: Run) -> None:
    compare("bad.jsonl", "good.jsonl", "--manifest", "test.jsonl", "--json", "one.json")
    for name in ("test.jsonl", "bad.jsonl", "good.jsonl"):
        write(name, random.Random(name).sample(read(name), CLIPS))
    compare("bad.jsonl", "good.jsonl", "--manifest", "test.jsonl", "--json", "two.json")
    one, two = (json.loads(Path(name).read_text()) for name in ("one.json", "two.json"))
    for name in ("bad.jsonl", "good.jsonl"):
        for key in ("wer", "cer", "raw_wer", "substitutions", "deletions", "insertions", "flags", "style"):
            assert one["systems"][name][key] == two["systems"][name][key]
    assert (
        one["comparisons"]["good.jsonl"]["mapsswe"]["segments"]
        == two["comparisons"]["good.jsonl"]["mapsswe"]["segments"]
    )


def test_a_manifest_as_people_have_it(compare: Run) -> None:
    rows = read("test.jsonl")
    arguments = ("bad.jsonl", "good.jsonl", "--json", "o.json", "--manifest")
    compare(*arguments, "test.jsonl")
    wers = {name: entry["wer"] for name, entry in json.loads(Path("o.json").read_text())["systems"].items()}
    write("bare.jsonl", [{key: row[key] for key in ("id", "audio_filepath", "text")} for row in rows])
    Path("table.csv").write_text("id,path,sentence\n" + "".join(f"{row['id']},a.wav,{row['text']}\n" for row in rows))
    for name in ("bare.jsonl", "table.csv"):
        code, out, _ = compare(*arguments, name)
        assert code == 0 and "40 clips, 2.7 min" in out
        assert {name: entry["wer"] for name, entry in json.loads(Path("o.json").read_text())["systems"].items()} == wers
    write(
        "bare.jsonl",
        [
            {"id": "u0", "audio_filepath": "a.wav", "text": ""},
            *({"id": row["id"], "audio_filepath": "a.wav", "text": row["text"]} for row in rows[1:]),
        ],
    )
    code, _, err = compare(*arguments, "bare.jsonl")
    assert code == 1 and "1 of 40 clips cannot be used" in err and "empty transcript" in err


def test_a_system_against_itself_is_not_proven(compare: Run, here: Path) -> None:
    Path("same.jsonl").write_bytes(Path("bad.jsonl").read_bytes())
    compare("bad.jsonl", "same.jsonl", "good.jsonl", "--manifest", "test.jsonl", "--json", "o.json")
    found = json.loads(Path("o.json").read_text())["comparisons"]
    assert found["same.jsonl"]["difference"] == 0 and found["same.jsonl"]["verdict"] == "not proven"
    assert [row["p_holm"] for row in found.values()] == holm([row["p_value"] for row in found.values()])
    assert found["good.jsonl"]["p_holm"] == 2 * found["good.jsonl"]["p_value"]


def test_normalizer_and_terms_are_as_asked(compare: Run) -> None:
    Path("terms.txt").write_text("aspirin\n")
    rows = read("good.jsonl")
    write("good.jsonl", [{**row, "pred_text": row["pred_text"].title() + "."} for row in rows])
    arguments = ("bad.jsonl", "good.jsonl", "--manifest", "test.jsonl", "--json", "o.json")
    code, out, _ = compare(*arguments, "--terms", "terms.txt", "--fail-if", "recall < base")
    entry = json.loads(Path("o.json").read_text())["systems"]["good.jsonl"]
    assert code == 0 and "recall" in out and 0.5 < entry["terms"]["recall"] < 1 and entry["raw_wer"] > 0.9
    compare(*arguments, "--normalizer", "none")
    assert json.loads(Path("o.json").read_text())["systems"]["good.jsonl"]["wer"] == entry["raw_wer"]


@pytest.mark.parametrize(
    "conditions, code",
    [(["wer > base + 0.2"], 0), (["wer > base - 50"], 1), (["cer < base"], 1), (["wer > base", "wer < 90"], 1)],
)
def test_fail_if_decides_the_exit_code(compare: Run, conditions: list[str], code: int) -> None:
    flags = [part for text in conditions for part in ("--fail-if", text)]
    found, out, _ = compare("bad.jsonl", "good.jsonl", "--manifest", "test.jsonl", *flags)
    assert found == code and ("condition holds: good.jsonl: " + conditions[-1] in out) is bool(code)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["bad.jsonl", "good.jsonl", "--manifest", "test.jsonl", "--fail-if", "wer is bad"],
            "cannot be read; write wer",
        ),
        (["bad.jsonl", "good.jsonl", "--manifest", "test.jsonl", "--fail-if", "recall < 1"], "there are no terms"),
        (["bad.jsonl", "--manifest", "test.jsonl"], "two or more systems"),
        (["bad.jsonl", "bad.jsonl", "--manifest", "test.jsonl"], "each once"),
        (["bad.jsonl", "good.jsonl"], "which clips"),
        (
            ["bad.jsonl", "good.jsonl", "--manifest", "test.jsonl", "--normalizer", "olb"],
            "--normalizer: Input should be",
        ),
        (["bad.jsonl", "good.jsonl", "--manifest", "test.jsonl", "--replicas", "3"], "--replicas: Input should be"),
        (["bad.jsonl", "whisper:", "--manifest", "test.jsonl"], "which model"),
    ],
)
def test_wrong_usage_is_two(compare: Run, arguments: list[str], message: str) -> None:
    code, out, err = compare(*arguments)
    assert code == 2 and message in err and out == ""


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["bad.jsonl", "nothing.jsonl", "--manifest", "test.jsonl"],
            "nothing.jsonl: neither a run directory, a file of",
        ),
        (["bad.jsonl", ".", "--manifest", "test.jsonl"], ".: neither a run directory"),
        (["bad.jsonl", "good.jsonl", "--manifest", "none.jsonl"], "none.jsonl: cannot be read (No such file"),
        (["bad.jsonl", "good.jsonl", "--manifest", "test.jsonl", "--terms", "none.txt"], "cannot be read"),
        (["bad.jsonl", "short.jsonl", "--manifest", "test.jsonl"], "1 of 40 clips have no hypothesis: 'u39'"),
    ],
)
def test_what_does_not_fit_is_one(compare: Run, arguments: list[str], message: str) -> None:
    write("short.jsonl", read("good.jsonl")[:-1])
    code, out, err = compare(*arguments)
    assert code == 1 and message in err and out == ""


def test_a_terminal_gets_no_command_from_a_transcript(compare: Run) -> None:
    bad = "u\x1b[2J\u202e"
    rows = read("test.jsonl")
    write("test.jsonl", [{**rows[0], "id": bad, "text": "(!)<script>\x07\u202e((()))&&&&&&&&&&&&"}, *rows[1:]])
    for name in ("good.jsonl", "bad.jsonl"):
        write(name, [{**read(name)[0], "id": bad, "pred_text": "\x1b]0;owned\x07 <b>x"}, *read(name)[1:]])
    code, out, err = compare("bad.jsonl", "good.jsonl", "--manifest", "test.jsonl", "--json", "o.json")
    assert code == 0 and "removes at least half of" in out
    write("good.jsonl", read("good.jsonl")[1:])
    _, more, err = compare("bad.jsonl", "good.jsonl", "--manifest", "test.jsonl")
    assert "have no hypothesis" in err
    for text in (out, more, err):
        assert not {"\x1b", "\x07", "\u202e"} & set(text)
    changes = json.loads(Path("o.json").read_text())["systems"]["good.jsonl"]["details"]["normalizer_changes"]
    assert {"id": bad, "side": "reference", "text": "(!)<script>\x07\u202e((()))&&&&&&&&&&&&"} in changes


@pytest.fixture
def run(here: Path) -> RunDir:
    """A run whose base said what stands in bad.jsonl, and its adapted model what stands in good.jsonl."""
    run = RunDir("runs/mine")
    write_json(run.recipe, {})
    for split, rows in (("test", read("test.jsonl")), ("canary", [{**read("test.jsonl")[0], "id": "c"}])):
        run.manifest(split).parent.mkdir(exist_ok=True)
        write(str(run.manifest(split)), [{**row, "audio_filepath": str(here / "a.wav")} for row in rows])
    run.evaluation.mkdir()
    for side, name in (("base", "bad.jsonl"), ("adapted", "good.jsonl")):
        write(str(run.hypotheses("test", side)), [{**row, "time": 0.5, "truncated": False} for row in read(name)])
        write(str(run.hypotheses("canary", side)), [{"id": "c", "pred_text": "x", "time": 1.0, "truncated": True}])
    return run


def test_a_run_brings_its_hypotheses_its_speed_and_its_test_set(compare: Run, run: RunDir) -> None:
    code, out, _ = compare("runs/mine:base", "runs/mine", "good.jsonl", "--json", "o.json")
    found = json.loads(Path("o.json").read_text())
    assert code == 0 and found["manifest"] == str(run.manifest("test"))
    assert found["systems"]["runs/mine"]["wer"] == found["systems"]["good.jsonl"]["wer"]
    assert found["systems"]["runs/mine"]["rtfx"] == 8.0 and found["comparisons"]["runs/mine"]["verdict"] == "better"
    assert [line.split()[-1] for line in out.splitlines()[3:6]] == ["8.0", "8.0", "-"]
    compare("runs/mine:base", "runs/mine", "--manifest", str(run.manifest("canary")), "--json", "o.json")
    assert json.loads(Path("o.json").read_text())["systems"]["runs/mine"]["truncated"] == 1


def test_a_run_is_asked_only_for_what_it_heard(compare: Run, run: RunDir) -> None:
    write("other.jsonl", [{**read("test.jsonl")[0], "id": "new"}])
    code, _, err = compare("runs/mine:base", "runs/mine", "--manifest", "other.jsonl")
    assert code == 1 and "1 of 1 clips have no hypothesis: 'new'" in err and "give its export: runs/mine/export" in err
    for side in ("base", "adapted"):
        for split in ("test", "canary"):
            run.hypotheses(split, side).unlink()
    code, _, err = compare("runs/mine:base", "runs/mine")
    assert code == 1 and "has not been evaluated" in err


def test_other_references_are_said(compare: Run) -> None:
    write("good.jsonl", [{**row, "text": "as it was"} for row in read("good.jsonl")[:1]] + read("good.jsonl")[1:])
    _, out, _ = compare("bad.jsonl", "good.jsonl", "--manifest", "test.jsonl")
    assert "good.jsonl has another reference than the manifest for 1 clips, such as 'u0'" in out


def test_japanese_under_a_normalizer_of_words_is_said(compare: Run) -> None:
    write("test.jsonl", [{**row, "language": "ja"} for row in read("test.jsonl")])
    _, out, _ = compare("bad.jsonl", "good.jsonl", "--manifest", "test.jsonl")
    assert "40 clips are Japanese" in out and "--normalizer ja-cer@1" in out
    _, out, _ = compare("bad.jsonl", "good.jsonl", "--manifest", "test.jsonl", "--normalizer", "ja-cer@1")
    assert "Japanese" not in out


def test_translations_are_left_out_and_said(compare: Run) -> None:
    rows = read("test.jsonl")
    write("test.jsonl", [{**rows[0], "id": "t", "target_language": "de"}, *rows])
    code, out, _ = compare("bad.jsonl", "good.jsonl", "--manifest", "test.jsonl")
    assert code == 0 and "1 translations are left out" in out and f"{CLIPS} clips" in out


def test_clips_that_an_endpoint_refused_are_left_out_for_all(compare: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    said = [row["text"] for row in read("test.jsonl")]
    replies = [endpoint.Reply(text, 0.5) for text in said]
    replies[3] = endpoint.Reply(None, 0.0, "HTTP 413: too large")
    monkeypatch.setattr(endpoint, "transcribe", lambda model, clips: replies)
    code, out, _ = compare("bad.jsonl", "openai:some-model", "--manifest", "test.jsonl", "--json", "o.json")
    found = json.loads(Path("o.json").read_text())
    assert code == 0 and found["clips"] == CLIPS - 1
    assert found["systems"]["openai:some-model"]["wer"] == 0 and found["systems"]["bad.jsonl"]["utterances"] == 39
    assert found["systems"]["openai:some-model"]["failures"] == {"u3": "HTTP 413: too large"}
    assert "failed on 1 of 40 clips, the first 'u3': HTTP 413: too large" in out
    assert "1 clips are left out for all systems" in out
    replies[:] = [endpoint.Reply(None, 0.0, "HTTP 500: no") for _ in said]
    code, _, err = compare("bad.jsonl", "openai:some-model", "--manifest", "test.jsonl")
    assert code == 1 and "no clip was transcribed; the first: HTTP 500: no" in err


def test_whisper_is_an_engine_with_a_speed(compare: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(row["text"], 0.25) for row in read("test.jsonl")]
    monkeypatch.setattr(whisper, "transcribe", lambda model, clips: (found, f"engine of {model}"))
    _, out, _ = compare("bad.jsonl", "whisper:small", "--manifest", "test.jsonl")
    assert "16.0" in [line.split()[-1] for line in out.splitlines() if line.startswith("whisper:small ")]


def test_what_costs_nothing_is_looked_at_first(compare: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whisper, "transcribe", lambda *_: pytest.fail("encode_batches before the file was read"))
    Path("bad.jsonl").write_text("{}")
    assert compare("whisper:small", "bad.jsonl", "--manifest", "test.jsonl")[0] == 1


@pytest.mark.parametrize(
    "name, expected",
    [
        ("whisper:large-v3", System("whisper:large-v3", "whisper", "large-v3")),
        ("openai:org/model", System("openai:org/model", "openai", "org/model")),
        ("bad.jsonl", System("bad.jsonl", "file", "bad.jsonl")),
        ("runs/mine", System("runs/mine", "run", "runs/mine", "adapted")),
        ("runs/mine:base", System("runs/mine:base", "run", "runs/mine", "base")),
        ("model", System("model", "model", "model", "")),
        (
            "ibm-granite/granite-4.0-1b-speech",
            System("ibm-granite/granite-4.0-1b-speech", "model", "ibm-granite/granite-4.0-1b-speech"),
        ),
    ],
)
def test_names(run: RunDir, name: str, expected: System) -> None:
    Path("model").mkdir()
    Path("model/config.json").touch()
    assert system_of(name) == expected


@pytest.mark.parametrize(
    "name", ["runs/other", "bad.json", "gone/hyp.jsonl", "./a/b", "", "runs", "runs/mine:best", "/no/such"]
)
def test_names_of_nothing(run: RunDir, name: str) -> None:
    with pytest.raises(DataError, match="neither a run directory"):
        system_of(name)
    with pytest.raises(RecipeError):
        system_of("openai:")


def test_a_model_folder_listens_now(
    nano: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    root = nano.parents[1]
    rows = (root / "data/vocabulary/canary.jsonl").read_text(encoding="utf-8").splitlines()[:3]
    clips = [json.loads(row) for row in rows]
    manifest = tmp_path / "clips.jsonl"
    manifest.write_text(
        "".join(
            json.dumps({**clip, "audio_filepath": str(root / "data/vocabulary" / clip["audio_filepath"])}) + "\n"
            for clip in clips
        )
    )
    silent = tmp_path / "silent.csv"
    silent.write_text("id,pred_text\n" + "".join(f"{clip['id']},\n" for clip in clips))
    assert (
        main(["compare", str(silent), str(nano), "--manifest", str(manifest), "--json", str(tmp_path / "o.json")]) == 0
    )
    found = json.loads((tmp_path / "o.json").read_text())
    assert found["systems"][str(silent)]["wer"] == 1 and found["systems"][str(nano)]["wer"] < 0.5
    assert found["systems"][str(nano)]["rtfx"] > 1 and "speculative" in found["systems"][str(nano)]["about"]
    assert "better" in capsys.readouterr().out


def test_a_model_that_decodes_relaxed_is_heard_with_its_calibration(
    nano: Path, tmp_path: Path, clips: list[Utterance]
) -> None:
    """An entropy that every clip passes: the CTC head's text is kept."""
    from finetune.inference.recognize import recognize
    from finetune.inference.transcribe import load

    export = with_thresholds(nano, tmp_path / "export", 100.0, 0.5)
    sides = {side: ["x"] for side in ("train", "valid", "test")}
    recipe = Recipe.model_validate(
        {"name": "x", "model": {"base": str(nano)}, "data": sides, "decode": {"decoder": "relaxed"}}
    )
    add_transcriber(export, recipe)
    model, calibrated = load(str(nano)), replace(recipe.decode, max_entropy=100.0, min_probability=0.5)
    expected, other = (
        recognize(model, clips[:4], recipe.model.instruction, options) for options in (calibrated, recipe.decode)
    )
    answer = run_system(system_of(str(export)), clips[:4])
    assert [item.text for item in answer.heard if item] == [item.text for item in expected]
    assert [item.text for item in expected] != [item.text for item in other]
    assert answer.about.startswith("relaxed decoding on ")


def test_comparing_files_does_not_pay_for_torch(here: Path) -> None:
    code = (
        "import sys; from finetune.cli.main import main\n"
        "code = main(['compare', 'bad.jsonl', 'good.jsonl', '--manifest', 'test.jsonl'])\n"
        "sys.exit(code or any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=here,
        env={"PYTHONPATH": str(Path(systems.__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
