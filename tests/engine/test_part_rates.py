import pytest
import torch
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import nn

from mmvlr.engine import FaceAmpOptimWrapper

RATES = dict(backbone=1e-5, head=1e-3, attention=1e-2, regression=1e-4)


def build(model, rates, **kwargs):
    return build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='Adam', lr=0.5, weight_decay=1e-4),
            constructor='PartRateConstructor',
            paramwise_cfg=dict(rates=rates),
            **kwargs,
        ),
    )


def test_every_parameter_gets_the_rate_of_its_part(make_model):
    model = make_model()
    wrapper = build(model, RATES)
    assert type(wrapper) is OptimWrapper
    rate_of = {
        id(parameter): group['lr']
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(rate_of) == len(names)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert rate_of[id(parameter)] == RATES[name.split('.')[0]], name
    assert {group['weight_decay'] for group in wrapper.optimizer.param_groups} == {1e-4}
    assert isinstance(wrapper.optimizer, torch.optim.Adam)


def test_log_names_the_rates(make_model, messages):
    build(make_model(), RATES)
    assert (
        20,
        'learning rates: backbone 1e-05, head 0.001, attention 0.01, regression 0.0001',
    ) in [message for message in messages if 'rates' in message[1]]


def test_frozen_parameters_are_left_out(make_model):
    model = make_model()
    model.backbone.requires_grad_(False)
    wrapper = build(model, {**RATES, 'backbone': None})
    groups = {group['name'] for group in wrapper.optimizer.param_groups}
    assert groups == {'head', 'attention', 'regression'}


def test_part_without_rate(make_model):
    rates = {part: rate for part, rate in RATES.items() if part != 'attention'}
    with pytest.raises(ValueError, match=r"no rate for the parts \['attention'\]"):
        build(make_model(), rates)
    with pytest.raises(ValueError, match=r"no rate for the parts \['attention'\]"):
        build(make_model(), {**RATES, 'attention': None})


def test_rate_without_part(make_model):
    model = make_model(type='FaceRecognizer')
    with pytest.raises(ValueError, match=r"rates for \['attention', 'regression'\].*does not have"):
        build(model, RATES)
    # None says: known, and not there.
    wrapper = build(model, {**RATES, 'attention': None, 'regression': None})
    assert len(wrapper.optimizer.param_groups) == 2


def test_no_rates_at_all(make_model):
    with pytest.raises(ValueError, match='no rate for the parts'):
        build(make_model(), {})


def test_wrapper_type_and_its_arguments(make_model):
    wrapper = build(make_model(), RATES, type='FaceAmpOptimWrapper', clip_grad=dict(max_norm=1.0))
    assert type(wrapper) is FaceAmpOptimWrapper
    assert wrapper.clip_grad_kwargs == dict(max_norm=1.0)


def test_model_in_a_distributed_wrapper(make_model):
    class Wrapper(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    wrapper = build(Wrapper(make_model()), RATES)
    assert {group['name'] for group in wrapper.optimizer.param_groups} == set(RATES)
