"""``mmvlr audit-gallery``: the findings as text, document, table and page."""

import csv
import json
import os
import shutil

import numpy as np
import pytest

from mmvlr.cli import main
from mmvlr.identification import Gallery
from tests.identification.test_audit import make_gallery, make_images
from tests.reports.pages import check_page, cut_section, read_rows


@pytest.fixture
def gallery(tmp_path, faces):
    """A gallery with a pair of images that is exchanged, a copy, and a name that is markup."""
    people, names, embedding = make_images()
    embedding[[0, 80]] = embedding[[80, 0]]
    image = tmp_path / 'copy.png'
    shutil.copy(next(faces.glob('people/*/0.png')), image)
    made = make_gallery(
        [*people, '<b>Eve</b>', 'p9'],
        [*names, '<i>.png', str(image)],
        np.concatenate([embedding, embedding[[50]], embedding[[36]]]),
    )
    return made.save(tmp_path / 'gallery')


def test_files_and_document(mmvlr, gallery, tmp_path):
    outs = [tmp_path / f'audit.{suffix}' for suffix in ('csv', 'json', 'html')]
    options = [word for out in outs for word in ('--out', out)]
    code, document = mmvlr('audit-gallery', gallery, *options, model_used=False)
    assert (code, document['people'], document['images']) == (0, 41, 162)
    counts = document['counts']
    assert (counts['wrong person'], counts['duplicate'], counts['two names']) == (2, 1, 1)
    assert [os.stat(out).st_mode & 0o777 for out in outs] == [0o600] * 3
    with open(outs[0], newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['kind'] for row in rows] == [row['kind'] for row in document['findings']]
    assert json.loads(outs[1].read_text())['findings'] == document['findings']
    page = outs[2].read_text()
    check_page(page, ['summary', 'wrong_person', 'two_names', 'duplicate'])
    assert '<b>Eve' not in page and '&lt;b&gt;Eve' in page
    table = read_rows(cut_section(page, 'duplicate'))
    assert table[1][0] == 'p9' and 'copy.png' in table[1][1]
    # The image is where it was, so it is shown; the others are not.
    assert cut_section(page, 'duplicate').count('<img') == 1
    assert cut_section(page, 'wrong_person').count('<img') == 0
    assert 'id="stranger"' not in page


def test_text(gallery, capsys):
    assert main(['audit-gallery', str(gallery)]) == 0
    told = capsys.readouterr().out
    assert 'wrong person' in told and '41 people, 162 images' in told
    made = Gallery(dict(embedding=dict(dims=2)))
    made.enroll('Ann', [[1.0, 0.0]])
    made.save(gallery)
    assert main(['audit-gallery', str(gallery)]) == 0
    assert '1 person, 1 image' in capsys.readouterr().out


def test_other_suffixes_are_wrong_usage(gallery, capsys):
    with pytest.raises(SystemExit) as left:
        main(['audit-gallery', str(gallery), '--out', 'audit.txt'])
    assert left.value.code == 2 and '.html' in capsys.readouterr().err
