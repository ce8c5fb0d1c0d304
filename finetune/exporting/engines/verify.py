"""Compares an engine with the toolkit: the same clips, the same prompts, greedy decoding in float32, equal texts."""

import gc
import tempfile
from dataclasses import dataclass
from pathlib import Path

from finetune.core.config import EvaluateSection
from finetune.core.errors import DataError
from finetune.core.model_limits import ADAPTATION
from finetune.core.options import DecodingOptions
from finetune.core.prompts import INSTRUCTION
from finetune.core.run_dir import RunDir
from finetune.data.manifest import Utterance
from finetune.data.normalizer_choice import normalizer_for
from finetune.data.row_prompt import instruction_of
from finetune.exporting.adaptation import Adaptation
from finetune.exporting.engines.registry import ENGINES, HF, gguf_format
from finetune.exporting.engines.run_engine import EngineAnswer, EngineClip, run_engine
from finetune.exporting.engines.sides import sides_of
from finetune.exporting.gguf.formats import WRITERS
from finetune.exporting.gguf.quantize import check_dtype
from finetune.inference.encode import load_waveforms
from finetune.inference.recognize import recognize
from finetune.metrics.wer import score
from finetune.model.granite import SpeechModel
from finetune.model.prompt import render, render_text, user_request


@dataclass(frozen=True)
class Difference:
    """A clip with different texts."""

    id: str
    toolkit: str
    engine: str


@dataclass(frozen=True)
class Verification:
    """An engine compared with the toolkit.

    Attributes:
        engine: Name of the engine.
        format: Format of what the engine read, such as `gguf F32`.
        versions: Version of each of its packages.
        clips: Number of clips.
        equal: Number of clips with equal texts.
        differences: The other clips.
        adapted: Number of clips with another text than the base model's; None if the export is no adapter.
        toolkit_wer: WER of the toolkit's texts, a fraction.
        engine_wer: WER of the engine's texts.
        audio_seconds: Duration of all clips.
        engine_seconds: Computing time of the engine, without loading.
        load_seconds: Time to load the model.
        peak_memory_bytes: Peak resident memory of the engine's process.
    """

    engine: str
    format: str
    versions: dict[str, str]
    clips: int
    equal: int
    differences: list[Difference]
    adapted: int | None
    toolkit_wer: float
    engine_wer: float
    audio_seconds: float
    engine_seconds: float
    load_seconds: float
    peak_memory_bytes: int


def engine_clips(model: SpeechModel, utterances: list[Utterance], instruction: str = INSTRUCTION) -> list[EngineClip]:
    """The clips with the prompts of the toolkit; `instruction` is that of the recipe."""
    clips = []
    for item, samples in zip(utterances, load_waveforms(utterances), strict=True):
        own = instruction_of(item, instruction, model.profile)
        text = render_text(model.tokenizer, own, item.keywords, model.profile)
        prompt = render(model.tokenizer, own, item.keywords, model.profile)
        request = user_request(own, item.keywords, model.profile)
        clips.append(EngineClip(item.id, samples, text, request, (prompt.prefix, prompt.suffix)))
    return clips


def trained_instruction(folder: Path, run: RunDir | None, merged: bool) -> str:
    """The instruction of the recipe of an export; INSTRUCTION for a base model.

    Weights that mlx-audio quantized have no record of their own; the merged model of their run has it.

    Raises:
        ModelError: the record cannot be read.
    """
    source = [] if merged else [(run or RunDir(folder.resolve().parent)).export]
    for path in (place / ADAPTATION for place in (folder, *source)):
        if path.is_file():
            return Adaptation.read(path.parent).recipe.model.instruction
    return INSTRUCTION


def verify(
    folder: Path,
    engine: str,
    python: Path,
    utterances: list[Utterance],
    gguf_dtype: str,
    timeout: float,
    run: RunDir | None = None,
    max_new_tokens: int = DecodingOptions().max_new_tokens,
) -> Verification:
    """Transcribes clips with the toolkit and with an engine, and compares.

    Args:
        folder: An export in a format that the engine reads.
        engine: A name of `ENGINES`.
        python: The interpreter of the engine's environment.
        utterances: Clips with references.
        gguf_dtype: Data type of the GGUF files that an engine reads; they are written for the comparison if `folder`
            is a merged model.
        timeout: Seconds that the engine may take.
        run: The run that an adapter or quantized weights are compared with; by default the one that holds the folder.
        max_new_tokens: Longest text of a clip, here and in the engine.

    Raises:
        DataError: there is no clip, or audio that cannot be read.
        ModelError, CheckpointError: the folder or its run cannot be loaded, or the engine failed.
    """
    if not utterances:
        raise DataError("there is no clip to compare")
    options = DecodingOptions("greedy", max_new_tokens=max_new_tokens)
    sides = sides_of(folder, engine, run)
    instruction = trained_instruction(folder, run, sides.format == HF)
    with tempfile.TemporaryDirectory(prefix="finetune-verify-") as work:
        request, read = dict(sides.request), sides.format
        if sides.format == HF and (kind := gguf_format(engine)):  # first, because it can fail
            check_dtype(kind, gguf_dtype)
            WRITERS[kind](folder, Path(work), gguf_dtype)
            request["gguf"], read = work, f"{kind} {gguf_dtype}"
        model = sides.load()
        clips = engine_clips(model, utterances, instruction)
        texts = _texts(model, utterances, instruction, options)
        del model
        gc.collect()  # its modules refer to each other, and its files stay mapped until they are gone
        base = _texts(sides.load_base(), utterances, instruction, options) if sides.load_base else None
        answer = run_engine(python, ENGINES[engine].runner, request, clips, options.max_new_tokens, Path(work), timeout)
    return _compare(engine, read, answer, utterances, texts, base)


def _texts(
    model: SpeechModel, utterances: list[Utterance], instruction: str, options: DecodingOptions
) -> dict[str, str]:
    return {row.id: row.text for row in recognize(model, utterances, instruction, options)}


def _compare(
    engine: str,
    read: str,
    answer: EngineAnswer,
    utterances: list[Utterance],
    texts: dict[str, str],
    base: dict[str, str] | None,
) -> Verification:
    written = {name: " ".join(text.split()) for name, text in answer.texts.items()}  # one line, as the toolkit's
    differences = [
        Difference(item.id, texts[item.id], written[item.id])
        for item in utterances
        if texts[item.id] != written[item.id]
    ]
    references = [item.text for item in utterances]
    preset = normalizer_for(utterances, EvaluateSection.model_fields["normalizer"].default)
    return Verification(
        engine=engine,
        format=read,
        versions=answer.versions,
        clips=len(utterances),
        equal=len(utterances) - len(differences),
        differences=differences,
        adapted=None if base is None else sum(texts[name] != text for name, text in base.items()),
        toolkit_wer=score(references, [texts[item.id] for item in utterances], preset).wer,
        engine_wer=score(references, [written[item.id] for item in utterances], preset).wer,
        audio_seconds=sum(item.duration for item in utterances),
        engine_seconds=sum(answer.seconds.values()),
        load_seconds=answer.load_seconds,
        peak_memory_bytes=answer.peak_memory_bytes,
    )
