"""Hypothesis files: every format gives the same rows, and a file that does not match the clips is an error."""

import json
import random
import unicodedata
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.core.errors import DataError
from finetune.evaluation.hypothesis_files import ClipNames, read_hypotheses
from finetune.metrics.sclite import Segment, labels_of, trn

CLIPS = [ClipNames(f"u{number}", f"/data/clips/{number}.wav", f"anna-u{number}") for number in range(4)]
HYPOTHESES = ["take two", "", 'now, "quoted"', "the end"]


def texts(path: Path, clips: list[ClipNames] = CLIPS) -> list[str]:
    return [row.text for row in read_hypotheses(path, clips)]


def jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def rows(**changes: object) -> list[dict[str, object]]:
    return [{"id": clip.id, "pred_text": text, **changes} for clip, text in zip(CLIPS, HYPOTHESES, strict=True)]


def test_every_format_gives_the_same_texts(tmp_path: Path) -> None:
    quoted = [text.replace('"', '""') for text in HYPOTHESES]
    files = {
        "a.jsonl": "\n".join(map(json.dumps, rows())) + "\n\n",
        "list.json": json.dumps(rows()),
        "by_id.json": json.dumps({row["id"]: row["pred_text"] for row in rows()}, indent=1),
        "a.csv": "id,pred_text,note\n" + "".join(f'u{number},"{text}",x\n' for number, text in enumerate(quoted)),
        "a.tsv": "pred_text\tid\n" + "".join(f"{text}\tu{number}\n" for number, text in enumerate(HYPOTHESES)),
        "ids.trn": "".join(f"{text} (u{number})\n" for number, text in enumerate(HYPOTHESES)),
        "labels.trn": ";; a comment\n\n"
        + "".join(f"{text} (anna-u{number})\r\n" for number, text in enumerate(HYPOTHESES)),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content.encode())
        assert texts(tmp_path / name) == HYPOTHESES, name
        lines = content.splitlines(keepends=True)
        if name in ("a.jsonl", "ids.trn"):
            (tmp_path / name).write_bytes("".join(random.Random(1).sample(lines, len(lines))).encode())
            assert texts(tmp_path / name) == HYPOTHESES, "rows in another order"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le-bom"])
def test_other_encodings_of_unicode_are_read(tmp_path: Path, encoding: str) -> None:
    content = json.dumps({"id": "u0", "pred_text": "größer 今日"}, ensure_ascii=False) + "\n"
    data = b"\xff\xfe" + content.encode("utf-16-le") if encoding.endswith("bom") else content.encode(encoding)
    (tmp_path / "a.jsonl").write_bytes(data)
    assert texts(tmp_path / "a.jsonl", CLIPS[:1]) == ["größer 今日"]


@pytest.mark.parametrize(
    "data, message",
    [
        (
            '{"id": "u0", "pred_text": "größer"}\n'.encode("latin-1"),
            r"a\.jsonl:1: not UTF-8 text.*save the file as UTF-8",
        ),
        (b'{"id": "u0", "pred_text": "ok"}\n{"id": "u1", "pred_text": "\xe9t\xe9"}', r"a\.jsonl:2: not UTF-8"),
        ('{"id": "u0", "pred_text": "no mark"}'.encode("utf-16-le"), "a binary file, not text"),
        (b"", "has no hypotheses"),
        (b"\n\n \n", "has no hypotheses"),
        (b'{"id": "u0", "pred_text": null}', r"a\.jsonl:1: no text in 'pred_text'; the columns are 'id', 'pred_text'"),
        (b'{"id": "u0", "text": "the reference"}', r"no text in 'pred_text'; the columns are 'id', 'text'"),
        (b'{"id": "u0", "pred_text": ["a"]}', "no text in 'pred_text'"),
        (b'{"pred_text": "no name"}', r"a\.jsonl:1: the row has no id and no audio_filepath"),
        (b'{"id": "u0", "pred_text": "cut', r"a\.jsonl:1: not JSON"),
        (b'["u0"]', "not a JSON object"),
        (
            b'{"id": "u0", "pred_text": ""}\n{"audio_filepath": "1.wav", "pred_text": ""}',
            "give all rows the same column",
        ),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(data)
    with pytest.raises(DataError, match=message):
        texts(tmp_path / "a.jsonl")


def test_unknown_formats_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a.trn").write_text("words (u0)\nwords without an id\n")
    with pytest.raises(DataError, match=r"a\.trn:2: not a TRN line"):
        texts(tmp_path / "a.trn")
    (tmp_path / "a.txt").write_text("words\n")
    with pytest.raises(DataError, match=r"unknown format \.txt; use \.jsonl"):
        texts(tmp_path / "a.txt")


def test_one_json_object_has_a_text_for_each_id(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({f"clips/{n}.wav": text for n, text in enumerate(HYPOTHESES)}))
    assert texts(path) == HYPOTHESES
    path.write_text('{"u0": "one", "u0": "two"}')
    with pytest.raises(DataError, match="the id 'u0' is there twice"):
        texts(path)
    path.write_text('{"text": "one", "segments": []}')
    with pytest.raises(DataError, match="values are not texts; give a text for each id, or a list"):
        texts(path)


def test_of_alternatives_in_trn_the_first_one_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.trn").write_text("take { two / 2 } { @ / um } (big) ones { uh / @ } (u0)\n")
    assert texts(tmp_path / "a.trn", CLIPS[:1]) == ["take two um big ones uh"]


def test_missing_unknown_and_duplicate_ids_are_counted_and_named(tmp_path: Path) -> None:
    bad = [*rows()[2:], rows()[3], {"id": "ghost", "pred_text": "boo"}, {"id": "U0", "pred_text": "case counts"}]
    with pytest.raises(DataError) as raised:
        texts(jsonl(tmp_path / "a.jsonl", bad))
    message = str(raised.value)
    assert "nothing was scored" in message
    assert "2 of 4 clips have no hypothesis: 'u0', 'u1'\n" in message
    assert "2 of 5 rows match no clip: 'ghost', 'U0'\n" in message
    assert "1 row of a clip that already has a row: 'u3'" in message
    many = [ClipNames(f"v{number}", f"/{number}.wav", "") for number in range(500)]
    with pytest.raises(DataError, match=r"500 of 500 clips have no hypothesis: 'v0', 'v1', 'v2' \.\.\."):
        texts(jsonl(tmp_path / "a.jsonl", rows()), many)
    with pytest.raises(DataError, match="1 of 2 rows match no clip: 'u1'"):  # labels and ids are not mixed
        (tmp_path / "a.trn").write_text("a (u1)\nb (anna-u1)\n")
        texts(tmp_path / "a.trn")


@pytest.mark.parametrize(
    "shape",
    ["{}.wav", "clips/{}.wav", "./clips/{}.wav", "/data/clips/{}.wav", "clips\\{}.wav", "/mnt/data/clips/{}.wav"],
)
def test_clips_are_identified_by_their_audio_file(tmp_path: Path, shape: str) -> None:
    named = [{"audio_filepath": shape.format(number), "pred_text": text} for number, text in enumerate(HYPOTHESES)]
    assert texts(jsonl(tmp_path / "a.jsonl", named)) == HYPOTHESES
    leaderboard = [{"id": f"sample_{number}", **row} for number, row in enumerate(named)]  # ids of a leaderboard
    assert texts(jsonl(tmp_path / "a.jsonl", leaderboard)) == HYPOTHESES


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("key", ["id", "audio_filepath", "trn"])
def test_names_can_be_composed_or_decomposed(tmp_path: Path, key: str, form: Literal["NFC", "NFD"]) -> None:
    """macOS writes é as e and an accent."""
    other: Literal["NFC", "NFD"] = "NFD" if form == "NFC" else "NFC"
    names = [unicodedata.normalize(form, name) for name in ("café", "Übung")]
    clips = [ClipNames(name, f"/data/{name}.wav", f"anna-{name}") for name in names]
    written = [unicodedata.normalize(other, name) for name in names]
    if key == "trn":
        path = tmp_path / "a.trn"
        path.write_text("".join(f"yes {i} ({name})\n" for i, name in enumerate(written)), encoding="utf-8")
    else:
        values = written if key == "id" else [f"data/{name}.wav" for name in written]
        path = jsonl(tmp_path / "a.jsonl", [{key: v, "pred_text": f"yes {i}"} for i, v in enumerate(values)])
    assert texts(path, clips) == ["yes 0", "yes 1"]


def test_equal_file_names_in_other_folders_do_not_match(tmp_path: Path) -> None:
    train = [{"audio_filepath": f"/data/train/{number}.wav", "pred_text": "x"} for number in range(4)]
    with pytest.raises(DataError, match="4 of 4 clips have no hypothesis"):
        texts(jsonl(tmp_path / "a.jsonl", train))
    up = [{"audio_filepath": f"../clips/{number}.wav", "pred_text": str(number)} for number in range(2)]
    clips = [ClipNames(str(number), str(tmp_path / "clips" / f"{number}.wav"), "") for number in range(2)]
    (tmp_path / "hyp").mkdir()
    assert texts(jsonl(tmp_path / "hyp" / "a.jsonl", up), clips) == ["0", "1"]


def test_a_label_that_equals_the_id_of_another_clip_is_a_label(tmp_path: Path) -> None:
    segments = [Segment(name, "", 1.0, text) for name, text in (("a", "first"), ("unknown-a", "second"))]
    (tmp_path / "a.trn").write_text("".join(f"{line}\n" for line in trn(segments, "none")))
    names = [ClipNames(item.id, "", label) for item, label in zip(segments, labels_of(segments), strict=True)]
    assert texts(tmp_path / "a.trn", names) == ["first", "second"]


def test_segments_of_one_audio_file_need_ids(tmp_path: Path) -> None:
    clips = [ClipNames(f"s{number}", "/data/call.wav", "") for number in range(2)]
    with pytest.raises(DataError, match=r"2 clips have the audio file 'call\.wav', and the ids of the rows"):
        texts(jsonl(tmp_path / "a.jsonl", [{"audio_filepath": "call.wav", "pred_text": "x"}]), clips)


WORDS = st.lists(st.text("abcé今' ", min_size=1, max_size=6), max_size=4).map(
    lambda words: " ".join(" ".join(words).split())
)


@given(
    st.lists(
        st.tuples(st.text(max_size=12), st.text("ab- ()", max_size=6), WORDS),
        min_size=1,
        max_size=6,
        unique_by=lambda row: row[0],
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_written_trn_files_are_read_back(tmp_path: Path, clips: list[tuple[str, str, str]]) -> None:
    segments = [Segment(name, speaker, 1.0, text) for name, speaker, text in clips]
    (tmp_path / "a.trn").write_text("".join(f"{line}\n" for line in trn(segments, "none")), encoding="utf-8")
    names = [ClipNames(item.id, "", label) for item, label in zip(segments, labels_of(segments), strict=True)]
    assert texts(tmp_path / "a.trn", names) == [text for _, _, text in clips]
