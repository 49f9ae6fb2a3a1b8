"""``mmvlr audit-gallery``."""

import argparse
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import existing_gallery, output_file
from .common import Outcome, UsageError, count, paragraphs, table

if TYPE_CHECKING:
    from mmvlr.identification import Audit

#: Findings that are printed, and images that are shown on a page.
PRINTED, SHOWN = 20, 400
_SUFFIXES = ('.csv', '.json', '.html')


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the command of this module."""
    audit = commands.add_parser(
        'audit-gallery',
        help='what in a gallery looks wrong',
        description='Look for what is wrong in a gallery: people who may be one, images that\n'
        'resemble another person or nobody, that lower the agreement of their person, that are\n'
        'enrolled twice or under two names, people without a good image. Nothing is changed.\n\n'
        '  mmvlr audit-gallery gallery/ --out audit.html --out audit.csv\n\n'
        'No model is needed: the gallery is its own reference.',
    )
    audit.add_argument('gallery', type=existing_gallery, help='folder of the gallery')
    audit.add_argument(
        '--out',
        type=output_file,
        action='append',
        default=[],
        metavar='FILE',
        help='write the findings to this .csv, .json or .html file; may be given several times',
    )
    audit.add_argument(
        '--wrong',
        type=float,
        default=0.01,
        help='share of the images that is expected to be wrong: more of it, more findings',
    )
    audit.add_argument(
        '--alike', type=float, default=0.96, help='similarity of copies of one image'
    )
    audit.add_argument('--quality', help='quality of good images (default: ri, else the first)')
    audit.add_argument(
        '--least', type=float, help='lowest quality of a good image (default: 5 %% are below)'
    )
    audit.set_defaults(run=run_audit)


def run_audit(args: argparse.Namespace) -> Outcome:
    """Audit a gallery."""
    for path in args.out:
        if path.suffix not in _SUFFIXES:
            raise UsageError(f'--out must end in .csv, .json or .html, not {path.name}')
    from mmvlr.identification import Gallery, audit

    done = audit(
        Gallery.load(args.gallery),
        wrong=args.wrong,
        alike=args.alike,
        quality=args.quality,
        least=args.least,
    )
    rows = done.rows()
    document = dict(people=done.people, images=done.images, counts=done.counts)
    document |= dict(about=dict(done.about), findings=rows, out=[str(path) for path in args.out])
    for path in args.out:
        write_audit(path, args, done, document)
    shown = [
        row | dict(image=row['image'] or row['other_person'], other=row['other_image'])
        for row in rows[:PRINTED]
    ]
    counts = ', '.join(f'{number} {kind}' for kind, number in done.counts.items() if number)
    text = f'{args.gallery}: {count(done.people, "person")}, {count(done.images, "image")}; '
    text = text.replace('persons', 'people') + (counts or 'nothing looks wrong')
    more = len(rows) - PRINTED
    notes = f'... and {more} more (--json or --out lists all)' if more > 0 else ''
    files = ' '.join(map(str, args.out))
    columns = ['kind', 'person', 'image', 'other']
    return Outcome(document, paragraphs(table(columns, shown) if rows else '', notes, text, files))


def write_audit(
    path: Path, args: argparse.Namespace, done: 'Audit', document: dict[str, Any]
) -> None:
    """Write the findings in the format that the suffix names; only the owner can read them."""
    from mmvlr.utils.io import write_atomic, write_csv

    rows = document['findings']
    if path.suffix == '.csv':
        columns = ['kind', 'person', 'image', 'other_person', 'other_image', 'probability']
        columns += ['confusion', 'value', 'found', 'suggestion']
        write_csv(path, columns, rows, private=True)
        return
    if path.suffix == '.json':
        content = json.dumps(document, indent=1)
    else:
        from mmvlr.reports.audited import AuditData, render_audit

        names = dict.fromkeys(n for row in rows for n in (row['image'], row['other_image']) if n)
        images = read_images(list(names)[:SHOWN])
        page = AuditData(
            title='Audit of a gallery',
            subtitle=f'{done.people:,} people, {done.images:,} images',
            facts={'gallery': str(args.gallery), **done.about},
            notes=['Suggestions: nothing in the gallery was changed.'],
            command=shlex.join(['mmvlr', *map(str, ('audit-gallery', args.gallery))])
            + f' --out {shlex.quote(str(path))}',
            findings=rows,
            images=images,
        )
        content = render_audit(page)
    # Names of files may hold bytes that are no UTF-8.
    data = content.encode('utf-8', 'replace')
    write_atomic(path, lambda beside: beside.write_bytes(data), private=True)


def read_images(names: list[str]) -> dict[str, Any]:
    """Return the images that are where they were when they were enrolled, by name."""
    from mmvlr.datasets.transforms import ImageError, read_image

    images = {}
    for name in names:
        if Path(name).is_file():
            try:
                images[name] = read_image(name, upright=True)
            except (ImageError, OSError):
                continue
    return images
