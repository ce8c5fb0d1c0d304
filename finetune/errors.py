"""What can go wrong, by where the cure lies. Every message says what, where, and what to do."""


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
