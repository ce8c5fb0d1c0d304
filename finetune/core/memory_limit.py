"""Memory that this process may use: of the machine, its container or its cluster job."""

import os
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")


def memory_limit(groups: Path = GROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """Bytes: the memory of the machine, or the lowest limit of the control groups of this process (cgroup v1 and v2).

    Args:
        groups: where the control groups are mounted.
        own: the groups of this process, a line `ID:CONTROLLERS:PATH` for each.
    """
    limits = [int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))]
    try:
        rows = [line.split(":", 2) for line in own.read_text(encoding="utf-8").splitlines()]
    except OSError:
        rows = []
    for _, controllers, path in rows:
        if controllers and "memory" not in controllers.split(","):
            continue
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        root = groups / controllers
        # In a container, the path of its own group can be missing, and its limit is at the root.
        for part in (Path(path.lstrip("/")), *Path(path.lstrip("/")).parents):
            try:
                text = (root / part / name).read_text(encoding="utf-8").strip()
            except OSError:
                continue
            limits += [int(text)] if text.isdecimal() else []  # not "max"
    return min(limits)
