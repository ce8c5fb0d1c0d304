"""Voices of every engine: names, what is missing, the commands and requests, and the messages of failures."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from json_server import JsonServer

from finetune.core.errors import ModelError, RecipeError, VoiceError
from finetune.core.openai_client import KEY, URL, Retries
from finetune.curation.clip_audio import to_clip
from finetune.curation.voices.command_line import CommandVoice
from finetune.curation.voices.espeak import EspeakVoice
from finetune.curation.voices.flite import FliteVoice
from finetune.curation.voices.kokoro import KokoroVoice
from finetune.curation.voices.piper import PiperVoice
from finetune.curation.voices.program import read_sound
from finetune.curation.voices.registry import check_voices, full_name, other_languages, parse_voices
from finetune.curation.voices.speech_endpoint import EndpointVoice
from finetune.curation.voices.voice import Line, Part, Sound

Program = Callable[[str, str], Path]
LISTS = """
import sys
if sys.argv[1] == "--voices=variant":
    print("Pty Language Age/Gender VoiceName File Other")
    print(" 5  variant         --/F      female3            !v/f3                ")
elif sys.argv[1:] != ["-q", "-v", "en-us", "--", "a"]:
    sys.exit("no such voice")
"""
BEEP = """
import io, sys, wave
file = io.BytesIO()
with wave.open(file, "wb") as out:
    out.setnchannels(1), out.setsampwidth(2), out.setframerate(8000)
    out.writeframes(bytes((index * 7919) % 251 for index in range(8000)))
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Writes an executable with a Python source into a folder that is the only one of PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def write(name: str, source: str) -> Path:
        path = folder / name
        path.write_text(f"#!{sys.executable}\n{source}")
        path.chmod(0o755)
        return path

    return write


def line(text: str, speed: float = 1.0, pitch: float = 1.0) -> Line:
    return Line((Part(text),), speed, pitch)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "add --voice ENGINE:VOICE"),
        (["espeak:en"], "did you mean espeak-ng:en?"),
        (["espeak-ng"], "is not ENGINE:VOICE"),
        (["festival:kal"], "an engine of espeak-ng, flite, piper"),
        (["openai:tts-1"], "openai:MODEL#VOICE"),
        (["command:bob"], "needs --command"),
    ],
)
def test_a_name_of_another_form_is_an_error(names: list[str], message: str) -> None:
    with pytest.raises(RecipeError) as error:
        parse_voices(names)
    assert message in str(error.value)


def test_voices_of_another_language_are_named() -> None:
    names = ["espeak-ng:de+f3", "espeak-ng:en-us", "espeak-ng:mb-de1", "flite:slt", "kokoro:some/en#ff_siwis"]
    voices = parse_voices([*names, "piper:some/pt_BR-faber.onnx#3"])
    assert [warning.split()[1:4] for warning in other_languages(voices, "en-US")] == [
        ["espeak-ng:de+f3", "speaks", "de,"],
        ["kokoro:some/en#ff_siwis", "speaks", "fr,"],
        ["piper:some/pt_BR-faber.onnx#3", "speaks", "pt,"],
    ]
    assert len(other_languages(voices, "de")) == 3


def test_a_voice_is_used_once() -> None:
    names = ["espeak-ng:en", "flite:slt", "espeak-ng:en"]
    assert [full_name(voice) for voice in parse_voices(names)] == names[:2]


@pytest.mark.parametrize("voice", [EspeakVoice("en-us"), FliteVoice("slt")], ids=["espeak-ng", "flite"])
def test_a_program_that_is_not_installed_names_the_package(voice: EspeakVoice | FliteVoice, program: Program) -> None:
    with pytest.raises(VoiceError) as error:
        check_voices([voice])
    assert str(error.value).startswith(
        f"voice {full_name(voice)}: {voice.engine} is not installed; run `apt-get install"
    )
    assert "--voices" not in str(error.value)


def test_espeak_refuses_a_voice_and_a_variant_that_it_would_replace(program: Program) -> None:
    program("espeak-ng", LISTS)
    EspeakVoice("en-us+f3").check()
    for name, message in (
        ("en-uz", "-v en-uz .*no such voice; .espeak-ng --voices. lists"),
        ("en-us+f33", "no variant 'f33'"),
    ):
        with pytest.raises(VoiceError, match=message):
            EspeakVoice(name).check()


def test_espeak_gets_rate_pitch_and_a_text_that_looks_like_an_option(program: Program, tmp_path: Path) -> None:
    record = "open(%r, 'w').write('|'.join(sys.argv[1:]))" % str(tmp_path / "args")  # noqa: UP031
    program("espeak-ng", f"{BEEP}\n{record}\nsys.stdout.buffer.write(file.getvalue())")
    sound = EspeakVoice("en-us+f3").speak(line("-s 9", 1.2, 1.1))
    assert (tmp_path / "args").read_text() == "-v|en-us+f3|-s|198|-p|55|--stdout|--|-s 9"
    assert sound.rate == 8000 and len(sound.samples) == 4000


def test_flite_refuses_a_voice_that_it_would_replace(program: Program) -> None:
    program("flite", "print('Voices available: kal slt')")
    FliteVoice("slt").check()
    with pytest.raises(VoiceError, match="no voice 'bob'; it has kal, slt"):
        FliteVoice("bob").check()


def test_flite_stretches_durations_for_a_lower_speed(program: Program, tmp_path: Path) -> None:
    record = "open(%r, 'w').write('|'.join(sys.argv[1:]))" % str(tmp_path / "args")  # noqa: UP031
    program("flite", f"{BEEP}\n{record}\nsys.stdout.buffer.write(file.getvalue())")
    FliteVoice("slt").speak(line("hi", 0.8))
    assert (tmp_path / "args").read_text() == "-voice|slt|--setf|duration_stretch=1.2500|-t|hi|-o|/dev/stdout"


def test_a_failure_has_the_command_and_its_stderr(program: Program) -> None:
    program("espeak-ng", "import sys\nprint('no phoneme table', file=sys.stderr)\nsys.exit(3)")
    with pytest.raises(VoiceError) as error:
        EspeakVoice("en-us").speak(line("say it's so"))
    assert "`espeak-ng -v en-us -s 165 -p 50 --stdout -- 'say it'\"'\"'s so'` failed with exit code 3" in str(
        error.value
    )
    assert str(error.value).endswith("no phoneme table")


@pytest.mark.parametrize(
    ("template", "stdin"),
    [("{exe} {source} {voice} {out} {text}", False), ("{exe} {source} {voice} {out}", True), ("{exe} {source}", True)],
)
def test_a_command_gets_text_and_file_or_standard_input_and_output(template: str, stdin: bool, tmp_path: Path) -> None:
    source = tmp_path / "say it.py"
    source.write_text(f"""{BEEP}
args = sys.argv[1:]
text = sys.stdin.read() if {stdin} else args[2]
assert text == "it's {{voice}} 5 $HOME", text
if args:
    assert args[0] == "bob"
    open(args[1], "wb").write(file.getvalue())
else:
    sys.stdout.buffer.write(file.getvalue())
""")
    filled = template.replace("{exe}", sys.executable).replace("{source}", f"'{source}'")
    assert len(CommandVoice("bob", filled).speak(line("it's {voice} 5 $HOME")).samples) == 4000


def test_a_command_gets_factors_and_a_percentage(tmp_path: Path) -> None:
    source = tmp_path / "say.py"
    source.write_text(f"""{BEEP}
assert sys.argv[1:] == ["1.125", "112", "0.900"], sys.argv
sys.stdout.buffer.write(file.getvalue())
""")
    template = f"{sys.executable} {source} {{speed}} {{percent}} {{pitch}}"
    assert len(CommandVoice("bob", template).speak(line("hello", 1.125, 0.9)).samples) == 4000


@pytest.mark.parametrize(
    ("template", "error", "message"),
    [
        ("say '{text}", RecipeError, "No closing quotation"),
        ("say {txt}", RecipeError, "{txt} is not one of {text}, {voice}, {out}, {speed}, {percent}, {pitch}"),
        ("no_such_program {text}", VoiceError, "no_such_program is not installed; install it, or correct --command"),
        (f"{sys.executable} -c pass {{out}}", VoiceError, "ended with exit code 0, but wrote no file {out}"),
        (f"{sys.executable} -c 'print(1)'", VoiceError, "wrote 2 bytes that are not audio"),
        (f"{sys.executable} -c pass", VoiceError, "wrote no audio"),
        (f"{sys.executable} -c 'import os; os.kill(os.getpid(), 9)'", VoiceError, "failed with signal 9: no message"),
    ],
)
def test_a_command_that_cannot_be_used(template: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        CommandVoice("bob", template).speak(line("hello"))
    assert message in str(raised.value)


def test_piper_and_kokoro_name_what_is_missing(tmp_path: Path) -> None:
    """Both with and without their packages, which the tests do not need."""
    for voice in (PiperVoice("no/such.onnx"), KokoroVoice(f"{tmp_path}#af_heart")):
        with pytest.raises(Exception, match=r"is not installed; run: pip install|no such file|0 .onnx files"):
            voice.check()


def wav(samples: np.ndarray, rate: int = 24_000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV")
    return file.getvalue()


def test_an_endpoint_speaks(json_server: JsonServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL, json_server.url)
    monkeypatch.setenv(KEY, "sk-secret")
    json_server.respond = lambda number: (200, wav(np.full(2400, 0.5))) if number else (503, b"busy")
    sound = EndpointVoice("tts-1#alloy", Retries(sleep=lambda _: None)).speak(line("hello", 1.25))
    assert sound.rate == 24_000 and len(sound.samples) == 2400
    path, body = json_server.requests[1]
    assert path == "/v1/audio/speech"
    assert json.loads(body) == {
        "model": "tts-1",
        "voice": "alloy",
        "input": "hello",
        "response_format": "wav",
        "speed": 1.25,
    }


@pytest.mark.parametrize(
    ("response", "error", "message"),
    [
        ((400, b"no voice sk-secret"), VoiceError, "HTTP 400: no voice ***"),
        ((404, b"no model"), ModelError, "HTTP 404: no model"),
        ((200, b"no voice\nsk-secret"), VoiceError, "wrote 18 bytes that are not audio: no voice ***"),
        ((200, b"\xff\x00"), VoiceError, "wrote 2 bytes that are not audio"),
    ],
)
def test_an_endpoint_fails_without_its_key(
    response: tuple[int, bytes],
    error: type[Exception],
    message: str,
    json_server: JsonServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(URL, json_server.url)
    monkeypatch.setenv(KEY, "sk-secret")
    json_server.respond = lambda _: response
    with pytest.raises(error) as raised:
        EndpointVoice("tts-1#alloy").speak(line("hello"))
    assert message in str(raised.value) and "sk-secret" not in str(raised.value)


def test_an_endpoint_without_a_key_is_an_error_before_any_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (URL, KEY):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ModelError, match="voice openai:tts-1#alloy: .*OPENAI_API_KEY is not set"):
        check_voices([EndpointVoice("tts-1#alloy")])


@pytest.mark.parametrize("size", [0, 0xFFFF_FFFF])
def test_a_wav_that_was_streamed_is_read_completely(size: int) -> None:
    content, stated = wav(np.full(800, 0.25), 16_000), size.to_bytes(4, "little")
    streamed = content[:4] + stated + content[8:40] + stated + content[44:]
    assert content[36:40] == b"data"
    np.testing.assert_array_equal(read_sound(streamed, "x").samples, read_sound(content, "x").samples)
    assert len(read_sound(content[:44], "x").samples) == 0  # nothing but a header


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (wav(np.zeros(800), 1), "x wrote audio with a sampling rate of 1 Hz"),
        (wav(np.zeros(800), 2_000_000_000), "x wrote audio with a sampling rate of 2000000000 Hz"),
        (b"\x00\xff\x01", "x wrote 3 bytes that are not audio$"),
        (b"", "x wrote no audio$"),
    ],
)
def test_what_is_not_audio_is_named(content: bytes, message: str) -> None:
    with pytest.raises(VoiceError, match=message):
        read_sound(content, "x")


def test_a_clip_is_trimmed_resampled_and_has_one_level() -> None:
    rng = np.random.default_rng(0)
    quiet = np.zeros(24_000, np.float32)
    speech = rng.normal(0, 0.01, 48_000).astype(np.float32)
    clip = to_clip(Sound(np.concatenate([quiet, speech, quiet]), 24_000))
    assert abs(len(clip) / 16_000 - 2.2) < 0.03  # 2 s of sound and 0.1 s of silence at both ends
    assert np.sqrt(np.mean(clip**2)) == pytest.approx(10 ** (-23 / 20), rel=1e-3)
    loud = np.zeros(16_000, np.float32)
    loud[8000] = 1.0  # the level would exceed the peak
    assert np.abs(to_clip(Sound(loud, 16_000))).max() == pytest.approx(10 ** (-1 / 20))


@pytest.mark.parametrize("samples", [np.zeros(0), np.zeros(50), np.zeros(9000), np.full(9000, np.nan)])
def test_silence_is_no_clip(samples: np.ndarray) -> None:
    assert len(to_clip(Sound(samples.astype(np.float32), 22_050))) == 0
