"""From a work dir to the report page: run the model over its test set and fill the page."""

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
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mmvlr.datasets.synthesis import pixel_correlation_embedding
from mmvlr.datasets.transforms import read_image
from mmvlr.engine import build_loader, extract_predictions, unwrap
from mmvlr.evaluation.functional import (
    PairedDifference,
    closed_set_ranks,
    discard_auc_bounds,
    paired_bootstrap,
    rank1_error_versus_discard,
    roc_area,
)
from mmvlr.evaluation.metrics import QUALITIES, ClosedSetMetric
from mmvlr.evaluation.table import MEASURES
from mmvlr.version import __version__
from mmvlr.visualization import (
    AttentionCard,
    DiscardCurve,
    FaceCard,
    Failure,
    Metric,
    ReportData,
    render_report,
)

from .curves import all_curves
from .evaluation import build_metrics, evaluate_faces
from .runner import build_tester, load_config
from .scoring import table_of

#: The pixel baseline reads every image again; beyond so many it is left out.
MAX_PIXEL_IMAGES = 20_000
NUM_FACES, NUM_SPECTRUM, NUM_ATTENTION, NUM_FAILURES, NUM_MATCHES = 24, 16, 10, 6, 5


def find_config(work_dir: Path) -> Path:
    """Return the config that a run dumped into its work dir.

    Raises:
        FileNotFoundError: There is none, or more than one.
    """
    configs = sorted(work_dir.glob('*.py'))
    if len(configs) != 1:
        raise FileNotFoundError(
            f'{work_dir} holds {len(configs)} config files instead of the one that tools/train.py '
            'writes; name it with --config'
        )
    return configs[0]


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
    """Read what training logged, over all (resumed) runs of a work dir.

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


class TestRun:
    """A model's predictions over a test set, and what follows from them.

    Args:
        config: Config with model and test set.
        checkpoint: The checkpoint.
    """

    def __init__(self, config: Config, checkpoint: Path):
        self.runner = build_tester(config, str(checkpoint))
        self.runner.load_or_resume()
        self.config = config
        self.model = unwrap(self.runner.model).eval()
        self.loader = Runner.build_dataloader(config.test_dataloader)
        self.runner.call_hook('before_test')
        self.result = extract_predictions(self.model, self.loader)
        self.faces = table_of(self.result, self.loader)
        self.role, self.identity = self.faces.role, self.faces.identity
        self.gallery = np.flatnonzero(np.isin(self.role, ('gallery', 'distractor')))
        self.probe = np.flatnonzero(self.role == 'probe')
        if not len(self.gallery) or not len(self.probe):
            raise ValueError('the report needs a test set with the roles gallery and probe')
        self.ranks = closed_set_ranks(
            self.faces.unit[self.gallery],
            self.identity[self.gallery],
            self.faces.unit[self.probe],
            self.identity[self.probe],
            top_k=min(NUM_MATCHES, len(self.gallery)),
        )
        several = len(np.unique(self.identity[self.probe])) > 1
        self.metrics = build_metrics(config.test_evaluator, intervals=several, curves=several)
        self.numbers = evaluate_faces(self.faces, self.metrics)
        # As the protocol counts: an open-set search has templates instead of images.
        judges = [metric for metric in self.metrics if isinstance(metric, ClosedSetMetric)]
        self.correct = judges[0].found_first(self.faces) if judges else self.ranks.rank == 1

    def pixel_baseline(self) -> tuple[dict[str, float], dict[str, Any]]:
        """Return numbers and curves of plain pixel correlation, nothing for a large test set."""
        if len(self.faces) > MAX_PIXEL_IMAGES:
            return {}, {}
        images = [self.face(index) for index in range(len(self.faces))]
        pixels = pixel_correlation_embedding(images)
        kept = {k: v for k, v in self.faces.columns.items() if k not in QUALITIES}
        faces = replace(self.faces, embedding=pixels, columns=kept)
        metrics = build_metrics(self.config.test_evaluator, curves=True, num_resamples=1)
        return evaluate_faces(faces, metrics), all_curves(metrics)

    def face(self, index: int) -> np.ndarray:
        """Return a face of the test set in native size."""
        info = self.loader.dataset.get_data_info(int(self.result['sample_idx'][index]))
        return info['img'] if 'img' in info else read_image(info['img_path'])

    def qualities(self) -> dict[str, np.ndarray]:
        """Return the measures (``ri``, ``ers``, ``norm``) the model gives, (N,) each."""
        return self.faces.qualities

    def ui_qualities(self) -> dict[str, np.ndarray]:
        """Return the measures over UI faces: those of the test set, else the training's."""
        held_out = self.role == 'ui'
        if held_out.any():
            return {name: values[held_out] for name, values in self.qualities().items()}
        loaders = [
            hook['dataloader']
            for hook in self.config.get('custom_hooks') or []
            if hook['type'] == 'UICenterHook'
        ]
        if not loaders:
            return {}
        result = extract_predictions(self.model, build_loader(self.config, loaders[0]))
        return {name: result[key].numpy() for name, key in QUALITIES.items() if key in result}

    def attention(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a face as the network sees it (H, W, 3) and its spatial attention (h, w)."""
        packed = self.loader.dataset[int(self.result['sample_idx'][index])]
        batch = dict(inputs=packed['inputs'][None], data_samples=[packed['data_samples']])
        with torch.no_grad():
            inputs = self.model.data_preprocessor(batch)['inputs']
            feature_map, _ = self.model.extract_feat(inputs)
            _, spatial = self.model.attention.attention(feature_map)
        return packed['inputs'].permute(1, 2, 0).numpy(), spatial[0, 0].float().cpu().numpy()


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
    config_path = Path(config) if config else find_config(work_dir)
    checkpoint = Path(checkpoint) if checkpoint else find_checkpoint(work_dir)
    cfg = load_config(config_path, dict(options or {}))
    cfg.work_dir = str(work_dir / 'report_log')
    with DefaultScope.overwrite_default_scope('mmvlr'):
        run = TestRun(cfg, checkpoint)
        data, figures = fill(run, work_dir, config_path, checkpoint)
    return render_report(data, Path(out) if out else work_dir / 'report.html'), figures


def fill(
    run: TestRun, work_dir: Path, config: Path, checkpoint: Path
) -> tuple[ReportData, dict[str, float]]:
    """Return the page's data and the main figures of a test run."""
    dataset = run.loader.dataset
    name = dataset.metainfo.get('dataset_type', type(dataset).__name__)
    curves = all_curves(run.metrics)
    pixel_numbers, pixel_curves = run.pixel_baseline()
    for pixel_kind, found in pixel_curves.items():
        if pixel_kind != 'discard' and pixel_kind in curves:
            first = next(iter(found.values()))
            curves[pixel_kind]['pixel correlation'] = replace(first, low=None, high=None)
    headline, figures = headline_of(run.numbers, pixel_numbers)
    scalars, epoch_ends = read_scalars(work_dir)
    # Areas lie on another scale than the rates they would share a panel with.
    scalars = {name: curve for name, curve in scalars.items() if '_auc_' not in name}
    qualities, omitted = run.qualities(), {}
    probe_quality = {q: values[run.probe] for q, values in qualities.items()}
    ui = run.ui_qualities()
    discard = {}
    for quality, values in probe_quality.items():
        area = rank1_error_versus_discard(values, run.correct)['auc']
        drawn = curves.get('discard', {}).get(quality)
        if drawn is not None:
            area = figures.get(f'discard_auc_{quality}', area)
            discard[MEASURES[quality]] = DiscardCurve(drawn.x, drawn.y, area, drawn.low, drawn.high)
        if quality in ui and f'ui_auc_{quality}' not in figures:
            area = roc_area(values, ui[quality])
            figures[f'ui_auc_{quality}'] = area
            headline.append(Metric(f'probes told from UI faces by {MEASURES[quality]} (AUC)', area))
    if 'ri' in probe_quality and len(np.unique(run.identity[run.probe])) > 1:
        rivals = {name: values for name, values in probe_quality.items() if name != 'ri'}
        for rival, values in rivals.items():
            difference = discard_difference(run, probe_quality['ri'], values)
            shown = f'area of error over discard, RI minus {MEASURES[rival]}'
            headline.append(
                Metric(shown, difference.difference, difference.low, difference.high, unit='number')
            )
            figures[f'discard_ri_minus_{rival}'] = difference.difference
            figures[f'discard_ri_minus_{rival}_low'] = difference.low
            figures[f'discard_ri_minus_{rival}_high'] = difference.high
    bounds = discard_auc_bounds(run.correct)
    perfect = rank1_error_versus_discard(run.correct.astype(float), run.correct)
    shares = perfect['discard']
    error = np.array([1 - run.correct.mean()])
    faces: dict[str, Any] = {}
    if 'ri' in qualities:
        ri = probe_quality['ri']
        half = rank1_error_versus_discard(ri, run.correct, shares=[0.0, 0.5])['error']
        figures.update(error=float(half[0]), error_best_half=float(half[1]))
        headline.append(Metric('rank-1 error of the half of highest RI', float(half[1])))
        faces = face_cards(run, ri)
    else:
        omitted['faces'] = 'the model gives no RI.'
    if getattr(run.model, 'attention', None) is None:
        omitted['attention'] = f'{type(run.model).__name__} has no spatial attention.'
    else:
        faces['attention'] = attention_cards(run, probe_quality.get('ri'))
    data = ReportData(
        title=f'{type(run.model).__name__} on {name}',
        subtitle='Does it find the right person, and does it know when it cannot?',
        facts={
            'Method': f'{type(run.model).__name__}, {type(run.model.backbone).__name__}',
            'Data set': name,
            'Checkpoint': checkpoint.name,
            'Made': datetime.now().strftime('%Y-%m-%d %H:%M'),
            'mmvlr': __version__,
        },
        notes=[dataset.metainfo['note']] if 'note' in dataset.metainfo else [],
        command=f'python tools/analysis/report.py {work_dir}',
        headline=headline,
        scalars=scalars or None,
        epoch_steps=epoch_ends if len(epoch_ends) else None,
        cmc=curves.get('cmc'),
        open_set=curves.get('open_set'),
        verification=curves.get('roc'),
        quality={
            MEASURES[q]: dict(
                probe=values[run.probe],
                gallery=values[run.gallery],
                **({'ui': ui[q]} if q in ui else {}),
            )
            for q, values in qualities.items()
        },
        discard=discard,
        discard_bounds={
            'random': DiscardCurve(shares, error, bounds['random']),
            'perfect knowledge': DiscardCurve(shares, perfect['error'], bounds['perfect']),
        },
        failures=failures(run, probe_quality.get('ri')),
        details=details(run, config, checkpoint),
        omitted=omitted,
        **faces,
    )
    return data, figures


def headline_of(
    numbers: Mapping[str, float], baseline: Mapping[str, float]
) -> tuple[list[Metric], dict[str, float]]:
    """Return the rows of the table of results, and the numbers by their names without prefix.

    Args:
        numbers: Metrics by full name, with ``_low`` and ``_high`` where there are intervals.
        baseline: The same of plain pixel correlation; may be empty.
    """
    rows, figures = [], {}
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
        rows.append(
            Metric(
                shown_name(name),
                value,
                numbers.get(f'{full}_low'),
                numbers.get(f'{full}_high'),
                {'pixel correlation': baseline[full]} if full in baseline else {},
                'number' if is_area else 'rate',
            )
        )
    return rows, figures


def shown_name(name: str) -> str:
    """Return a metric's name as a reader would say it.

    Example:
        >>> shown_name('d1_rank1'), shown_name('tpir20@fpir0.1')
        ('D1, rank-1', 'TPIR20 at FPIR 0.1')
        >>> shown_name('discard_auc_ri')
        'area of error over discard, RI'
    """
    quality = MEASURES.get(name.rsplit('_', 1)[-1], '')
    for pattern, text in (
        (r'd(\d+)_rank(\d+)', r'D\1, rank-\2'),
        (r'mean_rank(\d+)', r'mean of the distances, rank-\1'),
        (r'rank(\d+)', r'rank-\1'),
        (r'tpir(\d+)@fpir(.+)', r'TPIR\1 at FPIR \2'),
        (r'tpir(\d+)_auc', r'area under TPIR\1 over FPIR'),
        (r'tar@far(.+)', r'TAR at FAR \1'),
        (r'verification_(.+)', r'verification, \1'),
        (r'discard_auc_\w+', f'area of error over discard, {quality}'),
        (r'fnmr_discard_(p?)auc_\w+', rf'\1area of FNMR over discard, {quality}'),
        (r'ui_auc_\w+', f'probes told from UI faces by {quality} (AUC)'),
    ):
        if re.fullmatch(pattern, name):
            shown = re.sub(pattern, text, name)
            return shown.replace('parea', 'partial area').replace(', auc', ', AUC')
    return name


def discard_difference(run: TestRun, first: np.ndarray, second: np.ndarray) -> PairedDifference:
    """Compare two quality measures of the same probes by their area of error over discard.

    Args:
        run: The test run.
        first: Quality (P,) of the probes.
        second: The other quality (P,).

    Returns:
        Area of the first minus that of the second, negative where the first is better, with a
        95 % interval from resampling people.
    """

    def area(columns: np.ndarray) -> float:
        return rank1_error_versus_discard(columns[:, 0], columns[:, 1])['auc']

    correct = run.correct.astype(float)
    groups = run.identity[run.probe]
    columns = (np.stack([quality, correct], axis=1) for quality in (first, second))
    return paired_bootstrap(*columns, groups, statistic=area)


def spread(order: np.ndarray, count: int) -> np.ndarray:
    """Return ``count`` entries of ``order``, evenly from the first to the last."""
    places = np.linspace(0, len(order) - 1, min(count, len(order)))
    return order[np.unique(places.round().astype(int))]


def face_cards(run: TestRun, ri: np.ndarray) -> dict[str, list[FaceCard]]:
    """Return the probes of lowest and highest RI and a band of probes by rising RI."""
    order = np.argsort(ri, kind='stable')

    def card(place: int) -> FaceCard:
        border = 'right' if run.correct[place] else 'wrong'
        return FaceCard(run.face(run.probe[place]), (f'RI {ri[place]:.2f}',), border)

    return dict(
        lowest=[card(place) for place in order[:NUM_FACES]],
        highest=[card(place) for place in order[::-1][:NUM_FACES]],
        spectrum=[card(place) for place in spread(order, NUM_SPECTRUM)],
    )


def attention_cards(run: TestRun, ri: np.ndarray | None) -> list[AttentionCard]:
    """Return probes over the range of RI with their spatial attention."""
    order = np.arange(len(run.probe)) if ri is None else np.argsort(ri, kind='stable')
    cards = []
    for place in spread(order, NUM_ATTENTION):
        face, spatial = run.attention(run.probe[place])
        caption = [] if ri is None else [f'RI {ri[place]:.2f}']
        caption.append(f'attention {spatial.min():.2f} to {spatial.max():.2f}')
        cards.append(AttentionCard(face, spatial, tuple(caption)))
    return cards


def failures(run: TestRun, ri: np.ndarray | None) -> list[Failure]:
    """Return wrongly identified probes: those the model was surest of come first."""
    wrong = np.flatnonzero(run.ranks.rank > 1)
    wrong = wrong[np.argsort(-run.ranks.top_score[wrong, 0], kind='stable')]
    cards = []
    embeddings = run.faces.unit
    for place in wrong[:NUM_FAILURES]:
        index = run.probe[place]
        person = run.identity[index]
        matches = []
        for row, score in zip(run.ranks.top_index[place], run.ranks.top_score[place], strict=True):
            found = run.gallery[row]
            right = run.identity[found] == person
            matches.append(
                FaceCard(run.face(found), (f'{score:.3f}',), 'right' if right else 'wrong')
            )
        mates = run.gallery[run.identity[run.gallery] == person]
        scores = (embeddings[mates] @ embeddings[index]).numpy()
        best = int(scores.argmax())
        mate = FaceCard(
            run.face(mates[best]),
            (f'{scores[best]:.3f}', f'rank {run.ranks.rank[place]}'),
            'right',
        )
        caption = () if ri is None else (f'RI {ri[place]:.2f}',)
        cards.append(Failure(FaceCard(run.face(index), caption), matches, mate))
    return cards


def details(run: TestRun, config: Path, checkpoint: Path) -> dict[str, dict[str, Any]]:
    """Return the tables at the end of the page."""
    counts: dict[str, Any] = {}
    for role in dict.fromkeys(run.role.tolist()):
        here = run.role == role
        people = len({person for person in run.identity[here].tolist() if person >= 0})
        counts[role] = f'{here.sum():,}' + (f' of {people:,} people' if people else '')
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
