"""Make a high-resolution face set very low-resolution.

    python tools/dataset_converters/degrade.py SRC OUT --preset tinyface

Folders and names are kept. An image depends on (preset, seed, its name below SRC, copy) alone, not
on the others or their order. A run that was stopped goes on where it was: finished images are
kept. ``OUT/degradation.json`` records the settings, and a run with others is refused. Exit code 3
if some images or folders cannot be read; they are named.
"""

import argparse
import hashlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from mmvlr.datasets.finding import Tree
from mmvlr.datasets.transforms import ImageError, VLRDegradation, read_image
from mmvlr.datasets.transforms.presets import PRESETS
from mmvlr.preparation.degradation_statistics import require_images
from mmvlr.utils.command import describe
from mmvlr.utils.io import write_atomic
from mmvlr.utils.outputs import OutputFolder
from mmvlr.utils.schema import FileModel, Text, read_json
from mmvlr.version import __version__

RECORD = 'degradation.json'


class _Settings(FileModel):
    source: Text
    parameters: dict[str, dict[str, Any]]
    seed: int
    copies: int
    suffix: str


class _Record(FileModel):
    settings: _Settings
    mmvlr: str


#: How a suffix is written. A preset compresses already, so JPEG here loses as little as it can.
FORMATS = dict(
    png=dict(format='PNG'),
    bmp=dict(format='BMP'),
    jpg=dict(format='JPEG', quality=100, subsampling='4:4:4'),
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(
        prog='mmvlr degrade',
        description=describe(__doc__, whole=True),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('src', type=Path, metavar='SRC', help='high-resolution faces')
    parser.add_argument('out', type=Path, metavar='OUT', help='folder of the degraded faces')
    parser.add_argument(
        '--preset', required=True, help=f'{", ".join(PRESETS)}, or a .json file of a fit'
    )
    parser.add_argument('--seed', type=int, default=0, help='default: 0')
    parser.add_argument(
        '--copies', type=int, default=1, help='degraded faces a source: NAME, NAME-2, NAME-3, ...'
    )
    parser.add_argument('--suffix', choices=sorted(FORMATS), default='png', help='default: png')
    args = parser.parse_args(argv)
    if args.copies < 1:
        parser.error('--copies must be at least 1')
    if args.seed < 0:
        parser.error('--seed must not be negative')
    return args


def make_rng(seed: int, name: str, copy: int) -> np.random.Generator:
    """Return the generator of one image.

    Args:
        seed: Seed of the run.
        name: Path below the source folder, with slashes.
        copy: 1 for the first.
    """
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.default_rng((seed, copy, int.from_bytes(digest, 'big')))


def plan(src: Path, images: list[Path], copies: int, suffix: str) -> dict[str, tuple[str, int]]:
    """Return output name -> (source name, copy), all below their folders.

    Raises:
        ValueError: Two sources would be written to one file.
    """
    outputs: dict[str, tuple[str, int]] = {}
    for path in images:
        source = path.relative_to(src)
        for copy in range(1, copies + 1):
            name = source.stem + (f'-{copy}' if copy > 1 else '') + f'.{suffix}'
            output = source.with_name(name).as_posix()
            if output in outputs:
                raise ValueError(
                    f'{src / outputs[output][0]} and {path} would both become {output}; rename one'
                )
            outputs[output] = source.as_posix(), copy
    return outputs


def record_settings(output: OutputFolder, settings: dict[str, Any]) -> None:
    """Record the settings in a folder, or see that those recorded there are the same.

    Raises:
        ValueError: They differ.
        FileFormatError: The record is damaged.
        FileExistsError: The record is not by mmvlr.
    """
    record = output.folder / RECORD
    output.claim([RECORD])
    # As JSON gives them back: tuples become lists.
    settings = json.loads(json.dumps(settings))
    if record.is_file():
        found = read_json(record, _Record, 'choose an empty OUT').settings.model_dump()
        different = [key for key in settings if found[key] != settings[key]]
        if different:
            raise ValueError(
                f'{record}: this folder was made with other settings ({", ".join(different)}); '
                'repeat those, or choose an empty OUT'
            )
        return
    text = json.dumps(dict(settings=settings, mmvlr=__version__), indent=1) + '\n'
    write_atomic(record, lambda file: file.write_text(text, encoding='utf-8'))


def degrade_folder(args: argparse.Namespace) -> int:
    """Degrade all images of a folder; print what was done and left out.

    Returns:
        The number of images and folders that cannot be read.

    Raises:
        FileNotFoundError: Source folder or preset is missing.
        ValueError: Preset, folders or recorded settings do not fit; or no image is readable.
        OSError: ``OUT`` cannot be written, another run writes to it, or it holds a foreign file
            under the name of a result.
    """
    src, out = args.src.resolve(), args.out.resolve()
    if src == out or src in out.parents or out in src.parents:
        raise ValueError(f'SRC {src} and OUT {out} must not lie in one another')
    degrade = VLRDegradation(args.preset)
    tree = require_images(src)
    outputs = plan(src, tree.images, args.copies, args.suffix)
    settings = dict(
        source=str(src),
        parameters=degrade.parameters,
        seed=args.seed,
        copies=args.copies,
        suffix=args.suffix,
    )
    with OutputFolder(out, 'degrade', empty=True) as output:
        record_settings(output, settings)
        output.claim(outputs)
        damaged = _degrade(args, src, out, degrade, outputs, tree)
    return damaged + len(tree.unread)


def _degrade(
    args: argparse.Namespace,
    src: Path,
    out: Path,
    degrade: VLRDegradation,
    outputs: dict[str, tuple[str, int]],
    tree: Tree,
) -> int:
    others = tree.others
    counts: Counter[str] = Counter()
    damaged: dict[str, str] = {}
    for output, (source, copy) in track(
        outputs.items(), description='Degrading', console=Console(stderr=True)
    ):
        if (out / output).is_file():
            counts['kept'] += 1
            continue
        if source in damaged:
            continue
        try:
            image = read_image(str(src / source))
        except ImageError as error:
            damaged[source] = str(error)
            continue
        results = degrade(dict(img=image, rng=make_rng(args.seed, source, copy)))
        face = Image.fromarray(results['img'])
        write_atomic(out / output, lambda file, f=face: f.save(file, **FORMATS[args.suffix]))
        counts['written'] += 1
        sides = zip(image.shape[:2], results['img'].shape[:2], strict=True)
        counts['not smaller'] += any(before <= after for before, after in sides)
    print(f'{out}: {counts["written"]:,} images written, {counts["kept"]:,} kept of an earlier run')
    if counts['not smaller']:
        print(
            f'  noticed: {counts["not smaller"]:,} not smaller than their source, which has the '
            'drawn native size or less: give larger faces'
        )
    if others:
        print(f'  left out: {len(others):,} files that are no images ({names(others)})')
    if damaged:
        print(f'  left out: {len(damaged):,} damaged images')
        print('\n'.join(f'    {message}' for message in damaged.values()))
    if tree.unread:
        print(f'  left out: {len(tree.unread):,} folders and links that cannot be read')
        print('\n'.join(f'    {entry}' for entry in tree.unread))
    if not counts['written'] + counts['kept']:
        raise ValueError(f'{src}: all images are damaged')
    return len(damaged)


def names(paths: list[Path]) -> str:
    """Return the first names of a list as text."""
    return ', '.join(path.name for path in paths[:3]) + (', ...' if len(paths) > 3 else '')


def main(argv: list[str] | None = None) -> int:
    """Degrade a folder; return the exit code."""
    args = parse_args(argv)
    try:
        return 3 if degrade_folder(args) else 0
    except (OSError, ValueError) as error:
        print(f'mmvlr degrade: {error}', file=sys.stderr)
        return 1
