"""A gallery of made-up people, for the tests of what is in memory and of what is on disk."""

import numpy as np

from mmvlr.identification import Gallery

DIMS = 8
IDENTITY = dict(
    weights='0123abcd' * 8,
    preprocessing=dict(size=[112, 112], mean=127.5, std=128.0, color_order='RGB'),
    embedding=dict(dims=DIMS, flip_fusion='none', inference_embedding='backbone'),
)
# An accent, right to left, an emoji of several characters, half a surrogate pair.
NAMES = ['Zoë', "O'Hara", 'אבג', '王', '👩\u200d🚒', ' a  b', 'q"\\', '\ud83d', 'Ann', 'ann']


def faces(rng, n):
    embeddings = (rng.standard_normal((n, DIMS)) * 30).astype(np.float32)
    return embeddings, dict(ri=rng.normal(0, 0.5, n), norm=rng.uniform(20, 80, n))


def make_gallery(rng):
    made = Gallery(IDENTITY)
    for index, name in enumerate(NAMES):
        n = 1 + index % 3
        made.enroll(name, *faces(rng, n), names=[f'{name}_{i}.png' for i in range(n)])
    return made


def same(one, other, rng):
    """Whether two galleries hold the same images and answer the same."""
    assert one.people == other.people
    assert one.template == other.template
    for person in one.people:
        first, second = one.images(person), other.images(person)
        assert first[0] == second[0]
        np.testing.assert_array_equal(first[1], second[1])
        assert first[2].keys() == second[2].keys()
        for name in first[2]:
            np.testing.assert_array_equal(first[2][name], second[2][name])
    probes = rng.standard_normal((5, DIMS))
    for name in ('person', 'similarity'):
        first, second = (getattr(g.search(probes, k=4), name) for g in (one, other))
        np.testing.assert_array_equal(first, second)
