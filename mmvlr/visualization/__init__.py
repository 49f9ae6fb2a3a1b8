"""Images of runs: figures, contact sheets, the report page and the comparison page.

Nothing is drawn, and matplotlib is not imported, until one of the functions is called.
"""

from .comparison import (
    ActivationRow,
    ComparisonData,
    Score,
    ScoreRow,
    ScoreTable,
    comparison_html,
    render_comparison,
)
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
    'ActivationRow',
    'AttentionCard',
    'ComparisonData',
    'DiscardCurve',
    'FaceCard',
    'Failure',
    'Metric',
    'ReportData',
    'Score',
    'ScoreRow',
    'ScoreTable',
    'Theme',
    'cmc_figure',
    'comparison_html',
    'contact_sheet',
    'det_figure',
    'discard_figure',
    'figure_pixels',
    'group_scalars',
    'overlay_attention',
    'quality_figure',
    'rates_figure',
    'render_comparison',
    'render_report',
    'report_html',
    'training_figure',
]
