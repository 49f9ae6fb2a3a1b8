"""Interpret the figures of a page in sentences, including unfavorable results."""

import math
import re
from collections.abc import Mapping, Sequence

from mmvlr.evaluation.functional import CONVENTIONS
from mmvlr.evaluation.systems import Score
from mmvlr.structures.face_table import MEASURES

from .page import format_interval, format_number
from .report import Metric

#: Methods by the name of their folder.
METHODS = dict(
    riface='RI-Face',
    arcface='ArcFace',
    softmax='softmax',
    normface='NormFace',
    cosface='CosFace',
    curricularface='CurricularFace',
    magface='MagFace',
    adaface='AdaFace',
    crfiqa='CR-FIQA',
)


def name_method(method: str) -> str:
    """Return the displayed name of a method."""
    return METHODS.get(method, method)


def name_metric(name: str, trials: int | None = None) -> str:
    """Return the displayed name of a metric.

    Args:
        name: Its name without prefix.
        trials: The number of trials, if it is too small to measure the rate.

    Example:
        >>> name_metric('d1_rank1'), name_metric('tpir20@fpir0.1')
        ('D1, rank-1', 'TPIR20 at FPIR 0.1')
        >>> name_metric('discard_auc_ri')
        'area of error over discard, RI'
    """
    if trials is not None:
        return f'{name_metric(name)} (too few trials to measure: {trials:,})'
    quality = MEASURES.get(name.rpartition('auc_')[2], '')
    known = split_convention(name)
    if known:
        return f'{CONVENTIONS[known[0]].title}, {MEASURES[known[1]]}'
    for pattern, text in (
        (r'd(\d+)_rank(\d+)', r'D\1, rank-\2'),
        (r'mean_rank(\d+)', r'mean of the distances, rank-\1'),
        (r'rank(\d+)', r'rank-\1'),
        (r'tpir(\d+)@fpir(.+)', r'TPIR\1 at FPIR \2'),
        (r'tpir(\d+)_auc', r'area under TPIR\1 over FPIR'),
        (r'tar@far(.+)', r'TAR at FAR \1'),
        (r'verification_auc', 'verification, AUC'),
        (r'verification_accuracy_insightface', "verification, accuracy by insightface's rule"),
        (r'verification_(.+)', r'verification, \1'),
        (r'discard_auc_\w+', f'area of error over discard, {quality}'),
        (r'fnmr_discard_auc_\w+', f'area of FNMR over discard, {quality}'),
        (r'fnmr_discard_pauc_\w+', f'partial area of FNMR over discard, {quality}'),
        (r'ui_auc_\w+', f'probes told from UI faces by {quality} (AUC)'),
    ):
        if re.fullmatch(pattern, name):
            return re.sub(pattern, text, name)
    return name


def split_convention(name: str) -> tuple[str, str] | None:
    """Return convention and quality measure of a metric's name, or None if it has none.

    Example:
        >>> split_convention('fnmr_discard_cr_fiqa_ri'), split_convention('rce3_norm')
        (('cr_fiqa', 'ri'), ('rce3', 'norm'))
    """
    plain = name.removeprefix('fnmr_discard_')
    found = ((rule, plain.removeprefix(f'{rule}_')) for rule in CONVENTIONS)
    return next((pair for pair in found if '_'.join(pair) == plain and pair[1] in MEASURES), None)


# One run ----------------------------------------------------------------------------------------


def describe_run(
    metrics: Mapping[str, Metric], chance: float, error: float, highest: Sequence[bool] = ()
) -> list[str]:
    """Interpret the metrics of a run in sentences.

    Args:
        metrics: Name of the number, such as ``rank1`` and ``discard_ri_minus_norm``, to metric.
        chance: Area of error over discard at chance level.
        error: Rank-1 error.
        highest: Whether the probes of highest RI are identified correctly, the highest first.
    """
    sentences = [describe_rate(metrics)] if metrics else []
    areas = _pick(metrics, 'discard_auc_')
    if areas:
        order = sorted(areas, key=lambda name: areas[name].value)
        judges = ', '.join(f'{name} {areas[name].value:.3f}' for name in order)
        sentences.append(
            f'{order[0]} predicts errors best. Area under error over discard, lower is better: '
            f'{judges}; chance {chance:.3f}.'
        )
    if 'RI' in areas:
        ends = (areas['RI'].low, areas['RI'].high)
        low, high = (areas['RI'].value if end is None else end for end in ends)
        if low > chance:
            sentences.append('RI predicts errors worse than guessing.')
        elif high >= chance:
            sentences.append('RI is not distinguishable from guessing: chance is in its interval.')
    for rival, difference in _pick(metrics, 'discard_ri_minus_').items():
        sentences.append(describe_difference(rival, difference))
    if 'error_best_half' in metrics:
        half = metrics['error_best_half'].value
        sentences.append(
            'Where the half of lowest RI is refused, the rank-1 error '
            f'{"falls" if half < error else "does not fall"}: {format_number(half)} instead of '
            f'{format_number(error)}.'
        )
    if highest:
        wrong = len(highest) - sum(highest)
        sentences.append(
            f'Of the {len(highest)} probes of highest RI, {wrong or "none"} '
            f'{"is" if wrong == 1 else "are"} identified wrongly'
            + ('.' if highest[0] else '; the very highest is among them.')
        )
    told = _pick(metrics, 'ui_auc_')
    if told:
        rates = ', '.join(f'{name} {format_number(found.value)}' for name, found in told.items())
        sentences.append(
            f'How often a probe is rated above an unrecognizable face (50 % is guessing): {rates}.'
        )
    return sentences


def describe_rate(metrics: Mapping[str, Metric]) -> str:
    """State the main rate, and compare it with the other systems."""
    name = next((name for name in ('mean_rank1', 'rank1') if name in metrics), next(iter(metrics)))
    metric = metrics[name]
    text = f'{metric.name[0].upper()}{metric.name[1:]}: {format_number(metric.value, metric.unit)}'
    interval = format_interval(metric.low, metric.high, metric.unit)
    text += f' (95 % interval {interval})' if interval else ''
    for system, value in metric.baselines.items():
        stands = 'not clearly ahead of' if metric.value > value else 'not ahead of'
        if (metric.value if metric.low is None else metric.low) > value:
            stands = 'ahead of'
        text += f', {stands} {system} ({format_number(value, metric.unit)})'
    return text + '.'


def describe_difference(rival: str, difference: Metric) -> str:
    """State whether RI or another measure predicts errors better, or neither.

    Args:
        rival: Name of the other measure.
        difference: Area of RI minus that of the other; lower is better.
    """
    low, high = difference.low, difference.high
    interval = f'{low:.3f} to {high:.3f}' if math.isfinite(low + high) else 'unknown'
    size = f'difference of the areas {difference.value:+.3f}, 95 % interval {interval}.'
    if high < 0:
        return f'RI predicts errors better than {rival}: {size}'
    if low > 0:
        return f'RI predicts errors worse than {rival}: {size}'
    ahead = 'neither' if difference.value == 0 else 'RI' if difference.value < 0 else rival
    return f'RI and {rival} are not distinguishable in predicting errors, {ahead} is ahead: {size}'


def _pick(metrics: Mapping[str, Metric], prefix: str) -> dict[str, Metric]:
    """Return the metrics of each quality measure by the measure's name."""
    names = {prefix + quality: shown for quality, shown in MEASURES.items()}
    return {shown: metrics[name] for name, shown in names.items() if name in metrics}


# Many runs --------------------------------------------------------------------------------------


def describe_methods(title: str, found: Mapping[str, Mapping[str, Score]]) -> str:
    """State the best method in the main rate of a test set, and those not distinguishable."""
    name = 'mean_rank1' if 'mean_rank1' in found else next(iter(found))
    scores = found[name]
    best = next(system for system, score in scores.items() if score.best)
    text = f'{title}: {name_method(best)} is first in {name_metric(name)}'
    text += f' ({100 * scores[best].mean:.1f} %)'
    return f'{text}; not distinguishable from it: {_list_near(scores)}.'


def describe_judges(title: str, scores: Mapping[str, Score]) -> str:
    """State which measure predicts errors best, and the rank of RI."""
    order = sorted(scores, key=lambda name: scores[name].mean)
    text = f'{title}: {order[0]} predicts errors best (area {scores[order[0]].mean:.3f})'
    text += f'; not distinguishable from it: {_list_near(scores)}'
    if 'RI' in scores and order[0] != 'RI':
        text += f'. RI is number {order.index("RI") + 1} of {len(order)} ({scores["RI"].mean:.3f})'
    return text + '.'


def _list_near(scores: Mapping[str, Score]) -> str:
    near = [name for name, score in scores.items() if score.mark == 'near']
    if any(score.lower_is_better for score in scores.values()):
        near.sort(key=lambda name: scores[name].mean)
    return ', '.join(map(name_method, near)) or 'none'
