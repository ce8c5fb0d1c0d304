"""The layers of the package: who may import whom, read from the source."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "finetune").rglob("*.py"))
GROUND = {"config", "runs", "errors"}
ROOMS = {"data", "model", "training", "metrics", "decoding", "report", "recognizers"}
VERBS = {"prepare", "train", "evaluate", "reporting", "export", "calibrate", "transcription", "compare", "score"}
TRAINING = {"examples", "step", "selection"}  # what the verb train alone is made of
# The first name below `finetune` -> those it may import, besides itself.
MAY = {
    "errors": set(), "terminal": set(), "config": set(), "recipe_file": {"config", "errors"}, "runs": {"errors"},
    "data": {"errors"}, "model": {"errors"}, "metrics": {"errors"}, "training": {"errors", "runs"},
    "report": {"errors"}, "provenance": set(),
    "recognizers": {"errors", "data"}, "systems": GROUND | ROOMS | {"trials", "deploy"},
    "compare_cli": GROUND | ROOMS | {"terminal", "compare"},
    "decoding": {"errors", "data", "model"}, "parity": {"errors", "data", "model", "decoding"},
    "records": GROUND | ROOMS, "trials": GROUND | ROOMS | {"records"},
    "examples": GROUND | ROOMS, "step": GROUND | ROOMS | {"examples"}, "selection": GROUND | ROOMS,
    "transcribe_cli": {"errors", "terminal", "model", "decoding", "transcription"},
    "deploy": {"config", "errors", "model"},
    "api": {"errors", "model", "decoding", "transcription", "deploy"},
    "summary": {"metrics", "runs"}, **{verb: GROUND | ROOMS for verb in VERBS}, "train": GROUND | ROOMS | TRAINING,
    "showcase": ROOMS | {"errors"}, "reporting": GROUND | ROOMS | {"showcase"},
    "compare": GROUND | ROOMS | {"records", "systems"}, "calibrate": GROUND | ROOMS | {"records"},
    "score": GROUND | ROOMS | {"records", "trials"},
    "evaluate": GROUND | ROOMS | {"records", "trials", "provenance"}, "export": GROUND | ROOMS | {"parity", "deploy"},
    "launch": GROUND | {"training"},
    "pipeline": GROUND | VERBS | {"launch"}, "__main__": {"cli"},
    "cli": GROUND | ROOMS | VERBS | {"recipe_file", "pipeline", "summary", "deploy", "transcribe_cli", "compare_cli",
                                      "terminal"},
}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in FILES}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it; `from package import module` counts as the module."""
    found = set[str]()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (names & MODULES.keys()) or {str(node.module)}
    return found


def test_no_file_imports_what_its_layer_may_not() -> None:
    assert len(FILES) > 25
    for module, path in MODULES.items():
        if module == "finetune":
            continue
        part = module.split(".")[1]
        below = {name.split(".")[1] for name in imports(path) if name.startswith("finetune.")}
        assert below - {part} <= MAY[part], f"{module} imports {sorted(below - {part} - MAY[part])}"


def test_no_two_modules_import_each_other() -> None:
    order = TopologicalSorter({module: imports(path) & MODULES.keys() for module, path in MODULES.items()})
    assert len(list(order.static_order())) == len(MODULES)


def test_the_package_imports_nothing_of_scripts() -> None:
    scripts = {path.stem for path in (ROOT / "scripts").iterdir()} | {"scripts"}
    assert len(scripts) > 5
    for module, path in MODULES.items():
        assert not {name.split(".")[0] for name in imports(path)} & scripts, module


def test_each_file_says_first_what_it_is_for() -> None:
    for path in FILES:
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path
