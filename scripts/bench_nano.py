"""Scores a small model on the sets by which the embedded model is chosen and described.

    python scripts/bench_nano.py                                       # data/granite-speech-nano
    python scripts/bench_nano.py build/nano/model --cache build/nano   # a model of build_nano.py, also held-out voices

WER in per cent of the language model (greedy, or beam search with the CTC head) and of the CTC head, and words in a
minute without speech, also with the guard of `finetune transcribe`. Telephone prompts need `scripts/fetch_ivr`,
held-out voices `build_audio.py --held-out`; what is missing is left out.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import finetune
from finetune.core.errors import DataError
from finetune.data.audio import SAMPLE_RATE
from finetune.data.manifest import Utterance
from finetune.evaluation.utterances import read_utterances
from finetune.inference.encode import load_waveforms
from finetune.inference.saved_options import options_for
from finetune.metrics.wer import score
from finetune.model.granite import load_model
from nano.clips import find_shards, open_clips
from nano.scores import ClipTranscriber, Wave, no_speech_waves, score_no_speech, words_in_a_minute
from nano.tasks import DEFAULT_NORMALIZER

DATA = Path(__file__).resolve().parents[1] / "data"
CHOICE = (("replay", "vocabulary/replay", 120), ("valid", "vocabulary/valid", 50), ("IVR valid", "ivr-en/valid", 33))
TEST = (("canary", "vocabulary/canary", 80), ("test", "vocabulary/test", 132), ("IVR test", "ivr-en/test", 61))
HELD_OUT = 100  # clips of held-out voices that choose; as many others test
MAX_NEW_TOKENS = 100
Set = tuple[str, list[Utterance], Callable[[str], Wave]]


def manifest_sets() -> Iterator[Set]:
    """About so many clips of each manifest whose audio is there, evenly spaced."""
    for name, path, most in (*CHOICE, *TEST):
        try:
            items = read_utterances(DATA / f"{path}.jsonl")
        except DataError as error:  # the audio was not fetched
            print(f"{name}: left out ({str(error).splitlines()[0][:80]})")
            continue
        items = items[:: max(1, len(items) // most)]
        by_id = {item.id: item for item in items}
        yield name, items, lambda chosen, by_id=by_id: load_waveforms([by_id[chosen]])[0]


def held_out_sets(cache: Path) -> Iterator[Set]:
    """Two halves of the clips by voices that did not train, in a random order."""
    clips = open_clips(cache / "heldout", find_shards(cache / "heldout"))
    order = np.random.default_rng(0).permutation(len(clips))
    for name, rows in (("held-out voices, choice", order[HELD_OUT:]), ("held-out voices, test", order[:HELD_OUT])):
        items = [
            Utterance(str(row), "", clips.num_samples[row] / SAMPLE_RATE, clips.texts[row])
            for row in np.sort(rows).tolist()
        ]
        yield name, items, lambda chosen: clips.wave(int(chosen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=str(DATA / "granite-speech-nano"))
    parser.add_argument("--cache", type=Path, help="folder of build_audio.py, for held-out voices")
    parser.add_argument("--decoder", choices=("greedy", "beam"), default="greedy", help="(default %(default)s)")
    args = parser.parse_args()
    model = load_model(args.model, "float32")
    for name, items, wave in (*manifest_sets(), *(held_out_sets(args.cache) if args.cache else ())):
        drafts, texts = ClipTranscriber(model, wave, MAX_NEW_TOKENS, args.decoder).transcribe(items)
        references = [item.text for item in items]
        llm, ctc = (100 * score(references, found, DEFAULT_NORMALIZER).wer for found in (texts, drafts))
        print(f"{name}, {len(items)} clips: language model {llm:.1f}, CTC {ctc:.1f}", flush=True)
    print("words in a minute:", score_no_speech(model, MAX_NEW_TOKENS, decoder=args.decoder))
    granite, waves = finetune.GraniteSpeech(model, options_for(args.model)), no_speech_waves()
    arrays = [{"array": wave, "sampling_rate": SAMPLE_RATE} for wave in waves.values()]
    texts = [found.text for found in granite.transcribe(arrays, decoder=args.decoder)]
    print("with the guard of finetune transcribe:", words_in_a_minute(dict(zip(waves, texts, strict=True))))


if __name__ == "__main__":
    main()
