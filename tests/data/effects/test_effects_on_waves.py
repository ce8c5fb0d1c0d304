"""Generated sounds, noise at an SNR, the telephone band, clipping, rooms and codecs, on waveforms."""

import numpy as np
import pytest

from finetune.core.errors import DataError
from finetune.data.audio import SAMPLE_RATE
from finetune.data.effects.codecs import CODECS, apply_codec, check_codecs
from finetune.data.effects.distortion import add_noise, clip_peaks, telephone_band
from finetune.data.effects.generated import GENERATED, Wave, fast_length, generate, rms
from finetune.data.effects.rooms import reverberate, simulated_response


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def tone(hertz: float, seconds: float = 1.0, level: float = 0.3) -> Wave:
    return (level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE)).astype(
        np.float32
    )


def share_below(wave: Wave, hertz: float) -> float:
    """The fraction of the energy below a frequency."""
    power = np.abs(np.fft.rfft(wave)) ** 2
    return float(power[np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE) < hertz].sum() / power.sum())


@pytest.mark.parametrize("kind", GENERATED)
@pytest.mark.parametrize("count", [257, 4001, 48_000])
def test_generated_sounds_have_rms_1_and_depend_on_the_seed_only(kind: str, count: int) -> None:
    wave = generate(kind, count, rng())
    assert wave.shape == (count,) and wave.dtype == np.float32 and np.isfinite(wave).all()
    assert rms(wave) == pytest.approx(1, rel=1e-4)
    assert np.array_equal(wave, generate(kind, count, rng())) and not np.array_equal(
        wave, generate(kind, count, rng(2))
    )


def test_the_colours_differ_in_their_low_frequencies() -> None:
    white, pink, brown = (share_below(generate(kind, 48_000, rng()), 1000) for kind in ("white", "pink", "brown"))
    assert white == pytest.approx(1 / 8, abs=0.02) and 0.4 < pink < 0.8 and brown > 0.9
    assert share_below(generate("hum", 48_000, rng()), 800) > 0.9


@pytest.mark.parametrize("snr", [-5.0, 0.0, 20.0])
def test_noise_is_added_at_its_snr(snr: float) -> None:
    wave, noise = tone(440), generate("pink", SAMPLE_RATE, rng())
    added = add_noise(wave, 7 * noise, snr)
    assert added.dtype == np.float32
    assert 20 * np.log10(rms(wave) / rms(added - wave)) == pytest.approx(snr, abs=0.01)


def test_silence_on_either_side_adds_no_noise() -> None:
    silence, wave = np.zeros(1000, np.float32), tone(440)[:1000]
    assert np.array_equal(add_noise(wave, silence, 0), wave) and np.array_equal(add_noise(silence, wave, 0), silence)


@pytest.mark.parametrize(("hertz", "kept"), [(100, 0), (300, 1), (1000, 1), (3400, 1), (5000, 0)])
def test_the_telephone_band_is_300_to_3400_hertz(hertz: float, kept: float) -> None:
    wave = tone(hertz)
    assert rms(telephone_band(wave)[1000:-1000]) / rms(wave) == pytest.approx(kept, abs=0.02)


def test_clipping_cuts_what_exceeds_the_limit_only() -> None:
    wave = tone(440, level=0.8)
    clipped, limit = clip_peaks(wave, 6.0), 0.8 * 10 ** (-6 / 20)
    assert np.abs(clipped).max() == pytest.approx(limit, rel=1e-3)
    inside = np.abs(wave) < limit - 1e-3
    assert np.array_equal(clipped[inside], wave[inside]) and 0.1 < inside.mean() < 0.9


def test_a_room_keeps_time_length_and_level_and_adds_a_tail() -> None:
    response = np.zeros(3000, np.float32)
    response[500], response[2500] = -1.0, 0.5  # 500 samples of travel, an echo after 2000
    wave = np.zeros(8000, np.float32)
    wave[1000] = 1.0
    changed = reverberate(wave, response)
    assert changed.shape == wave.shape and rms(changed) == pytest.approx(rms(wave), rel=1e-4)
    assert np.abs(changed).argmax() == 1000 and abs(changed[3000] / changed[1000]) == pytest.approx(0.5, rel=1e-3)
    assert np.array_equal(reverberate(np.zeros(500, np.float32), response), np.zeros(500, np.float32))


def test_a_simulated_room_has_a_decaying_tail_and_is_the_same_for_a_seed() -> None:
    pytest.importorskip("pyroomacoustics")
    response = simulated_response(3, 0)
    assert response.dtype == np.float32 and np.isfinite(response).all() and len(response) > 500
    peak = int(np.abs(response).argmax())
    early, late = rms(response[peak : peak + 800]), rms(response[-800:])
    assert early > 10 * late > 0
    simulated_response.cache_clear()
    assert np.array_equal(response, simulated_response(3, 0)) and not np.array_equal(response, simulated_response(3, 1))


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("count", [300, 451, 32_011])
def test_a_codec_keeps_length_time_and_most_of_the_sound(name: str, count: int) -> None:
    time = np.arange(count) / SAMPLE_RATE
    wave = (0.3 * np.sin(2 * np.pi * (400 + 300 * time) * time)).astype(np.float32)
    coded, bit_rate = apply_codec(wave, name, rng())
    again, _ = apply_codec(wave, name, rng())
    assert coded.shape == wave.shape and coded.dtype == np.float32 and np.array_equal(coded, again)
    assert not np.array_equal(coded, wave) and (bit_rate > 0) == bool(CODECS[name].bit_rates)
    if count > 1000:  # the same place: a delay of 1 ms would turn the phase
        assert np.corrcoef(coded[2000:-2000], wave[2000:-2000])[0, 1] > 0.9


def test_codecs_take_samples_beyond_full_scale() -> None:
    wave = 3 * tone(440, level=0.9)
    coded, _ = apply_codec(wave, "mu-law", rng())
    assert np.abs(coded).max() == pytest.approx(2.7, rel=0.1)


def test_codecs_that_are_missing_are_named_together() -> None:
    def fail(wave: Wave, name: str, rng: np.random.Generator) -> None:
        if name != "gsm":
            raise DataError(f"augment.codecs: {name} cannot be applied (unknown)")

    check_codecs(["gsm", "gsm"], fail)
    with pytest.raises(DataError, match=r"(?s)mp3 cannot.*opus cannot.*libsndfile \d.*PyAV \d"):
        check_codecs(["mp3", "gsm", "opus"], fail)


def test_an_encoder_that_this_build_lacks_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("opus", "gsm"):
        monkeypatch.setitem(CODECS, name, type(CODECS[name])(8000, "NONE", CODECS[name].container, (8000,)))
        with pytest.raises(DataError, match=f"augment.codecs: {name} cannot be applied"):
            apply_codec(tone(440), name, rng())


@pytest.mark.parametrize(("count", "size"), [(1, 2), (2, 2), (3, 4), (4, 4), (257, 512)])
def test_fast_lengths_are_powers_of_two(count: int, size: int) -> None:
    assert fast_length(count) == size
