"""The sample data of the repository: the manifests match the audio, and no sentence is in two splits."""

import csv
import re
import shutil
import subprocess
import sys
import tarfile
import wave
from collections import Counter
from io import BytesIO
from pathlib import Path

import pytest
import soundfile

from finetune.core.files import read_jsonl
from finetune.data.corpora import read_corpus
from finetune.exporting.data_facts import split_facts
from finetune.model.ctc import to_labels

ROOT = Path(__file__).resolve().parents[2]
VOCABULARY = ROOT / "data" / "vocabulary"
IVR = ROOT / "data" / "ivr-en"
NAMES = ("train", "valid", "test", "canary", "replay")
MANIFESTS = {name: read_jsonl(VOCABULARY / f"{name}.jsonl") for name in NAMES}
ROWS = [row for name in NAMES for row in MANIFESTS[name]]
TERMS = set((VOCABULARY / "terms.txt").read_text().split())
MEMBER = "./usr/share/asterisk/sounds/en_US_f_Allison/{}.wav"


def terms_of(name: str) -> Counter[str]:
    """Number of sentences (not utterances) of a split for each term."""
    texts = {row["text"] for row in MANIFESTS[name]}
    return Counter(word for text in texts for word in set(text.split()) & TERMS)


def transcripts() -> list[dict[str, str]]:
    with (IVR / "transcripts.tsv").open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def test_the_splits_have_the_documented_sizes() -> None:
    clips = {name: len(rows) for name, rows in MANIFESTS.items()}
    sentences = {name: len({row["text"] for row in rows}) for name, rows in MANIFESTS.items()}
    assert clips == {"train": 990, "valid": 50, "test": 132, "canary": 80, "replay": 261}
    assert sentences == {"train": 440, "valid": 50, "test": 110, "canary": 80, "replay": 261}
    assert len({row["id"] for row in ROWS}) == len(ROWS)


def test_audio_is_16_khz_mono_with_the_duration_of_its_row() -> None:
    files = {row["audio_filepath"] for row in ROWS}
    assert files == {path.relative_to(VOCABULARY).as_posix() for path in (VOCABULARY / "audio").rglob("*.*")}
    for row in ROWS:
        info = soundfile.info(VOCABULARY / row["audio_filepath"])
        assert (info.samplerate, info.channels) == (16_000, 1), row["id"]
        assert info.duration == pytest.approx(row["duration"], abs=1e-6), row["id"]
        assert 1.0 < row["duration"] < 6.5, row["id"]


def test_the_level_of_each_voice_is_in_range() -> None:
    for row in {row["speaker"]: row for row in ROWS}.values():
        wave_, _ = soundfile.read(VOCABULARY / row["audio_filepath"])
        assert 0.03 < float((wave_**2).mean() ** 0.5) < 0.1, row["id"]
        assert float(abs(wave_).max()) <= 1.0, row["id"]


def test_every_row_says_that_its_voice_is_synthetic() -> None:
    assert all(row["synthetic"] is True for row in ROWS)
    assert split_facts(VOCABULARY / "train.jsonl").synthetic == 990


def test_text_is_three_to_fifteen_lower_case_words() -> None:
    for row in ROWS:
        assert re.fullmatch(r"[a-z']+( [a-z']+){2,14}", row["text"]), row["id"]
        assert row["language"] == "en"


def test_manifests_match_sentences_tsv() -> None:
    lines = (VOCABULARY / "sentences.tsv").read_text().splitlines()[1:]
    listed = {(split, text) for _, split, text in (line.split("\t") for line in lines)}
    assert listed == {(name, row["text"]) for name in NAMES for row in MANIFESTS[name]}
    assert len(listed) == len(lines) == 941


def test_no_sentence_is_in_two_splits() -> None:
    splits = Counter(text for name in NAMES for text in {row["text"] for row in MANIFESTS[name]})
    assert max(splits.values()) == 1


def test_terms_of_a_row_are_the_listed_terms_of_its_text() -> None:
    for row in ROWS:
        assert row["terms"] == [word for word in row["text"].split() if word in TERMS], row["id"]
    assert all(row["terms"] for name in ("train", "valid", "test") for row in MANIFESTS[name])
    assert not any(row["terms"] for name in ("canary", "replay") for row in MANIFESTS[name])


def test_rows_have_terms_for_scoring_and_no_keywords(tmp_path: Path) -> None:
    rows = read_corpus(str(VOCABULARY / "test.jsonl"), tmp_path)
    assert len(rows) == len(MANIFESTS["test"])
    assert not any("keywords" in row.values for row in rows) and all(row.values["terms"] for row in rows)


def test_each_term_is_in_test_and_is_trained_often_or_never() -> None:
    train, test = terms_of("train"), terms_of("test")
    unseen = TERMS - set(train)
    assert set(test) == TERMS
    assert min(train.values()) >= 6
    assert len(unseen) == 15
    assert not unseen & set(terms_of("valid"))


def test_one_voice_is_only_in_test_and_the_others_are_in_all_splits() -> None:
    voices = {name: {row["speaker"] for row in MANIFESTS[name]} for name in NAMES}
    assert voices["test"] - voices["train"] == {"en-029-f4"}
    assert voices["train"] == voices["valid"] == voices["canary"] == voices["replay"] == voices["test"] - {"en-029-f4"}
    pairs = {(row["text"], row["speaker"]) for row in ROWS}
    assert len(pairs) == len(ROWS)


def test_the_folder_stays_small() -> None:
    assert sum(path.stat().st_size for path in VOCABULARY.rglob("*") if path.is_file()) < 8_000_000


@pytest.mark.parametrize("language", ["es", "fr", "pt", "de"])
def test_canaries_are_short_clips_of_other_voices(language: str) -> None:
    folder = ROOT / "data" / "canaries"
    rows = read_jsonl(folder / f"{language}.jsonl")
    assert len(rows) == len({row["text"] for row in rows}) == 40 and len({row["speaker"] for row in rows}) >= 6
    for row in rows:
        info = soundfile.info(folder / row["audio_filepath"])
        assert (info.samplerate, info.channels) == (16_000, 1) and info.frames == row["duration"] * 16_000 <= 96_000
        assert row["language"] == language and row["text"] == row["text"].lower()
        assert to_labels(row["text"])[1] == 0, row["text"]  # all letters have a CTC label


def test_ivr_transcripts_match_their_readme() -> None:
    rows = transcripts()
    assert Counter(row["split"] for row in rows) == {"train": 459, "dev": 33, "test": 61}
    splits = Counter(text for _, text in {(row["split"], row["text"]) for row in rows})
    assert max(splits.values()) == 1
    assert min(len(row["text"].split()) for row in rows if row["split"] != "train") >= 3
    train = {word for row in rows if row["split"] == "train" for word in row["text"].split()}
    words = [word for row in rows if row["split"] == "test" for word in row["text"].split()]
    assert len(words) == 735
    assert sum(word not in train for word in words) / len(words) == pytest.approx(0.097, abs=5e-4)


# -- scripts/fetch_ivr, in a copy of its folders ------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "data" / "ivr-en").mkdir(parents=True)
    for script in ("fetch_ivr", "fetch_prompts", "debian_package.py"):
        shutil.copy(ROOT / "scripts" / script, tmp_path / "scripts")
    shutil.copy(IVR / "transcripts.tsv", tmp_path / "data" / "ivr-en")
    return tmp_path


def fetch(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the script in another working directory and without apt-get."""
    command = [sys.executable, str(tree / "scripts" / "fetch_ivr"), *arguments]
    return subprocess.run(command, cwd="/", env={"PATH": ""}, capture_output=True, text=True, check=False)


def package(path: Path, rows: list[dict[str, str]]) -> str:
    """Writes a .deb (an ar archive) with silence of the stated length for each row; ids become paths with slashes."""
    data = BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as tar:
        for row in rows:
            sound = BytesIO()
            with wave.open(sound, "wb") as out:
                out.setnchannels(1)
                out.setsampwidth(2)
                out.setframerate(8000)
                out.writeframes(bytes(2 * round(float(row["seconds"]) * 8000)))
            member = tarfile.TarInfo(MEMBER.format(row["id"].replace("_", "/", 1)))
            member.size = len(sound.getvalue())
            sound.seek(0)
            tar.addfile(member, sound)
    parts = [(b"debian-binary", b"2.0\n"), (b"control.tar.xz", b"odd"), (b"data.tar.xz", data.getvalue())]
    archive = b"!<arch>\n"
    for name, content in parts:
        archive += name.ljust(48) + str(len(content)).encode().ljust(10) + b"`\n" + content + b"\n" * (len(content) % 2)
    path.write_bytes(archive)
    return str(path)


def test_fetch_ivr_unpacks_once_and_writes_manifests(tree: Path) -> None:
    deb = package(tree / "sounds.deb", transcripts())
    first = fetch(tree, deb)
    assert first.returncode == 0, first.stderr
    rows = read_jsonl(tree / "data" / "ivr-en" / "valid.jsonl")
    assert len(rows) == 33
    assert rows[0].keys() == MANIFESTS["train"][0].keys() - {"synthetic", "terms"}
    for row in rows:
        info = soundfile.info(tree / "data" / "ivr-en" / row["audio_filepath"])
        assert info.duration == pytest.approx(row["duration"], abs=1e-6)
    again = fetch(tree)
    assert again.returncode == 0
    assert "already" in again.stdout


def test_fetch_ivr_lists_missing_clips(tree: Path) -> None:
    rows = transcripts()
    done = fetch(tree, package(tree / "sounds.deb", rows[2:]))
    assert done.returncode == 1
    assert "2 of 553 clips are missing" in done.stderr
    assert rows[0]["id"] in done.stderr
    assert not (tree / "data" / "ivr-en" / "train.jsonl").exists()


def test_fetch_ivr_without_apt_or_with_a_bad_file_explains_what_to_do(tree: Path) -> None:
    (tree / "page.deb").write_text("<html>")
    package(tree / "cut.deb", transcripts())
    (tree / "cut.deb").write_bytes((tree / "cut.deb").read_bytes()[:2000])
    for arguments in ([], [str(tree / "none.deb")], [str(tree / "page.deb")], [str(tree / "cut.deb")]):
        done = fetch(tree, *arguments)
        assert done.returncode == 1
        assert "packages.debian.org" in done.stderr
        assert "scripts/fetch_ivr PATH.deb" in done.stderr
        assert "Traceback" not in done.stderr
