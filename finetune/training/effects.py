"""Applies the effects of a recipe to clips: room, noise, clipping, telephone band, codec; makes clips without speech.

Each effect of a clip has its own random numbers, from seed, epoch, id of the clip and name of the effect. So a clip is
the same for any workers, ranks and order, and an effect does not change the random numbers of another.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from finetune.core.config import AugmentSection
from finetune.core.errors import DataError
from finetune.data.audio import MIN_SAMPLES, SAMPLE_RATE, load_utterance
from finetune.data.effects.codecs import apply_codec
from finetune.data.effects.distortion import add_noise, clip_peaks, telephone_band
from finetune.data.effects.generated import GENERATED, generate, rms
from finetune.data.effects.recordings import Recording, excerpt, load_recording
from finetune.data.effects.rooms import ROOMS, reverberate, simulated_response
from finetune.data.effects.sources import BABBLE, SIMULATED, Source, open_sources
from finetune.data.utterance_table import UtteranceTable
from finetune.training.augment import Applied, sample_rng

Wave = NDArray[np.float32]
Babble = Callable[[int, np.random.Generator], Wave]

CLIPPING = (3.0, 15.0)  # dB below the peak
NO_SPEECH_LEVEL = (-60.0, -15.0)  # dB below full scale
VOICES = (3, 7)  # of babble
NOISES = [name for name in GENERATED if name != "music"]


@dataclass(frozen=True)
class Effects:
    """The effects of a recipe.

    Attributes:
        settings: their probabilities and ranges.
        seed: seed of the run.
        noise, rooms: the entries of the settings of these names.
    """

    settings: AugmentSection
    seed: int
    noise: Sequence[Source]
    rooms: Sequence[Source]

    @classmethod
    def of(cls, settings: AugmentSection, seed: int) -> Self:
        """Finds the recordings of a recipe. Raises DataError if there are none in an entry."""
        sources = open_sources(settings)
        return cls(settings, seed, sources.noise, sources.rooms)

    def add_scene(self, wave: Wave, clip_id: str, epoch: int, babble: Babble, applied: list[Applied]) -> Wave:
        """Adds what lies between a voice and the microphone: a room, then noise. (N,) -> (N,).

        Args:
            wave: speech.
            clip_id: id of the clip.
            epoch: from 0.
            babble: makes other speech of a number of samples, with RMS 1.
            applied: what was done is appended.

        Raises:
            DataError: a recording can no longer be read.
        """
        settings = self.settings
        rng = sample_rng(self.seed, epoch, clip_id + "/room")
        if self.rooms and rng.random() < settings.room_probability:
            response, name = self._response(rng)
            wave = reverberate(wave, response)
            applied.append(Applied("room", {"source": name}))
        rng = sample_rng(self.seed, epoch, clip_id + "/noise")
        if self.noise and rng.random() < settings.noise_probability:
            low, high = settings.noise_snr
            snr, source = float(rng.uniform(low, high)), _choose(self.noise, rng)
            noise, name = self._noise(source, len(wave), rng, babble)
            wave = add_noise(wave, noise, snr)
            applied.append(Applied("noise", {"source": name, "snr_db": round(snr, 1)}))
        return wave

    def add_line(self, wave: Wave, clip_id: str, epoch: int, applied: list[Applied]) -> Wave:
        """Adds what lies behind the microphone: clipping, a telephone band, a codec. (N,) -> (N,).

        Args:
            wave: what the microphone receives.
            clip_id: id of the clip.
            epoch: from 0.
            applied: what was done is appended.
        """
        settings = self.settings
        rng = sample_rng(self.seed, epoch, clip_id + "/clipping")
        if rng.random() < settings.clipping:
            depth = float(rng.uniform(*CLIPPING))
            wave = clip_peaks(wave, depth)
            applied.append(Applied("clipping", {"db_below_peak": round(depth, 1)}))
        if sample_rng(self.seed, epoch, clip_id + "/telephone").random() < settings.telephone:
            wave = telephone_band(wave)
            applied.append(Applied("telephone", {}))
        rng = sample_rng(self.seed, epoch, clip_id + "/codec")
        if settings.codecs and rng.random() < settings.codec_probability:
            name = settings.codecs[rng.integers(len(settings.codecs))]
            wave, bit_rate = apply_codec(wave, name, rng)
            details: dict[str, str | float] = {"bits_per_second": bit_rate} if bit_rate else {}
            applied.append(Applied("codec", {"source": name} | details))
        return wave

    def make_no_speech(self, seconds: float, clip_id: str, epoch: int, applied: list[Applied]) -> Wave:
        """Silence, noise, music or a recording of `augment.noise`, at a random level, through the line: (N,).

        Args:
            seconds: its length.
            clip_id: id of the clip.
            epoch: from 0.
            applied: what was done is appended.

        Raises:
            DataError: a recording can no longer be read.
        """
        rng = sample_rng(self.seed, epoch, clip_id + "/sound")
        count = max(MIN_SAMPLES, round(seconds * SAMPLE_RATE))
        recorded = [item for item in self.noise if item.recordings]
        family = ("silence", "noise", "music", "recording")[rng.integers(4 if recorded else 3)]
        level = float(rng.uniform(*NO_SPEECH_LEVEL))
        if family == "silence":
            wave, details = np.zeros(count, np.float32), dict[str, str | float](source="silence")
        else:
            if family == "recording":
                wave, name = self._recorded(_choose(recorded, rng), count, rng)
            else:
                name = "music" if family == "music" else NOISES[rng.integers(len(NOISES))]
                wave = generate(name, count, rng)
            wave = wave * np.float32(10.0 ** (level / 20.0) / max(rms(wave), 1e-9))
            details = {"source": name, "level_db": round(level, 1)}
        applied.append(Applied("no speech", details))
        return self.add_line(wave, clip_id, epoch, applied)

    def _response(self, rng: np.random.Generator) -> tuple[Wave, str]:
        source = _choose(self.rooms, rng)
        if source.name == SIMULATED:
            number = int(rng.integers(ROOMS))
            return simulated_response(self.seed, number), f"{SIMULATED} room {number}"
        recording = _recording(source, rng)
        with _required(source, "rooms"):
            return load_recording(recording), recording.path

    def _noise(self, source: Source, count: int, rng: np.random.Generator, babble: Babble) -> tuple[Wave, str]:
        if source.name == BABBLE:
            return babble(count, rng), BABBLE
        if source.recordings:
            return self._recorded(source, count, rng)
        return generate(source.name, count, rng), source.name

    def _recorded(self, source: Source, count: int, rng: np.random.Generator) -> tuple[Wave, str]:
        recording = _recording(source, rng)
        with _required(source, "noise"):
            return excerpt(recording, count, rng), recording.path


@contextmanager
def _required(source: Source, key: str) -> Iterator[None]:
    """Explains that a recording can no longer be read."""
    try:
        yield
    except DataError as error:
        raise DataError(
            f"augment.{key}: {source.name}: {error}. The training needs this file; restore it and rerun to resume"
        ) from error


def _choose(sources: Sequence[Source], rng: np.random.Generator) -> Source:
    return sources[int(rng.integers(len(sources)))]


def _recording(source: Source, rng: np.random.Generator) -> Recording:
    return source.recordings[int(rng.integers(len(source.recordings)))]


def mix_voices(base: UtteranceTable, used: Sequence[str], count: int, rng: np.random.Generator) -> Wave:
    """Babble: (count,) with RMS 1, the sum of several other clips, each repeated from a random place.

    Args:
        base: the clips.
        used: ids of clips that are not taken.
        count: number of samples.
        rng: chooses the clips.
    """
    total = np.zeros(count, np.float32)
    for row in rng.integers(len(base), size=int(rng.integers(VOICES[0], VOICES[1] + 1))).tolist():
        item, place = base[row], rng.random()
        if item.id in used:
            continue
        try:
            voice = load_utterance(item)
        except DataError:
            continue  # reported as a clip of its own
        voice = np.resize(np.roll(voice, -int(place * len(voice))), count)
        total += voice / np.float32(max(rms(voice), 1e-9))
    return (total / np.float32(max(rms(total), 1e-9))).astype(np.float32)
