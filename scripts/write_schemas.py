"""Writes the JSON schemas of the result files to docs/schemas/. Run: python scripts/write_schemas.py"""

from pathlib import Path

from finetune.core.files import write_text
from finetune.metrics.results import json_schemas

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "schemas"


def main() -> None:
    for name, text in json_schemas().items():
        write_text(FOLDER / name, text)
        print(FOLDER / name)


if __name__ == "__main__":
    main()
