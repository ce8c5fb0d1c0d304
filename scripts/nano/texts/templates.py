"""Reads our own sentence templates, own/LANG.txt: a section of slots and a section of templates for each kind."""

from pathlib import Path

OWN = Path(__file__).parent / "own"


def read_templates(language: str, folder: Path = OWN) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Kind -> templates, and slot -> values. A line that starts with ; is a comment.

    Raises:
        ValueError: a slot without values, or a line before the first section.
    """
    path = folder / f"{language}.txt"
    sections: dict[str, list[str]] = {}
    section: list[str] | None = None
    slots: dict[str, list[str]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line or line.startswith(";"):
            continue
        if line[0] == "[" and line[-1] == "]" and line[1:-1].isalpha() and line[1:-1].islower():
            section = sections.setdefault(line[1:-1], [])
        elif section is None:
            raise ValueError(f"{path}:{number}: a line before the first section")
        elif section is sections.get("slots"):
            name, equals, values = line.partition(" = ")
            if not equals or not values:
                raise ValueError(f"{path}:{number}: a slot is `name = value|value`")
            slots[name] = values.split("|")
        else:
            section.append(line)
    sections.pop("slots", None)
    return sections, slots
