"""Pictures of a run: figures, contact sheets and the report page.

Nothing is drawn, and matplotlib is not imported, until one of the functions is called.
"""

from .plots import (
    DARK,
    LIGHT,
    DiscardCurve,
    FaceCard,
    Theme,
    cmc_figure,
    contact_sheet,
    det_figure,
    discard_figure,
    figure_pixels,
    group_scalars,
    overlay_attention,
    quality_figure,
    rates_figure,
    training_figure,
)
from .report import (
    AttentionCard,
    Failure,
    Metric,
    ReportData,
    render_report,
    report_html,
)

__all__ = [
    'DARK',
    'LIGHT',
    'AttentionCard',
    'DiscardCurve',
    'FaceCard',
    'Failure',
    'Metric',
    'ReportData',
    'Theme',
    'cmc_figure',
    'contact_sheet',
    'det_figure',
    'discard_figure',
    'figure_pixels',
    'group_scalars',
    'overlay_attention',
    'quality_figure',
    'rates_figure',
    'render_report',
    'report_html',
    'training_figure',
]
