"""Make the report page of a work dir: run the model on its test set and fill the page."""

import json
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import mmengine
import numpy as np
import torch
from mmengine.registry import DefaultScope

from mmvlr.engine.building import load_config
from mmvlr.evaluation.functional import paired_bootstrap, rank1_error_versus_discard, roc_area
from mmvlr.evaluation.tables import mark_unmeasurable
from mmvlr.structures.face_table import MEASURES
from mmvlr.utils.shipped import find_run_config
from mmvlr.version import __version__

from .curve_files import collect_curves
from .evaluated import (
    NUM_MATCHES,
    EvaluatedModel,
    average_bounds,
    make_cards,
    split_qualities,
    spread,
)
from .faces import FaceCard, warn_of_border, warn_of_flatness
from .figures import DiscardCurve
from .page import write_page
from .report import AttentionCard, Metric, ReportData, WrongMatch, render_report
from .words import describe_run, name_metric, split_convention

RECOGNITION, QUALITY = 'Recognition', 'Quality'
#: At the last validation, beside :class:`mmvlr.engine.hooks.RetainHook`'s values of the start.
VALIDATED, RETAINED = 'Validation, last one', 'Retained, last validation'
NUM_FACES, NUM_SPECTRUM, NUM_ATTENTION, NUM_FAILURES = 24, 16, 10, 6


def find_checkpoint(work_dir: Path) -> Path:
    """Return the last checkpoint of a work dir.

    Raises:
        FileNotFoundError: There is none.
    """
    pointer = work_dir / 'last_checkpoint'
    if pointer.is_file():
        # Only the name counts: the work dir may have been moved.
        checkpoint = work_dir / Path(pointer.read_text(encoding='utf-8').strip()).name
        if checkpoint.is_file():
            return checkpoint
    raise FileNotFoundError(f'{work_dir} holds no checkpoint; train first, or name --checkpoint')


def read_scalars(work_dir: Path) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """Read the logged scalars of all (resumed) runs of a work dir.

    Validation is logged by epoch; its steps are turned into iterations.

    Returns:
        Name to (steps, values), and the iterations at which epochs ended.
    """
    values: dict[str, dict[int, float]] = {}
    ends: dict[int, int] = {}
    for log in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in log.read_text(encoding='utf-8').splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:  # the last line of a killed run
                continue
            step = record.pop('step', None)
            if step is None:
                continue
            if 'epoch' in record:
                epoch = record.pop('epoch')
                ends[epoch] = max(step, ends.get(epoch, 0))
            elif 'iter' not in record:
                step = ends.get(step, step)
            record.pop('iter', None)
            for name, value in record.items():
                if isinstance(value, (int, float)):
                    values.setdefault(name, {})[step] = float(value)
    scalars = {
        name: (np.array(sorted(points)), np.array([points[step] for step in sorted(points)]))
        for name, points in values.items()
    }
    return scalars, np.array([ends[epoch] for epoch in sorted(ends)])


def build_report(
    work_dir: str | Path,
    checkpoint: str | Path | None = None,
    config: str | Path | None = None,
    out: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> tuple[Path, dict[str, float]]:
    """Test a trained model and write the report page.

    Args:
        work_dir: Folder of the run; also where the page goes.
        checkpoint: The checkpoint; the last one of the run if not given.
        config: The config; that of the run if not given.
        out: The page; ``WORK_DIR/report.html`` if not given.
        options: Overrides of the config.

    Returns:
        The page, and its main figures by name.

    Raises:
        FileNotFoundError: Config or checkpoint is missing.
    """
    work_dir = Path(work_dir)
    config_path = Path(config) if config else find_run_config(work_dir)
    checkpoint = Path(checkpoint) if checkpoint else find_checkpoint(work_dir)
    cfg = load_config(config_path, dict(options or {}))
    cfg.work_dir = str(work_dir / 'report_log')
    with DefaultScope.overwrite_default_scope('mmvlr'):
        run = EvaluatedModel(cfg, checkpoint)
        data, figures = collect_data(run, work_dir, config_path, checkpoint)
    return write_page(render_report(data), out or work_dir / 'report.html'), figures


def collect_data(
    run: EvaluatedModel, work_dir: Path, config: Path, checkpoint: Path
) -> tuple[ReportData, dict[str, float]]:
    """Return the page's data and the main figures of a test run."""
    dataset, model = run.loader.dataset, type(run.model).__name__
    dataset_name = dataset.metainfo.get('dataset_type', type(dataset).__name__)
    curves = collect_curves(run.metrics)
    pixel_numbers, pixel_curves = run.measure_pixels()
    for kind, found in pixel_curves.items():
        if kind != 'discard' and kind in curves:
            first = next(iter(found.values()))
            curves[kind]['pixel correlation'] = replace(first, low=None, high=None)
    unmeasurable = mark_unmeasurable({}, run.metrics).get('unmeasurable', {})
    metrics, figures = collect_metrics(run.numbers, pixel_numbers, unmeasurable)
    scalars, epoch_ends = read_scalars(work_dir)
    # Areas have another scale than the rates, with which they would share a panel.
    scalars = {name: curve for name, curve in scalars.items() if '_auc_' not in name}
    for name, (steps, values) in scalars.items():
        shown = name.rsplit('/', 1)[-1]
        if len(steps) > 1 and steps[0] == 0 and not re.search('threshold|discard', shown):
            before = {'before the training': float(values[0])}
            group = RETAINED if name.startswith('retain') else VALIDATED
            metrics[name] = Metric(
                name_metric(shown), float(values[-1]), baselines=before, group=group
            )
    ui = run.measure_ui()
    for name, metric in judge_qualities(run, ui).items():
        if metrics.setdefault(name, metric) is metric:
            figures[name] = metric.value
        if name.startswith('discard_ri_minus_'):
            figures |= {f'{name}_low': metric.low, f'{name}_high': metric.high}
    figures['error'] = 1 - float(run.correct.mean())
    bounds = average_bounds([run.correct])
    faces, omitted = make_face_cards(run)
    highest = [card.border == 'right' for card in faces.get('highest', ())]
    reading = describe_run(metrics, bounds['random'].auc, figures['error'], highest)
    maps = [card.attention for card in faces.get('attention', ())]
    reading += warn_of_border({'spatial attention': maps}) + warn_of_flatness(maps)
    data = ReportData(
        title=f'{model} on {dataset_name}',
        subtitle='Does it find the right person, and does it know when it cannot?',
        facts={
            'Method': f'{model}, {type(run.model.backbone).__name__}',
            'Data set': dataset_name,
            'Checkpoint': checkpoint.name,
            'Made': datetime.now().strftime('%Y-%m-%d %H:%M'),
            'mmvlr': __version__,
        },
        notes=[dataset.metainfo['note']] if 'note' in dataset.metainfo else [],
        command=f'mmvlr report {work_dir}',
        reading=reading,
        headline=sorted(metrics.values(), key=lambda metric: metric.group != RECOGNITION),
        scalars=scalars or None,
        epoch_steps=epoch_ends if len(epoch_ends) else None,
        cmc=curves.get('cmc'),
        open_set=curves.get('open_set'),
        verification=curves.get('roc'),
        quality=split_qualities(run.faces, ui),
        discard={
            MEASURES[quality]: DiscardCurve(
                **vars(curve), auc=figures.get(f'discard_auc_{quality}')
            )
            for quality, curve in curves.get('discard', {}).items()
        },
        discard_bounds=bounds,
        failures=find_failures(run),
        details=describe_details(run, config, checkpoint),
        omitted=omitted,
        **faces,
    )
    return data, figures


def collect_metrics(
    numbers: Mapping[str, float],
    baseline: Mapping[str, float],
    unmeasurable: Mapping[str, int] | None = None,
) -> tuple[dict[str, Metric], dict[str, float]]:
    """Return the rows of the table of results, and the numbers, by their names without prefix.

    Args:
        numbers: Metrics by full name, with ``_low`` and ``_high`` where there are intervals.
        baseline: The same of plain pixel correlation; may be empty.
        unmeasurable: See :func:`mmvlr.apis.mark_unmeasurable`; such rows are marked.
    """
    rows: dict[str, Metric] = {}
    figures: dict[str, float] = {}
    for full, value in numbers.items():
        if re.search('_(low|high)$', full) and re.sub('_(low|high)$', '', full) in numbers:
            continue
        name = full.rsplit('/', 1)[-1]
        figures[name] = value
        if name.startswith(('threshold@', 'fnmr_discard_pauc')):
            continue
        if full in baseline:
            figures[f'pixel_{name}'] = baseline[full]
        is_area = 'discard' in name
        is_quality = is_area or name.startswith('ui_auc_') or split_convention(name) is not None
        # Metrics of two prefixes may have one name.
        rows[full if name in rows else name] = Metric(
            name_metric(name, (unmeasurable or {}).get(full)),
            value,
            numbers.get(f'{full}_low'),
            numbers.get(f'{full}_high'),
            {'pixel correlation': baseline[full]} if full in baseline else {},
            'number' if is_area or split_convention(name) else 'rate',
            lower_is_better=is_area,
            group=QUALITY if is_quality else RECOGNITION,
        )
    return rows, figures


def judge_qualities(run: EvaluatedModel, ui: Mapping[str, np.ndarray]) -> dict[str, Metric]:
    """Return figures of the qualities that the metrics of the test set may lack, by name.

    Args:
        run: The tested model.
        ui: Measure to values of UI faces.
    """
    found = {}
    for quality, values in run.probe_quality.items():
        if quality in ui:
            name = f'ui_auc_{quality}'
            area = roc_area(values, ui[quality])
            found[name] = Metric(name_metric(name), area, group=QUALITY)
    ri = run.probe_quality.get('ri')
    if ri is None:
        return found

    def measure_area(columns: np.ndarray) -> float:
        return rank1_error_versus_discard(columns[:, 0], columns[:, 1])['auc']

    correct, people = run.correct.astype(float), run.identity[run.probe]
    for rival, values in run.probe_quality.items():
        if rival == 'ri' or not run.has_several_people:
            continue
        columns = (np.stack([quality, correct], axis=1) for quality in (ri, values))
        difference = paired_bootstrap(*columns, people, statistic=measure_area)
        found[f'discard_ri_minus_{rival}'] = Metric(
            f'area of error over discard, RI minus {MEASURES[rival]}',
            difference.difference,
            difference.low,
            difference.high,
            unit='number',
            lower_is_better=True,
            group=QUALITY,
        )
    half = rank1_error_versus_discard(ri, run.correct, shares=[0.0, 0.5])['error'][1]
    found['error_best_half'] = Metric(
        'rank-1 error of the half of highest RI', float(half), lower_is_better=True, group=QUALITY
    )
    return found


def make_face_cards(run: EvaluatedModel) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """Return probes of lowest and highest RI, over the range of RI, and with their attention.

    Returns:
        Attribute of the page's data to cards, and section to the reason why it has none.
    """
    ri, probe = run.probe_quality.get('ri'), run.probe
    order = np.arange(len(probe)) if ri is None else np.argsort(ri, kind='stable')
    cards: dict[str, list[Any]] = {}
    omitted = {}
    if ri is None:
        omitted['faces'] = 'the model gives no RI.'
    else:
        shown = dict(lowest=order[:NUM_FACES], highest=order[::-1][:NUM_FACES])
        shown['spectrum'] = spread(order, NUM_SPECTRUM)
        for name, rows in shown.items():
            cards[name] = make_cards(
                lambda p: run.read_face(probe[p]), rows, ri, run.correct, 'RI '
            )
    if getattr(run.model, 'attention', None) is None:
        omitted['attention'] = f'{type(run.model).__name__} has no spatial attention.'
    else:
        rows = spread(order, NUM_ATTENTION)
        captions = [() if ri is None else (f'RI {ri[row]:.3g}',) for row in rows]
        cards['attention'] = [
            AttentionCard(
                face, spatial, (*caption, f'attention {spatial.min():.3g} to {spatial.max():.3g}')
            )
            for face, spatial, caption in zip(*run.attend(probe[rows]), captions, strict=True)
        ]
    return cards, omitted


def find_failures(run: EvaluatedModel) -> list[WrongMatch]:
    """Return wrongly identified probes, those with the most confident matches first."""
    ri = run.probe_quality.get('ri')
    wrong = np.flatnonzero(run.ranks.rank > 1)
    wrong = wrong[np.argsort(-run.ranks.top_score[wrong, 0], kind='stable')]
    found = []
    for place in wrong[:NUM_FAILURES]:
        index = run.probe[place]
        person = run.identity[index]
        matches = []
        top = zip(run.ranks.top_index[place], run.ranks.top_score[place], strict=True)
        for row, score in list(top)[:NUM_MATCHES]:
            match = run.gallery[row]
            border = 'right' if run.identity[match] == person else 'wrong'
            matches.append(FaceCard(run.read_face(match), (f'{score:.3f}',), border))
        caption = (f'{run.ranks.mate_score[place]:.3f}', f'rank {run.ranks.rank[place]}')
        mate = FaceCard(run.read_face(run.gallery[run.ranks.mate_index[place]]), caption, 'right')
        caption = () if ri is None else (f'RI {ri[place]:.3g}',)
        found.append(WrongMatch(FaceCard(run.read_face(index), caption), matches, mate))
    return found


def describe_details(
    run: EvaluatedModel, config: Path, checkpoint: Path
) -> dict[str, dict[str, Any]]:
    """Return the tables at the end of the page."""
    counts: dict[str, Any] = {}
    role = run.faces.role
    for name in dict.fromkeys(role.tolist()):
        people = len(np.unique(run.identity[(role == name) & (run.identity >= 0)]))
        counts[name] = f'{(role == name).sum():,}' + (f' of {people:,} people' if people else '')
    if run.faces.has('distractor'):
        counts['gallery and distractors'] = len(run.gallery)
    for reason, names in getattr(run.loader.dataset, 'left_out', {}).items():
        if names:
            counts[f'left out: {reason}'] = len(names)
    parameters = sum(parameter.numel() for parameter in run.model.backbone.parameters())
    return {
        'Configuration': {
            'config': config.name,
            'checkpoint': checkpoint.name,
            'backbone': type(run.model.backbone).__name__,
            'backbone parameters': f'{parameters:,}',
            'embedding size': run.model.embed_dims,
            'flip fusion': run.model.flip_fusion,
        },
        'Preprocessing contract': run.model.data_preprocessor.contract,
        'Counts': counts,
        'Environment': {
            'python': platform.python_version(),
            'torch': torch.__version__,
            'mmengine': mmengine.__version__,
            'numpy': np.__version__,
            'device': str(next(run.model.parameters()).device),
            'command': ' '.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        },
    }
