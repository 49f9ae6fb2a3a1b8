"""Render the report page of a run, as one self-contained HTML file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from mmvlr.evaluation.functional import Curve

from .faces import FaceCard, check_caption
from .figures import DiscardCurve, Scalars, group_scalars
from .page import PageData, Sections, keep_finite_measures, render_page


@dataclass(frozen=True)
class Metric:
    """One row of the table of headline metrics.

    Attributes:
        name: For example ``rank-1``.
        value: Value of the reported model.
        low: Lower end of the 95 % interval, or None.
        high: Upper end, or None.
        baselines: Name of another system to its value; the names become columns.
        unit: ``'rate'`` is in [0, 1] and shown in percent; ``'number'`` is shown unchanged.
        lower_is_better: Whether lower is better, as for an error or the area under an error curve.
        group: Heading above the rows of one kind, such as ``Recognition``, or ''.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    baselines: Mapping[str, float] = field(default_factory=dict)
    unit: Literal['rate', 'number'] = 'rate'
    lower_is_better: bool = False
    group: str = ''


@dataclass(frozen=True)
class AttentionCard:
    """A face with the spatial attention of the model.

    Attributes:
        face: (h, w, 3) uint8, RGB.
        attention: (h', w') real, coarser than the face or not.
        caption: Lines below, such as the face's RI.
    """

    face: np.ndarray
    attention: np.ndarray
    caption: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_caption(self.caption)


@dataclass(frozen=True)
class WrongMatch:
    """A probe whose best match is another person.

    Attributes:
        probe: The probe, with its RI as caption.
        matches: Best gallery images in order, with scores as captions and a border that says
            whether the identity is right.
        mate: The best-placed gallery image of the same person, with its score and rank; None
            where the gallery holds none.
    """

    probe: FaceCard
    matches: Sequence[FaceCard]
    mate: FaceCard | None = None


@dataclass(frozen=True)
class ReportData(PageData):
    """Content of the report page. Empty sections are omitted, with the reason.

    Attributes:
        headline: The metrics that answer how good the model is.
        spectrum: Faces in order of increasing RI, shown as a band in the header.
        scalars: Name to (steps (N,), values (N,)), as logged.
        epoch_steps: (E,) iterations at which epochs end.
        cmc: System to its curve: identification rate over the ranks 1, ..., K.
        open_set: System to its curve: TPIR over FPIR.
        verification: System to its curve: TAR over FAR.
        quality: Measure (``RI``, ``ERS``, ``norm``) to the set (``probe``, ``gallery``, ``ui``)
            to values (N,).
        discard: Measure to its curve of rank-1 error over the discarded share.
        discard_bounds: Reference curves: ``random``, ``perfect knowledge``.
        lowest: Faces of lowest RI, in order.
        highest: Faces of highest RI, in order.
        attention: Faces with attention maps, over the range of RI.
        failures: Probes that are identified wrongly.
    """

    # Sections without a reason are optional, as few data sets have them.
    SECTIONS: ClassVar[Sections] = {
        'reading': ('In words', 'In words', None),
        'headline': ('Results', 'Results', 'no metrics were given.'),
        'training': ('Training curves', 'Training', 'the run has no logged scalars.'),
        'cmc': ('Identification', 'Identification', 'no match ranks were computed.'),
        'open_set': ('Open-set identification', 'Open set', None),
        'verification': ('Verification', 'Verification', None),
        'quality': ('Quality scores', 'Quality', 'no quality scores were computed.'),
        'discard': (
            'Error versus discard',
            'Discard',
            'no ranks with quality scores were computed.',
        ),
        'faces': ('Lowest and highest RI', 'Faces', 'no faces with an RI were given.'),
        'attention': ('Attention maps', 'Attention', 'the model has no spatial attention.'),
        'failures': ('Failures', 'Failures', 'no wrongly identified probes were given.'),
        'details': ('Details', 'Details', 'no details were given.'),
    }

    headline: Sequence[Metric] | None = None
    spectrum: Sequence[FaceCard] | None = None
    scalars: Scalars | None = None
    epoch_steps: np.ndarray | None = None
    cmc: Mapping[str, Curve] | None = None
    open_set: Mapping[str, Curve] | None = None
    verification: Mapping[str, Curve] | None = None
    quality: Mapping[str, Mapping[str, np.ndarray]] | None = None
    discard: Mapping[str, DiscardCurve] | None = None
    discard_bounds: Mapping[str, DiscardCurve] | None = None
    lowest: Sequence[FaceCard] | None = None
    highest: Sequence[FaceCard] | None = None
    attention: Sequence[AttentionCard] | None = None
    failures: Sequence[WrongMatch] | None = None


def render_report(data: ReportData) -> str:
    """Return the report page as text; :func:`~mmvlr.reports.write_page` writes it.

    Raises:
        ImportError: matplotlib or jinja2 is not installed.
        ValueError: A face is not (h, w, 3) uint8.

    Example:
        >>> page = render_report(ReportData('RI-Face <r50>', headline=[Metric('rank-1', 0.327)]))
        >>> 'RI-Face &lt;r50&gt;' in page, '32.7' in page
        (True, True)
    """
    extremes = {'Lowest RI': data.lowest, 'Highest RI': data.highest}
    return render_page(
        'report',
        data,
        training=group_scalars(data.scalars or {}),
        quality=keep_finite_measures(data.quality or {}),
        faces={heading: cards for heading, cards in extremes.items() if cards},
    )
