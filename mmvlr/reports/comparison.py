"""Render the page that compares methods, as one self-contained HTML file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from mmvlr.evaluation.systems import Score

from .faces import FaceCard, check_caption
from .figures import DiscardCurve
from .page import PageData, Sections, keep_finite_measures, render_page

# Bands of more curves than this hide one another.
_MOST_BANDS = 3


@dataclass(frozen=True)
class ScoreTable:
    """Methods in rows, figures in columns.

    Attributes:
        title: For example ``TinyFace, ResNet-50``.
        columns: Names of the figures, such as ``rank-1``.
        rows: Scores by method, one per column; None where there is none.
        note: One line below the title, or ''.
        kind: Name of what a row stands for.

    Raises:
        ValueError: A row has more or fewer scores than there are columns, or the scores of a
            column differ in ``unit`` or ``lower_is_better``.
    """

    title: str
    columns: Sequence[str]
    rows: Mapping[str, Sequence[Score | None]]
    note: str = ''
    kind: str = 'Method'

    def __post_init__(self) -> None:
        for name, scores in self.rows.items():
            if len(scores) != len(self.columns):
                raise ValueError(
                    f'table {self.title!r}: row {name!r} has {len(scores)} scores for '
                    f'{len(self.columns)} columns; fill it up with None'
                )
        for index, column in enumerate(self.columns):
            kinds = {(score.unit, score.lower_is_better) for score in self._take_column(index)}
            if len(kinds) > 1:
                raise ValueError(
                    f'table {self.title!r}: the scores of column {column!r} must agree in unit '
                    f'and lower_is_better, got {sorted(kinds)}'
                )

    @property
    def arrows(self) -> list[str]:
        """Direction of better values, for each column."""
        columns = [self._take_column(index) for index in range(len(self.columns))]
        return [('↓' if found[0].lower_is_better else '↑') if found else '' for found in columns]

    @property
    def scores(self) -> list[Score]:
        """All scores that are not None."""
        return [score for index in range(len(self.columns)) for score in self._take_column(index)]

    def _take_column(self, index: int) -> list[Score]:
        return [scores[index] for scores in self.rows.values() if scores[index] is not None]


@dataclass(frozen=True)
class ActivationRow:
    """A face with the activation map of each method.

    Attributes:
        face: (h, w, 3) uint8, RGB.
        maps: Method to its map (h', w') in [0, 1], coarser than the face or not.
        caption: Lines below the face.
    """

    face: np.ndarray
    maps: Mapping[str, np.ndarray]
    caption: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_caption(self.caption)
        for method, values in self.maps.items():
            values = np.asarray(values)
            if values.ndim != 2 or not ((values >= 0) & (values <= 1)).all():
                raise ValueError(
                    f'the activation map of {method!r} must be (h, w) in [0, 1], got shape '
                    f'{values.shape}'
                )


@dataclass(frozen=True)
class ComparisonData(PageData):
    """Content of the comparison page; empty sections are left out, with the reason.

    Attributes:
        recognition: Tables of recognition rates.
        ablation: Tables of what each part of a method contributes.
        quality: Data set to measure to the set (``probe``, ``gallery``, ``ui``) to values (N,).
        quality_tables: Tables of how well measures separate probes from UI faces.
        discard: Data set to measure to its curve of rank-1 error over the discarded share.
        discard_bounds: Data set to reference curves: ``random``, ``perfect knowledge``.
        discard_tables: Tables of areas below the curves.
        hard_faces: Data set to measure (``ERS``, ``RI``) to its lowest faces, in order.
        activation: Faces with activation maps; columns are methods.
        activation_note: How the maps were made: target, layer, method.
        runs: All runs, each with its name, status, seconds, seed and so on; keys become columns,
            ``seconds`` is shown as hours and minutes.
        missing: Planned runs that are missing, with the reason.
    """

    SECTIONS: ClassVar[Sections] = {
        'reading': ('In words', 'In words', None),
        'recognition': ('Recognition', 'Recognition', 'no recognition rates were given.'),
        'ablation': ('Ablation', 'Ablation', 'no ablation was given.'),
        'quality': ('Quality scores', 'Quality', 'no quality scores were given.'),
        'discard': ('Error versus discard', 'Discard', 'no curves were given.'),
        'hard_faces': ('Lowest faces of each measure', 'Faces', 'no faces were given.'),
        'activation': ('Activation maps', 'Activation', 'no activation maps were given.'),
        'runs': ('Runs', 'Runs', 'no runs were given.'),
        'missing': ('Not here', 'Not here', None),
        'details': ('Details', 'Details', 'no details were given.'),
    }

    recognition: Sequence[ScoreTable] = ()
    ablation: Sequence[ScoreTable] = ()
    quality: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]] = field(default_factory=dict)
    quality_tables: Sequence[ScoreTable] = ()
    discard: Mapping[str, Mapping[str, DiscardCurve]] = field(default_factory=dict)
    discard_bounds: Mapping[str, Mapping[str, DiscardCurve]] = field(default_factory=dict)
    discard_tables: Sequence[ScoreTable] = ()
    hard_faces: Mapping[str, Mapping[str, Sequence[FaceCard]]] = field(default_factory=dict)
    activation: Sequence[ActivationRow] = ()
    activation_note: str = ''
    runs: Sequence[Mapping[str, Any]] = ()
    missing: Sequence[str] = ()


def render_comparison(data: ComparisonData) -> str:
    """Return the comparison page as text; :func:`~mmvlr.reports.write_page` writes it.

    Raises:
        ImportError: matplotlib or jinja2 is not installed.
        ValueError: A face is not (h, w, 3) uint8.

    Example:
        >>> table = ScoreTable('TinyFace', ['rank-1'], {'RI-Face <r50>': [Score(0.327)]})
        >>> page = render_comparison(ComparisonData('Methods', recognition=[table]))
        >>> 'RI-Face &lt;r50&gt;' in page, '32.7' in page
        (True, True)
    """
    qualities = {name: keep_finite_measures(found) for name, found in data.quality.items() if found}
    curves = {
        dataset: {
            name: curve if len(found) <= _MOST_BANDS else replace(curve, low=None, high=None)
            for name, curve in found.items()
        }
        for dataset, found in data.discard.items()
        if found
    }
    # A section is its figures and its tables: it is there if one of them is.
    parts = dict(
        quality=(qualities, data.quality_tables),
        discard=(curves, data.discard_tables),
    )
    return render_page(
        'comparison',
        data,
        hard_faces={dataset: found for dataset, found in data.hard_faces.items() if found},
        **{
            key: dict(datasets=datasets, tables=tables) if datasets or tables else None
            for key, (datasets, tables) in parts.items()
        },
    )
