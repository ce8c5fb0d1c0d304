"""Effects on clips depend on seed, epoch and clip only, and do not change the random numbers of each other."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from support import clip_table

from finetune.core.config import AugmentSection
from finetune.core.errors import DataError
from finetune.data.audio import SAMPLE_RATE, load_utterance
from finetune.data.effects.generated import GENERATED, rms
from finetune.data.manifest import Utterance
from finetune.training.augment import Applied, WaveAugment, change_level, change_speed, sample_rng
from finetune.training.clip_table import ClipTable
from finetune.training.effects import Effects, mix_voices
from finetune.training.plan import Groups
from finetune.training.sampler import Clips, waves_of

RANGES = WaveAugment(0.1, 6.0, 20.0)
EVERYTHING = {
    "noise_probability": 0.7,
    "telephone": 0.5,
    "codecs": ["mu-law", "gsm", "opus", "mp3"],
    "codec_probability": 0.5,
    "clipping": 0.5,
    "room_probability": 0.5,
}
SILENT = 12


@pytest.fixture
def settings(tmp_path: Path) -> AugmentSection:
    """All effects, with a recorded noise and a recorded room."""
    rng = np.random.default_rng(1)
    soundfile.write(tmp_path / "noise.wav", 0.1 * rng.normal(size=48_000), SAMPLE_RATE)
    soundfile.write(tmp_path / "room.wav", 0.5 * rng.normal(size=4000) * np.exp(-np.arange(4000) / 500), SAMPLE_RATE)
    noise, rooms = ["pink", "hum", "babble", str(tmp_path / "noise.wav")], [str(tmp_path / "room.wav")]
    return AugmentSection.model_validate({**EVERYTHING, "noise": noise, "rooms": rooms})


def table(clips: list[Utterance]) -> ClipTable:
    """The clips, one concatenated clip, and some without speech."""
    made = clip_table([clips[:2]], clips)
    return ClipTable(made.base, made.added, made.occurrences, np.linspace(0.3, 2.0, SILENT))


def clips_with(clips: list[Utterance], settings: AugmentSection | None, epoch: int = 0) -> Clips:
    return Clips(table(clips), RANGES, 1, epoch, Effects.of(settings, 1) if settings else None)


def explained(clips: Clips, index: int) -> tuple[np.ndarray, list[Applied]]:
    applied = list[Applied]()
    wave = clips.load_and_explain(index, load_utterance, applied)
    assert isinstance(wave, np.ndarray)
    return wave, applied


@pytest.mark.parametrize("workers", [0, 2])
def test_waveforms_are_the_same_for_any_workers_and_order(
    clips: list[Utterance], settings: AugmentSection, workers: int
) -> None:
    made = clips_with(clips, settings)
    batches = [[3, 20], [0, 10, 15], [1], [2]]  # the tenth is concatenated, those after it are without speech
    for waves, batch in zip(waves_of(made, batches, workers), batches, strict=True):
        for wave, index in zip(waves, batch, strict=True):
            again = clips_with(clips, settings)[index]
            assert isinstance(wave, np.ndarray) and wave.dtype == np.float32 and np.isfinite(wave).all()
            assert isinstance(again, np.ndarray) and np.array_equal(wave, again)


def test_epochs_differ_and_every_effect_occurs(clips: list[Utterance], settings: AugmentSection) -> None:
    seen = set[str]()
    for epoch in range(3):
        made, other = clips_with(clips, settings, epoch), clips_with(clips, settings, epoch + 1)
        for index in range(len(clips)):
            wave, applied = explained(made, index)
            assert not np.array_equal(wave, other[index])
            names = [item.effect for item in applied]
            order = ["speed", "room", "noise", "white noise", "gain", "clipping", "telephone", "codec"]
            assert names == sorted(names, key=order.index)
            seen.update(names)
    assert seen == {*order}


def test_each_effect_of_each_epoch_has_its_own_random_numbers() -> None:
    settings = AugmentSection(noise=["white"], clipping=0.5, telephone=0.5, codecs=["mu-law"], codec_probability=0.5)
    effects, wave = Effects.of(settings, 1), np.linspace(-1, 1, 400, dtype=np.float32)

    def applied_to(clip: str, epoch: int) -> dict[str, Applied]:
        found = list[Applied]()
        effects.add_scene(wave, clip, epoch, lambda count, rng: wave, found)
        effects.add_line(wave, clip, epoch, found)
        return {item.effect: item for item in found}

    names = ("noise", "clipping", "telephone", "codec")
    rows = [[[name in applied_to(f"clip-{clip}", epoch) for name in names] for epoch in (0, 1)] for clip in range(200)]
    flags = np.array(rows).reshape(200, -1)  # a column for each effect and epoch
    assert (np.abs(np.corrcoef(flags.T) - np.eye(8)) < 0.3).all(), "no column follows from another"
    assert applied_to("a", 0) == applied_to("a", 0)


def test_without_effects_clips_are_as_before(clips: list[Utterance]) -> None:
    """Also with the section of effects at its defaults."""
    for made in (clips_with(clips, None), clips_with(clips, AugmentSection())):
        for index, item in enumerate(clips):
            rng = sample_rng(1, 0, item.id)
            expected = change_level(change_speed(load_utterance(item), RANGES, rng, []), RANGES, rng, [])
            assert np.array_equal(made[index], expected)


def test_an_effect_does_not_change_the_random_numbers_of_another(
    clips: list[Utterance], settings: AugmentSection
) -> None:
    some = clips_with(clips, settings.model_copy(update={"rooms": [], "clipping": 0.0}))
    for index in range(len(clips)):
        before, after = ({item.effect: item for item in explained(made, index)[1]} for made in
                         (clips_with(clips, settings), some))  # fmt: skip
        before.pop("room", None)
        before.pop("clipping", None)
        assert before == after


@pytest.mark.parametrize("name", ["telephone", "clipping"])
def test_a_probability_of_1_means_every_clip_and_0_none(clips: list[Utterance], name: str) -> None:
    for probability, expected in ((1.0, True), (0.0, False)):
        made = clips_with(clips, AugmentSection.model_validate({name: probability}))
        assert all((name in {item.effect for item in explained(made, i)[1]}) == expected for i in range(len(clips)))


def test_the_noise_has_the_snr_that_is_stated(clips: list[Utterance]) -> None:
    settings = AugmentSection(noise=["white"], noise_probability=1, noise_snr=[3.0, 9.0])
    off, ratios = WaveAugment(0, 0, 0), []
    for index, item in enumerate(clips):
        wave, (noise,) = explained(Clips(table(clips), off, 1, 0, Effects.of(settings, 1)), index)
        plain = load_utterance(item)
        assert 20 * np.log10(rms(plain) / rms(wave - plain)) == pytest.approx(noise.details["snr_db"], abs=0.06)
        ratios.append(float(noise.details["snr_db"]))
    assert 3 <= min(ratios) < max(ratios) <= 9


def test_each_entry_is_chosen_equally_often() -> None:
    effects = Effects.of(AugmentSection(noise=["white", "pink", "hum"], noise_probability=1), 1)
    counts, wave = {"white": 0, "pink": 0, "hum": 0}, np.ones(300, np.float32)
    for number in range(300):
        applied = list[Applied]()
        effects.add_scene(wave, f"clip-{number}", 0, lambda count, rng: wave, applied)
        counts[str(applied[0].details["source"])] += 1
    assert min(counts.values()) > 70


# Babble


def test_babble_is_other_speech(clips: list[Utterance]) -> None:
    base = table(clips).base
    wave = mix_voices(base, [clips[0].id], 20_000, np.random.default_rng(1))
    assert wave.shape == (20_000,) and wave.dtype == np.float32 and rms(wave) == pytest.approx(1, rel=1e-4)
    one = [clip_table([], clips[:1]).base, [clips[0].id], 1000]
    assert not mix_voices(one[0], one[1], one[2], np.random.default_rng(1)).any(), "the clip itself is never its babble"


def test_babble_does_without_a_clip_that_cannot_be_read(clips: list[Utterance]) -> None:
    lost = [Utterance("lost", "/nowhere.wav", 1.0, "x"), clips[1]]
    waves = [mix_voices(clip_table([], lost).base, [], 4000, np.random.default_rng(seed)) for seed in range(5)]
    assert any(wave.any() for wave in waves)


# Clips without speech


def test_clips_without_speech_are_silence_noise_music_and_recordings(
    clips: list[Utterance], settings: AugmentSection
) -> None:
    made, sources, levels = clips_with(clips, settings), set[str](), []
    for epoch in range(8):
        made.epoch = epoch
        for place in range(SILENT):
            wave, applied = explained(made, len(made) - SILENT + place)
            assert wave.dtype == np.float32 and len(wave) == round(made.clips.no_speech[place] * SAMPLE_RATE)
            details = applied[0].details
            sources.add(str(details["source"]))
            if details["source"] == "silence":
                assert not wave.any() or {"codec"} & {item.effect for item in applied}
            elif len(applied) == 1:
                assert 20 * np.log10(rms(wave)) == pytest.approx(details["level_db"], abs=0.1)
                levels.append(float(details["level_db"]))
            assert not {item.effect for item in applied} & {"noise", "speed", "room"}
    assert sources == {"silence", *GENERATED, settings.noise[-1]} and "babble" not in sources
    assert -60 <= min(levels) < max(levels) <= -15


def test_a_recording_that_disappears_ends_the_training_with_its_name(
    clips: list[Utterance], settings: AugmentSection
) -> None:
    path = Path(settings.noise[-1])
    made = clips_with(clips, settings.model_copy(update={"noise": [str(path)], "noise_probability": 1.0}))
    path.unlink()
    for workers in (0, 1):
        with pytest.raises(DataError, match=r"augment.noise: .*noise\.wav.* restore it and rerun to resume$") as error:
            list(waves_of(made, [[0]], workers))
        assert "Traceback" not in str(error.value)


def test_groups_of_no_clip_are_not_needed(clips: list[Utterance]) -> None:
    """A table without added clips can have clips without speech."""
    base = clip_table([], clips).base
    made = ClipTable(base, Groups.of([]), np.zeros(0, np.int32), np.array([1.5]))
    assert len(made) == len(clips) + 1 and made.sources(len(clips)) == ()
    assert made[-1] == Utterance("no-speech-1", "", 1.5, "") and made.durations[-1] == 1.5
