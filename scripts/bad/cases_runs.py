"""Bad run directories, and files that a command must not overwrite."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from bad.case import ANY, USAGE, Case
from bad.material import Material

GARBAGE = {
    "garbage": b"\xff\xfe{[garbage",
    "empty": b"",
    "list": b"[]",
    "null": b"null",
    "number": b"17",
    "deep": b"[" * 100_000,
    "object": b"{}",
}


def cases(material: Material) -> Iterator[Case]:
    yield from _damaged(material)
    yield from _folders(material)
    yield from _kept(material)


def _damaged(material: Material) -> Iterator[Case]:
    """A finished run with one damaged file. Files that can be made again may be; the rest is refused."""
    files = sorted(
        str(path.relative_to(material.run))
        for path in material.run.rglob("*")
        if path.suffix in (".json", ".jsonl", ".safetensors") and not {"export", "report"} & {*path.parts}
    )
    for number, name in enumerate(files):
        kind = list(GARBAGE)[number % len(GARBAGE)]
        folder = material.folder(f"run-damaged-{name.replace('/', '-')}")
        run = material.copy_run(folder)
        (run / name).write_bytes(GARBAGE[kind])
        label = f"run-{kind}-{name}"
        yield Case(f"{label}: report", folder, ["report", "runs/done"], ANY)
        yield Case(f"{label}: compare", folder, ["compare", "runs/done:base", "runs/done"], (0, 1))
        argv = ["evaluate", material.recipe, "--set", "runs=runs"]
        if number % 4 == 0 or "metrics" in name:
            yield Case(f"{label}: evaluate", folder, argv, ANY)
    for kind, content in GARBAGE.items():
        folder = material.folder(f"run-evaluation-{kind}")
        run = material.copy_run(folder)
        (run / "evaluation" / "metrics.json").write_bytes(content)
        yield Case(f"run-metrics-{kind}: report", folder, ["report", "runs/done"], (1,), "metrics.json|evaluat")
        (run / "evaluation" / "test.base.jsonl").write_bytes(content)
        yield Case(f"run-hypotheses-{kind}: compare", folder, ["compare", "runs/done:base", "runs/done"], (1,), "base")
        (run / "recipe.json").write_bytes(content)
        yield Case(f"run-recipe-{kind}: report", folder, ["report", "runs/done"], (1,))
        (run / "resolved.json").write_bytes(content)
        yield Case(f"run-resolved-{kind}: check", folder, ["check", "runs/done/resolved.json"], USAGE, "resolved.json")


def _folders(material: Material) -> Iterator[Case]:
    """Names that cannot be run directories."""
    folder = material.folder("run-folders")
    (folder / "file").write_text("x")
    (folder / "foreign" / "done").mkdir(parents=True)
    (folder / "foreign" / "done" / "thesis.txt").write_text("x")
    (folder / "loop").symlink_to("loop")
    (folder / "blocked" / "done").mkdir(parents=True)
    shutil.copytree(material.run, folder / "blocked" / "done", dirs_exist_ok=True)
    (folder / "blocked" / "done" / "train.done.json").unlink()
    shutil.rmtree(folder / "blocked" / "done" / "checkpoint", ignore_errors=True)
    (folder / "blocked" / "done" / "checkpoint").write_text("a file")
    (folder / "half").mkdir()
    shutil.copytree(material.run, folder / "half" / "done")
    shutil.rmtree(folder / "half" / "done" / "manifests")
    (folder / "half" / "done" / "manifests").write_text("a file")
    (folder / "half" / "done" / "prepare.done.json").unlink()
    yield from _runs_folders(material, folder)
    yield from _run_names(material, folder)
    yield from _read_only(material)


def _runs_folders(material: Material, folder: Path) -> Iterator[Case]:
    """Values of `runs` that no run can be written to."""
    keep = (folder / "foreign" / "done" / "thesis.txt", folder / "file")
    for runs, says in {
        "file": "file|directory",
        "foreign": "not a run directory",
        "loop": "loop|symbolic|cannot be written",
        "n" * 300: "long",
        "/proc/nowhere": "cannot be written|no such",
        "/dev/null": "directory",
        "a\0b": "null|valid",
        "": "runs|permission|written|directory",
        "~nobody-here/runs": "",
        "blocked": "checkpoint|director",
        "half": "manifests|director",
    }.items():
        for command in ("prepare", "train", "run"):
            codes = ANY if runs.startswith("~") else (1, 2)
            argv = [command, material.recipe, "--set", f"runs={runs}"]
            if runs == "":
                argv = [command, material.recipe, "--set", "runs=''"]
                codes, says = ANY, ""
            if (runs, command) in {("half", "train"), ("half", "run"), ("blocked", "prepare")}:
                continue
            yield Case(f"run-runs-{runs[:20]!a}: {command}", folder, argv, codes, says, keeps=keep)


def _run_names(material: Material, folder: Path) -> Iterator[Case]:
    """Arguments that name no run directory."""
    for name, says in {
        "file": "no such|not a",
        "foreign/done": "not a run directory",
        "nowhere": "no such",
        "a\0b": "no such|null|valid",
        "n" * 5000: "no such|long",
        "": "no such|not a run directory",
        "loop": "no such|loop",
        "/": "not a run directory",
    }.items():
        label = f"run-name-{name[:20]!a}"
        yield Case(f"{label}: report", folder, ["report", name], (1, 2), says)
        yield Case(f"{label}: compare", folder, ["compare", name, material.test], (1, 2))


def _read_only(material: Material) -> Iterator[Case]:
    """A run directory that cannot be written to."""
    locked = material.folder("run-read-only")
    material.copy_run(locked)
    for command, argv in {
        "report": ["report", "runs/done"],
        "evaluate": ["evaluate", material.recipe, "--set", "runs=runs", "--set", "evaluate.replicas=101"],
        "prepare": ["prepare", material.recipe, "--set", "runs=runs"],
        "train": ["train", material.recipe, "--set", "runs=runs", "--set", "name=new"],
    }.items():
        for path in (locked / "runs" / "done", locked / "runs"):
            path.chmod(0o555)
        yield Case(f"run-read-only: {command}", locked, argv, (1,), "permission|written", unprivileged=True)


def _kept(material: Material) -> Iterator[Case]:
    """Files of the user in the place of an output."""
    audio, model = str(material.good / "test0.wav"), str(material.model)
    folder = material.folder("keep-transcribe")
    texts = folder / "texts"
    texts.mkdir()
    reference = texts / "test0.txt"
    reference.write_text("the reference of a human")
    argv = ["transcribe", audio, "--model", model, "--output", "texts"]
    yield Case("keep-transcribe", folder, argv, (1, 2), "test0.txt.*overwrite|overwrite.*test0.txt", keeps=(reference,))
    both = ["transcribe", audio, str(material.good / "test1.wav"), "--model", model, "--output", "texts"]
    yield Case(
        "keep-transcribe-second", folder, both, (1, 2), "test0.txt", keeps=(reference,), absent=(texts / "test1.txt",)
    )
    (folder / "link").mkdir()
    (folder / "link" / "test0.txt").symlink_to(reference)
    argv = ["transcribe", audio, "--model", model, "--output", "link"]
    yield Case("keep-transcribe-link", folder, argv, (1, 2), "overwrite", keeps=(reference,))
    own = folder / "own.json"
    shutil.copyfile(material.good / "test0.wav", own)
    argv = ["transcribe", "own.json", "--model", model, "--output", ".", "--format", "json"]
    yield Case("keep-transcribe-input", folder, argv, (1, 2), "own.json", keeps=(own,))
    yield Case(
        "keep-transcribe-file",
        folder,
        ["transcribe", audio, "--model", model, "--output", str(own)],
        (1,),
        "own.json",
        keeps=(own,),
    )
    for name in ("/proc/nowhere", "/dev/null/x", "n" * 300, "a\0b"):
        argv = ["transcribe", audio, "--model", model, "--output", name]
        yield Case(f"keep-transcribe-{name[:15]!a}", folder, argv, (1, 2), "written|director|long|null|valid|such")
    hypotheses = [str(material.good / f"hyp_{letter}.jsonl") for letter in "ab"]
    folder = material.folder("keep-compare")
    foreign = folder / "thesis.json"
    foreign.write_text('{"mine": true}')
    copied = folder / "hyp.jsonl"
    shutil.copyfile(hypotheses[0], copied)
    manifest = folder / "test.jsonl"
    shutil.copyfile(material.test, manifest)
    for number, path in enumerate((foreign, copied, manifest)):
        argv = ["compare", str(copied), hypotheses[1], "--manifest", material.test, "--json", str(path)]
        yield Case(f"keep-compare-{number}", folder, argv, (1, 2), path.name, keeps=(path,))
    for number, name in enumerate((".", "/dev/null/x", "n" * 300, "a\0b", "/proc/x.json")):
        argv = ["compare", *hypotheses, "--manifest", material.test, "--json", name]
        yield Case(f"keep-compare-path-{number}", folder, argv, (1, 2))
    folder = material.folder("keep-demo")
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.txt").write_text("x")
    (folder / "file").write_text("x")
    keeps = (folder / "mine" / "thesis.txt", folder / "file")
    for number, name in enumerate(("mine", "file", "n" * 300, "a\0b", "/proc/demo", "/dev/null/demo")):
        yield Case(
            f"keep-demo-{number}", folder, ["demo", name], (1, 2), "empty|written|director|null|valid", keeps=keeps
        )
    yield from _kept_stages(material)


def _kept_stages(material: Material) -> Iterator[Case]:
    """Folders of the user in the place of a stage's output."""
    places: dict[str, tuple[str, Callable[[Path], object]]] = {
        "export": ("export", lambda run: (run / "export.done.json").unlink()),
        "report": ("report", lambda run: (run / "report.done.json").unlink()),
    }
    for name, (command, undo) in places.items():
        folder = material.folder(f"keep-{name}")
        run = material.copy_run(folder)
        undo(run)
        shutil.rmtree(run / name)
        (run / name).mkdir()
        thesis = run / name / "thesis.txt"
        thesis.write_text("x")
        argv = [command, material.recipe, "--set", "runs=runs"] if name == "export" else ["report", "runs/done"]
        yield Case(f"keep-stage-{name}", folder, argv, ANY, keeps=(thesis,))
    folder = material.folder("keep-calibrate")
    model = material.copy_model(folder / "model")
    (model / "decode.json").mkdir()
    argv = ["calibrate", "--model", "model", "--manifest", material.test, "--max-wer-loss", "1"]
    yield Case("keep-calibrate-folder", folder, argv, (1,), "decode.json")
    os.symlink("nowhere", folder / "dangling")
