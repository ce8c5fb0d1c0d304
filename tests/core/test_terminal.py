"""Characters of a transcript cannot control the terminal."""

import logging
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.core.terminal import HARMFUL, JOINERS, VisibleFormatter, visible


@pytest.mark.parametrize(
    "text, shown",
    [
        ("plain größer 今日 é 👍", "plain größer 今日 é 👍"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("\x1b[2Jgone\x07", "\\x1b[2Jgone\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("safe\u202egnp.exe", "safe\\u202egnp.exe"),
        ("over\rwritten", "over\\rwritten"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("half \ud800 a pair", "half \\ud800 a pair"),
        ("می\u200cخواهم", "می\u200cخواهم"),
    ],
)
def test_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text())
def test_control_characters_are_escaped(text: str) -> None:
    shown = visible(text)
    assert not any(unicodedata.category(char) in HARMFUL for char in shown if char not in "\n\t" + JOINERS)
    assert visible(shown) == shown and shown.encode().decode() == shown


def test_log_messages_are_escaped() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 1, "%s: %s", ("id\x1b[0m", "text"), None)
    assert VisibleFormatter("%(message)s").format(record) == "id\\x1b[0m: text"
