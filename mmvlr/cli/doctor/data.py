"""The data sets and weights that are there, and which files may run code."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .findings import Finding

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

    def find(status: str, told: str, remedy: str = '') -> Finding:
        return Finding('data', status, told, remedy, variable)

    name = f'{variable}={value}' if value else f'{variable} is not set, {default}'
    root = Path(value or default)
    if value and value.startswith('~'):
        told = f'{name}: configs do not expand ~'
        return find('error', told, f'export {variable}={os.path.expanduser(value)}')
    if not root.exists() and not _in_pack(root):
        remedy = f'export {variable}=FOLDER'
        if value:
            return find('error', f'{name} does not exist', remedy)
        return find('absent', f'{name} does not exist', f'{remedy}, where you have the data')
    missing = _missing(root, kind)
    if not missing:
        return find('ok', f'{name}: folders as they should be')
    told = f'{name} lacks {", ".join(missing)}'
    deeper = [entry for entry in _folders(root) if not _missing(entry, kind)]
    if deeper:
        return find('error', told, f'export {variable}={deeper[0]}')
    remedy = f'mmvlr prepare {kind} {root} says what is wrong'
    if kind == 'ui':
        remedy = 'a folder of images is wanted'
    if kind == 'recordio':
        remedy = 'the folder with train.rec, train.idx and lfw.bin is wanted'
    return find('error', told, remedy)


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
    wrapper, folders = find_layout(kind)
    path = unwrap(path, wrapper)
    return [
        ' or '.join(names) for names in folders if not any((path / name).is_dir() for name in names)
    ]


def find_layout(kind: str) -> tuple[str, tuple[tuple[str, ...], ...]]:
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
        findings.append(check_model(named, 'PRETRAINED', 'error', 'PRETRAINED'))
    others = [
        path
        for path in sorted(folder.glob('*'))
        if path.suffix in ('.pth', '.safetensors', '.onnx')
        and (not named or path.resolve() != Path(named).resolve())
    ]
    findings += [check_model(path, 'weights', 'warning') for path in others]
    if not findings:
        told = f'PRETRAINED is not set, and {folder} holds no weights to start a training from'
        remedy = (
            'mmvlr models get sface, then export PRETRAINED=sface; or mmvlr convert a network of '
            'yours and export PRETRAINED=FILE'
        )
        findings.append(Finding('weights', 'absent', told, remedy, 'PRETRAINED'))
    return findings


def check_model(path: str | Path, topic: str, status: str, part: str = '') -> Finding:
    """Load a model and say what it is.

    Args:
        path: The file.
        topic: Topic of the finding.
        status: What the finding is if the model cannot be loaded.
        part: What needs it, see :class:`Finding`.
    """
    from mmvlr.apis.network import load_network

    try:
        network = load_network(str(path), 'cpu')
    except Exception as error:  # the message says what and how to mend it
        remedy = '' if str(path) in str(error) else f'look at {path}'
        return Finding(topic, status, f'{path}: {error}', remedy, part)
    contract = network.contract
    facts = [
        f'weights {network.fingerprint["weights"][:16]}',
        f'{network.fingerprint["embedding"]["dims"]} dimensions',
        f'faces of {network.size[0]} x {network.size[1]} {contract["color_order"]}',
        f'alignment {contract["alignment"]}',
        f'license {_find_license(path, network) or "not stated"}',
    ]
    return Finding(topic, 'ok', f'{path}: {", ".join(facts)}', part=part)


def _find_license(path: str | Path, network: Any) -> str | None:
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
