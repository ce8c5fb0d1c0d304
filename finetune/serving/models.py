"""The models that a server offers, by name: the base, and each adapter."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from finetune.core.model_limits import ModelLimits, read_limits
from finetune.core.options import TranscribeOptions
from finetune.inference.keyword_warning import option_warnings
from finetune.inference.saved_options import options_for
from finetune.inference.transcribe import check_prompt
from finetune.inference.window_batches import Result, Window, transcribe_windows
from finetune.model.granite import SpeechModel, default_device, load_model
from finetune.serving.errors import ApiError

EXPORT = "export"  # the name of every exported folder; the name of its run says more


@dataclass(eq=False)
class ServedModel:
    """A model that requests can name.

    Attributes:
        name: its name in requests.
        network: the weights.
        options: its own options.
        limits: what is known about its training.
        base: the name of the model that it adapts; "" for none.
    """

    name: str
    network: SpeechModel
    options: TranscribeOptions
    limits: ModelLimits = field(default_factory=ModelLimits)
    base: str = ""
    _lock: Lock = field(default_factory=Lock, init=False)

    def __post_init__(self) -> None:
        # Tokenizers are not safe in several threads, and the scheduler uses that of the network.
        self._tokenizer = copy.deepcopy(self.network.tokenizer)

    def check(self, options: TranscribeOptions) -> int:
        """The number of tokens in the prompt, without audio. Any thread can call this.

        Raises:
            ModelError: the prompt is too long or contains a special token.
        """
        with self._lock:
            prompt = check_prompt(self.network, options, self._tokenizer)
        return len(prompt.prefix) + len(prompt.suffix)

    def warnings(self, options: TranscribeOptions) -> list[str]:
        """What is known to be wrong with the prompt and the keywords of some options; empty if nothing is."""
        return option_warnings(options, self.network.profile, self.limits)

    def activate(self) -> None:
        """Switches the weights to this model, if it shares them with others."""

    def transcribe(self, windows: Sequence[Window], batch_seconds: float) -> list[Result]:
        """The results of some windows. Only the thread of the scheduler calls this."""
        self.activate()
        return transcribe_windows(self.network, windows, batch_seconds, grouped=True)


class Models:
    """The models of a server.

    Args:
        models: the first one is the default.
    """

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self.by_name = {model.name: model for model in models}
        self.default = models[0]

    def find(self, name: str | None) -> ServedModel:
        """The model of a request; the default if it names none. Raises ApiError for an unknown name."""
        if not name:
            return self.default
        if name in self.by_name:
            return self.by_name[name]
        known = ", ".join(self.by_name)
        raise ApiError(
            404, f"the model {name[:100]!r} does not exist; this server has {known}", "model", "model_not_found"
        )


def load_base(source: str, name: str | None = None) -> ServedModel:
    """Loads a model.

    Args:
        source: an exported folder, a base model folder or a hub name.
        name: its name in requests; None is `default_name`.

    Raises:
        ModelError: it cannot be loaded.
    """
    return ServedModel(
        name or default_name(source),
        load_model(source, "auto", default_device()),
        options_for(source),
        read_limits(source),
    )


def default_name(source: str) -> str:
    """The name of a model in requests: a hub name, or the name of the folder; for `RUN/export`, that of the run."""
    folder = Path(source)
    if not folder.is_dir():
        return source
    folder = folder.resolve()
    return folder.parent.name if folder.name == EXPORT else folder.name
