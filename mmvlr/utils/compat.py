"""All workarounds for problems of the dependencies.

Tested against torch 2.14, mmengine 0.10.7 and numpy 2.4; each function describes its problem and
can be removed with it. :func:`apply` is called by ``mmvlr.apis`` and the tools before a Runner is
built; importing mmvlr alone applies none of them.
"""

import ast
import ctypes
import datetime
import io
import os
import pickle
import platform
import re
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner import CheckpointLoader

from .budget import BudgetError, check_pickle, check_plain, check_zip
from .filetype import describe_content
from .io import write_atomic
from .loading import watch_workers
from .outputs import is_own, note_written
from .shipped import find_config, find_configs
from .zoo import require_checkpoint

#: Folders whose files may be unpickled in full, separated by ``os.pathsep``.
TRUSTED_VARIABLE = 'MMVLR_TRUSTED'

_loading = threading.Lock()


class OtherKindError(ValueError):
    """A file is of another kind than its name says."""


class UntrustedCheckpointError(RuntimeError):
    """A checkpoint needs full unpickling, which can run code, and is not in a trusted folder."""


def _history_method(owner: Any, name: str) -> Any:
    """Replace ``getattr`` while a checkpoint loads: return statistics of HistoryBuffer only.

    A pickled ``HistoryBuffer`` references its methods by ``getattr``; the real function would give
    access to any attribute.
    """
    if owner is HistoryBuffer and name in ('min', 'max', 'current', 'mean'):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f'Unsupported GLOBAL getattr of {name!r} of {owner!r}')


def _empty_array(kind: type, shape: tuple, code: bytes) -> np.ndarray:
    """Replace numpy's ``_reconstruct``, which takes any shape: accept (0,), as pickles write."""
    if shape != (0,):
        raise pickle.UnpicklingError(f'Unsupported array of shape {shape!r:.80}')
    return np.ndarray(shape, 'b')


def _no_bytes() -> bytes:
    """Replace ``bytes`` and take no argument: a number would allocate that many bytes."""
    return b''


def _safe_globals() -> list[Any]:
    """Return the harmless types that mmengine stores in a checkpoint.

    torch >= 2.6 loads weights only; mmengine's message hub keeps ``HistoryBuffer`` objects with
    numpy arrays. Naming these types lets its checkpoints, resume included, load safely.
    """
    core = np.core if np.lib.NumpyVersion(np.__version__) < '2.0.0' else np._core
    types = [HistoryBuffer, np.dtype, core.multiarray.scalar]
    # A file may reference the class and fill an existing array, but not create one of any shape:
    # the class is registered under a name that no file can write.
    types += [(object(), 'numpy.ndarray'), (np.ndarray, '\n')]
    types += [(_empty_array, f'numpy.{name}.multiarray._reconstruct') for name in ('core', '_core')]
    types += [type(np.dtype(name)) for name in ('float64', 'float32', 'int64', 'int32', 'bool')]
    return [*types, (_history_method, 'builtins.getattr'), (_no_bytes, 'builtins.bytes')]


def is_trusted(path: str | Path) -> bool:
    """Return whether a file is in a folder named in ``MMVLR_TRUSTED``."""
    folders = [
        folder for folder in os.environ.get(TRUSTED_VARIABLE, '').split(os.pathsep) if folder
    ]
    resolved = Path(path).resolve()
    return any(resolved.is_relative_to(Path(folder).resolve()) for folder in folders)


def _check_file(path: str) -> None:
    """Raise an error if a file is no checkpoint, or would take more than its size justifies.

    Raises:
        BudgetError, OtherKindError, ValueError: The message does not name the file.
    """
    size = os.path.getsize(path)
    with open(path, 'rb') as file:
        head = file.read(512)
        if head.startswith(b'PK\x03\x04'):
            names = check_zip(path)
            pickles = [name for name in names if name.endswith('data.pkl')]
            if not pickles:
                inside = next((name for name in names if not name.endswith('/')), 'nothing')
                raise OtherKindError(f'it is a zip archive with {inside:.80} in it: unpack it')
            with zipfile.ZipFile(path) as archive:
                for name in pickles:
                    check_pickle(io.BytesIO(archive.read(name)), size)
        elif head.startswith(b'\x80'):
            file.seek(0)
            # torch's old format: a magic number, a version, the system, the content, ...
            for _ in range(4):
                if file.peek(1).startswith(b'\x80'):
                    check_pickle(file, size)
        else:
            kind = describe_content(head)
            raise OtherKindError(f'it is {kind}') if kind else ValueError('it is no checkpoint')


def _reason(error: Exception) -> str:
    """Return the line of torch's message that describes the problem, without its advice."""
    lines = str(error).splitlines()
    told = [line for line in lines if 'GLOBAL' in line or line.startswith('Unsupported')]
    line = (told or lines or [type(error).__name__])[0]
    return line.split('. Please ')[0].removeprefix('\tWeightsUnpickler error: ')[:500]


def load_checkpoint_file(path: str, map_location: Any = 'cpu') -> Any:
    """Load a local checkpoint without running code that it may contain.

    Args:
        path: The file.
        map_location: See :func:`torch.load`.

    Raises:
        FileNotFoundError: There is no such file.
        UntrustedCheckpointError: It holds more than weights and plain values, and is not in a
            folder named in ``MMVLR_TRUSTED``.
        ValueError: The file is damaged or no checkpoint at all.
    """
    path = require_checkpoint(path)
    # Outside of the try: an error of torch here does not concern the file.
    harmless = torch.serialization.safe_globals(_safe_globals())
    trusted = is_trusted(path)
    try:
        if not trusted:
            _check_file(path)
        # torch has one list of safe types for all threads.
        with _loading, harmless:
            content = torch.load(path, map_location=map_location, weights_only=True)
        if not trusted:
            check_plain(content, os.path.getsize(path))
        return content
    except pickle.UnpicklingError as error:
        reason = _reason(error)
    except (BudgetError, OtherKindError) as error:
        raise ValueError(f'{path} is not a readable checkpoint: {error}') from error
    except Exception as error:  # torch raises half a dozen types for damaged files
        raise ValueError(
            f'{path} is not a readable checkpoint ({_reason(error)}); it may be truncated or '
            'another kind of file: get or save it again'
        ) from error
    if not trusted:
        raise UntrustedCheckpointError(
            f'{path} holds more than weights ({reason}), and loading it in full can run code. If '
            f'you trust the file, name its folder: {TRUSTED_VARIABLE}={Path(path).parent}'
        )
    return torch.load(path, map_location=map_location, weights_only=False)


#: mmengine's syntax for a value from the environment: ``'{{$NAME:default}}'`` in a config.
_VARIABLE = re.compile(r'\{\{\s*\$(\w+)\s*:\s*(\S*?)\s*\}\}')


def fill_in(text: str) -> str:
    """Replace ``{{$NAME:default}}`` by the values of environment variables.

    Raises:
        KeyError: A variable is neither set nor has a default.
    """

    def look_up(found: re.Match) -> str:
        value = os.environ.get(found[1]) or found[2]
        if not value:
            raise KeyError(f'a config needs the environment variable {found[1]}: set it')
        return value

    return _VARIABLE.sub(look_up, text)


class _LookUpLater(ast.NodeTransformer):
    """Make a config call :func:`fill_in`, where mmengine would insert a value into its source."""

    CALL = "__import__('mmvlr.utils.compat', fromlist=['']).fill_in({!r})"

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        if not isinstance(node.value, str) or not _VARIABLE.search(node.value):
            return node
        return ast.parse(self.CALL.format(node.value), mode='eval').body

    def visit_Set(self, node: ast.Set) -> ast.expr:
        match node:
            # {{'$NAME:default'}}, which stands for a number or another literal.
            case ast.Set([ast.Set([ast.Constant(str(text))])]) if text.lstrip().startswith('$'):
                call = self.CALL.format(f'{{{{{text}}}}}')
                return ast.parse(f"__import__('ast').literal_eval({call})", mode='eval').body
        return self.generic_visit(node)


_paste_environment = Config._substitute_env_variables


def _substitute_env_variables(filename: str, temp_config_name: str) -> dict[str, str]:
    """Replace mmengine's function, so that a value with a quote cannot end a string or be code."""
    source = Path(filename).read_text(encoding='utf-8')
    asked = re.findall(r'\{\{.?\s*\$(\w+)\s*:', source)
    if asked and filename.endswith('.py'):
        tree = ast.fix_missing_locations(_LookUpLater().visit(ast.parse(source)))
        Path(temp_config_name).write_text(ast.unparse(tree), encoding='utf-8')
        return {}
    for name in asked:
        if not re.fullmatch(r'[\w ./:@+=,~-]*', os.environ.get(name, '')):
            raise ValueError(
                f'{name} holds characters that mean something in YAML or JSON; write the config '
                'that needs it in Python'
            )
    return _paste_environment(filename, temp_config_name)


_get_external_path = Config._get_cfg_path


def _get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
    """Find a base ``mmvlr::NAME``; mmengine's table of packages (``MODULE2PACKAGE``) lacks it."""
    if not cfg_path.startswith('mmvlr::'):
        return _get_external_path(cfg_path, filename)
    name = cfg_path.removeprefix('mmvlr::').removesuffix('.py')
    shipped = find_configs() / f'{name}.py'
    # Of a misspelled name find_config suggests similar ones.
    return str(shipped if shipped.is_file() else find_config(f'configs/{name}')), None


def use_cpu_process_group(timeout: float | None = None) -> None:
    """Start a gloo process group before mmengine would try to set a GPU.

    ``Runner`` with ``launcher='pytorch'`` calls ``torch.cuda.set_device`` even without a GPU; if a
    process group exists already, it uses that. Needs ``torchrun``'s environment.

    Args:
        timeout: Seconds that a rank waits for the others; None for torch's default.
    """
    if not dist.is_initialized() and 'RANK' in os.environ and not torch.cuda.is_available():
        os.environ.setdefault('LOCAL_RANK', '0')
        limit = None if timeout is None else datetime.timedelta(seconds=timeout)
        dist.init_process_group('gloo', timeout=limit)


def keep_freed_memory() -> bool:
    """Make this process keep freed memory for its next tensors.

    glibc returns large blocks to the system at once, and a training step allocates the same sizes
    again: on a CPU a third of the step is spent on zeroing pages. The peak is somewhat higher, as
    the heap is fragmented. Nothing is changed if another allocator or user settings are in use
    (``LD_PRELOAD``, ``MALLOC_*`` variables), or without glibc.

    Returns:
        bool: Whether it was set.
    """
    own = [name for name in os.environ if name.startswith('MALLOC_')]
    if own or os.environ.get('LD_PRELOAD') or platform.libc_ver()[0] != 'glibc':
        return False
    # From malloc.h: no separate mapping for a large request, no trimming of the heap's top.
    trim_threshold, mmap_max = -1, -4
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, -1))


def limit_primitive_cache() -> None:
    """Keep oneDNN from holding a gigabyte of code for shapes that do not come again.

    A detector passes batches of ever other sizes, and for each oneDNN keeps a program: 1,024 of
    them, of a megabyte each. With 64 it is as fast. It has no effect after the first convolution
    in the process, and the user's own setting is kept.
    """
    os.environ.setdefault('ONEDNN_PRIMITIVE_CACHE_CAPACITY', '64')


class AtomicLocalBackend(LocalBackend):
    """Write local files atomically, so that a killed run leaves no half-written checkpoint.

    mmengine removes the old and best checkpoints that a resumed checkpoint names, also those of
    another run that it was resumed from. This backend removes files of this run only.
    """

    def put(self, obj: bytes | io.BytesIO, filepath: str | Path) -> None:
        """Write bytes to a file, atomically."""
        data = obj.getbuffer() if isinstance(obj, io.BytesIO) else obj
        note_written(filepath)
        write_atomic(filepath, lambda path: path.write_bytes(data))

    def remove(self, filepath: str | Path) -> None:
        """Remove a file that this run, or an earlier one in the same work dir, has written."""
        if is_own(filepath):
            super().remove(filepath)
        else:
            print_log(f'{filepath} is not of this run and stays', logger='current')

    def rmtree(self, dir_path: str | Path) -> None:
        """Keep a folder, as no checkpoint of mmvlr is a folder."""
        print_log(f'{dir_path} is a folder and stays', logger='current')


def apply() -> None:
    """Apply all workarounds that have no function of their own to call; safe to call again."""
    Config._substitute_env_variables = staticmethod(_substitute_env_variables)
    Config._get_cfg_path = staticmethod(_get_cfg_path)
    watch_workers()
    register_backend('atomic_local', AtomicLocalBackend, force=True)
    CheckpointLoader.register_scheme(prefixes='', force=True, loader=load_checkpoint_file)
