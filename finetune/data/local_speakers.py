"""Names of speakers that are another person in each recording, such as `agent` and `Speaker 1`."""

import re

from finetune.core.wording import first_of
from finetune.data.cells import cell_speaker

LOCAL = re.compile(
    r"(?:(?:speaker|spk|sprecher|locuteur|hablante|participant|s|p)[\s_-]*)?(?:\d{1,2}|[a-z])"
    r"|interviewer|interviewee|host|guest|agent|customer|caller|callee|operator|doctor|patient|teacher|student|child",
    re.IGNORECASE,
)
IN_WORDS = re.compile(r"[^\W\d_]{4}")  # other names, such as `s1` and `12`, can be those of a corpus
MAX_NAMES = 4  # in a message


class SpeakerNames:
    """Finds a corpus of several audio files in which all names of speakers are those of `LOCAL`."""

    def __init__(self) -> None:
        self._are_local, self._names = True, dict[str, None]()
        self._first, self._last, self._last_name = "", "", ""
        self._has_files = self._share_file = False

    def add(self, speaker: object, place: str) -> None:
        """Adds the speaker of a row, and the audio file, of which the rows follow each other."""
        if not self._are_local or not (name := cell_speaker(speaker)):
            return
        if name not in self._names:
            self._are_local = LOCAL.fullmatch(name) is not None
            self._names[name] = None
        self._first = self._first or place
        self._has_files = self._has_files or place != self._first
        self._share_file = self._share_file or (place == self._last and name != self._last_name)
        self._last, self._last_name = place, name

    def note(self) -> str:
        """What is wrong with the names; "" for nothing."""
        if not (self._are_local and self._has_files):
            return ""
        if not (self._share_file or any(map(IN_WORDS.match, self._names))):
            return ""
        return (
            f"the speakers are {first_of([*map(repr, self._names)], MAX_NAMES)}: probably other persons in each "
            "recording, but one name counts as one person in groups, intervals and the search for leaks; add the "
            "recording to the name (call1-agent), or remove the column"
        )
