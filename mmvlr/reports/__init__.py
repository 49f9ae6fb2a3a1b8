"""Reports of runs: figures, contact sheets, the report page and the comparison page.

Neither matplotlib nor jinja2 is imported until a function is called.
:mod:`mmvlr.reports.from_run` makes the report page of a work dir, :mod:`mmvlr.reports.from_runs`
the comparison page of many runs.
"""

from mmvlr.evaluation.systems import Score

from .comparison import ActivationRow, ComparisonData, ScoreTable, render_comparison
from .drawing import render_pixels, render_svg
from .faces import FaceCard, contact_sheet, overlay_attention
from .figures import (
    DiscardCurve,
    draw_cmc,
    draw_discard,
    draw_quality,
    draw_training,
    group_scalars,
)
from .page import write_page
from .rate_figures import draw_det, draw_rates, draw_realized_fpir, draw_risk_coverage
from .report import AttentionCard, Metric, ReportData, WrongMatch, render_report

__all__ = [
    'ActivationRow',
    'AttentionCard',
    'ComparisonData',
    'DiscardCurve',
    'FaceCard',
    'Metric',
    'ReportData',
    'Score',
    'ScoreTable',
    'WrongMatch',
    'contact_sheet',
    'draw_cmc',
    'draw_det',
    'draw_discard',
    'draw_quality',
    'draw_rates',
    'draw_realized_fpir',
    'draw_risk_coverage',
    'draw_training',
    'group_scalars',
    'overlay_attention',
    'render_comparison',
    'render_pixels',
    'render_report',
    'render_svg',
    'write_page',
]
