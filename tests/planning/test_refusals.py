"""What a stage refuses and is known without decoding audio, `finetune check` refuses with the same sentence."""

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from command import Command
from conftest import embedded
from family import make_model
from safetensors.torch import load_file, save_file

from finetune.core.config import Recipe
from finetune.core.errors import CheckpointError, DataError
from finetune.core.files import read_json, write_json
from finetune.core.run_dir import RunDir
from finetune.data.manifest import read_manifest, write_manifest
from finetune.exporting.save import check_target
from finetune.model.granite import SpeechModel
from finetune.pipeline import corpus_states
from finetune.planning.check import check_recipe
from finetune.planning.disk import DiskPlan, check_disk, plan_disk
from finetune.planning.refusals import refusals
from finetune.training.launch import world_size

Tiny = Callable[..., Recipe]
Trained = tuple[Recipe, RunDir, SpeechModel]
Rows = list[dict[str, object]]


@dataclass
class Project:
    """A recipe in a folder with its corpora and a copy of the embedded model."""

    folder: Path
    content: dict[str, dict[str, object]]

    @property
    def recipe(self) -> Path:
        path = self.folder / "my.yaml"
        path.write_text(json.dumps(self.content))  # JSON is YAML
        return path

    @property
    def model(self) -> Path:
        return self.folder / "model"

    def change_rows(self, split: str, change: Callable[[Rows], object]) -> None:
        path = self.folder / f"{split}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        change(rows)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def set(self, **settings: object) -> None:
        """Sets settings: section_and_key=value, with __ between them."""
        for name, value in settings.items():
            *sections, key = name.split("__")
            level: dict[str, object] = self.content  # type: ignore[assignment]
            for section in sections:
                level = level.setdefault(section, {})  # type: ignore[assignment]
            level[key] = value


@pytest.fixture
def project(tmp_path: Path, nano: Path) -> Project:
    shutil.copytree(nano, tmp_path / "model")
    for split, count in (("train", 6), ("valid", 3), ("test", 3)):
        write_manifest(tmp_path / f"{split}.jsonl", embedded(split, count))
    content: dict[str, dict[str, object]] = {
        "model": {"base": str(tmp_path / "model")},
        "data": {split: [str(tmp_path / f"{split}.jsonl")] for split in ("train", "valid", "test")},
        "train": {"epochs": 1, "batch_seconds": 6},
        "machine": {"processes": 1},
    }
    project = Project(tmp_path, content)
    project.set(runs=str(tmp_path / "runs"), name="my")
    return project


def each(key: str, value: object) -> Callable[[Rows], object]:
    return lambda rows: [row.update({key: value}) for row in rows]


def without_weight(project: Project) -> None:
    path = project.model / "model.safetensors"
    weights = load_file(path)
    weights.pop("encoder.layers.0.ff1.up_proj.bias")
    save_file(weights, path, metadata={"format": "pt"})


def without_end(project: Project) -> None:
    path = project.model / "tokenizer_config.json"
    write_json(path, {key: value for key, value in read_json(path).items() if key != "eos_token"})


def folder_of_user(project: Project) -> None:
    (project.folder / "runs" / "my").mkdir(parents=True)
    (project.folder / "runs" / "my" / "notes.txt").write_text("mine")


def same_file(project: Project) -> None:
    clip = embedded("train", 1)[0]
    project.change_rows("test", lambda rows: rows[0].update(audio_filepath=clip.audio_filepath, duration=clip.duration))


def person_as_channel(project: Project) -> None:
    def change(rows: Rows) -> None:
        wave, rate = soundfile.read(str(rows[0]["audio_filepath"]))
        soundfile.write(project.folder / "call.wav", np.stack([wave, 0.5 * wave], 1), rate)
        rows[0].update(audio_filepath=str(project.folder / "call.wav"), channel="agent")

    project.change_rows("train", change)


def terms(text: str) -> Callable[[Project], object]:
    def write(project: Project) -> None:
        (project.folder / "terms.txt").write_text(text)
        project.set(data__terms=str(project.folder / "terms.txt"))

    return write


PREPARE: dict[str, Callable[[Project], object]] = {
    "no audio": lambda project: project.change_rows("train", each("audio_filepath", "gone.wav")),
    "an empty transcript": lambda project: project.change_rows("train", lambda rows: rows[0].update(text=" ")),
    "no words": lambda project: project.change_rows("valid", lambda rows: rows[0].update(text="...")),
    "a special token": lambda project: project.change_rows("train", lambda rows: rows[0].update(text="a <|audio|> b")),
    "a keyword that is a token": lambda project: project.change_rows("train", each("keywords", ["<|pad|>"])),
    "clips are too long": lambda project: project.set(data__max_duration=1.0),
    "clips are too short": lambda project: project.set(data__min_duration=20),
    "too much text": lambda project: project.set(data__max_chars_per_second=1),
    "an id twice": lambda project: project.change_rows("train", lambda rows: rows[1].update(id=rows[0]["id"])),
    "a broken row": lambda project: project.change_rows(
        "train", lambda rows: rows[2].update(channel="upper", text=None)
    ),
    "a person as the channel": person_as_channel,
    "the same file": same_file,
    "a term of signs": terms("...\nstent\n"),
    "no terms": terms("\n"),
    "no corpus": lambda project: project.set(data__valid=["gone.jsonl"]),
    "a directory of the user": folder_of_user,
    "limits of another version": lambda project: (project.model / "limits.json").write_text("[]"),
    "the folder of runs is a file": lambda project: project.set(runs=str(project.folder / "train.jsonl")),
}
TRAIN: dict[str, Callable[[Project], object]] = {
    "short batches": lambda project: project.set(train__batch_seconds=0.9),
    "narrow batches": lambda project: project.set(train__batch_tokens=64, model__instruction="what is said here " * 20),
    "4 bits on a CPU": lambda project: project.set(model__quantize="4bit"),
    "a module that does not exist": lambda project: project.set(parts={"lora": {"modules": ["q_proj", "qkv"]}}),
    "too many blocks": lambda project: project.set(parts={"encoder": {"mode": "lora", "blocks": 99}}),
    "too many layers": lambda project: project.set(parts={"language_model": {"layers": 99}}),
    "no layer for LoRA": lambda project: project.set(parts={"language_model": {"layers": 5}}),
    "no base": lambda project: shutil.rmtree(project.model),
    "a base without weights": lambda project: (project.model / "model.safetensors").unlink(),
    "a weight is missing": without_weight,
    "no end of text": without_end,
    "a token in the instruction": lambda project: project.set(model__instruction="write <|audio|> down"),
    "a hub name that is not there": lambda project: project.set(model__base="nobody/nothing"),
}


def sampled(cases: Iterable[str], quick: list[str]) -> list[object]:
    """All cases, of which only `quick` are not marked as slow."""
    return [pytest.param(case, marks=[] if case in quick else pytest.mark.slow) for case in cases]


def last_line(text: str) -> str:
    """The error of a command, without its beginning and what check adds in brackets."""
    return text.strip().splitlines()[-1].removeprefix("finetune: ")


@pytest.mark.parametrize("case", sampled(PREPARE, ["an empty transcript", "the same file"]))
def test_check_refuses_what_prepare_refuses(finetune: Command, project: Project, case: str) -> None:
    PREPARE[case](project)
    checked, prepared = finetune("check", project.recipe), finetune("prepare", project.recipe)
    assert prepared.code != 0 and checked.code == prepared.code
    assert last_line(prepared.err) in checked.err, prepared.err


@pytest.mark.parametrize("case", sampled(TRAIN, ["a weight is missing", "narrow batches"]))
def test_check_refuses_what_train_refuses(finetune: Command, project: Project, case: str) -> None:
    TRAIN[case](project)
    checked, trained = finetune("check", project.recipe), finetune("train", project.recipe)
    assert trained.code != 0 and checked.code != 0
    assert last_line(trained.err) in checked.err, trained.err


def test_a_project_without_faults_passes(finetune: Command, project: Project) -> None:
    result = finetune("check", project.recipe)
    assert result.code == 0 and "steps " in result.out and not (project.folder / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("split", ["valid", "canary"])
def test_leaks_are_allowed_if_the_recipe_says_so(finetune: Command, project: Project, split: str) -> None:
    project.content["data"][split] = project.content["data"]["train"]
    refused = finetune("check", project.recipe)
    assert refused.code == 1 and f"data.{split}: the audio of 6 of its utterances is also in data.train" in refused.err
    project.set(data__allow_leaks=True)
    allowed = finetune("check", project.recipe)
    assert allowed.code == 0 and "audio: 6 in train" in allowed.out


def test_rows_that_prepare_drops_are_no_leak(finetune: Command, project: Project) -> None:
    """The clip in train is too long, so only test keeps it."""
    same_file(project)
    first = embedded("train", 1)[0]
    project.change_rows(
        "train", lambda rows: [row.update(duration=70) for row in rows if row["audio_filepath"] == first.audio_filepath]
    )
    project.set(data__max_bad_fraction=0.5)
    assert finetune("check", project.recipe).code == 0


def test_long_clips_that_are_cut_are_not_unusable(project: Project) -> None:
    project.set(data__max_duration=1.0)
    dropped = check_recipe(Recipe.model_validate(project.content)).problems
    project.set(data__too_long="segment")
    cut = check_recipe(Recipe.model_validate(project.content)).problems
    assert any("data.train: 0 of 6 rows are usable" in line for line in dropped)
    assert not any("data.train" in line for line in cut) and any("data.valid" in line for line in cut)


def errors(recipe: Recipe, run: RunDir, **environment: str) -> str:
    return "\n".join(str(error) for error in refusals(recipe, run, environment))


def test_the_directory_of_another_recipe_is_refused(trained: Trained) -> None:
    recipe, run, _ = trained
    assert errors(recipe, run) == ""
    other = recipe.model_copy(update={"train": recipe.train.model_copy(update={"epochs": 9})})
    with pytest.raises(CheckpointError) as refused:
        run.claim(json.loads(json.dumps({"train": other.train.model_dump(mode="json")})))
    assert "holds a run of another recipe" in str(refused.value)
    assert "holds a run of another recipe (differs in train.epochs)" in errors(other, run)


def test_another_number_of_processes_is_not_refused(trained: Trained) -> None:
    recipe, run, _ = trained
    two = recipe.model_copy(update={"machine": recipe.machine.model_copy(update={"processes": 2})})
    assert errors(two, run) == ""


def test_another_decoding_is_refused_until_the_training_has_finished(trained: Trained, tmp_path: Path) -> None:
    recipe, run, _ = trained
    copy = RunDir(shutil.copytree(run.root, tmp_path / "copy"))
    shorter = recipe.model_copy(update={"decode": replace(recipe.decode, max_new_tokens=9)})
    copy.marker("train").unlink(missing_ok=True)
    assert f"decode.max_new_tokens: was {recipe.decode.max_new_tokens}, now 9" in errors(shorter, copy)
    decoders = [
        recipe.model_copy(update={"decode": replace(recipe.decode, decoder=name)}) for name in ("greedy", "beam")
    ]
    assert errors(decoders[0], copy) == "", "it writes the text of speculative decoding"
    assert 'decode.decoder: was another decoder, now "beam"' in errors(decoders[1], copy)
    copy.finish("train", {})
    assert errors(shorter, copy) == ""


def test_changed_clips_of_a_checkpoint_are_refused(trained: Trained, tmp_path: Path) -> None:
    recipe, run, _ = trained
    copy = RunDir(shutil.copytree(run.root, tmp_path / "copy"))
    write_manifest(copy.manifest("train"), read_manifest(run.manifest("train"))[:-1])
    assert "(a manifest differs: clips or transcripts of the corpora were changed)" in errors(recipe, copy)
    shutil.copy(run.manifest("train"), copy.manifest("train"))
    states = corpus_states(recipe)
    copy.finish("prepare", {"corpora": states | {"test": "another test set"}})
    assert errors(recipe, copy) == ""
    copy.finish("prepare", {"corpora": states | {"train": "other files"}})
    assert "files of data.train changed since `finetune prepare`" in errors(recipe, copy)


def test_a_damaged_checkpoint_is_refused(trained: Trained, tmp_path: Path) -> None:
    recipe, run, _ = trained
    copy = RunDir(shutil.copytree(run.root, tmp_path / "copy"))
    for folder in copy.root.glob("checkpoint*"):
        (folder / "progress.json").write_text("{")
    assert "unreadable (progress.json does not match its hash)" in errors(recipe, copy)


def test_a_file_that_export_would_delete_is_refused(trained: Trained, tmp_path: Path, nano: Path) -> None:
    recipe, run, _ = trained
    copy = RunDir(shutil.copytree(run.root, tmp_path / "copy"))
    copy.export.mkdir(exist_ok=True)
    (copy.export / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError) as refused:
        check_target(copy.export, nano)
    assert str(refused.value) in errors(recipe, copy)


def test_an_export_is_not_compared_with_a_base_that_is_no_model(trained: Trained, tmp_path: Path) -> None:
    recipe, trained_run, _ = trained
    run = RunDir(shutil.copytree(trained_run.root, tmp_path / "run"))
    run.export.mkdir(exist_ok=True)
    (run.export / "chat_template.jinja").write_text("of the base")
    wrong = recipe.model_copy(update={"model": recipe.model.model_copy(update={"base": str(tmp_path)})})
    assert not [error for error in refusals(wrong, run) if "was not written by an export" in str(error)]


def test_variables_of_a_launcher_are_checked(tiny: Tiny, tmp_path: Path) -> None:
    recipe, run = tiny(tmp_path, "x"), RunDir(tmp_path / "x")
    with pytest.raises(Exception, match="RANK") as refused:
        world_size({"RANK": "3", "WORLD_SIZE": "2"})
    assert str(refused.value) in errors(recipe, run, RANK="3", WORLD_SIZE="2")
    assert "set to FSDP" in errors(recipe, run, ACCELERATE_USE_FSDP="true")


def test_layers_with_4_bits_cannot_train_in_full(finetune: Command, project: Project) -> None:
    project.set(model__quantize="4bit", parts={"language_model": {"layers": 1}})
    for command in ("check", "train"):
        result = finetune(command, project.recipe)
        assert result.code == 2 and "parts.language_model.layers: layers with 4-bit weights cannot" in result.err


def test_references_of_translations_are_checked(finetune: Command, project: Project) -> None:
    def translated(rows: Rows) -> None:
        each("target_language", "de")(rows)
        rows[1]["text"] = ""

    project.change_rows("test", translated)
    result = finetune("check", project.recipe)
    assert result.code == 1 and "test.jsonl:2: no translation: the row has no words in de" in result.err
    result = finetune("prepare", project.recipe)
    assert result.code == 1 and "test.jsonl:2): the row has no words in de" in result.out


def test_a_disk_that_is_too_small_is_refused(project: Project, model: Callable[[], SpeechModel]) -> None:
    recipe = Recipe.model_validate(project.content)
    plan = plan_disk(model(), recipe, RunDir(project.folder / "none"), 10, 500, 1000, free=1_000_000)
    with pytest.raises(DataError, match=r"the run needs at least 30\.\d MB, and 1\.0 MB are free"):
        check_disk(plan)
    check_disk(plan_disk(model(), recipe, RunDir(project.folder / "none"), 10, 500, 1000, free=10**9))
    eight_bit = recipe.model_copy(update={"train": recipe.train.model_copy(update={"optimizer": "adamw-8bit"})})
    trained = model()
    trained.lm_head.weight.requires_grad_(True)
    large, small = (
        plan_disk(trained, item, RunDir(project.folder / "none"), 10, 500, 1000, free=10**9)
        for item in (recipe, eight_bit)
    )
    assert small.checkpoints == pytest.approx(large.checkpoints * 6.03 / 12, rel=0.01) and small.least < large.least
    cached = recipe.model_copy(update={"machine": recipe.machine.model_copy(update={"cache_encoder": True})})
    assert plan_disk(model(), cached, RunDir(project.folder), 10, 500, 1000, free=1).cache > 0


def test_what_a_run_has_written_is_not_demanded_again(project: Project, model: Callable[[], SpeechModel]) -> None:
    recipe, run = Recipe.model_validate(project.content), RunDir(project.folder / "runs" / "some")

    def plan(free: int) -> DiskPlan:
        return plan_disk(model(), recipe, run, 10, 500, 1000, free=free)

    run.media.mkdir(parents=True)
    (run.media / "clip.wav").write_bytes(bytes(40_000_000))  # no part of what is needed, and it stays
    assert plan(0).present == 0
    with pytest.raises(DataError, match=r"the run needs at least 30\.\d MB, and 20\.0 MB are free"):
        check_disk(plan(20_000_000))
    run.export.mkdir()
    (run.export / "model.safetensors").write_bytes(bytes(15_000_000))
    assert plan(0).present == 15_000_000
    check_disk(plan(20_000_000))
    with pytest.raises(DataError, match=r"15\.\d MB more than the 15\.0 MB that it has written, and 1\.0 MB"):
        check_disk(plan(1_000_000))


def test_problems_of_several_kinds_are_listed_together(project: Project) -> None:
    project.change_rows("train", lambda rows: rows[0].update(text=" "))
    folder_of_user(project)
    project.set(model__quantize="4bit")
    result = check_recipe(Recipe.model_validate(project.content))
    assert len(result.problems) == 3 and result.hints and result.steps is not None


def test_4bit_of_a_layout_with_an_adapter_inside_is_refused(project: Project, tmp_path: Path) -> None:
    """granite-speech-3.3: loading refuses it too, but only where there is a GPU."""
    project.set(model__base=str(make_model("3.3-2b", tmp_path / "base")), model__quantize="4bit")
    found = [str(error) for error in refusals(Recipe.model_validate(project.content), RunDir(tmp_path / "run"))]
    assert any("its LoRA adapter cannot be merged into quantized weights" in text for text in found)
    project.set(model__base=str(make_model("4.1-2b", tmp_path / "other")))
    found = [str(error) for error in refusals(Recipe.model_validate(project.content), RunDir(tmp_path / "run"))]
    assert not [text for text in found if "merged" in text]
