"""The builder of the embedded model: reading clips, growing the encoder, stages that continue exactly, scores."""

import json
import re
import shutil
import subprocess
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from itertools import accumulate, groupby, pairwise, product
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

from build_nano import build, main, newest, parts_of, prepare, save, score
from finetune.core.config import KeywordsSection
from finetune.core.model_limits import read_limits
from finetune.core.prompts import DEFAULT_PROFILE
from finetune.data.audio import SAMPLE_RATE
from finetune.model.conformer import encode
from finetune.model.ctc import to_labels
from finetune.model.granite import EncodedAudio, load_model
from finetune.model.prompt import encode_text
from nano.audio_attention import best_paths
from nano.clips import find_shards, open_clips, split
from nano.copying import CopyRows
from nano.decoder import Decoder
from nano.encoder import ctc_text, describe
from nano.muon import Muon
from nano.plan import LANGUAGES, PLAN, Plan
from nano.rounds import LONGEST, Shares, draw, make_batches
from nano.scaffold import ACCENTS, KANA, Sizes, build_model, build_tokenizer, grow
from nano.sounds import Sounds
from nano.spelled import SpelledRows
from nano.stage import Budget, Losses, OutOfTimeError, Schedule, Stage
from nano.token_loss import add_token_loss

WORDS = {
    "en": "open the door please call me back tomorrow morning with seven green apples and one river",
    "es": "abre la puerta por favor mañana llámame con siete manzanas verdes y un río pequeño",
    "de": "öffne bitte die tür morgen früh ruf mich zurück mit sieben grünen äpfeln und fluss",
}
SMALL = Sizes(blocks=4, width=32, text_width=64, text_layers=2, text_inner=64, key_heads=1, vocabulary=700)
SPLITS = ("train", "dev")
STEPS = {name: Schedule(3, 1e-3) for name in PLAN.schedules}
NO_ROOMS = PLAN.effects.model_copy(update={"rooms": [], "codecs": ["mu-law"]})
TINY = Plan(
    sizes=SMALL,
    schedules=STEPS,
    effects=NO_ROOMS,
    keywords=KeywordsSection(true_terms=0.5, distractors=0.2, largest=10),
    encoder_shares=Shares(LANGUAGES, joined=0.2, no_speech=0.1),
    task_shares=Shares(LANGUAGES, joined=0.2, no_speech=0.1),
    hours=0.01,
    variants=2,
    encoder_limits=(12.0,),
    text_limits=(400.0,),
    align_limits=(20.0, 500.0),
    together_limits=(12.0, 400.0),
    text_copies=4,
    copies=2,
    text_spelled=4,
    spelled=2,
    attention_weight=1.0,
    token_weight=1.0,
    round_seconds=24.0,
    round_items=12,
    max_new_tokens=6,
    kept=0.0,
)


def sentences(language: str, count: int) -> list[str]:
    rng = np.random.default_rng(len(language) + count)
    return [" ".join(rng.choice(WORDS[language].split(), rng.integers(3, 7), replace=False)) for _ in range(count)]


def tone(text: str) -> np.ndarray:
    """Half a second and more, another sound for each letter."""
    hertz = np.repeat([120 + 20 * (ord(char) % 60) for char in text], 700)
    return (8000 * np.sin(2 * np.pi * np.cumsum(hertz) / SAMPLE_RATE)).astype(np.int16)


def write_corpus(cache: Path, languages: dict[str, int], speak=tone) -> None:
    """Texts, phrase book and clips in the format of the build: two shards of each language, two voices a sentence."""
    (cache / "texts").mkdir(parents=True)
    translations = {code: sentences(code, 2000)[1000:] for code in languages}
    book = [
        {"phrase": f"p{n}", **{code: texts[n] for code, texts in translations.items()}, "split": SPLITS[n // 5]}
        for n in range(6)
    ]
    (cache / "texts" / "phrase_book.jsonl").write_text("".join(json.dumps(row) + "\n" for row in book))
    for language, count in languages.items():
        rows = [
            {"id": f"{language}{n}", "text": text, "kind": "common", "source": "test", "split": SPLITS[n < 2]}
            for n, text in enumerate(list(dict.fromkeys(sentences(language, 500)))[:count])
        ]
        rows += [
            {"id": row["phrase"], "text": row[language], "kind": "phrase", "source": "test"}
            | {"phrase": row["phrase"], "split": row["split"]}
            for row in book
        ]
        (cache / "texts" / f"{language}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        folder = cache / "audio" / language
        folder.mkdir(parents=True)
        for shard, part in enumerate((rows[::2], rows[1::2])):
            index, samples, start = [], [], 0
            for row in part:
                for voice in ("tall", "small"):
                    wave = speak(row["text"]) if speak is tone else speak(row["text"], language, voice)
                    spoken = {"start": start, "num_samples": len(wave), "language": language, "voice": voice}
                    index.append({**row, **spoken, "engine": "espeak-ng"})
                    samples.append(wave)
                    start += len(wave)
            np.concatenate(samples).tofile(folder / f"{shard:04d}.i16")
            (folder / f"{shard:04d}.json").write_text(json.dumps(index))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nano")
    write_corpus(folder, {"en": 40, "es": 30, "de": 30})
    return folder


@pytest.fixture(scope="module")
def built(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All stages, without an interruption."""
    folder = copy(cache, tmp_path_factory.mktemp("built") / "nano")
    main(["--cache", str(folder), "--start", "none"], TINY)
    return folder


@pytest.fixture(scope="module")
def side_files(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer of 700 tokens."""
    folder = tmp_path_factory.mktemp("side files")
    texts = {language: sentences(language, 300) for language in WORDS} | {"ja": ["アメリカへいきます"] * 50}
    build_tokenizer(texts, folder, SMALL.vocabulary)
    return folder


def copy(cache: Path, to: Path) -> Path:
    shutil.copytree(cache, to)
    return to


def test_clips_are_read_from_complete_shards(cache: Path, tmp_path: Path) -> None:
    folder = copy(cache, tmp_path / "copy") / "audio"
    (folder / "en" / "0002.i16").write_bytes(b"\0" * 99)  # a shard in the making
    clips = open_clips(folder, find_shards(folder))
    assert len(clips) == 2 * (40 + 30 + 30 + 3 * 6)
    row = clips.ids.index("es4")
    np.testing.assert_array_equal(clips.wave(row), tone(clips.texts[row]).astype(np.float32) / 32768)
    assert (clips.value("language", row), clips.value("voice", row)) == ("es", "tall")
    training, dev = split(clips)
    assert len(training) + len(dev) == len(clips) and not {*training.texts} & {*dev.texts}
    assert len(dev) == 2 * 3 * 3 and dev.columns["split"][0][dev.columns["split"][1][0]] == "dev"
    (folder / "en" / "0001.i16").write_bytes(b"\0" * 99)
    with pytest.raises(SystemExit, match="shorter than its index"):
        open_clips(folder, find_shards(folder))
    with pytest.raises(SystemExit, match="missing, but a stage has begun with it"):
        open_clips(folder, {"en": ["0007"]})


def test_a_round_draws_by_weight_and_joins(cache: Path) -> None:
    clips = open_clips(cache / "audio", find_shards(cache / "audio"))
    shares = Shares({"en": 3.0, "es": 1.0, "ja": 9.0}, {"phrase": 0.0}, joined=0.3, no_speech=0.2)
    items = draw(clips, shares, 400.0, 0, 0)
    seconds = Counter[str]()
    for item in items:
        seconds[item.language] += item.seconds
    assert seconds["en"] + seconds["es"] == pytest.approx(400, abs=12)
    assert seconds["en"] / seconds["es"] == pytest.approx(3, rel=0.1)
    silent = [item for item in items if not item.rows]
    assert len(silent) == round(0.2 * len(items)) and not any(item.text for item in silent)
    assert not any(clips.phrases[row] for item in items for row in item.rows)
    joined = [item for item in items if len(item.rows) > 1]
    assert joined and max(item.seconds for item in items) <= LONGEST
    assert joined[0].text == " ".join(clips.texts[row] for row in joined[0].rows)
    assert len({item.key for item in items}) == len(items)
    assert items == draw(clips, shares, 400.0, 0, 0) != draw(clips, shares, 400.0, 0, 1)
    once = draw(clips, Shares({"en": 1.0}), 20.0, 0, 0)
    assert max(Counter(row for item in once for row in item.rows).values()) == 1


def test_batches_keep_every_limit() -> None:
    rng = np.random.default_rng(0)
    sizes = [(float(a), float(b)) for a, b in rng.uniform(1, 10, (50, 2))]
    batches = make_batches(sizes, (30.0, 25.0), rng)
    assert sorted(row for batch in batches for row in batch) == list(range(50))
    for batch in batches:
        for place, limit in enumerate((30.0, 25.0)):
            assert max(sizes[row][place] for row in batch) * len(batch) <= limit
    assert len(batches) < 40


def test_sounds_depend_on_item_and_epoch_only(cache: Path) -> None:
    clips = open_clips(cache / "audio", find_shards(cache / "audio"))
    items = draw(clips, Shares({"en": 1.0}, joined=0.5, no_speech=0.2), 60.0, 0, 0)
    sounds, again = (Sounds(clips, NO_ROOMS, 1) for _ in range(2))
    waves = [sounds.wave(item) for item in items]
    for item, wave in reversed(list(zip(items, waves, strict=True))):
        np.testing.assert_array_equal(again.wave(item), wave)
        assert np.abs(wave).max() <= 1.5 and np.isfinite(wave).all()
        assert len(wave) >= 0.87 * item.seconds * SAMPLE_RATE
    later = sounds.wave(replace(items[0], epoch=1))
    assert len(later) != len(waves[0]) or not np.array_equal(later, waves[0])


def test_tokenizer_has_every_letter_and_only_that_many_tokens(side_files: Path, tmp_path: Path) -> None:
    model = build_model(side_files, SMALL)
    assert len(model.tokenizer) == 700 == model.lm_head.out_features
    for letter in ACCENTS + KANA:
        assert len(encode_text(model.tokenizer, letter)) == 1, letter
    for text in ("öffne die tür", "アメリカへいきます", "años 12"):
        assert model.tokenizer.decode(encode_text(model.tokenizer, text)) == text
    assert model.tokenizer.model_input_names == ["input_ids", "attention_mask"]
    assert model.audio_token_id == model.tokenizer.convert_tokens_to_ids("<|audio|>") == 699
    with pytest.raises(SystemExit, match="too little text: the tokenizer has only"):
        build_tokenizer({"en": ["a"]}, tmp_path, 2048)


def test_ctc_text_is_in_the_alphabet_of_the_head() -> None:
    assert ctc_text("アメリカへいきます cœur") == "アメリカヘイキマス coeur"
    for text in (ACCENTS, KANA):
        assert to_labels(ctc_text(text))[1] == 0


def test_characters_that_the_head_cannot_write_are_counted(cache: Path) -> None:
    clips = open_clips(cache / "audio", find_shards(cache / "audio"))
    assert describe(clips).startswith("clips for training: de 0.0") and "without" not in describe(clips)
    wrong = replace(clips, texts=["żółw", *clips.texts[1:]])
    assert describe(wrong).endswith("; 2 characters without a CTC label")


def test_a_grown_encoder_computes_the_same(nano: Path, cache: Path, side_files: Path) -> None:
    """Eight blocks from six: the CTC output of the middle layer and of the last one stay."""
    old = load_model(str(nano), "float32")
    blocks = len(old.encoder.layers)
    model = build_model(side_files, replace(SMALL, blocks=blocks + 2, width=old.encoder.input_linear.out_features))
    grow(model, old)
    clips = open_clips(cache / "audio", find_shards(cache / "audio"))
    features, frames = Sounds(clips, NO_ROOMS, 0).features(draw(clips, Shares({"en": 1.0}), 6.0, 0, 0))
    outputs = []
    for each in (old, model):
        with torch.no_grad():
            states, middle = encode(each.encoder.eval(), features, frames)
        outputs.append((each.ctc_logits(states), middle))
    for before, after in zip(*outputs, strict=True):
        assert before.std() > 1
        torch.testing.assert_close(after, before, rtol=0, atol=2e-3 * float(before.std()))
    torch.testing.assert_close(model.projector.query, old.projector.query)
    model.encoder.train()
    model.ctc_logits(encode(model.encoder, features, frames)[0]).square().sum().backward()
    for place in (blocks // 2, blocks + 1):  # the new blocks learn
        assert model.encoder.layers[place].ff2.down_proj.weight.grad.abs().max() > 0
    with pytest.raises(SystemExit, match="more blocks or another width"):
        grow(build_model(side_files, replace(SMALL, width=64)), old)


def test_tasks_of_a_clip(cache: Path) -> None:
    model, tasks = prepare(cache, TINY, None)
    phrase = tasks.phrase_book["p1"]
    groups = Counter[str]()
    for epoch in range(300):
        example = tasks.example("en", phrase["en"], "p1", "clip", epoch)
        groups[example.group] += 1
        text = model.tokenizer.decode(example.target[:-1])
        assert example.target[-1] == model.tokenizer.eos_token_id
        if ">" in example.group:
            code = example.group.partition(">")[2]
            assert text == phrase[code] and example.instruction.startswith("translate the speech to ")
        else:
            assert text == phrase["en"] and bool(example.keywords) == example.group.endswith(" keys")
    assert {*groups} == {"en", "en keys", "en>es", "en>de"}
    assert 0.5 < (groups["en>es"] + groups["en>de"]) / 300 < 0.7
    german = [tasks.example("de", "morgen", "p1", "x", epoch) for epoch in range(30)]
    english = {model.tokenizer.decode(example.target[:-1]) for example in german if example.group == "de>en"}
    assert english == {phrase["en"]}
    nothing = [tasks.example("", "", "", "silence", epoch) for epoch in range(60)]
    assert {len(example.target) for example in nothing} == {1} and any(example.keywords for example in nothing)
    prompt = tasks.prompt(next(example for example in nothing if example.keywords))
    assert " Keywords: " in model.tokenizer.decode(prompt.suffix)
    assert tasks.example("en", "open the door", "", "a", 3) == tasks.example("en", "open the door", "", "a", 3)


def test_copied_rows_are_made_up_words_in_another_order(cache: Path) -> None:
    model, tasks = prepare(cache, TINY, None)
    rows = CopyRows(model.tokenizer, tasks.texts)
    made = rows.rows(60, "a")
    assert made == rows.rows(60, "a") != rows.rows(60, "b")
    known, lengths = {word for texts in tasks.texts.values() for text in texts for word in text.split()}, Counter[int]()
    for prompt, example in made:
        words = model.tokenizer.decode(example.target[:-1]).split()
        assert {*words} <= {*example.keywords} and not prompt.prefix
        assert model.tokenizer.decode(prompt.suffix) == f" Keywords: {', '.join(example.keywords)}\n ASSISTANT:"
        assert len(example.keywords) < 20 or len(words) == 5
        assert len(example.keywords) >= 20 or Counter(words) == Counter([*example.keywords, *example.keywords])
        lengths[len(example.keywords)] += 1
    assert max(lengths) > 20 and min(lengths) == 2 and lengths[2] < 30
    assert sum(word in known for _, example in made for word in example.keywords) < 600
    losses = Losses()
    Decoder(model, tasks).add_copies(losses, 4, "a").backward()
    assert losses.counts["copied"] > 8 and model.lm_head.weight.grad is not None
    assert model.encoder.input_linear.weight.grad is None


class Clock:
    """Time that passes by one minute with each look at it."""

    def __init__(self) -> None:
        self.minutes = 0

    def __call__(self) -> float:
        self.minutes += 1
        return 60.0 * self.minutes


def test_interrupted_stages_give_the_same_weights(
    cache: Path, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, runs = copy(cache, tmp_path / "parts"), 0
    while True:
        runs += 1
        try:
            model = build(folder, TINY, None, Budget(7, now=Clock()))
            break
        except OutOfTimeError:
            assert runs < 40
    assert runs > 5
    whole = prepare(built, TINY, None)[0]
    assert newest(built, whole) == "cool"
    expected = whole.hf.state_dict()
    for name, value in model.hf.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert not list(folder.glob("*.state")) and {path.stem for path in folder.glob("*.pt")} >= {*PLAN.schedules}
    shown = capsys.readouterr().out
    assert all(f"{name}: continues at step" in shown for name in PLAN.schedules)
    assert shown.count(": continues at step 2 of 3") >= 3 and "together: finished before" in shown
    assert "no sentences of fr, pt, ja; they do not train" in shown and "clips for training: de 0.0" in shown
    assert "ctc en" in shown and "min left" in shown and "en keys" in shown


class CountedRounds:
    """Rounds of four batches, which record what they were made from; a new state is a new number."""

    def __init__(self, part: torch.nn.Module) -> None:
        self.part, self.states, self.made = part, 10, list[tuple[int, dict[str, int]]]()

    def state(self) -> dict[str, int]:
        self.states += 1
        return {"shards": self.states}

    def batches(self, number: int, state: dict[str, int]) -> list[float]:
        self.made.append((number, state))
        return [float(state["shards"]), 1.0, 2.0, 3.0]

    def losses(self, batch: float) -> Losses:
        losses = Losses()
        losses.total = (self.part.weight * batch).sum() if batch != 2.0 else self.part.weight.sum() * float("nan")
        return losses


def test_a_stage_keeps_the_inputs_of_its_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What came after the begin of a round is in the next one only, also if the stage was stopped in the round."""
    torch.manual_seed(0)
    parts = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "b": torch.nn.Embedding(1, 1)})
    rounds = CountedRounds(parts["a"])
    for minutes in (6, 8, 1000):
        stage = Stage(tmp_path, "toy", parts, Schedule(7, 1e-3), Budget(minutes, now=Clock()))
        with suppress(OutOfTimeError):
            stage.run(lambda: rounds)
    assert rounds.made[0] == rounds.made[1] == (0, {"shards": 11}) and rounds.made[-1] == (1, {"shards": 12})
    assert {state["shards"] for number, state in rounds.made if number == 0} == {11}
    assert stage.step == 7 and "gradients are not finite; step left out" in capsys.readouterr().out
    assert parts["a"].weight.isfinite().all() and (tmp_path / "toy.pt").exists()
    assert not (tmp_path / "toy.state").exists()


def test_muon_steps_as_torch_does_within_the_rounding_of_bfloat16() -> None:
    torch.manual_seed(0)
    pairs = [[torch.nn.Parameter(torch.randn(shape)) for shape in ((6, 20), (20, 6), (6, 20))]]
    pairs.append([torch.nn.Parameter(param.detach().clone()) for param in pairs[0]])
    ours = Muon(pairs[0], lr=0.1, weight_decay=0.02)
    theirs = torch.optim.Muon(pairs[1], lr=0.1, weight_decay=0.02, adjust_lr_fn="match_rms_adamw")
    for step in range(3):
        before = [param.detach().clone() for param in pairs[0]]
        for params, optim in zip(pairs, (ours, theirs), strict=True):
            for number, param in enumerate(params):
                param.grad = torch.randn(param.shape, generator=torch.Generator().manual_seed(10 * step + number))
            optim.step()
        for old, params in zip(before, zip(*pairs, strict=True), strict=True):
            steps = [param.detach() - old for param in params]
            assert float(steps[0].abs().mean()) > 0.005
            assert float((steps[0] - steps[1]).abs().mean()) < 0.03 * float(steps[0].abs().mean())
            params[1].data.copy_(params[0])


def test_states_of_another_encoder_are_refused(built: Path, tmp_path: Path) -> None:
    folder = copy(built, tmp_path / "copy")
    (folder / "align.pt").unlink()
    (folder / "states" / "1" / "done").unlink()
    content = torch.load(folder / "encoder.pt", weights_only=True)
    content["parts"]["encoder.out.bias"] += 1
    torch.save(content, folder / "encoder.pt")
    with pytest.raises(SystemExit, match="states of another encoder"):
        build(folder, TINY, None, Budget())


def test_score_and_the_saved_model(cache: Path, built: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no stage has stored anything"):
        score(copy(cache, tmp_path / "empty"), TINY, 4)
    folder = copy(built, tmp_path / "copy")
    main(["--cache", str(folder), "--score", "--clips", "2"], TINY)
    scores = json.loads((folder / "scores" / "cool.json").read_text())
    assert {*scores} == {"stage", "audio", "words a minute without speech"}  # there are no held-out voices
    clips = scores["audio"]["clips"]
    assert {*clips} == {f"{language} espeak-ng" for language in WORDS} and {*scores["audio"]["with effects"]} == {
        *WORDS
    }
    assert {"clips", "ctc_cer", "ctc_wer", "llm_cer", "llm_wer"} == {*clips["en espeak-ng"]}
    assert {*scores["audio"]["translation"]} == {"en>es", "en>de", "es>en", "de>en"}
    assert {*scores["words a minute without speech"]} == {"silence", "noise", "music"}
    saved, (model, _) = load_model(str(folder / "model"), "float32"), prepare(folder, TINY, None)
    assert newest(folder, model) == "cool"
    for name, value in saved.hf.state_dict().items():
        torch.testing.assert_close(value, model.hf.state_dict()[name], rtol=1e-3, atol=1e-6)
    written = json.loads((folder / "model" / "config.json").read_text())
    assert written["text_config"]["architectures"] == ["GraniteForCausalLM"] and written["dtype"] == "float32"
    size = (folder / "model" / "model.safetensors").stat().st_size
    assert size < 2.3 * sum(value.numel() for value in model.hf.state_dict().values()) + 60_000
    with torch.no_grad():
        model.lm_head.weight[0, 0] = 1e6
    with pytest.raises(SystemExit, match="does not fit into float16"):
        save(model, tmp_path / "wrong")


def test_a_model_trains_further_with_its_own_tokenizer(cache: Path, built: Path, tmp_path: Path) -> None:
    further = replace(
        TINY,
        sizes=None,
        schedules={"together": Schedule(2, 1e-3)},
        task_shares=Shares({"en": 1.0}),
        spelled=0,
        token_weight=0.0,
    )
    folder, start = copy(cache, tmp_path / "further"), built / "model"
    (folder / "beginning.pt").unlink(missing_ok=True)  # of another test with this cache
    main(["--cache", str(folder), "--start", str(start), "--further"], further=further)
    assert not (folder / "encoder.pt").exists() and (folder / "together.pt").exists()
    for name in ("tokenizer.json", "chat_template.jinja", "processor_config.json"):
        assert (folder / "model" / name).read_bytes() == (start / name).read_bytes()
    limits = read_limits(folder / "model")
    assert limits.keyword_prompts == "untrained" and limits.instruction == DEFAULT_PROFILE.transcribe()
    before, after = (load_model(str(each), "float32").hf for each in (start, folder / "model"))
    changes = [float((new - old).abs().max()) for old, new in zip(before.parameters(), after.parameters(), strict=True)]
    assert 1e-4 < max(changes) < 0.05  # two small steps from the old weights
    assert after.config.text_config.architectures == ["GraniteForCausalLM"]
    main(["--cache", str(folder), "--start", str(start), "--further"], further=replace(further, kept=0.75))
    kept = load_model(str(folder / "model"), "float32").hf
    tensors = (item.state_dict().values() for item in (before, after, kept))
    for old, new, mean in zip(*tensors, strict=True):
        torch.testing.assert_close(
            mean, old + 0.25 * (new - old) if new.is_floating_point() else new, atol=1e-4, rtol=2e-3
        )


def test_token_loss_is_low_where_the_audio_spells_the_text(cache: Path) -> None:
    model, tasks = prepare(cache, TINY, None)
    examples = [tasks.example("es", "abre la puerta por favor", "", str(number), 0) for number in range(2)]
    target = examples[0].target[:-1]
    spoken = [model.audio_token_id, *(token for token in target for _ in range(2)), model.audio_token_id]
    known = model.language_model.get_input_embeddings().weight.detach()
    known[:] = torch.nn.functional.normalize(known, dim=1)

    def loss(tokens: list[int], group: str = "es") -> tuple[float, Losses]:
        embeds = known[tokens].repeat(2, 1, 1).requires_grad_()
        audio = EncodedAudio(embeds, torch.tensor([1, 1]), embeds, torch.tensor([len(tokens)] * 2))
        losses = Losses()
        total = add_token_loss(losses, model, audio, [replace(example, group=group) for example in examples])
        return float(total.detach()), losses

    right, losses = loss(spoken)
    assert losses.counts["tokens"] == 2 * len(target) and right > 0
    assert right < 0.6 * loss(spoken[::-1])[0]
    ignored, losses = loss(spoken, "es>en")
    assert ignored == 0 and not losses.counts


def test_the_best_path_is_that_of_all_paths() -> None:
    """Against a search over every sequence of labels and blanks."""
    log_probs = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    labels, frames = [[1, 1], [2, 3, 1]], [5, 4]
    found = best_paths(log_probs, torch.tensor(frames), labels)
    for row, (wanted, count) in enumerate(zip(labels, frames, strict=True)):
        paths = [path for path in product(range(4), repeat=count) if collapsed(path) == wanted]
        best = max(paths, key=lambda path: sum(float(log_probs[row, t, label]) for t, label in enumerate(path)))
        runs = [list(run) for label, run in groupby(range(count), key=lambda t: best[t]) if label]
        assert found[row] == [(run[0], run[-1]) for run in runs]
    assert best_paths(log_probs, torch.tensor([1, 4]), [[1, 1], []]) == [[], []]


def collapsed(path: tuple[int, ...]) -> list[int]:
    return [label for label, _ in groupby(path) if label]


def test_tokens_are_heard_where_the_ctc_head_has_their_letters(cache: Path) -> None:
    model, tasks = prepare(cache, TINY, None)
    example = tasks.example("es", "abre la puerta", "", "1", 0)
    labels = to_labels("abre la puerta")[0]
    ctc = torch.full((1, 5 * len(labels), 348), -9.0)
    for number, label in enumerate(labels):
        ctc[0, 5 * number, label], ctc[0, 5 * number + 1 : 5 * number + 5, 0] = 9.0, 9.0
    decoder = Decoder(model, tasks)
    frames = torch.tensor([ctc.shape[1]])
    (spans,) = decoder.attention_loss.spans(ctc, frames, [example])
    pieces = [model.tokenizer.decode([token]) for token in example.target[:-1]]
    ends = list(accumulate(map(len, pieces)))  # an audio embedding has 5 frames: one letter
    assert spans == [(n, end - len(piece), end - 1) for n, (piece, end) in enumerate(zip(pieces, ends, strict=True))]
    translated = replace(example, group="es>en")
    assert decoder.attention_loss.spans(ctc, frames, [translated]) == [[]]


def test_the_attention_loss_trains_attention_to_these_places(cache: Path) -> None:
    model, tasks = prepare(cache, TINY, None)
    decoder, losses = Decoder(model, tasks), []
    optimizer = torch.optim.Adam(model.language_model.parameters(), 3e-3)
    for _ in range(40):
        each = Losses()
        decoder.add_spelled(each, 4, "the same").backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(each.sums["places"] / each.counts["places"])
    assert losses[-1] < 0.5 * losses[0]


def test_spelled_rows_have_each_token_in_its_span(cache: Path) -> None:
    model, tasks = prepare(cache, TINY, None)
    rows = SpelledRows(model, tasks)
    made, again, other = (rows.batch(30, key) for key in ("a", "a", "b"))
    assert torch.equal(made.audio.embeds, again.audio.embeds) and made.spans == again.spans
    assert made.examples != other.examples and len(made.examples) > 20
    known = torch.nn.functional.normalize(model.language_model.get_input_embeddings().weight.detach(), dim=1)
    right = total = 0
    for example, spans, embeds in zip(made.examples, made.spans, made.audio.embeds, strict=True):
        assert [number for number, _, _ in spans] == list(range(len(example.target) - 1))
        assert all(before[2] < after[1] for before, after in pairwise(spans))  # one after another
        for number, first, last in spans:
            right += example.target[number] in (embeds[first : last + 1] @ known.T).argmax(1)
            total += 1
    assert 0.6 < right / total < 0.97  # some are missing, wrong or weak


def test_the_model_has_at_most_12_million_parameters(side_files: Path) -> None:
    model = build_model(side_files)
    assert sum(value.numel() for value in model.hf.parameters()) <= 12_000_000
    assert {*parts_of("cool", model).keys()} == {"encoder", "projector", "language_model", "lm_head"}
    assert sum(v.numel() for v in parts_of("cool", model).parameters()) == sum(v.numel() for v in model.hf.parameters())


def speak(text: str, language: str, voice: str) -> np.ndarray:
    """A synthetic voice at 16 kHz: flite for tall English voices, else espeak-ng."""
    if (language, voice) == ("en", "tall"):
        command = ["flite", "-voice", "slt", "-t", text, "-o", "/dev/stdout"]
    else:
        command = ["espeak-ng", "-v", f"{language}+{'m3' if voice == 'tall' else 'f2'}", "--stdout", text]
    wave, rate = soundfile.read(BytesIO(subprocess.run(command, check=True, capture_output=True).stdout), dtype="int16")
    return wave if rate == SAMPLE_RATE else soxr.resample(wave, rate, SAMPLE_RATE)


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("espeak-ng") and shutil.which("flite")), reason="needs espeak-ng and flite")
def test_every_stage_learns_from_speech(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A small model on 300 clips of three languages, in several runs: each stage ends with a lower loss."""
    write_corpus(tmp_path, {"en": 60, "es": 45, "de": 45}, speak)
    schedules = {"encoder": Schedule(200, 4e-3), "text": Schedule(100, 3e-3, 1.0), "align": Schedule(100, 3e-3, 1.0)}
    schedules |= {"together": Schedule(100, 1e-3), "cool": Schedule(50, 1e-3)}
    limits = {"encoder_limits": (24.0,), "align_limits": (60.0, 3000.0), "together_limits": (24.0, 1500.0)}
    plan = replace(TINY, schedules=schedules, hours=0.05, round_seconds=300.0, round_items=100, **limits)
    for minutes in ("0.5", "1", "60"):
        main(["--cache", str(tmp_path), "--start", "none", "--minutes", minutes], plan)
    shown = capsys.readouterr().out
    assert "run the command again to continue" in shown and "finished: " in shown
    for stage, group in (("encoder", "ctc en"), ("text", "es"), ("align", "en")):
        losses = [float(x) for x in re.findall(rf"^{stage} \d+/\d+ .*?(?<![\w>]){group} ([\d.]+)", shown, re.M)]
        assert len(losses) >= 2 and losses[-1] < 0.9 * losses[0], (stage, losses)
