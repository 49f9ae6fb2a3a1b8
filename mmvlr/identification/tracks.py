"""Probes of several faces: make one probe of a track, a burst of frames or the images of a medium.

Everything that follows, from calibration to the verdict, then treats the track as one probe.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmvlr.evaluation.templates import ImageTemplates, template_config
from mmvlr.registry import TEMPLATES
from mmvlr.structures import FaceTable
from mmvlr.structures.face_table import MEASURES
from mmvlr.utils.schema import FileModel, read_csv, validate
from mmvlr.utils.vectors import unit_rows

from .decision import Change

#: Value of ``tracks`` with which the images of a folder are a track.
FOLDER = 'folder'
#: Key of a decision's ``calibrated_on`` that says which probes it was calibrated on.
PROBE_KEY = 'probe'

#: Names the track of each image: ``'folder'``, a CSV file, or track by name of the image.
TrackSource = str | Path | Mapping[str, str]


class _TrackRow(FileModel):
    """A row of a table of tracks; ``medium`` may be empty."""

    file: str
    track: str
    medium: str


class _ProbeContent(FileModel):
    """Rule of the probes of a decision, in its file."""

    template: dict[str, Any]
    least: dict[str, float]
    keep: str | None


@dataclass(frozen=True, eq=False)
class Tracks:
    """Tracks and the probes that were made of them.

    Attributes:
        faces: All N faces, with the column ``track``.
        kept: Whether each face is used, bool (N,).
        probes: One row per track with a used face: the embedding is the template, a quality is its
            mean over the used faces, ``name`` is the track, and ``images`` and ``used`` are the
            numbers of its faces.
        empty: Tracks without a used face, with the number of their faces.
    """

    faces: FaceTable
    kept: np.ndarray
    probes: FaceTable
    empty: dict[str, int]

    def rows(self, track: str) -> np.ndarray:
        """Return the rows of the faces of a track."""
        return np.flatnonzero(self.faces.columns['track'] == track)

    def best_shots(self, quality: str | None = None) -> dict[str, int]:
        """Return the row of the best face of each track.

        Args:
            quality: Name of the quality (default: ``'ri'``, else the first there is).

        Raises:
            ValueError: The faces have no such quality.
        """
        values = self.faces.columns.get(quality or next(iter(self.faces.qualities), ''))
        if values is None:
            there = ', '.join(self.faces.qualities) or 'none'
            raise ValueError(f'there is no quality {quality!r} of the faces, only {there}')
        order = np.argsort(-values, kind='stable')
        names, first = np.unique(self.faces.columns['track'][order], return_index=True)
        return dict(zip(names.tolist(), order[first].tolist(), strict=True))


@dataclass(frozen=True)
class TrackRule:
    """How the faces of a track become one probe.

    Attributes:
        template: Template rule that makes the probe of the used faces, by name or config, as in
            :class:`mmvlr.identification.Gallery`.
        least: Lowest value by name of a quality; faces below one of them are left out.
        keep: Function from the table of all faces, whose column ``track`` names the track, to
            whether each is kept, bool (N,).

    Example:
        >>> faces = FaceTable(
        ...     np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]),
        ...     np.full(3, 'probe'),
        ...     np.full(3, -100),
        ...     dict(track=np.array(['a', 'a', 'b']), ri=[0.9, 0.1, 0.7]),
        ... )
        >>> found = TrackRule(least=dict(ri=0.5))(faces)
        >>> found.probes.names, found.probes.embedding.tolist()
        (['a', 'b'], [[1.0, 0.0], [0.0, 1.0]])
    """

    template: str | Mapping[str, Any] = 'mean'
    least: Mapping[str, float] = field(default_factory=dict)
    keep: Callable[[FaceTable], np.ndarray] | None = None

    def __call__(self, faces: FaceTable) -> Tracks:
        """Make a probe of each track.

        Args:
            faces: Faces with the column ``track``, and ``medium`` if the rule asks for it; see
                :func:`name_tracks`.

        Raises:
            ValueError: A quality is missing, ``keep`` does not give one truth value per face, the
                rule makes several templates, or the faces of a track cancel out.
        """
        rule = TEMPLATES.build(template_config(self.template))
        if isinstance(rule, ImageTemplates):
            raise ValueError(
                "the rule 'images' makes a template of every face, and a track is one probe: "
                'choose another rule'
            )
        kept = self._find_kept(faces)
        names = faces.columns['track']
        rows = np.flatnonzero(kept)
        rows = rows[np.argsort(names[rows], kind='stable')]
        tracks, start, used = np.unique(names[rows], return_index=True, return_counts=True)
        starts = np.append(start, len(rows))
        qualities = {name: values[rows] for name, values in faces.qualities.items()}
        if 'medium' in faces.columns:
            _, number = np.unique(faces.columns['medium'][rows], return_inverse=True)
            qualities['medium'] = number.astype(np.float32)
        every, images = np.unique(names, return_counts=True)
        counts = dict(zip(every.tolist(), images.tolist(), strict=True))
        embedding = np.zeros((0, faces.embedding.shape[1]), np.float32)
        if len(rows):
            unit = unit_rows(faces.embedding[rows])
            embedding = rule.many(unit, starts, qualities, tracks.tolist())[0]
        columns: dict[str, np.ndarray] = {
            name: _means(values[rows], starts) for name, values in faces.qualities.items()
        }
        columns |= dict(name=tracks.astype(str), used=used)
        columns['images'] = np.array([counts[track] for track in tracks.tolist()], np.int64)
        first = rows[start]
        probes = FaceTable(
            embedding, faces.role[first], faces.identity[first], columns, meta=faces.meta
        )
        empty = {track: count for track, count in counts.items() if track not in {*tracks}}
        return Tracks(faces, kept, probes, empty)

    def _find_kept(self, faces: FaceTable) -> np.ndarray:
        kept = np.ones(len(faces), bool)
        for name, least in self.least.items():
            if name not in faces.columns or faces.columns[name].dtype.kind not in 'biuf':
                there = ', '.join(faces.qualities) or 'none'
                raise ValueError(f'faces have no quality {name!r} to be left out by, only {there}')
            kept &= faces.columns[name] >= least
        if self.keep is not None:
            chosen = np.asarray(self.keep(faces))
            if chosen.shape != kept.shape or chosen.dtype != bool:
                raise ValueError(
                    f'keep must return bool ({len(faces)},), got {chosen.dtype} {chosen.shape}'
                )
            kept &= chosen
        return kept

    def describe(self) -> dict[str, Any]:
        """Return the rule as plain values, for the file of a decision."""
        function = self.keep
        name = None
        if function is not None:
            kind = function if hasattr(function, '__qualname__') else type(function)
            name = f'{kind.__module__}.{kind.__qualname__}'
        least = {name: float(value) for name, value in sorted(self.least.items())}
        return dict(template=template_config(self.template), least=least, keep=name)

    def find_changes(self, faces: FaceTable) -> tuple[Change, ...]:
        """Return what would have given a probe to the faces of a track, none of which is used."""
        if self.keep is not None or len(self.least) != 1:
            return ()  # the best face by one rule may be left out by the other
        ((name, least),) = self.least.items()
        return (Change(name, float(faces.columns[name].max()), float(least)),)

    def tell_empty(self, number: int) -> str:
        """Return why a track of a number of faces gives no probe."""
        rules = [f'{MEASURES.get(k, k)} below {v:g}' for k, v in self.least.items()]
        rules += ['the rule keep'] if self.keep is not None else []
        return f'None of its {number} faces is used: left out by {", or ".join(rules)}.'


def find_rule(
    calibrated_on: Mapping[str, Any], tracks: TrackSource | None, rule: TrackRule | None
) -> TrackRule | None:
    """Return the rule for the probes of a decision; None for single faces.

    Args:
        calibrated_on: See :class:`mmvlr.identification.Decision`; empty without a decision.
        tracks: Source of the tracks; None for single faces.
        rule: The rule of the caller, or None for that of the decision.

    Raises:
        ValueError: The decision was calibrated on other probes, so its rate is not kept.
    """
    if rule is not None and tracks is None:
        raise ValueError('a rule for tracks needs tracks: say which faces belong together')
    if not calibrated_on:
        return None if tracks is None else rule or TrackRule()
    stored = calibrated_on.get(PROBE_KEY)
    if (stored is None) != (tracks is None):
        made, given = ('single faces', 'tracks') if stored is None else ('tracks', 'single faces')
        raise ValueError(
            f'the decision was calibrated on {made}, and {given} are to be identified: its false '
            f'positive rate is not kept; calibrate on {given}, or identify {made}'
        )
    if stored is None:
        return None
    content = validate(stored, _ProbeContent, 'the decision: probe', 'calibrate again')
    found = TrackRule(content.template, content.least)
    if rule is not None and rule.describe() != content.model_dump():
        raise ValueError(
            f'the decision was calibrated on tracks by the rule {content.model_dump()}, not '
            f'{rule.describe()}: leave the rule out, or calibrate with it'
        )
    if rule is None and content.keep is not None:
        raise ValueError(
            f'the decision was calibrated on tracks whose faces {content.keep} chose: pass '
            'rule=TrackRule(..., keep=...) with that function'
        )
    return rule or found


def name_tracks(faces: FaceTable, source: TrackSource) -> FaceTable:
    """Add the column ``track``, and ``medium`` where it is known, to faces.

    Args:
        faces: Faces with names.
        source: ``'folder'``: the images that lie in the same folder are a track. A CSV file with
            the columns ``file,track,medium``: files relative to its folder; ``medium`` may be
            empty. Or a mapping from the name of an image to its track.

    Raises:
        FileNotFoundError: There is no such file.
        FileFormatError: The file is damaged or has other columns.
        ValueError: An image has no track.
    """
    media = None
    if isinstance(source, Mapping):
        tracks = [source.get(name) for name in faces.names]
        place = 'the mapping'
    elif source == FOLDER:
        tracks = [str(Path(name).parent) for name in faces.names]
        place = ''
    else:
        place = str(source)
        root = Path(source).expanduser().resolve().parent
        table = {
            (root / row.file).resolve(): row
            for row in read_csv(
                Path(source).expanduser(), _TrackRow, 'write the columns file,track,medium'
            )
        }
        rows = [table.get(Path(name).expanduser().resolve()) for name in faces.names]
        tracks = [None if row is None else row.track for row in rows]
        media = ['' if row is None else row.medium for row in rows]
    lost = [name for name, track in zip(faces.names, tracks, strict=True) if not track]
    if lost:
        raise ValueError(
            f'{len(lost)} images have no track in {place}, such as {lost[0]}: add them'
        )
    columns = dict(faces.columns, track=np.array(tracks, dtype=str))
    if media is not None and all(media):
        columns['medium'] = np.array(media, dtype=str)
    return replace(faces, columns=columns)


def group_owners(tracks: Tracks, owners: Sequence[str]) -> list[str]:
    """Return the person of each probe.

    Args:
        tracks: The tracks.
        owners: Person of each of the N faces.

    Raises:
        ValueError: The faces of a track are of several people.
    """
    people: dict[str, str] = {}
    for track, owner in zip(tracks.faces.columns['track'].tolist(), owners, strict=True):
        if people.setdefault(track, owner) != owner:
            raise ValueError(
                f'the track {track} has faces of several people, such as {people[track]} and '
                f'{owner}: a track is of one person'
            )
    return [people[track] for track in tracks.probes.names]


def _means(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    if len(starts) < 2:
        return values.astype(np.float32)
    sums = np.add.reduceat(values.astype(np.float64), starts[:-1])
    return (sums / np.diff(starts)).astype(np.float32)
