"""`finetune compare`: systems of every kind on the same clips, scores, exit codes and error messages."""

import json
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import jiwer
import numpy as np
import pytest
import soundfile
from command import with_thresholds
from pydantic import TypeAdapter

from finetune.cli.compare import format_comparison
from finetune.cli.main import main
from finetune.core.config import Recipe
from finetune.core.errors import DataError, ModelError, RecipeError
from finetune.core.files import write_json
from finetune.core.run_dir import RunDir
from finetune.data.manifest import Utterance, write_manifest
from finetune.evaluation import systems
from finetune.evaluation.compare import compare as compare_systems
from finetune.evaluation.compare import write_comparison
from finetune.evaluation.compare_result import CompareResult
from finetune.evaluation.system_terms import terms_note
from finetune.evaluation.systems import System, SystemHypotheses, Transcriber, parse_system, run_system
from finetune.evaluation.training_overlap import TrainingOverlap, overlap_notes, training_overlap
from finetune.exporting.bundle import add_transcriber
from finetune.metrics.scorecard import ScoringOptions, SystemOutput
from finetune.metrics.significance import holm

WORDS = ["take", "hold", "start", "stop", "aspirin", "digoxin", "twice", "daily", "now", "again"]
CLIPS = 40
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: test.jsonl, and hypotheses good.jsonl and bad.jsonl."""
    monkeypatch.chdir(tmp_path)
    rng = random.Random(5)
    references = [" ".join(rng.choices(WORDS, k=8)) for _ in range(CLIPS)]
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 64_000), 16_000)
    rows = [
        {
            "id": f"u{number}",
            "audio_filepath": "a.wav",
            "duration": 4.0,
            "text": text,
            "language": "en",
            "speaker": f"s{number % 12}",
        }
        for number, text in enumerate(references)
    ]
    write("test.jsonl", rows)
    for name, rate in (("bad", 0.4), ("good", 0.1)):
        write(
            f"{name}.jsonl",
            [
                {"id": row["id"], "pred_text": replace_words(text, rate, rng), "time": 0.1}
                for row, text in zip(rows, references, strict=True)
            ],
        )
    return tmp_path


def write(name: str, rows: list[dict[str, object]]) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


def replace_words(text: str, rate: float, rng: random.Random) -> str:
    return " ".join("x" if rng.random() < rate else word for word in text.split())


@pytest.fixture
def compare(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*args: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["compare", *args])
        return code, *capsys.readouterr()

    return call


def compare_with(transcribers: dict[str, Transcriber], *names: str) -> CompareResult:
    """Compares systems on test.jsonl with the transcribers of a test."""
    options = ScoringOptions("basic@2", 200, 0, (), frozenset(), {})
    return compare_systems(names, "test.jsonl", options, None, "transcribe", [], transcribers)


def correct_outputs(seconds: float) -> list[SystemOutput | None]:
    return [SystemOutput(row["text"], seconds, False) for row in read("test.jsonl")]


def test_two_files_are_scored_and_compared(compare: Run) -> None:
    code, out, _ = compare("bad.jsonl", "good.jsonl", "--manifest", "test.jsonl", "--json", "out/all.json")
    content = json.loads(Path("out/all.json").read_text())
    references = [row["text"] for row in read("test.jsonl")]
    for name in ("bad.jsonl", "good.jsonl"):
        wer = jiwer.wer(references, [row["pred_text"] for row in read(name)])
        assert content["systems"][name]["wer"] == wer
        assert f"{100 * wer:.1f} (" in next(line for line in out.splitlines() if line.startswith(name))
        assert content["systems"][name]["rtfx"] is None  # the time of a file is not used
    row = content["comparisons"]["good.jsonl"]
    assert row["high"] < 0 and row["verdict"] == "better" and row["probability_better"] == 1
    assert content["clips"] == CLIPS and content["words"] == 8 * CLIPS and content["schema"] == 3
    assert "intervals by speaker" in out and code == 0


def test_scores_do_not_depend_on_the_order_of_clips_and_rows(compare: Run) -> None:
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


def test_manifest_without_durations_and_as_csv(compare: Run) -> None:
    rows = read("test.jsonl")
    args = ("bad.jsonl", "good.jsonl", "--json", "o.json", "--manifest")
    compare(*args, "test.jsonl")
    wers = {name: entry["wer"] for name, entry in json.loads(Path("o.json").read_text())["systems"].items()}
    write("bare.jsonl", [{key: row[key] for key in ("id", "audio_filepath", "text")} for row in rows])
    Path("table.csv").write_text("id,path,sentence\n" + "".join(f"{row['id']},a.wav,{row['text']}\n" for row in rows))
    for name in ("bare.jsonl", "table.csv"):
        code, out, _ = compare(*args, name)
        assert code == 0 and "40 clips, 2.7 minutes" in out
        assert {name: entry["wer"] for name, entry in json.loads(Path("o.json").read_text())["systems"].items()} == wers
    write(
        "bare.jsonl",
        [
            {"id": "u0", "audio_filepath": "a.wav", "text": ""},
            *({"id": row["id"], "audio_filepath": "a.wav", "text": row["text"]} for row in rows[1:]),
        ],
    )
    code, out, _ = compare(*args, "bare.jsonl")
    assert code == 0 and "1 of 40 clips have an empty reference" in out


def test_equal_systems_are_not_proven_different(compare: Run, folder: Path) -> None:
    Path("same.jsonl").write_bytes(Path("bad.jsonl").read_bytes())
    compare("bad.jsonl", "same.jsonl", "good.jsonl", "--manifest", "test.jsonl", "--json", "o.json")
    content = json.loads(Path("o.json").read_text())["comparisons"]
    assert content["same.jsonl"]["difference"] == 0 and content["same.jsonl"]["verdict"] == "not proven"
    assert [row["p_holm"] for row in content.values()] == holm([row["p_value"] for row in content.values()])
    assert content["good.jsonl"]["p_holm"] == 2 * content["good.jsonl"]["p_value"]


def test_the_verdict_follows_the_adjusted_p_value(compare: Run) -> None:
    """One comparison is significant alone; as one of many it is not proven."""
    rows = read("bad.jsonl")
    references = {row["id"]: row["text"] for row in read("test.jsonl")}
    corrected = {f"u{number}" for number in range(0, 9)}  # 9 of 12 speakers
    write(
        "mild.jsonl", [{**row, "pred_text": references[row["id"]]} if row["id"] in corrected else row for row in rows]
    )
    others = []
    for number in range(60):
        others.append(f"same{number}.jsonl")
        write(others[-1], rows)
    args = ("--manifest", "test.jsonl", "--replicas", "200", "--json", "o.json")
    verdicts = []
    for names in ([], others):
        compare("bad.jsonl", "mild.jsonl", *names, *args)
        row = json.loads(Path("o.json").read_text())["comparisons"]["mild.jsonl"]
        assert row["p_value"] < 0.05
        verdicts.append((row["verdict"], row["p_holm"] < 0.05))
    assert verdicts == [("better", True), ("not proven", False)]


def test_options_normalizer_and_terms(compare: Run) -> None:
    Path("terms.txt").write_text("aspirin\n")
    rows = read("good.jsonl")
    write("good.jsonl", [{**row, "pred_text": row["pred_text"].title() + "."} for row in rows])
    args = ("bad.jsonl", "good.jsonl", "--manifest", "test.jsonl", "--json", "o.json")
    code, out, _ = compare(*args, "--terms", "terms.txt", "--fail-if", "recall < base")
    entry = json.loads(Path("o.json").read_text())["systems"]["good.jsonl"]
    assert code == 0 and "recall" in out and 0.5 < entry["terms"]["recall"] < 1 and entry["raw_wer"] > 0.9
    for column, cell in (("terms", "aspirin; digoxin"), ("keywords", ["aspirin", "digoxin"])):
        write("columns.jsonl", [{**row, column: cell} for row in read("test.jsonl")])
        compare(args[0], args[1], "--manifest", "columns.jsonl", "--json", "columns.json")
        content = json.loads(Path("columns.json").read_text())
        assert content["settings"]["terms"] == 2 and content["systems"]["good.jsonl"]["terms"]["support"] > 0, column
    compare(*args, "--normalizer", "none")
    assert json.loads(Path("o.json").read_text())["systems"]["good.jsonl"]["wer"] == entry["raw_wer"]


@pytest.mark.parametrize(
    "conditions, code",
    [
        (["wer > base + 0.2"], 0),
        (["wer > base - 50"], 1),
        (["cer < base"], 1),
        (["wer > base", "wer < 90"], 1),
        (["wer > 90"], 0),
    ],
)
def test_fail_if_decides_the_exit_code(compare: Run, conditions: list[str], code: int) -> None:
    flags = [part for text in conditions for part in ("--fail-if", text)]
    exit_code, out, _ = compare("bad.jsonl", "good.jsonl", "--manifest", "test.jsonl", *flags)
    assert exit_code == code and ("condition holds: good.jsonl: " + conditions[-1] in out) is bool(code)
    assert "holds: bad.jsonl" not in out  # the first system is the base


@pytest.mark.parametrize(
    "args, message",
    [
        (
            ["bad.jsonl", "good.jsonl", "--manifest", "test.jsonl", "--fail-if", "wer is bad"],
            "invalid condition; write wer",
        ),
        (["bad.jsonl", "good.jsonl", "--manifest", "test.jsonl", "--fail-if", "recall < 1"], "there are no terms"),
        (["bad.jsonl", "--manifest", "test.jsonl"], "two or more different systems"),
        (["bad.jsonl", "bad.jsonl", "--manifest", "test.jsonl"], "two or more different systems"),
        (["bad.jsonl", "good.jsonl"], "--manifest: is missing"),
        (["bad.jsonl", "good.jsonl", "--manifest", "test.jsonl", "--normalizer", "olb"], "normalizer: Input should be"),
        (["bad.jsonl", "good.jsonl", "--manifest", "test.jsonl", "--replicas", "3"], "replicas: Input should be"),
        (["bad.jsonl", "whisper:", "--manifest", "test.jsonl"], "whisper:: the model is missing; write whisper:MODEL"),
    ],
)
def test_usage_errors_exit_with_2(compare: Run, args: list[str], message: str) -> None:
    code, out, err = compare(*args)
    assert code == 2 and message in err and out == ""


@pytest.mark.parametrize(
    "args, message",
    [
        (
            ["bad.jsonl", "nothing.jsonl", "--manifest", "test.jsonl"],
            "nothing.jsonl: not a system; give a run directory, a hypothesis file",
        ),
        (["bad.jsonl", ".", "--manifest", "test.jsonl"], ".: not a system"),
        (["bad.jsonl", "godo.jsonl", "--manifest", "test.jsonl"], "openai:MODEL; did you mean good.jsonl?"),
        (["bad.jsonl", "good.jsonl", "--manifest", "none.jsonl"], "none.jsonl: cannot be read (No such file"),
        (["bad.jsonl", "good.jsonl", "--manifest", "test.jsonl", "--terms", "none.txt"], "none.txt: cannot be read"),
        (["bad.jsonl", "short.jsonl", "--manifest", "test.jsonl"], "1 of 40 clips have no hypothesis: 'u39'"),
    ],
)
def test_data_errors_exit_with_1(compare: Run, args: list[str], message: str) -> None:
    write("short.jsonl", read("good.jsonl")[:-1])
    code, out, err = compare(*args)
    assert code == 1 and message in err and out == ""


def test_control_characters_of_transcripts_do_not_reach_the_terminal(compare: Run) -> None:
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
    assert {"id": bad, "side": "reference", "text": "(!)<script> ((()))&&&&&&&&&&&&"} in changes


@pytest.fixture
def run(folder: Path) -> RunDir:
    """A run whose base has the hypotheses of bad.jsonl, and whose adapted model those of good.jsonl."""
    run = RunDir("runs/demo")
    write_json(run.recipe, {})
    for split, rows in (("test", read("test.jsonl")), ("canary", [{**read("test.jsonl")[0], "id": "c"}])):
        run.manifest(split).parent.mkdir(exist_ok=True)
        write(str(run.manifest(split)), [{**row, "audio_filepath": str(folder / "a.wav")} for row in rows])
    run.evaluation.mkdir()
    for side, name in (("base", "bad.jsonl"), ("adapted", "good.jsonl")):
        write(str(run.hypotheses("test", side)), [{**row, "time": 0.5, "truncated": False} for row in read(name)])
        write(str(run.hypotheses("canary", side)), [{"id": "c", "pred_text": "x", "time": 1.0, "truncated": True}])
    return run


def test_run_directory_provides_hypotheses_speed_and_test_set(compare: Run, run: RunDir) -> None:
    code, out, _ = compare("runs/demo:base", "runs/demo", "good.jsonl", "--json", "o.json")
    content = json.loads(Path("o.json").read_text())
    assert code == 0 and content["manifest"] == str(run.manifest("test"))
    assert content["systems"]["runs/demo"]["wer"] == content["systems"]["good.jsonl"]["wer"]
    assert content["systems"]["runs/demo"]["rtfx"] == 8.0 and content["comparisons"]["runs/demo"]["verdict"] == "better"
    assert [line.split()[-1] for line in out.splitlines()[3:6]] == ["8.0", "8.0", "-"]
    compare("runs/demo:base", "runs/demo", "--manifest", str(run.manifest("canary")), "--json", "o.json")
    assert json.loads(Path("o.json").read_text())["systems"]["runs/demo"]["truncated"] == 1


@pytest.mark.parametrize(("side", "text"), [("", "; other speakers not shown"), (":base", "")])
def test_speakers_of_the_training_limit_the_verdict(compare: Run, run: RunDir, side: str, text: str) -> None:
    rows = read(str(run.manifest("test")))
    write(str(run.manifest("train")), [{**row, "id": f"t{row['id']}", "offset": 9.0} for row in rows[:3]])
    first = f"runs/demo{side}" if side else "bad.jsonl"
    second = "good.jsonl" if side else "runs/demo"
    _, out, _ = compare(first, second, "--manifest", str(run.manifest("test")), "--json", "o.json")
    content = json.loads(Path("o.json").read_text())
    assert content["comparisons"][second]["scope"] == ("other speakers" if side else "these speakers")
    assert ("better on these 12 speakers" + text in out) == (not side)
    note = "runs/demo was trained with 3 of 12 speakers: its scores do not apply to new speakers"
    assert content["notes"] == ([] if side else [note]) and "in its training data" not in out


def test_training_clips_of_an_export_are_noted(folder: Path) -> None:
    test, train = read("test.jsonl"), Path("runs/demo/manifests/train.jsonl")
    train.parent.mkdir(parents=True)
    write(str(train), [{**test[0], "audio_filepath": str(folder / "a.wav"), "speaker": "other"}])
    for name in ("config.json", "adaptation.json"):
        write_json(Path("runs/demo/export") / name, {})
    outputs = SystemHypotheses(correct_outputs(0.1), "now")
    result = compare_with({"model": lambda model, clips: outputs}, "bad.jsonl", "runs/demo/export")
    assert f"runs/demo/export: {CLIPS} clips are in its training data: too good a score" in result.notes
    assert result.comparisons["runs/demo/export"].scope == "these speakers"  # those of the clips, whatever their names


def test_tags_that_count_as_words_are_noted(compare: Run) -> None:
    write("tags.jsonl", [{"id": row["id"], "pred_text": f"[noise] {row['text']}"} for row in read("test.jsonl")])
    _, out, _ = compare("good.jsonl", "tags.jsonl", "--manifest", "test.jsonl")
    assert f"tags.jsonl: {CLIPS} texts have tags that count as words with basic@2, such as '[noise]'" in out
    _, out, _ = compare("good.jsonl", "tags.jsonl", "--manifest", "test.jsonl", "--normalizer", "multi@1")
    assert "tags that" not in out
    write("ref.jsonl", [{**row, "text": f"{row['text']} <unk>"} for row in read("test.jsonl")])
    _, out, _ = compare("good.jsonl", "bad.jsonl", "--manifest", "ref.jsonl")
    assert f"references: {CLIPS} texts have tags that count as words with basic@2, such as '<unk>'" in out


def test_an_export_without_its_run_may_know_the_speakers(folder: Path) -> None:
    for name in ("config.json", "adaptation.json"):
        write_json(Path("moved") / name, {})
    result = compare_with({"model": lambda *_: SystemHypotheses(correct_outputs(0.1), "now")}, "bad.jsonl", "moved")
    assert "moved: its run is not beside it, so it is not known if it was trained with these speakers" in result.notes


def test_systems_with_the_same_training_clips_share_a_note() -> None:
    overlap = TrainingOverlap(frozenset({"anna"}), 2)
    notes = list(
        overlap_notes([], {"runs/a": overlap, "runs/a/export": overlap, "b": TrainingOverlap(frozenset(), 1)}, [])
    )
    assert notes == [
        "runs/a and runs/a/export: 2 clips are in their training data: too good a score",
        "runs/a and runs/a/export were trained with 1 of 0 speakers: their scores do not apply to new speakers",
        "b: 1 clip is in its training data: too good a score",
    ]


def test_training_speakers_are_known_by_their_audio_and_by_other_spellings(folder: Path) -> None:
    test = read("test.jsonl")
    speakers = list(dict.fromkeys(row["speaker"] for row in test))
    train = Path("runs/demo/manifests/train.jsonl")
    train.parent.mkdir(parents=True)
    rows = [
        Utterance("a", "/copy/a.wav", 1.0, "x", speaker="other", audio_digest="abc"),
        Utterance("b", "/x.wav", 1.0, "x", speaker=f"{speakers[1].upper()} "),
    ]
    write_manifest(train, rows)
    clips = [
        Utterance(f"c{number}", f"/test/{number}.wav", 1.0, "x", speaker=name)
        for number, name in enumerate([*speakers[:3], ""])
    ]
    clips[0] = replace(clips[0], audio_digest="abc")
    found = training_overlap([System("runs/demo", "run", "runs/demo", "adapted")], clips)["runs/demo"]
    assert (found.speakers, found.clips) == (frozenset(speakers[:2]), 1)


def test_run_without_hypotheses_for_the_clips_is_an_error(compare: Run, run: RunDir) -> None:
    write("other.jsonl", [{**read("test.jsonl")[0], "id": "new"}])
    code, _, err = compare("runs/demo:base", "runs/demo", "--manifest", "other.jsonl")
    assert code == 1 and "1 of 1 clip have no hypothesis: 'new'" in err and "give its export: runs/demo/export" in err
    for side in ("base", "adapted"):
        for split in ("test", "canary"):
            run.hypotheses(split, side).unlink()
    code, _, err = compare("runs/demo:base", "runs/demo")
    assert code == 1 and "has not been evaluated" in err


def test_different_references_are_noted(compare: Run) -> None:
    write(
        "good.jsonl", [{**row, "text": "another reference"} for row in read("good.jsonl")[:1]] + read("good.jsonl")[1:]
    )
    _, out, _ = compare("bad.jsonl", "good.jsonl", "--manifest", "test.jsonl")
    assert "good.jsonl has a different reference for 1 clip, such as 'u0'" in out


def test_terms_with_signs_are_noted(compare: Run) -> None:
    Path("terms.txt").write_text("aspirin\nA+\n")
    _, out, _ = compare("bad.jsonl", "good.jsonl", "--manifest", "test.jsonl", "--terms", "terms.txt")
    assert "terms matched as written, with their signs, because basic@2 removes these: A+" in out
    assert "terms not in a reference as written: A+; if the references spell" in out


def test_japanese_with_a_normalizer_of_words_is_noted(compare: Run) -> None:
    write("test.jsonl", [{**row, "language": "ja"} for row in read("test.jsonl")])
    _, out, _ = compare("bad.jsonl", "good.jsonl", "--manifest", "test.jsonl", "--normalizer", "multi@1")
    assert "40 clips are Japanese" in out and "--normalizer ja-cer@2" in out
    _, out, _ = compare("bad.jsonl", "good.jsonl", "--manifest", "test.jsonl")
    assert "Japanese" not in out and "normalizer ja-cer@2" in out


def test_no_wer_is_shown_without_reference_words(compare: Run) -> None:
    write("silent.jsonl", [{**row, "text": ""} for row in read("test.jsonl")])
    write("quiet.jsonl", [{"id": row["id"], "pred_text": ""} for row in read("test.jsonl")])
    code, out, _ = compare("good.jsonl", "quiet.jsonl", "--manifest", "silent.jsonl")
    lines = [line.split() for line in out.splitlines()]
    (good,) = (line for line in lines if line[:2] == ["good.jsonl", "-"])
    quiet, against = (line for line in lines if line[:2] == ["quiet.jsonl", "-"])
    assert code == 0 and good[1:6] == ["-", "-", "-", "0", "0"] and int(good[6]) > 0
    assert quiet[1:7] == ["-", "-", "-", "0", "0", "0"] and against[1:3] == ["-", "-"] and "100.0" not in out
    _, out, _ = compare("good.jsonl", "bad.jsonl", "--manifest", "silent.jsonl")
    (against,) = (line.split() for line in out.splitlines() if line.endswith("not proven"))
    assert against[1:5] == ["-", "-", "-", "-"] and "inserted words are not compared" in out
    code, out, err = compare("good.jsonl", "quiet.jsonl", "--manifest", "silent.jsonl", "--fail-if", "wer < base")
    assert code == 1 and out == "" and "wer is undefined, because the references have no words" in err


def test_a_note_on_one_system_has_its_name(compare: Run) -> None:
    write("right.jsonl", [{"id": row["id"], "pred_text": row["text"]} for row in read("test.jsonl")])
    _, out, _ = compare("bad.jsonl", "right.jsonl", "--manifest", "test.jsonl")
    assert "\nright.jsonl: word errors are equal in all 12 speakers" in out
    write("few.jsonl", [{**row, "speaker": "s0"} for row in read("test.jsonl")][:4])
    _, out, _ = compare("bad.jsonl", "good.jsonl", "--manifest", "few.jsonl")
    assert out.count("only 4 clips: the interval is not reliable") == 1 and "jsonl: only" not in out


def test_no_wer_of_no_clips_is_shown_if_all_clips_are_suspicious(compare: Run) -> None:
    write("loop.jsonl", [{"id": row["id"], "pred_text": "no " * 5} for row in read("test.jsonl")])
    _, out, _ = compare("good.jsonl", "loop.jsonl", "--manifest", "test.jsonl")
    assert f"loop.jsonl: {CLIPS} suspicious clips ({CLIPS} loop); these are all clips" in out


@pytest.mark.parametrize("name", ["words.ctm", "words.txt"])
def test_a_hypothesis_file_of_another_format_is_refused_with_those_that_are_read(compare: Run, name: str) -> None:
    Path(name).write_text("u0 1 0.0 0.5 word\n", encoding="utf-8")
    code, _, err = compare("good.jsonl", name, "--manifest", "test.jsonl")
    assert code == 1 and ".trn" in err and ".jsonl" in err


def test_translations_are_not_scored_and_noted(compare: Run) -> None:
    rows = read("test.jsonl")
    write("test.jsonl", [{**rows[0], "id": "t", "target_language": "de"}, *rows])
    code, out, _ = compare("bad.jsonl", "good.jsonl", "--manifest", "test.jsonl")
    assert code == 0 and "1 translation is not scored" in out and f"{CLIPS} clips" in out
    for name in ("bad.jsonl", "good.jsonl"):  # as a run writes them, with the audio of both tasks
        texts = [{**row, "audio_filepath": rows[0]["audio_filepath"]} for row in read(name)]
        write(name, [*texts, {**texts[0], "id": "t"}])
    code, out, _ = compare("bad.jsonl", "good.jsonl", "--manifest", "test.jsonl")
    assert code == 0 and f"{CLIPS} clips" in out and "without a clip" not in out


def test_clips_on_which_a_system_failed_are_left_out_for_all(folder: Path) -> None:
    outputs, failures = correct_outputs(0.5), {"u3": "HTTP 413: too large"}
    outputs[3] = None
    transcribers: dict[str, Transcriber] = {"openai": lambda model, clips: SystemHypotheses(outputs, model, failures)}
    result = compare_with(transcribers, "bad.jsonl", "openai:some-model")
    system = result.systems["openai:some-model"]
    assert result.clips == CLIPS - 1 and system.about == "some-model"
    assert system.wer == 0 and result.systems["bad.jsonl"].utterances == CLIPS - 1
    assert system.failures == failures
    text = "\n".join(format_comparison(result))
    assert "openai:some-model failed on 1 of 40 clips, the first 'u3': HTTP 413: too large" in text
    assert "left out for all systems, because one of them failed: 1 clip" in text
    write_comparison(Path("o.json"), result)
    content = json.loads(Path("o.json").read_text())
    assert TypeAdapter(CompareResult).validate_python(content) == result
    assert content["clips"] == CLIPS - 1 and content["systems"]["openai:some-model"]["failures"] == failures


def test_a_clip_is_scored_only_if_all_systems_transcribed_it(folder: Path) -> None:
    """Two systems that fail on different halves of the clips leave no clip."""
    first, second = correct_outputs(0.5), correct_outputs(0.5)
    first[: CLIPS // 2] = second[CLIPS // 2 :] = [None] * (CLIPS // 2)
    transcribers: dict[str, Transcriber] = {
        "openai": lambda model, clips: SystemHypotheses(first, model, {clip.id: "?" for clip in clips[: CLIPS // 2]}),
        "whisper": lambda model, clips: SystemHypotheses(second, model, {clip.id: "?" for clip in clips[CLIPS // 2 :]}),
    }
    with pytest.raises(DataError, match="no clip was transcribed by all systems"):
        compare_with(transcribers, "openai:a", "whisper:b")


def test_a_system_that_failed_on_every_clip_is_an_error(folder: Path) -> None:
    failures = {row["id"]: "HTTP 500: error" for row in read("test.jsonl")}
    transcribers: dict[str, Transcriber] = {
        "openai": lambda model, clips: SystemHypotheses([None] * CLIPS, model, failures)
    }
    with pytest.raises(ModelError, match="openai:some-model: all clips failed, the first with: HTTP 500: error"):
        compare_with(transcribers, "bad.jsonl", "openai:some-model")


def test_speed_of_a_system_is_audio_over_seconds(folder: Path) -> None:
    transcribers: dict[str, Transcriber] = {
        "whisper": lambda model, clips: SystemHypotheses(correct_outputs(0.25), f"engine of {model}")
    }
    lines = format_comparison(compare_with(transcribers, "bad.jsonl", "whisper:small"))
    assert next(line for line in lines if line.startswith("whisper:small")).split()[-1] == "16.0"


def test_hypotheses_are_kept_and_reused_for_the_same_clips(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[list[str]] = []

    def transcribe(model: str, clips: Sequence[Utterance]) -> SystemHypotheses:
        calls.append([clip.id for clip in clips])
        failures = {"u3": "HTTP 500"} if len(calls) < 3 else {}
        outputs = [None if clip.id in failures else SystemOutput(clip.text, 0.5, False) for clip in clips]
        return SystemHypotheses(outputs, "a test", {name: text for name, text in failures.items() if name in calls[-1]})

    def run(*names: str) -> CompareResult:
        options = ScoringOptions("basic@2", 200, 0, (), frozenset(), {})
        transcribers: dict[str, Transcriber] = {"openai": transcribe, "whisper": transcribe}
        return compare_systems(
            ("bad.jsonl", *names), "test.jsonl", options, None, "-", [], transcribers, Path("runs/compare")
        )

    first = run("openai:a/b").systems["openai:a/b"]
    assert (first.reused, len(calls[0])) == (0, CLIPS) and first.hypotheses[3].pred_text is None
    assert first.file is not None and len(read(first.file)) == CLIPS - 1  # the failed clip has no row
    again = run("openai:a/b")  # the failed clip fails again, which does not stop the comparison
    assert calls[1] == ["u3"] and again.systems["openai:a/b"].reused == CLIPS - 1
    assert f"openai:a/b: 39 of 40 hypotheses reused from {first.file}" in again.notes
    third = run("openai:a/b").systems["openai:a/b"]
    assert calls[2] == ["u3"] and (third.wer, third.about, third.failures) == (0, "a test", {})
    last = run("openai:a/b")
    entry = last.systems["openai:a/b"]
    assert len(calls) == 3 and (entry.reused, entry.about, entry.rtfx) == (CLIPS, "a test", third.rtfx)
    assert [row.pred_text for row in entry.hypotheses] == [row["text"] for row in read("test.jsonl")]
    assert run("openai:a_b").systems["openai:a_b"].file != first.file and len(calls) == 4  # another system

    rows = read("test.jsonl")
    segment = {**rows[1], "offset": 1.0, "duration": 2.0}
    write("test.jsonl", [{**rows[0], "text": "another reference"}, segment, *rows[2:]])
    run("openai:a/b")
    assert calls[4] == ["u1"]  # another segment; references are not part of the input
    soundfile.write(folder / "a.wav", np.random.default_rng(1).normal(0, 0.1, 65_000), 16_000)
    run("openai:a/b")
    assert len(calls[5]) == CLIPS  # other audio under the same name
    Path(first.file).write_text('{"id": "u0"}\n')
    run("openai:a/b")
    assert len(calls[6]) == CLIPS and "cannot be used again" in caplog.text
    Path(first.file).write_text(Path(first.file).read_text()[:-20])  # a line that was cut
    run("openai:a/b")
    assert len(calls[7]) == CLIPS

    copied = Path(first.file).rename("copied.jsonl")  # compare reads the file as that of a system
    assert compare_with({}, "bad.jsonl", str(copied)).systems["copied.jsonl"].reused == 0


def test_a_folder_that_cannot_be_written_does_not_lose_the_comparison(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Path("runs").write_text("a file")
    transcribers: dict[str, Transcriber] = {"openai": lambda model, _: SystemHypotheses(correct_outputs(0.5), model)}
    options = ScoringOptions("basic@2", 200, 0, (), frozenset(), {})
    result = compare_systems(
        ("bad.jsonl", "openai:a"), "test.jsonl", options, None, "-", [], transcribers, Path("runs/compare")
    )
    assert result.systems["openai:a"].file is None and "cannot be kept" in caplog.text


def test_rows_without_a_clip_are_a_note(compare: Run) -> None:
    write("good.jsonl", [*read("good.jsonl"), {"id": "v1", "pred_text": "x"}, {"id": "v2", "pred_text": "y"}])
    code, out, _ = compare("bad.jsonl", "good.jsonl", "--manifest", "test.jsonl")
    assert code == 0 and "good.jsonl: not scored: 2 rows without a clip of the manifest, such as 'v1'" in out
    assert "bad.jsonl: 2 rows" not in out


@pytest.mark.parametrize(
    ("speakers", "verdict"),
    [(12, "better"), (4, "better on these 4 speakers; other speakers not shown"), (0, "better on these clips; other")],
)
def test_the_verdict_says_for_whom_it_holds(compare: Run, speakers: int, verdict: str) -> None:
    rows = read("test.jsonl")
    names = [f"s{number % speakers}" if speakers else "" for number in range(CLIPS)]
    write("test.jsonl", [{**row, "speaker": name} for row, name in zip(rows, names, strict=True)])
    _, out, _ = compare("bad.jsonl", "good.jsonl", "--manifest", "test.jsonl", "--json", "o.json")
    line = next(line for line in out.splitlines() if line.startswith("good.jsonl") and "better" in line)
    assert verdict in line and ("shown" in line) == (speakers != 12)
    row = json.loads(Path("o.json").read_text())["comparisons"]["good.jsonl"]
    scopes = {12: "other speakers", 4: "these speakers", 0: "unknown speakers"}
    assert (row["verdict"], row["scope"], row["speakers"]) == ("better", scopes[speakers], speakers)


def test_files_are_read_before_a_model_decodes(folder: Path) -> None:
    Path("bad.jsonl").write_text("{}")
    transcribers: dict[str, Transcriber] = {"whisper": lambda *_: pytest.fail("decoded before the file was read")}
    with pytest.raises(DataError, match=r"bad\.jsonl:1: no text in 'pred_text'"):
        compare_with(transcribers, "whisper:small", "bad.jsonl")


def test_audio_is_checked_before_a_system_transcribes(folder: Path) -> None:
    """A clip of 10 ms at the end of the manifest."""
    soundfile.write("short.wav", np.zeros(160), 16_000)
    rows = [json.loads(line) for line in Path("test.jsonl").read_text().splitlines()]
    write("test.jsonl", [*rows, {**rows[0], "id": "tiny", "audio_filepath": "short.wav", "duration": 0.01}])
    transcribers: dict[str, Transcriber] = {"whisper": lambda *_: pytest.fail("transcribed before the audio was read")}
    with pytest.raises(DataError, match=r"tiny.*short\.wav"):
        compare_with(transcribers, "whisper:small", "whisper:large")


@pytest.mark.parametrize("content", ['{"mine": true}', "plain text", "[]"])
def test_json_replaces_only_an_earlier_result(compare: Run, content: str) -> None:
    Path("out.json").write_text(content)
    code, _, err = compare("good.jsonl", "bad.jsonl", "--manifest", "test.jsonl", "--json", "out.json")
    assert code == 1 and "out.json: exists and is not a result of compare" in err
    assert Path("out.json").read_text() == content
    code, _, err = compare("good.jsonl", "bad.jsonl", "--manifest", "test.jsonl", "--json", "-")
    assert code == 1 and "-: results are not written to standard output; name a file" in err
    for _ in range(2):
        assert compare("good.jsonl", "bad.jsonl", "--manifest", "test.jsonl", "--json", "new.json")[0] == 0


@pytest.mark.parametrize(
    "name, expected",
    [
        ("whisper:large-v3", System("whisper:large-v3", "whisper", "large-v3")),
        ("openai:org/model", System("openai:org/model", "openai", "org/model")),
        ("bad.jsonl", System("bad.jsonl", "file", "bad.jsonl")),
        ("runs/demo", System("runs/demo", "run", "runs/demo", "adapted")),
        ("runs/demo:base", System("runs/demo:base", "run", "runs/demo", "base")),
        ("model", System("model", "model", "model", "")),
        (
            "ibm-granite/granite-4.0-1b-speech",
            System("ibm-granite/granite-4.0-1b-speech", "model", "ibm-granite/granite-4.0-1b-speech"),
        ),
    ],
)
def test_parse_system(run: RunDir, name: str, expected: System) -> None:
    Path("model").mkdir()
    Path("model/config.json").touch()
    assert parse_system(name) == expected


def test_parts_of_a_run_and_recipes_are_named_with_the_export(run: RunDir) -> None:
    write_json(run.export / "config.json", {})
    run.best.mkdir()
    Path("demo.yaml").write_text("name: demo\n")
    for name in (str(run.best), "demo.yaml"):
        with pytest.raises(DataError, match=r"not a system.*runs/demo/export"):
            parse_system(name)


def test_terms_that_no_reference_has_are_noted(compare: Run) -> None:
    Path("terms.txt").write_text("aspirin,2\nwarfarin,3\n")
    _, out, _ = compare("bad.jsonl", "good.jsonl", "--manifest", "test.jsonl", "--terms", "terms.txt")
    assert "\nno term is in a reference, so there is no recall" in out
    _, out, _ = compare("bad.jsonl", "good.jsonl", "--manifest", "test.jsonl")
    assert "recall" not in out


@pytest.mark.parametrize(
    "name", ["runs/other", "bad.json", "gone/hyp.jsonl", "./a/b", "", "runs", "runs/demo:best", "/no/such"]
)
def test_unknown_systems_are_errors(run: RunDir, name: str) -> None:
    with pytest.raises(DataError, match="not a system"):
        parse_system(name)
    with pytest.raises(RecipeError):
        parse_system("openai:")


def test_a_model_folder_is_decoded_now(nano: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
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
    kept = ["--hypotheses", str(tmp_path / "kept")]
    args = ["compare", str(silent), str(nano), "--manifest", str(manifest), *kept]
    assert main([*args, "--json", str(tmp_path / "o.json")]) == 0
    content = json.loads((tmp_path / "o.json").read_text())
    assert content["systems"][str(silent)]["wer"] == 1 and content["systems"][str(nano)]["wer"] < 0.5
    assert content["systems"][str(nano)]["rtfx"] > 1 and "speculative" in content["systems"][str(nano)]["about"]
    out = capsys.readouterr().out
    assert "better" in out and "keywords" not in out
    rows = [{**json.loads(row), "keywords": ["stent"]} for row in manifest.read_text().splitlines()]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    main(args)
    assert "models that transcribed now had the keywords of the manifest in their prompts" in capsys.readouterr().out


def test_relaxed_model_uses_its_calibrated_thresholds(nano: Path, tmp_path: Path, clips: list[Utterance]) -> None:
    """With an entropy threshold above that of every clip, each clip keeps its CTC text."""
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
    hypotheses = run_system(parse_system(str(export)), clips[:4])
    assert [output.text for output in hypotheses.outputs if output] == [item.text for item in expected]
    assert [item.text for item in expected] != [item.text for item in other]
    assert hypotheses.about.startswith("relaxed decoding on ")


def test_comparing_files_does_not_import_torch(folder: Path) -> None:
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
        cwd=folder,
        env={"PYTHONPATH": str(Path(systems.__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr


def test_different_lists_of_terms_are_a_note(tmp_path: Path) -> None:
    run, model = RunDir(tmp_path / "run"), tmp_path / "model"
    write_json(run.resolved, {"decode": {"terms": ["digoxin"]}})
    model.mkdir()
    compared = [
        System("r:base", "run", str(run.root), "base"),
        System("m", "model", str(model)),
        System("f", "file", ""),
    ]
    (note,) = terms_note(compared)
    assert note.endswith("which the differences include: r:base 1, m 0")
    write_json(run.resolved, {"decode": {}})
    assert not [*terms_note(compared)]


def test_a_system_that_writes_nothing_is_named(compare: Run) -> None:
    write("empty.jsonl", [{**row, "pred_text": ""} for row in read("test.jsonl")])
    code, out, _ = compare("bad.jsonl", "empty.jsonl", "--manifest", "test.jsonl")
    assert code == 0 and "empty.jsonl: no text for 40 of 40 clips with speech" in out
