"""Every registered name can be found, built and, if it is a network, run."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.registry import Registry
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmvlr import registry
from mmvlr.datasets import SyntheticFaces
from mmvlr.evaluation import FaceTable
from mmvlr.evaluation.metrics import ClosedSetMetric
from mmvlr.models import FaceBackbone, FaceDataPreprocessor
from mmvlr.models.losses import DistillationLoss, PrototypeLoss, Proximities
from mmvlr.models.quality import FaceBatch
from mmvlr.models.recognizers import FaceRecognizer
from mmvlr.structures import FaceDataSample

from .datasets.test_recordio import encode, insightface_records, pixels, write_records
from .people import model_file

REGISTRIES = {
    name: value
    for name, value in vars(registry).items()
    if isinstance(value, Registry) and not name.startswith('MMENGINE_')
}


def names_of(mmvlr_registry):
    mmvlr_registry.import_from_location()
    # Other tests register parts of their own, as users do.
    return sorted(
        name
        for name, part in mmvlr_registry.module_dict.items()
        if part.__module__.startswith('mmvlr.')
    )


TINY = dict(
    type='MobileFaceNet',
    input_size=32,
    embed_dims=16,
    stem_channels=8,
    stages=((16, 8, 1, 2), (16, 16, 1, 2)),
    last_channels=32,
)
FACES = dict(type='SyntheticFaces', num_people=3, images_per_person=2)
PIPELINE = [dict(type='LoadFace'), dict(type='ResizeFace', size=(32, 32)), dict(type='PackFace')]
LOADER = dict(
    batch_size=4,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**FACES, pipeline=PIPELINE),
    collate_fn=dict(type='mmvlr.face_collate'),
)

# Registry -> name -> arguments; a value may be a function of a temporary folder. A name that is
# missing here fails `test_every_name_is_in_the_table`.
BUILD = {
    'HOOKS': {
        'BufferedRuntimeInfoHook': dict(),
        'CheckpointGuardHook': dict(),
        'CollapseGuardHook': dict(),
        'CompileHook': dict(),
        'EpochSeedHook': dict(),
        'FaceEMAHook': dict(),
        'PrototypeInitHook': dict(dataloader=LOADER),
        'RegressionFitHook': dict(dataloader=LOADER, degraded_dataloader=LOADER),
        'ResumeHook': dict(),
        'RetainHook': dict(dataloader=LOADER, evaluator=dict(type='ClosedSetMetric')),
        'ShardCheckpointHook': dict(),
        'TeacherHook': dict(checkpoint='teacher.pth'),
        'UICenterHook': dict(dataloader=LOADER),
    },
    'OPTIM_WRAPPERS': {
        'FaceAmpOptimWrapper': lambda _: dict(
            optimizer=torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
        ),
    },
    'OPTIM_WRAPPER_CONSTRUCTORS': {
        'PartRateConstructor': dict(
            optim_wrapper_cfg=dict(optimizer=dict(type='Adam', lr=0.1)),
            paramwise_cfg=dict(rates=dict(weight=0.1, bias=0.1)),
        ),
    },
    'DATASETS': {
        'FaceFolder': lambda folder: dict(data_root=str(people_folder(folder))),
        'LFWBin': lambda folder: dict(data_root=str(bin_file(folder))),
        'LFWFamily': lambda folder: dict(data_root=str(pairs_folder(folder)), protocol='pairs'),
        'RecordIOFaces': lambda folder: dict(data_root=str(record_folder(folder))),
        'SCface': lambda folder: dict(data_root=str(scface_folder(folder))),
        'SurvFace': lambda folder: dict(data_root=str(survface_folder(folder))),
        'SyntheticFaces': dict(num_people=2, images_per_person=2),
        'SyntheticUIFaces': dict(num_images=3),
        'TinyFace': lambda folder: dict(data_root=str(tinyface_folder(folder))),
        'UIFaces': lambda folder: dict(data_root=str(people_folder(folder))),
        'UnlabeledFaces': lambda folder: dict(data_root=str(people_folder(folder))),
        'PeopleSubset': dict(dataset=FACES),
        'ValidationSubset': dict(dataset=FACES, pipeline=[dict(type='LoadFace')]),
    },
    'TRANSFORMS': {
        'LoadFace': dict(),
        'ResizeFace': dict(size=(32, 24)),
        'FlipFace': dict(),
        'RotateFace': dict(),
        'RescaleFace': dict(),
        'DownsampleFace': dict(),
        'DegradeFace': dict(),
        'MisalignFace': dict(),
        'BlurFace': dict(),
        'MotionBlurFace': dict(),
        'ShrinkFace': dict(),
        'NoiseFace': dict(),
        'ToneFace': dict(),
        'DownUpFace': dict(),
        'JPEGFace': dict(),
        'VLRDegradation': dict(),
        'PackFace': dict(),
        'PackNativeFace': dict(
            transforms=[dict(type='FlipFace'), dict(type='RotateFace'), dict(type='RescaleFace')]
        ),
    },
    'FUNCTIONS': {'face_collate': None, 'native_collate': None},
    'MODELS': {
        'IResNet': dict(depth=18, input_size=32, embed_dims=16),
        'InceptionResnetV1': dict(embed_dims=16),
        'MobileFaceNet': {k: v for k, v in TINY.items() if k != 'type'},
        'FaceDataPreprocessor': dict(size=(32, 32)),
        'FixedGate': dict(),
        'LoRA': lambda _: dict(backbone=registry.MODELS.build(TINY)),
        'QualityGate': dict(quality=dict(type='NormQuality')),
        'PerceptibilityAttention': dict(backbone=SimpleNamespace(feat_channels=32, embed_dims=16)),
        'PerceptibilityRegression': dict(feat_channels=32, embed_dims=16),
        'PartialRecognitionModule': dict(num_classes=3, embed_dims=16),
        'RecognitionModule': dict(num_classes=3, embed_dims=16),
        'AdaFaceLoss': dict(),
        'ArcFaceLoss': dict(),
        'CosFaceLoss': dict(),
        'CurricularFaceLoss': dict(),
        'CosineDistillationLoss': dict(),
        'FeatureSimilarityDistillationLoss': dict(),
        'RelationalDistillationLoss': dict(),
        'MagFaceLoss': dict(),
        'NormFaceLoss': dict(),
        'SFaceNet': dict(embed_dims=16, input_size=32, stem_channels=4, layers=((8, 2), (32, 2))),
        'SoftmaxLoss': dict(),
        'TimmBackbone': dict(model_name='test_vit', embed_dims=16, input_size=32),
        'IndexDiversionLoss': dict(),
        'IndexRegressionLoss': dict(),
        'AttentionLoss': dict(),
        'RecognizabilityIndex': dict(),
        'FaceRecognizer': dict(
            backbone=TINY,
            head=dict(type='RecognitionModule', num_classes=3),
            data_preprocessor=dict(type='FaceDataPreprocessor', size=(32, 32)),
        ),
        'CRFIQA': dict(
            backbone=TINY,
            head=dict(type='RecognitionModule', num_classes=3),
            data_preprocessor=dict(type='FaceDataPreprocessor', size=(32, 32)),
        ),
        'RIFace': dict(
            backbone=TINY,
            head=dict(type='RecognitionModule', num_classes=3),
            attention=dict(type='PerceptibilityAttention'),
            loss_diversion=dict(type='IndexDiversionLoss'),
            data_preprocessor=dict(type='FaceDataPreprocessor', size=(32, 32)),
        ),
    },
    'TASK_UTILS': {
        'MTCNNDetector': dict(),
        'YuNetDetector': dict(file='yunet.onnx'),
    },
    'QUALITIES': {
        'CCASQuality': dict(),
        'CCSQuality': dict(),
        'CRFIQAQuality': dict(),
        'ERSQuality': dict(),
        'FROQQuality': dict(grid=1),
        'GraFIQsQuality': dict(),
        'NormQuality': dict(),
        'PreFIQsQuality': dict(),
        'RecognizabilityQuality': dict(),
        'SERFIQQuality': dict(num_passes=3),
        'SharpnessQuality': dict(),
        'SizeQuality': dict(),
    },
    'INFERENCERS': {
        'FaceInferencer': lambda folder: dict(model=model_file(folder / 'a.pth'), device='cpu'),
    },
    'TEMPLATES': {
        'BestTemplate': dict(),
        'MeanTemplate': dict(),
        'MediaTemplate': dict(),
        'NormWeightedTemplate': dict(),
        'ImageTemplates': dict(),
        'RIWeightedTemplate': dict(),
    },
    # Built by tests/tools/test_training_console.py, as it takes a whole config.
    'RUNNERS': {'FaceRunner': dict()},
    'LOOPS': {
        name: dict(
            runner=SimpleNamespace(visualizer=SimpleNamespace()),
            dataloader=DataLoader(SyntheticFaces(1, 1)),
            evaluator=Evaluator([ClosedSetMetric()]),
        )
        for name in ('FaceValLoop', 'FaceTestLoop')
    },
    'METRICS': {
        'ClosedSetMetric': dict(),
        'GalleryVerificationMetric': dict(),
        'OpenSetMetric': dict(),
        'SCfaceMetric': dict(),
        'TinyFaceMetric': dict(),
        'VerificationMetric': dict(),
    },
}


def bin_file(folder):
    path = folder / 'lfw.bin'
    path.write_bytes(pickle.dumps(([encode(pixels(n)) for n in range(4)], [True, False])))
    return path


def record_folder(folder):
    return write_records(folder, insightface_records([0, 0, 1])).parent


def people_folder(folder):
    from PIL import Image

    for person in ('1', '2'):
        (folder / person).mkdir()
        Image.new('RGB', (9, 9)).save(folder / person / f'{person}_1.png')
    return folder


def pairs_folder(folder):
    (people_folder(folder) / 'pairs.txt').write_text('1/1_1.png 2/2_1.png 0\n')
    return folder


def scface_folder(folder):
    from PIL import Image

    for distance in (1, 2, 3):
        for camera in (1, 2, 3, 4, 5):
            inner = folder / f'surveillance_cameras_distance_{distance}' / f'cam_{camera}'
            inner.mkdir(parents=True)
            Image.new('RGB', (9, 9)).save(inner / f'001_cam{camera}_{distance}.jpg')
    return folder


def survface_folder(folder):
    (folder / 'training_set').mkdir()
    people_folder(folder / 'training_set')
    return folder


def tinyface_folder(folder):
    (folder / 'Training_Set').mkdir()
    people_folder(folder / 'Training_Set')
    return folder


def cases(name):
    return [pytest.param(key, id=key) for key in names_of(REGISTRIES[name])]


def build(name, key, tmp_path):
    kwargs = BUILD[name][key]
    kwargs = kwargs(tmp_path) if callable(kwargs) else kwargs
    return REGISTRIES[name].build(dict(type=key, **kwargs))


@pytest.mark.parametrize('name', REGISTRIES)
def test_registry_has_locations_that_import(name):
    checked = REGISTRIES[name]
    assert checked.scope == 'mmvlr'
    assert checked.parent is getattr(registry, f'MMENGINE_{name}', None)
    assert checked._locations
    for location in checked._locations:
        __import__(location)


def test_every_root_registry_has_a_child():
    import mmengine.registry

    roots = {
        name
        for name, value in vars(mmengine.registry).items()
        if isinstance(value, Registry) and value.scope == 'mmengine'
    }
    # mmengine has no root for quality measures and templates.
    assert roots == set(REGISTRIES) - {'QUALITIES', 'TEMPLATES'}


@pytest.mark.parametrize('name', REGISTRIES)
def test_every_name_is_in_the_table(name):
    assert names_of(REGISTRIES[name]) == sorted(BUILD.get(name, {}))


@pytest.mark.parametrize('key', cases('MODELS'))
def test_model_runs(key, tmp_path):
    module = build('MODELS', key, tmp_path)
    assert type(module).__name__ == key
    labels = torch.tensor([0, 1, 2, 0])
    faces = torch.randn(4, 3, 32, 32)
    embeddings = torch.randn(4, 16, requires_grad=True)
    feature_map = torch.randn(4, 32, 4, 4, requires_grad=True)
    if isinstance(module, FaceRecognizer):
        samples = [FaceDataSample(gt_label=label) for label in labels]
        outputs = module.train()(faces, samples, mode='loss')
        loss = sum(value for name, value in outputs.items() if 'loss' in name)
        assert all(value.isfinite() for value in outputs.values())
        assert len(module.eval()(faces, mode='predict')) == 4
    elif isinstance(module, FaceBackbone):
        side = getattr(module, 'min_size', 32)
        found_map, found = module(torch.randn(4, 3, side, side))
        assert found.shape == (4, module.embed_dims)
        assert found_map.shape[:2] == (4, module.feat_channels)
        loss = found.square().sum() + found_map.square().sum()
    elif isinstance(module, FaceDataPreprocessor):
        outputs = module(dict(inputs=[torch.zeros(3, 32, 32, dtype=torch.uint8)]))
        assert outputs['inputs'].shape == (1, 3, 32, 32)
        return
    elif isinstance(module, PrototypeLoss):
        cosines = nn.functional.normalize(embeddings, dim=1)[:, :3]
        loss = module(cosines, labels, embeddings.norm(dim=1))
    elif key == 'RecognizabilityIndex':
        xi = module(Proximities(*(embeddings[:, i].abs() for i in range(3))))
        assert xi.shape == (4,)
        assert not xi.requires_grad
        return
    elif key == 'IndexDiversionLoss':
        loss = module(embeddings[:, 0], torch.tensor(0.0), torch.tensor(1.0))
    elif key == 'IndexRegressionLoss':
        loss = module(embeddings[:, 0], torch.ones(4))
    elif isinstance(module, DistillationLoss):
        teacher = dict(embedding=torch.randn(4, 16), feature_map=torch.randn(4, 32, 4, 4))
        loss = module((feature_map, embeddings), teacher)
    elif key == 'AttentionLoss':
        loss = module(embeddings, nn.functional.normalize(torch.randn(4, 16), dim=1))
    elif key == 'PerceptibilityAttention':
        loss = module(feature_map).square().sum()
    elif key == 'PerceptibilityRegression':
        loss = (module(feature_map, embeddings) - 1).square().sum()
    elif key in ('PartialRecognitionModule', 'RecognitionModule'):
        assert module(embeddings).shape == (4, 3)
        loss = module.loss(embeddings, labels)['loss_cls']
    elif key in ('FixedGate', 'QualityGate'):
        model = registry.MODELS.build(dict(type='FaceRecognizer', backbone=TINY))
        weights = module(model, faces)
        assert weights.shape == (4, 2)
        torch.testing.assert_close(weights.sum(1), torch.ones(4))
        return
    elif key == 'LoRA':
        pair = next(iter(module.pairs.values()))
        loss = sum(p.sum() for p in module.parameters())
        assert not pair.up.any()
    else:
        pytest.fail(f'{key}: say here how it is run')
    loss.backward()
    learns = [p for p in module.parameters() if p.requires_grad] or [
        t for t in (embeddings, feature_map) if t.grad is not None
    ]
    assert learns
    assert all(p.grad is not None and p.grad.isfinite().all() for p in learns)
    assert any(p.grad.any() for p in learns)


@pytest.mark.parametrize('key', cases('DATASETS'))
def test_dataset_delivers(key, tmp_path):
    dataset = build('DATASETS', key, tmp_path)
    assert type(dataset).__name__ == key
    assert len(dataset) > 0
    assert {'img_path', 'role', 'identity', 'sample_idx'} <= set(dataset[0])


@pytest.mark.parametrize('key', cases('TRANSFORMS'))
def test_transform_runs(key, tmp_path):
    transform = build('TRANSFORMS', key, tmp_path)
    face = np.arange(20 * 20 * 3, dtype=np.uint8).reshape(20, 20, 3)
    results = transform(dict(img=face, rng=np.random.default_rng(0), sample_idx=0, gt_label=0))
    image = results['inputs'].numpy().transpose(1, 2, 0) if key == 'PackFace' else results['img']
    assert image.dtype == np.uint8
    assert image.shape[2] == 3


@pytest.mark.parametrize('key', cases('TEMPLATES'))
def test_template_rule_makes_unit_templates(key, tmp_path):
    rule = build('TEMPLATES', key, tmp_path)
    templates = rule(np.eye(3)[:2] * 4, dict(ri=[0.2, 0.1], norm=[4.0, 4.0], medium=[0, 1]))
    assert templates.shape[1] == 3
    assert np.allclose(np.linalg.norm(templates, axis=1), 1)


@pytest.mark.parametrize('key', cases('INFERENCERS'))
def test_inferencer_embeds(key, tmp_path):
    inferencer = build('INFERENCERS', key, tmp_path)
    results = inferencer.embed(np.arange(2 * 9 * 9 * 3, dtype=np.uint8).reshape(2, 9, 9, 3))
    assert results.embedding.shape == (2, 16)
    assert np.isfinite(results.embedding).all()


@pytest.mark.parametrize('key', cases('LOOPS'))
def test_loop_builds(key, tmp_path):
    loop = build('LOOPS', key, tmp_path)
    assert loop.faces is None and len(loop.evaluator.metrics) == 1


@pytest.mark.parametrize('key', cases('HOOKS'))
def test_hook_builds(key, tmp_path):
    hook = build('HOOKS', key, tmp_path)
    # A hook that listens to nothing would be built and never run.
    assert hook.get_triggered_stages()


@pytest.mark.parametrize('key', cases('METRICS'))
def test_metric_evaluates(key, tmp_path):
    metric = build('METRICS', key, tmp_path)
    roles = [('gallery', 1), ('distractor', -100), ('probe', 1), ('unmated', 7)]
    roles += [*(('pair', person) for person in (1, 1, 2, 2)), *[('gallery', 2)] * 2]
    other = [role in ('distractor', 'unmated') or person == 2 for role, person in roles]
    faces = FaceTable(
        embedding=np.array([[-1.0 if is_other else 1.0, 1.0] for is_other in other]),
        role=[role for role, _ in roles],
        identity=[person for _, person in roles],
        columns=dict(distance=np.ones(len(roles))),
        pairs=np.array([(4, 5), (6, 7), (4, 6), (5, 7)]),
        same=np.array([1, 1, 0, 0]),
    )
    first = dict.fromkeys(('VerificationMetric', 'GalleryVerificationMetric'), 'tar@far0.1')
    first['SCfaceMetric'] = 'd1_rank1'
    assert metric.report(faces)[f'{metric.prefix}/{first.get(key, "rank1")}'] == 1


@pytest.mark.parametrize('key', cases('QUALITIES'))
def test_quality_measures(key, tmp_path):
    measure = build('QUALITIES', key, tmp_path)
    model = build('MODELS', 'CRFIQA' if key == 'CRFIQAQuality' else 'RIFace', tmp_path).eval()
    model.set_ui_center(torch.randn(16))
    images = [np.full((9, 7, 3), index, np.uint8) for index in range(4)]

    @torch.no_grad()
    def extract(loader, predict, copy=0, key=None):
        samples = [SimpleNamespace(gt_label=torch.tensor(label)) for label in (0, 0, 1, 1)]
        return dict(predict(torch.randn(4, 3, 32, 32)), samples=samples)

    measure.prepare(model, extract)
    quality = measure(FaceBatch(model, torch.randn(4, 3, 32, 32), images))
    assert quality.shape == (4,)
    assert quality.isfinite().all()


def test_optim_parts_build(tmp_path):
    wrapper = build('OPTIM_WRAPPERS', 'FaceAmpOptimWrapper', tmp_path)
    assert wrapper.cast_dtype is torch.bfloat16
    constructor = build('OPTIM_WRAPPER_CONSTRUCTORS', 'PartRateConstructor', tmp_path)
    assert len(constructor(nn.Linear(2, 2)).optimizer.param_groups) == 2


def test_collate_is_found_by_the_runner():
    batch = next(iter(Runner.build_dataloader(LOADER)))
    assert batch['inputs'].shape == (4, 3, 32, 32)
    assert [sample.sample_idx for sample in batch['data_samples']] == [0, 1, 2, 3]
