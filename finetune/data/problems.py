"""Problems of a corpus: their kinds, advice for each kind, and the text of a report."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

EXAMPLES = 3  # of each kind that a report lists
# Advice by kind. The kind of a leak also names the other split: "audio also in train".
ADVICE = {
    "duplicate id": "Make the ids unique, or remove the column; ids are then made from the file names.",
    "missing audio": "Correct the paths, or remove the rows.",
    "unreadable audio": "Replace or convert the files, or remove the rows.",
    "invalid offset": "Write the start of each segment in seconds, 0 or more.",
    "rejected row": "Remove the rows, or write accept in the column answer to use them.",
    "times in transcript": "Write a table with the columns file_name, start, end and text, one row for each segment.",
    "unreadable annotation": "Correct or export the text, subtitle or annotation files again, or remove them.",
    "invalid duration": "Write the durations in seconds, more than 0, or leave the cells empty.",
    "contradictory segment": "Correct the times, or keep only start and end.",
    "segment outside the audio": "Write the times in seconds; for milliseconds, end the column names in _ms.",
    "wrong duration": "Check path and unit (seconds; for milliseconds `duration_ms`). For a segment, add its offset.",
    "invalid channel": "Number the channels from 0, or write left and right, one channel in each row.",
    "audio too short": "Check the unit of stated times (seconds), remove the rows, or lower data.min_duration.",
    "audio too long": "Cut the audio (for train: data.too_long: segment), or raise data.max_duration.",
    "no task": "Write transcribe or translate in the column `task`; a translation also needs target_language.",
    "no prompt": "Correct text_style or target_language, or give the prompt in a column `instruction`.",
    "invalid weight": "Write a number above 0, or remove the column sampling_weight.",
    "no translation": "Add the translations, or remove the rows: an empty one has no score.",
    "empty transcript": "Add the transcripts, or remove the rows.",
    "empty reference": "The clip stays in the split. If words are spoken in it, add them.",
    "no words in transcript": "Add the spoken words, or remove the rows.",
    "special token in transcript": "Remove the token from the transcript, the keywords or the instruction.",
    "comma in keyword": "Write each keyword as one element of the list, without commas.",
    "bar in keyword": "Separate keywords and terms by commas or semicolons, or write a list.",
    "error value in transcript": "Correct the cells in the spreadsheet, and export it again.",
    "JSON in transcript": "Write the words of each row as one plain text.",
    "markup in transcript": "Write the spoken words only, and the language in the column `language`.",
    "invalid Unicode in transcript": "Export the transcripts again as UTF-8.",
    "transcript too long": "Cut the recording into clips of one sentence, each with its own transcript.",
    "too many characters per second": "Check that each transcript belongs to its audio.",
    "duration corrected": "The measured duration is used. Check that the path and the row belong together.",
    "audio already cut": "The files are as long as the segments, so each file is used as a whole. Check a few.",
    "audio changed": "The samples differ from those of the manifest. Check that the path still has the same audio.",
    "transcript cleaned": "The cleaned transcript is used. No action is needed.",
    "encoding errors in transcript": "The transcript stays unchanged. Export it as UTF-8 without HTML entities.",
    "credit of subtitles": "Remove the rows: the model learns to write such a line where nobody speaks.",
    "speaker in transcript": "Remove the names from the transcripts: the model learns to write them.",
    "several channels": "If a transcript belongs to one channel, give its number in a column `channel`.",
    "late audio": "If the times count from the video, subtract the difference; the toolkit counts from the audio.",
    "gap in audio": "Convert it: ffmpeg -i IN -vn -af aresample=async=1 OUT.wav (times of players count the gap).",
    "opposite channels": "The first channel with sound is used. No action is needed if it has the speech.",
    "ambiguous sample": "Keep one audio file and one text for each key.",
    "silent audio": "Check the recordings, or remove the rows.",
    "duplicate audio": "Remove the copies; if the transcripts differ, correct the wrong one.",
    "id changed": "The new id is used. No action is needed.",
    "audio": "Remove the audio from one of the two splits.",
    "overlapping audio": "Remove one of the segments, or cut them so that they do not overlap.",
    "sentence": "Scores on new sentences can be lower. To measure them, remove the sentence from one of the splits.",
    "short sentence": "Common in commands and digits. To measure new phrases, remove it from one of the splits.",
    "speaker": "Scores on new speakers can be lower. To measure them, give each split its own speakers.",
}


@dataclass(frozen=True)
class Finding:
    """The kind and details of a problem that is not yet assigned to an utterance."""

    kind: str
    detail: str


@dataclass(frozen=True)
class Problem:
    """A problem of one row: its kind, the utterance's id, the row's position (file:line), and the details."""

    kind: str
    id: str
    where: str
    detail: str


class ProblemSummary:
    """The number of problems of each kind and the first examples, without the others."""

    def __init__(self, problems: Iterable[Problem] = ()) -> None:
        self.counts, self.examples = Counter[str](), dict[str, list[Problem]]()
        for problem in problems:
            self.add(problem)

    @property
    def total(self) -> int:
        return self.counts.total()

    def add(self, problem: Problem) -> None:
        self.counts[problem.kind] += 1
        examples = self.examples.setdefault(problem.kind, [])
        if len(examples) < EXAMPLES:
            examples.append(problem)

    def __add__(self, other: "ProblemSummary") -> "ProblemSummary":
        """The summary of the problems of both, in this order."""
        both = ProblemSummary()
        both.counts = self.counts + other.counts
        for kind in both.counts:
            both.examples[kind] = [*self.examples.get(kind, []), *other.examples.get(kind, [])][:EXAMPLES]
        return both

    def text(self) -> str:
        """The problems by kind, the most frequent first: their number, what to do, and the first examples of each."""
        lines = []
        for kind, number in self.counts.most_common():
            lines.append(f"{kind}: {number}. {ADVICE[kind.partition(' also in ')[0]]}")
            examples = self.examples[kind]
            lines += [f"  {problem.id} ({problem.where}): {problem.detail}" for problem in examples]
            if number > len(examples):
                lines.append(f"  ... and {number - len(examples)} more")
        return "\n".join(lines)


def format_problems(problems: Iterable[Problem]) -> str:
    """The text of a summary of problems."""
    return ProblemSummary(problems).text()
