"""Long recordings with their transcripts: one audio file with a text file, or the rows of a corpus."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.core.errors import DataError
from finetune.data.audio import load_audio, stream_audio
from finetune.data.audio_file import open_audio
from finetune.data.audio_suffixes import AUDIO_SUFFIXES
from finetune.data.audit import stated_utterances
from finetune.data.cells import no_number
from finetune.data.corpora import read_corpus
from finetune.data.formats.annotations import log_notes
from finetune.data.formats.audio_folder import has_times, heading_of
from finetune.data.formats.subtitles import without_speakers
from finetune.data.manifest import Utterance
from finetune.data.row import Row
from finetune.data.text_lines import read_text

NO_WORDS = "no words in the transcript"


@dataclass(frozen=True)
class Recording:
    """A recording and its transcript.

    Attributes:
        complete: it is a complete file, and not the part of one from `offset` on.
        fault: why it cannot be used; "" if it can.
    """

    utterance: Utterance
    complete: bool
    fault: str

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Its samples at 16 kHz; a whole file is never in memory as a whole. Raises DataError for unusable audio."""
        item = self.utterance
        if self.complete:
            yield from stream_audio(item.audio_filepath, item.channel)
        else:
            yield load_audio(item.audio_filepath, item.offset, item.duration or None, item.channel)

    def seconds(self) -> float:
        """Its duration as the row or the header of the file states it. Raises DataError for an unreadable file."""
        item = self.utterance
        if not self.complete and item.duration:
            return item.duration
        with open_audio(item.audio_filepath) as file:
            return file.frames / file.samplerate - item.offset


def read_recordings(source: str, text_file: str | None, media: Path) -> list[Recording]:
    """The recordings of a corpus, or one audio file with a text file.

    Args:
        source: an audio file if there is a `text_file`, otherwise a corpus as in `data.train`.
        text_file: the transcript, without times.
        media: folder for audio that is embedded in a corpus.

    Raises:
        DataError: the corpus or the text cannot be read, or the text has times.
    """
    if text_file is None and Path(source).suffix.lower() in AUDIO_SUFFIXES:
        raise DataError(f"{source}: an audio file; add its transcript without times, --text FILE")
    rows: Sequence[Row] = [_row(source, text_file)] if text_file is not None else read_corpus(source, media)
    utterances = stated_utterances(rows, source)
    return [_recording(row, utterance) for row, utterance in zip(rows, utterances, strict=True)]


def _row(audio: str, text_file: str) -> Row:
    text = read_text(Path(text_file))
    if has_times(text):
        raise DataError(
            f"{text_file}: the text has times, so it needs no alignment; put it beside the audio and use the folder as "
            "a corpus (docs/corpora.md)"
        )
    if heading := heading_of(text):
        raise DataError(f"{text_file}: lines such as {heading!r} are not spoken; remove them")
    notes = Counter[str]()
    text = without_speakers(text, notes)
    log_notes(text_file, notes)
    return Row(text_file, {"audio_filepath": str(Path(audio).absolute()), "text": text})


def _recording(row: Row, utterance: Utterance) -> Recording:
    fault = f"{row.fault.kind}: {row.fault.detail}" if row.fault else ""
    if not fault and not any(map(str.isalnum, utterance.text)):
        fault = NO_WORDS
    return Recording(utterance, no_number(row.values.get("offset")), fault)
