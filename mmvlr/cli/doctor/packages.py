"""Check the packages that mmvlr depends on."""

import importlib.metadata
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .findings import Finding

#: Modules of packages that setup.py names and that are known to break.
MODULES = ('numpy', 'scipy', 'cv2', 'PIL', 'torch', 'torchvision', 'mmengine', 'sklearn')
#: Packages that all provide the module cv2.
_OPENCV = (
    'opencv-python',
    'opencv-python-headless',
    'opencv-contrib-python',
    'opencv-contrib-python-headless',
)


def installed_version(name: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_python(version: tuple[int, int]) -> list[Finding]:
    """Check the version of Python."""
    text = '.'.join(map(str, version))
    if version < (3, 10):
        return [Finding('python', 'error', f'Python {text}', 'use Python 3.10 or later')]
    return [Finding('python', 'ok', f'Python {text}')]


def examine_packages() -> list[Finding]:
    """Check what is installed here; see :func:`check_packages`."""
    stated = importlib.metadata.requires('mmvlr') if installed_version('mmvlr') else None
    if stated is None:
        told = 'mmvlr runs from its folder and is not installed: its requirements are not known'
        return [Finding('packages', 'warning', told, 'pip install -e . in that folder')]
    return check_packages(stated, installed_version)


def check_packages(
    stated: Iterable[str], find_version: Callable[[str], str | None]
) -> list[Finding]:
    """Compare what is installed with what setup.py states.

    Args:
        stated: Requirements, as :func:`importlib.metadata.requires` gives them.
        find_version: Version of an installed package; None if it is not there.
    """
    from packaging.requirements import Requirement

    needed: dict[str, list[Requirement]] = {}
    for text in stated:
        requirement = Requirement(text)
        extra = _find_extra(requirement)
        if extra != 'all':
            needed.setdefault(extra, []).append(requirement)
    findings = []
    found = []
    for requirement in needed.pop('', []):
        version = find_version(requirement.name)
        wanted = f'{requirement.name}{requirement.specifier}'
        if version is None:
            told = f'{requirement.name} is not installed'
        elif not requirement.specifier.contains(version, prereleases=True):
            told = f'{requirement.name} is {version}, {wanted} is needed'
        else:
            found.append(f'{requirement.name} {version}')
            continue
        findings.append(Finding('packages', 'error', told, f"pip install '{wanted}'"))
    findings.insert(0, Finding('packages', 'ok', ', '.join(found) or 'none'))
    for extra, requirements in needed.items():
        findings.append(_check_extra(extra, requirements, find_version))
    return findings


def _find_extra(requirement: Any) -> str:
    for part in str(requirement.marker or '').split(' and '):
        name, _, value = part.strip().partition('==')
        if name.strip() == 'extra':
            return value.strip().strip('"\'')
    return ''


def _check_extra(
    extra: str, requirements: Sequence[Any], find_version: Callable[[str], str | None]
) -> Finding:
    versions = {r.name: find_version(r.name) for r in requirements}
    missing = [name for name, version in versions.items() if version is None]
    other = [
        f'{r.name} is {versions[r.name]}, {r.specifier} is needed'
        for r in requirements
        if versions[r.name] and not r.specifier.contains(versions[r.name], prereleases=True)
    ]
    remedy = f"pip install 'mmvlr[{extra}]'"
    if other:
        return Finding('extras', 'warning', f'{extra}: {"; ".join(other)}', remedy, extra)
    if missing:
        # Nobody needs all of them.
        told = f'{extra}: not there ({", ".join(missing)})'
        return Finding('extras', 'absent', told, remedy, extra)
    return Finding('extras', 'ok', f'{extra}: {", ".join(versions)}', part=extra)


def check_conflicts(find_version: Callable[[str], str | None]) -> list[Finding]:
    """Find packages that overwrite files of other packages."""
    findings = []
    if find_version('mmcv') and find_version('mmcv-lite'):
        told = 'mmcv and mmcv-lite are both installed; each writes over the files of the other'
        remedy = "pip uninstall -y mmcv mmcv-lite && pip install 'mmcv-lite>=2.2'"
        findings.append(Finding('mmcv', 'error', told, remedy))
    elif find_version('mmcv'):
        told = 'mmcv is installed in place of mmcv-lite, which mmvlr asks for; pip will add it'
        remedy = "pip uninstall -y mmcv && pip install 'mmcv-lite>=2.2'"
        findings.append(Finding('mmcv', 'warning', told, remedy))
    opencv = {name: find_version(name) for name in _OPENCV if find_version(name)}
    if len(opencv) > 1:
        told = f'{" and ".join(f"{n} {v}" for n, v in opencv.items())} share their files'
        same = len(set(opencv.values())) == 1
        others = ' '.join(name for name in opencv if name != 'opencv-python')
        remedy = f'pip uninstall -y {others} && pip install --force-reinstall opencv-python'
        findings.append(Finding('opencv', 'warning' if same else 'error', told, remedy))
    if find_version('openmim'):
        told = "openmim is installed: mim needs pkg_resources, and would install mmcv's full build"
        findings.append(Finding('mim', 'warning', told, 'use pip instead of mim'))
    return findings


def check_imports(names: Sequence[str], load: Callable[[str], Any]) -> list[Finding]:
    """Import the packages that mmvlr depends on, as an installed package may be broken."""
    findings = []
    for name in names:
        try:
            load(name)
        except Exception as error:  # broken packages raise what they like
            told = f'import {name} fails: {type(error).__name__}: {error}'
            findings.append(Finding('imports', 'error', told, _import_remedy(name, str(error))))
    return findings


def _import_remedy(name: str, told: str) -> str:
    if 'libGL' in told or 'libgthread' in told:
        return 'apt-get install libgl1 libglib2.0-0, or pip install opencv-python-headless instead'
    if 'torchvision::nms' in told:
        return _PAIR_REMEDY
    if 'NumPy 1.x' in told or 'numpy.core' in told or 'dtype size changed' in told:
        return f'{name} was built for another NumPy: pip install --force-reinstall {name}'
    return f'install {name} again (pip install --force-reinstall)'


_PAIR_REMEDY = (
    'install torch and torchvision together, from one index: '
    'pip install --force-reinstall torch torchvision'
)


def examine_torchvision() -> list[Finding]:
    """Check the torchvision that is installed here."""

    def run() -> None:
        import torch
        from torchvision.ops import nms

        nms(torch.zeros(1, 4), torch.zeros(1), 0.5)

    return check_torchvision(installed_version('torch'), installed_version('torchvision'), run)


def check_torchvision(
    torch_version: str | None, vision_version: str | None, run: Callable[[], Any]
) -> list[Finding]:
    """Check that torch and torchvision are of one build.

    Args:
        torch_version: Version of torch.
        vision_version: Version of torchvision.
        run: Calls an operator that torchvision has compiled against torch.
    """
    try:
        run()
    except Exception as error:  # RuntimeError, ImportError, OSError: it depends on the builds
        told = f'torch {torch_version} and torchvision {vision_version} do not fit ({error})'
        return [Finding('torchvision', 'error', told, _PAIR_REMEDY)]
    return [Finding('torchvision', 'ok', f'{vision_version} works with torch {torch_version}')]


def cross_numpy_bridge() -> None:
    """Send an array to PyTorch and back.

    Raises:
        RuntimeError: It is another one then.
    """
    import numpy as np
    import torch

    if not (torch.from_numpy(np.arange(3)).numpy() == np.arange(3)).all():
        raise RuntimeError('numbers differ')


def check_numpy_bridge(run: Callable[[], Any]) -> list[Finding]:
    """Check that arrays go to PyTorch and back."""
    try:
        run()
    except Exception as error:  # RuntimeError "Numpy is not available" and others
        told = f'PyTorch and this NumPy do not work together ({error})'
        remedy = "pip install -U torch torchvision, or pip install 'numpy<2' for an old PyTorch"
        return [Finding('numpy', 'error', told, remedy)]
    return [Finding('numpy', 'ok', 'arrays go to PyTorch and back')]
