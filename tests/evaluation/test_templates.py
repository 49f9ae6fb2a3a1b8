"""Template rules against the same written out image by image in float64."""

import itertools
import math

import numpy as np
import pytest

from mmvlr.evaluation import templates as module
from mmvlr.evaluation.templates import template_config
from mmvlr.identification import (
    BestTemplate,
    ImageTemplates,
    MeanTemplate,
    MediaTemplate,
    NormWeightedTemplate,
    RIWeightedTemplate,
)
from mmvlr.registry import TEMPLATES
from mmvlr.utils.vectors import unit_rows


def slow_mean(embeddings, weights):
    """Weighted mean of unit vectors, scaled to one, in plain loops."""
    dims = len(embeddings[0])
    total = [0.0] * dims
    for vector, weight in zip(embeddings, weights, strict=True):
        length = math.sqrt(sum(float(x) ** 2 for x in vector))
        for d in range(dims):
            total[d] += weight * float(vector[d]) / length
    length = math.sqrt(sum(x * x for x in total))
    return [x / length for x in total]


def slow_weights(rule, qualities, n):
    if isinstance(rule, NormWeightedTemplate):
        return [float(q) for q in qualities['norm']]
    if isinstance(rule, RIWeightedTemplate):
        return [float(q) ** (1 / rule.temperature) for q in qualities['ri']]
    if isinstance(rule, BestTemplate):
        (name,) = rule.needs
        ranked = sorted(range(n), key=lambda i: (-float(qualities[name][i]), i))
        return [1.0 if i in ranked[: rule.k] else 0.0 for i in range(n)]
    if isinstance(rule, MediaTemplate):
        media = [float(medium) for medium in qualities['medium']]
        return [1 / media.count(medium) for medium in media]
    return [1.0] * n


RULES = [
    MeanTemplate(),
    NormWeightedTemplate(),
    RIWeightedTemplate(),
    RIWeightedTemplate(temperature=0.3),
    BestTemplate(k=1),
    BestTemplate(k=2),
    BestTemplate(k=3, quality='size'),
    MediaTemplate(),
]


def images(rng, n, dims=7):
    embeddings = rng.standard_normal((n, dims)) * rng.uniform(1, 80, (n, 1))
    qualities = dict(
        ri=rng.lognormal(-0.2, 0.6, n), norm=rng.uniform(1, 80, n), size=rng.integers(8, 12, n)
    )
    qualities['medium'] = rng.integers(0, 3, n)
    return embeddings.astype(np.float32), qualities


@pytest.mark.parametrize('rule', RULES, ids=lambda rule: f'{rule.name}{vars(rule) or ""}')
def test_rule_equals_the_slow_one(rule):
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 9):
        embeddings, qualities = images(rng, n)
        found = rule(embeddings, qualities)
        assert found.dtype == np.float32
        expected = slow_mean(embeddings, slow_weights(rule, qualities, n))
        np.testing.assert_allclose(found, [expected], atol=1e-6)


@pytest.mark.parametrize('rule', [*RULES, ImageTemplates()], ids=lambda rule: rule.name)
def test_many_people_at_once_as_one_by_one(rule, monkeypatch):
    # Blocks that end within, at and beyond a person.
    monkeypatch.setattr(module, '_BLOCK', 5)
    rng = np.random.default_rng(1)
    counts = [1, 4, 12, 1, 1, 3, 2, 1]
    starts = np.concatenate([[0], np.cumsum(counts)])
    embeddings, qualities = images(rng, starts[-1])
    qualities = {name: values.astype(np.float32) for name, values in qualities.items()}
    templates, owner = rule.many(unit_rows(embeddings), starts, qualities)
    one_by_one = [
        rule(embeddings[a:b], {name: values[a:b] for name, values in qualities.items()})
        for a, b in itertools.pairwise(starts)
    ]
    np.testing.assert_array_equal(templates, np.concatenate(one_by_one))
    assert owner.tolist() == [i for i, part in enumerate(one_by_one) for _ in part]


def test_one_image_a_person_copies_nothing():
    unit = unit_rows(np.random.default_rng(2).standard_normal((6, 4)))
    for rule in (MeanTemplate(), ImageTemplates()):
        assert rule.many(unit, np.arange(7), {})[0] is unit


def test_ri_weights_do_not_depend_on_the_unit_of_ri():
    embeddings, qualities = images(np.random.default_rng(3), 5)
    one = RIWeightedTemplate()(embeddings, qualities)
    # As before, when RI was a logarithm x and the weight e^(x / T).
    logarithm = np.log(qualities['ri'])
    expected = slow_mean(embeddings, [math.exp(x / 2) for x in logarithm])
    np.testing.assert_allclose(one, [expected], atol=1e-6)
    for factor in (1e-3, 1e3):
        moved = RIWeightedTemplate()(embeddings, dict(ri=qualities['ri'] * factor))
        np.testing.assert_allclose(one, moved, atol=1e-6)
    # So low a temperature would overflow without care.
    best = RIWeightedTemplate(temperature=1e-4)(embeddings, dict(ri=qualities['ri'] * 8000))
    np.testing.assert_allclose(best, BestTemplate(k=1)(embeddings, qualities), atol=1e-6)
    # A read-out of xi itself can be negative: the image counts as good as nothing.
    ri = np.array([0.5, -0.1, 0.0, 0.4, 0.2])
    found = RIWeightedTemplate()(embeddings, dict(ri=ri))
    kept = RIWeightedTemplate()(embeddings[ri > 0], dict(ri=ri[ri > 0]))
    np.testing.assert_allclose(found, kept, atol=1e-6)
    alike = RIWeightedTemplate()(embeddings, dict(ri=-np.abs(ri)))
    np.testing.assert_allclose(alike, MeanTemplate()(embeddings), atol=1e-6)


@pytest.mark.parametrize(
    ('rule', 'qualities', 'message'),
    [
        (NormWeightedTemplate(), {}, "needs the quality 'norm' of every image; given: none"),
        (RIWeightedTemplate(), dict(norm=[1, 2]), "needs the quality 'ri' .* given: norm"),
        (BestTemplate(quality='size'), dict(ri=[1, 2]), "needs the quality 'size'"),
        (RIWeightedTemplate(), dict(ri=[0.1, math.nan]), 'image 2 has none'),
        (MeanTemplate(), dict(ri=[0.1]), "'ri' must be one number for each of the 2 images"),
        (NormWeightedTemplate(), dict(norm=[1, 0]), 'must be above 0'),
    ],
)
def test_bad_qualities_are_named(rule, qualities, message):
    with pytest.raises(ValueError, match=message):
        rule([[1.0, 0.0], [0.0, 1.0]], qualities)


@pytest.mark.parametrize(
    ('embeddings', 'message'),
    [
        ([[1.0, 0.0], [0.0, 0.0]], 'embedding 1 is zero'),
        ([[1.0, math.nan]], 'embedding 0 holds NaN or infinity'),
        ([[1.0, math.inf], [0.0, 1.0], [math.nan, 0]], r'embedding 0 \(and 1 more like it\)'),
        ([1.0, 0.0], r'must be real numbers \(n, D\)'),
        (np.empty((0, 2)), 'at least one image'),
        ([[1.0, 0.0], [-1.0, 0.0]], 'person number 0 cancel out'),
    ],
)
def test_bad_embeddings_are_refused(embeddings, message):
    with pytest.raises(ValueError, match=message):
        MeanTemplate()(embeddings)


def test_huge_and_tiny_embeddings_have_a_direction():
    for scale in (1e-18, 1e18):
        np.testing.assert_allclose(MeanTemplate()([[3 * scale, 4 * scale]]), [[0.6, 0.8]], 1e-6)


def test_rules_by_name():
    assert template_config('best') == dict(type='BestTemplate')
    assert template_config('BestTemplate') == dict(type='BestTemplate')
    rule = TEMPLATES.build(template_config(dict(type='BestTemplate', k=4, quality='norm')))
    assert (rule.k, rule.needs) == (4, ('norm',))
    with pytest.raises(ValueError, match=r"no template rule 'median'; there are .*best.*mean"):
        template_config('median')
    for bad in (dict(type='BestTemplate', k=0), dict(type='RIWeightedTemplate', temperature=0)):
        with pytest.raises(ValueError, match='must be'):
            TEMPLATES.build(bad)
