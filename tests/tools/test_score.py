"""tools/analysis/score.py on a checkpoint of the short training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.runner import Runner

from mmvlr.apis import build_tester, evaluate_checkpoint, load_config, score_faces
from mmvlr.engine import unwrap
from mmvlr.engine.scoring import measure_quality
from mmvlr.evaluation import FaceTable
from mmvlr.evaluation.metrics import TinyFaceMetric
from mmvlr.registry import QUALITIES
from mmvlr.reports.evaluated import EvaluatedModel
from mmvlr.reports.words import name_metric
from mmvlr.structures.face_table import MEASURES

# mmengine names its loggers by the second; several runs in one process may share a name.
pytestmark = pytest.mark.filterwarnings('ignore:.*has been created:UserWarning')
ALL = ('ri', 'ers', 'norm', 'serfiq', 'size', 'sharpness')


@pytest.fixture(scope='module')
def score(tool, config_file, trained, tmp_path_factory):
    """Return a function: options of the config -> scored faces."""

    def run(*options):
        folder = tmp_path_factory.mktemp('scores')
        arguments = ['--out', str(folder / 'faces.npz'), '--work-dir', str(folder / 'work')]
        arguments += ['--cfg-options', *options] if options else []
        checkpoint = str(trained / 'epoch_3.pth')
        assert tool('analysis/score.py').main([config_file, checkpoint, *arguments]) == 0
        return FaceTable.load(folder / 'faces.npz')

    return run


@pytest.fixture(scope='module')
def faces(score):
    return score()


def test_is_what_a_test_sees(faces, config_file, trained, tmp_path):
    config = load_config(config_file)
    config.work_dir = str(tmp_path / 'work')
    evaluate_checkpoint(config, str(trained / 'epoch_3.pth'), tmp_path)
    (file,) = tmp_path.glob('*.npz')
    tested = FaceTable.load(file)
    assert (faces.role == tested.role).all() and (faces.identity == tested.identity).all()
    assert np.array_equal(faces.embedding, tested.embedding)
    for name in ('ri', 'ers', 'norm'):
        assert np.allclose(faces.columns[name], tested.columns[name], rtol=0, atol=1e-6)


def test_measures_are_those_of_the_quality_package(faces, config_file, trained, tmp_path):
    config = load_config(config_file)
    config.work_dir = str(tmp_path / 'work')
    runner = build_tester(config, str(trained / 'epoch_3.pth'))
    runner.load_or_resume()
    loader = Runner.build_dataloader(config.test_dataloader)
    types = ('RecognizabilityQuality', 'ERSQuality', 'NormQuality', 'SERFIQQuality')
    types += ('SizeQuality', 'SharpnessQuality')
    expected = measure_quality(unwrap(runner.model), loader, [dict(type=t) for t in types])
    assert set(faces.qualities) == set(expected) == set(ALL)
    for name, values in expected.items():
        assert np.array_equal(faces.columns[name], values), name


def test_ui_faces_of_the_training_stand_behind_those_of_the_test_set(
    faces, config_file, trained, tmp_path
):
    # This test set has UI faces of its own; then no others are added.
    assert (faces.role == 'ui').sum() == 4
    config = load_config(config_file)
    config.work_dir = str(tmp_path / 'work')
    config.test_dataloader.dataset.num_ui = 0
    config.ui_dataloader = config.custom_hooks[1].dataloader
    joined = score_faces(config, str(trained / 'epoch_3.pth'))
    assert (joined.role == 'ui').sum() == 8 and (joined.role[-8:] == 'ui').all()
    assert np.array_equal(joined.embedding[:-8], faces.embedding[faces.role != 'ui'])
    assert set(joined.qualities) == set(ALL)


def test_flip_fusion_changes_the_embedding_alone(score, faces):
    fused = score('model.flip_fusion=sum')
    assert not np.allclose(fused.embedding, faces.embedding)
    assert torch.from_numpy(fused.embedding).norm(dim=1).sub(1).abs().max() < 1e-5
    for name in ALL:
        assert np.array_equal(fused.columns[name], faces.columns[name]), name


def test_a_measure_of_the_config_is_measured_and_evaluated(
    config_file, trained, tmp_path, monkeypatch
):
    config = load_config(config_file)
    config.work_dir = str(tmp_path / 'work')
    config.quality_measures = [dict(type='NormQuality', name='my_norm')]
    checkpoint = str(trained / 'epoch_3.pth')
    with pytest.raises(ValueError, match="'my_norm'"):
        score_faces(config, checkpoint)
    monkeypatch.setitem(MEASURES, 'my_norm', 'my norm')
    config.common_measures = []
    found = score_faces(config, checkpoint)
    assert set(found.qualities) == {'ri', 'ers', 'norm', 'my_norm'}
    assert np.array_equal(found.qualities['my_norm'], found.qualities['norm'])
    result = TinyFaceMetric().report(FaceTable.load(found.save(tmp_path / 'faces.npz')))
    assert result['tinyface/discard_auc_my_norm'] == result['tinyface/discard_auc_norm']
    assert name_metric('discard_auc_my_norm') == 'area of error over discard, my norm'


@pytest.mark.slow
def test_judges_of_a_config_are_fitted_measured_and_reported(config_file, trained, tmp_path):
    """Those that need it are fitted to the config's training faces first."""
    config = load_config(config_file)
    config.work_dir = str(tmp_path / 'work')
    shipped = load_config(Path(__file__).parents[2] / 'configs' / '_base_' / 'judges.py')
    judges = shipped.quality_measures
    names = {QUALITIES.get(measure['type']).name for measure in judges}
    assert names == {'serfiq', 'prefiqs', 'ccs', 'ccas', 'grafiqs', 'froq'}
    config.quality_measures = judges
    fit = config.custom_hooks[2]
    config.prototype_dataloader, config.degraded_dataloader = (
        fit['dataloader'],
        fit['degraded_dataloader'],
    )
    # Its own SER-FIQ replaces that of every scoring.
    faces = score_faces(config, str(trained / 'epoch_3.pth'))
    assert set(faces.qualities) == {'ri', 'ers', 'norm', 'size', 'sharpness', *names}
    for name in names:
        assert np.isfinite(faces.qualities[name]).all() and np.ptp(faces.qualities[name]) > 0
    assert (faces.qualities['ri'] > 0).all()
    config.quality_measures = [dict(type='PreFIQsQuality')]
    found = EvaluatedModel(config, trained / 'epoch_3.pth')
    assert np.array_equal(found.probe_quality['prefiqs'], faces.only('probe').qualities['prefiqs'])
    assert 'prefiqs' in found.measure_ui()
    assert any(number.endswith('discard_auc_prefiqs') for number in found.numbers)
    config.quality_measures = judges
    del config._cfg_dict['prototype_dataloader']
    with pytest.raises(KeyError, match='prototype_dataloader'):
        score_faces(config, str(trained / 'epoch_3.pth'), [])
