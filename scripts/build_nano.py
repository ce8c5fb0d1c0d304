"""Builds the embedded model `data/granite-speech-nano` from nothing: about four hours on two CPU cores.

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
from nano.polish import polish
from nano.scaffold import build_model, build_tokenizer
from nano.text import collect, invent

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "data" / "granite-speech-nano"
DEV = 400  # that many sentences of each kind are heard only in the evaluation
EPOCHS = {"encoder": 2.7, "text": 1, "align": 4, "rarer": 1}
ALIGN_RARER = 8000  # how many rarer sentences the last pass of stage 2 hears; stage 3 hears all
POLISH = {"polish": (1900, 1.2e-3, 1.0), "cool": (300, 4e-4, 3.0)}  # steps, rate, weight of the CTC losses
Spoken = tuple[list[np.ndarray], list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "nano", help="audio and stages (10 GB)")
    parser.add_argument("--sentences", type=int, default=None, help="fewer sentences of each kind, for a trial")
    arguments = parser.parse_args()
    work: Path = arguments.work
    folder = work / "model"
    folder.mkdir(parents=True, exist_ok=True)
    common, rarer = collect()
    dev, spoken = {}, {}
    for name, texts in {"common": common, "rarer": rarer, "invented": invent(common, rarer)}.items():
        synthesize(texts[: arguments.sentences], work / name)
        waves, said = load(work / name)
        heard = slice(DEV) if name == "common" else slice(-DEV, None)
        kept = slice(DEV, None) if name == "common" else slice(-DEV)
        dev[name], spoken[name] = (waves[heard], said[heard]), (waves[kept], said[kept])

    build_tokenizer(spoken["common"][1], folder)
    torch.manual_seed(0)
    hf = build_model()
    model = GraniteSpeech(hf, AutoTokenizer.from_pretrained(folder), str(folder))
    train(model.encoder, *spoken["common"], dev["common"], work / "encoder.pt", EPOCHS["encoder"])
    _read(model, work, spoken["common"], spoken["rarer"])
    waves, texts = ([item for spoken_kind in spoken.values() for item in spoken_kind[part]] for part in (0, 1))
    for name, (steps, rate, ctc_weight) in POLISH.items():
        polish(model, waves, texts, work / f"{name}.pt", steps, rate, ctc_weight)
    hf.save_pretrained(folder)
    for name, (waves, texts) in dev.items():
        print(name, json.dumps(_scores(model, waves, texts), indent=2))
    TARGET.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name != "generation_config.json":  # the real checkpoint has none
            shutil.copyfile(path, TARGET / path.name)


def _read(model: GraniteSpeech, work: Path, common: Spoken, rarer: Spoken) -> None:
    """Stage 2: the language model on text, then projector and language model on cached encoder states."""
    if (work / "polish.pt").exists():
        return
    llm = work / "text.pt"
    if llm.exists():
        model.hf.load_state_dict(torch.load(llm, weights_only=True), strict=False)
    else:
        pretrain(model, common[1], EPOCHS["text"])
        keep = {k: v for k, v in model.hf.state_dict().items() if "language_model" in k or "lm_head" in k}
        torch.save(keep, llm)
    rarer = (rarer[0][:ALIGN_RARER], rarer[1][:ALIGN_RARER])
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
