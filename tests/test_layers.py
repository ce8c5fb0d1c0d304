"""The layers of the package and the length of its functions, checked in the source."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "finetune").rglob("*.py"))
# From the bottom up. A package imports only from levels below its own.
LAYERS = (
    {"version"},
    {"core"},
    {"model", "metrics"},
    {"data"},
    {"inference", "report"},
    {"tracking"},
    {"training", "evaluation", "curation"},
    {"exporting"},
    {"serving"},
    {"pipeline"},
    {"partial_runs", "learning_curve"},
    {"planning", "doctor"},
    {"api"},
    {"cli"},
    {"__main__"},
)
USES_OF_CUDA = ("model.granite", "training.launch", "training.progress")  # device; launcher; peak memory
WITHOUT_TORCH = ("core", "metrics", "report")
LONGEST_FUNCTION = 60  # lines
BIG_LITERAL = "scripts/nano/scaffold.py"  # its `config` is one dictionary


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in FILES}
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in MODULES.items()}


def imports(module: str) -> set[str]:
    """Every module that a file imports, anywhere in it; `from package import module` counts as the module."""
    names = set[str]()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: a relative import"
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= (members & MODULES.keys()) or {str(node.module)}
    return names


def level(module: str) -> int:
    part = module.split(".")[1]
    return next(index for index, names in enumerate(LAYERS) if part in names)


def test_imports_go_downward_only() -> None:
    assert len(FILES) > 25
    for module in MODULES.keys() - {"finetune"}:
        package = module.split(".")[1]
        for name in imports(module):
            if name.startswith("finetune.") and name.split(".")[1] != package:
                assert level(name) < level(module), f"{module} imports {name}"


def test_no_two_modules_import_each_other() -> None:
    order = TopologicalSorter({module: imports(module) & MODULES.keys() for module in MODULES})
    assert len(list(order.static_order())) == len(MODULES)


def test_core_metrics_report_and_the_manifest_do_not_import_torch() -> None:
    for module in MODULES:
        if module.split(".")[1:2] and (module.split(".")[1] in WITHOUT_TORCH or module == "finetune.data.manifest"):
            assert not {name.split(".")[0] for name in imports(module)} & {"torch", "transformers", "peft"}, module


def test_only_default_device_chooses_between_gpu_and_cpu() -> None:
    """Other files call `finetune.model.granite.default_device`."""
    users = {module for module, path in MODULES.items() if "cuda.is_available" in path.read_text(encoding="utf-8")}
    assert users == {f"finetune.{name}" for name in USES_OF_CUDA}


def test_the_package_has_few_files_at_its_top() -> None:
    top = [path for path in (ROOT / "finetune").iterdir() if path.is_file()]
    assert len(top) <= 12


def test_package_inits_are_empty() -> None:
    for path in FILES:
        if path.name == "__init__.py" and path.parent.name != "finetune":
            assert not path.read_text(encoding="utf-8").strip(), path


def test_the_package_imports_nothing_of_scripts() -> None:
    scripts = {path.stem for path in (ROOT / "scripts").iterdir()} | {"scripts"}
    assert len(scripts) > 5
    for module in MODULES:
        assert not {name.split(".")[0] for name in imports(module)} & scripts, module


def test_each_file_starts_with_a_docstring() -> None:
    for module, path in MODULES.items():
        assert (path.name == "__init__.py" and module != "finetune") or ast.get_docstring(TREES[module]), path


def long_functions(name: str, tree: ast.Module) -> list[str]:
    """The functions with more than LONGEST_FUNCTION lines."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = [(node.name, (node.end_lineno or node.lineno) - node.lineno + 1) for node in functions]
    return [f"{name}.{function}: {lines} lines" for function, lines in lengths if lines > LONGEST_FUNCTION]


def test_no_function_is_longer_than_60_lines() -> None:
    assert not [text for module, tree in TREES.items() for text in long_functions(module, tree)]


def test_no_function_of_scripts_is_longer_than_60_lines() -> None:
    trees = {}
    for path in sorted(path for path in (ROOT / "scripts").rglob("*") if path.is_file()):
        if path.suffix == ".py" or path.read_bytes().startswith(b"#!/usr/bin/env python"):
            trees[str(path.relative_to(ROOT))] = ast.parse(path.read_text(encoding="utf-8"))
    assert "scripts/rehearse_full" in trees and len(trees) > 50
    long = [text for name, tree in trees.items() if name != BIG_LITERAL for text in long_functions(name, tree)]
    assert not long
