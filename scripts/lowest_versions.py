"""Prints the lowest version of each package that pyproject.toml allows, as pip requirements: `>=X` becomes `==X`.

python scripts/lowest_versions.py [EXTRA ...] [--as torch==2.13.0 ...]
"""

import argparse
import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
REQUIREMENT = re.compile(r"([\w-]+)>=([\w.]+)(?:,<[\w.]+)?")


def lowest(requirements: list[str]) -> dict[str, str]:
    """Version by package name.

    Raises:
        ValueError: A requirement is not of the form `name>=version` or `name>=version,<version`.
    """
    versions = {}
    for requirement in requirements:
        match = REQUIREMENT.fullmatch(requirement)
        if match is None:
            raise ValueError(f"{PROJECT}: {requirement!r} has no lower bound of the form name>=version")
        versions[match[1]] = match[2]
    return versions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("extras", nargs="*", metavar="EXTRA", help="extras whose packages are also printed")
    parser.add_argument("--as", action="append", default=[], dest="instead", metavar="NAME==VERSION")
    arguments = parser.parse_args()
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    requirements = list(project["dependencies"])
    for extra in arguments.extras:
        requirements += project["optional-dependencies"][extra]
    versions = lowest(requirements) | dict(pin.split("==") for pin in arguments.instead)
    print("\n".join(f"{name}=={version}" for name, version in versions.items()))


if __name__ == "__main__":
    main()
