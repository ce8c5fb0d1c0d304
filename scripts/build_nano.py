"""Builds the embedded model `data/granite-speech-nano` from nothing: about three hours on two CPU cores.

    python scripts/build_nano.py --work build/nano

Needs Debian's espeak-ng, flite, fortunes and wordnet-base. Each stage leaves its result in the work
folder and is skipped when it is there, so a stopped build goes on where it was. Memory allocation is a
quarter of the time with glibc; jemalloc (LD_PRELOAD) gives it back.
"""

import argparse
import json
import shutil
from pathlib import Path

import jiwer
import numpy as np
import torch
from transformers import AutoTokenizer

from finetune.model.granite import GraniteSpeech
from nano.corpus import load, synthesize
from nano.decoder import align, cache_states, pretrain, transcribe
from nano.encoder import evaluate, train
from nano.scaffold import build_model, build_tokenizer
from nano.text import collect

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "data" / "granite-speech-nano"
DEV = 400  # the first sentences of the shuffled collection are heard only in the evaluation
EPOCHS = {"encoder": 2.7, "text": 1, "align": 4, "rarer": 1}
Spoken = tuple[list[np.ndarray], list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "nano", help="audio and stages (4 GB)")
    parser.add_argument("--sentences", type=int, default=None, help="fewer sentences, for a trial")
    arguments = parser.parse_args()
    work: Path = arguments.work
    folder = work / "model"
    folder.mkdir(parents=True, exist_ok=True)
    spoken = []
    for name, texts in zip(("common", "rarer"), collect(), strict=True):
        synthesize(texts[: arguments.sentences], work / name)
        spoken.append(load(work / name))
    (waves, texts), rarer = spoken
    dev, common = (waves[:DEV], texts[:DEV]), (waves[DEV:], texts[DEV:])

    build_tokenizer(common[1], folder)
    torch.manual_seed(0)
    hf = build_model()
    model = GraniteSpeech(hf, AutoTokenizer.from_pretrained(folder), str(folder))
    train(model.encoder, *common, dev, work / "encoder.pt", EPOCHS["encoder"])
    _read(model, work, common, rarer)
    hf.save_pretrained(folder)
    print(json.dumps(_scores(model, *dev), indent=2))
    TARGET.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name != "generation_config.json":  # the real checkpoint has none
            shutil.copyfile(path, TARGET / path.name)


def _read(model: GraniteSpeech, work: Path, common: Spoken, rarer: Spoken) -> None:
    """Stage 2: the language model on text, then projector and language model on cached encoder states."""
    llm = work / "text.pt"
    if llm.exists():
        model.hf.load_state_dict(torch.load(llm, weights_only=True), strict=False)
    else:
        pretrain(model, common[1], EPOCHS["text"])
        keep = {k: v for k, v in model.hf.state_dict().items() if "language_model" in k or "lm_head" in k}
        torch.save(keep, llm)
    states = []
    for name, (waves, _) in (("common", common), ("rarer", rarer)):
        cache = work / f"{name}.states.pt"
        if not cache.exists():
            torch.save(cache_states(model, waves), cache)
        states.append(torch.load(cache, weights_only=True))
    align(model, states[0], common[1], work / "align.pt", EPOCHS["align"], rate=3e-3)
    align(model, states[0] + states[1], common[1] + rarer[1], work / "rarer.pt", EPOCHS["rarer"], rate=1.2e-3)


def _scores(model: GraniteSpeech, waves: list[np.ndarray], texts: list[str]) -> dict[str, float]:
    """CER and WER on unseen sentences: the CTC draft and the language model."""
    cer, wer, _ = evaluate(model.encoder, waves, texts)
    heard = transcribe(model, waves)
    return {"ctc_cer": cer, "ctc_wer": wer, "llm_cer": jiwer.cer(texts, heard), "llm_wer": jiwer.wer(texts, heard)}


if __name__ == "__main__":
    main()
