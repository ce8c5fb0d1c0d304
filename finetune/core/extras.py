"""Imports optional packages; a missing one is an error with the pip command that installs its extra."""

from importlib import import_module
from types import ModuleType

from finetune.core.errors import MissingExtraError

DISTRIBUTION = "finetune-granite-speech"


def require(module: str, *, extra: str) -> ModuleType:
    """Imports an optional module.

    Args:
        module: Import name, such as `matplotlib` or `sacrebleu.metrics.bleu`.
        extra: The extra of pyproject.toml that installs it.

    Raises:
        MissingExtraError: The module, or a package that it needs, is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = (error.name or module).partition(".")[0]
        raise MissingExtraError(f"{package} is not installed; run: pip install '{DISTRIBUTION}[{extra}]'") from error
