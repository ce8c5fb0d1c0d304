"""The Python API: `finetune.transcribe`."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from finetune.core.errors import DataError
from finetune.inference.options import Wish
from finetune.inference.settings import settings_of
from finetune.inference.thresholds import calibrated
from finetune.inference.transcribe import load, request_for, transcripts
from finetune.inference.transcript import Transcript
from finetune.model.granite import GraniteSpeech


def transcribe(
    paths: str | Path | Iterable[str | Path],
    model: str | Path | GraniteSpeech,
    *,
    keywords: str | Iterable[str] = (),
    language: str | None = None,
    translate_to: str | None = None,
    decoder: str | None = None,
    vad: str | None = None,
    batch_seconds: float | None = None,
    max_new_tokens: int | None = None,
    failed: Callable[[str, DataError], None] | None = None,
) -> list[Transcript]:
    """Audio files of any length to transcripts, in the order given.

        import finetune

        for heard in finetune.transcribe(["a.wav", "b.mp3"], model="runs/my/export", keywords=["metoprolol"]):
            print(heard.path, heard.text)
            for segment in heard.segments:
                for word in segment.words:
                    print(word.start, word.end, word.text)

    Args:
        paths: audio files, or one.
        model: an exported folder, a base model, a hub name; or what `finetune.load(...)` gave, to load it only once.
        keywords: words to expect, put into the prompt; a list, or `"a, b"`.
        language: of the speech, such as `fr`.
        translate_to: the language to write instead; there are no word times then.
        decoder, vad, batch_seconds, max_new_tokens: as on the command line; None is the export's own setting, else
            the recipe's default.
        failed: called for a file that cannot be read, which is then left out; without it the error is raised.

    Raises:
        DataError: a file cannot be read.
        ModelError: the model cannot be loaded, or does not take this prompt.
        RecipeError: an unknown language, or a keyword that is none.
    """
    given: dict[str, Any] = {
        "decoder": decoder,
        "vad": vad,
        "batch_seconds": batch_seconds,
        "max_new_tokens": max_new_tokens,
    }
    loaded = model if isinstance(model, GraniteSpeech) else load(str(model))
    settings = replace(
        calibrated(settings_of(loaded.source), loaded.source),
        **{key: value for key, value in given.items() if value is not None},
    )
    request = request_for(settings, Wish.of(language, translate_to, keywords))
    chosen = [paths] if isinstance(paths, str | Path) else paths
    return list(transcripts(loaded, [str(path) for path in chosen], request, failed))
