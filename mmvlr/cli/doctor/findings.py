"""Render the findings of the doctor, and the tasks that the installation is ready for."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

#: What one may want -> the parts it needs beside a sound installation: extras and data.
PURPOSES = {
    'use of a model': (),
    'demo': ('demo',),
    'alignment of images': ('align',),
    'export': ('export',),
    'attention maps': ('cam',),
    'large galleries': ('gallery',),
    'page in the browser': ('web',),
    'training on TinyFace': ('TINYFACE_ROOT', 'UI_ROOT', 'PRETRAINED'),
    'training on SCface': ('SCFACE_ROOT', 'UI_ROOT', 'PRETRAINED'),
    'training on SurvFace': ('SURVFACE_ROOT', 'UI_ROOT', 'PRETRAINED'),
    'pretraining on MS1M': ('MS1M_ROOT',),
    'pretraining on WebFace4M': ('WEBFACE4M_ROOT',),
}
#: Topics without which nothing works.
_NEEDED = frozenset({'python', 'packages', 'imports', 'torchvision', 'numpy', 'opencv'})


@dataclass(frozen=True)
class Finding:
    """What was found out about one thing.

    Attributes:
        topic: What was looked at.
        status: ``'ok'``; ``'absent'``: not there, and not everybody needs it; ``'warning'``: it
            works, but not as well as it could, or not safely; ``'error'``: something will fail.
        message: What was found.
        remedy: What to do about it; empty if there is nothing to do.
        part: What of :data:`PURPOSES` it is about; empty if all of them need it.
    """

    topic: str
    status: str
    message: str
    remedy: str = ''
    part: str = field(default='', compare=False)


def render(findings: Sequence[Finding]) -> str:
    """Return findings as text: a line each, its remedy below, and a summary at the end."""
    width = max((len(finding.topic) for finding in findings), default=0)
    lines = []
    for finding in findings:
        first, *rest = finding.message.splitlines() or ['']
        indent = ' ' * (9 + width)
        lines.append(f'{finding.status:7}  {finding.topic:{width}}  {first}'.rstrip())
        lines += [f'{indent}  {line}' for line in rest]
        if finding.remedy:
            lines.append(f'{indent}  -> {finding.remedy}')
    counts = Counter(finding.status for finding in findings)
    told = [
        f'{counts[status]} {status}{"s" if counts[status] > 1 else ""}'
        for status in ('error', 'warning')
        if counts[status]
    ]
    return '\n'.join([*lines, '', ', '.join(told) or 'nothing is wrong'])


def judge_readiness(findings: Sequence[Finding]) -> tuple[list[str], dict[str, list[Finding]]]:
    """Return which of :data:`PURPOSES` are possible, and what the others lack."""
    ready, others = [], {}
    for purpose, parts in PURPOSES.items():
        missing = [
            finding
            for finding in findings
            if (finding.part in parts and finding.status in ('absent', 'error'))
            or (not finding.part and finding.topic in _NEEDED and finding.status == 'error')
        ]
        if missing:
            others[purpose] = missing
        else:
            ready.append(purpose)
    return ready, others


def render_readiness(findings: Sequence[Finding]) -> str:
    """Return what is possible, and for the rest what is missing and how to get it."""
    ready, others = judge_readiness(findings)
    lines = [f'ready for: {", ".join(ready) or "nothing"}']
    # Several purposes may lack the same package: its remedy is printed once.
    told: dict[str, str] = {}
    for purpose, missing in others.items():
        names = [finding.part or finding.topic for finding in missing]
        lines.append(f'not for: {purpose} (missing: {", ".join(names)})')
        for name, finding in zip(names, missing, strict=True):
            told.setdefault(name, finding.remedy or finding.message.splitlines()[0])
    return '\n'.join([*lines, *(f'  {name}: {remedy}' for name, remedy in told.items())])
