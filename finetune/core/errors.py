"""Errors that a user can fix, one class for each cause. A message states what is wrong, where, and what to do."""

import signal


class FinetuneError(Exception):
    """Base class; the command prints these errors without a traceback."""


class RecipeError(FinetuneError):
    """A recipe or an argument: an unknown key, an invalid value, a contradiction."""


class DataError(FinetuneError):
    """Audio, a transcript, a manifest or another data file that cannot be used."""


class ModelError(FinetuneError):
    """A base model or an exported folder that cannot be loaded or used."""


class VoiceError(FinetuneError):
    """A voice that is not installed, or that fails."""


class CheckpointError(FinetuneError):
    """A run directory or a checkpoint that does not match the recipe, or is not complete."""


class HubError(FinetuneError):
    """The Hugging Face Hub cannot be reached, or refuses a request."""


class MissingExtraError(FinetuneError):
    """A package of an optional extra is not installed."""


class Interrupted(FinetuneError):
    """A signal stopped the run after the current step."""

    def __init__(self, step: int | None, signum: int) -> None:
        """`step` is the last step in the checkpoint, None if it is not known."""
        super().__init__(step, signum)
        self.signum = signum

    def __str__(self) -> str:
        step, signum = self.args
        position = "" if step is None else f" after step {step}"
        return f"stopped by {signal.Signals(signum).name}{position}; rerun to resume"
