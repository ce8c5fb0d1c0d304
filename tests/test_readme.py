"""README and docs: commands are known, paths and links exist, Python examples name the public API."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

import finetune
from recipe_reference import TARGET, reference

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "recipes" / "RESULTS.md"])
COMMANDS = sorted(set(re.findall(r"(?:^\s*|`)(finetune [a-z-]+)", README, re.M)))
FOLDERS = "recipes|scripts|data|docs|tests|finetune"


def page_id(path: Path) -> str:
    return path.name


def test_the_readme_has_at_most_150_lines() -> None:
    assert len(README.splitlines()) <= 150


def test_the_two_commands_are_executable() -> None:
    for name in ("quickstart", "test"):
        assert f"scripts/{name} " in README
        assert os.access(ROOT / "scripts" / name, os.X_OK)


@pytest.mark.parametrize(
    "page", [path for path in PAGES if path.name not in ("RESULTS.md", "CHANGELOG.md")], ids=page_id
)
def test_paths_named_in_a_page_exist(page: Path) -> None:
    """RESULTS.md and CHANGELOG.md name files as of their commit."""
    named = set(re.findall(rf"(?<![\w/.])((?:{FOLDERS})/[\w./-]*\w)", page.read_text(encoding="utf-8")))
    missing = [name for name in named if not (ROOT / name).exists() and not (ROOT / f"{name}.py").exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_between_pages_resolve(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]
    assert not [target for target in local if not (page.parent / target).exists()]


def test_every_page_of_docs_is_linked_from_the_readme() -> None:
    for path in (ROOT / "docs").glob("*.md"):
        assert f"(docs/{path.name})" in README


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_readme_are_known(command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command.split(), "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "example:" in done.stdout


def test_every_command_is_in_the_readme() -> None:
    done = subprocess.run([sys.executable, "-m", "finetune", "--help"], cwd=ROOT, capture_output=True, text=True)
    commands = re.findall(r"^    ([a-z-]+) ", done.stdout, re.M)
    assert len(commands) > 8
    assert not [command for command in commands if not re.search(rf"`(finetune )?{command}\b", README)]


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "python.md"], ids=page_id)
def test_python_examples_are_valid_and_use_the_public_api(page: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "finetune":
                assert node.attr in {*finetune.__all__, "training"}


def test_extras_named_in_the_readme_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    section = README.partition("## Install as a package")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(\w+)`", section.partition("Extras:")[2].partition("Without")[0])) == extras.keys() - {
        "dev"
    }


def test_every_package_is_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for path in (ROOT / "finetune").iterdir():
        if (path / "__init__.py").is_file():
            assert f"`finetune/{path.name}/`" in text
    named = re.findall(r"^\*\*`(finetune/\w+/)`\*\*(.*?)(?=^\*\*|^## )", text, re.M | re.DOTALL)
    for folder, body in named:
        missing = [name for name in re.findall(r"`((?:\w+/)?\w+\.py)`", body) if not (ROOT / folder / name).is_file()]
        assert not missing, folder


def test_every_module_is_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    modules = [path.relative_to(ROOT / "finetune") for path in (ROOT / "finetune").glob("*/**/*.py")]
    names = ["/".join(path.parts[1:]) for path in modules if path.name != "__init__.py"]  # below the package
    assert not [name for name in names if f"`{name}`" not in text]


def test_the_recipe_reference_is_current() -> None:
    assert TARGET.read_text(encoding="utf-8") == reference(), "run python scripts/recipe_reference.py"


def test_every_recipe_key_has_a_meaning() -> None:
    for line in reference().partition("## Goals")[0].splitlines():
        assert not re.search(r"\|\s*\|$", line), f"no docstring in config.py: {line}"


def test_the_packages_of_the_two_commands_need_no_newer_python() -> None:
    """The README names Python 3.11: a version of constraints.txt that needs 3.11.5 is refused by that of Debian 12."""
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)
    installed = {item.name: item for item in distributions()}
    stated = {name: installed[name].metadata["Requires-Python"] for name in pinned if name in installed}
    assert len(stated) > 80
    assert not {name: text for name, text in stated.items() if text and "3.11.0" not in SpecifierSet(text)}


def test_no_placeholder_is_left() -> None:
    assert not re.search(r"@[A-Z_]+@", README)


def test_every_page_is_in_the_website_once() -> None:
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    pages = [page for section in navigation for group in section.values() for page in group]
    outside = {"index.md", "results.md", "changelog.md", "contributing.md"}
    outside |= {f"notebooks/{path.stem}.md" for path in (ROOT / "docs" / "notebooks").glob("*.ipynb")}
    assert sorted(pages) == sorted(outside | {path.name for path in (ROOT / "docs").glob("*.md")})
