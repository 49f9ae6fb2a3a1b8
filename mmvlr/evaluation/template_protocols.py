"""Protocols of templates of images and frames: IJB-B, IJB-C, and lists of their form.

A template is several media of one person, a medium an image or the frames of a video. The frames
of a medium are averaged first, so that a long video counts as much as an image. Templates are
compared in pairs (1:1), or probe templates are searched in a gallery of templates (1:N).
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmvlr.utils.schema import FileFormatError

from .functional import open_set_identification, verification_rates
from .functional._blocks import Array, as_embeddings
from .functional.averaging import weighted_means
from .functional.search import group_rows

#: Images that are averaged at a time, and pairs that are compared at a time.
_IMAGES, _PAIRS = 16_384, 8_192
_REMEDY = "get the protocol's own list again"


@dataclass(frozen=True, eq=False)
class MediaList:
    """Images of the templates of a protocol.

    Attributes:
        names: Name of each image, (N,).
        template: Number of its template, int64 (N,).
        medium: Number of its medium, int64 (N,).
    """

    names: np.ndarray
    template: np.ndarray
    medium: np.ndarray


def read_media(file: str | Path) -> MediaList:
    """Read ``ijbc_face_tid_mid.txt`` or a list of its form: image, template, medium a line.

    Raises:
        FileFormatError: A line has another form, or the list is empty.
    """
    rows = _read_rows(Path(file), 'IMAGE TEMPLATE MEDIUM', 3, (1, 2))
    names, template, medium = zip(*rows, strict=True)
    return MediaList(np.array(names), np.array(template, np.int64), np.array(medium, np.int64))


def read_template_pairs(file: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read ``ijbc_template_pair_label.txt`` or a list of its form: template, template, 1 or 0.

    Returns:
        Templates of each pair, int64 (P, 2), and whether they are of one person, bool (P,).

    Raises:
        FileFormatError: A line has another form, or the list is empty.
    """
    file = Path(file)
    try:
        # 15.7 million lines: NumPy reads them in seconds.
        table = np.loadtxt(file, np.int64, ndmin=2)
    except ValueError as error:
        raise FileFormatError(
            file, f'expected TEMPLATE TEMPLATE LABEL: {error}', _REMEDY
        ) from error
    if table.shape[1:] != (3,) or not len(table) or not np.isin(table[:, 2], (0, 1)).all():
        raise FileFormatError(file, 'expected TEMPLATE TEMPLATE LABEL, label 0 or 1', _REMEDY)
    return table[:, :2], table[:, 2] == 1


def read_template_people(file: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a list of templates such as ``ijbc_1N_gallery_G1.csv``: TEMPLATE_ID, SUBJECT_ID.

    Returns:
        The templates in order of their number, int64 (T,), and the person of each, int64 (T,).

    Raises:
        FileFormatError: A column is missing, or a template has two people.
    """
    file = Path(file)
    columns = 'TEMPLATE_ID', 'SUBJECT_ID'
    found: set[tuple[int, int]] = set()
    with file.open(encoding='utf-8-sig', newline='') as lines:
        # The lists have many columns more, which differ between the sets.
        rows = csv.DictReader(lines)
        missing = [name for name in columns if name not in (rows.fieldnames or ())]
        if missing:
            raise FileFormatError(file, f'{missing[0]}: no such column', _REMEDY)
        for number, row in enumerate(rows, start=2):
            try:
                found.add(tuple(int(row[name]) for name in columns))
            except (TypeError, ValueError) as error:
                told = f'line {number}: expected whole numbers as {" and ".join(columns)}'
                raise FileFormatError(file, told, _REMEDY) from error
    if not found:
        raise FileFormatError(file, 'empty; expected a template a line', _REMEDY)
    pairs = sorted(found)
    template, person = np.array(pairs, np.int64).T
    twice = template[1:][np.diff(template) == 0]
    if len(twice):
        raise FileFormatError(file, f'SUBJECT_ID: template {twice[0]} has two', _REMEDY)
    return template, person


def make_media_templates(
    embeddings: Array, template: np.ndarray, medium: np.ndarray, unit: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Average images to media, media to templates.

    A template is the mean over its media of the mean over each medium's images, scaled to length
    one. That equals a mean of the images in which each counts one over the images of its medium.
    Memory in addition to the templates: a block of images.

    Args:
        embeddings: (N, D), also memory-mapped or made on demand.
        template: Number of each image's template, int64 (N,).
        medium: Number of each image's medium, int64 (N,); media of two templates are two.
        unit: Whether the embeddings must have length one; if not, longer ones count more.

    Returns:
        Numbers of the templates, increasing, int64 (T,), and unit templates, float32 (T, D).

    Raises:
        ValueError: The lengths differ, or the images of a template cancel out.

    Example:
        >>> rows = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], np.float32)
        >>> numbers, templates = make_media_templates(rows, [5, 5, 5, 5], [1, 1, 1, 2])
        >>> numbers, templates.round(3)
        (array([5]), array([[0.707, 0.707]], dtype=float32))
    """
    embeddings = as_embeddings(embeddings, 'embeddings', unit=unit)
    template, medium = np.asarray(template), np.asarray(medium)
    if not len(template) == len(medium) == len(embeddings):
        raise ValueError(
            f'{len(embeddings)} embeddings, {len(template)} templates and {len(medium)} media: '
            'needs one of each per image'
        )
    order, starts = group_rows(template)
    both = np.stack([template[order], medium[order]], axis=1)
    _, group, count = np.unique(both, axis=0, return_inverse=True, return_counts=True)
    weights = 1 / count[group.reshape(-1)]
    numbers = template[order[starts[:-1]]]
    means = weighted_means(
        embeddings,
        weights,
        starts,
        lambda place: f'the images of template {numbers[place]}',
        order=order,
        unit=unit,
        block_size=_IMAGES,
    )
    return numbers, means


def score_template_pairs(
    numbers: np.ndarray, templates: np.ndarray, pairs: np.ndarray
) -> np.ndarray:
    """Return the cosine of each pair, float32 (P,), a block of pairs at a time.

    Args:
        numbers: Numbers of the templates, increasing, (T,).
        templates: Unit templates, float32 (T, D).
        pairs: Numbers of the templates of each pair, (P, 2).

    Raises:
        ValueError: A pair names a template that is not there.
    """
    rows = _find(numbers, pairs)
    scores = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), _PAIRS):
        first, second = rows[start : start + _PAIRS].T
        block = templates[first], templates[second]
        np.einsum('ij,ij->i', *block, out=scores[start : start + _PAIRS])
    return scores


def verify_templates(
    numbers: np.ndarray,
    templates: np.ndarray,
    pairs: np.ndarray,
    same: np.ndarray,
    fars: Sequence[float] = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6),
) -> dict[str, float]:
    """Compute TAR at FAR of pairs of templates (1:1); see :func:`verification_rates`."""
    return verification_rates(score_template_pairs(numbers, templates, pairs), same, fars)


def identify_templates(
    numbers: np.ndarray,
    templates: np.ndarray,
    gallery: tuple[np.ndarray, np.ndarray],
    probe: tuple[np.ndarray, np.ndarray],
    fpirs: Sequence[float] = (0.1, 0.01),
    **options: Any,
) -> Mapping[str, float]:
    """Search probe templates in gallery templates (1:N), mated and unmated ones.

    Surveillance to single, to booking and to surveillance differ in the lists alone.

    Args:
        numbers: Numbers of the templates, increasing, (T,).
        templates: Unit templates, float32 (T, D).
        gallery: Numbers and people of the gallery's templates, as :func:`read_template_people`
            returns them.
        probe: The same of the probes; those of people not in the gallery are unmated.
        fpirs: Target false positive identification rates.
        **options: Of :func:`open_set_identification`, such as ``rank``.

    Returns:
        See :func:`open_set_identification`.

    Raises:
        ValueError: A list names a template that is not there, or no probe is mated or unmated.
    """
    rows = _find(numbers, gallery[0]), _find(numbers, probe[0])
    mated = np.isin(probe[1], gallery[1])
    if mated.all() or not mated.any():
        raise ValueError('probe: needs people who are in the gallery and people who are not')
    return open_set_identification(
        templates[rows[0]],
        gallery[1],
        templates[rows[1][mated]],
        probe[1][mated],
        templates[rows[1][~mated]],
        fpirs,
        **{'template': 'none'} | options,
    )


def _find(numbers: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the rows of templates by their numbers."""
    rows = np.minimum(np.searchsorted(numbers, wanted), len(numbers) - 1)
    missing = np.asarray(wanted)[numbers[rows] != wanted]
    if len(missing):
        raise ValueError(
            f'{len(np.unique(missing))} templates have no image, such as number {missing[0]}'
        )
    return rows


def _read_rows(file: Path, form: str, width: int, numbers: tuple[int, ...]) -> list[list[Any]]:
    """Read lines of fields, some of them whole numbers."""
    rows: list[list[Any]] = []
    for number, line in enumerate(file.read_text(encoding='utf-8-sig').splitlines(), start=1):
        fields: list[Any] = line.split()
        if not fields:
            continue
        try:
            for place in numbers:
                fields[place] = int(fields[place])
        except (ValueError, IndexError):
            fields = []
        if len(fields) != width:
            raise FileFormatError(file, f'line {number}: expected {form}', _REMEDY)
        rows.append(fields)
    if not rows:
        raise FileFormatError(file, f'empty; expected {form}', _REMEDY)
    return rows
