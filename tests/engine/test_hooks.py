"""Hooks against slow references, and what they refuse."""

import math
import random
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

from mmvlr.engine import (
    CheckpointGuardHook,
    CollapseGuardHook,
    EpochSeedHook,
    PrototypeInitHook,
    TrainingCollapsedError,
    UICenterHook,
)
from mmvlr.models import MobileFaceNet
from mmvlr.structures import FaceDataSample
from mmvlr.utils.checkpoint import CheckpointMismatchError
from mmvlr.utils.contract import ContractMismatchError
from mmvlr.utils.people import People, PeopleMismatchError


@torch.no_grad()
def embed(model, dataset):
    """Raw embeddings and xi_hat of a data set, one face at a time, in float64."""
    model.eval()
    rows, xi_hat = [], []
    for index in range(len(dataset)):
        face = dataset[index]['inputs']
        inputs = model.data_preprocessor(dict(inputs=[face]))['inputs']
        feature_map, embedding = model(inputs)
        rows.append(embedding[0].double())
        xi_hat.append(model.regression(feature_map, embedding)[0].double())
    return torch.stack(rows), torch.stack(xi_hat)


def unit(rows):
    return torch.stack([row / row.norm() for row in rows])


# PrototypeInitHook --------------------------------------------------------------------------------


def test_prototypes_are_class_means(make_model, make_loader, make_runner):
    config = make_loader(num_people=3, images_per_person=4)
    model = make_model()
    weight = model.head.weight
    PrototypeInitHook(config).before_train_epoch(make_runner(model))
    dataset = Runner.build_dataloader(config).dataset
    directions = unit(embed(model, dataset)[0])
    for label in range(3):
        members = [row for index, row in enumerate(directions) if index // 4 == label]
        mean = sum(members) / len(members)
        torch.testing.assert_close(
            model.head.weight[label].double(), mean / mean.norm(), rtol=1e-4, atol=1e-5
        )
    assert model.head.weight is weight
    assert weight.requires_grad


def test_prototypes_of_a_resumed_run_stay(make_model, make_loader, make_runner):
    model = make_model()
    before = model.head.weight.clone()
    hook = PrototypeInitHook(make_loader(num_people=3, images_per_person=2))
    hook.before_train_epoch(make_runner(model, iter=10, epoch=1))
    assert torch.equal(model.head.weight, before)


def test_class_without_an_image(make_model, make_loader, make_runner):
    hook = PrototypeInitHook(make_loader(num_people=2, images_per_person=2))
    with pytest.raises(ValueError, match='1 of 3 classes have no image'):
        hook.before_train_epoch(make_runner(make_model()))


# UICenterHook -------------------------------------------------------------------------------------


@pytest.fixture
def ui_loader(make_loader):
    return make_loader(type='SyntheticUIFaces', num_images=6)


@pytest.mark.parametrize('log', [False, True])
def test_ui_values(make_model, ui_loader, make_runner, log):
    """On the scale of what is regressed, also where users see another."""
    model = make_model(recognizability=dict(type='RecognizabilityIndex', log=log))
    hook = UICenterHook(ui_loader, diversion_begin=0)
    hook.before_train_epoch(make_runner(model))
    rows, xi_hat = embed(model, Runner.build_dataloader(ui_loader).dataset)
    mean = unit(rows).mean(0)
    center = mean / mean.norm()
    torch.testing.assert_close(model.ui_center.double(), center, rtol=1e-4, atol=1e-5)
    values = xi_hat.tolist()
    mu = sum(values) / 6
    sigma = math.sqrt(sum((x - mu) ** 2 for x in values) / 6)
    assert model.ui_mean.item() == pytest.approx(mu, rel=1e-4)
    assert model.ui_std.item() == pytest.approx(sigma, rel=1e-3)


def test_ui_center_weights_every_face_alike(make_model, ui_loader, make_runner):
    """The mean is one of directions: a long embedding counts no more than a short one."""
    model = make_model()
    hook = UICenterHook(ui_loader)
    hook.before_train_epoch(make_runner(model))
    rows, _ = embed(model, Runner.build_dataloader(ui_loader).dataset)
    of_raw = rows.mean(0) / rows.mean(0).norm()
    assert not torch.allclose(model.ui_center.double(), of_raw, rtol=1e-4, atol=1e-6)


def due(hook, model, make_runner, epoch):
    """Names of the buffers that the hook sets in front of an epoch; weights move in between."""
    buffers = ('ui_center', 'ui_mean', 'ui_std')
    before = {name: getattr(model, name).clone() for name in buffers}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    hook.before_train_epoch(make_runner(model, epoch=epoch))
    return {
        name
        for name in buffers
        if not torch.equal(getattr(model, name), before[name])
        and getattr(model, name).isfinite().all()
    }


CENTER, STATISTICS = {'ui_center'}, {'ui_mean', 'ui_std'}


@pytest.mark.parametrize(
    ('kwargs', 'expected'),
    [
        (dict(), [CENTER, CENTER | STATISTICS, CENTER, CENTER]),
        (
            dict(diversion_begin=0, freeze_statistics=False),
            [CENTER | STATISTICS] * 4,
        ),
        (
            dict(diversion_begin=0, freeze_statistics=False, interval=2),
            [CENTER | STATISTICS, set(), CENTER | STATISTICS, set()],
        ),
        (dict(freeze_center=True, diversion_begin=2), [CENTER, set(), STATISTICS, set()]),
    ],
)
def test_when_ui_values_are_measured(make_model, ui_loader, make_runner, kwargs, expected):
    model = make_model()
    hook = UICenterHook(ui_loader, **kwargs)
    assert [due(hook, model, make_runner, epoch) for epoch in range(4)] == expected


def test_ui_hook_of_a_model_without_regression(make_model, ui_loader, make_runner):
    model = make_model(type='FaceRecognizer')
    hook = UICenterHook(ui_loader, diversion_begin=0)
    hook.before_train_epoch(make_runner(model))
    assert model.has_ui_center


def test_ui_hook_before_a_test(make_model, ui_loader, make_runner):
    model = make_model()
    hook = UICenterHook(ui_loader)
    hook.before_test(make_runner(model))
    assert model.has_ui_center
    assert not model.has_ui_statistics
    # What a checkpoint carries is not measured again.
    center = model.ui_center.clone()
    torch.nn.init.normal_(model.backbone.stem.conv.weight)
    hook.before_test(make_runner(model))
    assert torch.equal(model.ui_center, center)


def test_without_a_ui_set(make_model, make_loader, make_runner, tmp_path, warned):
    """A model that is trained without the center does without; RI-Face cannot."""
    gone = make_loader(type='UIFaces', data_root=str(tmp_path / 'gone'))
    model = make_model(type='FaceRecognizer')
    hook = UICenterHook(gone)
    hook.before_train_epoch(make_runner(model))
    hook.before_test(make_runner(model))
    assert not model.has_ui_center
    assert warned().count('gone') == 1
    with pytest.raises(FileNotFoundError, match='gone'):
        UICenterHook(gone).before_train_epoch(make_runner(make_model()))


# EpochSeedHook ------------------------------------------------------------------------------------


def draws_of_epoch(make_runner, dataset, seed, epoch):
    loader = type('Loader', (), dict(dataset=dataset))
    EpochSeedHook().before_train_epoch(
        make_runner(None, seed=seed, epoch=epoch, train_dataloader=loader)
    )
    return random.random(), np.random.random(), torch.rand(1).item(), dataset.rng(0).random()


def test_epoch_seed(make_runner, make_loader):
    dataset = Runner.build_dataloader(make_loader(num_people=1, images_per_person=1)).dataset
    expected = draws_of_epoch(make_runner, dataset, seed=3, epoch=2)
    # Whatever ran before: another number of draws from each generator.
    random.random(), np.random.random(7), torch.rand(9)
    assert draws_of_epoch(make_runner, dataset, seed=3, epoch=2) == expected
    of_other_epoch = draws_of_epoch(make_runner, dataset, seed=3, epoch=3)
    assert all(a != b for a, b in zip(of_other_epoch, expected, strict=True))
    of_other_seed = draws_of_epoch(make_runner, dataset, seed=4, epoch=2)
    # The data set's own seed is another one.
    assert all(a != b for a, b in zip(of_other_seed[:3], expected[:3], strict=True))


def test_epoch_seed_runs_behind_the_other_hooks(make_loader):
    """Extraction in front of an epoch draws numbers; seeding must come after it."""
    from mmengine.runner import get_priority

    others = (PrototypeInitHook(make_loader()), UICenterHook(make_loader()), CollapseGuardHook())
    assert all(
        get_priority(EpochSeedHook.priority) > get_priority(hook.priority) for hook in others
    )


# CollapseGuardHook --------------------------------------------------------------------------------


def train(model, hook, make_runner, faces, steps=12):
    """Run train steps with the hook behind each, as the Runner does."""
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-3))
    model.train()
    for step in range(steps):
        data = dict(
            inputs=faces,
            data_samples=[FaceDataSample(gt_label=torch.tensor(i % 3)) for i in range(len(faces))],
        )
        outputs = model.train_step(data, wrapper)
        hook.after_train_iter(make_runner(model, iter=step), step, data, outputs)


@pytest.fixture
def faces():
    return torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)


def test_healthy_run_goes_on(make_model, make_runner, faces):
    hook = CollapseGuardHook(interval=1)
    train(make_model(), hook, make_runner, faces)
    assert hook.low == 0


def test_collapse_stops_the_run(make_model, make_runner, faces, tiny_backbone):
    # No layer with batch statistics: equal faces have equal embeddings that are not zero.
    model = make_model(backbone={**tiny_backbone, 'tail': 'conv', 'frozen_bn': True})
    same = faces[:1].expand(6, -1, -1, -1).contiguous()
    with pytest.raises(TrainingCollapsedError) as error:
        train(model, CollapseGuardHook(interval=2, patience=3), make_runner, same)
    text = str(error.value)
    assert 'the embeddings have collapsed: effective rank 1.00' in text
    assert 'below 2.0 in 3 checks in a row' in text
    # Third check, every second iteration.
    assert 'at iteration 6 of epoch 1' in text
    assert 'PrototypeInitHook' in text


def test_one_low_batch_is_no_collapse(make_runner):
    hook = CollapseGuardHook(interval=1, patience=2)
    runner = make_runner(None)
    for rank in (1.0, 5.0, 1.0, 5.0):
        hook.after_train_iter(runner, 0, None, dict(effective_rank=torch.tensor(rank)))
    hook.after_train_iter(runner, 0, None, dict(effective_rank=torch.tensor(1.0)))
    with pytest.raises(TrainingCollapsedError, match='in 2 checks'):
        hook.after_train_iter(runner, 0, None, dict(effective_rank=torch.tensor(1.0)))


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_loss_that_is_no_number_stops_the_run(make_model, make_runner, faces, value):
    model = make_model()
    torch.nn.init.constant_(model.backbone.stem.conv.weight, value)
    with pytest.raises(TrainingCollapsedError, match=r'loss\S* is nan at iteration 1 of epoch 1'):
        train(model, CollapseGuardHook(interval=1), make_runner, faces)


def test_no_checkpoint_follows_a_loss_that_is_no_number(make_runner):
    """Of 11 iterations an epoch the last one is looked at too, which a checkpoint would follow."""
    hook = CollapseGuardHook(interval=10)
    nan = dict(loss=torch.tensor(math.nan), effective_rank=torch.tensor(1.0))
    for batch in range(10):
        runner = make_runner(None, iter=10 + batch + 1, train_dataloader=range(11))
        if batch != 8:
            hook.after_train_iter(runner, batch, None, nan)
    assert hook.low == 0
    with pytest.raises(TrainingCollapsedError, match='loss is nan at iteration 22'):
        runner = make_runner(None, iter=21, train_dataloader=range(11))
        hook.after_train_iter(runner, 10, None, nan)


def test_remedies_exist(make_loader):
    """What the message advises can really be written into a config."""
    remedy = CollapseGuardHook.REMEDY
    hook, arguments = re.search(r'(UICenterHook)\((.*?)\)', remedy).groups()
    assert hook == UICenterHook.__name__
    UICenterHook(make_loader(), **eval(f'dict({arguments})'))
    from mmvlr.models import IndexDiversionLoss, RIFace

    assert {'sigma_floor', 'tau'} <= set(IndexDiversionLoss.__init__.__code__.co_varnames)
    assert 'diversion_moves_backbone' in RIFace.__init__.__code__.co_varnames


# CheckpointGuardHook ------------------------------------------------------------------------------


def saved(model, make_runner):
    checkpoint = dict(state_dict=dict(model.state_dict()), meta={})
    CheckpointGuardHook().before_save_checkpoint(make_runner(model), checkpoint)
    return checkpoint


def load(model, checkpoint, make_runner, **kwargs):
    runner = make_runner(model, **{'_load_from': 'some/file.pth', **kwargs})
    CheckpointGuardHook().after_load_checkpoint(runner, checkpoint)


def test_guard_writes_contract_and_version(make_model, make_runner):
    from mmvlr import __version__

    model = make_model()
    meta = saved(model, make_runner)['meta']
    assert meta == dict(preprocessing=model.data_preprocessor.contract, mmvlr_version=__version__)


def test_guard_lets_its_own_checkpoint_pass(make_model, make_runner, warned):
    load(make_model(), saved(make_model(), make_runner), make_runner)
    assert not warned()


def test_guard_refuses_another_contract(make_model, make_runner):
    checkpoint = saved(make_model(), make_runner)
    checkpoint['meta']['preprocessing'] = {
        **checkpoint['meta']['preprocessing'],
        'color_order': 'BGR',
    }
    with pytest.raises(
        ContractMismatchError,
        match=r"some/file\.pth .*color_order: checkpoint 'BGR', config 'RGB'",
    ):
        load(make_model(), checkpoint, make_runner)


def test_guard_warns_without_contract(make_model, make_runner, warned):
    checkpoint = dict(state_dict=make_model().state_dict())
    load(make_model(), checkpoint, make_runner)
    assert 'some/file.pth carries no preprocessing contract' in warned()


def test_guard_refuses_another_architecture(make_model, make_runner, tiny_backbone):
    checkpoint = saved(make_model(), make_runner)
    other = make_model(backbone={**tiny_backbone, 'embed_dims': 8})
    with pytest.raises(CheckpointMismatchError, match=r'some/file\.pth .*another shape'):
        load(other, checkpoint, make_runner)
    deeper = make_model(backbone={**tiny_backbone, 'stages': ((16, 8, 2, 2), (16, 16, 1, 2))})
    with pytest.raises(CheckpointMismatchError, match='weights of the model are not in it'):
        load(deeper, checkpoint, make_runner)
    del checkpoint['state_dict']['backbone.stem.conv.weight']
    with pytest.raises(CheckpointMismatchError, match=r'backbone\.stem\.conv\.weight'):
        load(make_model(), checkpoint, make_runner)


def with_people(make_runner, model, names, **kwargs):
    dataset = None if names is None else SimpleNamespace(class_names=list(names))
    loader = SimpleNamespace(dataset=dataset)
    return make_runner(model, train_dataloader=loader, _load_from='some/file.pth', **kwargs)


@pytest.mark.parametrize('head', ['RecognitionModule', 'PartialRecognitionModule'])
@pytest.mark.parametrize('type', ['RIFace', 'CRFIQA', 'FaceRecognizer'])
@pytest.mark.parametrize(
    ('there', 'here', 'same'),
    [
        ('abc', 'abc', True),
        ('abc', 'axc', False),
        ('abc', 'acb', False),
        ('abc', 'abcde', False),
        # Nobody knows who they are: the number decides.
        (None, 'abc', True),
        ('abc', None, True),
        (None, 'abcde', False),
        ('abcde', None, False),
        (None, None, True),
    ],
)
def test_guard_and_people(make_model, make_runner, messages, head, type, there, here, same):
    def build(names):
        config = dict(type=head, num_classes=len(names or 'abc'))
        loss = {'loss': dict(type='CurricularFaceLoss')} if type == 'FaceRecognizer' else {}
        return make_model(type, head={**config, **loss})

    old = build(there)
    checkpoint = dict(state_dict=dict(old.state_dict()), meta=dict(epoch=1, iter=1))
    CheckpointGuardHook().before_save_checkpoint(with_people(make_runner, old, there), checkpoint)
    assert ('people' in checkpoint['meta']) == (there is not None)
    for resume in (False, True):
        taken = dict(checkpoint, state_dict=dict(checkpoint['state_dict']))
        runner = with_people(make_runner, build(here), here, _resume=resume)
        messages.clear()
        if resume and not same:
            with pytest.raises(PeopleMismatchError) as error:
                CheckpointGuardHook().after_load_checkpoint(runner, taken)
            counts = f'{len(there or "abc")} people there, {len(here or "abc")} here'
            assert 'some/file.pth' in str(error.value)
            assert counts in str(error.value)
            continue
        CheckpointGuardHook().after_load_checkpoint(runner, taken)
        left = checkpoint['state_dict'].keys() - taken['state_dict'].keys()
        heads = {key for key in checkpoint['state_dict'] if key.startswith('head.')}
        assert left == (set() if same else heads)
        told = [text for _, text in messages if 'people' in text]
        # One line where something is left out or not known, none where all is well.
        assert len(told) == (there is None or here is None or not same)


@pytest.mark.parametrize(
    ('there', 'here', 'first'),
    [('abc', 'abd', "2: 'c' there, 'd' here"), ('ab', 'abc', "2: nobody there, 'c' here")],
)
def test_first_difference_of_people(there, here, first):
    told = People.from_names(list(there)).tell_difference(People.from_names(list(here)))
    assert told.endswith(f'class {first}')


def test_guard_takes_a_bare_pretrained_backbone(make_model, make_runner):
    state = {f'backbone.{k}': v for k, v in make_model().backbone.state_dict().items()}
    load(make_model(), dict(state_dict=state), make_runner)
    # And the names of a distributed wrapper.
    load(make_model(), {f'module.{k}': v for k, v in state.items()}, make_runner)


def test_guard_names_the_file_of_an_automatic_resume(make_model, make_runner, tmp_path):
    (tmp_path / 'last_checkpoint').write_text('runs/epoch_2.pth')
    checkpoint = saved(make_model(), make_runner)
    checkpoint['state_dict'] = {'backbone.unknown': torch.zeros(1)}
    with pytest.raises(CheckpointMismatchError, match=r'runs/epoch_2\.pth'):
        load(
            make_model(), checkpoint, make_runner, _load_from=None, _resume=True, work_dir=tmp_path
        )


def test_guard_of_a_real_backbone_size(make_runner):
    """The check is by shapes, so an insightface and a slim MobileFaceNet are told apart."""
    from mmvlr.utils.checkpoint import check_architecture

    state = {f'backbone.{k}': v for k, v in MobileFaceNet(variant='slim').state_dict().items()}

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = MobileFaceNet(variant='insightface')

    with pytest.raises(CheckpointMismatchError, match='another architecture'):
        check_architecture(Model(), dict(state_dict=state), 'x.pth')
