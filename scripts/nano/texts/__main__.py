"""Writes the texts of the embedded base: `python -m nano.texts --cache build/nano` in scripts/. See nano/SOURCES.md."""

import argparse
import json
import sys
from pathlib import Path

from nano.texts import japanese
from nano.texts.corpus import COUNTS, lines_of, load_excluded, write_rows
from nano.texts.phrase_book import phrase_rows, phrases
from nano.texts.phrase_templates import read_phrase_templates, read_words
from nano.texts.sources import SourceError, Sources

LANGUAGES = (*COUNTS, "ja")


def write_texts(cache: Path, languages: tuple[str, ...], again: bool) -> None:
    """Fetches the sources and writes CACHE/texts/LANG.jsonl, phrase_book.jsonl and sources.json.

    Args:
        again: rewrite files that exist.

    Raises:
        SourceError: a package cannot be fetched.
    """
    sources = Sources(cache)
    sources.fetch()
    folder = cache / "texts"
    book = phrases(read_phrase_templates(), read_words(), load_excluded(sources))
    write_rows(phrase_rows(book), folder / "phrase_book.jsonl")
    (folder / "sources.json").write_text(json.dumps(sources.versions(), indent=2) + "\n", encoding="utf-8")
    missing = [language for language in languages if again or not (folder / f"{language}.jsonl").exists()]
    for language in missing:
        rows = japanese.lines_of(sources) if language == "ja" else lines_of(sources, language, book)
        write_rows(rows, folder / f"{language}.jsonl")
        print(f"{language}: {len(rows)} texts", flush=True)


def main() -> int:
    """Returns 0 (done) or 1 (a source is missing)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = Path(__file__).resolve().parents[3]
    parser.add_argument("--cache", type=Path, default=root / "build" / "nano", help="folder for packages and texts")
    parser.add_argument("--again", action="store_true", help="rewrite texts that exist")
    parser.add_argument(
        "languages", nargs="*", metavar="LANG", help=f"languages; all of {', '.join(LANGUAGES)} by default"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.languages) - set(LANGUAGES):
        parser.error(f"unknown language {sorted(unknown)[0]!r}; choose from {', '.join(LANGUAGES)}")
    try:
        write_texts(arguments.cache, tuple(arguments.languages) or LANGUAGES, arguments.again)
    except SourceError as error:
        print(f"nano.texts: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
