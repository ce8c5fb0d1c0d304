"""Runs every command on bad inputs: each must end with the right exit code and a sentence, and never with a traceback.

    python scripts/bad_inputs.py                 # all cases, about two minutes on two cores
    python scripts/bad_inputs.py manifest-nul    # the cases whose names contain this
    python scripts/bad_inputs.py --keep /tmp/bad # keep the inputs

A case is one line in a module `bad/cases_*.py`. The inputs are generated, with fixed seeds. Cases run in forks of this
process, which has imported the libraries; those that need another interpreter start one.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bad.case import Case, Outcome, faults
from bad.material import Material, build_material
from bad.process import SKIPPED, Running, finished, import_libraries, start


def all_cases(material: Material) -> list[Case]:
    """Writes all bad inputs and returns their cases."""
    from bad import (
        cases_audio,
        cases_commands,
        cases_environment,
        cases_manifests,
        cases_models,
        cases_recipes,
        cases_runs,
    )

    modules = (cases_manifests, cases_audio, cases_recipes, cases_models, cases_runs, cases_environment, cases_commands)
    cases = [case for module in modules for case in module.cases(material)]
    names = [case.name for case in cases]
    assert len(set(names)) == len(names), sorted(name for name in set(names) if names.count(name) > 1)
    return cases


def run_cases(cases: Sequence[Case], parallel: int) -> Iterator[tuple[Case, Outcome, list[str]]]:
    """Runs the cases, `parallel` at a time; yields each with its outcome and what is wrong with it."""
    waiting, running = list(reversed(cases)), list[Running]()
    while waiting or running:
        busy = {item.case.folder for item in running}
        index = next((i for i in range(len(waiting) - 1, -1, -1) if waiting[i].folder not in busy), None)
        if index is not None and len(running) < parallel:
            running.append(start(waiting.pop(index)))
            continue
        for item in list(running):
            if outcome := finished(item):
                running.remove(item)
                wrong = [] if outcome.code == SKIPPED else faults(item.case, outcome, item.before, item.started)
                yield item.case, outcome, wrong
        time.sleep(0.005)


def run_material(argv: list[str]) -> int:
    """Runs a command in a fork, so that it leaves nothing in this process."""
    running = start(Case("material", Path.cwd(), argv))
    while not (outcome := finished(running)):
        time.sleep(0.01)
    if outcome.code:
        print(outcome.output.decode(errors="replace"))
    return 1 if outcome.code is None else outcome.code


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs every command on bad inputs.")
    parser.add_argument("names", nargs="*", metavar="PART", help="run only the cases whose names contain one of these")
    parser.add_argument("--keep", metavar="DIR", help="a new folder for the inputs; the default is deleted at the end")
    parser.add_argument("--sample", type=int, default=1, metavar="N", help="run every Nth case")
    parser.add_argument("--show", action="store_true", help="print the output of every case")
    args = parser.parse_args()
    started = time.time()
    import_libraries()
    with tempfile.TemporaryDirectory(prefix="bad_") as temporary:
        root = Path(args.keep or temporary).resolve()
        root.mkdir(parents=True, exist_ok=True)
        root.chmod(0o755)
        cases = all_cases(build_material(root, run_material))
        chosen = [case for case in cases if not args.names or any(name in case.name for name in args.names)]
        return report(run_cases(chosen[:: args.sample], os.cpu_count() or 1), args.show, started)


def report(results: Iterator[tuple[Case, Outcome, list[str]]], show: bool, started: float) -> int:
    """Prints the faults and a count; returns the exit code."""
    count = failed = skipped = 0
    slowest = ("", 0.0)
    for case, outcome, wrong in results:
        count += 1
        slowest = max(slowest, (case.name, outcome.seconds), key=lambda pair: pair[1])
        skipped += outcome.code == SKIPPED
        failed += bool(wrong)
        if wrong or show:
            print(f"{'FAILED' if wrong else 'passed'} {case.name} (exit code {outcome.code}, {outcome.seconds:.1f} s)")
            print(f"  finetune {' '.join(case.argv)}"[:300])
            print("".join(f"  ! {text}\n" for text in wrong), end="")
            text = outcome.output.decode(errors="replace")
            print("".join(f"  | {line[:300]}\n" for line in text[-3000:].splitlines()[-25:]), end="", flush=True)
    print(f"{count} cases: {failed} failed, {skipped} skipped (they need a right that this user lacks)")
    print(f"{time.time() - started:.0f} s; the slowest case is {slowest[0]} ({slowest[1]:.1f} s)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
