"""Fine-tuning and domain adaptation for IBM Granite Speech.

    import finetune

    model = finetune.load("runs/quickstart/export")
    print(model.transcribe("call.wav").text)

See `finetune.api`. `import finetune` does not import torch; the first use of a name does.
"""

from typing import TYPE_CHECKING, Any

from finetune.version import __version__ as __version__

if TYPE_CHECKING:
    from finetune.api import GraniteSpeech as GraniteSpeech
    from finetune.api import Recipe as Recipe
    from finetune.api import compare as compare
    from finetune.api import evaluate as evaluate
    from finetune.api import export as export
    from finetune.api import load as load
    from finetune.api import prepare as prepare
    from finetune.api import run as run
    from finetune.api import train as train
    from finetune.api import transcribe as transcribe

__all__ = [
    "GraniteSpeech",
    "Recipe",
    "__version__",
    "compare",
    "evaluate",
    "export",
    "load",
    "prepare",
    "run",
    "train",
    "transcribe",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from finetune import api

        return getattr(api, name)
    raise AttributeError(f"module 'finetune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
