"""Measure the degradation of a folder of faces, fit a preset to it, print and draw both."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress, track

from mmvlr.datasets.transforms import ImageError, read_image, resize
from mmvlr.datasets.transforms.presets import read_preset
from mmvlr.preparation.degradation_fitting import degrade_faces, fit_preset
from mmvlr.preparation.degradation_statistics import (
    DegradationStatistics,
    distance,
    measure_faces,
    require_images,
)
from mmvlr.utils.io import write_atomic
from mmvlr.version import __version__

SHOWN = 10


class Faces:
    """The readable faces of a folder.

    Attributes:
        damaged: Messages of those that are not readable; complete once all were read.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        tree = require_images(folder)
        self.paths, self.others, self.unread = tree.images, tree.others, tree.unread
        self.damaged: list[str] = []

    def __iter__(self) -> Iterator[np.ndarray]:
        console = Console(stderr=True)
        for path in track(self.paths, description=f'Reading {self.folder}', console=console):
            try:
                yield read_image(str(path))
            except ImageError as error:
                self.damaged.append(str(error))

    def describe(self) -> str:
        """Return the counts of images that were read and entries that were left out, with names."""
        lines = [f'{self.folder}: {len(self.paths) - len(self.damaged):,} images']
        if self.others:
            lines.append(f'  left out: {len(self.others):,} files that are no images')
        if self.unread:
            lines.append(f'  left out: {len(self.unread):,} folders and links that cannot be read')
            lines += [f'    {entry}' for entry in self.unread]
        if self.damaged:
            lines.append(f'  left out: {len(self.damaged):,} damaged images')
            lines += [f'    {message}' for message in self.damaged]
        return '\n'.join(lines)


def measure(faces: Faces) -> DegradationStatistics:
    """Measure a folder.

    Raises:
        ValueError: All its images are damaged.
    """
    try:
        return measure_faces(faces)
    except ValueError as error:
        raise ValueError(f'{faces.describe()}\n{error}') from error


def read_sources(faces: Faces, target: DegradationStatistics) -> list[np.ndarray]:
    """Return the faces that are larger than all measured ones; print how many are not.

    Raises:
        ValueError: None is.
    """
    largest = target.sizes.max(0)
    images = list(faces)
    sources = [image for image in images if (image.shape[:2] > largest).all()]
    print(faces.describe())
    if len(sources) < len(images):
        print(
            f'  left out: {len(images) - len(sources):,} not larger than the largest measured '
            f'face, {largest[0]} x {largest[1]}'
        )
    if not sources:
        raise ValueError(f'{faces.folder}: no image is left to degrade; give larger faces')
    return sources


def print_statistics(statistics: DegradationStatistics) -> None:
    """Print the quantiles."""
    summary = statistics.summary()
    print(f'{"":12}' + ''.join(f'{100 * share:>10.0f} %' for share in summary['quantiles']))
    for name in ('height', 'width', 'noise', 'blockiness', 'brightness', 'contrast'):
        cells = ['-' if value is None else f'{value:.2f}' for value in summary[name]]
        print(f'{name:12}' + ''.join(f'{cell:>12}' for cell in cells))


def fit(
    folder: Path,
    target: DegradationStatistics,
    source: Path,
    out: Path,
    start: str,
    samples: int,
    seed: int,
) -> dict[str, tuple[list[np.ndarray], DegradationStatistics]]:
    """Fit a preset and write it; return the degraded faces before and after with their statistics.

    Raises:
        FileNotFoundError: Source folder or start preset is missing.
        ValueError: No source is left, or the start preset is none.
    """
    preset = read_preset(start)
    sources = read_sources(Faces(source), target)
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task('Fitting', total=None)

        def report(evaluations: int, best: float) -> None:
            text = f'Fitting: {evaluations} evaluations, distance {best:.2f} dB'
            progress.update(task, description=text)

        parameters = fit_preset(sources, target, preset, samples=samples, seed=seed, report=report)
    results, distances = {}, {}
    for name, used in (('before', preset), ('after', parameters)):
        # Not the seed of the search, which is fitted to its own random draws.
        faces = degrade_faces(sources, used, max(2 * samples, SHOWN), seed + 1)
        results[name] = faces, measure_faces(faces)
        distances[name] = distance(results[name][1], target)
    print(f'\n{"distance, dB":12}{"before":>10}{"after":>10}')
    for term, before in distances['before'].items():
        print(f'{term:12}{before:10.2f}{distances["after"][term]:10.2f}')
    record = dict(
        parameters=parameters,
        fit=dict(
            target=str(folder),
            target_images=len(target),
            source=str(source),
            source_images=len(sources),
            start=start,
            samples=samples,
            seed=seed,
            distance_db=distances,
            mmvlr=__version__,
        ),
    )
    write_json(out, record)
    return results


def write_json(path: Path, record: dict) -> None:
    """Write strict JSON and print the file's name."""
    text = json.dumps(record, indent=1, allow_nan=False) + '\n'
    print(write_atomic(path, lambda file: file.write_text(text, encoding='utf-8')))


def draw(sets: dict[str, tuple[list[np.ndarray], DegradationStatistics]], path: Path) -> None:
    """Draw heights, spectra, noise and some faces of each set.

    Args:
        sets: Name -> faces to show and statistics.
        path: The image.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from mmvlr.reports.drawing import SERIES, new_axes

    axes = new_axes(10, 3.2 + len(sets))
    figure = axes.figure
    axes.remove()
    upper, lower = figure.subfigures(2, 1, height_ratios=(3.2, len(sets)))
    heights, spectra, noise = upper.subplots(1, 3)
    for (name, (_, statistics)), color in zip(sets.items(), SERIES, strict=False):
        found = np.unique(statistics.sizes[:, 0], return_counts=True)
        heights.step(found[0], found[1] / len(statistics), color=color, where='mid', label=name)
        low, middle, high = np.quantile(statistics.spectra, (0.1, 0.5, 0.9), axis=0)
        frequency = np.arange(1, len(middle) + 1)
        spectra.semilogx(frequency, middle, color=color)
        spectra.fill_between(frequency, low, high, color=color, alpha=0.12, linewidth=0)
        sigma = np.sort(statistics.noise[~np.isnan(statistics.noise)])
        noise.plot(sigma, np.arange(1, len(sigma) + 1) / max(len(sigma), 1), color=color)
    heights.set(xlabel='native height (pixels)', ylabel='share of faces', ylim=(0, None))
    spectra.set(xlabel='cycles an image, at 112 x 112', ylabel='share of power (dB)')
    noise.set(xlabel='noise (gray levels)', ylabel='share of faces below')
    heights.legend(fontsize=8, frameon=False)
    rows = lower.subplots(len(sets), SHOWN, squeeze=False)
    for row, (name, (faces, _)) in zip(rows, sets.items(), strict=True):
        for axes, face in zip(row, faces, strict=False):
            axes.imshow(resize(face, (112, 112)))
        for axes in row:
            axes.set(xticks=[], yticks=[])
            for spine in axes.spines.values():
                spine.set_visible(False)
        row[0].set_ylabel(name, fontsize=8)
    print(write_atomic(path, lambda file: figure.savefig(file, format='png')))


def measure_folder(
    folder: Path, out: Path, figure: Path | None = None, fit_options: dict[str, Any] | None = None
) -> bool:
    """Measure a folder and, optionally, fit a preset and draw the statistics.

    Args:
        folder: Faces at native size.
        out: The statistics, as JSON.
        figure: Image of the statistics.
        fit_options: Arguments of :func:`fit` behind the second.

    Returns:
        Whether everything in the folder could be read.
    """
    faces = Faces(folder)
    statistics = measure(faces)
    print(faces.describe())
    print_statistics(statistics)
    record = dict(
        folder=str(folder),
        damaged=faces.damaged,
        no_images=[str(path) for path in faces.others],
        unread=[str(entry) for entry in faces.unread],
        **statistics.summary(),
    )
    write_json(out, record)
    fitted = fit(folder, statistics, **fit_options) if fit_options else {}
    if figure:
        shown = []
        for path in faces.paths[:: max(1, len(faces.paths) // SHOWN)]:
            try:
                shown.append(read_image(str(path)))
            except ImageError:
                continue
        draw({'measured': (shown, statistics), **fitted}, figure)
    return not faces.damaged and not faces.unread
