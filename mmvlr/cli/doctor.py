"""What this installation has, and what is wrong with it.

Every check is a function of what it looks at, so that it can be shown a broken installation. None
of them goes to the network. Heavy packages are imported inside: they may be what is broken.
"""

import importlib
import importlib.metadata
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmvlr.utils.threads import count_cores

GIB = 1 << 30
#: Modules of packages that setup.py names and that are known to break.
_MODULES = ('numpy', 'scipy', 'cv2', 'PIL', 'torch', 'torchvision', 'mmengine', 'mmcv', 'sklearn')
#: Packages that all provide the module cv2.
_OPENCV = (
    'opencv-python',
    'opencv-python-headless',
    'opencv-contrib-python',
    'opencv-contrib-python-headless',
)
#: Variable -> (folder that the configs take without it, what it holds).
DATA = dict(
    TINYFACE_ROOT=('data/tinyface', 'tinyface'),
    SCFACE_ROOT=('data/scface', 'scface'),
    SURVFACE_ROOT=('data/survface', 'survface'),
    UI_ROOT=('data/ui', 'ui'),
    MS1M_ROOT=('data/ms1m', 'recordio'),
    WEBFACE4M_ROOT=('data/webface4m', 'recordio'),
)
RECORDIO_FILES = ('train.rec', 'train.idx', 'lfw.bin')


@dataclass(frozen=True)
class Finding:
    """What was found out about one thing.

    Attributes:
        topic: What was looked at.
        status: ``'ok'``; ``'warning'``: it works, but not as well as it could, or not safely;
            ``'error'``: something will fail.
        message: What was found.
        remedy: What to do about it; empty if there is nothing to do.
    """

    topic: str
    status: str
    message: str
    remedy: str = ''


def examine(model: str | None = None) -> list[Finding]:
    """Examine this installation.

    Args:
        model: A model file to examine too.
    """
    checks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ('python', lambda: check_python(sys.version_info[:2])),
        ('packages', _packages),
        ('packages', lambda: check_conflicts(installed_version)),
        ('imports', lambda: check_imports(_MODULES, importlib.import_module)),
        ('torchvision', _torchvision),
        ('numpy', lambda: check_numpy_bridge(_numpy_bridge)),
        ('gpu', _gpu),
        ('cpu', _cpu),
        ('memory', lambda: check_shared_memory(_size_of('/dev/shm'))),
        ('disk', lambda: check_work_dir(Path('work_dirs'))),
        ('data', lambda: check_data(os.environ)),
        ('weights', lambda: check_start_weights(os.environ, Path('checkpoints'))),
        ('security', lambda: check_trusted(os.environ.get('MMVLR_TRUSTED', ''))),
    ]
    if model is not None:
        checks.append(('model', lambda: [check_model(model, 'model', 'error')]))
    findings: list[Finding] = []
    for topic, check in checks:
        try:
            findings += check()
        except Exception as error:  # a doctor who faints helps nobody
            told = f'could not be examined: {type(error).__name__}: {error}'
            findings.append(Finding(topic, 'error', told))
    return findings


def render(findings: Sequence[Finding]) -> str:
    """Return findings as text: a line each, its remedy below, and a summary at the end."""
    width = max((len(finding.topic) for finding in findings), default=0)
    lines = []
    for finding in findings:
        first, *rest = finding.message.splitlines() or ['']
        indent = ' ' * (9 + width)
        lines.append(f'{finding.status:7}  {finding.topic:{width}}  {first}'.rstrip())
        lines += [f'{indent}  {line}' for line in rest]
        if finding.remedy:
            lines.append(f'{indent}  -> {finding.remedy}')
    counts = Counter(finding.status for finding in findings)
    told = [
        f'{counts[status]} {status}{"s" if counts[status] > 1 else ""}'
        for status in ('error', 'warning')
        if counts[status]
    ]
    return '\n'.join([*lines, '', ', '.join(told) or 'nothing is wrong'])


# Packages ---------------------------------------------------------------------------------------


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


def _packages() -> list[Finding]:
    stated = importlib.metadata.requires('mmvlr') if installed_version('mmvlr') else None
    if stated is None:
        told = 'mmvlr runs from its folder and is not installed: its requirements are not known'
        return [Finding('packages', 'warning', told, 'pip install -e . in that folder')]
    return check_packages(stated, installed_version)


def check_packages(stated: Iterable[str], version_of: Callable[[str], str | None]) -> list[Finding]:
    """Compare what is installed with what setup.py states.

    Args:
        stated: Requirements, as :func:`importlib.metadata.requires` gives them.
        version_of: Version of an installed package; None if it is not there.
    """
    from packaging.requirements import Requirement

    needed: dict[str, list[Requirement]] = {}
    for text in stated:
        requirement = Requirement(text)
        extra = _extra_of(requirement)
        if extra != 'all':
            needed.setdefault(extra, []).append(requirement)
    findings = []
    found = []
    for requirement in needed.pop('', []):
        version = version_of(requirement.name)
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
        findings.append(_check_extra(extra, requirements, version_of))
    return findings


def _extra_of(requirement: Any) -> str:
    for part in str(requirement.marker or '').split(' and '):
        name, _, value = part.strip().partition('==')
        if name.strip() == 'extra':
            return value.strip().strip('"\'')
    return ''


def _check_extra(
    extra: str, requirements: Sequence[Any], version_of: Callable[[str], str | None]
) -> Finding:
    versions = {r.name: version_of(r.name) for r in requirements}
    missing = [name for name, version in versions.items() if version is None]
    other = [
        f'{r.name} is {versions[r.name]}, {r.specifier} is needed'
        for r in requirements
        if versions[r.name] and not r.specifier.contains(versions[r.name], prereleases=True)
    ]
    remedy = f"pip install 'mmvlr[{extra}]'"
    if other:
        return Finding('extras', 'warning', f'{extra}: {"; ".join(other)}', remedy)
    if missing:
        # Nobody needs all of them.
        return Finding('extras', 'ok', f'{extra}: not there ({", ".join(missing)})', remedy)
    return Finding('extras', 'ok', f'{extra}: {", ".join(versions)}')


def check_conflicts(version_of: Callable[[str], str | None]) -> list[Finding]:
    """Look for packages that write over the files of others."""
    findings = []
    if version_of('mmcv') and version_of('mmcv-lite'):
        told = 'mmcv and mmcv-lite are both installed; each writes over the files of the other'
        remedy = "pip uninstall -y mmcv mmcv-lite && pip install 'mmcv-lite>=2.2'"
        findings.append(Finding('mmcv', 'error', told, remedy))
    elif version_of('mmcv'):
        told = 'mmcv is installed in place of mmcv-lite, which mmvlr asks for; pip will add it'
        remedy = "pip uninstall -y mmcv && pip install 'mmcv-lite>=2.2'"
        findings.append(Finding('mmcv', 'warning', told, remedy))
    opencv = {name: version_of(name) for name in _OPENCV if version_of(name)}
    if len(opencv) > 1:
        told = f'{" and ".join(f"{n} {v}" for n, v in opencv.items())} share their files'
        same = len(set(opencv.values())) == 1
        others = ' '.join(name for name in opencv if name != 'opencv-python')
        remedy = f'pip uninstall -y {others} && pip install --force-reinstall opencv-python'
        findings.append(Finding('opencv', 'warning' if same else 'error', told, remedy))
    if version_of('openmim'):
        told = "openmim is installed: mim needs pkg_resources, and would install mmcv's full build"
        findings.append(Finding('mim', 'warning', told, 'use pip instead of mim'))
    return findings


def check_imports(names: Sequence[str], load: Callable[[str], Any]) -> list[Finding]:
    """Import what mmvlr stands on; an installed package may still be broken."""
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


def _torchvision() -> list[Finding]:
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


def _numpy_bridge() -> None:
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


# The machine ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gpu:
    """A GPU as PyTorch sees it.

    Attributes:
        name: Its name.
        memory: Bytes.
        architecture: Such as ``'sm_90'``.
    """

    name: str
    memory: int
    architecture: str


def _gpu() -> list[Finding]:
    import torch

    gpus = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(index)
            gpus.append(Gpu(facts.name, facts.total_memory, f'sm_{facts.major}{facts.minor}'))
    driver = Path('/proc/driver/nvidia/version')
    return check_gpu(
        torch.version.cuda,
        gpus,
        driver=driver.read_text().splitlines()[0] if driver.is_file() else None,
        visible=os.environ.get('CUDA_VISIBLE_DEVICES'),
        architectures=torch.cuda.get_arch_list() if gpus else [],
    )


def check_gpu(
    build: str | None,
    gpus: Sequence[Gpu],
    driver: str | None = None,
    visible: str | None = None,
    architectures: Sequence[str] = (),
) -> list[Finding]:
    """Check whether PyTorch can use the GPUs of the machine.

    Args:
        build: Version of CUDA that PyTorch is built for (``torch.version.cuda``).
        gpus: What PyTorch sees.
        driver: What the NVIDIA driver says of itself; None if it is not loaded.
        visible: ``CUDA_VISIBLE_DEVICES``.
        architectures: Those that PyTorch is built for (``torch.cuda.get_arch_list()``).
    """
    if gpus:
        names = '; '.join(f'{gpu.name}, {gpu.memory / GIB:.0f} GiB' for gpu in gpus)
        findings = [Finding('gpu', 'ok', f'{len(gpus)} (CUDA {build}): {names}')]
        majors = {name.rpartition('_')[2][:-1] for name in architectures}
        for gpu in gpus:
            if majors and gpu.architecture[3:-1] not in majors:
                told = f'this PyTorch has no code for {gpu.name} ({gpu.architecture})'
                remedy = 'install a PyTorch built for it (pytorch.org), or use --device cpu'
                findings.append(Finding('gpu', 'error', told, remedy))
        return findings
    if driver is None:
        told = 'none; everything runs on the CPU'
        if build is None:
            return [Finding('gpu', 'ok', told)]
        told += f' (this PyTorch is built for CUDA {build}, and no NVIDIA driver is loaded)'
        return [Finding('gpu', 'ok', told, 'if there is a GPU, install its driver')]
    if build is None:
        told = 'there is an NVIDIA GPU, but this PyTorch is built for the CPU alone'
        return [Finding('gpu', 'warning', told, 'install a CUDA build of torch and torchvision')]
    if visible is not None and visible.strip() in ('', '-1', 'NoDevFiles'):
        told = f'CUDA_VISIBLE_DEVICES={visible!r} hides the GPUs'
        return [Finding('gpu', 'warning', told, 'unset CUDA_VISIBLE_DEVICES')]
    told = f'PyTorch, built for CUDA {build}, sees no GPU, though a driver is loaded ({driver})'
    remedy = f'install a driver for CUDA {build}, or a PyTorch for an older CUDA; nvidia-smi tells'
    return [Finding('gpu', 'warning', told, remedy)]


def _cpu() -> list[Finding]:
    import torch

    _, cores = count_cores()
    return check_threads(cores, torch.get_num_threads(), os.environ.get('OMP_NUM_THREADS'))


def check_threads(cores: int, threads: int, variable: str | None) -> list[Finding]:
    """Check the number of threads.

    Args:
        cores: Those that this process may use.
        threads: Threads of PyTorch.
        variable: ``OMP_NUM_THREADS``.
    """
    stated = 'not set' if variable is None else repr(variable)
    told = f'{cores} cores, {threads} threads of PyTorch, OMP_NUM_THREADS {stated}'
    if variable is not None and not (variable.isdecimal() and int(variable)):
        return [Finding('cpu', 'warning', told, f'export OMP_NUM_THREADS={cores}')]
    if threads > cores:
        told += ': they wait for each other'
        return [Finding('cpu', 'warning', told, f'export OMP_NUM_THREADS={cores}')]
    return [Finding('cpu', 'ok', told)]


def _size_of(folder: str) -> int | None:
    return shutil.disk_usage(folder).total if os.path.isdir(folder) else None


def check_shared_memory(size: int | None) -> list[Finding]:
    """Check the memory that processes need to wait for each other.

    Args:
        size: Bytes of /dev/shm; None where there is none.
    """
    if size is None:
        return []
    told = f'/dev/shm has {size >> 20:,} MiB'
    if size < 1 << 20:
        told += '; data loaders cannot start their workers'
        remedy = 'docker run --shm-size=64m (or --ipc=host), or num_workers=0 in the data loaders'
        return [Finding('memory', 'warning', told, remedy)]
    return [Finding('memory', 'ok', told)]


def check_work_dir(folder: Path, usage: Callable[[Path], Any] = shutil.disk_usage) -> list[Finding]:
    """Check that results can be written, and that there is room for them.

    Args:
        folder: Where ``tools/train.py`` writes by default.
        usage: Gives ``free`` bytes of a folder.
    """
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        told = f'{there} cannot be written ({error.strerror}); runs write to {folder}'
        return [Finding('disk', 'error', told, 'choose another folder with --work-dir')]
    free = usage(there).free
    told = f'{free / GIB:.1f} GiB free for {folder}'
    if free < 5 * GIB:
        remedy = 'make room, choose another folder with --work-dir, or keep fewer checkpoints '
        remedy += '(default_hooks.checkpoint.max_keep_ckpts)'
        return [Finding('disk', 'error' if free < GIB // 4 else 'warning', told, remedy)]
    return [Finding('disk', 'ok', told)]


# Data and weights -------------------------------------------------------------------------------


def check_data(environment: Mapping[str, str]) -> list[Finding]:
    """Check the folders of the data sets.

    Args:
        environment: Environment variables.
    """
    return [
        check_data_root(variable, environment.get(variable), *stated)
        for variable, stated in DATA.items()
    ]


def check_data_root(variable: str, value: str | None, default: str, kind: str) -> Finding:
    """Check the folder of a data set.

    Args:
        variable: Name of the environment variable.
        value: Its value, or None.
        default: Folder that the configs take without it.
        kind: What it holds, see :data:`DATA`.
    """
    name = f'{variable}={value}' if value else f'{variable} is not set, {default}'
    root = Path(value or default)
    if value and value.startswith('~'):
        told = f'{name}: configs do not expand ~'
        return Finding('data', 'error', told, f'export {variable}={os.path.expanduser(value)}')
    if not root.exists() and not _in_pack(root):
        remedy = f'export {variable}=FOLDER'
        if value:
            return Finding('data', 'error', f'{name} does not exist', remedy)
        return Finding('data', 'ok', f'{name} does not exist', f'{remedy}, where you have the data')
    missing = _missing(root, kind)
    if not missing:
        return Finding('data', 'ok', f'{name}: folders as they should be')
    told = f'{name} lacks {", ".join(missing)}'
    deeper = [entry for entry in _folders(root) if not _missing(entry, kind)]
    if deeper:
        return Finding('data', 'error', told, f'export {variable}={deeper[0]}')
    remedy = f'python tools/dataset_converters/prepare.py {kind} {root} says what is wrong'
    if kind == 'ui':
        remedy = 'a folder of images is wanted'
    if kind == 'recordio':
        remedy = 'the folder with train.rec, train.idx and lfw.bin is wanted'
    return Finding('data', 'error', told, remedy)


def _in_pack(root: Path) -> bool:
    return any(part.suffix == '.pack' and part.is_file() for part in root.parents)


def _folders(root: Path) -> list[Path]:
    return sorted(entry for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []


def _missing(root: Path, kind: str) -> list[str]:
    from mmvlr.datasets.base import unwrap
    from mmvlr.datasets.finding import walk
    from mmvlr.datasets.storage import data_path

    if kind == 'recordio':
        return [name for name in RECORDIO_FILES if not (root / name).is_file()]
    path = data_path(root)
    if kind == 'ui':
        return [] if any(folder.images for folder in walk(path)) else ['images']
    wrapper, folders = layout_of(kind)
    path = unwrap(path, wrapper)
    return [
        ' or '.join(names) for names in folders if not any((path / name).is_dir() for name in names)
    ]


def layout_of(kind: str) -> tuple[str, tuple[tuple[str, ...], ...]]:
    """Return the folder of an archive, and the folders in it: of several in a line, one is enough.

    Args:
        kind: ``'tinyface'``, ``'scface'`` or ``'survface'``.
    """
    from mmvlr.datasets import SurvFace, TinyFace, scface

    source = dict(tinyface=TinyFace, scface=scface, survface=SurvFace)[kind]
    return source.WRAPPER, source.FOLDERS


def check_start_weights(environment: Mapping[str, str], folder: Path) -> list[Finding]:
    """Check the weights that training starts from.

    Args:
        environment: Environment variables.
        folder: Where converted checkpoints lie by default.
    """
    findings = []
    named = environment.get('PRETRAINED')
    if named:
        findings.append(check_model(named, 'PRETRAINED', 'error'))
    others = [
        path
        for path in sorted(folder.glob('*'))
        if path.suffix in ('.pth', '.safetensors', '.onnx')
        and (not named or path.resolve() != Path(named).resolve())
    ]
    findings += [check_model(path, 'weights', 'warning') for path in others]
    if not findings:
        told = f'PRETRAINED is not set, and {folder} holds no weights to start a training from'
        remedy = 'tools/model_converters makes them; export PRETRAINED=FILE'
        findings.append(Finding('weights', 'ok', told, remedy))
    return findings


def check_model(path: str | Path, topic: str, status: str) -> Finding:
    """Load a model and say what it is.

    Args:
        path: The file.
        topic: Topic of the finding.
        status: What the finding is if the model cannot be loaded.
    """
    from mmvlr.apis.network import load_network

    try:
        network = load_network(str(path), 'cpu')
    except Exception as error:  # the message says what and how to mend it
        remedy = '' if str(path) in str(error) else f'look at {path}'
        return Finding(topic, status, f'{path}: {error}', remedy)
    contract = network.contract
    facts = [
        f'weights {network.identity["weights"][:16]}',
        f'{network.identity["embedding"]["dims"]} dimensions',
        f'faces of {network.size[0]} x {network.size[1]} {contract["color_order"]}',
        f'alignment {contract["alignment"]}',
        f'license {_license_of(path, network) or "not stated"}',
    ]
    return Finding(topic, 'ok', f'{path}: {", ".join(facts)}')


def _license_of(path: str | Path, network: Any) -> str | None:
    path = Path(path).expanduser()
    if path.suffix == '.onnx':
        return network.license
    if path.suffix == '.safetensors':
        from mmvlr.apis.export import read_published

        return read_published(path)[2].get('license')
    from mmvlr.utils.compat import load_checkpoint_file

    meta = load_checkpoint_file(str(path)).get('meta')
    return meta.get('license') if isinstance(meta, Mapping) else None


def check_trusted(value: str) -> list[Finding]:
    """Check which folders' files may run code when they are loaded.

    Args:
        value: ``MMVLR_TRUSTED``.
    """
    folders = [folder for folder in value.split(os.pathsep) if folder]
    if not folders:
        return [Finding('security', 'ok', 'no checkpoint is unpickled in full')]
    told = f'checkpoints in {", ".join(folders)} are unpickled in full, which can run code in them'
    absent = [folder for folder in folders if not Path(folder).is_dir()]
    if absent:
        told += f'; {", ".join(absent)} does not exist'
    return [Finding('security', 'warning', told, 'unset MMVLR_TRUSTED when it is not needed')]
