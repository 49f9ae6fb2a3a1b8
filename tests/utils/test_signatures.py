"""The arguments that sources state are those that Python sees."""

import inspect

import pytest

from mmvlr import registry
from mmvlr.utils.config_keys import KNOWN_KEYS, check_arguments
from mmvlr.utils.config_outline import read_outline
from mmvlr.utils.shipped import find_config, list_configs
from mmvlr.utils.signatures import find_arguments


def accepted(part):
    """Arguments of a class: those of the next base too where it takes any keywords."""
    names = set()
    for base in part.__mro__[:-1]:
        if '__init__' not in vars(base):
            continue
        given = inspect.signature(base.__init__).parameters.values()
        names |= {p.name for p in given if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind == p.VAR_KEYWORD for p in given):
            break
    return names - {'self'}


def test_arguments_of_all_registered_classes():
    parts = {}
    for name in ('MODELS', 'HOOKS', 'TRANSFORMS', 'DATASETS', 'METRICS', 'QUALITIES', 'TEMPLATES'):
        found = getattr(registry, name)
        found.import_from_location()
        parts |= {k: v for k, v in found.module_dict.items() if v.__module__.startswith('mmvlr.')}
    known = {name: find_arguments(name) for name in parts}
    extra = find_arguments('ResizeFace') - accepted(parts['ResizeFace'])
    for name, arguments in known.items():
        assert arguments is None or arguments - extra == accepted(parts[name]) - extra, name
    assert sum(arguments is not None for arguments in known.values()) > len(known) / 2
    for name in ('RIFace', 'RecognitionModule', 'ArcFaceLoss', 'ClosedSetMetric'):
        assert known[name] is not None
    # What it does with its keywords is its own affair.
    assert known['MobileFaceNet'] is None


def test_nothing_is_found_in_the_configs_that_are_shipped():
    for name in list_configs():
        outline = read_outline(find_config(name), []) or {}
        check_arguments({key: outline[key] for key in outline.keys() & KNOWN_KEYS}, name)


@pytest.mark.parametrize('key', ['typo', 'embed_dim'])
def test_what_a_class_does_not_take_is_an_error(key):
    part = dict(
        model=[dict(type='Own', typo=1), dict(type='mmvlr.IResNet', embed_dims=2, **{key: 1})]
    )
    with pytest.raises(ValueError, match=f'a.py: mmvlr.IResNet has no .{key}'):
        check_arguments(part, 'a.py')
