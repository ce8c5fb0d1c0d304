"""The lists of terms (`decode.terms`) of the systems of a comparison, which a user does not see in their scores."""

from collections.abc import Iterator, Sequence

from finetune.core.files import read_json
from finetune.core.run_dir import RunDir, damage_is_an_error
from finetune.evaluation.systems import System
from finetune.inference.saved_options import clip_options


def terms_note(systems: Sequence[System]) -> Iterator[str]:
    """A sentence if the lists of systems differ. Those of hypothesis files are not known."""
    lists = {system.name: _terms(system) for system in systems if system.kind != "file"}
    if len({*lists.values()}) > 1:
        numbers = ", ".join(f"{name} {len(terms)}" for name, terms in lists.items())
        yield f"the systems had different lists of terms (decode.terms), which the differences include: {numbers}"


def _terms(system: System) -> tuple[str, ...]:
    """The list of terms of a system for all clips."""
    if system.kind == "model":
        return clip_options(system.source).decoding.terms
    run = RunDir(system.source)
    if system.kind != "run" or not run.resolved.is_file():
        return ()
    with damage_is_an_error(run.root, "run `finetune evaluate RECIPE` again"):
        return tuple(read_json(run.resolved)["decode"].get("terms", ()))
