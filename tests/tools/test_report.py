"""The report of a run, end to end on a few synthetic faces."""

import numpy as np
import pytest

from mmvlr.apis import build_trainer, load_config
from mmvlr.apis.report import build_report, find_checkpoint, find_config, read_scalars

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


@pytest.fixture(scope='module')
def run(root, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('report') / 'run'
    config = load_config(root / 'configs/demo/riface_synthetic.py', SMALL)
    config.work_dir = str(work_dir)
    build_trainer(config).train()
    return work_dir


@pytest.fixture(scope='module')
def report(run):
    return build_report(run)


def test_page_has_every_section(report):
    page, _ = report
    text = page.read_text(encoding='utf-8')
    for heading in (
        'Training curves',
        'Identification',
        'Quality scores',
        'Error versus discard',
        'Lowest and highest RI',
        'Attention maps',
        'These faces are synthetic.',
    ):
        assert heading in text
    assert 'Left out:' not in text.split('Failures')[0]


def test_figures_are_those_of_the_metric(run, report):
    from mmvlr.apis import build_tester

    config = load_config(find_config(run))
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
