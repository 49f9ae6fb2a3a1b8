"""Switches of a training: each trains, is saved, is resumed, and changes what it should alone."""

import copy
import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from torch import nn

from mmvlr.apis import build_trainer
from mmvlr.engine import CompileHook
from mmvlr.engine.building import name_compile_hook
from mmvlr.registry import HOOKS, MODELS, OPTIM_WRAPPERS
from mmvlr.utils.compat import load_checkpoint_file

# mmengine names its loggers by the second; several runs in one process may share a name.
pytestmark = pytest.mark.filterwarnings('ignore:.*has been created:UserWarning')

PIPELINE = [dict(type='LoadFace'), dict(type='ResizeFace', size=(32, 32)), dict(type='PackFace')]
RATES = dict(backbone=1e-3, head=1e-2, attention=1e-2, regression=1e-3)
#: Compilers take most of the time here.
ONE_BLOCK = ((16, 8, 1, 2),)
numbers = itertools.count()


def loader(dataset, **kwargs):
    return dict(
        batch_size=6,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='mmvlr.face_collate'),
        # Serializing collects garbage each time, for most of a second.
        dataset=dict(pipeline=PIPELINE, serialize_data=False, **dataset),
        **kwargs,
    )


PEOPLE = dict(type='SyntheticFaces', num_people=3, images_per_person=8)
UNKNOWN = dict(type='SyntheticUIFaces', num_images=6)


@pytest.fixture(autouse=True)
def quick_start(monkeypatch):
    """Leave out what a Runner prints of the machine and how it formats its config."""
    monkeypatch.setattr('mmengine.config.config.FormatCode', lambda text, **_: (text, False))
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)


@pytest.fixture
def make_config(root, tmp_path, tiny_backbone, tiny_preprocessor):
    """Return a function: config of a training of two epochs, four iterations each."""

    def make(options=None, name=None):
        config = Config.fromfile(root / 'configs/_base_/default_runtime.py')
        config.merge_from_dict(
            dict(
                # The message hub goes by this name; two runs must not share one.
                experiment_name=f'switch-{next(numbers)}',
                work_dir=str(tmp_path / (name or f'run-{next(numbers)}')),
                train_dataloader=loader(PEOPLE),
                train_cfg=dict(by_epoch=True, max_epochs=2),
                optim_wrapper=dict(
                    optimizer=dict(type='Adam', lr=1e-3),
                    constructor='PartRateConstructor',
                    paramwise_cfg=dict(rates=dict(RATES)),
                ),
                model=dict(
                    type='RIFace',
                    # The tail 'conv' has no BatchNorm1d: nothing depends on the batch.
                    backbone=dict(tiny_backbone, frozen_bn=True, tail='conv', stages=ONE_BLOCK),
                    head=dict(type='RecognitionModule', dropout=0.0),
                    attention=dict(type='PerceptibilityAttention'),
                    regression=dict(type='PerceptibilityRegression', dropout=0.0),
                    loss_diversion=dict(type='IndexDiversionLoss'),
                    data_preprocessor=dict(tiny_preprocessor),
                ),
                custom_hooks=[dict(type='UICenterHook', dataloader=loader(UNKNOWN))],
                default_hooks=dict(
                    logger=dict(interval=3),
                    checkpoint=dict(save_best=None, max_keep_ckpts=-1),
                ),
                vis_backends=[dict(type='LocalVisBackend')],
                visualizer=dict(vis_backends=[dict(type='LocalVisBackend')]),
            )
        )
        config.merge_from_dict(options or {})
        return config

    return make


def train(config):
    """Train; return the runner and the total loss of each iteration."""
    runner = build_trainer(config)
    runner.train()
    return runner, runner.message_hub.get_scalar('train/loss').data[0].tolist()


def saved(config, epoch):
    return load_checkpoint_file(f'{config.work_dir}/epoch_{epoch}.pth')


def same_state(one, other):
    assert one.keys() == other.keys()
    return [
        name for name in one if not torch.equal(one[name].nan_to_num(7), other[name].nan_to_num(7))
    ]


# All of them --------------------------------------------------------------------------------------

EMA = dict(type='FaceEMAHook', momentum=0.1)
#: Options, and how far the losses may be from those of the plain run (None: any distance).
SWITCHES = {
    # How far bfloat16 is off depends on the processor: 0.01 to 0.03 were seen.
    'bf16': ({'optim_wrapper.type': 'FaceAmpOptimWrapper'}, 0.05),
    'channels_first': ({'model.channels_last': False}, 1e-4),
    'compile': ({'compile.backend': 'aot_eager'}, 1e-4),
    'with_cp': ({'model.backbone.with_cp': True}, 0),
    'accumulation': ({'optim_wrapper.accumulative_counts': 2}, None),
    'ema': ({'custom_hooks': [dict(type='UICenterHook', dataloader=loader(UNKNOWN)), EMA]}, 0),
    'fused': ({'optim_wrapper.optimizer.fused': True}, 1e-4),
    'clip': (
        {
            'optim_wrapper.type': 'FaceAmpOptimWrapper',
            'optim_wrapper.clip_grad': dict(max_norm=1e6),
        },
        0.05,
    ),
    'bn_learns': ({'model.backbone.frozen_bn': False, 'model.backbone.with_cp': True}, None),
}
TOGETHER = {
    name: value
    for options, _ in SWITCHES.values()
    for name, value in options.items()
    if not name.startswith('compile')
}
SWITCHES['together'] = (TOGETHER, None)


@pytest.fixture(scope='module')
def plain():
    """Losses of the run without a switch, filled in by the first test that needs them."""
    return []


@pytest.mark.slow
@pytest.mark.parametrize('name', SWITCHES)
def test_switch(name, make_config, plain, tmp_path):
    """It trains, its losses are those of the plain run, and a resumed run is the unbroken one."""
    if not plain:
        plain += train(make_config())[1]
        assert len(plain) == 8
    options, tolerance = SWITCHES[name]
    config = make_config(options, 'unbroken')
    runner, losses = train(config)
    assert len(losses) == 8
    assert torch.tensor(losses).isfinite().all()
    classification = runner.message_hub.get_scalar('train/loss_cls').data[0]
    # The same faces again, an epoch later.
    assert classification[4:].mean() < classification[:4].mean()
    if tolerance is not None:
        assert losses == pytest.approx(plain, rel=tolerance)
    first, last = saved(config, 1), saved(config, 2)
    assert len(same_state(first['state_dict'], last['state_dict'])) > 20

    resumed = make_config(dict(options, resume=True), 'resumed')
    (tmp_path / 'resumed').mkdir()
    shutil.copy(f'{config.work_dir}/epoch_1.pth', resumed.work_dir)
    (tmp_path / 'resumed' / 'last_checkpoint').write_text(f'{resumed.work_dir}/epoch_1.pth')
    train(resumed)
    again = saved(resumed, 2)
    assert not same_state(last['state_dict'], again['state_dict'])
    # No switch leaves a trace in the names: everybody can load the weights.
    bare = make_config()
    assert not any('_orig_mod' in key for key in last['state_dict'])
    bare.load_from = f'{config.work_dir}/epoch_2.pth'
    runner = build_trainer(bare)
    runner.load_or_resume()
    assert not same_state(last['state_dict'], runner.model.state_dict())
    assert runner.model.has_ui_center
    assert runner.model.has_ui_statistics


# Mixed precision ----------------------------------------------------------------------------------


def amp(model, **kwargs):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    return OPTIM_WRAPPERS.build(dict(type='FaceAmpOptimWrapper', optimizer=optimizer, **kwargs))


def test_amp_computes_in_bfloat16_and_keeps_float32_weights():
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    wrapper = amp(model)
    inputs, labels = torch.randn(32, 8), torch.arange(32) % 2
    losses = []
    for _ in range(60):
        with wrapper.optim_context(model):
            logits = model(inputs)
            loss = nn.functional.cross_entropy(logits.float(), labels)
        assert logits.dtype is torch.bfloat16
        wrapper.update_params(loss)
        losses.append(loss.item())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert losses[-1] < losses[0] / 2
    assert not torch.is_autocast_enabled('cpu')


@pytest.mark.parametrize('dtype', ['float32', 'half', 'int8'])
def test_amp_refuses_other_types(dtype):
    with pytest.raises(ValueError, match=f"must be 'bfloat16' or 'float16', not '{dtype}'"):
        amp(nn.Linear(2, 2), dtype=dtype)


def test_amp_refuses_float16_on_cpu():
    with pytest.raises(ValueError, match="needs a GPU; on CPU use dtype='bfloat16'"):
        amp(nn.Linear(2, 2), dtype='float16')


@pytest.fixture
def scaled():
    """A float16 wrapper as on a GPU: on CPU its scaler is exchanged."""
    model = nn.Linear(2, 1, bias=False)
    nn.init.constant_(model.weight, 0.5)
    wrapper = amp(model)
    wrapper.scaler = torch.amp.GradScaler('cpu', init_scale=2.0**10)
    return model, wrapper


def test_scaled_gradients_move_the_weights_as_unscaled_ones(scaled):
    model, wrapper = scaled
    wrapper.update_params(model(torch.tensor([[1.0, 2.0]])).sum())
    torch.testing.assert_close(model.weight.detach(), torch.tensor([[0.0, -0.5]]))
    assert model.weight.grad is None


def test_scaled_gradients_are_clipped_at_their_true_size(scaled):
    model, wrapper = scaled
    wrapper.clip_grad_kwargs = dict(max_norm=0.5)
    wrapper.clip_func, wrapper.grad_name = nn.utils.clip_grad_norm_, 'grad_norm'
    wrapper.update_params(model(torch.tensor([[3.0, 4.0]])).sum())
    # (3, 4) has norm 5 and becomes (0.3, 0.4); the rate is 0.5.
    torch.testing.assert_close(
        model.weight.detach(), torch.tensor([[0.35, 0.3]]), rtol=0, atol=1e-6
    )


def test_an_overflow_leaves_the_step_out_and_halves_the_scale(scaled):
    model, wrapper = scaled
    wrapper.update_params(model(torch.tensor([[float('inf'), 1.0]])).sum())
    assert model.weight.tolist() == [[0.5, 0.5]]
    assert wrapper.scaler.get_scale() == 2.0**9
    state = wrapper.state_dict()
    other = amp(nn.Linear(2, 1, bias=False))
    other.scaler = torch.amp.GradScaler('cpu')
    other.load_state_dict(state)
    assert other.scaler.get_scale() == 2.0**9
    # Nor does a run in bfloat16, which scales nothing, trip over it.
    amp(nn.Linear(2, 1, bias=False)).load_state_dict(state)
    assert 'loss_scaler' in state


# Accumulation and fused Adam ----------------------------------------------------------------------


def test_accumulation_is_the_larger_batch(make_config):
    """Two batches of 6 move the weights as one of 12: frozen BN, no dropout, the same faces."""
    # Adam divides by the gradient's size; SGD shows a wrong one.
    options = {
        'optim_wrapper.optimizer': dict(_delete_=True, type='SGD', lr=1e-3),
        'optim_wrapper.paramwise_cfg.rates': dict.fromkeys(RATES, 1e-3),
    }
    small = make_config({**options, 'optim_wrapper.accumulative_counts': 2})
    large = make_config({**options, 'train_dataloader.batch_size': 12})
    one, losses = train(small)
    other, expected = train(large)
    pairs = [sum(losses[i : i + 2]) / 2 for i in range(0, 8, 2)]
    assert pairs == pytest.approx(expected, rel=1e-4)
    moved = 0
    for (name, value), wanted in zip(
        one.model.named_parameters(), other.model.parameters(), strict=True
    ):
        torch.testing.assert_close(value, wanted, rtol=1e-3, atol=1e-6, msg=name)
        moved += 1
    assert moved > 20


def test_fused_adam_is_adam(make_config):
    one, _ = train(make_config())
    other, _ = train(make_config({'optim_wrapper.optimizer.fused': True}))
    assert other.optim_wrapper.optimizer.defaults['fused'] is True
    assert [group['lr'] for group in other.optim_wrapper.optimizer.param_groups] == [
        group['lr'] for group in one.optim_wrapper.optimizer.param_groups
    ]
    for name, value in one.model.state_dict().items():
        torch.testing.assert_close(other.model.state_dict()[name], value, rtol=1e-3, atol=2e-5)


# Compilation --------------------------------------------------------------------------------------


def test_entry_compile_becomes_a_hook():
    config = Config(dict(compile=dict(backend='aot_eager'), custom_hooks=None))
    name_compile_hook(config)
    assert config.custom_hooks == [dict(type='CompileHook', backend='aot_eager')]
    # mmengine would compile train_step if it saw the entry.
    assert 'compile' not in config
    config = Config(dict(compile=True, custom_hooks=[dict(type='UICenterHook')]))
    name_compile_hook(config)
    assert config.custom_hooks == [dict(type='UICenterHook'), dict(type='CompileHook')]
    for options in ({}, dict(compile=False), dict(compile=None)):
        config = Config(options)
        name_compile_hook(config)
        assert config.get('custom_hooks') is None


@pytest.mark.slow
def test_the_backbone_really_is_compiled(make_config):
    """One graph without a break sees the training batches."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    config = make_config({'train_cfg.max_epochs': 1, 'custom_hooks': []})
    runner = build_trainer(config)
    runner.register_hook(CompileHook(backend=backend, fullgraph=True))
    runner.train()
    assert len(graphs) == 1
    assert sum('conv2d' in str(node.target) for node in graphs[0].graph.nodes) > 5


INDUCTOR = pytest.mark.skipif(not shutil.which('g++'), reason='inductor needs a compiler')


@pytest.mark.slow
@pytest.mark.parametrize(
    ('backend', 'with_cp'),
    [('aot_eager', False), ('aot_eager', True), pytest.param('inductor', False, marks=INDUCTOR)],
)
def test_compiled_backbone_has_the_same_gradients(backend, with_cp, tiny_backbone):
    """Also those that it recomputes, and the same statistics of BN."""
    plain = MODELS.build(dict(tiny_backbone, with_cp=with_cp, stages=ONE_BLOCK)).train()
    compiled = copy.deepcopy(plain)
    compiled.compile(backend=backend)
    faces = torch.randn(4, 3, 32, 32)
    for backbone in (plain, compiled):
        backbone(faces)[1].sin().sum().backward()
    found, expected = dict(compiled.named_parameters()), dict(plain.named_parameters())
    assert found.keys() == expected.keys()
    largest = max(parameter.grad.abs().max() for parameter in expected.values()).item()
    for name, parameter in expected.items():
        torch.testing.assert_close(
            found[name].grad, parameter.grad, rtol=1e-3, atol=1e-4 * largest, msg=name
        )
    for name, buffer in plain.named_buffers():
        torch.testing.assert_close(dict(compiled.named_buffers())[name], buffer, msg=name)


# Averaged weights ---------------------------------------------------------------------------------


@HOOKS.register_module()
class WeightsKeeperHook(Hook):
    """Keeps the weights of every iteration, behind the optimizer."""

    priority = 'VERY_HIGH'

    def before_train(self, runner):
        self.weights, self.buffers = [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.weights.append({k: v.detach().clone() for k, v in runner.model.named_parameters()})
        self.buffers.append({k: v.clone() for k, v in runner.model.named_buffers()})


def keeper(runner):
    return next(hook for hook in runner.hooks if isinstance(hook, WeightsKeeperHook))


FIT = dict(
    type='RegressionFitHook',
    dataloader=loader(PEOPLE),
    degraded_dataloader=loader(PEOPLE),
    copies=1,
)
UI = dict(type='UICenterHook', dataloader=loader(UNKNOWN), diversion_begin=0)


def averaged(kept, momentum):
    """The average in float64, by its definition."""
    average = {name: value.double() for name, value in kept[0].items()}
    for weights in kept[1:]:
        for name, value in weights.items():
            average[name] = (1 - momentum) * average[name] + momentum * value.double()
    return average


def test_ema_saves_the_average_and_what_was_measured(make_config):
    config = make_config(dict(custom_hooks=[UI, dict(type='WeightsKeeperHook'), EMA]))
    runner, _ = train(config)
    kept = keeper(runner)
    checkpoint = saved(config, 1)
    for name, value in averaged(kept.weights[:4], 0.1).items():
        found = checkpoint['state_dict'][name]
        torch.testing.assert_close(found.double(), value, rtol=1e-5, atol=1e-6, msg=name)
        raw = checkpoint['ema_state_dict'][f'module.{name}']
        assert torch.equal(raw, kept.weights[3][name])
    for name in ('ui_center', 'ui_mean', 'ui_std'):
        assert checkpoint['state_dict'][name].isfinite().all()
        assert torch.equal(checkpoint['state_dict'][name], kept.buffers[3][name])
    # After the last epoch the average is the model.
    for name, value in averaged(kept.weights, 0.1).items():
        torch.testing.assert_close(
            runner.model.state_dict()[name].double(), value, rtol=1e-5, atol=1e-6, msg=name
        )
    moved = (kept.weights[-1]['head.weight'] - kept.weights[0]['head.weight']).norm()
    assert moved > 0.01


@HOOKS.register_module()
class BufferSettingHook(Hook):
    """Sets a buffer behind the last iteration of an epoch, as SyncBuffersHook does."""

    def after_train_epoch(self, runner):
        runner.model.ui_std.fill_(7.0 + runner.epoch)


def test_ema_saves_the_buffers_that_are_validated(make_config):
    config = make_config(dict(custom_hooks=[UI, dict(type='BufferSettingHook'), EMA]))
    config.train_cfg.max_epochs = 2
    train(config)
    assert saved(config, 1)['state_dict']['ui_std'] == 7.0


def test_ema_takes_over_a_read_out_that_was_fitted(make_config):
    """Not a mixture of it and what was there before, with the scale of one of the two."""
    hooks = [UI, dict(FIT, before_epochs=[1]), dict(type='WeightsKeeperHook'), EMA]
    config = make_config({'custom_hooks': hooks, 'model.regression.zero_init': False})
    # A regression that does not learn shows the fitted read-out alone.
    config.optim_wrapper.paramwise_cfg.rates.regression = 0.0
    config.train_cfg.max_epochs = 3
    runner, _ = train(config)
    kept, name = keeper(runner), 'regression.layers.0.weight'
    second = saved(config, 2)['state_dict']
    assert not torch.allclose(kept.weights[3][name], kept.weights[4][name], atol=1e-3)
    torch.testing.assert_close(second[name], kept.weights[7][name])
    assert torch.equal(second['regression.scale'], kept.buffers[7]['regression.scale'])
    # Fitted after the last iteration: to the averaged network, and it is in the checkpoint.
    last = saved(config, 3)['state_dict']
    model = runner.model
    assert not torch.allclose(last[name], kept.weights[11][name], atol=1e-4)
    assert not same_state(last, model.state_dict())
    again = HOOKS.build(dict(FIT))
    again.fit(runner)
    torch.testing.assert_close(model.state_dict()[name], last[name])


def test_ema_refuses_averaged_buffers():
    with pytest.raises(ValueError, match='would average the UI center with zeros'):
        HOOKS.build(dict(type='FaceEMAHook', update_buffers=True))


# Logged values ------------------------------------------------------------------------------------


def scalars(config):
    """All lines that were written."""
    (file,) = (
        path
        for path in Path(config.work_dir).glob('*/vis_data/*.json')
        if path.stem not in ('config', 'scalars')
    )
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    # Seconds differ from run to run; that they are there, and where, does not.
    return [{k: None if 'time' in k else v for k, v in line.items()} for line in lines]


@pytest.mark.parametrize('interval', [3, 5])
@pytest.mark.parametrize('by_epoch', [True, False])
def test_buffered_values_are_those_of_the_stock_hook(make_config, interval, by_epoch):
    written, hubs = [], []
    for hook in ('RuntimeInfoHook', 'BufferedRuntimeInfoHook'):
        options = {
            'default_hooks.runtime_info': dict(type=hook),
            'default_hooks.logger.interval': interval,
            'log_processor.window_size': 3,
        }
        if not by_epoch:
            options['train_cfg'] = dict(
                _delete_=True, type='IterBasedTrainLoop', max_iters=8, val_interval=99
            )
            options['default_hooks.checkpoint'] = dict(by_epoch=False, interval=5)
            options['log_processor.by_epoch'] = False
        config = make_config(options)
        runner, _ = train(config)
        written.append(scalars(config))
        file = 'epoch_2' if by_epoch else 'iter_5'
        checkpoint = load_checkpoint_file(f'{config.work_dir}/{file}.pth')
        history = checkpoint['message_hub']['log_scalars']
        hubs.append({k: v.data[0].tolist() for k, v in history.items() if 'time' not in k})
        total = len(runner.message_hub.get_scalar('train/xi').data[0])
        assert total == 8
    stock, buffered = written
    assert len(stock) >= 2
    assert 'loss_regression' in stock[0]
    assert buffered == stock
    assert [list(line) for line in buffered] == [list(line) for line in stock]
    assert len(hubs[0]['train/loss']) == (8 if by_epoch else 5)
    assert hubs[1] == hubs[0]


def test_buffered_values_are_copies(make_runner):
    """A buffer that is logged goes on changing before its value is fetched."""
    from types import SimpleNamespace

    hook = HOOKS.build(dict(type='BufferedRuntimeInfoHook'))
    seen = []
    hub = SimpleNamespace(
        log_scalars={'train/t': None, 'train/count': None, 'train/lr': None},
        update_scalar=lambda name, value: seen.append((name, value)),
    )
    runner = make_runner(None, message_hub=hub, train_dataloader=[0] * 100)
    hook.intervals = [3]
    t = torch.zeros(1)
    for index in range(3):
        assert not seen
        t += 1
        count = torch.tensor(index)
        hook.after_train_iter(runner, index, outputs=dict(t=t, count=count, lr=0.5))
    expected = [
        (f'train/{name}', value)
        for index in range(3)
        for name, value in (('t', index + 1.0), ('count', index), ('lr', 0.5))
    ]
    assert seen == expected
    assert [type(value) for _, value in seen[:3]] == [float, int, float]
