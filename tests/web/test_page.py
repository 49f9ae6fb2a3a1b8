"""What the page says, and that the page itself can be built and asked."""

import copy
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mmvlr.apis import FaceInferencer
from mmvlr.identification import Gallery, SearchedFaces, calibrate
from mmvlr.web import FacePage, build_page, serve
from mmvlr.web.page import name_person

from ..people import model_file, people_folders


@pytest.fixture(scope='module')
def inferencer(tmp_path_factory):
    return FaceInferencer(model_file(tmp_path_factory.mktemp('model') / 'a.pth'), 'cpu')


@pytest.fixture(scope='module')
def faces(tmp_path_factory):
    root = tmp_path_factory.mktemp('people')
    people_folders(root, range(6), 3)
    return root


@pytest.fixture(scope='module')
def gallery(inferencer, faces):
    gallery = Gallery(inferencer.fingerprint, template='images')
    for number in range(4):
        results = inferencer.embed([faces / f'Zoë {number}' / f'{k}.png' for k in (0, 1)])
        gallery.enroll(f'Zoë <{number}>', results.embedding, results.qualities)
    return gallery


def decision_of(inferencer, fpir, level=None):
    """A decision on made-up faces: 40 strangers of similarities 0 to 0.39, 20 known people."""
    similarity = np.r_[np.arange(40) / 100, np.full(20, 0.9)]
    mated = np.arange(60) >= 40
    ri = np.r_[np.linspace(-1, 1, 40), np.linspace(-1, 1, 20)]
    # Poor known faces are not found.
    correct = mated & (ri > 0)
    faces = SearchedFaces(similarity, mated, correct, np.arange(60), dict(ri=ri))
    how = dict(abstain_by='ri', target_error=level) if level else {}
    return calibrate(faces, inferencer.fingerprint, fpir, **how)


def still(faces, number, k):
    return np.asarray(Image.open(faces / f'Zoë {number}' / f'{k}.png'))


def test_compare_without_calibration_gives_no_verdict(inferencer, faces):
    first, second = still(faces, 0, 0), still(faces, 0, 1)
    told, *maps = FacePage(inferencer).compare(first, second)
    paths = [faces / 'Zoë 0' / f'{k}.png' for k in (0, 1)]
    assert f'Similarity {inferencer.verify(*paths).similarity:.3f}' in told
    assert 'no verdict' in told
    assert told.count('RI') == 2
    assert all(max(image.shape) == 224 for image in maps)
    # The attention is colored: the face alone would be its enlarged pixels.
    assert not np.array_equal(maps[0][::7, ::7][:32, :32], first)


@pytest.mark.parametrize('place', [(0, 3), (3, 3)])
def test_colors_at_the_border_are_called_meaningless(inferencer, faces, monkeypatch, place):
    peaked = np.full((7, 7), 0.1)
    peaked[place] = 1
    monkeypatch.setattr(type(inferencer), 'attention', lambda *args: [peaked] * len(args[1]))
    pair = still(faces, 0, 0), still(faces, 0, 1)
    told, *maps = FacePage(inferencer).compare(*pair)
    assert ('at the border' in told) == (place == (0, 3)) and len(maps) == 2


def test_compare_waits_for_both(inferencer, faces):
    assert FacePage(inferencer).compare(still(faces, 0, 0), None) == (
        'Drop two faces.',
        None,
        None,
    )


@pytest.mark.parametrize(('level', 'poor'), [(10.0, 'first and second'), (-10.0, None)])
def test_compare_says_too_poor(inferencer, faces, level, poor):
    decision = decision_of(inferencer, 0.1, 0.2)
    decision = replace(decision, level=replace(decision.level, level=level))
    told, *_ = FacePage(inferencer, decision=decision).compare(
        still(faces, 0, 0), still(faces, 0, 1)
    )
    assert ('Too poor to tell' in told) == (poor is not None)
    assert poor is None or f'RI of the {poor} face' in told
    assert told.count('of the calibration<') == 2
    # One quality decides; the others stand aside.
    first, others = told.split('<details')
    assert first.count('<td>RI</td>') == 2
    assert 'RI' not in others
    assert others.count('<td>size</td>') == 2


@pytest.mark.parametrize(
    ('fpir', 'other', 'verdict'),
    [(0.1, 0, 'Probably the same'), (0.1, 1, 'Not alike enough'), (None, 0, 'Similarity 1.000')],
)
def test_compare_has_one_verdict_line(inferencer, faces, fpir, other, verdict):
    decision = fpir and decision_of(inferencer, fpir)
    if decision and other:
        (threshold,) = decision.thresholds.thresholds
        strict = replace(threshold, threshold=1.5)
        decision = replace(decision, thresholds=replace(decision.thresholds, thresholds=(strict,)))
    told, *_ = FacePage(inferencer, decision=decision).compare(
        still(faces, 0, 0), still(faces, other, 0)
    )
    (line,) = re.findall('<p class="face-verdict">(.*?)</p>', told)
    assert line.startswith(verdict)


def test_images_are_read_as_everywhere(inferencer, tmp_path, monkeypatch):
    """Not as the page's library would: 16-bit gray is no white image."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    levels = np.arange(24 * 24, dtype=np.uint16).reshape(24, 24) * 100
    Image.fromarray(levels).save(tmp_path / 'deep.png')
    told, *_ = FacePage(inferencer).compare(tmp_path / 'deep.png', tmp_path / 'deep.png')
    expected = inferencer.embed(tmp_path / 'deep.png').qualities['ri'][0]
    assert f'<td>{expected:.3g}</td>' in told
    page = build_page(FacePage(inferencer))
    images = [block for block in page.blocks.values() if type(block).__name__ == 'Image']
    inputs = [image for image in images if image.interactive is not False]
    assert len(inputs) == 3
    assert {(block.type, block.image_mode) for block in inputs} == {('filepath', None)}


def test_identify_gives_the_verdict_and_escapes_names(inferencer, faces, gallery):
    page = FacePage(inferencer, gallery, decision_of(inferencer, 0.1))
    told, image = page.identify(still(faces, 2, 0))
    assert 'Probably Zoë &lt;2&gt;' in told
    assert 'above 0.3' in told
    assert 'Zoë <' not in told
    assert max(image.shape) == 224
    decision = decision_of(inferencer, 0.1)
    (threshold,) = decision.thresholds.thresholds
    strict = replace(decision.thresholds, thresholds=(replace(threshold, threshold=1.5),))
    page = FacePage(inferencer, gallery, replace(decision, thresholds=strict))
    assert 'Nobody of the gallery' in page.identify(still(faces, 2, 0))[0]


def test_identify_while_people_are_removed(inferencer, faces, gallery, monkeypatch):
    own, search = copy.copy(gallery), Gallery.search

    def search_and_remove(self, *args, **options):
        found = search(self, *args, **options)
        own.remove(found.person[0, 0])
        return found

    monkeypatch.setattr(Gallery, 'search', search_and_remove)
    told, _ = FacePage(inferencer, own).identify(still(faces, 2, 0))
    assert 'Most similar: Zoë &lt;2&gt;' in told
    assert 'Zoë <2>' not in own
    assert 'Zoë <2>' in gallery


def test_identify_among_dropped_images(inferencer, faces, tmp_path):
    paths = []
    for number in (0, 1):
        path = tmp_path / f'Zoë {"AB"[number]}_1.png'
        Image.fromarray(still(faces, number, 0)).save(path)
        paths.append(str(path))
    page = FacePage(inferencer, decision=decision_of(inferencer, 0.1))
    told, _ = page.identify(still(faces, 1, 0), paths)
    assert 'Most similar: Zoë B, 1.000' in told
    assert 'another gallery' in told
    told, image = page.identify(still(faces, 1, 0))
    assert 'Drop a face' in told
    assert image is None


@pytest.mark.parametrize(
    ('name', 'person'),
    [('Ann.jpg', 'Ann'), ('x/Ann_12.png', 'Ann'), ('Ann Lee-3.png', 'Ann Lee'), ('A7.png', 'A7')],
)
def test_name_person(name, person):
    assert name_person(name) == person


@pytest.mark.slow
def test_served_page_answers(inferencer, gallery, faces, tmp_path, monkeypatch):
    """Through the server, as a browser asks."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    import socket
    import urllib.request

    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        port = taken.getsockname()[1]
    app, address = serve(FacePage(inferencer, gallery), port=port, block=False)
    try:
        with urllib.request.urlopen(address, timeout=30) as response:
            content = response.read().decode()
        assert response.status == 200
        assert 'fonts.googleapis' not in content
        # What it loads comes from here; examples of its programming interface are text.
        loaded = re.findall(r'<(?:script|link)[^>]+(?:src|href)="(https?://[^"]+)', content)
        assert [url for url in loaded if not url.startswith(address)] == []
        from gradio_client import Client, handle_file

        client = Client(address, verbose=False, download_files=str(tmp_path))
        told, _ = client.predict(handle_file(faces / 'Zoë 1' / '0.png'), None, api_name='/run_1')
        assert 'Most similar: Zoë &lt;1&gt;' in told
    finally:
        app.close()
