"""Pages taken apart: what both page tests look for."""

import re
from html.parser import HTMLParser

DASH = '\u2013'


class Page(HTMLParser):
    """What a page refers to, which tags it uses, and whether they are balanced."""

    VOID = {'meta', 'link', 'img', 'input', 'br'}

    def __init__(self, text):
        super().__init__()
        self.links, self.tags, self.ids, self.stack = [], [], [], []
        self.feed(text)
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in self.VOID:
            self.stack.append(tag)
        names = ('src', 'href', 'srcset', 'data', 'poster', 'action')
        self.links += [value for name, value in attrs if name in names]
        self.ids += [value for name, value in attrs if name == 'id']

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag


def check_page(text, sections):
    """Check that a page is whole, loads and runs nothing, and that its links lead somewhere."""
    page = Page(text)
    assert text.startswith('<!DOCTYPE html>')
    assert not {'script', 'iframe', 'object', 'foreignobject'} & set(page.tags)
    assert page.links and all(link.startswith(('data:', '#')) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith('#')} <= set(page.ids)
    assert not re.search(r'@import|url\((?!#)|https?:', text)
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text
    places = [text.index(f'<section id="{key}">') for key in sections]
    assert places == sorted(places)


def cut_section(page, key):
    found = re.search(f'<section id="{key}".*?</section>', page, re.DOTALL).group()
    return found.replace('&#8239;', ' ')


def read_rows(text):
    """Return tables row by row: text of each cell, its small print after bars."""
    rows = []
    for row in re.findall('<tr.*?</tr>', text, re.DOTALL):
        cells = re.findall('<t[hd].*?</t[hd]>', row, re.DOTALL)
        plain = [re.sub('<.*?>', '', cell.replace('<small>', '|')) for cell in cells]
        plain = [cell.replace('&nbsp;', ' ').replace('&ndash;', DASH) for cell in plain]
        rows.append(
            [cell.replace('\u202f%', '').replace(f' {DASH} ', '-').strip() for cell in plain]
        )
    return rows


def find_overlaps(figure):
    """Return pairs of texts of a figure that touch, and texts that are cut off."""
    figure.canvas.draw()
    (axes,) = figure.axes
    texts = [*axes.texts, axes.xaxis.label, axes.yaxis.label]
    texts += [axis.get_offset_text() for axis in (axes.xaxis, axes.yaxis)]
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        # Ticks beyond the axes are kept, and not drawn.
        labels = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
        texts += [label for place, label in labels if low <= place <= high]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]
    found = [
        (text, other)
        for index, (text, box) in enumerate(boxes)
        for other, its in boxes[:index]
        if box.overlaps(its)
    ]
    whole = figure.bbox
    cut = [t for t, box in boxes if not (whole.containsx(box.x0) and whole.containsx(box.x1))]
    return found, cut
