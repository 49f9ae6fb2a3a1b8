"""Embeddings of others, and those of ``mmvlr embed``, get the records of a test set by name."""

from types import SimpleNamespace

import numpy as np
import pytest

from mmvlr.evaluation.tables import load_faces, match_names
from mmvlr.structures import NO_IDENTITY, FaceTable

WANTED = ['Gallery/1.jpg', 'Probe/1.jpg', 'Probe/2.jpg']


@pytest.mark.parametrize(
    'given',
    [
        WANTED,
        [f'data/set/{name}' for name in WANTED],
        ['1.jpg', 'Probe/1.jpg', '2.jpg'],
        ['other/9.jpg', *(f'x/{name}' for name in reversed(WANTED))],
    ],
)
def test_names_are_matched_by_their_end(given):
    rows = match_names(given, WANTED, 'a.npz', 'data/set')
    for row, name in zip(rows, WANTED, strict=True):
        assert name.endswith(given[row]) or given[row].endswith(name)
    assert len(set(rows.tolist())) == 3


@pytest.mark.parametrize(
    ('given', 'told'),
    [
        (WANTED[:2], 'no embedding of 1 of 3 images, such as Probe/2.jpg'),
        ([*WANTED, WANTED[0]], 'the name Gallery/1.jpg stands twice'),
        (['1.jpg', '2.jpg'], '1.jpg stands for several images'),
        ([*(f'a/{n}' for n in WANTED), 'b/Probe/1.jpg'], 'both end in Probe/1.jpg'),
    ],
)
def test_names_that_say_too_little(given, told):
    with pytest.raises(ValueError, match=told):
        match_names(given, WANTED, 'a.npz', 'data/set')


def test_what_embed_writes_is_labeled_by_the_test_set(tmp_path):
    """Its faces are probes of nobody; with a test set they are that set's."""
    names = [f'data/set/{name}' for name in reversed(WANTED)]
    written = FaceTable(
        np.eye(3, dtype=np.float32),
        ['probe'] * 3,
        [NO_IDENTITY] * 3,
        dict(name=names, size=[3.0, 2.0, 1.0]),
        meta=dict(fingerprint=dict(weights='ab')),
    )
    path = written.save(tmp_path / 'faces.npz')
    infos = [
        dict(img_path=f'root/set/{name}', role=name.split('/')[0].lower(), identity=number)
        for number, name in enumerate(WANTED)
    ]
    dataset = SimpleNamespace(infos=lambda: infos, data_root='root/set', metainfo={})
    faces = load_faces(path, dataset)
    assert faces.role.tolist() == ['gallery', 'probe', 'probe']
    assert faces.identity.tolist() == [0, 1, 2]
    assert faces.columns['size'].tolist() == [1, 2, 3]
    assert faces.embedding.argmax(axis=1).tolist() == [2, 1, 0]
    assert faces.fingerprint == dict(weights='ab')
    # Without a test set it is what it is.
    assert (load_faces(path).identity == NO_IDENTITY).all()
