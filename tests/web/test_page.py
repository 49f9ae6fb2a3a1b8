"""What the page says, and that the page itself can be built and asked."""

import base64
import copy
import io
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmvlr.apis import FaceInferencer
from mmvlr.identification import Gallery, Identifier, SearchedFaces, calibrate
from mmvlr.web import FacePage, build_page, serve
from mmvlr.web.page import find_enrolled, name_person

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


def addresses(told):
    return re.findall(r'<img class="face-person" src="data:image/png;base64,([^"]+)"', told)


def decoded(address):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address))))


def test_people_found_are_shown_from_their_folder(inferencer, faces, tmp_path, monkeypatch):
    """Whatever way the folder is named now; a removed person is shown no longer."""
    identifier = Identifier(inferencer, tmp_path / 'gallery')
    identifier.enroll(str(faces))
    face, gallery = still(faces, 2, 0), identifier.gallery
    assert addresses(FacePage(inferencer, gallery).identify(face)[0]) == []
    shutil.copytree(faces, tmp_path / 'moved')
    for images in (faces, tmp_path / 'moved', faces.parent):
        found = addresses(FacePage(inferencer, gallery, images=images).identify(face)[0])
        assert len(found) == 5
        assert np.array_equal(decoded(found[0]), face)
    # All people have a 0.png: which of them is in this folder is not to be known.
    one = FacePage(inferencer, gallery, images=tmp_path / 'moved' / 'Zoë 0').identify(face)[0]
    assert addresses(one) == []
    identifier.remove('Zoë 2')
    told = FacePage(inferencer, identifier.gallery, images=faces).identify(face)[0]
    assert len(addresses(told)) == 5
    assert not any(np.array_equal(decoded(address), face) for address in addresses(told))


def test_no_file_outside_of_the_folder_is_shown(tmp_path):
    (tmp_path / 'in').mkdir()
    for place in ('a.png', 'in/b.png', 'c.png'):
        (tmp_path / place).touch()
    (tmp_path / 'in' / 'c.png').symlink_to(tmp_path / 'c.png')
    names = {f'{tmp_path}/a.png': None, '../a.png': None, 'in/../../a.png': None, 'x/c.png': None}
    for name, expected in (names | {'x/b.png': 'b.png', '/y/in/b.png': 'b.png'}).items():
        found = find_enrolled(name, tmp_path / 'in', Counter([Path(name).name]))
        assert found == (expected and tmp_path / 'in' / expected)


def test_training_faces_are_told_with_every_answer(inferencer, faces, monkeypatch):
    pair = still(faces, 0, 0), still(faces, 0, 1)
    assert 'Warning' not in FacePage(inferencer).compare(*pair)[0]
    monkeypatch.setattr(inferencer, 'training_note', 'Drawn by <hand>.')
    assert 'Drawn by &lt;hand&gt;.' in FacePage(inferencer).compare(*pair)[0]


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
    import urllib.error
    import urllib.parse
    import urllib.request

    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        port = taken.getsockname()[1]
    app, address = serve(FacePage(inferencer, gallery, images=faces), port=port, block=False)
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
        # Images are in the answers alone.
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(
                f'{address}gradio_api/file={urllib.parse.quote(str(faces))}/Zo%C3%AB%201/0.png',
                timeout=30,
            )
    finally:
        app.close()
