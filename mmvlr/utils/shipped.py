"""Find the configs that come with mmvlr: beside the package in a clone, inside it in a wheel."""

import difflib
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def find_configs() -> Path:
    """Return the folder of the configs that come with mmvlr.

    Raises:
        FileNotFoundError: The installation lacks them.
    """
    for folder in (_PACKAGE.parent / 'configs', _PACKAGE / '.mim' / 'configs'):
        if (folder / '_base_').is_dir():
            return folder
    raise FileNotFoundError(f'{_PACKAGE} lacks its configs: install mmvlr again')


def list_configs() -> dict[str, Path]:
    """Return the configs that come with mmvlr: short name -> file."""
    shipped = find_configs()
    return {
        file.relative_to(shipped).with_suffix('').as_posix(): file
        for file in sorted(shipped.glob('[!_]*/*.py'))
    }


def find_config(name: str | Path) -> Path:
    """Return the file of a config.

    Args:
        name: A file, or the name of a config that comes with mmvlr, such as
            ``riface/r50_tinyface`` (optionally with ``configs/`` and ``.py``).

    Raises:
        FileNotFoundError: There is neither; the message suggests similar names.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = list_configs()
    short = path.as_posix().removeprefix('./').removeprefix('configs/').removesuffix('.py')
    if short in known:
        return known[short]
    near = difflib.get_close_matches(short, known, 3)
    told = f'; did you mean {" or ".join(near)}?' if near else '; mmvlr config lists those of mmvlr'
    raise FileNotFoundError(f'config {name} does not exist{told}')


def find_run_config(work_dir: Path) -> Path:
    """Return the config that a training wrote into its work dir.

    Raises:
        FileNotFoundError: There is none, or more than one.
    """
    configs = sorted(work_dir.glob('*.py'))
    if len(configs) != 1:
        raise FileNotFoundError(
            f'{work_dir} holds {len(configs)} config files instead of the one that mmvlr train '
            'writes; name the config (mmvlr test CONFIG CHECKPOINT, mmvlr report --config CONFIG)'
        )
    return configs[0]
