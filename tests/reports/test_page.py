"""What both pages share: one safe file, escaped text, omitted sections, whole files."""

import base64
import re
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmvlr.evaluation.functional import Curve
from mmvlr.evaluation.systems import Score
from mmvlr.reports import (
    ActivationRow,
    AttentionCard,
    ComparisonData,
    DiscardCurve,
    FaceCard,
    Metric,
    ReportData,
    ScoreTable,
    WrongMatch,
    render_comparison,
    render_report,
    write_page,
)
from mmvlr.reports.drawing import COLORS

from .conftest import make_face
from .pages import Page, check_page, cut_section

RENDER = {ReportData: render_report, ComparisonData: render_comparison}
EVIL = '<script>alert("x")</script> & \'ü\' 李 $x_1$'


@pytest.fixture(params=RENDER, ids=['report', 'comparison'])
def kind(request):
    return request.param


@pytest.fixture
def data(kind, report_data, comparison_data):
    return report_data if kind is ReportData else comparison_data


@pytest.fixture
def page(kind, report_page, comparison_page):
    return report_page if kind is ReportData else comparison_page


def test_page_is_one_file_that_loads_nothing(kind, data, page, tmp_path):
    out = write_page(page, str(tmp_path / 'sub' / 'page.html'))
    assert [path.name for path in out.parent.iterdir()] == ['page.html']
    assert out.read_text(encoding='utf-8') == page
    check_page(page, kind.SECTIONS)
    for key in kind.SECTIONS:
        assert f'href="#{key}"' in page
    assert 'class="omitted"' not in page and len(page) < 1e6
    header = page[page.index('<header>') : page.index('</header>')]
    for text in (data.title, data.subtitle, data.notes[0], data.command, *data.facts):
        assert text in header
    for sentence in data.reading:
        assert f'<li>{sentence}</li>' in cut_section(page, 'reading')


def test_colors_are_those_of_the_figures(kind):
    page = RENDER[kind](kind('t'))
    light, dark = page.split('prefers-color-scheme:dark')
    for name, color in COLORS.items():
        assert f'--{name}:{color}' in light
        # A dark display has its own of each.
        assert re.search(f'--{name}:#(?!{color[1:]})', dark)


def test_embedded_images_decode(page):
    found = re.findall(r'data:image/(png|jpeg);base64,([^"]+)', page)
    assert len(found) > 7
    for _, payload in found:
        assert cv2.imdecode(np.frombuffer(base64.b64decode(payload), np.uint8), -1) is not None


def test_faces_of_vlr_size_are_embedded_without_loss_and_large_ones_are_shrunk():
    image = make_face(np.random.default_rng(1), 16, 12)
    large = FaceCard(np.zeros((800, 400, 3), np.uint8))
    page = render_report(ReportData('t', lowest=[FaceCard(image), large]))
    payload = re.search(r'data:image/png;base64,([^"]+)', cut_section(page, 'faces'))[1]
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(payload), np.uint8), -1)
    assert np.array_equal(decoded[..., ::-1], image)
    assert 'width="80" height="160"' in cut_section(page, 'faces')


def test_sections_without_data_say_why(kind):
    page = RENDER[kind](kind('t'))
    Page(page)
    for key, (_, _, reason) in kind.SECTIONS.items():
        assert f'href="#{key}"' not in page
        if reason is None:
            assert f'id="{key}"' not in page
        else:
            assert 'class="omitted"' in cut_section(page, key)
            assert reason in cut_section(page, key)
    assert 'id="pixels"' not in page
    for key in kind.SECTIONS:
        page = RENDER[kind](kind('t', omitted={key: 'no <model> was kept.'}))
        assert 'Left out: no &lt;model&gt; was kept.' in cut_section(page, key)
        assert f'"#{key}"' not in page
    with pytest.raises(ValueError, match='nonsense'):
        kind('t', omitted={'nonsense': 'none'})


def test_one_missing_section_leaves_the_others(kind, data):
    attributes = {
        'training': ['scalars'],
        'faces': ['lowest', 'highest'],
        'quality': ['quality', 'quality_tables'],
        'discard': ['discard', 'discard_tables'],
    }
    known = {field.name for field in fields(kind)}
    # Figures are slow to draw, and the other sections do not depend on them.
    figures = ('scalars', 'cmc', 'open_set', 'verification', 'quality', 'discard')
    light = replace(data, **{k: type(getattr(data, k))() for k in figures if k in known})
    there = [key for key in kind.SECTIONS if f'href="#{key}"' in RENDER[kind](light)]
    for key in there:
        names = [name for name in attributes.get(key, [key]) if name in known]
        empty = {name: type(getattr(data, name))() for name in names}
        page = RENDER[kind](replace(light, **empty, omitted={key: 'a reason.'}))
        assert [other for other in there if f'href="#{other}"' in page] == [
            other for other in there if other != key
        ]
        assert 'a reason.' in cut_section(page, key)


def make_evil(kind):
    card = FaceCard(make_face(np.random.default_rng(1)), (EVIL,))
    steps = np.arange(3)
    curve = Curve(np.array([0.1, 1]), np.ones(2))
    discard = {EVIL: DiscardCurve(steps / 3, steps / 3)}
    # Names of measures are drawn into the figure; the font has no Han characters.
    quality = {'<b>$x_1$</b>': {'<i>': np.arange(3.0)}, EVIL: {'ui': np.full(2, np.nan)}}
    table = ScoreTable(EVIL, [EVIL], {EVIL: [Score(0.5)]}, EVIL, EVIL)
    common = dict(subtitle=EVIL, facts={EVIL: EVIL}, notes=[EVIL], command=EVIL, reading=[EVIL])
    common['details'] = {EVIL: {EVIL: EVIL}}
    if kind is ReportData:
        return kind(
            EVIL,
            **common,
            headline=[Metric(EVIL, 0.5, baselines={EVIL: 0.1}, group=EVIL)],
            spectrum=[card],
            scalars={EVIL: (steps, steps), 'xi' + EVIL: (steps, steps)},
            cmc={EVIL: Curve(steps + 1.0, np.ones(3))},
            open_set={EVIL: curve},
            verification={EVIL: curve},
            quality=quality,
            discard=discard,
            lowest=[card],
            attention=[AttentionCard(card.image, np.eye(3), (EVIL,))],
            failures=[WrongMatch(card, [card], card)],
        )
    return kind(
        EVIL,
        **common,
        recognition=[table],
        ablation=[table],
        quality={EVIL: quality},
        quality_tables=[table],
        discard={EVIL: discard},
        discard_bounds={EVIL: discard},
        discard_tables=[table],
        hard_faces={EVIL: {EVIL: [card]}},
        activation=[ActivationRow(card.image, {EVIL: np.eye(7)[::-1]}, (EVIL,))] * 3,
        activation_note=EVIL,
        runs=[{EVIL: EVIL, 'status': EVIL, 'seconds': EVIL}],
        missing=[EVIL],
    )


def test_text_is_escaped(kind):
    page = RENDER[kind](make_evil(kind))
    check_page(page, kind.SECTIONS)
    assert '<b>$x' not in page and '<i>' not in cut_section(page, 'quality')
    for key in kind.SECTIONS:
        if (kind, key) != (ReportData, 'quality'):
            assert '&lt;script&gt;alert(' in cut_section(page, key), key
    assert page.count('&lt;script&gt;alert(') > 25
    assert 'ü' in page and '李' in page


def test_undecodable_names_do_not_lose_the_page(kind, tmp_path):
    out = write_page(RENDER[kind](kind('face_\udcff.jpg')), tmp_path / 'r.html')
    assert 'face_?.jpg' in out.read_text(encoding='utf-8')


def test_failed_write_leaves_the_earlier_page(tmp_path, monkeypatch):
    out = tmp_path / 'report.html'
    out.write_text('earlier')

    def half(self, content):
        with self.open('wb') as file:
            file.write(content[:10])
        raise OSError('disk full')

    with monkeypatch.context() as patch:
        patch.setattr(Path, 'write_bytes', half)
        with pytest.raises(OSError, match='disk full'):
            write_page('page', out)
    assert out.read_text() == 'earlier' and list(tmp_path.iterdir()) == [out]
    assert write_page('later', out).read_text() == 'later'


@pytest.mark.parametrize('image', [np.zeros((4, 4)), np.zeros((4, 4), np.uint8)])
def test_wrong_faces_are_named(kind, image):
    cards = [FaceCard(image)]
    faces = dict(lowest=cards) if kind is ReportData else dict(hard_faces={'d': {'RI': cards}})
    with pytest.raises(ValueError, match=r'\(4, 4\)'):
        RENDER[kind](kind('t', **faces))
