"""Configure threads so that several programs can share the machine.

This module must not import torch or numpy: OpenMP reads its variables once, at their import.
"""

import os
from pathlib import Path

#: Variables that control how threads wait: OpenMP's, and those of GCC's and Intel's runtimes.
_WAITING = ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'KMP_BLOCKTIME')
_QUOTA = Path('/sys/fs/cgroup/cpu.max')
#: Environment variables that :func:`share_cores` has set, as opposed to the user's.
CHOSEN: dict[str, str] = {}


def count_cores() -> tuple[int, int]:
    """Return the number of cores that this process sees, and the number its quota allows."""
    affinity = getattr(os, 'sched_getaffinity', None)
    seen = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota, *period = _QUOTA.read_text().split() if _QUOTA.is_file() else ['max']
    if quota == 'max':
        return seen, seen
    return seen, max(1, min(seen, round(int(quota) / int(period[0]))))


def share_cores() -> None:
    """Make waiting threads sleep instead of spin, and limit their number to the cores.

    With spinning threads, two programs on the same cores wait for each other's time slices, a
    hundred times longer than they compute. Variables that the user has set are not changed.
    """
    if not any(name in os.environ for name in _WAITING):
        CHOSEN['OMP_WAIT_POLICY'] = 'PASSIVE'
    seen, usable = count_cores()
    if usable < seen and 'OMP_NUM_THREADS' not in os.environ:
        CHOSEN['OMP_NUM_THREADS'] = str(usable)
    os.environ.update(CHOSEN)
