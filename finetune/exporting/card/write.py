"""Writes the model card of each format of an export, and the result on a benchmark."""

from dataclasses import replace
from pathlib import Path

from huggingface_hub import snapshot_download

from finetune.core.config import Recipe
from finetune.core.files import read_json, write_text
from finetune.core.layouts import BPE_HEAD
from finetune.core.model_limits import ADAPTATION, ModelLimits
from finetune.core.prompts import DEFAULT_PROFILE, PromptProfile, profile_of
from finetune.core.run_dir import RunDir
from finetune.exporting.adaptation import Adaptation
from finetune.exporting.card.model_card import CardFormat, card_facts, model_card
from finetune.exporting.card.usage import PROMPT_ABOVE, llamacpp_prompt, usage
from finetune.exporting.eval_results import benchmark_of, eval_result
from finetune.exporting.publish.private_paths import shortened_text

CARD = "README.md"
GGUF_USAGE = """The language model, and encoder with projector (`mmproj`), for llama.cpp:

```
llama-mtmd-cli -m model-DTYPE.gguf --mmproj mmproj-DTYPE.gguf --audio clip.wav {llamacpp_prompt}
```
"""
ONNX_USAGE = """For onnxruntime, in float32: `audio.onnx` is encoder with projector, `embedding.onnx` embeds tokens,
`decoder.onnx` the language model with its cache; `onnx.json` has the sizes. The log-mel features are those of the
processor of the base model (`preprocessor_config.json`). Use {prompt_above}.
"""
CRISPASR_USAGE = """For CrispASR, which writes the prompt by itself:

```
crispasr --backend granite -m granite-speech-DTYPE.gguf -f clip.wav
```
"""
GGUF_CARD = CardFormat("gguf", "finetune", " (GGUF)", GGUF_USAGE)
CRISPASR_CARD = CardFormat("gguf", "finetune", " (CrispASR)", CRISPASR_USAGE)
ONNX_CARD = CardFormat("onnx", "finetune", " (ONNX)", ONNX_USAGE)


def write_merged_card(folder: Path, recipe: Recipe, run: RunDir, base: Path, limits: ModelLimits) -> None:
    """Writes the card of a merged model, and `.eval_results/` if its test set is a data set of the hub.

    Raises:
        CheckpointError: a record or the evaluation of the run is damaged.
        DataError: a manifest is damaged.
    """
    facts = card_facts(recipe, run, base, limits, card_profile(recipe, base))
    window = limits.with_window(recipe.decode).max_window
    how = usage(recipe.model.instruction, facts.profile, window, recipe.decode.max_new_tokens)
    write_text(folder / CARD, shortened_text(model_card(facts, CardFormat("transformers", "finetune", "", how))))
    benchmark = benchmark_of(recipe.data.test)
    if facts.results and benchmark and not facts.results.scores["test"].adapted.without_words:
        scores, made = facts.results.scores["test"].adapted, facts.results.provenance.made
        name, text = eval_result(benchmark, scores, made, with_terms=bool(recipe.decode.terms))
        write_text(folder / name, text)


def write_adapter_card(folder: Path, recipe: Recipe, run: RunDir, base: Path, limits: ModelLimits, how: str) -> None:
    """Writes the card of an adapter; `how` says how to load it, and keeps its paths. Raises as `write_merged_card`."""
    facts = card_facts(recipe, run, base, limits, card_profile(recipe, base))
    mark = "<!-- use -->"
    card = shortened_text(model_card(facts, CardFormat("peft", "adapter", " (adapter)", mark)))
    write_text(folder / CARD, card.replace(mark, how))


def write_converted_card(folder: Path, run: RunDir, form: CardFormat) -> None:
    """Writes the card of files that were made from the merged export of a run, if it has a record."""
    if not (run.export / ADAPTATION).is_file():
        return
    adaptation = Adaptation.read(run.export)
    recipe, base = adaptation.recipe, _stored_base(adaptation) or run.export
    facts = card_facts(recipe, run, base, adaptation.limits, card_profile(recipe, run.export))
    prompt = llamacpp_prompt(recipe.model.instruction, facts.profile)
    form = replace(form, usage=form.usage.format(llamacpp_prompt=prompt, prompt_above=PROMPT_ABOVE))
    write_text(folder / CARD, shortened_text(model_card(facts, form)))


def _stored_base(adaptation: Adaptation) -> Path | None:
    """The folder of the base model, without a download; None if it is not on this machine any more."""
    if Path(adaptation.base).is_dir():
        return Path(adaptation.base)
    try:
        return Path(snapshot_download(adaptation.base, revision=adaptation.revision, local_files_only=True))
    except (OSError, ValueError):  # not in the cache, or not the name of a repository
        return None


def export_profile(adaptation: Adaptation, folder: Path) -> PromptProfile:
    """The prompts of an export; an adapter or a converted model has no `config.json`, and those of its base."""
    source = folder if (folder / "config.json").is_file() else _stored_base(adaptation)
    return card_profile(adaptation.recipe, source) if source else DEFAULT_PROFILE


def card_profile(recipe: Recipe, folder: Path) -> PromptProfile:
    """The prompts of the model of a recipe, with the files of the model in `folder`."""
    return profile_of(recipe.model.base, read_json(folder / "config.json"), (folder / BPE_HEAD).is_file())
