"""Every shape in docs/corpora.md as a tiny corpus: `finetune check` and `finetune prepare` give the right clips."""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command import CommandResult
from shapes import assert_clip, noise, run_check_and_prepare, write_audio, write_tar

from finetune.cli.main import main
from finetune.data.manifest import Utterance

ROOT = Path(__file__).resolve().parents[2]
# The source, and for each clip its text, its audio, and its start and end if it is a segment.
Shape = tuple[object, list[tuple[str, Path, float, float | None]]]
SHAPES: dict[str, Callable[[Path], Shape]] = {}
TALK = [(0.5, 1.75, "good morning"), (2.0, 3.25, "how are you")]
TEXTGRID = '"ooTextFile"\n"TextGrid"\n0\n4\n<exists>\n1\n"IntervalTier"\n"text"\n0\n4\n3\n0\n0.5\n""\n'
TEXTGRID += "".join(f'{start}\n{end}\n"{text}"\n' for start, end, text in TALK)


def shape(name: str) -> Callable[[Callable[[Path], Shape]], Callable[[Path], Shape]]:
    """Registers a corpus of a shape by the name in docs/corpora.md."""

    def register(make: Callable[[Path], Shape]) -> Callable[[Path], Shape]:
        SHAPES[name] = make
        return make

    return register


def clips(folder: Path, *names: str) -> list[tuple[str, Path, float, float | None]]:
    """Audio files, each a clip whose text is `clip` and a number."""
    return [(f"clip {n}", write_audio(folder / name, n), 0.0, None) for n, name in enumerate(names)]


def talk(folder: Path, name: str, content: str, audio: str = "talk.wav") -> Shape:
    """A transcript with the two segments of TALK beside a recording."""
    path = write_audio(folder / audio, 50, 4.0)
    (folder / name).write_text(content)
    return folder / name, [(text, path, start, end) for start, end, text in TALK]


@shape("manifest")
def manifest(folder: Path) -> Shape:
    expected = clips(folder, "a.wav", "b.wav")
    (folder / "m.jsonl").write_text(
        "".join(f'{{"audio_filepath": "{path.name}", "text": "{text}"}}\n' for text, path, *_ in expected)
    )
    return folder / "m.jsonl", expected


@shape("table with a header")
def table_with_a_header(folder: Path) -> Shape:
    expected = clips(folder, "a.wav", "b.wav")
    (folder / "m.csv").write_text("path;sentence\na.wav;clip 0\nb.wav;clip 1\n")
    return folder / "m.csv", expected


@shape("table without a header")
def table_without_a_header(folder: Path) -> Shape:
    expected = clips(folder / "wavs", "LJ-1.wav", "LJ-2.wav")
    (folder / "metadata.csv").write_text("LJ-1|Clip 0.|clip 0\nLJ-2|Clip 1.|clip 1\n")
    return folder, expected


@shape("Common Voice")
def common_voice(folder: Path) -> Shape:
    expected = clips(folder / "clips", "a.wav", "b.wav")
    rows = "".join(f"c{n}\t{path.name}\t{text}\ten\n" for n, (text, path, *_) in enumerate(expected))
    for split in ("train", "test"):
        (folder / f"{split}.tsv").write_text(f"client_id\tpath\tsentence\tlocale\n{rows}")
    return folder / "train.tsv", expected


@shape("table with ids of audio")
def voxpopuli(folder: Path) -> Shape:
    expected = clips(folder, "2009/x_1.wav", "2010/x_2.wav")
    (folder / "asr_train.tsv").write_text("id\tnormalized_text\tspeaker_id\nx_1\tclip 0\t1\nx_2\tclip 1\t2\n")
    return folder / "asr_train.tsv", expected


@shape("audio and text files")
def audio_and_text(folder: Path) -> Shape:
    expected = clips(folder, "a.wav", "deep/er/b.flac")
    for text, path, *_ in expected:
        path.with_suffix(".txt").write_text(text)
    return folder, expected


@shape("audio and subtitles or annotations")
def videos_with_subtitles(folder: Path) -> Shape:
    """A video with an SRT file and a recording with a TextGrid."""
    av = pytest.importorskip("av")
    folder.mkdir(parents=True, exist_ok=True)
    with av.open(str(folder / "a.mp4"), "w") as container:
        pictures, sound = container.add_stream("mpeg4", rate=5), container.add_stream("aac", rate=16_000)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 64, "yuv420p"
        sound.layout = "mono"
        for _ in range(20):
            container.mux(pictures.encode(av.VideoFrame(64, 64, "yuv420p")))
        wave = noise(60, 4.0)
        for start in range(0, len(wave) - 1023, 1024):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave[None, start : start + 1024]), "fltp", "mono")
            frame.sample_rate, frame.pts = 16_000, start
            container.mux(sound.encode(frame))
        container.mux(sound.encode())
        container.mux(pictures.encode())
    srt = "1\n00:00:00,500 --> 00:00:01,500\nfrom the video\n"
    (folder / "a.srt").write_text(srt)
    _, expected = talk(folder, "talk.TextGrid", TEXTGRID)
    return folder, [*expected, ("from the video", folder / "a.mp4", 0.5, 1.5)]


@shape("audio folder")
def audio_folder(folder: Path) -> Shape:
    expected = clips(folder / "x", "a.wav", "b.wav")
    (folder / "metadata.csv").write_text("file_name,transcription\nx/a.wav,clip 0\nx/b.wav,clip 1\n")
    return folder, expected


@shape("folders of speakers or classes")
def folders_of_speakers(folder: Path) -> Shape:
    expected = clips(folder, "anna/a.wav", "bert/a.wav")
    for number, name in enumerate(("anna", "bert")):
        (folder / name / "metadata.csv").write_text(f"file_name,text\na.wav,clip {number}\n")
    return folder, expected


@shape("SubRip")
def subrip(folder: Path) -> Shape:
    cues = "1\n00:00:00,500 --> 00:00:01,750\n<i>good</i> morning\n\n2\n00:00:02,000 --> 00:00:03,250\nhow are\nyou\n"
    return talk(folder, "talk.srt", cues)


@shape("WebVTT")
def webvtt(folder: Path) -> Shape:
    cues = "00:00.500 --> 00:01.750\n<v Mary>good morning\n\n00:02.000 --> 00:03.250 line:0\nhow are you\n"
    return talk(folder, "talk.vtt", f"WEBVTT\n\n{cues}", "talk.flac")


@shape("labels of Audacity")
def audacity(folder: Path) -> Shape:
    return talk(folder, "talk.txt", "".join(f"{start:f}\t{end:f}\t{text}\n" for start, end, text in TALK))


@shape("TextGrid of Praat")
def praat(folder: Path) -> Shape:
    return talk(folder, "talk.TextGrid", TEXTGRID)


@shape("ELAN")
def elan(folder: Path) -> Shape:
    times = [time for start, end, _ in TALK for time in (start, end)]
    slots = "".join(f'<TIME_SLOT TIME_SLOT_ID="t{n}" TIME_VALUE="{1000 * time:.0f}"/>' for n, time in enumerate(times))
    values = ""
    for n, (*_, text) in enumerate(TALK):
        attributes = f'ANNOTATION_ID="a{n}" TIME_SLOT_REF1="t{2 * n}" TIME_SLOT_REF2="t{2 * n + 1}"'
        value = f"<ANNOTATION_VALUE>{text}</ANNOTATION_VALUE>"
        values += f"<ANNOTATION><ALIGNABLE_ANNOTATION {attributes}>{value}</ALIGNABLE_ANNOTATION></ANNOTATION>"
    tier = f'<TIER TIER_ID="default" PARTICIPANT="Mary">{values}</TIER>'
    content = f"<ANNOTATION_DOCUMENT><TIME_ORDER>{slots}</TIME_ORDER>{tier}</ANNOTATION_DOCUMENT>"
    return talk(folder, "talk.eaf", content)


@shape("STM")
def ted_lium(folder: Path) -> Shape:
    (folder / "stm").mkdir(parents=True)
    lines = "".join(f"talk 1 Mary {start} {end} <o,f0,female> {text}\n" for start, end, text in TALK)
    _, expected = talk(folder, "stm/talk.stm", lines, "sph/talk.wav")
    return folder, expected


@shape("JSON of Whisper")
def whisper(folder: Path) -> Shape:
    parts = [
        {"id": number, "start": start, "end": end, "text": f" {text}"} for number, (start, end, text) in enumerate(TALK)
    ]
    return talk(folder, "talk.json", json.dumps({"text": "", "segments": parts, "language": "en"}))


@shape("CTM")
def ctm(folder: Path) -> Shape:
    words = ["0.60 0.40 good", "1.05 0.60 morning", "2.35 0.05 how", "2.40 0.40 are", "2.85 0.40 you"]
    source, expected = talk(folder, "all.ctm", "".join(f"talk A {word}\n" for word in words))
    return source, [(*expected[0][:2], 0.5, 1.75), (*expected[1][:2], 2.25, 3.25)]


def parquet_file(path: Path, expected: list[tuple[str, Path, float, float | None]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"audio": {"bytes": audio.read_bytes(), "path": audio.name}, "text": text} for text, audio, *_ in expected]
    pq.write_table(pa.Table.from_pylist(rows), path)


@shape("Parquet")
def parquet(folder: Path) -> Shape:
    expected = clips(folder, "a.wav", "b.wav")
    parquet_file(folder / "m.parquet", expected)
    return folder / "m.parquet", expected


@shape("folder of Parquet files")
def parquet_folder(folder: Path) -> Shape:
    expected = clips(folder / "wavs", "a.wav", "b.wav")
    for number in range(2):
        parquet_file(folder / "corpus" / "data" / f"train-0000{number}-of-00002.parquet", expected[number : number + 1])
    return folder / "corpus", expected


@shape("Hugging Face data set")
def hub(folder: Path) -> Shape:
    expected = clips(folder / "data", "a.wav", "b.wav")
    (folder / "data" / "metadata.csv").write_text("file_name,text\na.wav,clip 0\nb.wav,clip 1\n")
    return f"hf:{folder}/data:train", expected


@shape("saved data set")
def saved(folder: Path) -> Shape:
    datasets = pytest.importorskip("datasets")
    expected = clips(folder, "a.wav", "b.wav")
    rows = [{"audio": {"bytes": path.read_bytes(), "path": path.name}, "text": text} for text, path, *_ in expected]
    datasets.Dataset.from_list(rows).save_to_disk(str(folder / "saved"))
    return folder / "saved", expected


@shape("Kaldi directory")
def kaldi(folder: Path) -> Shape:
    _, expected = talk(folder, "wav.scp", "talk talk.wav\n")
    (folder / "text").write_text("".join(f"talk-{n} {text}\n" for n, (*_, text) in enumerate(TALK)))
    (folder / "segments").write_text(
        "".join(f"talk-{n} talk {start} {end}\n" for n, (start, end, _) in enumerate(TALK))
    )
    return folder, expected


@shape("LibriSpeech")
def librispeech(folder: Path) -> Shape:
    expected = clips(folder / "84" / "121", "84-121-0000.flac", "84-121-0001.flac")
    (folder / "84" / "121" / "84-121.trans.txt").write_text("84-121-0000 clip 0\n84-121-0001 clip 1\n")
    return folder, expected


@shape("Multilingual LibriSpeech")
def mls(folder: Path) -> Shape:
    expected = clips(folder / "audio" / "10" / "200", "10_200_000000.flac", "10_200_000001.flac")
    (folder / "transcripts.txt").write_text("10_200_000000\tclip 0\n10_200_000001\tclip 1\n")
    return folder, expected


def lines(*rows: dict[str, object]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def lhotse_recording(kind: str = "file") -> dict[str, object]:
    sources = [{"type": kind, "channels": [0], "source": "talk.wav" if kind == "file" else ""}]
    facts = {"sampling_rate": 16_000, "num_samples": 64_000, "duration": 4.0, "channel_ids": [0]}
    return {"id": "talk", "sources": sources, **facts}


def lhotse_supervisions(prefix: str) -> list[dict[str, object]]:
    return [
        {
            "id": f"{prefix}-{n}",
            "recording_id": "talk",
            "start": start,
            "duration": end - start,
            "channel": 0,
            "text": text,
        }
        for n, (start, end, text) in enumerate(TALK)
    ]


def lhotse_cut(kind: str) -> dict[str, object]:
    parts = {"supervisions": lhotse_supervisions(kind), "recording": lhotse_recording(kind)}
    return {"id": "talk", "start": 0, "duration": 4.0, "channel": 0, "type": "MonoCut", **parts}


@shape("Lhotse cuts")
def lhotse_cuts(folder: Path) -> Shape:
    source, expected = talk(folder, "cuts_train.jsonl.gz", "")
    (folder / "cuts_train.jsonl.gz").write_bytes(gzip.compress(lines(lhotse_cut("file"))))
    return source, expected


@shape("Lhotse recordings and supervisions")
def lhotse_supervised(folder: Path) -> Shape:
    source, expected = talk(folder, "x_supervisions_train.jsonl", lines(*lhotse_supervisions("pair")).decode())
    (folder / "x_recordings_train.jsonl").write_bytes(lines(lhotse_recording()))
    return source, expected


@shape("Lhotse Shar")
def lhotse_shar(folder: Path) -> Shape:
    _, expected = talk(folder, "notes.md", "")
    (folder / "shar").mkdir()
    (folder / "shar" / "cuts.000000.jsonl.gz").write_bytes(gzip.compress(lines(lhotse_cut("shar"))))
    members = {"talk.wav": folder / "talk.wav", "talk.json": lines(lhotse_recording("shar"))}
    write_tar(folder / "shar" / "recording.000000.tar", members)
    return folder / "shar", expected


@shape("NeMo manifest, tarred")
def nemo_tarred(folder: Path) -> Shape:
    expected = clips(folder, "a.wav", "b.wav")
    write_tar(folder / "audio_0.tar", {path.name: path for _, path, *_ in expected})
    rows = [{"audio_filepath": path.name, "duration": 1.5, "text": text, "shard_id": 0} for text, path, *_ in expected]
    for _, path, *_ in expected:
        path.rename(path.parent.parent / f"nemo-{path.name}")
    (folder / "tarred_audio_manifest.json").write_bytes(lines(*rows))
    return folder / "tarred_audio_manifest.json", [
        (text, path.parent.parent / f"nemo-{path.name}", start, end) for text, path, start, end in expected
    ]


@shape("WebDataset")
def web_dataset(folder: Path) -> Shape:
    expected = clips(folder, "a.flac", "b.flac")
    for number, (text, path, *_) in enumerate(expected):
        write_tar(folder / "tars" / f"train-{number}.tar", {"0.flac": path, "0.txt": text.encode()})
    return folder / "tars", expected


IN_ARCHIVES = ("Lhotse Shar", "NeMo manifest, tarred", "WebDataset")  # read in place by the name of a member
EMBEDDED = ("Parquet", "folder of Parquet files", "saved data set")  # their audio becomes files


@pytest.fixture(scope="module")
def corpora(
    tmp_path_factory: pytest.TempPathFactory, nano: Path
) -> tuple[dict[str, Shape], dict[str, list[Utterance]]]:
    """All corpora, and the clips that one run of check and prepare over all of them makes of each."""
    folder = tmp_path_factory.mktemp("shapes")
    shapes = {name: make(folder / f"corpus {number}") for number, (name, make) in enumerate(SHAPES.items())}
    sources = [str(source) for source, _ in shapes.values()]
    result = run_check_and_prepare(run_command, folder, sources, nano)
    assert result.check.code == 0 and not result.dropped, result.dropped
    prepared = {
        source: [clip for clip in result.clips.values() if clip.extra["corpus"] == source] for source in sources
    }
    return shapes, {name: prepared[str(source)] for name, (source, _) in shapes.items()}


def run_command(*args: object) -> CommandResult:
    return CommandResult(main([str(arg) for arg in args]), "", "")


@pytest.mark.parametrize("name", SHAPES)
def test_check_and_prepare_give_the_right_clips(
    corpora: tuple[dict[str, Shape], dict[str, list[Utterance]]], name: str
) -> None:
    (_, expected), found = corpora[0][name], corpora[1][name]
    assert len(found) == len(expected)
    for clip, (text, path, start, end) in zip(found, expected, strict=True):
        assert_clip(clip, path, text, start, end)
        assert (clip.audio_filepath == str(path)) == (name not in (*EMBEDDED, *IN_ARCHIVES))


def test_every_shape_of_the_documentation_has_a_corpus_here() -> None:
    text = (ROOT / "docs" / "corpora.md").read_text(encoding="utf-8").split("## Convert to another format")[0]
    documented = [name for name in re.findall(r"^\| ([^|]+?) \| [^-]", text, re.M) if name != "shape"]
    assert documented == list(SHAPES)
