"""Reads YAML text to nodes with bounded time and memory, because a recipe can come from somebody else.

A short file can describe endless data: lists nested thousands deep, aliases (`*name`) that repeat each other, a mapping
that contains itself. Each is refused with its line.
"""

import shlex
from difflib import get_close_matches
from pathlib import Path

import yaml

from finetune.core.errors import RecipeError
from finetune.core.files import read_bytes

CORPORA = (".csv", ".tsv", ".jsonl", ".parquet")
MAX_BYTES = 1_000_000
MAX_DEPTH = 10  # a recipe has 4 levels
MAX_NODES = 20_000  # after aliases are followed
PLAIN_TYPES = ("str", "int", "float", "bool", "null", "timestamp", "merge", "value", "map", "seq")
PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in PLAIN_TYPES}


def read_yaml(path: Path) -> yaml.Node | None:
    """The root node of a YAML file; None for an empty file.

    Raises:
        RecipeError: the file cannot be read, is larger than `MAX_BYTES`, or is not plain YAML; with the line if there
            is one.
    """
    if path.suffix in CORPORA and path.is_file():
        raise RecipeError(
            f"{path}: a corpus and not a recipe; `finetune init {shlex.quote(str(path))}` writes a recipe for it"
        )
    try:
        text = read_bytes(path, MAX_BYTES).decode("utf-8-sig")
    except IsADirectoryError as error:
        inside = [run / "resolved.json" for run in (path, path.parent) if (run / "resolved.json").is_file()]
        example = inside[0] if inside else "recipes/quickstart.yaml"
        raise RecipeError(f"{path}: a directory; pass a recipe file, such as {example}") from error
    except FileNotFoundError as error:
        names = [other.name for other in path.parent.glob("*.y*ml")]
        similar = [path.with_name(name) for name in get_close_matches(path.name, names, 1)]
        hint = f"did you mean {similar[0]}?" if similar else "pass a recipe, such as recipes/quickstart.yaml"
        raise RecipeError(f"{path}: no such file; {hint}") from error
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text ({error.reason}); save the file as UTF-8") from error
    return compose(text, str(path))


def compose(text: str, origin: str) -> yaml.Node | None:
    """The root node of YAML text; `origin` names it in messages.

    Raises:
        RecipeError: it is not plain YAML; with the line if there is one.
    """
    try:
        _check_depth(text, origin)
        node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RecipeError(f"{origin}:{line}: invalid YAML: {error.problem}{_hint(str(error.problem))}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{origin}: invalid YAML: {error}") from error
    if node is not None:
        _check_nodes(node, origin)
    return node


def _hint(problem: str) -> str:
    """What to do about a problem that the YAML parser names in its own terms."""
    if "\\t" in problem:
        return " (indent with spaces, and have no tab before a value)"
    if "<block end>" in problem:
        return " (indent this line as its neighbours of the same level)"
    if "<document start>" in problem:
        return " (a recipe is one YAML document, such as recipes/quickstart.yaml)"
    if "mapping values are not allowed" in problem:
        return " (wrong indentation, or a colon in a text without quotes)"
    return ""


def line_of(node: yaml.Node) -> int:
    """The line of a node in its file, from 1."""
    return int(node.start_mark.line) + 1


def _check_depth(text: str, origin: str) -> None:
    """Refuses deep nesting and many values before nodes are built, because that recurses and takes seconds."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            line = text.count("\n", 0, event.start_mark.index if event.start_mark else 0) + 1
            raise RecipeError(f"{origin}:{line}: invalid YAML: nested more than {MAX_DEPTH} levels deep")
        if count > 2 * MAX_NODES:
            raise RecipeError(f"{origin}: invalid YAML: more than {MAX_NODES} values")


def _check_nodes(root: yaml.Node, origin: str) -> None:
    """Walks all nodes as often as aliases repeat them; refuses cycles, too many nodes, and tags of other types."""
    count = 0

    def walk(node: yaml.Node, parents: tuple[int, ...]) -> None:
        nonlocal count
        count += 1
        where = f"{origin}:{line_of(node)}: invalid YAML"
        if id(node) in parents:
            raise RecipeError(f"{where}: a list or mapping contains itself through an alias")
        if count > MAX_NODES:
            raise RecipeError(f"{where}: more than {MAX_NODES} values, counted with the aliases that repeat them")
        if node.tag not in PLAIN_TAGS:
            raise RecipeError(f"{where}: the tag {node.tag!r} is not plain data; remove it")
        inner = (*parents, id(node))
        for child in () if isinstance(node, yaml.ScalarNode) else node.value:
            for item in child if isinstance(child, tuple) else (child,):
                walk(item, inner)

    walk(root, ())
