"""Examine an installation: its parts, its problems, and the tasks it is ready for.

Every check is a function of what it looks at, so that it can be shown a broken installation. None
of them goes to the network. Heavy packages are imported inside: they may be what is broken.
"""

import importlib
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from . import data, machine, packages
from .findings import Finding, judge_readiness, render, render_readiness

__all__ = ['Finding', 'examine', 'judge_readiness', 'render', 'render_readiness']


def examine(
    model: str | None = None, tell: Callable[[str], None] = lambda topic: None
) -> list[Finding]:
    """Examine this installation.

    Args:
        model: A model file to examine too.
        tell: Called with each topic before it is examined.
    """
    checks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ('python', lambda: packages.check_python(sys.version_info[:2])),
        ('packages', packages.examine_packages),
        ('conflicts', lambda: packages.check_conflicts(packages.installed_version)),
        ('imports', lambda: packages.check_imports(packages.MODULES, importlib.import_module)),
        ('torchvision', packages.examine_torchvision),
        ('numpy', lambda: packages.check_numpy_bridge(packages.cross_numpy_bridge)),
        ('gpu', machine.examine_gpu),
        ('cpu', machine.examine_threads),
        ('memory', lambda: machine.check_shared_memory(machine.measure_size('/dev/shm'))),
        ('disk', lambda: machine.check_work_dir(Path('work_dirs'))),
        ('data', lambda: data.check_data(os.environ)),
        ('weights', lambda: data.check_start_weights(os.environ, Path('checkpoints'))),
        ('security', lambda: data.check_trusted(os.environ.get('MMVLR_TRUSTED', ''))),
    ]
    if model is not None:
        checks.append(('model', lambda: [data.check_model(model, 'model', 'error')]))
    findings: list[Finding] = []
    for topic, check in checks:
        tell(topic)
        try:
            findings += check()
        except Exception as error:  # one failed check must not hide the others
            told = f'could not be examined: {type(error).__name__}: {error}'
            findings.append(Finding(topic, 'error', told))
    return findings
