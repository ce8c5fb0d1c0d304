"""What can go wrong, by where the cure lies. Every message says what, where, and what to do."""

import signal


class FinetuneError(Exception):
    """The base of all errors that a user can mend; the command prints it without a traceback."""


class RecipeError(FinetuneError):
    """The recipe: an unknown key, a wrong value, a contradiction."""


class DataError(FinetuneError):
    """Audio, transcripts or manifests."""


class ModelError(FinetuneError):
    """A base model or an exported folder that cannot be used."""


class CheckpointError(FinetuneError):
    """A run directory or a checkpoint that does not fit what is asked."""


class MissingExtraError(FinetuneError):
    """A package of an optional extra is not installed."""


class Interrupted(FinetuneError):
    """A signal stopped the run, in good order."""

    def __init__(self, step: int | None, signum: int) -> None:
        """`step` is the last one in the checkpoint, where it is known."""
        super().__init__(step, signum)
        self.signum = signum

    def __str__(self) -> str:
        step, signum = self.args
        where = "" if step is None else f" after step {step}"
        return f"stopped by {signal.Signals(signum).name}{where}; rerun to resume"
