"""Subtitles and annotation files: each cue is a segment with its words, its speaker and the right part of the audio."""

import json
import logging
import random
from pathlib import Path

import numpy as np
import pytest
import soundfile
from video_file import write_video

from finetune.core.errors import DataError
from finetune.data.audit import Audit, audit
from finetune.data.corpora import read_corpus
from finetune.data.formats.annotations import PARSERS
from finetune.data.formats.cues import Cue, join_words
from finetune.data.formats.nist import parse_stm
from finetune.data.formats.subtitles import parse_timed_text
from finetune.data.row import Row

SRT = (
    "1\n00:00:01,000 --> 00:00:02,500 X1:40 X2:600\n<i>Good</i> {\\an8}morning\nall.\n\n"
    "2\n00:00:03,000 --> 00:00:04,250\nHow are you?\n"
)
VTT = (
    "WEBVTT - a talk\nKind: captions\n\nSTYLE\n::cue { color: red }\n\nNOTE nothing\nof this\n\nintro\n"
    "00:01.000 --> 00:02.500 align:start position:0%\n<v.loud Mary Ann>Good <00:00:01.500><c>morning</c>\nall.</v>\n\n"
    "00:00:03.000 --> 00:00:04.250\n<v Bob>How are you? &amp; you&lrm;?\n"
)
STM = (
    ";; a comment\ntalk 1 Mary 1.000 2.500 <o,f0,female> good morning all\n"
    "talk 1 inter_segment_gap 2.5 3.0 <o,,> ignore_time_segment_in_scoring\n"
    "talk 1 Bob 3.000 4.250 <o,f0,male> how are you\n"
)
CTM = (
    "talk A 1.05 0.30 good 0.9\ntalk A 1.40 0.40 morning 0.7\ntalk A 1.80 0.60 all 0.8\n"
    ";; later\ntalk A 3.20 0.20 how 1.0\ntalk A 3.40 0.10 <eps>\ntalk A 3.50 0.65 are 0.5\n"
)
WHISPER = json.dumps(
    {
        "text": " Good morning all. How are you?",
        "segments": [
            {
                "id": 0,
                "seek": 0,
                "start": 1.0,
                "end": 2.5,
                "text": " Good morning all.",
                "tokens": [1],
                "speaker": "Mary",
            },
            {"id": 1, "seek": 0, "start": 2.5, "end": 2.5, "text": "", "tokens": []},
            {"id": 2, "seek": 0, "start": 3.0, "end": 4.25, "text": " How are you?", "tokens": [2], "speaker": "Bob"},
        ],
        "language": "en",
    },
    indent=2,
)
WHISPER_CPP = json.dumps(
    {
        "params": {"language": "en", "translate": False},
        "result": {"language": "en"},
        "transcription": [
            {"offsets": {"from": 1000, "to": 2500}, "text": " Good morning all."},
            {"offsets": {"from": 3000, "to": 4250}, "text": " How are you?"},
        ],
    }
)
LABELS = "1.000000\t2.500000\tgood morning all\n\\\t100\t2000\n3.000000\t4.250000\thow are you\n"


def textgrid(*tiers: tuple[str, list[tuple[float, float, str]]], short: bool = False) -> str:
    """A TextGrid in the long or short form."""
    if short:
        text = f'File type = "ooTextFile short"\n"TextGrid"\n\n0\n5\n<exists>\n{len(tiers)}\n'
    else:
        text = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = 5\ntiers? <exists>\n'
        text += f"size = {len(tiers)}\nitem []:\n"
    for number, (name, intervals) in enumerate(tiers, 1):
        quoted = [(start, end, words.replace('"', '""')) for start, end, words in intervals]
        if short:
            text += f'"IntervalTier"\n"{name}"\n0\n5\n{len(intervals)}\n'
            text += "".join(f'{start}\n{end}\n"{words}"\n' for start, end, words in quoted)
            continue
        text += f'    item [{number}]:\n        class = "IntervalTier"\n        name = "{name}"\n        xmin = 0\n'
        text += f"        xmax = 5\n        intervals: size = {len(intervals)}\n"
        for index, (start, end, words) in enumerate(quoted, 1):
            text += f"        intervals [{index}]:\n            xmin = {start}\n            xmax = {end}\n"
            text += f'            text = "{words}"\n'
    return text


MARY = ("Mary", [(0.0, 1.0, ""), (1.0, 2.5, 'good "morning" all'), (2.5, 5.0, " ")])
BOB = ("Bob", [(0.0, 3.0, ""), (3.0, 4.25, "how are you"), (4.25, 5.0, "")])


def elan(*tiers: str, slots: str = "", media: str = "") -> str:
    times = {"t1": 1000, "t2": 2500, "t3": 3000, "t4": 4250}
    order = "".join(f'<TIME_SLOT TIME_SLOT_ID="{key}" TIME_VALUE="{value}"/>' for key, value in times.items())
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<ANNOTATION_DOCUMENT><HEADER TIME_UNITS="milliseconds">'
        f"{media}</HEADER><TIME_ORDER>{order}{slots}</TIME_ORDER>{''.join(tiers)}</ANNOTATION_DOCUMENT>"
    )


def tier(name: str, key: str, first: str, last: str, words: str, attributes: str = "") -> str:
    return (
        f'<TIER TIER_ID="{name}" {attributes}><ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="{key}" TIME_SLOT_REF1='
        f'"{first}" TIME_SLOT_REF2="{last}"><ANNOTATION_VALUE>{words}</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION>'
        "</ANNOTATION></TIER>"
    )


def dependent(name: str, parent: str, key: str, reference: str, words: str) -> str:
    return (
        f'<TIER TIER_ID="{name}" PARENT_REF="{parent}"><ANNOTATION><REF_ANNOTATION ANNOTATION_ID="{key}" '
        f'ANNOTATION_REF="{reference}"><ANNOTATION_VALUE>{words}</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION></TIER>'
    )


EAF = elan(
    tier("Transkript", "a1", "t1", "t2", "good morning all", 'PARTICIPANT="Mary"'),
    tier("B", "a2", "t3", "t4", "how are you", 'PARTICIPANT="Bob"'),
    dependent("translation", "B", "a3", "a2", "wie geht es dir"),
)


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    """A folder with talk.wav: 5 s of noise."""
    write_audio(tmp_path / "talk.wav")
    return tmp_path


def wave(seconds: float = 5.0) -> np.ndarray:
    return np.random.default_rng(1).uniform(-0.3, 0.3, int(16_000 * seconds)).astype(np.float32)


def write_audio(path: Path, seconds: float = 5.0, channels: int = 1) -> None:
    samples = wave(seconds)
    soundfile.write(
        path, np.stack([samples * (1 - 0.5 * n) for n in range(channels)], 1), 16_000, "FLOAT", format="WAV"
    )


def read(source: Path) -> list[Row]:
    return list(read_corpus(str(source), source.parent / "media"))


def checked(rows: list[Row]) -> Audit:
    limits = {"min_duration": 0.1, "max_duration": 30.0, "max_chars_per_second": 99.0}
    return audit(rows, **limits, special_tokens=(), workers=1)


def segments(rows: list[Row]) -> list[tuple[object, ...]]:
    keys = ("offset", "duration", "text", "speaker")
    return [tuple(row.values.get(key, "") for key in keys) for row in rows]


@pytest.mark.parametrize("source", ["file", "folder"])
@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        ("talk.srt", SRT, [(1.0, 1.5, "Good morning all.", ""), (3.0, 1.25, "How are you?", "")]),
        (
            "talk.vtt",
            VTT,
            [(1.0, 1.5, "Good morning all.", "Mary Ann"), (3.0, 1.25, "How are you? & you\u200e?", "Bob")],
        ),
        ("talk.stm", STM, [(1.0, 1.5, "good morning all", "Mary"), (3.0, 1.25, "how are you", "Bob")]),
        ("talk.txt", LABELS, [(1.0, 1.5, "good morning all", ""), (3.0, 1.25, "how are you", "")]),
        ("talk.txt", SRT, [(1.0, 1.5, "Good morning all.", ""), (3.0, 1.25, "How are you?", "")]),
        (
            "talk.TextGrid",
            textgrid(MARY, BOB),
            [(1.0, 1.5, 'good "morning" all', "Mary"), (3.0, 1.25, "how are you", "Bob")],
        ),
        ("talk.eaf", EAF, [(1.0, 1.5, "good morning all", "Mary"), (3.0, 1.25, "how are you", "Bob")]),
        ("talk.ctm", CTM, [(0.95, 1.55, "good morning all", ""), (3.1, 1.05, "how are", "")]),
    ],
)
def test_each_cue_is_a_segment(
    talk: Path, source: str, name: str, content: str, rows: list[tuple[object, ...]]
) -> None:
    (talk / name).write_text(content)
    found = read(talk / name if source == "file" else talk)
    assert segments(found) == rows
    result = checked(found)
    assert not result.dropped and [item.audio_filepath for item in result.kept] == [str(talk / "talk.wav")] * 2
    for item in result.kept:
        samples, _ = soundfile.read(talk / "talk.wav", dtype="float32")
        assert item.duration == pytest.approx(rows[result.kept.index(item)][1])
        part = samples[round(item.offset * 16_000) : round((item.offset + item.duration) * 16_000)]
        again = checked([Row("x", {"audio_filepath": str(write_part(talk, part)), "text": "x"})])
        assert again.kept[0].audio_digest == item.audio_digest


def write_part(folder: Path, samples: np.ndarray) -> Path:
    (folder / "part").mkdir(exist_ok=True)
    path = folder / "part" / "part.wav"
    soundfile.write(path, samples, 16_000, "FLOAT")
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("short", [False, True])
def test_both_forms_of_a_textgrid_in_every_encoding(talk: Path, short: bool, encoding: str) -> None:
    text = textgrid(("Märy", [(0.0, 1.0, ""), (1.0, 2.5, "grüß\nGott")]), short=short)
    (talk / "talk.TextGrid").write_bytes(text.encode(encoding))
    (row,) = read(talk / "talk.TextGrid")
    assert segments([row]) == [(1.0, 1.5, "grüß Gott", "Märy")] and "tier 'Märy', interval 2" in row.where


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(("name", "content"), [("talk.srt", SRT), ("talk.vtt", VTT), ("talk.eaf", EAF)])
def test_encodings_and_line_ends(talk: Path, name: str, content: str, end: str, encoding: str) -> None:
    (talk / name).write_bytes(content.replace("\n", end).encode(encoding))
    assert [row[:2] for row in segments(read(talk / name))] == [(1.0, 1.5), (3.0, 1.25)]


def test_what_is_left_out_is_said_with_its_number(talk: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, content in (("a.srt", SRT), ("b.TextGrid", textgrid(MARY, BOB)), ("c.eaf", EAF), ("d.stm", STM)):
        (talk / name).write_text(content.replace("talk", "d"))
        write_audio(talk / f"{name[0]}.wav")
    (talk / "talk.wav").unlink()
    with caplog.at_level(logging.INFO):
        assert len(read(talk)) == 8
    for note in (
        "tags of subtitles such as <i> and {\\an8} are removed: 3",
        "positions of cues are removed: 1",
        "empty intervals are not read: 4",
        "intervals of tier 'Mary' are read: 1",
        "annotations of the dependent tier 'translation' are not read: 1",
        "segments that are not scored (ignore_time_segment_in_scoring) are not read: 1",
    ):
        assert f"{talk}: {note}" in caplog.text


def test_bad_cues_are_problems_of_their_rows(talk: Path) -> None:
    blocks = [
        "00:00:02,000 --> 00:00:01,000\nbackwards",
        "00:00:02,000 --> 00:00:02,000\nno length",
        "00:00:03,000 --> 00:00:04,000\n",
        "00:01:00,000 --> 00:01:02,000\nbeyond the audio",
        "00:00:01,000 --> 00:00:02,000\nright",
    ]
    (talk / "talk.srt").write_text("\n\n".join(f"{n}\n{block}" for n, block in enumerate(blocks, 1)))
    result = checked(read(talk / "talk.srt"))
    assert [item.text for item in result.kept] == ["right"]
    kinds = [problem.kind for problem in result.dropped]
    assert kinds == ["contradictory segment"] * 2 + ["empty transcript", "segment outside the audio"]
    assert result.dropped[0].where == f"{talk / 'talk.srt'}:2"


def test_cues_out_of_order_and_overlapping_speakers_are_said(talk: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = [
        "talk 1 Mary 3 4 late",
        "talk 1 Mary 1 2.5 early",
        "talk 1 Bob 2 2.8 over",
        "talk 2 Ann 0 1.5 long",
        "talk 2 Ann 1 2 elsewhere",
    ]
    (talk / "talk.stm").write_text("\n".join(lines))
    write_audio(talk / "talk.wav", channels=2)
    with caplog.at_level(logging.INFO):
        rows = read(talk / "talk.stm")
    assert [row.values["channel"] for row in rows] == [0, 0, 0, 1, 1]
    assert ": cues start before the cue above them: 1" in caplog.text
    assert "so both are in their audio: 1" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("talk.srt", "", r"talk.srt: no cue such as"),
        ("talk.srt", "just words\n", "talk.srt:1: not a cue: 'just words'"),
        ("talk.vtt", "WEBVTT\n\nlost words\n\n00:01.000 --> 00:02.000\nhi\n", "talk.vtt:3: not a cue: 'lost words'"),
        ("talk.srt", SRT.replace("Good", "Gr\udcfc\udcdf"), "talk.srt:3: not UTF-8 text"),
        ("talk.TextGrid", "just words", "talk.TextGrid: damaged TextGrid: the end of the file instead of a text"),
        ("talk.TextGrid", textgrid(MARY)[:-40], "damaged TextGrid"),
        ("talk.TextGrid", textgrid(("phones", [(0, 1, "a")])), "no tier has transcripts; the tiers are 'phones'"),
        ("talk.TextGrid", textgrid(MARY).replace("xmax = 1.0", "xmax = 1e999"), "inf instead of a number"),
        ("talk.eaf", EAF.replace('"1000"', '"soon"'), "the time 'soon' is not a number of milliseconds"),
        ("talk.eaf", EAF[:-30], "talk.eaf: damaged XML"),
        ("talk.eaf", elan(tier("A", "a1", "t8", "t9", "hi")), "talk.eaf: 1 annotation, but none has times"),
        ("talk.eaf", "<html></html>", "not an annotation file of ELAN"),
        ("talk.eaf", EAF.replace("<ANN", "<!DOCTYPE x [<!ENTITY a 'aaaa'>]><ANN", 1), "document type or entities"),
        ("talk.eaf", EAF.replace("milliseconds", "PAL-frames"), "the unit of its times is 'PAL-frames'"),
        ("talk.stm", "talk 1 Mary one two words\n", "talk.stm:1: not a line of STM"),
        ("talk.stm", "talk X Mary 1 2 words\n", "talk.stm:1: channel 'X' is not A, B, 1 or 2"),
        ("talk.ctm", "talk 1 1.0 0.5 hi\ntalk 1 1.5\n", "talk.ctm:2: not a line of CTM"),
        ("talk.ctm", "talk 1 * * <ALT_BEGIN>\n", "talk.ctm:1: alternatives"),
        ("talk.ctm", ";; nothing\n", "no words of CTM"),
    ],
)
def test_a_damaged_file_is_an_error_and_in_a_folder_a_problem_of_its_row(
    talk: Path, name: str, content: str, message: str
) -> None:
    (talk / name).write_text(content, errors="surrogateescape")
    with pytest.raises(DataError, match=message):
        read(talk / name)
    write_audio(talk / "good.wav")
    (talk / "good.txt").write_text("words")
    bad, good = read(talk)
    assert bad.fault is not None and bad.fault.kind == "unreadable annotation" and name in bad.fault.detail
    assert good.values["text"] == "words" and good.fault is None


@pytest.mark.parametrize("audio", ["talk.mp4", "audio/talk.flac", "../sph/talk.sph", "wav/talk.WAV"])
def test_the_audio_has_any_suffix_and_can_lie_in_a_usual_folder(tmp_path: Path, audio: str) -> None:
    folder = tmp_path / "stm"
    folder.mkdir()
    (folder / audio).parent.mkdir(exist_ok=True)
    write_audio(folder / audio)
    (folder / "talk.stm").write_text(STM)
    assert {row.values["audio_filepath"] for row in read(folder / "talk.stm")} == {str((folder / audio).resolve())}
    rows = read(tmp_path)
    assert len(rows) == 2 and not checked(rows).dropped


def test_without_audio_the_file_is_an_error_and_in_a_folder_missing_audio(talk: Path) -> None:
    (talk / "other.srt").write_text(SRT)
    (talk / "talk.txt").write_text("words")
    with pytest.raises(DataError, match=r"other.srt: no audio file for it: other with a suffix such as .wav"):
        read(talk / "other.srt")
    assert [problem.kind for problem in checked(read(talk)).dropped] == ["missing audio"] * 2


def test_of_several_transcripts_of_one_recording_one_is_read(talk: Path, caplog: pytest.LogCaptureFixture) -> None:
    (talk / "talk.srt").write_text(SRT)
    (talk / "talk.TextGrid").write_text(textgrid(MARY))
    (talk / "talk.txt").write_text("good morning all how are you")
    with caplog.at_level(logging.INFO):
        rows = read(talk)
    assert segments(rows) == [(1.0, 1.5, 'good "morning" all', "Mary")]
    assert ".srt files are not read, because their audio has another transcript: 2" in caplog.text
    assert ".txt files are not read, because their audio has another transcript: 1" in caplog.text


def test_the_language_in_the_name_of_subtitles(talk: Path) -> None:
    (talk / "talk.pt-BR.sdh.srt").write_text(SRT)
    assert [row.values["language"] for row in read(talk)] == ["pt-BR"] * 2
    (talk / "talk.de.srt").write_text(SRT)
    with pytest.raises(DataError, match=r"talk.wav has subtitles in several languages, .*give the files of one"):
        read(talk)
    assert [row.values["language"] for row in read(talk / "talk.de.srt")] == ["de"] * 2
    assert [row.values["language"] for row in read_corpus(str(talk / "*.de.srt"), talk)] == ["de"] * 2


def test_a_cue_with_empty_lines_counters_and_numbers(talk: Path) -> None:
    text = (
        "1\n00:00:00,000 --> 00:00:01,000\nbefore\n\nafter the empty line\n\n"
        "2\n00:00:01,000 --> 00:00:02,000\n2019\n3\n00:00:02,000 --> 00:00:03,000\nno empty line above\n\n\n"
        "0:00:03,0 --> 00:00:60,000\nno counter\n"
    )
    (talk / "talk.srt").write_text(text)
    rows = read(talk / "talk.srt")
    texts = [row.values["text"] for row in rows]
    assert (rows[3].values["offset"], rows[3].values["duration"]) == (3.0, 57.0)
    assert texts == ["before after the empty line", "2019", "no empty line above", "no counter"]


@pytest.mark.parametrize(
    "times",
    [
        "00:00:02,000 -> 00:00:03,000",
        "00:00:02:000 --> 00:00:03:000",
        "00 : 00 : 02,000 --> 00:00:03,000",
        "00:00:02,000 —> 00:00:03,000",
        "00:00:02,000 → 00:00:03,000",
        "-00:00:02,000 --> 00:00:03,000",
        "00:00:02,000 -->",
        "00:00:02,000 - 00:00:03,000",
    ],
)
@pytest.mark.parametrize("end", ["\n\n", "\n"])
@pytest.mark.parametrize(("name", "head"), [("talk.srt", ""), ("talk.vtt", "WEBVTT\n\n")])
def test_a_cue_with_wrong_times_is_not_text_of_the_cue_above(
    talk: Path, times: str, end: str, name: str, head: str
) -> None:
    first, last = "1\n00:00:00,000 --> 00:00:01,000\none\n", "3\n00:00:04,000 --> 00:00:05,000\nthree\n"
    (talk / name).write_text(f"{head}{first}{end[1:]}2\n{times}\ntwo\n{end[1:]}{last}")
    number = 5 + len(end[1:]) + head.count("\n")
    with pytest.raises(DataError, match=f"{name}:{number}: not a cue: "):
        read(talk / name)


@pytest.mark.parametrize("text", ["10:15 - 11:30", "from 10:15 -> 11:30", "10:15 we left", "-> 5", "3:1 -> 4:1"])
def test_times_and_arrows_that_are_spoken_stay(talk: Path, text: str) -> None:
    (talk / "talk.srt").write_text(f"1\n00:00:00,000 --> 00:00:01,000\n{text}\n")
    assert [row.values["text"] for row in read(talk / "talk.srt")] == [text]


@pytest.mark.parametrize(("end", "is_said"), [("00:00:04", True), ("00:00:04,000", True), ("00:00:03,500", False)])
def test_times_of_whole_seconds_are_said(talk: Path, caplog: pytest.LogCaptureFixture, end: str, is_said: bool) -> None:
    times = [("00:00:00", "00:00:01"), ("00:00:01", "00:00:03"), ("00:00:03", end)]
    (talk / "talk.srt").write_text("".join(f"1\n{first} --> {last}\nwords\n\n" for first, last in times))
    with caplog.at_level(logging.INFO):
        assert len(read(talk / "talk.srt")) == 3
    assert ("whole seconds only, so probably rounded: words at the edges are cut off: 3" in caplog.text) == is_said


def test_captions_that_roll_are_refused(talk: Path) -> None:
    lines = [f"line {n}" for n in range(8)]
    cues = [f"00:0{n}.000 --> 00:0{n + 1}.000\n{lines[n]}\n{lines[n + 1]}\n" for n in range(6)]
    (talk / "talk.vtt").write_text("WEBVTT\n\n" + "\n".join(cues))
    with pytest.raises(DataError, match="5 of 6 cues repeat the line before them, as automatic captions that roll do"):
        read(talk / "talk.vtt")
    cues = []  # of YouTube, with a space as first line and a short cue between two others
    for n in range(6):
        cues.append(f"00:0{n}.000 --> 00:0{n}.990 align:start\n{lines[n - 1] if n else ' '}\n{lines[n]}<00:0{n}.5>\n")
        cues.append(f"00:0{n}.990 --> 00:0{n + 1}.000 align:start\n{lines[n]}\n \n")
    (talk / "talk.vtt").write_text("WEBVTT\nKind: captions\n\n" + "\n".join(cues))
    with pytest.raises(DataError, match="5 of 12 cues repeat the line before them"):
        read(talk / "talk.vtt")


@pytest.mark.parametrize(
    ("text", "is_everywhere"),
    [
        ("Subtitles by the Amara.org community", True),
        ("<i>Untertitel der Amara.org-Community</i>", True),
        ("www.opensubtitles.org", True),
        ("Advertise your product or brand here\ncontact www.OpenSubtitles.org today", True),
        ("字幕由Amara.org社区提供", True),
        ("Untertitelung des ZDF, 2020", False),
        ("Sous-titrage Société Radio-Canada", False),
        ("Legendado por Ana Silva", False),
        ("Translator: Jane Doe\nReviewer: Bob Roe", False),
    ],
)
def test_credits_of_subtitles_are_left_out(
    talk: Path, caplog: pytest.LogCaptureFixture, text: str, is_everywhere: bool
) -> None:
    def texts(place: int) -> list[object]:
        spoken = [f"words {n}" for n in range(8)]
        blocks = [*spoken[:place], text, *spoken[place:]]
        cues = [f"{n}\n00:00:0{n},000 --> 00:00:0{n},900\n{block}\n" for n, block in enumerate(blocks)]
        (talk / "talk.srt").write_text("\n".join(cues))
        return [row.values["text"] for row in read(talk / "talk.srt")]

    with caplog.at_level(logging.INFO):
        assert texts(0) == texts(8) == [f"words {n}" for n in range(8)]
    assert "which nobody speaks, are left out: 1" in caplog.text
    assert (len(texts(4)) == 8) == is_everywhere


@pytest.mark.parametrize("text", ["You find it at www.amara.org now", "Subs are on the bench", "Captions by far help"])
def test_spoken_sentences_about_subtitles_stay(talk: Path, text: str) -> None:
    blocks = [f"{n}\n00:00:0{n},000 --> 00:00:0{n},900\n{text if n == 4 else n}\n" for n in range(9)]
    (talk / "talk.srt").write_text("\n".join(blocks))
    assert len(read(talk / "talk.srt")) == 9
    (talk / "talk.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nSubtitles by Amara.org\n")
    with pytest.raises(DataError, match="only credits of subtitles"):
        read(talk / "talk.srt")


BILINGUAL = [
    ("这是第一句", "this is one"),
    ("<i>これは二</i>", "this is two"),
    ("", "only one line"),
    ("第三句", "three"),
]


@pytest.mark.parametrize("as_cues", [False, True])
@pytest.mark.parametrize("lines", [BILINGUAL, [("привет мир", "hello world"), ("как дела", "how are you")]])
def test_subtitles_in_two_scripts_are_refused(talk: Path, lines: list[tuple[str, str]], as_cues: bool) -> None:
    between = "\n\n1\n{}\n" if as_cues else "\n"
    times = [f"00:00:0{n},000 --> 00:00:0{n},900" for n in range(len(lines))]
    cues = [f"{time}\n{a}{between.format(time)}{b}\n" for time, (a, b) in zip(times, lines, strict=True)]
    (talk / "talk.srt").write_text("\n".join(cues))
    with pytest.raises(
        DataError, match=r"of \d cues have lines in two scripts \(\w+ and LATIN\), such as .*/ .*keep the"
    ):
        read(talk / "talk.srt")


def test_subtitles_in_two_languages_of_one_script_are_refused(talk: Path) -> None:
    pairs = [
        ("Guten Morgen, ich bin da.", "Good morning, I am here."),
        ("Das ist nicht das Haus.", "That is not the house."),
        ("Wir sind auf dem Weg.", "We are on the way."),
        ("Und was machst du?", "And what do you do?"),
    ]

    def write(pairs: list[tuple[str, str]]) -> Path:
        blocks = [f"{n}\n00:00:0{n},000 --> 00:00:0{n},900\n{a}\n{b}\n" for n, (a, b) in enumerate(pairs)]
        (talk / "talk.srt").write_text("\n".join(blocks))
        return talk / "talk.srt"

    with pytest.raises(DataError, match="first lines of 4 cues are in the language 'de', the second ones in 'en'"):
        read(write(pairs))
    mixed = [pair if n % 2 else pair[::-1] for n, pair in enumerate(pairs)]  # a talk in both languages
    assert len(read(write(mixed))) == 4
    assert len(read(write([(a, a) for a, _ in pairs]))) == 4


@pytest.mark.parametrize(
    "texts",
    [
        ["NHKの\nニュース", "今日は\nNHK", "東京の\n天気です", "明日は\n雨です"],
        ["good\nmorning", "42 -\nwords", "привет\nworld"],
        ["these are\nlines", "of one\nscript"],
    ],
)
def test_a_few_lines_in_another_script_are_no_subtitles_in_two_languages(talk: Path, texts: list[str]) -> None:
    blocks = [f"{n}\n00:00:0{n},000 --> 00:00:0{n},900\n{text}\n" for n, text in enumerate(texts)]
    (talk / "talk.srt").write_text("\n".join(blocks))
    assert [row.values["text"] for row in read(talk / "talk.srt")] == [" ".join(text.split()) for text in texts]


def test_a_cue_with_two_voices_has_no_speaker(talk: Path, caplog: pytest.LogCaptureFixture) -> None:
    (talk / "talk.vtt").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\n<v Ann>Hi.</v>\n<v Bob>Hello.</v>\n")
    with caplog.at_level(logging.INFO):
        assert segments(read(talk / "talk.vtt")) == [(1.0, 1.0, "Hi. Hello.", "")]
    assert "cues have several voices, so their rows have no speaker: 1" in caplog.text


def test_tags_that_are_no_tags_of_subtitles_stay() -> None:
    (cue,) = parse_timed_text(
        "1\n00:00:01,000 --> 00:00:02,000\n<unk> a < b <font color='x'>c</font> {d} <laugh>\n"
    ).cues
    assert cue.text == "<unk> a < b c {d} <laugh>"


def test_dashes_before_the_lines_of_a_dialogue_are_removed(talk: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocks = ["- Guten Tag.\n– Ja, ja.", "<i>-Nein.</i>", "-5 degrees - or so", "well-known\n--"]
    cues = [f"{n}\n00:00:0{n},000 --> 00:00:0{n},900\n{block}\n" for n, block in enumerate(blocks, 1)]
    (talk / "talk.srt").write_text("\n".join(cues))
    with caplog.at_level(logging.INFO):
        texts = [row.values["text"] for row in read(talk / "talk.srt")]
    assert texts == ["Guten Tag. Ja, ja.", "Nein.", "-5 degrees - or so", "well-known --"]
    assert "dashes before the lines of a dialogue are removed: 2" in caplog.text


def test_words_and_phones_of_an_aligner(talk: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As the Montreal Forced Aligner writes them: words are joined, phones are left out."""
    words = [(0, 1, ""), (1, 1.4, "good"), (1.4, 2, "morning"), (2, 3, "sp"), (3, 3.5, "hello"), (3.5, 5, "")]
    phones = [(1, 1.2, "g"), (1.2, 1.4, "d")]
    (talk / "talk.TextGrid").write_text(textgrid(("Mary - words", words), ("Mary - phones", phones)))
    with caplog.at_level(logging.INFO):
        rows = read(talk / "talk.TextGrid")
    assert segments(rows) == [(0.9, 1.2, "good morning", "Mary"), (2.9, 0.6, "hello", "Mary")]
    assert "intervals of tier 'Mary - phones' are not read: 2" in caplog.text
    sentences = ("utterances", [(0.0, 1.0, ""), (1.0, 2.0, "Good morning!"), (3.0, 3.5, "Hello.")])
    (talk / "talk.TextGrid").write_text(textgrid(("words", words), sentences, ("phones", phones)))
    assert segments(read(talk / "talk.TextGrid")) == [(1.0, 1.0, "Good morning!", ""), (3.0, 0.5, "Hello.", "")]


def test_a_second_tier_of_the_same_intervals_is_not_a_second_speaker(talk: Path) -> None:
    other = ("phonemic", [(0.0, 1.0, ""), (1.0, 2.5, "gʊd mɔːnɪŋ"), (2.5, 5.0, "")])
    text = ("text", MARY[1])
    (talk / "talk.TextGrid").write_text(textgrid(other, text))
    assert segments(read(talk / "talk.TextGrid")) == [(1.0, 1.5, 'good "morning" all', "")]


@pytest.mark.parametrize(
    ("name", "speaker"),
    [("Speaker 1", "talk-Speaker 1"), ("A", "talk-A"), ("agent", "talk-agent"), ("S0123", "S0123"), ("Mary", "Mary")],
)
def test_names_that_are_another_person_in_each_recording(talk: Path, name: str, speaker: str) -> None:
    (talk / "talk.TextGrid").write_text(textgrid((name, MARY[1]), BOB))
    assert read(talk / "talk.TextGrid")[0].values["speaker"] == speaker


def test_point_tiers_are_not_read(talk: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = textgrid(MARY, ("events", [(1.0, 1.0, "click")])).replace(
        'class = "IntervalTier"\n        name = "events"', 'class = "TextTier"\n        name = "events"'
    )
    text = text.replace("xmin = 1.0\n            xmax = 1.0\n            text", "number = 1.0\n            mark")
    (talk / "talk.TextGrid").write_text(text)
    with caplog.at_level(logging.INFO):
        assert len(read(talk / "talk.TextGrid")) == 1
    assert "points of point tiers are not read: 1" in caplog.text


def test_elan_finds_its_media_the_words_of_numbered_tiers_and_annotations_without_times(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_audio(tmp_path / "rec 7.wav")
    media = '<MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/data/rec%207.wav" RELATIVE_MEDIA_URL="./rec%207.wav"/>'
    text = elan(
        tier("ref@MA", "a1", "t1", "t2", "001", 'PARTICIPANT="Mary"'),
        dependent("tx@MA", "ref@MA", "a2", "a1", "good morning"),
        dependent("ft@MA", "ref@MA", "a3", "a1", "bonjour"),
        tier("x@MA", "a4", "t3", "t9", "no time"),
        media=media,
    )
    (tmp_path / "session.eaf").write_text(text)
    with caplog.at_level(logging.INFO):
        rows = read(tmp_path / "session.eaf")
    assert segments(rows) == [(1.0, 1.5, "good morning", "Mary")] and not checked(rows).dropped
    assert "annotations of the dependent tier 'ft@MA' are not read: 1" in caplog.text
    assert "annotations without times are not read: 1" in caplog.text


def test_a_ctm_of_several_recordings_and_channels(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", channels=2)
    write_audio(tmp_path / "b.wav")
    lines = [
        "a 1 1.0 0.5 three 1.0",
        "a 2 0.6 0.4 two 1.0",
        "a 1 0.5 0.5 one 0.5",
        "b 1 0.0 1.0 four",
        "gone 1 0 1 five",
    ]
    (tmp_path / "a.ctm").write_text("\n".join(lines))
    rows = read(tmp_path / "a.ctm")
    found = [(Path(str(r.values["audio_filepath"])).name, r.values["channel"], r.values["text"]) for r in rows]
    assert found == [("a.wav", 0, "one three"), ("a.wav", 1, "two"), ("b.wav", 0, "four"), ("gone.wav", 0, "five")]
    assert [row.values.get("confidence") for row in rows] == [0.75, 1.0, None, None]
    result = checked(rows)
    assert [item.channel for item in result.kept] == [0, 1, 0] and result.dropped[0].kind == "missing audio"


def test_words_are_cut_at_pauses_and_long_segments_at_their_longest_pause() -> None:
    def word(start: float, text: str) -> Cue:
        return Cue(":1", start, start + 0.9, text)

    words = [word(float(n), str(n)) for n in range(30)]  # pauses of 0.1 s
    assert [segment.text for segment in join_words(words)] == [
        " ".join(map(str, r)) for r in (range(15), range(15, 30))
    ]
    assert [(segment.start, segment.end) for segment in join_words(words)] == [(0.0, 14.95), (14.95, 29.9)]
    words[12] = Cue(":1", 12.2, 12.9, "12")  # now the longest pause
    first, second = join_words(words)
    assert first.text is not None and first.text.endswith(" 11") and (first.end, second.start) == (12.0, 12.1)
    apart = join_words([word(0.0, "a"), word(1.49, "b"), word(3.0, "c")])
    assert [segment.text for segment in apart] == ["a b", "c"]
    assert (apart[0].start, apart[0].end, apart[1].start, apart[1].end) == (0.0, 2.49, 2.9, 3.9)


def test_a_text_file_that_is_only_partly_subtitles_stays_a_fault(talk: Path) -> None:
    (talk / "talk.txt").write_text("a story\n" + SRT)
    (row,) = read(talk)
    assert row.fault is not None and row.fault.kind == "times in transcript"
    with pytest.raises(DataError, match="unknown format .txt"):
        read(talk / "talk.txt")


def test_the_notation_of_the_scorer_in_stm_is_not_text() -> None:
    line = "talk 1 Mary 0.0 9.5 <o> { UM / UH } (%HESITATION) a (very) nice { @ / { day / morning } } (applause) the(2)"
    annotation = parse_stm(line)
    assert annotation.cues[0].text == "UM %HESITATION a very nice day (applause) the(2)"
    assert sorted(annotation.notes.values()) == [2, 3]
    assert parse_stm("talk 1 Mary 0 9 {NOISE} yes and/or no").cues[0].text == "{NOISE} yes and/or no"


def test_the_two_sides_of_a_call_in_one_stm(tmp_path: Path) -> None:
    write_audio(tmp_path / "call.wav", channels=2)
    (tmp_path / "call.stm").write_text("call A agent 0.5 1.5 hello\ncall B customer 0.5 1.5 hi\n")
    result = checked(read(tmp_path / "call.stm"))
    assert [(item.channel, item.speaker) for item in result.kept] == [(0, "call-agent"), (1, "call-customer")]
    assert result.kept[0].audio_digest != result.kept[1].audio_digest


def test_the_side_of_a_call_in_a_file_of_one_channel_has_no_effect(
    talk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (talk / "talk.stm").write_text("talk B Mary 0.5 1.5 hello\n")
    with caplog.at_level(logging.INFO):
        result = checked(read(talk / "talk.stm"))
    assert [(item.text, item.channel) for item in result.kept] == [("hello", None)]
    assert "channels of files with one channel have no effect: 1" in caplog.text


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.srt", SRT), ("a.vtt", VTT), ("a.stm", STM), ("a.ctm", CTM), ("a.txt", LABELS), ("a.eaf", EAF)]
    + [("a.json", WHISPER), ("a.json", WHISPER_CPP)]
    + [("a.TextGrid", textgrid(MARY, BOB)), ("a.TextGrid", textgrid(MARY, BOB, short=True))],
)
def test_a_damaged_file_never_raises_another_error(name: str, content: str) -> None:
    """Characters are removed, doubled or replaced at random places."""
    parse = PARSERS[Path(name).suffix.lower()]
    rng = random.Random(name)
    num_damaged = 0
    for _ in range(150):
        text = list(content)
        for _ in range(rng.choice([1, 3, 30])):
            place = rng.randrange(len(text))
            text[place] = rng.choice(
                ["", text[place] * 2, rng.choice('\n\t"<>{}0-:9.x&;'), "\n\n", "99999999999999999999"]
            )
        try:
            parse("".join(text))
        except ValueError:
            num_damaged += 1
    assert num_damaged < 150


def test_channels_that_count_from_0(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", channels=2)
    (tmp_path / "a.ctm").write_text("a 0 1.0 0.5 left\na 1 1.0 0.5 right\n")
    assert [(row.values["text"], row.values["channel"]) for row in read(tmp_path / "a.ctm")] == [
        ("left", 0),
        ("right", 1),
    ]


def test_hours_and_entities_of_srt_and_vtt() -> None:
    (srt,) = parse_timed_text("1\n01:02:03,500 --> 01:02:04,000\nR&amp;D\n").cues
    (vtt,) = parse_timed_text("WEBVTT\n\n01:02:03.500 --> 01:02:04.000\nR&amp;D\n").cues
    assert (srt.start, srt.end, srt.text) == (3723.5, 3724.0, "R&amp;D")
    assert (vtt.start, vtt.end, vtt.text) == (3723.5, 3724.0, "R&D")


def test_a_tier_of_words_has_no_speaker(talk: Path) -> None:
    (talk / "talk.TextGrid").write_text(textgrid(("words", [(1.0, 1.5, "good"), (1.5, 2.0, "morning")])))
    assert segments(read(talk / "talk.TextGrid")) == [(0.9, 1.1, "good morning", "")]


def test_the_start_of_the_media_of_elan_is_added(talk: Path) -> None:
    media = '<MEDIA_DESCRIPTOR MEDIA_URL="file:///talk.wav" TIME_ORIGIN="500"/>'
    (talk / "talk.eaf").write_text(elan(tier("default", "a1", "t1", "t2", "good morning"), media=media))
    assert segments(read(talk / "talk.eaf")) == [(1.5, 1.5, "good morning", "")]


def test_of_two_audio_files_of_one_name_the_lossless_one_is_read(talk: Path) -> None:
    for suffix in (".mp4", ".flac", ".mp3"):
        write_audio(talk / f"talk{suffix}")
    (talk / "talk.srt").write_text(SRT)
    (talk / "talk.wav").unlink()
    assert {row.values["audio_filepath"] for row in read(talk / "talk.srt")} == {str(talk / "talk.flac")}


@pytest.mark.parametrize("start", [0.0, 1.5])
def test_audio_that_begins_after_its_video_is_a_warning(
    talk: Path, start: float, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("av")
    for audio in talk.glob("talk.*"):
        audio.unlink()
    write_video(talk / "talk.mkv", np.zeros(32 * 1024, np.float32), start)
    (talk / "talk.srt").write_text("1\n00:00:00,500 --> 00:00:01,500\none\n")
    assert [row.values["offset"] for row in read(talk / "talk.srt")] == [0.5]
    assert ("the audio of talk.mkv begins 1." in caplog.text) == bool(start)


def test_names_in_brackets_before_a_colon_are_speakers_as_in_whisperx() -> None:
    texts = ["[SPEAKER_00]: good morning", "[SPEAKER_01]: hi", "[SPEAKER_00]: yes", "[SPEAKER_01]: [noise]: no"]
    blocks = [f"{n}\n00:00:0{n},000 --> 00:00:0{n},900\n{text}\n" for n, text in enumerate(texts)]
    cues = parse_timed_text("\n".join(blocks)).cues
    assert [cue.text for cue in cues] == ["good morning", "hi", "yes", "[noise]: no"]
    assert [cue.speaker for cue in cues] == ["SPEAKER_00", "SPEAKER_01"] * 2


def test_names_before_a_colon_are_speakers_if_most_cues_have_one(talk: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As in transcripts of Zoom."""
    texts = ["Mary Ann: good morning", "Bob: hi", "Mary Ann: at 10:30 then", "and: not a name", "Bob: yes", "Carl: oh"]
    cues = [f"{n}\n00:00:0{n}.000 --> 00:00:0{n}.900\n{text}\n" for n, text in enumerate(texts)]
    (talk / "talk.vtt").write_text("WEBVTT\n\n" + "\n".join(cues))
    with caplog.at_level(logging.INFO):
        rows = read(talk / "talk.vtt")
    assert [row.values.get("speaker", "") for row in rows] == ["Mary Ann", "Bob", "Mary Ann", "", "Bob", "Carl"]
    assert [row.values["text"] for row in rows] == [
        "good morning",
        "hi",
        "at 10:30 then",
        "and: not a name",
        "yes",
        "oh",
    ]
    assert "names before a colon are the speaker, and not a part of the text: 5" in caplog.text
    (talk / "talk.vtt").write_text("WEBVTT\n\n" + "\n".join([*cues[:2], *(cues[3:4] * 5)]).replace("and:", "and"))
    assert {row.values.get("speaker", "") for row in read(talk / "talk.vtt")} == {""}


def test_a_line_with_a_space_does_not_join_two_cues_of_webvtt(talk: Path) -> None:
    text = "WEBVTT\n\n00:01.000 --> 00:02.000\none\n \nmore\n\n \n2\n00:02.000 --> 00:03.000\ntwo\n"
    (talk / "talk.vtt").write_text(text)
    assert [row.values["text"] for row in read(talk / "talk.vtt")] == ["one more", "two"]


@pytest.mark.parametrize("name", ["talk.json", "talk.wav.json", "talk.en.json"])
@pytest.mark.parametrize("content", [WHISPER, WHISPER_CPP])
def test_segments_of_whisper(talk: Path, name: str, content: str) -> None:
    (talk / name).write_text(content)
    for source in (talk / name, talk):
        rows = checked(read(source)).kept
        assert [(row.offset, row.duration, row.text) for row in rows] == [
            (1.0, 1.5, "Good morning all."),
            (3.0, 1.25, "How are you?"),
        ]
        assert {row.language for row in rows} == {"en"}
        assert [row.speaker for row in rows] == (["Mary", "Bob"] if content == WHISPER else ["", ""])


def test_segments_of_json_have_their_channels(talk: Path) -> None:
    segments = [
        {"start": 1.0, "end": 2.0, "text": "hi", "speaker_id": "Ann", "channel": 0},
        {"start": 1.5, "end": 3.0, "text": "yes", "speaker_id": "Bob", "channel": "right"},
        {"start": 3.0, "end": 4.0, "text": "so", "speaker_id": "Bob", "channel": "line 2"},
    ]
    (talk / "talk.json").write_text(json.dumps({"segments": segments}))
    write_audio(talk / "talk.wav", channels=2)
    result = checked(read(talk / "talk.json"))
    assert [(row.text, row.speaker, row.channel) for row in result.kept] == [("hi", "Ann", 0), ("yes", "Bob", 1)]
    assert [problem.kind for problem in result.dropped] == ["invalid channel"]
    write_audio(talk / "talk.wav")
    assert [row.channel for row in checked(read(talk)).kept] == [0, None, None]


@pytest.mark.parametrize(("first", "second"), [("ch0", "ch1"), ("en.left", "en.right")])
def test_a_transcript_of_a_channel_states_it_in_its_name(talk: Path, first: str, second: str) -> None:
    write_audio(talk / "talk.wav", channels=2)
    for name, words in ((first, "hi"), (second, "yes")):
        (talk / f"talk.{name}.vtt").write_text(f"WEBVTT\n\n00:01.000 --> 00:02.000\n{words}\n")
    (talk / "talk.vtt").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nhi yes\n")  # of both
    rows = checked(read(talk)).kept
    assert [(row.text, row.channel) for row in rows] == [("hi", 0), ("yes", 1)]
    assert [row.values["channel"] for row in read(talk / f"talk.{second}.vtt")] == [1]


def test_a_transcript_beside_a_recording_whose_name_begins_its_own_says_how_to_name_it(talk: Path) -> None:
    (talk / "talk_agent.vtt").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nhi\n")
    advice = "if it is the transcript of one channel of talk.wav, name it talk.ch0.vtt"
    assert advice in next(problem.detail for problem in checked(read(talk)).dropped if problem.kind == "missing audio")
    with pytest.raises(DataError, match=advice):
        read(talk / "talk_agent.vtt")


def test_a_translation_of_whisper_is_an_error(talk: Path) -> None:
    (talk / "talk.json").write_text(WHISPER_CPP.replace("false", "true"))
    with pytest.raises(DataError, match="a translation into English, not a transcript"):
        read(talk / "talk.json")


def test_a_text_file_is_preferred_to_segments_of_whisper(talk: Path, caplog: pytest.LogCaptureFixture) -> None:
    (talk / "talk.json").write_text(WHISPER)
    (talk / "talk.txt").write_text("good morning")
    with caplog.at_level(logging.INFO):
        assert [row.values["text"] for row in read(talk)] == ["good morning"]
    assert "segments of .json files are not read, because their audio has a text file: 1" in caplog.text


def test_other_json_is_no_annotation(talk: Path) -> None:
    segments = [{"start": 1.0, "end": 2.5, "text": "one"}]
    (talk / "talk.txt").write_text("good morning")
    for content in (
        json.dumps({"audio_filepath": "talk.wav", "text": "one", "segments": segments}),
        json.dumps({"segments": segments}) + "\n" + json.dumps({"segments": segments}),
        json.dumps({"segments": [1, 2]}, indent=2),
        "{",
        "[]",
    ):
        (talk / "talk.json").write_text(content)
        assert [row.values["text"] for row in read(talk)] == ["good morning"]
    (talk / "rows.json").write_text(json.dumps({"audio_filepath": "talk.wav", "text": "one", "segments": segments}))
    assert [row.values["text"] for row in read(talk / "rows.json")] == ["one"]


@pytest.mark.parametrize(("name", "content"), [("stm/talk.stm", STM), ("vtt/talk.en.vtt", VTT)])
def test_a_folder_of_annotations_whose_audio_is_beside_the_folder(tmp_path: Path, name: str, content: str) -> None:
    for folder in ("wav", "stm", "vtt"):
        (tmp_path / folder).mkdir()
    write_audio(tmp_path / "wav" / "talk.wav")
    (tmp_path / name).write_text(content)
    assert [row.values["offset"] for row in read((tmp_path / name).parent)] == [1.0, 3.0]


def test_a_text_file_beside_the_folder_of_audio_with_an_annotation_is_no_row(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The layout of L2-ARCTIC."""
    for folder in ("wav", "transcript", "textgrid"):
        (tmp_path / folder).mkdir()
    write_audio(tmp_path / "wav" / "talk.wav")
    (tmp_path / "transcript" / "talk.txt").write_text("good morning")
    (tmp_path / "textgrid" / "talk.TextGrid").write_text(textgrid(("text", [(1.0, 2.5, "good morning")])))
    with caplog.at_level(logging.INFO):
        assert [row.values["offset"] for row in read(tmp_path)] == [1.0]
    assert ".txt files are not read, because their audio has another transcript: 1" in caplog.text


def test_a_name_in_the_line_above_the_words_of_each_cue_is_the_speaker() -> None:
    """As in transcripts of Teams."""
    cues = [("Mary Ann", "hello there"), ("Bob", "good morning"), ("Mary Ann", "how are"), ("Bob", "fine")]
    text = "".join(f"0:0:{i}.5 --> 0:0:{i + 1}.2\n{name}\n{words}\n\n" for i, (name, words) in enumerate(cues))
    assert [(cue.speaker, cue.text) for cue in parse_timed_text(text).cues] == cues
    other = text.replace("Mary Ann\n", "hello\n", 1).replace("Bob\n", "well\n", 1)
    assert [cue.text for cue in parse_timed_text(other).cues][:2] == ["hello hello there", "well good morning"]
