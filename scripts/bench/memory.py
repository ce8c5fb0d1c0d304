"""The memory of a process and its descendants, in which shared pages count once (PSS)."""

import time
from pathlib import Path


def watch_memory(process: int, peak: list[float]) -> None:
    """Keeps the largest sum of the proportional set sizes (kB) of a process and its descendants, until it ends."""
    while Path(f"/proc/{process}/smaps_rollup").exists():
        peak[0] = max(peak[0], sum(map(pss, tree(process))))
        time.sleep(0.2)


def tree(process: int) -> list[int]:
    """A process and its descendants."""
    found = [process]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, children.read_text().split())
            except OSError:  # the thread has ended
                continue
    return found


def pss(process: int) -> float:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0.0
    return sum(float(line.split()[1]) for line in lines if line.startswith("Pss:"))
