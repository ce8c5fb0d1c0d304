"""The audit: every bad row is reported, every good row is kept, and no row is lost."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from video_file import write_video

from finetune.core.data_config import TextSection
from finetune.core.errors import DataError
from finetune.data.audio import inspect_audio
from finetune.data.audit import Audit, audit
from finetune.data.cells import cell_keywords, clean_text
from finetune.data.manifest import Utterance, read_manifest, write_manifest
from finetune.data.problems import ADVICE, Problem, format_problems
from finetune.data.row import Row
from finetune.data.row_checks import Wordless


def write_noise(folder: Path, name: str, seconds: float = 2.0, seed: int | None = None) -> str:
    """Writes noise that differs for each name; returns the path."""
    rng = np.random.default_rng(sum(map(ord, name)) if seed is None else seed)
    path = folder / name
    soundfile.write(path, rng.uniform(-0.3, 0.3, round(16_000 * seconds)).astype(np.float32), 16_000)
    return str(path)


def check(*values: dict[str, object], **limits: float) -> Audit:
    rows = [Row(f"m.csv:{number}", value) for number, value in enumerate(values, 2)]
    defaults = {"min_duration": 0.5, "max_duration": 10.0, "max_chars_per_second": 30.0} | limits
    result = audit(rows, **defaults, special_tokens=["<|audio|>", "<|end_of_text|>"], workers=2)
    assert len(result.kept) + len(result.dropped) == len(rows)  # every dropped row has a problem
    assert len({item.id for item in result.kept}) == len(result.kept)
    return result


def kinds(problems: list[Problem]) -> list[str]:
    return [problem.kind for problem in problems]


def test_a_good_row_keeps_all_its_values(tmp_path: Path) -> None:
    path = write_noise(tmp_path, "a.wav")
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
    expected = Utterance(
        "12", path, 2.0, "hello there", 0.0, "en", "7", ("Granite", "IBM"), {"dialect": "x", "score": None}
    )
    assert result == Audit([replace(expected, audio_digest=inspect_audio(path).digest)], [], [])
    write_manifest(tmp_path / "m.jsonl", result.kept)
    assert read_manifest(tmp_path / "m.jsonl") == result.kept


def test_each_bad_row_has_a_problem(tmp_path: Path) -> None:
    good, short, long = (write_noise(tmp_path, *args) for args in (("a.wav",), ("s.wav", 0.3), ("l.wav", 11.0)))
    (tmp_path / "cut.wav").write_bytes(Path(good).read_bytes()[:9000])
    (tmp_path / "page.wav").write_text("<html>")
    bad: list[tuple[str, dict[str, object]]] = [
        ("missing audio", {"audio_filepath": str(tmp_path / "none.wav")}),
        ("missing audio", {"audio_filepath": None}),
        ("missing audio", {"audio_filepath": float("nan")}),
        ("unreadable audio", {"audio_filepath": str(tmp_path / "cut.wav")}),
        ("unreadable audio", {"audio_filepath": str(tmp_path / "page.wav")}),
        ("unreadable audio", {"audio_filepath": "https://example.org/a.wav"}),
        ("segment outside the audio", {"offset": 5}),
        ("segment outside the audio", {"offset": 1, "duration": 3}),
        ("segment outside the audio", {"offset": 1000, "duration": 700}),  # milliseconds
        ("invalid offset", {"offset": -1}),
        ("invalid offset", {"offset": "soon"}),
        ("invalid duration", {"offset": 0, "duration": "long"}),
        ("invalid duration", {"offset": 0, "duration": 0}),
        ("invalid duration", {"duration": "two"}),
        ("invalid duration", {"duration": -1}),
        ("wrong duration", {"duration": 2000}),
        ("wrong duration", {"duration": "3.5"}),
        ("wrong duration", {"duration": 1.6}),
        ("invalid channel", {"channel": 1}),
        ("invalid channel", {"channel": [0, 1]}),
        ("audio too short", {"audio_filepath": short}),
        ("audio too short", {"offset": 0, "duration": 0.4}),
        ("audio too short", {"offset": 0, "duration": 0.0001}),
        ("audio too long", {"audio_filepath": long}),
        ("empty transcript", {"text": None}),
        ("empty transcript", {"text": float("nan")}),
        ("empty transcript", {"text": ""}),
        ("empty transcript", {"text": " \u200b\n"}),
        ("empty transcript", {"text": ["a"]}),
        ("no words in transcript", {"text": "?! ..."}),
        ("no words in transcript", {"text": "[noise] <unk>"}),
        ("no words in transcript", {"text": "calls_01.wav"}),
        ("empty transcript", {"text": True}),
        ("markup in transcript", {"text": "language English<asr_text>this is one"}),
        ("error value in transcript", {"text": "#N/A"}),
        ("JSON in transcript", {"text": '["one", "two"]'}),
        ("JSON in transcript", {"text": '{"text": ["one"], "start": 0}'}),
        ("invalid Unicode in transcript", {"text": "a \ud800"}),
        ("special token in transcript", {"text": "say <|audio|>"}),
        ("special token in transcript", {"text": "say <|au\u200bdio|>"}),
        ("special token in transcript", {"keywords": ["<|end_of_text|>"]}),
        ("too many characters per second", {"text": "word " * 13}),
    ]
    result = check(*({"audio_filepath": good, "text": "fine"} | row for _, row in bad))
    assert list(zip(kinds(result.dropped), bad, strict=True)) == [(kind, (kind, row)) for kind, row in bad]
    assert [problem.where for problem in result.dropped] == [f"m.csv:{n}" for n in range(2, len(bad) + 2)]
    assert all(problem.id and problem.detail for problem in result.dropped)
    format_problems(result.dropped).encode()  # valid UTF-8


@pytest.mark.parametrize("wordless", ["drop", "keep empty"])
@pytest.mark.parametrize(
    ("value", "named"),
    [(["a", "b"], "is ['a', 'b'], not a text"), ({"en": "a"}, "an object with the keys 'en'"), (None, "no transcript")],
)
def test_a_transcript_that_is_no_text_is_named(tmp_path: Path, value: object, named: str, wordless: Wordless) -> None:
    row = Row("m.jsonl:1", {"audio_filepath": write_noise(tmp_path, "a.wav"), "text": value})
    options = {"min_duration": 0.5, "max_duration": 10.0, "max_chars_per_second": 30.0}
    (problem,) = audit([row], **options, special_tokens=[], workers=1, wordless=wordless).dropped
    assert problem.kind == "empty transcript" and named in problem.detail


def test_a_speaker_that_is_not_known_is_nobody(tmp_path: Path) -> None:
    names = ("N/A", "unknown", "None", "-", "Una Known", "NA")
    rows = [
        {"audio_filepath": write_noise(tmp_path, f"{n}.wav"), "text": "a", "speaker": n} for n in names if n != "N/A"
    ]
    rows.append({"audio_filepath": write_noise(tmp_path, "b.wav"), "text": "a", "speaker": "N/A"})
    assert [item.speaker for item in check(*rows).kept] == ["", "", "", "Una Known", "NA", ""]


def test_one_speaker_has_one_name(tmp_path: Path) -> None:
    """Numbers of a column with gaps are floats in pandas, and accents can be one character or two."""
    names = [7, 7.0, "7.0", " 7", "7.5", "Zo\u00e9  B", "Zoe\u0301 B"]
    rows = [
        {"audio_filepath": write_noise(tmp_path, f"{number}.wav", seed=number), "text": "a", "speaker": name}
        for number, name in enumerate(names)
    ]
    assert [item.speaker for item in check(*rows).kept] == ["7"] * 4 + ["7.5", "Zo\u00e9 B", "Zo\u00e9 B"]


def test_brackets_of_annotations_are_no_json(tmp_path: Path) -> None:
    texts = ("[noise] yes", "{F uh, } yes", "[laughter-yes]", "['a'] is a list", "#1 of n/a")
    rows = [{"audio_filepath": write_noise(tmp_path, f"{n}.wav"), "text": text} for n, text in enumerate(texts)]
    assert [item.text for item in check(*rows).kept] == list(texts)


def test_a_rule_cannot_make_a_control_token(tmp_path: Path) -> None:
    rows = [Row("m.csv:2", {"audio_filepath": write_noise(tmp_path, "a.wav"), "text": "say < (laughs) |Audio| >"})]
    result = audit(
        rows,
        min_duration=0.5,
        max_duration=10,
        max_chars_per_second=30,
        special_tokens=["<|audio|>"],
        workers=1,
        text=TextSection(tags="strip"),
    )
    assert kinds(result.dropped) == ["special token in transcript"] and "< |Audio| >" in result.dropped[0].detail


def test_an_empty_transcript_is_kept_in_a_scored_split(tmp_path: Path) -> None:
    """A missing transcript is not an empty one."""
    path = write_noise(tmp_path, "a.wav")
    texts = ("", " ", "[noise]", "word", None, ["a"], float("nan"))
    rows = [Row(f"m.csv:{n}", {"audio_filepath": path, "text": text}) for n, text in enumerate(texts)]
    options = {"min_duration": 0.5, "max_duration": 10.0, "max_chars_per_second": 30.0}
    result = audit(rows, **options, special_tokens=[], workers=1, wordless="keep empty", text=TextSection(tags="strip"))
    assert [item.text for item in result.kept] == ["", "", "", "word"]
    assert kinds(result.dropped) == ["empty transcript"] * 3
    empty = [problem for problem in result.warnings if problem.kind == "empty reference"]
    assert len(empty) == 3 and empty[2].detail.startswith("data.text leaves no word of '[noise]'")
    assert (
        kinds(audit(rows, **options, special_tokens=[], workers=1, wordless="keep").dropped) == ["empty transcript"] * 3
    )
    dropped = audit(rows, **options, special_tokens=[], workers=1).dropped
    assert kinds(dropped) == [
        "empty transcript",
        "empty transcript",
        "no words in transcript",
        *["empty transcript"] * 3,
    ]


def test_a_clip_of_exactly_the_limits_is_kept(tmp_path: Path) -> None:
    row: dict[str, object] = {"audio_filepath": write_noise(tmp_path, "a.wav", 2.0), "text": "ab"}
    assert not check(row, min_duration=2.0, max_duration=2.0, max_chars_per_second=1.0).dropped
    for limits in ({"min_duration": 2.1}, {"max_duration": 1.9}, {"max_chars_per_second": 0.9}):
        assert check(row, **limits).dropped


def test_missing_ids_are_made_unique_and_duplicate_ids_are_dropped(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    one, two = write_noise(tmp_path, "a.wav"), write_noise(tmp_path, "sub/a.wav")
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


def test_duplicate_audio_is_a_warning(tmp_path: Path) -> None:
    paths = [write_noise(tmp_path, f"{name}.wav", seed=1) for name in "ab"]
    result = check(
        {"audio_filepath": paths[0], "text": "one"},
        {"audio_filepath": paths[1], "text": "two"},
        {"audio_filepath": paths[0], "text": "one"},
    )
    assert kinds(result.warnings) == ["duplicate audio"] * 2 and len(result.kept) == 3
    assert "transcripts 'one' and 'two'" in result.warnings[0].detail
    assert "the same transcript" in result.warnings[1].detail


@pytest.mark.parametrize("column", ["keywords", "terms"])
@pytest.mark.parametrize(
    ("cell", "found"),
    [("aspirin, losartan|ibuprofen", True), (["a | b"], True), ("aspirin; losartan, b", False), (None, False)],
)
def test_a_bar_in_a_keyword_is_a_warning(tmp_path: Path, column: str, cell: object, found: bool) -> None:
    result = check({"audio_filepath": write_noise(tmp_path, "a.wav"), "text": "one", column: cell})
    assert kinds(result.warnings) == ["bar in keyword"] * found and len(result.kept) == 1
    assert all(problem.where == "m.csv:2" and column in problem.detail for problem in result.warnings)


@pytest.mark.parametrize("stated", ["1.7", 2.3, 3, "1,0"])  # rounding to a whole second, or padding
def test_a_slightly_wrong_duration_is_corrected(tmp_path: Path, stated: object) -> None:
    result = check({"audio_filepath": write_noise(tmp_path, "a.wav"), "text": "one", "duration": stated})
    assert result.kept[0].duration == 2.0
    assert kinds(result.warnings) == ["duration corrected"]


@pytest.mark.parametrize("stated", [None, "", 2, "2.05", "nan", "N/A", "2.0 s"])
def test_a_correct_or_missing_duration_gives_no_warning(tmp_path: Path, stated: object) -> None:
    assert not check({"audio_filepath": write_noise(tmp_path, "a.wav"), "text": "one", "duration": stated}).warnings


def test_a_segment_without_duration_ends_with_the_file(tmp_path: Path) -> None:
    path = write_noise(tmp_path, "a.wav", 5.0)
    result = check(
        {"audio_filepath": path, "text": "a", "offset": "1.5", "duration": "1.25"},
        {"audio_filepath": path, "text": "b", "offset": 3},
    )
    assert [(item.offset, item.duration) for item in result.kept] == [(1.5, 1.25), (3.0, 2.0)]


def test_silence_is_kept_with_a_warning(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(16_000), 16_000)
    soundfile.write(tmp_path / "b.wav", np.zeros((16_000, 2)) + [0.1, -0.1], 16_000, subtype="FLOAT")
    result = check(
        {"audio_filepath": str(tmp_path / "a.wav"), "text": "hm"},
        {"audio_filepath": str(tmp_path / "b.wav"), "text": "hm"},
    )
    assert kinds(result.warnings) == ["silent audio", "silent audio", "several channels"] and len(result.kept) == 2
    assert "2 channels" in result.warnings[1].detail


def test_several_channels_without_a_number_are_a_warning_for_each_file(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (48_000, 6))
    soundfile.write(tmp_path / "six.wav", noise, 16_000)
    soundfile.write(tmp_path / "opposite.wav", np.stack([noise[:, 0], -noise[:, 0]], 1), 16_000)
    rows: list[dict[str, object]] = [
        {"audio_filepath": str(tmp_path / name), "text": "hm", "offset": offset, "duration": 1}
        for name in ("six.wav", "opposite.wav")
        for offset in (0, 1)
    ]
    warnings = check(*rows).warnings
    assert kinds(warnings) == ["several channels", "opposite channels"]
    assert [problem.where for problem in warnings] == ["m.csv:2", "m.csv:4"]
    assert warnings[0].detail == "6 channels, averaged"
    assert warnings[1].detail.endswith("channel 0 is used")
    assert "several channels: 1. If a transcript" in format_problems(warnings)


def test_audio_that_is_too_long_is_not_decoded(tmp_path: Path) -> None:
    """Its second half is damaged: decoding would give another problem."""
    path = Path(write_noise(tmp_path, "a.flac", seconds=30.0))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) // 2))
    result = check({"audio_filepath": str(path), "text": "hm"})
    assert kinds(result.dropped) == ["audio too long"] and result.dropped[0].detail == "30.00 s; the maximum is 10 s"
    result = check({"audio_filepath": str(path), "text": "hm"}, max_duration=60.0)
    assert kinds(result.dropped) == ["unreadable audio"]


def test_transcripts_are_cleaned_with_a_warning(tmp_path: Path) -> None:
    path = write_noise(tmp_path, "a.wav")
    result = check(
        {"audio_filepath": path, "text": " two \n words "},
        {"audio_filepath": path, "text": "u\u0308ber"},
        {"audio_filepath": path, "text": "Tom &amp; caf\u00c3\u00a9"},
    )
    assert [item.text for item in result.kept] == ["two words", "\u00fcber", "Tom &amp; caf\u00c3\u00a9"]
    assert [kind for kind in kinds(result.warnings) if kind != "duplicate audio"] == [
        "transcript cleaned",
        "encoding errors in transcript",
    ]


def test_credits_of_subtitles_in_a_table_are_a_warning(tmp_path: Path) -> None:
    path = write_noise(tmp_path, "a.wav")
    result = check({"audio_filepath": path, "text": "Untertitel der Amara.org-Community"})
    assert kinds(result.warnings) == ["credit of subtitles"] and not result.dropped


@pytest.mark.parametrize("name", ["Agent:", "SPEAKER_00:", "[Speaker 2]:", "caller :", "Q:"])
def test_a_speaker_before_the_words_is_a_warning(tmp_path: Path, name: str) -> None:
    result = check({"audio_filepath": write_noise(tmp_path, "a.wav"), "text": f"{name} hello there"})
    assert kinds(result.warnings) == ["speaker in transcript"] and not result.dropped


@pytest.mark.parametrize("text", ["10: 15", "note: buy milk", "we met: agent: bob", "agent:bob", "agent"])
def test_other_words_before_a_colon_are_no_speaker(tmp_path: Path, text: str) -> None:
    assert not check({"audio_filepath": write_noise(tmp_path, "a.wav"), "text": text}).warnings


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("soft\u00adhyphen", "softhyphen"),
        ("a\u00a0b\tc", "a b c"),
        ("a\x00b", "a b"),
        ("\ufeffword\u200f", "word"),
        ("\u0645\u061c \u2063a\u2061 \u180eb\ufff9", "\u0645 a b"),
        ("\u0645\u06cc\u200c\u0631\u0648\u0645", "\u0645\u06cc\u200c\u0631\u0648\u0645"),  # Persian needs the joiner
        (5, "5"),
        (None, ""),
        (float("nan"), ""),
        ("nan", "nan"),
        ("null null", "null null"),
        ("None", "None"),
        ("日本語", "日本語"),
    ],
)
def test_clean_text(raw: object, clean: str) -> None:
    assert clean_text(raw) == clean
    assert clean_text(clean) == clean


def test_format_problems_counts_advises_and_lists_examples() -> None:
    problems = [Problem("empty transcript", f"u{n}", f"m.csv:{n}", "no transcript") for n in range(5)]
    problems.append(Problem("sentence also in replay", "v", "m.csv:9", "as w"))
    assert format_problems(problems).splitlines() == [
        f"empty transcript: 5. {ADVICE['empty transcript']}",
        "  u0 (m.csv:0): no transcript",
        "  u1 (m.csv:1): no transcript",
        "  u2 (m.csv:2): no transcript",
        "  ... and 2 more",
        f"sentence also in replay: 1. {ADVICE['sentence']}",
        "  v (m.csv:9): as w",
    ]
    assert format_problems([]) == ""


def test_a_corpus_whose_first_rows_all_fail_for_one_reason_is_not_read_to_its_end(tmp_path: Path) -> None:
    """More than 100 rows, and more than the caller accepts. One good row, or another reason, and all rows are read."""
    good = write_noise(tmp_path, "a.wav")
    limits = {"min_duration": 0.5, "max_duration": 9.0, "max_chars_per_second": 9.0}

    def run(values: list[dict[str, object]], max_dropped: float) -> Audit:
        rows = [Row(f"m.csv:{number}", value) for number, value in enumerate(values, 2)]
        return audit(rows, **limits, special_tokens=[], workers=2, max_dropped=max_dropped)

    gone: list[dict[str, object]] = [{"audio_filepath": f"/gone/{n}.wav", "text": "a"} for n in range(150)]
    start = "the first 100 of 150 rows are all unusable for the same reason, so the others were not read\n"
    with pytest.raises(DataError, match=f"{start}missing audio: 100"):
        run(gone, 3)
    with pytest.raises(DataError, match="the first 141 of 150 rows"):
        run(gone, 140)
    assert len(run(gone, 150).dropped) == 150
    assert len(run([{"audio_filepath": good, "text": "a"}, *gone], 3).dropped) == 150
    assert len(run([{"audio_filepath": good, "text": ""}, *gone], 3).dropped) == 151
    assert len(run(gone[:100], 3).dropped) == 100, "all are read"


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("['IBM', \"New York\"]", ["IBM", "New York"]),
        ('["a, b", "c"]', ["a", "b", "c"]),
        ("[]", []),
        ("[IBM]", ["[IBM]"]),
        ("['a' 'b']", ["['a' 'b']"]),
        ("[1, 2]", ["[1", "2]"]),
        ("[" * 9000 + "]" * 9000, ["[" * 9000 + "]" * 9000]),
        ("a; b\nc", ["a", "b", "c"]),
    ],
)
def test_keywords_of_a_cell(cell: str, words: list[str]) -> None:
    assert cell_keywords(cell) == words


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_segments_of_a_video_with_late_audio_or_a_gap_are_named(tmp_path: Path, suffix: str) -> None:
    """Their times can count from the pictures, but the samples count from the first one and leave the gap out."""
    pytest.importorskip("av")
    wave = np.random.default_rng(1).uniform(-0.3, 0.3, 64_000).astype(np.float32)
    files = {"now": (0.0, 0.0), "late": (1.5, 0.0), "gap": (0.0, 1.5)}
    for name, (start, gap) in files.items():
        write_video(tmp_path / f"{name}.{suffix}", wave, start, gap)
    rows = [
        {"audio_filepath": str(tmp_path / f"{name}.{suffix}"), "offset": offset, "duration": 1.0, "text": "words"}
        for name in files
        for offset in (0.5, 2.5)
    ]
    result = check(*rows)
    assert len(result.kept) == 6
    assert [(item.kind, item.id) for item in result.warnings if item.kind != "duplicate audio"] == [
        ("late audio", "late@0.500"),
        ("late audio", "late@2.500"),
        ("gap in audio", "gap@2.500"),
    ]
    whole = {"audio_filepath": str(tmp_path / f"late.{suffix}"), "text": "words"}
    assert check(whole).warnings == []
