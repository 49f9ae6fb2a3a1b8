"""Over a loader: index order, any batches, any ranks, one pass of the backbone."""

import numpy as np
import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import DefaultScope
from PIL import Image

from mmvlr.datasets import SyntheticFaces, ValidationSubset
from mmvlr.datasets.transforms import PackFace
from mmvlr.engine import extraction
from mmvlr.engine.extraction import native_image
from mmvlr.engine.scoring import measure_quality
from mmvlr.models.quality import (
    FaceBatch,
    NormQuality,
    QualityMeasure,
    SERFIQQuality,
    SharpnessQuality,
    SizeQuality,
)
from mmvlr.registry import QUALITIES
from mmvlr.structures import FaceDataSample

ALL = [
    dict(type='RecognizabilityQuality'),
    dict(type='ERSQuality'),
    dict(type='NormQuality'),
    dict(type='SERFIQQuality', num_passes=10),
    dict(type='SizeQuality'),
    dict(type='SharpnessQuality'),
]
NAMES = ['ri', 'ers', 'norm', 'serfiq', 'size', 'sharpness']


def assert_equal(found, expected):
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.fixture
def model(make_model):
    return make_model()


def test_every_face_in_index_order(model, make_loader):
    loader = make_loader()
    found = measure_quality(model, loader, ALL)
    assert list(found) == NAMES
    for index in range(12):
        face = loader.dataset[index]
        inputs = model.data_preprocessor(dict(inputs=[face['inputs']]))['inputs']
        alone = FaceBatch(model, inputs, [loader.dataset.get_data_info(index)['img']])
        for config, name in zip(ALL, NAMES, strict=True):
            expected = QUALITIES.build(config)(alone).item()
            assert found[name][index] == pytest.approx(expected, rel=1e-4, abs=1e-5), name
        assert found['size'][index] == min(face['data_samples'].ori_shape)
    assert all(v.shape == (12,) and v.dtype == np.float32 for v in found.values())
    assert all(len(np.unique(found[name])) > 6 for name in NAMES if name != 'size')


def test_neither_order_nor_batches_matter(model, make_loader):
    expected = measure_quality(model, make_loader(batch_size=4), ALL)
    assert_equal(measure_quality(model, make_loader(batch_size=5, shuffle=True), ALL), expected)
    assert_equal(measure_quality(model, make_loader(batch_size=12), ALL), expected)


def test_ranks_are_merged_by_index(model, make_loader, monkeypatch):
    """Two ranks, one after the other; the sampler's padding repeats a face on the second."""
    batches = list(make_loader(batch_size=3))
    expected = measure_quality(model, make_loader(), ALL)
    shards = [batches[::2], [*batches[1::2], batches[0]]]
    parts = []
    monkeypatch.setattr(extraction, 'all_gather_object', lambda mine: parts.append(mine) or [mine])
    files = {sample.sample_idx: sample for batch in batches for sample in batch['data_samples']}
    dataset = make_loader().dataset
    for index, sample in files.items():
        sample.set_metainfo(dict(image=dataset.get_data_info(index)['img']))
    for shard in shards:
        assert len(measure_quality(model, shard, ALL)['ri']) < 12
    monkeypatch.setattr(extraction, 'all_gather_object', lambda mine: parts)
    assert_equal(measure_quality(model, shards[1], ALL), expected)


def on_a_rank(rank, folder, model, loader):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2
    )
    with DefaultScope.overwrite_default_scope('mmvlr'):
        np.savez(f'{folder}/{rank}.npz', **measure_quality(model, loader(rank), ALL))
    torch.distributed.destroy_process_group()


class ShardLoader:
    """Every second face, in batches of 4."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __call__(self, rank):
        self.indices = list(range(rank, len(self.dataset), 2))
        return self

    def __iter__(self):
        for start in range(0, len(self.indices), 4):
            faces = [self.dataset[index] for index in self.indices[start : start + 4]]
            yield {key: [face[key] for face in faces] for key in ('inputs', 'data_samples')}


@pytest.mark.slow
def test_two_processes_equal_one(model, make_loader, tmp_path):
    expected = measure_quality(model, make_loader(), ALL)
    arguments = (str(tmp_path), model, ShardLoader(make_loader().dataset))
    torch.multiprocessing.spawn(on_a_rank, arguments, nprocs=2)
    for rank in (0, 1):
        with np.load(tmp_path / f'{rank}.npz') as found:
            assert_equal({name: found[name] for name in found.files}, expected)


def test_the_backbone_runs_once_a_batch(model, make_loader):
    calls = []
    model.backbone.register_forward_hook(lambda *_: calls.append(1))
    measure_quality(model, make_loader(batch_size=4), ALL)
    assert len(calls) == 3


@pytest.mark.parametrize('training', [False, True])
def test_the_model_is_left_as_it_was(model, make_loader, training):
    model.train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measure_quality(model, make_loader(), ALL)
    assert model.training is training
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0, equal_nan=True)
    with pytest.raises(KeyError):
        measure_quality(model, [dict()], ALL)
    assert model.training is training


def test_a_wrapped_model(model, make_loader):
    wrapper = MMDistributedDataParallel.__new__(MMDistributedDataParallel)
    torch.nn.Module.__init__(wrapper)
    wrapper.module = model
    assert_equal(
        measure_quality(wrapper, make_loader(), ALL), measure_quality(model, make_loader(), ALL)
    )


def test_images_need_no_model(make_loader):
    found = measure_quality(None, make_loader(), [SizeQuality(), SharpnessQuality()])
    images = [info['img'] for info in make_loader().dataset.infos()]
    assert found['size'].tolist() == [min(image.shape[:2]) for image in images]
    # Not the images that the network sees, which are all 32 x 32.
    assert found['size'].max() < 32


def test_two_of_a_kind(model, make_loader):
    pair = [SERFIQQuality(5, name='a'), SERFIQQuality(5, 0.1, name='b')]
    found = measure_quality(model, make_loader(), pair)
    assert (found['a'] < found['b']).all()
    with pytest.raises(ValueError, match='different names'):
        measure_quality(model, make_loader(), [NormQuality(), NormQuality()])
    with pytest.raises(ValueError, match='different names'):
        measure_quality(model, make_loader(), [])


def test_a_measure_of_ones_own(model, make_loader):
    class Both(QualityMeasure):
        name, needs_images = 'both', True

        def measure(self, faces):
            assert len(faces.images) == len(faces.inputs) == len(faces.embedding)
            return torch.tensor([float(image.mean()) for image in faces.images])

    found = measure_quality(model, make_loader(batch_size=5), [Both()])['both']
    expected = [info['img'].mean() for info in make_loader().dataset.infos()]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_errors(make_loader):
    with pytest.raises(ValueError, match='norm, serfiq: a model is needed'):
        measure_quality(None, make_loader(), [NormQuality(), SizeQuality(), SERFIQQuality()])
    with pytest.raises(ValueError, match='no image'):
        measure_quality(None, [], [SizeQuality()])


def test_native_images(tmp_path, make_loader):
    face = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(face).save(tmp_path / 'face.png')
    sample = FaceDataSample(metainfo=dict(sample_idx=0, img_path=str(tmp_path / 'face.png')))
    np.testing.assert_array_equal(native_image(sample), face)
    np.testing.assert_array_equal(
        native_image(sample, make_loader().dataset), make_loader().dataset.get_data_info(0)['img']
    )
    sample.set_metainfo(dict(image=face[:3]))
    np.testing.assert_array_equal(native_image(sample, make_loader().dataset), face[:3])
    with pytest.raises(FileNotFoundError):
        native_image(FaceDataSample(metainfo=dict(img_path=str(tmp_path / 'none.png'))))


def test_images_that_the_pipeline_changes_must_be_kept(make_loader):
    def keep(results):
        return {**results, 'image': results['img']}

    def loader_of(pipeline):
        return make_loader(dataset=SyntheticFaces(3, 4, pipeline=pipeline))

    start = [dict(type='LoadFace'), dict(type='DownsampleFace', size=6)]
    resize = dict(type='ResizeFace', size=(32, 32))
    loader = loader_of([*start, resize, dict(type='PackFace')])
    with pytest.raises(ValueError, match=r"DownsampleFace changes the faces.*'image'"):
        measure_quality(None, loader, [SizeQuality()])
    pack = dict(type='PackFace', meta_keys=(*PackFace.DEFAULT_KEYS, 'image'))
    loader = loader_of([*start, keep, resize, pack])
    assert measure_quality(None, loader, [SizeQuality()])['size'].tolist() == [6.0] * 12


def test_a_data_set_that_prepares_faces_its_own_way(make_loader):
    plain = make_loader().dataset
    dataset = ValidationSubset(plain, fraction=1.0, pipeline=plain.pipeline.transforms)
    with pytest.raises(ValueError, match='ValidationSubset changes the faces'):
        native_image(dataset[0]['data_samples'], dataset)
