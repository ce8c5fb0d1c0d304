"""The voices of the build: language, engine, sex, held out or not, and share among those of its engine.

Held out whole, so that no training clip has them:

- the voices of data/vocabulary: all of flite (except in further training, because the embedded model knows them), the
  variants of espeak-ng that it uses (in all languages) and its accent `en-029`; the RHVoice and Festival voices of the
  same speakers are not used at all
- Kokoro: two American and two British voices, one each of Spanish, Portuguese, Italian and Japanese; the only French
  voice is for training
- Piper's joe
- voices whose licence is no free one: those of mbrola, and of Festival that need its British lexicon. They only test
"""

from collections.abc import Iterable
from dataclasses import dataclass

LANGUAGES = ("en", "es", "fr", "pt", "de", "ja", "it")
KNOWN = "flite"  # its voices have trained the embedded model, so they also train it further
ENGINES = ("kokoro", "piper", "rhvoice", "festival", "flite", "pico", "mbrola", "open_jtalk", "espeak-ng")
FEMALE, MALE, UNKNOWN = "f", "m", ""


@dataclass(frozen=True)
class TableVoice:
    """A voice. `share` is how often it speaks, relative to the others of its engine and language."""

    engine: str
    name: str
    language: str
    sex: str
    held_out: bool = False
    share: float = 1.0

    @property
    def full_name(self) -> str:
        return f"{self.engine}:{self.name}"


KOKORO = (
    "af_alloy", "af_aoede", "af_bella", "af_heart", "af_jessica", "af_kore", "af_nicole", "af_nova", "af_river",
    "af_sarah", "af_sky", "am_adam", "am_echo", "am_eric", "am_fenrir", "am_liam", "am_michael", "am_onyx", "am_puck",
    "am_santa", "bf_alice", "bf_emma", "bf_isabella", "bf_lily", "bm_daniel", "bm_fable", "bm_george", "bm_lewis",
    "ef_dora", "em_alex", "em_santa", "ff_siwis", "if_sara", "im_nicola", "jf_alpha", "jf_gongitsune", "jf_nezumi",
    "jf_tebukuro", "jm_kumo", "pf_dora", "pm_alex", "pm_santa",
)  # fmt: skip
KOKORO_HELD_OUT = {"af_sarah", "am_michael", "bf_lily", "bm_george", "em_alex", "pm_alex", "im_nicola", "jf_nezumi"}
KOKORO_LANGUAGES = {"a": "en", "b": "en", "e": "es", "f": "fr", "i": "it", "j": "ja", "p": "pt"}
KOKORO_SHARES = {"af_nicole": 0.3}  # it whispers

RHVOICE = {"alan": ("en", MALE), "bdl": ("en", MALE), "clb": ("en", FEMALE), "Leticia-F123": ("pt", FEMALE)}
FESTIVAL = {"ked_diphone": False, "rab_diphone": True, "don_diphone": True}  # held out or not
FLITE = {"slt": FEMALE, "rms": MALE, "awb": MALE, "kal16": MALE}
PICO = {"en-US": "en", "en-GB": "en", "es-ES": "es", "fr-FR": "fr", "de-DE": "de", "it-IT": "it"}
MBROLA = {
    "us1": ("en", FEMALE), "en1": ("en", MALE), "de2": ("de", MALE), "de5": ("de", FEMALE), "de6": ("de", MALE),
    "fr1": ("fr", MALE), "fr4": ("fr", FEMALE), "es2": ("es", MALE), "mx2": ("es", MALE), "br1": ("pt", MALE),
    "br4": ("pt", FEMALE), "it3": ("it", MALE), "it4": ("it", FEMALE),
}  # fmt: skip

ACCENTS = {  # of espeak-ng
    "en": ("en-us", "en-gb", "en-gb-x-rp", "en-us-nyc", "en-gb-scotland", "en-gb-x-gbclan"),
    "es": ("es", "es-419"),
    "fr": ("fr", "fr-be", "fr-ch"),
    "pt": ("pt", "pt-br"),
    "de": ("de",),
    "it": ("it",),
}
VARIANTS = ("f1", "f5", "m1", "m4", "m5", "m6", "m8", "klatt", "klatt4", "Annie", "Andy", "linda", "max", "belinda")
VOCABULARY_VARIANTS = ("f2", "f3", "f4", "m2", "m3", "m7")
FEMALE_VARIANTS = {"f1", "f2", "f3", "f4", "f5", "Annie", "linda", "belinda"}


def _kokoro() -> Iterable[TableVoice]:
    for name in KOKORO:
        language, share = KOKORO_LANGUAGES[name[0]], KOKORO_SHARES.get(name, 1.0)
        yield TableVoice("kokoro", name, language, name[1], name in KOKORO_HELD_OUT, share)


def _espeak() -> Iterable[TableVoice]:
    for language, accents in ACCENTS.items():
        for variant in VARIANTS + VOCABULARY_VARIANTS:
            sex, held_out = FEMALE if variant in FEMALE_VARIANTS else MALE, variant in VOCABULARY_VARIANTS
            for accent in accents[:1] if held_out else accents:
                yield TableVoice("espeak-ng", f"{accent}+{variant}", language, sex, held_out)


VOICES: tuple[TableVoice, ...] = (
    *_kokoro(),
    TableVoice("piper", "en_US-joe-medium", "en", MALE, held_out=True),
    *(TableVoice("rhvoice", name, language, sex) for name, (language, sex) in RHVOICE.items()),
    *(TableVoice("festival", name, "en", MALE, held_out) for name, held_out in FESTIVAL.items()),
    *(TableVoice("flite", name, "en", sex, held_out=True) for name, sex in FLITE.items()),
    *(TableVoice("pico", name, language, FEMALE) for name, language in PICO.items()),
    *(TableVoice("mbrola", name, language, sex, held_out=True) for name, (language, sex) in MBROLA.items()),
    TableVoice("open_jtalk", "nitech_jp_atr503_m001", "ja", MALE),
    *_espeak(),
)


def voices_of(engine: str, language: str, held_out: bool = False) -> list[TableVoice]:
    """The voices of an engine in a language: those for training, or those held out."""
    return [
        voice
        for voice in VOICES
        if voice.engine == engine and voice.language == language and voice.held_out == (held_out or engine == KNOWN)
    ]
