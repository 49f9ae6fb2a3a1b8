"""The configs of the other losses: they train a step and differ from ArcFace's in the loss only."""

import pytest
import torch
import yaml

from mmvlr.apis import load_config
from mmvlr.models.losses import PrototypeLoss
from mmvlr.registry import MODELS
from mmvlr.structures import FaceDataSample

METHODS = dict(
    softmax='SoftmaxLoss',
    normface='NormFaceLoss',
    cosface='CosFaceLoss',
    curricularface='CurricularFaceLoss',
    magface='MagFaceLoss',
    adaface='AdaFaceLoss',
)
NAMES = [
    f'{backbone}_{data}'
    for backbone in ('r50', 'mobilefacenet', 'sface')
    for data in ('tinyface', 'scface', 'survface')
]
# Configs for training from random weights, which have a schedule of their own.
FROM_RANDOM = dict(adaface=['r50_webface4m'])


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('method', METHODS)
def test_step(root, method, name, tiny_backbone, tiny_preprocessor):
    config = load_config(root / 'configs' / method / f'{name}.py').model
    config.backbone, config.data_preprocessor = tiny_backbone, tiny_preprocessor
    config.head.num_classes = 5
    model = MODELS.build(config).train()
    assert type(model.head.loss_module).__name__ == METHODS[method]
    samples = [FaceDataSample(gt_label=label) for label in torch.tensor([0, 1, 2, 3, 4, 0])]
    losses = model(torch.randn(6, 3, 32, 32), samples, mode='loss')
    losses['loss_cls'].backward()
    assert losses['loss_cls'].isfinite()
    for part in (model.backbone, model.head):
        gradients = [p.grad for p in part.parameters() if p.requires_grad]
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize('method', METHODS)
def test_only_the_loss_differs_from_arcface(root, method):
    for name in NAMES:
        found = load_config(root / 'configs' / method / f'{name}.py').to_dict()
        expected = load_config(root / 'configs' / 'arcface' / f'{name}.py').to_dict()
        loss = found['model']['head'].pop('loss')
        del expected['model']['head']['loss']
        assert found.pop('work_dir').replace(method, 'arcface') == expected.pop('work_dir')
        assert found == expected
        assert loss['type'] == METHODS[method]
        # What a config states is the default, which is what was published.
        defaults = MODELS.build(dict(type=loss.pop('type')))
        assert isinstance(defaults, PrototypeLoss)
        assert {key: getattr(defaults, key) for key in loss} == loss


@pytest.mark.parametrize('method', METHODS)
def test_metafile_lists_the_configs(root, method):
    folder = root / 'configs' / method
    content = yaml.safe_load((folder / 'metafile.yml').read_text())
    (collection,) = content['Collections']
    listed = {model['Config']: model for model in content['Models']}
    assert (
        set(listed)
        == {path.relative_to(root).as_posix() for path in folder.glob('*.py')}
        == {f'configs/{method}/{name}.py' for name in NAMES + FROM_RANDOM.get(method, [])}
    )
    for path, model in listed.items():
        assert model['In Collection'] == collection['Name']
        assert f'configs/{model["Name"].replace("_", "/", 1)}.py' == path
    readme = (root / collection['README']).read_text()
    assert all(f'`{name}.py`' in readme for name in NAMES)
