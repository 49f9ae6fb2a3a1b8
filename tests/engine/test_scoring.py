"""One pass over a loader makes the table that everything computes on."""

import numpy as np
import pytest
import torch
from mmengine.evaluator import DumpResults, Evaluator
from mmengine.runner import Runner

from mmvlr.engine import FaceValLoop, extraction
from mmvlr.engine.scoring import Scorer, make_table, score_loader
from mmvlr.evaluation.metrics import ClosedSetMetric
from mmvlr.structures import FaceDataSample


@pytest.fixture
def loader(make_loader):
    config = make_loader(num_people=3, images_per_person=4, split='test', num_distractors=2)
    return Runner.build_dataloader(config, seed=0)


def test_rows_are_those_of_the_data_set(make_model, loader):
    model = make_model().eval()
    faces = score_loader(model, loader, [dict(type='SizeQuality')])
    infos = list(loader.dataset.infos())
    assert faces.role.tolist() == [info['role'] for info in infos]
    assert faces.identity.tolist() == [info['identity'] for info in infos]
    assert faces.names == [info['img_path'] for info in infos]
    assert faces.columns['size'].tolist() == [min(info['img'].shape[:2]) for info in infos]
    found = extraction.extract_predictions(model, loader)
    np.testing.assert_array_equal(faces.embedding, found['embedding'].numpy())
    np.testing.assert_array_equal(faces.columns['ri'], found['recognizability'].numpy())
    np.testing.assert_array_equal(faces.columns['norm'], found['embedding_norm'].numpy())


def test_the_images_are_read_once(make_model, loader, monkeypatch):
    passes = []
    iterate = type(loader).__iter__
    monkeypatch.setattr(type(loader), '__iter__', lambda it: passes.append(1) or iterate(it))
    score_loader(make_model().eval(), loader, [dict(type='SizeQuality'), dict(type='NormQuality')])
    assert len(passes) == 1


def test_two_ranks_and_a_sampler_that_pads(make_model, loader, monkeypatch):
    model = make_model().eval()
    expected = score_loader(model, loader)
    batches = list(loader)
    parts = []
    monkeypatch.setattr(extraction, 'all_gather_object', lambda mine: parts.append(mine) or parts)
    first, second = Scorer(model), Scorer(model)
    for batch in batches[::2]:
        first.add(batch, loader.dataset)
    for batch in [*batches[1::2], batches[0]]:
        second.add(batch, loader.dataset)
    with pytest.raises(ValueError, match=r'images were embedded'):
        first.table(loader.dataset)
    faces = second.table(loader.dataset)
    np.testing.assert_array_equal(faces.embedding, expected.embedding)
    assert faces.names == expected.names


class Plain:
    data_root, metainfo = 'root', {}


def test_what_samples_tell_becomes_columns():
    infos = [
        dict(sample_idx=0, role='gallery', identity=4, img_path='root/a/b.png', distance=2),
        dict(sample_idx=1, role='probe', identity=4, img_path='else/c.png', ori_shape=(3, 4)),
        dict(sample_idx=2, role='probe', identity=4, img_path='d.png', camera='left'),
    ]
    samples = [FaceDataSample(metainfo=info) for info in infos]
    faces = make_table(torch.eye(3), samples, Plain, dict(ri=torch.arange(3.0)))
    assert faces.names == ['a/b.png', 'else/c.png', 'd.png']
    assert faces.columns['distance'].tolist() == [2, 0, 0]
    assert faces.columns['camera'].tolist() == ['', '', 'left']
    assert set(faces.columns) == {'name', 'distance', 'camera', 'ri'}
    assert list(faces.qualities) == ['ri']


def test_a_metric_of_another_kind_is_refused(make_runner, loader):
    runner = make_runner(None, visualizer=Runner)
    evaluator = Evaluator([ClosedSetMetric(), DumpResults(out_file_path='a.pkl')])
    with pytest.raises(TypeError, match=r'DumpResults.*FaceMetric'):
        FaceValLoop(runner, loader, evaluator)
