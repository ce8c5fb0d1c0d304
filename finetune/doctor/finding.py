"""What a check of `finetune doctor` finds."""

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """The result of a check. `SKIP`: it does not apply to this machine."""

    PASS = "PASS"
    WARN = "WARN"
    FAIL = "FAIL"
    SKIP = "SKIP"


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        check: what was checked, such as `disk`.
        status: see `Status`.
        detail: what was found.
        cure: what to do, empty if nothing is to be done.
    """

    check: str
    status: Status
    detail: str
    cure: str = ""


def passed(check: str, detail: str) -> Finding:
    """All is well."""
    return Finding(check, Status.PASS, detail)


def warned(check: str, detail: str, cure: str) -> Finding:
    """Something works less well, or can fail later."""
    return Finding(check, Status.WARN, detail, cure)


def failed(check: str, detail: str, cure: str) -> Finding:
    """Something cannot work."""
    return Finding(check, Status.FAIL, detail, cure)


def skipped(check: str, detail: str) -> Finding:
    """The check does not apply."""
    return Finding(check, Status.SKIP, detail)
