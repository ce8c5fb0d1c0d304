"""The Python API: load a model, transcribe files and arrays."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, overload

from finetune.core.errors import DataError
from finetune.core.options import TranscribeOptions, override
from finetune.data.waveform import Recording, to_recording
from finetune.inference import transcribe as inference
from finetune.inference.saved_options import options_for
from finetune.inference.transcript import Transcript
from finetune.model import granite

Audio = Any  # a path, a NumPy array, a torch tensor, or {"array": ..., "sampling_rate": ...} as `datasets` gives it


class GraniteSpeech:
    """A loaded model that transcribes.

    Attributes:
        network: the torch module, with its tokenizer.
        options: defaults of `transcribe`: those of the export, or of the toolkit.
    """

    def __init__(self, network: granite.GraniteSpeech, options: TranscribeOptions) -> None:
        self.network, self.options = network, options

    @overload
    def transcribe(self, audio: list[Any] | tuple[Any, ...], **options: Any) -> list[Transcript]: ...
    @overload
    def transcribe(self, audio: Audio, **options: Any) -> Transcript: ...
    def transcribe(
        self,
        audio: Any,
        *,
        sample_rate: int | None = None,
        keywords: str | Iterable[str] = (),
        language: str | None = None,
        translate_to: str | None = None,
        failed: Callable[[str, DataError], None] | None = None,
        progress: Callable[[float, float], None] | None = None,
        **options: Any,
    ) -> Transcript | list[Transcript]:
        """Transcribes audio of any length.

            model = finetune.load("runs/quickstart/export")
            transcript = model.transcribe("call.wav", keywords=["metoprolol"])
            print(transcript.text)
            for word in transcript.words:
                print(word.start, word.end, word.text)

        Args:
            audio: a path; a NumPy array or torch tensor (N,), (C, N) or (N, C); a dict with `array` and
                `sampling_rate`; or a list or tuple of these.
            sample_rate: of arrays, in Hz; required for them.
            keywords: expected words, added to the prompt: a list, or `"a, b"`.
            language: of the speech, such as `fr` or `French`.
            translate_to: write this language instead; there are no word times then.
            failed: called with the name and the error of audio that cannot be read, which is then skipped. Without
                it the error is raised.
            progress: called with the seconds of audio transcribed and those read so far.
            **options: other fields of `TranscribeOptions` and `DecodingOptions`, such as `decoder`, `vad`,
                `max_window`, `batch_seconds` or `max_new_tokens`.

        Returns:
            A transcript; for a list or tuple, a list of transcripts in its order.

        Raises:
            DataError: audio cannot be read, or an array has no sample rate.
            ModelError: the model does not accept this prompt, or a batch does not fit into GPU memory.
            RecipeError: an unknown language or option, a value out of range, a bad keyword.
        """
        chosen = override(self.options, keywords=keywords, language=language, translate_to=translate_to, **options)
        several = isinstance(audio, list | tuple)
        items: Sequence[Any] = audio if several else [audio]
        sources = [_source(item, sample_rate, f"array {number}") for number, item in enumerate(items, start=1)]
        transcripts = list(inference.transcripts(self.network, sources, chosen, failed, progress))
        return transcripts if several else transcripts[0]


def load(model: str | Path) -> GraniteSpeech:
    """Loads an exported folder, a base model folder or a hub name, on the GPU if there is one.

    Raises:
        ModelError: it is not a Granite Speech model with all its weights, or its options are damaged.
    """
    options = options_for(model)
    return GraniteSpeech(inference.load(model), options)


def transcribe(audio: Any, model: str | Path | GraniteSpeech, **arguments: Any) -> Any:
    """`load(model).transcribe(audio, ...)`; `model` may also be a loaded one. Arguments and errors are the same."""
    loaded = model if isinstance(model, GraniteSpeech) else load(model)
    return loaded.transcribe(audio, **arguments)


def _source(item: Any, sample_rate: int | None, name: str) -> str | Path | Recording:
    if isinstance(item, str | Path):
        return item
    if isinstance(item, dict) and {"array", "sampling_rate"} <= item.keys():
        return to_recording(item["array"], int(item["sampling_rate"]), str(item.get("path") or name))
    return to_recording(item, sample_rate, name)
