"""A base in bfloat16 files trains in float32 on a CPU with its frozen weights in bfloat16: as if loaded in float32."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from training_runs import prepared, weights

from finetune.core.config import Recipe
from finetune.core.run_dir import RunDir
from finetune.model.float32 import load_for_training, train_in_float32
from finetune.model.granite import SpeechModel
from finetune.training.trainer import Trainer

Tiny = Callable[..., Recipe]
Trained = tuple[Recipe, RunDir, SpeechModel]


def with_dtype(recipe: Recipe, base: Path, dtype: str) -> Recipe:
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"base": str(base), "dtype": dtype})})


@pytest.mark.parametrize(
    ("parts", "checkpointing"),
    [
        (None, False),
        ({"lora": {"rank": 4}}, True),
        ({"projector": {"mode": "full"}, "lora": {"variant": "dora"}}, False),
    ],
)
def test_the_adapter_is_that_of_float32_bit_for_bit(
    parts: dict[str, object] | None, checkpointing: bool, trained: Trained, tiny: Tiny, narrow: Path, tmp_path: Path
) -> None:
    """From the same start: PEFT rounds the random start of LoRA to the type of the stored weight, as on a GPU."""
    start, found = dict[str, Tensor](), list[dict[str, Tensor]]()
    for dtype in ("auto", "float32"):
        made = tiny(tmp_path / dtype, "x", parts, {"gradient_checkpointing": checkpointing}, epochs=1)
        run = prepared(trained[1], tmp_path / dtype)
        trainer = Trainer(with_dtype(made, narrow, dtype), run)
        frozen = {value.dtype for value in trainer.model.hf.parameters() if not value.requires_grad}
        assert frozen == {torch.float32 if dtype == "float32" else torch.bfloat16}
        assert {value.dtype for value in trainer.parameters.values()} == {torch.float32}
        for name, value in trainer.parameters.items():
            value.data.copy_(start.setdefault(name, value.detach().clone()))
        trainer.fit()
        found.append(weights(run))
    assert found[0].keys() == found[1].keys() == start.keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in start)
    assert not all(torch.equal(found[0][name], start[name]) for name in start)


def test_layers_keep_only_the_stored_weight_for_the_backward_pass(narrow: Path) -> None:
    model = load_for_training(str(narrow), "auto", "cpu")
    train_in_float32(model)
    layer, x = model.language_model.layers[0].mlp.up_proj, torch.randn(2, 3, 192, requires_grad=True)
    saved = list[Tensor]()

    def keep(value: Tensor) -> Tensor:
        saved.append(value)
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        out = layer(x)
    assert [value.dtype for value in saved] == [torch.bfloat16]
    out.sum().backward()
    expected = torch.ones_like(out) @ layer.weight
    assert x.grad is not None and torch.equal(x.grad, expected) and layer.weight.dtype == torch.float32
