"""Alignment of a folder of images; a killed run goes on where it stopped."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from PIL import Image
from pydantic import Field

from mmvlr.datasets.alignment import (
    COLUMNS,
    RECIPE_FILE,
    TABLE_FILE,
    AlignmentRecipe,
    describe_crowd,
    find_alignment,
)
from mmvlr.datasets.base import require_folder
from mmvlr.datasets.finding import IMAGE_SUFFIXES, find_images
from mmvlr.datasets.transforms import ImageError, read_image
from mmvlr.utils.io import sha256_of, write_atomic, write_csv
from mmvlr.utils.outputs import OutputFolder
from mmvlr.utils.schema import FileModel, Text
from mmvlr.utils.work import Journal, Stamp, in_order, progress_bar, read_stamp

from .alignment import make_recipe
from .landmarks import build_aligner

JOURNAL_FILE = '.alignment.jsonl'

_Point = Annotated[list[float], Field(min_length=2, max_length=2)]


class Entry(FileModel):
    """A line of the journal: an image that is aligned."""

    file: Text
    stamp: Stamp
    confidence: float
    landmarks: Annotated[list[_Point], Field(min_length=4, max_length=5)] | None
    sha256: str


@dataclass
class TreeReport:
    """What :func:`align_tree` did.

    Attributes:
        recipe: The recipe.
        rows: One dict an image, as in ``alignment.csv``, in name order.
        copied: Files that are no images, such as .mat files.
        unreadable: What cannot be read, with the reason.
        stale: Files of earlier runs in the output that the source does not hold any more.
        resumed: Number of images taken over from an earlier run.
    """

    recipe: AlignmentRecipe
    rows: list[dict] = field(default_factory=list)
    copied: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    resumed: int = 0

    @property
    def fallbacks(self) -> int:
        """Number of images without a detected face."""
        return sum(row['fallback'] for row in self.rows)


def files_below(root: Path) -> list[str]:
    """Return the files below a folder, relative and in name order; hidden ones are none."""
    tree = find_images(root)
    return sorted(path.relative_to(root).as_posix() for path in (*tree.images, *tree.others))


class _AlignFile:
    """Aligns one file of a tree; lives in the working process."""

    def __init__(
        self,
        src: Path,
        out: Path,
        recipe: AlignmentRecipe,
        detector: Mapping[str, Any] | None,
    ):
        self.src, self.out, self.aligner = src, out, build_aligner(recipe, detector)

    def __call__(self, name: str) -> dict:
        stamp = read_stamp(self.src / name)
        try:
            face = self.aligner(read_image(str(self.src / name)), name)
        except ImageError as error:
            return dict(file=name, error=str(error))
        except Exception as error:  # of detection or warping: it is of this image alone
            return dict(file=name, error=f'{name} cannot be aligned ({error!r:.300})')
        if face.detection is None and face.faces:
            return dict(file=name, error=f'{name}: {describe_crowd(face.faces)}')
        # Always PNG, whatever the suffix: decoders look at the content, lists of names go by name.
        image = Image.fromarray(face.image)
        target = write_atomic(self.out / name, lambda path: image.save(path, format='PNG'))
        found = face.detection
        return dict(
            file=name,
            stamp=stamp,
            confidence=0.0 if found is None else found.confidence,
            landmarks=None if found is None else found.landmarks.tolist(),
            sha256=sha256_of(target),
        )


def align_tree(
    src: str | Path,
    out: str | Path,
    recipe: AlignmentRecipe | None = None,
    jobs: int = 1,
    detector: Mapping[str, Any] | None = None,
) -> TreeReport:
    """Align every image below a folder into another one, under the same relative names.

    The aligned images are PNG under the names they had, with their old suffix: so the lists of
    names in a data set's .mat files hold, and its loader reads the result as it reads the source.
    Files that are no images are copied. ``alignment.csv`` says for every image whether it is a
    fallback, the detector's confidence, the landmarks in pixels of the source and the SHA-256 of
    the aligned file; ``alignment.json`` holds the recipe.

    A killed run goes on where it stopped, with the same result; a later run does only what is new.
    Other files in ``out`` stay; what is noted as written there is in :class:`OutputFolder`'s notes.

    Args:
        src: Folder of the images.
        out: Folder of the result.
        recipe: The recipe.
        jobs: Number of processes.
        detector: Config of the detector, see :class:`Aligner`.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It holds no image, is aligned already or contains ``out``; or ``out`` holds
            images of another recipe or origin.
        OSError: ``out`` cannot be written, or another run writes to it, or holds a file of another
            origin under a name of the source.
    """
    src, out = Path(src).resolve(), Path(out).resolve()
    require_folder(src, 'alignment', 'a folder of images, or of folders of images')
    if src == out or src in out.parents or out in src.parents:
        raise ValueError(f'{out} lies in {src} or around it; choose a folder of its own')
    if find_alignment(src) is not None:
        raise ValueError(f'{src} is aligned already (it has {RECIPE_FILE}); give the source')
    names = files_below(src)
    images = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise ValueError(f'no image ({", ".join(sorted(IMAGE_SUFFIXES))}) below {src}')
    with OutputFolder(out, 'align', empty=True) as output:
        recipe = recipe or make_recipe(detector)
        return _align_tree(src, output, recipe, names, images, jobs, detector)


def _align_tree(
    src: Path,
    output: OutputFolder,
    recipe: AlignmentRecipe,
    names: list[str],
    images: list[str],
    jobs: int,
    detector: Mapping[str, Any] | None,
) -> TreeReport:
    report, out = TreeReport(recipe), output.folder
    output.claim([*names, JOURNAL_FILE, RECIPE_FILE, TABLE_FILE])
    header = dict(source=str(src), recipe=asdict(recipe))
    journal = Journal(out / JOURNAL_FILE, header, 'file', Entry)
    # Not even a half-done tree may pass for an aligned one.
    for file in (RECIPE_FILE, TABLE_FILE):
        (out / file).unlink(missing_ok=True)
    for name in names:
        if Path(name).suffix.lower() not in IMAGE_SUFFIXES:
            write_atomic(out / name, partial(shutil.copyfile, src / name))
            report.copied.append(name)
    todo = [
        name
        for name in images
        if journal.found.get(name, {}).get('stamp') != read_stamp(src / name)
        or not (out / name).is_file()
    ]
    report.resumed = len(images) - len(todo)
    try:
        with progress_bar('align', len(todo)) as advance:
            for entry in in_order(partial(_AlignFile, src, out, recipe, detector), todo, jobs):
                if 'error' in entry:
                    report.unreadable.append(entry['error'])
                    journal.found.pop(entry['file'], None)
                else:
                    journal.append(entry)
                advance()
    finally:
        journal.close()
    report.unreadable += map(str, find_images(src).unread)
    report.rows = [make_row(journal.found[name]) for name in images if name in journal.found]
    written = output.names - {JOURNAL_FILE, RECIPE_FILE, TABLE_FILE}
    report.stale = sorted(n for n in written if _is_gone(src / n) and (out / n).is_file())
    _write_tables(out, report)
    return report


def _is_gone(path: Path) -> bool:
    """Say whether a file is certainly not there; in a folder without a right to it, nothing is."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def make_row(entry: dict) -> dict:
    """Return the row of ``alignment.csv`` for a line of the journal."""
    points = entry['landmarks']
    row = dict(
        file=entry['file'],
        fallback=int(points is None),
        confidence=f'{entry["confidence"]:.4f}',
    )
    for index in range(5):
        for axis in (0, 1):
            known = points is not None and index < len(points)
            value = f'{points[index][axis]:.3f}' if known else ''
            row[f'{"xy"[axis]}{index + 1}'] = value
    return dict(row, sha256=entry['sha256'])


def _write_tables(out: Path, report: TreeReport) -> None:
    write_csv(out / TABLE_FILE, COLUMNS, report.rows)
    facts = dict(
        recipe=asdict(report.recipe),
        digest=report.recipe.digest,
        name=report.recipe.name,
        images=len(report.rows),
        fallbacks=report.fallbacks,
        unreadable=len(report.unreadable),
    )
    text = json.dumps(facts, indent=2) + '\n'
    write_atomic(out / RECIPE_FILE, lambda path: path.write_text(text, encoding='utf-8'))
