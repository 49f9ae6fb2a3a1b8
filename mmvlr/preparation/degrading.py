"""A high-resolution face set, made very low-resolution."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from mmvlr.datasets.finding import Tree
from mmvlr.datasets.transforms import ImageError, VLRDegradation, read_image
from mmvlr.utils.io import write_atomic
from mmvlr.utils.outputs import OutputFolder
from mmvlr.utils.schema import FileModel, Text, read_json
from mmvlr.version import __version__

from .degradation_statistics import require_images

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


@dataclass(frozen=True)
class DegradedFolder:
    """What was done with a folder.

    Attributes:
        out: Where the degraded faces are.
        tree: What was found in the source folder.
        counts: How many images were ``written``, ``kept`` of an earlier run, ``not smaller``.
        damaged: What is wrong with each image that cannot be read.
    """

    out: Path
    tree: Tree
    counts: Counter[str]
    damaged: list[str]

    def describe(self) -> str:
        """Return what was done and left out as text."""
        counts, others, unread = self.counts, self.tree.others, self.tree.unread
        lines = [
            f'{self.out}: {counts["written"]:,} images written, {counts["kept"]:,} kept of an '
            'earlier run'
        ]
        if counts['not smaller']:
            lines.append(
                f'  noticed: {counts["not smaller"]:,} not smaller than their source, which has '
                'the drawn native size or less: give larger faces'
            )
        if others:
            shown = ', '.join(path.name for path in others[:3]) + (', ...' if others[3:] else '')
            lines.append(f'  left out: {len(others):,} files that are no images ({shown})')
        if self.damaged:
            lines.append(f'  left out: {len(self.damaged):,} damaged images')
            lines += [f'    {message}' for message in self.damaged]
        if unread:
            lines.append(f'  left out: {len(unread):,} folders and links that cannot be read')
            lines += [f'    {entry}' for entry in unread]
        return '\n'.join(lines)


def degrade_folder(
    src: Path, out: Path, preset: str, seed: int = 0, copies: int = 1, suffix: str = 'png'
) -> DegradedFolder:
    """Degrade all images of a folder.

    An image depends on (preset, seed, its name below ``src``, copy) alone, not on the others or
    their order. A run that was stopped goes on where it was: finished images are kept.

    Args:
        src: High-resolution faces.
        out: Folder of the degraded faces.
        preset: Name of a preset, or a .json file of a fit.
        seed: Seed.
        copies: Degraded faces a source.
        suffix: One of :data:`FORMATS`.

    Raises:
        FileNotFoundError: Source folder or preset is missing.
        ValueError: Preset, folders or recorded settings do not fit; or no image is readable.
        OSError: ``out`` cannot be written, another run writes to it, or it holds a foreign file
            under the name of a result.
    """
    src, out = src.resolve(), out.resolve()
    if src == out or src in out.parents or out in src.parents:
        raise ValueError(f'SRC {src} and OUT {out} must not lie in one another')
    degrade = VLRDegradation(preset)
    tree = require_images(src)
    outputs = plan(src, tree.images, copies, suffix)
    settings = dict(
        source=str(src), parameters=degrade.parameters, seed=seed, copies=copies, suffix=suffix
    )
    counts: Counter[str] = Counter()
    damaged: dict[str, str] = {}
    with OutputFolder(out, 'degrade', empty=True) as output:
        record_settings(output, settings)
        output.claim(outputs)
        console = Console(stderr=True)
        for name, (source, copy) in track(outputs.items(), 'Degrading', console=console):
            if (out / name).is_file():
                counts['kept'] += 1
                continue
            if source in damaged:
                continue
            try:
                image = read_image(str(src / source))
            except ImageError as error:
                damaged[source] = str(error)
                continue
            results = degrade(dict(img=image, rng=make_rng(seed, source, copy)))
            face = Image.fromarray(results['img'])
            write_atomic(out / name, lambda file, f=face: f.save(file, **FORMATS[suffix]))
            counts['written'] += 1
            sides = zip(image.shape[:2], results['img'].shape[:2], strict=True)
            counts['not smaller'] += any(before <= after for before, after in sides)
    done = DegradedFolder(out, tree, counts, list(damaged.values()))
    if not counts['written'] + counts['kept']:
        raise ValueError(f'{done.describe()}\n{src}: all images are damaged')
    return done
