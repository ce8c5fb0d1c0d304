"""What drafts would gain from the words of the training texts: passes of the language model with and without them.

    python scripts/bench_drafts.py --model runs/quickstart/export

Three ways are compared with the CTC draft alone, one clip at a time: an uncertain word of the draft is replaced by the
nearest training word (`words`); a word that the model has begun is completed to a training word (`completion`); both.
Drafts do not change texts, and the script checks that.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from rapidfuzz.distance import Levenshtein

from finetune.core.options import DecodingOptions
from finetune.core.prompts import DEFAULT_PROFILE
from finetune.data.manifest import Utterance, read_manifest
from finetune.inference import recognize as recognizer
from finetune.inference.draft_sources import CtcText, draft_texts
from finetune.model.granite import SpeechModel, load_model
from finetune.model.prompt import encode_text

VOCABULARY = Path(__file__).resolve().parent.parent / "data" / "vocabulary"
UNCERTAIN = 0.8  # a word with a character below this posterior can be replaced
DISTANCE = 1 / 3  # most edits, as a share of the letters of the word
PROBABILITY = 0.7  # of the characters of a replaced word
SHORTEST, SHORTEST_COMPLETED = 5, 6  # letters
Drafts = Callable[..., list[CtcText]]


def corrected(text: CtcText, words: Counter[str]) -> CtcText:
    """The draft with its uncertain words replaced by the nearest training word, if one is near."""
    parts, probs, place = list[str](), list[float](), 0
    for word in text.text.split(" "):
        found = text.probs[place : place + len(word)]
        place += len(word) + 1
        near = word
        if len(word) >= SHORTEST and word not in words and min(found) < UNCERTAIN:
            near = min(sorted(words), key=lambda other: (Levenshtein.distance(word, other), -words[other]))
            near = near if Levenshtein.distance(word, near) <= max(1, int(len(word) * DISTANCE)) else word
        probs += [1.0] * bool(parts) + (found if near == word else [PROBABILITY] * len(near))
        parts.append(near)
    return CtcText(" ".join(parts), probs, text.entropy)


def measure(
    model: SpeechModel, clips: Sequence[Utterance], drafts: Drafts, completed: Sequence[str]
) -> dict[str, object]:
    """Passes for each clip, the share of accepted tokens, and the texts."""
    phrases = [encode_text(model.tokenizer, space + word) for word in completed for space in (" ", "")]
    with patch.object(recognizer, "draft_texts", drafts), patch.object(recognizer, "_phrases", lambda *_: phrases):
        hypotheses = recognizer.recognize(
            model, clips, DEFAULT_PROFILE.transcribe(), DecodingOptions("speculative", batch_seconds=1.0)
        )
    summary = recognizer.decoding_summary(hypotheses)
    return {"passes": summary["passes"], "accepted": summary["acceptance"], "texts": [row.text for row in hypotheses]}


def main() -> int:
    """Returns 0, or 1 if a draft changed a text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder in hub layout")
    parser.add_argument("--train", type=Path, default=VOCABULARY / "train.jsonl", help="manifest with the words")
    parser.add_argument(
        "manifests", nargs="*", type=Path, default=[VOCABULARY / "test.jsonl", VOCABULARY / "canary.jsonl"]
    )
    args = parser.parse_args()
    rows = map(json.loads, args.train.read_text(encoding="utf-8").splitlines())
    words = Counter(word for row in rows for word in row["text"].split())
    completed = [word for word, _ in words.most_common() if len(word) >= SHORTEST_COMPLETED]
    model, different = load_model(args.model, "float32").eval(), 0

    def from_words(*arguments: object) -> list[CtcText]:
        return [corrected(text, words) for text in draft_texts(*arguments)]  # type: ignore[arg-type]

    for path in args.manifests:
        clips = [replace(item, audio_filepath=str(path.parent / item.audio_filepath)) for item in read_manifest(path)]
        ways: dict[str, tuple[Drafts, list[str]]] = {
            "CTC alone": (draft_texts, []),
            "words": (from_words, []),
            "completion": (draft_texts, completed),
            "both": (from_words, completed),
        }
        results = {name: measure(model, clips, *way) for name, way in ways.items()}
        for name, result in results.items():
            print(f"{path.stem:8} {name:11} {result['passes']:5.2f} passes a clip, {result['accepted']:6.1%} accepted")
            different += result["texts"] != results["CTC alone"]["texts"]
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
