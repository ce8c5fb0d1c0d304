"""The audit: each bad row is found and named, each good one is kept, and the two add up."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from finetune.data.audit import Audit, Problem, audit, clean_text, leaks, report
from finetune.data.hub import Row
from finetune.data.manifest import Utterance, read_manifest, write_manifest


def clip(folder: Path, name: str, seconds: float = 2.0, seed: int | None = None) -> str:
    """A file of noise, different for each name; returns its path."""
    rng = np.random.default_rng(sum(map(ord, name)) if seed is None else seed)
    path = folder / name
    soundfile.write(path, rng.uniform(-0.3, 0.3, round(16_000 * seconds)).astype(np.float32), 16_000)
    return str(path)


def check(*values: dict[str, object], **limits: float) -> Audit:
    rows = [Row(f"m.csv:{number}", value) for number, value in enumerate(values, 2)]
    given = {"min_duration": 0.5, "max_duration": 10.0, "max_chars_per_second": 30.0} | limits
    result = audit(rows, **given, special_tokens=["<|audio|>", "<|end_of_text|>"], workers=2)
    assert len(result.kept) + len(result.dropped) == len(rows)  # nothing goes without a word
    assert len({item.id for item in result.kept}) == len(result.kept)
    return result


def kinds(problems: list[Problem]) -> list[str]:
    return [problem.kind for problem in problems]


def test_a_good_row_is_kept_whole(tmp_path: Path) -> None:
    path = clip(tmp_path, "a.wav")
    result = check(
        {
            "audio_filepath": path,
            "text": "hello there",
            "duration": "2,0",
            "language": "en",
            "speaker": 7,
            "keywords": "Granite, IBM; IBM",
            "id": 12,
            "dialect": "x",
            "score": float("nan"),
        }
    )
    assert result == Audit(
        [
            Utterance(
                "12", path, 2.0, "hello there", 0.0, "en", "7", ("Granite", "IBM"), {"dialect": "x", "score": None}
            )
        ],
        [],
        [],
    )
    write_manifest(tmp_path / "m.jsonl", result.kept)
    assert read_manifest(tmp_path / "m.jsonl") == result.kept


def test_each_bad_row_is_named(tmp_path: Path) -> None:
    good, short, long = (clip(tmp_path, *args) for args in (("a.wav",), ("s.wav", 0.3), ("l.wav", 11.0)))
    (tmp_path / "cut.wav").write_bytes(Path(good).read_bytes()[:9000])
    (tmp_path / "page.wav").write_text("<html>")
    bad: list[tuple[str, dict[str, object]]] = [
        ("missing audio", {"audio_filepath": str(tmp_path / "none.wav")}),
        ("missing audio", {"audio_filepath": None}),
        ("missing audio", {"audio_filepath": float("nan")}),
        ("unreadable audio", {"audio_filepath": str(tmp_path / "cut.wav")}),
        ("unreadable audio", {"audio_filepath": str(tmp_path / "page.wav")}),
        ("unreadable audio", {"audio_filepath": "https://example.org/a.wav"}),
        ("unreadable audio", {"offset": 5}),
        ("unreadable audio", {"offset": 1, "duration": 3}),
        ("bad offset", {"offset": -1}),
        ("bad offset", {"offset": "soon"}),
        ("too short", {"audio_filepath": short}),
        ("too short", {"offset": 0, "duration": 0.4}),
        ("too long", {"audio_filepath": long}),
        ("empty text", {"text": None}),
        ("empty text", {"text": float("nan")}),
        ("empty text", {"text": "nan"}),
        ("empty text", {"text": " \u200b\n"}),
        ("empty text", {"text": ["a"]}),
        ("no words in text", {"text": "?! ..."}),
        ("no words in text", {"text": "[noise] <unk>"}),
        ("broken characters in text", {"text": "a \ud800"}),
        ("special token in text", {"text": "say <|audio|>"}),
        ("special token in text", {"text": "say <|au\u200bdio|>"}),
        ("special token in text", {"keywords": ["<|end_of_text|>"]}),
        ("text too long for the audio", {"text": "word " * 13}),
    ]
    result = check(*({"audio_filepath": good, "text": "fine"} | row for _, row in bad))
    assert list(zip(kinds(result.dropped), bad, strict=True)) == [(kind, (kind, row)) for kind, row in bad]
    assert [problem.where for problem in result.dropped] == [f"m.csv:{n}" for n in range(2, len(bad) + 2)]
    assert all(problem.id and problem.detail for problem in result.dropped)
    json.dumps(report(result.dropped)).encode()  # can be shown anywhere


def test_ids(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    one, two = clip(tmp_path, "a.wav"), clip(tmp_path, "sub/a.wav")
    rows: list[dict[str, object]] = [
        {"audio_filepath": one},
        {"audio_filepath": two},
        {"audio_filepath": one, "offset": 1, "id": ""},
        {"audio_filepath": two, "offset": 0.5, "id": "a-2"},
        {"audio_filepath": one, "offset": 1.2, "id": "a-2"},
    ]
    result = check(*({"text": "fine"} | row for row in rows))
    assert [item.id for item in result.kept] == ["a", "a-3", "a@1.000", "a-2"]
    assert kinds(result.dropped) == ["duplicate id"] and "m.csv:5" in result.dropped[0].detail


def test_the_same_audio_twice_is_a_warning(tmp_path: Path) -> None:
    paths = [clip(tmp_path, f"{name}.wav", seed=1) for name in "ab"]
    result = check(
        {"audio_filepath": paths[0], "text": "one"},
        {"audio_filepath": paths[1], "text": "two"},
        {"audio_filepath": paths[0], "text": "one"},
    )
    assert kinds(result.warnings) == ["same audio twice"] * 2 and len(result.kept) == 3
    assert "another text: 'one', here 'two'" in result.warnings[0].detail
    assert "the same text" in result.warnings[1].detail


@pytest.mark.parametrize("stated", ["3.5", "NaN", "two", -1, 1.7])
def test_a_wrong_duration_is_measured_again(tmp_path: Path, stated: object) -> None:
    result = check({"audio_filepath": clip(tmp_path, "a.wav"), "text": "one", "duration": stated})
    assert result.kept[0].duration == 2.0
    assert kinds(result.warnings) == ["duration corrected"]


@pytest.mark.parametrize("stated", [None, "", 2, "2.05"])
def test_a_right_or_absent_duration_is_no_warning(tmp_path: Path, stated: object) -> None:
    assert not check({"audio_filepath": clip(tmp_path, "a.wav"), "text": "one", "duration": stated}).warnings


def test_segments_and_their_rest(tmp_path: Path) -> None:
    path = clip(tmp_path, "a.wav", 5.0)
    result = check(
        {"audio_filepath": path, "text": "a", "offset": "1.5", "duration": "1.25"},
        {"audio_filepath": path, "text": "b", "offset": 3},
    )
    assert [(item.offset, item.duration) for item in result.kept] == [(1.5, 1.25), (3.0, 2.0)]


def test_silence_is_kept_with_a_warning(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(16_000), 16_000)
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 16_000)
    soundfile.write(tmp_path / "b.wav", np.stack([noise, -noise], 1), 16_000, subtype="FLOAT")
    result = check(
        {"audio_filepath": str(tmp_path / "a.wav"), "text": "hm"},
        {"audio_filepath": str(tmp_path / "b.wav"), "text": "hm"},
    )
    assert kinds(result.warnings) == ["silence"] * 2 and len(result.kept) == 2
    assert "2 channels" in result.warnings[1].detail


def test_texts_are_cleaned_and_said_to_be(tmp_path: Path) -> None:
    path = clip(tmp_path, "a.wav")
    result = check(
        {"audio_filepath": path, "text": " two \n words "},
        {"audio_filepath": path, "text": "u\u0308ber"},
        {"audio_filepath": path, "text": "Tom &amp; caf\u00c3\u00a9"},
    )
    assert [item.text for item in result.kept] == ["two words", "\u00fcber", "Tom &amp; caf\u00c3\u00a9"]
    assert [kind for kind in kinds(result.warnings) if kind != "same audio twice"] == [
        "text corrected",
        "damaged characters in text",
    ]


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("soft\u00adhyphen", "softhyphen"),
        ("a\u00a0b\tc", "a b c"),
        ("a\x00b", "a b"),
        ("\ufeffword\u200f", "word"),
        ("\u0645\u06cc\u200c\u0631\u0648\u0645", "\u0645\u06cc\u200c\u0631\u0648\u0645"),  # Persian needs its joiner
        (5, "5"),
        (None, ""),
        ("nan", ""),
        ("nancy", "nancy"),
        ("日本語", "日本語"),
    ],
)
def test_clean_text(raw: object, clean: str) -> None:
    assert clean_text(raw) == clean
    assert clean_text(clean) == clean


def test_leaks() -> None:
    def item(name: str, text: str, path: str, speaker: str = "") -> Utterance:
        return Utterance(name, path, 1.0, text, speaker=speaker)

    train = [item("a", "Guten Tag, Herr Maier!", "/a.wav", "s1"), item("b", "...", "/b.wav", "s2")]
    other = [
        item("x", "guten tag herr maier", "/x.wav"),
        item("y", "?", "/b.wav"),
        item("z", "new", "/z.wav", "s1"),
        item("w", "newer", "/w.wav", "s1"),
        item("v", "fine", "/v.wav", "s3"),
    ]
    assert [(problem.kind, problem.id) for problem in leaks(train, other)] == [
        ("sentence also in train", "x"),
        ("audio file also in train", "y"),
        ("speaker also in train", "z"),
    ]
    assert leaks(train, iter([])) == []


def test_report_counts_and_names() -> None:
    problems = [Problem("empty text", f"u{n}", f"m.csv:{n}", "no transcript") for n in range(5)]
    problems.append(Problem("too long", "v", "m.csv:9", "31 s"))
    assert report(problems).splitlines() == [
        "empty text: 5",
        "  u0 (m.csv:0): no transcript",
        "  u1 (m.csv:1): no transcript",
        "  u2 (m.csv:2): no transcript",
        "  ... and 2 more",
        "too long: 1",
        "  v (m.csv:9): 31 s",
    ]
    assert report([]) == ""
