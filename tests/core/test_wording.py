"""One thing is singular in messages."""

import re
from pathlib import Path

from finetune.core.wording import all_of, count, first_of, length_text, verb

SOURCES = Path(__file__).resolve().parents[2] / "finetune"
# A number in an f-string directly before a plural noun; numbers of bytes, channels and constants are never 1 there.
FIXED = re.compile(r"\{len\([^{}]*\)\} (?:more )?(?:clips|files|rows|words|terms|texts|shards|lines)\b")


def test_a_noun_and_its_verb_agree_with_the_number() -> None:
    assert [count(number, "clip") for number in (0, 1, 2, 10_000)] == ["0 clips", "1 clip", "2 clips", "10,000 clips"]
    assert [count(number, "batch", "batches") for number in (1, 2)] == ["1 batch", "2 batches"]
    assert [verb(number, "is", "are") for number in (0, 1, 2)] == ["are", "is", "are"]


def test_lists_end_with_and() -> None:
    assert [all_of(items) for items in ("a", "ab", "abc")] == ["a", "a and b", "a, b and c"]
    assert [first_of("abcd", most) for most in (4, 2)] == ["a, b, c, d", "a, b and 2 more"]
    assert first_of([f"clip {number}" for number in range(1003)], 2, "; ") == "clip 0; clip 1; and 1,001 more"


def test_a_length_has_the_unit_that_suits_it() -> None:
    assert [length_text(seconds / 3600) for seconds in (0, 1, 59, 60, 155, 1380, 3600, 12_600, 3_600_000)] == [
        "0 seconds",
        "1 second",
        "59 seconds",
        "1.0 minutes",
        "2.6 minutes",
        "23 minutes",
        "1.0 hours",
        "3.5 hours",
        "1,000 hours",
    ]


def test_messages_use_it() -> None:
    fixed = [
        f"{path.relative_to(SOURCES)}: {match[0]}"
        for path in sorted(SOURCES.rglob("*.py"))
        for match in FIXED.finditer(path.read_text(encoding="utf-8"))
    ]
    # These are printed for two or more.
    assert {line.partition(":")[0] for line in fixed} <= {
        "cli/convert.py",
        "cli/transcribe_output.py",
        "evaluation/hypothesis_files.py",
        "data/audit.py",
        "data/segment_rows.py",
    }, fixed
