"""The report of a run, end to end on a few synthetic faces."""

import re

import numpy as np
import pytest

from mmvlr.apis import build_trainer, load_config
from mmvlr.evaluation.functional import identification
from mmvlr.reports import ReportData
from mmvlr.reports.from_run import build_report, find_checkpoint, read_scalars
from mmvlr.structures.face_table import MEASURES
from mmvlr.utils.shipped import find_run_config

from .pages import check_page, cut_section, read_rows

# A network is trained first.
pytestmark = pytest.mark.slow

SMALL = {
    'train_cfg.max_epochs': 2,
    'train_cfg.val_interval': 1,
    'train_dataloader.dataset.num_people': 8,
    'train_dataloader.batch_size': 32,
    'val_dataloader.dataset.dataset.num_people': 8,
    'test_dataloader.dataset.num_people': 6,
    'test_dataloader.dataset.num_distractors': 5,
    'test_dataloader.dataset.num_ui': 6,
    'custom_hooks.0.dataloader.dataset.num_images': 8,
    'custom_hooks.0.diversion_begin': 1,
    'custom_hooks.1.dataloader.dataset.num_people': 8,
    'custom_hooks.1.degraded_dataloader.dataset.num_people': 8,
    'default_hooks.logger.interval': 1,
}


WALKS = []


@pytest.fixture(scope='module')
def run(root, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('report') / 'run'
    config = load_config(root / 'configs/demo/riface_synthetic.py', SMALL)
    config.work_dir = str(work_dir)
    build_trainer(config).train()
    return work_dir


@pytest.fixture(scope='module')
def report(run):
    with pytest.MonkeyPatch.context() as patch:
        plain = identification.search
        patch.setattr(
            identification, 'search', lambda *args, **how: WALKS.append(1) or plain(*args, **how)
        )
        return build_report(run)


@pytest.fixture(scope='module')
def text(report):
    return report[0].read_text(encoding='utf-8')


def test_page_has_every_section(text):
    shown = [key for key in ReportData.SECTIONS if key not in ('open_set', 'verification')]
    check_page(text, shown)
    assert '<title>RIFace on SyntheticFaces</title>' in text
    assert 'These faces are synthetic.' in text
    assert 'Left out:' not in text.split('Failures')[0]


def test_counts_agree(text):
    """6 people with two gallery and four probe images each, 5 distractors, 6 UI faces."""
    legend = cut_section(text, 'quality')
    for name, number in (('probes', 24), ('gallery and distractors', 17), ('UI faces', 6)):
        assert len(re.findall(rf'>{name} <small>{number} ', legend)) == 3
    counts = dict(row for row in read_rows(cut_section(text, 'details')) if len(row) == 2)
    assert counts['gallery'] == '12 of 6 people' and counts['distractor'] == '5'
    assert counts['gallery and distractors'] == '17'


def test_words_say_what_the_figures_say(text, report):
    reading, figures = cut_section(text, 'reading'), report[1]
    order = sorted(('ri', 'ers', 'norm'), key=lambda name: figures[f'discard_auc_{name}'])
    for name in order:
        assert f'{MEASURES[name]} {figures[f"discard_auc_{name}"]:.3f}' in reading
    assert f'{MEASURES[order[0]]} predicts errors best' in reading
    for rival in ('ers', 'norm'):
        low, high = (figures[f'discard_ri_minus_{rival}_{end}'] for end in ('low', 'high'))
        assert f'{figures[f"discard_ri_minus_{rival}"]:+.3f}' in reading
        assert (low <= 0 <= high) == (f'RI and {MEASURES[rival]} are not dist' in reading)
    assert f'{100 * figures["rank1"]:.1f}' in reading
    assert f'{100 * figures["pixel_rank1"]:.1f}' in reading


def test_model_and_pixel_baseline_are_searched_once(report):
    assert len(WALKS) == 2


def test_figures_are_those_of_the_metric(run, report):
    from mmvlr.apis import build_tester

    config = load_config(find_run_config(run))
    config.work_dir = str(run / 'test')
    metrics = build_tester(config, str(find_checkpoint(run))).test()
    _, figures = report
    for name in ('rank1', 'rank20', 'mAP', 'discard_auc_ri', 'discard_auc_norm', 'ui_auc_ri'):
        assert figures[name] == pytest.approx(metrics[f'synthetic/{name}'], abs=1e-6), name
    assert figures['error'] == pytest.approx(1 - figures['rank1'])
    difference = figures['discard_auc_ri'] - figures['discard_auc_norm']
    assert figures['discard_ri_minus_norm'] == pytest.approx(difference)


def test_scalars_hold_what_the_method_logs(run):
    scalars, ends = read_scalars(run)
    assert ends.tolist() == [4, 8]
    for name in ('loss_cls', 'xi', 'xi_hat', 'd_p', 'd_n', 'd_ui', 'effective_rank'):
        assert scalars[name][0].tolist() == list(range(1, 9)), name
    # The diversion loss is off in the first epoch.
    assert scalars['mu_ui'][0].tolist() == scalars['loss_diversion'][0].tolist() == [5, 6, 7, 8]
    # Validation is logged by epoch and shown by iteration.
    assert scalars['val/rank1'][0].tolist() == [4, 8]
    assert np.isfinite(np.concatenate([values for _, values in scalars.values()])).all()


def test_run_without_config_or_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='--config'):
        build_report(tmp_path)
    (tmp_path / 'config.py').write_text('model = dict()\n', encoding='utf-8')
    with pytest.raises(FileNotFoundError, match='--checkpoint'):
        build_report(tmp_path)
