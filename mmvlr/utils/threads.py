"""How the threads of this program share the machine with other programs.

Imports nothing that computes: OpenMP reads its variables once, when torch is imported.
"""

import os
from pathlib import Path

#: What says how threads wait: OpenMP's own variable, that of GCC's and that of Intel's runtime.
_WAITING = ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'KMP_BLOCKTIME')
_QUOTA = Path('/sys/fs/cgroup/cpu.max')
#: Environment variables that :func:`share_cores` has set; all others are the user's.
CHOSEN: dict[str, str] = {}


def count_cores() -> tuple[int, int]:
    """Return the number of cores that this process sees, and what its quota leaves of it."""
    affinity = getattr(os, 'sched_getaffinity', None)
    seen = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota, *period = _QUOTA.read_text().split() if _QUOTA.is_file() else ['max']
    if quota == 'max':
        return seen, seen
    return seen, max(1, min(seen, round(int(quota) / int(period[0]))))


def share_cores() -> None:
    """Let threads sleep while they wait for each other, and be no more than the cores there are.

    They would spin: two programs that compute on the same cores then wait for each other's time
    slices, a hundred times longer than they compute. What the environment states is left alone.
    """
    if not any(name in os.environ for name in _WAITING):
        CHOSEN['OMP_WAIT_POLICY'] = 'PASSIVE'
    seen, usable = count_cores()
    if usable < seen and 'OMP_NUM_THREADS' not in os.environ:
        CHOSEN['OMP_NUM_THREADS'] = str(usable)
    os.environ.update(CHOSEN)
