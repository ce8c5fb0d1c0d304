"""`finetune init`: splits without common speakers or sentences, and a recipe that `finetune check` takes."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf
import yaml

from finetune.cli import init
from finetune.cli.main import main
from finetune.core.goals import GOALS
from finetune.core.recipe import load_recipe
from finetune.data.leaks import find_leaks
from finetune.data.manifest import Utterance, read_manifest
from finetune.data.new_splits import divide, new_splits
from finetune.planning.hints import ENOUGH_STEPS, FEW_STEPS
from finetune.planning.new_recipe import DEFAULT_MODEL, NewRecipe, epochs_for, recipe_text, schedule

MODEL = Path(__file__).resolve().parents[2] / "data" / "granite-speech-nano"


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of 20 clips with text files; the working directory is beside it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my clips.v2"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(20):
        sf.write(folder / f"{number}.wav", 0.1 * rng.standard_normal(16000).astype(np.float32), 16000)
        (folder / f"{number}.txt").write_text(f"sentence number {number}")
    return folder


def utterance(number: int, text: str, speaker: str = "") -> Utterance:
    return Utterance(f"u{number}", f"/a/{number}.wav", 2.0, text, speaker=speaker)


def answers(*texts: str) -> init.Ask:
    given: Iterator[str] = iter(texts)
    return lambda question: next(given)


def run(argv: list[str], ask: init.Ask | None = None) -> int:
    """The command with a stand-in for the terminal."""

    class Command:
        @staticmethod
        def add_parser(subparsers: init.Subparsers) -> None:
            init.add_parser(subparsers, ask)

    return main(["init", *argv], [Command()])


def test_five_answers_give_a_recipe_that_check_takes(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clips.parent / "terms.txt").write_text("sentence\n")
    assert run([], answers(str(clips), "dialect", "vocabulary", str(MODEL), "terms.txt", "clinic")) == 0
    assert "choose one of" in capsys.readouterr().out  # "dialect" was asked again
    recipe, _ = load_recipe(Path("clinic.yaml"), [])
    assert (recipe.train.goal, recipe.model.base, recipe.data.terms) == ("vocabulary", str(MODEL), "terms.txt")
    sizes = {split: len(read_manifest(Path("clinic") / f"{split}.jsonl")) for split in ("train", "valid", "test")}
    assert sizes == {"train": 16, "valid": 2, "test": 2}
    assert recipe.train.learning_rate == 1e-3  # a small model
    assert re.search(r"clinic: \d\d seconds of training audio", Path("clinic.yaml").read_text())
    capsys.readouterr()
    assert main(["check", "clinic.yaml"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"test .*\d+ seconds?", printed), printed
    assert "are few" not in printed and "LoRA at" not in printed  # enough steps
    assert " 0.00 h" not in printed and "0 minutes" not in printed


def test_a_wrong_answer_is_asked_again_at_once(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clips.parent / "terms.txt").write_text("sentence\n")
    (clips.parent / "table.txt").write_text("sentence;2\n")
    (clips.parent / "taken").mkdir()
    given = (
        "",
        "gone.csv",
        str(clips),
        "none",
        "./nano",
        str(MODEL),
        "gone.txt",
        "table.txt",
        "terms.txt",
        "taken",
        "x",
    )
    assert run([], answers(*given)) == 0 and Path("x.yaml").is_file()
    printed = capsys.readouterr().out
    for message in ("pass a corpus", "gone.csv: ", "./nano: no such folder", "gone.txt: no such file", "semicolon"):
        assert message in printed
    assert "taken: exists; choose another --name" in printed


def test_a_model_that_is_neither_a_folder_nor_a_hub_name_is_refused(
    clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, message in (
        ("granite-nano", "not a name of the hub, which is OWNER/NAME"),
        ("./nano", "no such folder"),
        (str(clips), "no config.json in this folder"),
        ("a/b c", "not a name of the hub"),
    ):
        assert run([str(clips), "--name", "x", "--model", name, "--yes"]) == 1
        assert message in capsys.readouterr().err and not Path("x").exists() and not Path("x.yaml").exists()
    assert run([str(clips), "--name", "x", "--model", "data/granite-speech-nano", "--yes"]) == 1
    assert f"no such folder in {Path.cwd()}; give the path of the embedded model" in capsys.readouterr().err
    assert not Path("x").exists()
    assert run([str(clips), "--name", "x", "--model", "owner/name_1.0", "--yes"]) == 0


def test_a_column_of_translations_is_named_with_the_entry_that_trains_it(
    clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {
            "file_name": str(path),
            "text": path.with_suffix(".txt").read_text(),
            "Translation EN": f"said {n}",
            "lang": "es",
        }
        for n, path in enumerate(sorted(clips.glob("*.wav")))
    ]
    Path("m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert run(["m.jsonl", "--name", "x", "--model", str(MODEL), "--yes"]) == 0
    assert "column 'Translation EN' is not trained; x.yaml shows how" in capsys.readouterr().out
    text = Path("x.yaml").read_text()
    assert "  #     text_column: Translation EN\n" in text and "  #     task: translate\n" in text
    assert "  #     language: es\n  #     target_language: en\n" in text  # of the rows
    load_recipe(Path("x.yaml"), [])
    entry = (
        text[text.index("  #   - path") :]
        .split("\n  # canary")[0]
        .replace("  #   ", "    ")
        .replace("x/train", "x/valid")
    )
    Path("y.yaml").write_text(text.replace("  valid: [x/valid.jsonl]", f"  valid:\n{entry}"))
    (valid,) = load_recipe(Path("y.yaml"), [])[0].data.valid
    assert (valid.path, valid.text_column) == ("x/valid.jsonl", "Translation EN")


def test_a_goal_fits_the_encoder_of_the_base(clips: Path) -> None:
    assert run([str(clips), "--name", "x", "--model", str(MODEL), "--goal", "language", "--yes"]) == 0
    assert "    blocks: all  # the goal trains 8, and this encoder has 6\n" in Path("x.yaml").read_text()
    assert main(["check", "x.yaml"]) == 0  # it refused 8 blocks
    assert recipe_text(NewRecipe("r", Path("r"), "base", "language", 3.0, 0.0, blocks=8)).count("blocks") == 0


def test_flags_ask_nothing(clips: Path) -> None:
    def never(question: str) -> str:
        raise AssertionError(question)

    assert run([str(clips), "--yes"], never) == 0
    text = yaml.safe_load(Path("my_clips_recipe.yaml").read_text())
    assert text["model"]["base"] == DEFAULT_MODEL and "goal" not in text["train"]


def test_audio_of_a_parquet_file_stays(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def write(name: str, count: int) -> None:
        rows = [
            {"audio": {"bytes": path.read_bytes(), "path": path.name}, "text": path.with_suffix(".txt").read_text()}
            for path in sorted(clips.glob("*.wav"))[:count]
        ]
        pq.write_table(pa.Table.from_pylist(rows), name)

    write("all.parquet", 20)
    assert run(["all.parquet", "--name", "a", "--model", str(MODEL), "--yes"]) == 0
    rows = [row for split in ("train", "valid", "test") for row in read_manifest(Path("a") / f"{split}.jsonl")]
    assert len(rows) == 20
    assert {Path(row.audio_filepath).parent for row in rows} == {Path("a", "media").absolute()}
    assert all(Path(row.audio_filepath).is_file() for row in rows)
    write("few.parquet", 2)
    assert run(["few.parquet", "--name", "b", "--yes"]) == 1
    assert "too few" in capsys.readouterr().err and not Path("b").exists()


def test_clips_that_the_limits_refuse_are_left_out_and_counted(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three of 23 are more than `data.max_bad_fraction` allows, so `finetune prepare` would stop."""
    sf.write(clips / "long.wav", np.full(16000 * 31, 0.1, np.float32), 16000)
    sf.write(clips / "short.wav", np.full(1600, 0.1, np.float32), 16000)
    sf.write(clips / "dense.wav", np.full(16000, 0.1, np.float32), 16000)
    for name, text in (("long", "a long one"), ("short", "no"), ("dense", "too many letters " * 9)):
        (clips / f"{name}.txt").write_text(text)
    assert run([str(clips), "--name", "x", "--model", str(MODEL), "--yes"]) == 0
    out = capsys.readouterr().out
    assert "3 of 23 rows are left out: " in out and "audio too long (1), audio too short (1)" in out
    assert "`finetune segment`" in out and "the maximum is 30 s" in out
    rows = [row for split in ("train", "valid", "test") for row in read_manifest(Path("x") / f"{split}.jsonl")]
    assert len(rows) == 20
    assert main(["check", "x.yaml"]) == 0


def test_rows_are_left_out_with_their_reasons(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [*range(20), 7, "gone", "lost"]
    table = "".join(f"{name}.wav,sentence number {name},{name}\n" for name in names)
    (clips / "all.csv").write_text(f"path,text,id\n{table}")
    assert run([str(clips / "all.csv"), "--name", "x", "--model", str(MODEL), "--yes"]) == 0
    out = capsys.readouterr().out
    assert "3 of 23 rows are left out: missing audio (2), duplicate id (1)\n" in out and "limits" not in out


def test_bad_input_is_an_error_and_writes_nothing(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def error(*argv: str) -> str:
        assert run(list(argv)) == 1
        return capsys.readouterr().err

    assert "pass a corpus" in error()
    assert "no such file" in error(str(clips), "--terms", "gone.txt", "--name", "x")
    assert "gone.jsonl: no such file" in error(str(clips), "--canary", "gone.jsonl", "--name", "x")
    assert "did you mean" not in error("absent", "--yes"), "the new folder absent_recipe is no suggestion"
    assert "x" not in {path.stem for path in clips.parent.iterdir()}
    for path in sorted(clips.iterdir())[4:]:
        path.unlink()
    assert "too few" in error(str(clips), "--name", "x") and not Path("x").exists()
    Path("x.yaml").touch()
    assert "x.yaml: exists" in error(str(clips), "--name", "x")


def test_values_that_yaml_would_read_as_something_else_are_quoted(clips: Path) -> None:
    """YAML takes " #" as the start of a comment, and a comma in a list as its next element."""
    terms, canary = "terms #1.txt", "a, b: c.jsonl"
    text = recipe_text(NewRecipe("x", Path("x"), "1", "accent", 1.0, 24.0, terms, canary))
    content = yaml.safe_load(text)
    assert (content["model"]["base"], content["data"]["terms"], content["data"]["canary"]) == ("1", terms, [canary])
    assert f"  base: {DEFAULT_MODEL}\n" in recipe_text(NewRecipe("x", Path("x"), DEFAULT_MODEL, "", 1.0, 0.0))


def test_the_end_of_the_input_is_an_error(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As after Ctrl-D."""

    def end(question: str) -> str:
        raise EOFError

    assert run([], end) == 1
    assert "--yes" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../x", "a/b", "", "x\n"])
def test_a_name_with_a_path_is_refused(clips: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([str(clips), "--name", name, "--yes"]) == 1
    assert "--name" in capsys.readouterr().err


def test_splits_share_no_text_and_do_not_depend_on_the_order() -> None:
    rows = [utterance(number, f"Text  {number // 3}") for number in range(90)]
    rows = [*rows, utterance(90, "text 1")]  # as "Text  1", but for case and spaces
    splits = divide(rows)
    texts: dict[str, set[str]] = {}
    for row, split in zip(rows, splits.names, strict=True):
        texts.setdefault(split, set()).add(" ".join(row.text.lower().split()))
    assert splits.disjoint == "text" and texts["train"].isdisjoint(texts["test"] | texts["valid"])
    assert texts["test"].isdisjoint(texts["valid"])
    assert 7 <= splits.names.count("test") <= 12 and 7 <= splits.names.count("valid") <= 12
    assert divide(rows[::-1]).names == splits.names[::-1]


def with_column(stated: list[str], column: str = "split") -> list[Utterance]:
    rows = [utterance(number, f"text {number}") for number in range(len(stated))]
    return [replace(row, extra={column: name}) for row, name in zip(rows, stated, strict=True)]


@pytest.mark.parametrize("column", ["split", "Subset", "partition"])
def test_a_column_of_splits_is_kept(column: str) -> None:
    splits = new_splits(with_column(["train", "Test", "dev ", "validation", "eval", "training"], column))
    assert splits.names == ["train", "test", "valid", "valid", "test", "train"] and splits.column == column


@pytest.mark.parametrize(("stated", "lacks"), [("test", "valid"), ("dev", "test")])
def test_a_split_that_the_column_lacks_is_a_part_of_its_train(stated: str, lacks: str) -> None:
    rows = with_column(["train"] * 30 + [stated] * 10)
    splits = new_splits(rows)
    assert len({*splits.names[30:]}) == 1 and lacks not in splits.names[30:]
    assert splits.names[:30].count(lacks) == 3 and splits.names[:30].count("train") == 27


@pytest.mark.parametrize("stated", [["train"] * 30, ["train"] * 29 + ["3"], ["test", "dev"] * 15, ["a", "b"] * 15])
def test_a_column_that_is_no_split_is_not_kept(stated: list[str]) -> None:
    rows = with_column(stated)
    assert new_splits(rows) == divide(rows)


def test_the_files_have_the_rows_that_the_column_states(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["test" if number % 4 == 0 else "train" for number in range(20)]
    table = "".join(f"{number}.wav,sentence {number},{name}\n" for number, name in enumerate(names))
    (clips / "metadata.csv").write_text(f"file_name,text,split\n{table}")
    assert run([str(clips), "--yes", "--name", "own", "--goal", "vocabulary", "--model", str(MODEL)]) == 0
    assert {item.extra["split"] for item in read_manifest(clips.parent / "own" / "test.jsonl")} == {"test"}
    assert {item.extra["split"] for item in read_manifest(clips.parent / "own" / "valid.jsonl")} == {"train"}
    assert "column 'split' states them; valid is taken from its train\n" in capsys.readouterr().out


def test_a_column_with_all_splits_lacks_none(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["test" if number % 4 == 0 else "dev" if number % 4 == 1 else "train" for number in range(20)]
    table = "".join(f"{number}.wav,sentence {number},{name}\n" for number, name in enumerate(names))
    (clips / "metadata.csv").write_text(f"file_name,text,split\n{table}")
    assert run([str(clips), "--yes", "--name", "own", "--goal", "vocabulary", "--model", str(MODEL)]) == 0
    assert "column 'split' states them\n" in capsys.readouterr().out


def test_clips_without_a_speaker_are_named_if_speakers_are_shared(
    clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    speakers = ["", *(f"s{number % 10}" for number in range(19))]
    table = "".join(f"{number}.wav,sentence {number},{name}\n" for number, name in enumerate(speakers))
    (clips / "metadata.csv").write_text(f"file_name,text,speaker\n{table}")
    arguments = [str(clips), "--yes", "--goal", "vocabulary", "--model", str(MODEL)]
    assert run([*arguments, "--name", "own"]) == 0
    out = capsys.readouterr().out
    assert "no text is in two of them, but speakers can be: 1 clip has no speaker (column speaker)\n" in out
    (clips / "metadata.csv").write_text(f"file_name,text,speaker\n{table}".replace("sentence 0,", "sentence 0,s0"))
    assert run([*arguments, "--name", "other"]) == 0
    assert "no speaker is in two of them\n" in capsys.readouterr().out


def test_splits_share_no_audio_and_no_text_but_for_punctuation() -> None:
    rows = [
        replace(utterance(number, f"Text {number // 2}" + ".?"[number % 2]), audio_digest=f"{number // 3}")
        for number in range(60)
    ]
    splits = divide(rows)
    for size in (2, 3):  # rows with the same text, and rows with the same audio
        owners: dict[int, set[str]] = {}
        for number, split in enumerate(splits.names):
            owners.setdefault(number // size, set()).add(split)
        assert {len(names) for names in owners.values()} == {1}
    assert splits.different == 10  # six clips each


def test_overlapping_segments_of_a_recording_are_in_one_split() -> None:
    """Cues of 4 s, each 2 s into the next, in groups of four; the words of a recording go on after a gap."""
    starts = [20 * (number // 4) + 2 * (number % 4) for number in range(80)]
    rows = [
        replace(utterance(number, f"text {number}"), audio_filepath="/a/call.wav", offset=float(start), duration=4.0)
        for number, start in enumerate(starts)
    ]
    splits = divide(rows)
    assert splits.different == 20
    assert all(len({*splits.names[number : number + 4]}) == 1 for number in range(0, 80, 4))
    by_name = {name: [row for row, of in zip(rows, splits.names, strict=True) if of == name] for name in splits.names}
    assert not [*find_leaks(by_name["train"], by_name["test"]), *find_leaks(by_name["valid"], by_name["test"])]
    touching = [replace(row, duration=2.2) for row in rows]  # padding of 0.2 s
    assert divide(touching).different == 80
    channels = [replace(row, channel=number % 2) for number, row in enumerate(rows)]  # 4 s later on the same channel
    assert divide(channels).different == 80
    mixed = [replace(row, channel=(0, None)[number % 2]) for number, row in enumerate(rows)]
    assert divide(mixed).different == 20


def test_three_texts_give_three_splits() -> None:
    for long in range(3):
        rows = [
            replace(utterance(number, f"text {number}"), duration=90.0 if number == long else 1.0)
            for number in range(3)
        ]
        assert sorted(divide(rows).names) == ["test", "train", "valid"]


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_a_speaker_with_most_of_the_audio_trains(share: float) -> None:
    for attempt in range(20):
        names = [f"{attempt} {number}" for number in range(10)]
        rows = [replace(utterance(number, f"t{number}", name), duration=1.0) for number, name in enumerate(names)]
        rows[0] = replace(rows[0], duration=9 * share / (1 - share))
        assert divide(rows).names[0] == "train"


def test_many_speakers_are_divided_by_speaker() -> None:
    rows = [utterance(number, f"text {number}", f"s{number % 12}") for number in range(120)]
    splits = divide(rows)
    speakers = {
        split: {row.speaker for row, name in zip(rows, splits.names, strict=True) if name == split}
        for split in splits.names
    }
    assert splits.disjoint == "speaker" and splits.note() == "no speaker is in two of them"
    assert not speakers["train"] & (speakers["test"] | speakers["valid"])
    same = divide([utterance(number, f"text {number % 10}", f"s{number % 12}") for number in range(120)])
    repeated = sum(split != "train" for split in same.names)  # each speaker says each text
    assert same.note() == (
        f"no speaker is in two of them, but the text of {repeated} clips of valid or test is also in train"
    )
    few = divide([utterance(number, f"t{number}", f"s{number % 9}") for number in range(90)])
    assert few.disjoint == "text" and few.note().endswith("but speakers can be: 9 speakers are fewer than 10")
    unnamed = divide([*rows, utterance(120, "t")])  # a row without a speaker
    assert unnamed.disjoint == "text" and unnamed.note().endswith("1 clip has no speaker (column speaker)")


@pytest.mark.parametrize("goal", ["", *GOALS])
@pytest.mark.parametrize("card", [0.0, 24.0, 80.0])
def test_each_recipe_is_valid(goal: str, card: float, tmp_path: Path) -> None:
    path, terms = tmp_path / "r.yaml", tmp_path / "t.txt"
    terms.write_text("stent\n")
    path.write_text(recipe_text(NewRecipe("r", Path("r"), "base", goal, 3.0, card, str(terms), "c.jsonl")))
    recipe, _ = load_recipe(path, [])
    assert recipe.train.goal == (goal or None) and [entry.path for entry in recipe.data.canary] == ["c.jsonl"]
    assert recipe.machine.gradient_checkpointing is (card == 24.0)
    assert recipe.train.batch == ("auto" if card else "fixed")


@pytest.mark.parametrize(
    "name", ["a b.txt", "general-{a,b}.jsonl", "a, b", "a: b", "a #b", "[1]", "12", 'a"\\', "no", "é"]
)
def test_a_path_with_signs_of_yaml_is_kept(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text("stent\n")
    path = tmp_path / "r.yaml"
    path.write_text(recipe_text(NewRecipe("r", Path("r"), name, "", 3.0, 0.0, name, name)), encoding="utf-8")
    recipe, _ = load_recipe(path, [])
    assert (recipe.model.base, recipe.data.terms, recipe.decode.terms) == (name, name, ("stent",))
    assert [entry.path for entry in recipe.data.canary] == [name]


@pytest.mark.parametrize("card", [0.0, 24.0])
@pytest.mark.parametrize("hours", [0.01, 0.2, 0.9, 3.0, 40.0])
def test_a_recipe_has_the_steps_that_check_advises(hours: float, card: float) -> None:
    batch, accumulation, epochs = schedule(NewRecipe("r", Path("r"), "base", "", hours, card, longest=4.0))
    steps = 3600 * hours * epochs / (batch * accumulation)
    assert steps >= FEW_STEPS and 5 <= batch <= (120 if card else 30)
    assert steps < 2.5 * ENOUGH_STEPS or batch * accumulation == (240 if card else 30)


def test_little_audio_without_a_goal_is_augmented() -> None:
    texts = [recipe_text(NewRecipe("r", Path("r"), "base", *choice)) for choice in (("", 0.5, 0.0), ("", 1.5, 0.0))]
    assert ["augment:\n  speed: 0.1\n" in text for text in texts] == [True, False]


def test_less_audio_has_more_epochs() -> None:
    assert [epochs_for(hours) for hours in (0.2, 5, 50, 500)] == [10, 6, 3, 2]
