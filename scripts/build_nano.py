"""Trains the embedded model `data/granite-speech-nano` from scratch: about four hours on two CPU cores.

    python scripts/build_nano.py --work build/nano

Requires Debian's espeak-ng, flite, fortunes and wordnet-base. Each stage stores its result in the work folder. Rerun a
stopped build to resume: finished stages are skipped. With glibc, memory allocation takes a quarter of the time;
jemalloc (LD_PRELOAD) avoids that.
"""

import argparse
import json
import shutil
from pathlib import Path

import jiwer
import numpy as np
import torch
from transformers import AutoTokenizer

from finetune.model.granite import SpeechModel
from nano.corpus import load, synthesize
from nano.decoder import align, cache_states, pretrain, transcribe
from nano.encoder import evaluate, train
from nano.polish import polish
from nano.scaffold import build_model, build_tokenizer
from nano.text import collect, invent

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "data" / "granite-speech-nano"
DEV = 400  # sentences of each kind that are for evaluation only
EPOCHS = {"encoder": 2.7, "text": 1, "align": 4, "rarer": 1}
ALIGN_RARER = 8000  # rarer sentences in the last pass of stage 2; stage 3 uses all
POLISH = {"polish": (1900, 1.2e-3, 1.0), "cool": (300, 4e-4, 3.0)}  # steps, rate, weight of the CTC losses
Speech = tuple[list[np.ndarray], list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, default=ROOT / "build" / "nano", help="folder for audio and stage results (10 GB)"
    )
    parser.add_argument("--sentences", type=int, default=None, help="limit the sentences of each kind, for a trial")
    args = parser.parse_args()
    work: Path = args.work
    folder = work / "model"
    folder.mkdir(parents=True, exist_ok=True)
    common, rarer = collect()
    dev, training = {}, {}
    for name, texts in {"common": common, "rarer": rarer, "invented": invent(common, rarer)}.items():
        synthesize(texts[: args.sentences], work / name)
        waves, spoken_texts = load(work / name)
        dev_rows = slice(DEV) if name == "common" else slice(-DEV, None)
        train_rows = slice(DEV, None) if name == "common" else slice(-DEV)
        dev[name] = (waves[dev_rows], spoken_texts[dev_rows])
        training[name] = (waves[train_rows], spoken_texts[train_rows])

    build_tokenizer(training["common"][1], folder)
    torch.manual_seed(0)
    hf = build_model()
    model = SpeechModel(hf, AutoTokenizer.from_pretrained(folder), str(folder))
    train(model.encoder, *training["common"], dev["common"], work / "encoder.pt", EPOCHS["encoder"])
    _train_language_model(model, work, training["common"], training["rarer"])
    waves, texts = ([item for speech in training.values() for item in speech[part]] for part in (0, 1))
    for name, (steps, rate, ctc_weight) in POLISH.items():
        polish(model, waves, texts, work / f"{name}.pt", steps, rate, ctc_weight)
    hf.save_pretrained(folder)
    for name, (waves, texts) in dev.items():
        print(name, json.dumps(_scores(model, waves, texts), indent=2))
    TARGET.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name != "generation_config.json":  # the released checkpoint has none
            shutil.copyfile(path, TARGET / path.name)


def _train_language_model(model: SpeechModel, work: Path, common: Speech, rarer: Speech) -> None:
    """Stage 2: trains the language model on text, then projector and language model on cached encoder states."""
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


def _scores(model: SpeechModel, waves: list[np.ndarray], texts: list[str]) -> dict[str, float]:
    """CER and WER of the CTC draft and of the language model, on sentences without training."""
    cer, wer, _ = evaluate(model.encoder, waves, texts)
    hypotheses = transcribe(model, waves)
    llm_cer, llm_wer = jiwer.cer(texts, hypotheses), jiwer.wer(texts, hypotheses)
    return {"ctc_cer": cer, "ctc_wer": wer, "llm_cer": llm_cer, "llm_wer": llm_wer}


if __name__ == "__main__":
    main()
