"""Fine-tuning and domain adaptation for IBM Granite Speech.

From Python: `finetune.transcribe(paths, model=...)`, see `finetune.api`.
"""

from typing import TYPE_CHECKING, Any

from finetune.version import __version__ as __version__

if TYPE_CHECKING:
    from finetune.api import transcribe as transcribe
    from finetune.inference.transcribe import load as load


def __getattr__(name: str) -> Any:
    """Imports torch only when the API is used."""
    if name in ("transcribe", "load"):
        from finetune import api

        return getattr(api, name)
    raise AttributeError(f"module 'finetune' has no attribute {name!r}")
