"""Write the curves of an evaluation as PNG files and for TensorBoard."""

from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from mmvlr.evaluation.functional import Curve
from mmvlr.evaluation.metrics import FaceMetric
from mmvlr.structures.face_table import MEASURES
from mmvlr.utils.io import write_atomic
from mmvlr.utils.outputs import OutputFolder

from .drawing import render_pixels
from .figures import DiscardCurve, draw_cmc, draw_discard
from .rate_figures import draw_det, draw_rates

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def collect_curves(metrics: Iterable[FaceMetric]) -> dict[str, dict[str, Curve]]:
    """Return the curves that metrics have drawn: kind to name to curve."""
    curves: dict[str, dict[str, Curve]] = {}
    for metric in metrics:
        for kind, found in metric.drawn.items():
            curves.setdefault(kind, {}).update(found)
    return curves


def draw_figures(curves: Mapping[str, Mapping[str, Curve]]) -> dict[str, 'Figure']:
    """Return figures by name: cmc, tpir_fpir, open_set_det, roc, det, discard.

    Args:
        curves: Kind to name to curve, as :func:`collect_curves` returns them.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figures = {}
    if curves.get('cmc'):
        figures['cmc'] = draw_cmc(curves['cmc'])
    if curves.get('open_set'):
        figures['tpir_fpir'] = draw_rates(curves['open_set'], 'open_set')
        figures['open_set_det'] = draw_det(curves['open_set'], 'open_set')
    if curves.get('roc'):
        figures['roc'] = draw_rates(curves['roc'], 'verification')
        figures['det'] = draw_det(curves['roc'], 'verification')
    if curves.get('discard'):
        discard = {
            MEASURES.get(name, name): DiscardCurve(**vars(c))
            for name, c in curves['discard'].items()
        }
        figures['discard'] = draw_discard(discard, {})
    return figures


def write_curves(metrics: Iterable[FaceMetric], folder: str | Path) -> list[Path]:
    """Write the curves of metrics as PNG files, and as images for TensorBoard.

    Args:
        metrics: Metrics that were evaluated with ``curves=True``.
        folder: Folder of the files; TensorBoard reads it too.

    Returns:
        The PNG files.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: The metrics have drawn no curve.
        FileExistsError: A figure would overwrite a file that mmvlr did not write.
    """
    from PIL import Image
    from torch.utils.tensorboard import SummaryWriter

    folder = Path(folder)
    figures = draw_figures(collect_curves(metrics))
    if not figures:
        raise ValueError('the metrics have drawn no curve; build them with curves=True')
    paths = []
    with OutputFolder(folder, 'curves', wait=60) as output, SummaryWriter(str(folder)) as board:
        output.claim(f'{name}.png' for name in figures)
        for name, figure in figures.items():
            pixels = render_pixels(figure)
            board.add_image(f'curves/{name}', pixels, dataformats='HWC')
            buffer = BytesIO()
            Image.fromarray(pixels).save(buffer, 'png')
            data = buffer.getvalue()
            paths.append(write_atomic(folder / f'{name}.png', lambda p, d=data: p.write_bytes(d)))
    return paths
