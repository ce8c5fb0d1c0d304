"""`finetune doctor`: checks the installation and the machine, and says what to do."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from finetune.cli.arguments import Subparsers
from finetune.core.extras import DISTRIBUTION
from finetune.core.terminal import visible
from finetune.doctor.finding import Finding, Status, failed

EMBEDDED_MODEL = Path(__file__).resolve().parents[2] / "data" / "granite-speech-nano"
DESCRIPTION = (
    "Checks Python, packages, GPU, memory, disk, processes, audio formats, the front end, the network and one training "
    "step of the embedded model. FAIL says what to do before training; WARN can matter later. Sends nothing except one "
    "request to the Hugging Face Hub, and none in offline mode (HF_HUB_OFFLINE=1)."
)


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "doctor",
        help="check the installation and this machine, and say what to do",
        description=DESCRIPTION,
        epilog="example: finetune doctor; exit code 1 if a check fails",
    )
    parser.add_argument(
        "--runs", type=Path, default=Path(), metavar="DIR", help="folder for runs, whose disk is checked"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the findings; returns 1 if a check has failed."""
    findings = []
    for finding in _findings(args.runs):
        findings.append(finding)
        if not args.json:
            print(visible(f"{finding.status}  {finding.check}: {finding.detail}"))
            if finding.cure:
                print(visible(f"      -> {finding.cure}"), flush=True)
    counts = {status: sum(finding.status is status for finding in findings) for status in Status}
    if args.json:
        print(json.dumps({"counts": counts, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        print(", ".join(f"{count} {status}" for status, count in counts.items()))
    return int(counts[Status.FAIL] > 0)


def _findings(runs: Path) -> Iterator[Finding]:
    """The findings of all checks; one that has failed if a library that the checks need cannot be imported."""
    try:
        from finetune.doctor.checks import all_checks, run_checks
    except Exception as error:  # of any type, such as OSError if torch does not find a file of CUDA
        if wrong := [finding for finding in _installed() if finding.status is Status.FAIL]:
            yield from wrong
        else:
            reason = f"{type(error).__name__}: {error}"
            yield failed("packages", reason, f"pip install --upgrade --force-reinstall {DISTRIBUTION}")
        return
    yield from run_checks(all_checks(runs, EMBEDDED_MODEL))


def _installed() -> list[Finding]:
    """The checks of what is installed, which import none of it; empty if packaging is missing too."""
    try:
        from finetune.doctor import packages
    except ImportError:
        return []
    return [packages.check_python(), packages.check_packages(), packages.check_unneeded()]
