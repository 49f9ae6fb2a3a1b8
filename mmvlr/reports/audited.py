"""Render the page about an audit of a gallery, as one self-contained HTML file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from .page import PageData, Sections, render_page


@dataclass(frozen=True)
class AuditData(PageData):
    """Content of the page.

    Attributes:
        findings: Rows as plain values: ``kind``, ``found``, ``suggestion``, ``person``, ``image``,
            ``other_person``, ``other_image``, ``probability``, ``confusion``, ``value``.
        images: (h, w, 3) uint8, RGB, by name, of those that are shown.
        shown: Most findings of a kind that are listed.
    """

    SECTIONS: ClassVar[Sections] = {
        'summary': ('What was found', 'Summary', None),
        'collision': ('People who may be one', 'One person?', None),
        'wrong_person': ('Images that resemble another person', 'Wrong person', None),
        'stranger': ('Images that resemble nobody', 'Strangers', None),
        'lowers': ('Images that lower the agreement of their person', 'Lowers', None),
        'two_names': ('One image under two names', 'Two names', None),
        'duplicate': ('Images that are enrolled twice', 'Duplicates', None),
        'no_good_image': ('People without a good image', 'No good image', None),
        'forced': ('Images that were enrolled against the gate', 'Forced', None),
    }

    findings: Sequence[Mapping[str, Any]] = ()
    images: Mapping[str, np.ndarray] = field(default_factory=dict)
    shown: int = 200


def render_audit(data: AuditData) -> str:
    """Return the page as HTML.

    Raises:
        ImportError: jinja2 is not installed.
    """
    groups = {
        kind: [
            dict(row, used=[name for name, value in row.items() if value not in (None, '')])
            for row in data.findings
            if row['kind'].replace(' ', '_') == kind
        ]
        for kind in data.SECTIONS
        if kind != 'summary'
    }
    summary = [dict(kind=data.SECTIONS[kind][0], count=len(rows)) for kind, rows in groups.items()]
    return render_page('audit', data, summary=summary, **groups)
