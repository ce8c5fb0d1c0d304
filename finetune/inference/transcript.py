"""The transcript of one recording and its output formats."""

import json
from dataclasses import dataclass, replace
from typing import Any

from finetune.inference import subtitles
from finetune.inference.segments import Segment, Word


@dataclass(frozen=True)
class Transcript:
    """The text of a recording of `duration` seconds.

    Attributes:
        path: the file, or the name of an array.
        segments: one for each window with speech, in order.
        language: language of the text; "" if it is not known.
        seconds: computing time.
        acceptance: fraction of the draft tokens that were accepted; None without a draft.
        truncated: the text of a window reached `max_new_tokens`.
        channel: number of the channel; None if the audio has one channel, or the channels were mixed.
        note: how several channels were mixed, if the options do not say it, and what else is to be known; else "".
        delay: seconds by which the audio of a video begins after its pictures. Times count from the audio; those of SRT
            and WebVTT count from the pictures, as players do.
        no_speech_windows: windows in which the CTC head found no speech; they have no text.
    """

    path: str
    text: str
    duration: float
    segments: tuple[Segment, ...]
    language: str
    seconds: float
    acceptance: float | None
    truncated: bool
    channel: int | None = None
    note: str = ""
    no_speech_windows: int = 0
    delay: float = 0.0

    @property
    def words(self) -> tuple[Word, ...]:
        """All words with their times; empty for a translation, whose words were not spoken."""
        return tuple(word for segment in self.segments for word in segment.words)

    def to_dict(self) -> dict[str, Any]:
        """A dict for JSON, with the keys of OpenAI's and IBM's transcripts; times in seconds."""
        content: dict[str, Any] = {
            "audio_filepath": self.path,
            **({} if self.channel is None else {"channel": self.channel}),
            "duration": round(self.duration, 3),
            "text": self.text,
            "segments": [_segment(number, segment) for number, segment in enumerate(self.segments)],
        }
        if self.language:
            content["language"] = self.language
        return {**content, "truncated": self.truncated, "no_speech_windows": self.no_speech_windows}

    def to_json(self) -> str:
        """`to_dict` on one line."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def to_srt(self) -> str:
        """SubRip subtitles."""
        return subtitles.srt(*self._in_video())

    def to_vtt(self) -> str:
        """WebVTT subtitles."""
        return subtitles.vtt(*self._in_video())

    def to_tsv(self) -> str:
        """Tab-separated cues: start and end in milliseconds, text."""
        return subtitles.tsv(self.segments, self.duration)

    def _in_video(self) -> tuple[list[Segment], float]:
        """The segments and the end of the audio, with times that count from the pictures."""
        return [_later(segment, self.delay) for segment in self.segments], self.duration + self.delay

    def render(self, form: str) -> str:
        """The transcript as `text`, `json` (one line), `srt`, `vtt` or `tsv`."""
        return self.text if form == "text" else str(getattr(self, f"to_{form}")())


def _later(segment: Segment, seconds: float) -> Segment:
    words = tuple(replace(word, start=word.start + seconds, end=word.end + seconds) for word in segment.words)
    return replace(segment, start=segment.start + seconds, end=segment.end + seconds, words=words)


def _segment(number: int, segment: Segment) -> dict[str, Any]:
    content = {"id": number, "start": round(segment.start, 3), "end": round(segment.end, 3), "text": segment.text}
    words = [{"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)} for word in segment.words]
    return {**content, "words": words} if words else content
