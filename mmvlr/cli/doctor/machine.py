"""The machine: GPU, threads, memory and disk."""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmvlr.utils.threads import count_cores

from .findings import Finding

GIB = 1 << 30


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


def examine_gpu() -> list[Finding]:
    """Check the GPUs of this machine."""
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


def examine_threads() -> list[Finding]:
    """Check the number of threads of this process."""
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


def measure_size(folder: str) -> int | None:
    """Return the size of the file system of a folder in bytes; None where there is none."""
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
        folder: Where ``mmvlr train`` writes by default.
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
