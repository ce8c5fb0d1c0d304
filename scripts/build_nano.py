"""Trains the embedded model `data/granite-speech-nano`: hours on two CPU cores, in as many parts as you like.

    python scripts/build_nano.py --minutes 120     # stops after that time; rerun to continue exactly there
    python scripts/build_nano.py --score           # scores of the last finished or unfinished stage
    python scripts/build_nano.py --further         # only trains the embedded model further, with its own tokenizer

It reads sentences (`texts/`) and clips (`audio/`) in the cache folder. Each stage stores its weights there every few
minutes, and a finished stage is skipped. A round of a stage begins with the clips that exist then, so more clips can
be added between rounds. Requires the extra `rooms`.
"""

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from finetune.core.model_limits import write_limits
from finetune.data.effects.sources import check_augmentation
from finetune.model.granite import SpeechModel, load_model
from finetune.training.signals import interruptible
from nano.clips import find_shards, open_clips, split
from nano.decoder import Decoder
from nano.encoder import EncoderRounds
from nano.limits import limits_of
from nano.plan import FURTHER, PLAN, Plan, scaled
from nano.scaffold import build_model, build_tokenizer, copy_model, grow, keep
from nano.scores import CLIPS, score_clips, score_no_speech
from nano.sentences import SentenceRounds, SpelledRounds, read_phrase_book, read_texts
from nano.stage import Budget, OutOfTimeError, Rounds, Stage, load_weights, write_atomically
from nano.states import StateRounds, store_states
from nano.tasks import Tasks
from nano.together import TogetherRounds

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "data" / "granite-speech-nano"
PARTS = {  # of each stage; the names are those of the properties of SpeechModel
    "encoder": ("encoder",),
    "text": ("language_model", "lm_head"),
    "spelled": ("language_model", "lm_head"),
    "align": ("projector", "language_model", "lm_head"),
    "together": ("encoder", "projector", "language_model", "lm_head"),
    "cool": ("encoder", "projector", "language_model", "lm_head"),
}
WITH_AUDIO = ("align", "together", "cool")  # after these the language model has been trained with audio


def parts_of(stage: str, model: SpeechModel) -> torch.nn.ModuleDict:
    """What a stage trains."""
    return torch.nn.ModuleDict({name: getattr(model, name) for name in PARTS[stage]})


def prepare(cache: Path, plan: Plan, start: Path | None) -> tuple[SpeechModel, Tasks]:
    """The model before the first stage, which is stored once with its tokenizer, and the tasks."""
    languages = list(plan.task_shares.languages)
    texts = read_texts(cache / "texts", languages)
    if missing := [language for language in languages if language not in texts]:
        print(f"{cache / 'texts'}: no sentences of {', '.join(missing)}; they do not train", flush=True)
    folder, beginning = cache / "model", cache / "beginning.pt"
    if plan.sizes is None:
        model = copy_model(start or TARGET, folder)
    else:
        if not (folder / "chat_template.jinja").exists():  # written last
            build_tokenizer(texts, folder, plan.sizes.vocabulary)
        model = build_model(folder, plan.sizes)
    if not beginning.exists():
        if start and plan.sizes:
            grow(model, load_model(str(start), "float32"))
        write_atomically(beginning, {"parts": model.hf.state_dict()})
    load_weights(beginning, model.hf)
    model.hf.requires_grad_(True)
    return model, Tasks(model.tokenizer, texts, read_phrase_book(cache / "texts"), plan.keywords)


def build(cache: Path, plan: Plan, start: Path | None, budget: Budget) -> SpeechModel:
    """Runs all stages that are not finished.

    Raises:
        OutOfTimeError: the budget is over.
    """
    model, tasks = prepare(cache, plan, start)
    audio, states, decoder = cache / "audio", cache / "states", Decoder(model, tasks, plan.attention_weight)

    def stored_states() -> StateRounds:
        store_states(model, cache / "encoder.pt", audio, states, plan, budget)
        return StateRounds(decoder, states, plan, 4)

    rounds: dict[str, Callable[[], Rounds[Any]]] = {
        "encoder": lambda: EncoderRounds(model, audio, plan, plan.encoder_shares, 1),
        "text": lambda: SentenceRounds(decoder, plan, 2),
        "spelled": lambda: SpelledRounds(decoder, plan, 3),
        "align": stored_states,
        "together": lambda: TogetherRounds(decoder, audio, plan, 1.0, 5),
        "cool": lambda: TogetherRounds(decoder, audio, plan, 3.0, 6),
    }
    for name, schedule in plan.schedules.items():
        Stage(cache, name, parts_of(name, model), schedule, budget).run(rounds[name])
    return model


def save(model: SpeechModel, folder: Path) -> None:
    """Writes config and weights to `folder`; the weights as float16, which libraries load as float32 by the config.

    Raises:
        SystemExit: a weight does not fit into float16.
    """
    weights = {
        name: value.half() if value.is_floating_point() else value for name, value in model.hf.state_dict().items()
    }
    wrong = [name for name, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
    if wrong:
        raise SystemExit(f"{wrong[0]} does not fit into float16")
    model.hf.save_pretrained(folder, state_dict=weights)
    (folder / "generation_config.json").unlink(missing_ok=True)  # the released checkpoint has none


def newest(cache: Path, model: SpeechModel) -> str:
    """Loads the weights of the stages that were run, also those of an unfinished one; returns the name of the last."""
    found = ""
    for name in PARTS:
        if any(load_weights(cache / f"{name}.{suffix}", parts_of(name, model)) for suffix in ("pt", "state")):
            found = name
    return found


def score(cache: Path, plan: Plan, limit: int) -> None:
    """Prints the scores of the newest weights, and writes them to `scores/STAGE.json`.

    Raises:
        SystemExit: no stage has begun.
    """
    model, tasks = prepare(cache, plan, None)
    stage = newest(cache, model)
    if not stage:
        raise SystemExit(f"{cache}: no stage has stored anything yet")
    result: dict[str, Any] = {"stage": stage}
    tokens = plan.max_new_tokens if stage in WITH_AUDIO else 0
    for folder in ("audio", "heldout"):  # sentences that did not train, by voices that did, and by others
        clips = split(open_clips(cache / folder, find_shards(cache / folder)))[1]
        if len(clips):
            result[folder] = score_clips(model, clips, tasks, plan.effects, tokens, limit)
    result["words a minute without speech"] = score_no_speech(model, tokens)
    text = json.dumps(result, indent=2, ensure_ascii=False)
    (cache / "scores").mkdir(exist_ok=True)
    (cache / "scores" / f"{stage}.json").write_text(text + "\n", encoding="utf-8")
    print(text)


def main(argv: list[str] | None = None, plan: Plan = PLAN, further: Plan = FURTHER) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "nano", help="folder of texts, audio and stages")
    parser.add_argument("--further", action="store_true", help="train --start itself further instead of a new model")
    parser.add_argument("--kept", type=float, help="with --further: share of the weights before, instead of the plan's")
    parser.add_argument("--minutes", type=float, help="stop after this time")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of the steps of every stage (default 1)")
    parser.add_argument(
        "--start", default=str(TARGET), help="model whose encoder is the beginning; `none` trains from scratch"
    )
    parser.add_argument("--install", action="store_true", help=f"copy the finished model to {TARGET.relative_to(ROOT)}")
    parser.add_argument("--score", action="store_true", help="score the newest weights, and train nothing")
    parser.add_argument("--clips", type=int, default=CLIPS, help=f"with --score: clips of each set (default {CLIPS})")
    args = parser.parse_args(argv)
    plan = scaled(further if args.further else plan, args.scale)
    check_augmentation(plan.effects)
    if args.score:
        score(args.cache, plan, args.clips)
        return
    start = None if args.start == "none" else Path(args.start)
    with interruptible() as stop:
        try:
            model = build(args.cache, plan, start, Budget(args.minutes, stop))
        except OutOfTimeError as reason:
            print(f"{reason}; run the command again to continue", flush=True)
            return
    if kept := plan.kept if args.kept is None else args.kept:
        keep(model, torch.load(args.cache / "beginning.pt", weights_only=True)["parts"], kept)
    save(model, args.cache / "model")
    print(f"finished: {args.cache / 'model'}")
    write_limits(args.cache / "model", limits_of(model, ROOT / "data" / "vocabulary"))
    if args.install:
        for path in (args.cache / "model").iterdir():
            shutil.copyfile(path, TARGET / path.name)


if __name__ == "__main__":
    main()
