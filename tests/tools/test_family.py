"""What users of MMPretrain and its like type: it works, or an error names mmvlr's way."""

import re
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.visualization import Visualizer
from PIL import Image

from mmvlr.apis import (
    FaceTable,
    get_model,
    inference_model,
    init_model,
    list_models,
    load_config,
)
from mmvlr.cli import main
from mmvlr.cli.parsing import FOREIGN
from mmvlr.engine.building import build_trainer
from mmvlr.engine.preview import count_flops, list_rates
from mmvlr.models import MobileFaceNet
from mmvlr.registry import MODELS
from mmvlr.utils.compat import load_checkpoint_file


@pytest.mark.slow
def test_models_by_name(trained, config_file):
    names = list_models()
    assert {'sface', 'mobilefacenet', 'riface/r50_tinyface'} <= set(names)
    assert list_models('demo/*') == ['demo/riface_synthetic']
    checkpoint = trained / 'epoch_3.pth'
    by_file, by_config = get_model(checkpoint), init_model(config_file, checkpoint)
    bare = get_model(config_file)
    for model in (by_file, by_config, bare):
        assert type(model).__name__ == 'RIFace' and model.head is None and not model.training
    values = [next(model.backbone.parameters()) for model in (by_file, by_config, bare)]
    assert torch.equal(values[0], values[1]) and not torch.equal(values[0], values[2])
    table = inference_model(by_file, [np.full((20, 20, 3), 90, np.uint8)] * 2)
    assert isinstance(table, FaceTable) and len(table) == 2
    with pytest.raises(ValueError, match='load_from'):
        get_model(config_file, pretrained=True)
    with pytest.raises(FileNotFoundError, match='did you mean'):
        get_model('riface/r50_tinyfac')


@pytest.mark.parametrize('option', sorted(FOREIGN))
def test_options_of_the_family_name_the_way(option, config_file, capsys):
    with pytest.raises(SystemExit) as left:
        main(['train', config_file, option])
    assert left.value.code == 2
    told = capsys.readouterr().err
    assert option in told and FOREIGN[option] in told and told.count('\n') == 1


def test_amp_and_auto_scale_lr(project, config_file, monkeypatch, tool):
    runners = []

    def keep(config):
        runners.append(build_trainer(config))
        monkeypatch.setattr(runners[-1], 'train', lambda: None)
        return runners[-1]

    monkeypatch.setattr('mmvlr.apis.build_trainer', keep)
    options = ['--amp', '--auto-scale-lr', '--cfg-options', 'train_dataloader.batch_size=18']
    work_dir = str(project / 'options')
    assert main(['train', config_file, '--work-dir', work_dir, *options]) == 0
    (runner,) = runners
    assert runner.cfg.optim_wrapper.type == 'FaceAmpOptimWrapper'
    wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    before = [group['lr'] for group in wrapper.optimizer.param_groups]
    runner.scale_lr(wrapper, runner.auto_scale_lr)
    after = [group['lr'] for group in wrapper.optimizer.param_groups]
    assert after == pytest.approx([2 * rate for rate in before])


@pytest.mark.parametrize(
    ('option', 'told'),
    [
        pytest.param(
            'optim_wrapper.type=AmpOptimWrapper',
            'FaceAmpOptimWrapper',
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason='works on a GPU'),
        ),
        ('visualizer.vis_backends.0.type=WandbVisBackend', 'wandb'),
        ('visualizer.vis_backends.0.type=MLflowVisBackend', 'mlflow'),
    ],
)
def test_what_is_missing_is_told_in_a_line(project, config_file, capsys, option, told, monkeypatch):
    # Runs of one second share a visualizer, and the next test has another one.
    monkeypatch.setattr(Visualizer, '_instance_dict', OrderedDict())
    work_dir = str(project / 'missing')
    assert main(['train', config_file, '--work-dir', work_dir, '--cfg-options', option]) == 1
    error = capsys.readouterr().err
    assert told in error and 'Traceback' not in error


@pytest.mark.slow
def test_tta_is_flip_fusion(trained, config_file, tmp_path):
    files = [tmp_path / 'tta.json', tmp_path / 'fusion.json']
    for file, options in zip(files, (['--tta'], ['--flip-fusion', 'sum']), strict=True):
        argv = [config_file, str(trained / 'epoch_3.pth'), *options, '--out', str(file)]
        assert main(['test', *argv, '--work-dir', str(tmp_path)]) == 0
    assert files[0].read_text() == files[1].read_text()


def test_lazy_config_is_the_config(tmp_path):
    """Classes become the names under which checkpoints and registries know them."""
    base = tmp_path / 'base.py'
    assert main(['config', 'riface/mobilefacenet_tinyface', '--write', str(base)]) == 0
    lazy = tmp_path / 'lazy.py'
    lazy.write_text(
        'from mmengine.config import read_base\n'
        'from mmvlr.models import MobileFaceNet\n'
        'with read_base():\n    from .base import *\n'
        'model.update(backbone=dict(type=MobileFaceNet, embed_dims=64))\n'
    )
    config, plain = load_config(lazy), load_config(base)
    plain.model.backbone.embed_dims = 64
    assert config.model == plain.model
    assert MODELS.get(config.model.backbone.type) is MobileFaceNet
    for key in ('train_dataloader', 'custom_hooks', 'default_hooks', 'param_scheduler'):
        assert config[key] == plain[key], key


@pytest.mark.parametrize('name', ['mmvlr::riface/r50_tinyface.py', 'mmvlr::riface/r50_tinyface'])
def test_base_by_the_name_of_the_package(name, tmp_path, capsys):
    file = tmp_path / 'my.py'
    file.write_text(f'_base_ = {name!r}\ntrain_cfg = dict(max_epochs=2)\n')
    config = load_config(file)
    assert config.train_cfg.max_epochs == 2
    assert config.model == load_config('riface/r50_tinyface').model
    file.write_text("_base_ = 'mmvlr::riface/r50_tinyfac.py'\n")
    assert main(['config', str(file)]) == 1
    assert 'did you mean' in capsys.readouterr().err


def test_flops_and_rates(config_file, capsys):
    config = load_config(config_file)
    found = count_flops(config)
    backbone = MODELS.build(config.model.backbone)
    assert found['parameters'] == sum(p.numel() for p in backbone.parameters())
    # Counted by hooks on the layers: outputs times the multiplications for each.
    operations = []

    def count(layer, inputs, output):
        operations.append(output.numel() * layer.weight[0].numel())

    for layer in backbone.modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
            layer.register_forward_hook(count)
    backbone.eval()(torch.zeros(1, 3, 32, 32))
    # Batch norm and activations are counted too, which weighs in a network as small as this.
    assert sum(operations) <= found['flops'] < 1.25 * sum(operations)
    rates = list_rates(config)
    assert [row['head'] for row in rates] == pytest.approx([1e-2, 1e-2, 1e-3])
    for option, line in (('--flops', r'flops: [\d,]+'), ('--rates', r'3 +0\.0001')):
        assert main(['config', config_file, option]) == 0
        assert re.search(line, capsys.readouterr().out)


def test_a_model_of_synthetic_faces_says_so_once(trained, config_file, tmp_path, capsys):
    image = tmp_path / 'a.png'
    Image.fromarray(np.full((20, 20, 3), 90, np.uint8)).save(image)
    assert main(['quality', str(image), '--model', str(trained / 'epoch_3.pth')]) == 0
    assert capsys.readouterr().err.count('synthetic') == 1
    # One that says nothing of its training set.
    checkpoint = load_checkpoint_file(str(trained / 'epoch_3.pth'))
    torch.save(dict(state_dict=checkpoint['state_dict']), tmp_path / 'bare.pth')
    argv = ['quality', str(image), '--model', str(tmp_path / 'bare.pth'), '--config', config_file]
    assert main(argv) == 0
    assert 'synthetic' not in capsys.readouterr().err
