"""``mmvlr enroll``, ``people``, ``calibrate`` and ``identify``."""

import argparse
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import (
    DONE,
    Outcome,
    UsageError,
    add_model_options,
    inferencer_of,
    left_out,
    paragraphs,
    table,
)

if TYPE_CHECKING:
    from mmvlr.apis import FaceInferencer, FaceResults

#: From this similarity on two embeddings are of one and the same image.
SAME = 1 - 1e-6


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the commands of this module."""
    enroll = commands.add_parser(
        'enroll',
        help='put people into a gallery, or take them out',
        description='Put people into a gallery; it is made if it is not there.\n\n'
        '  mmvlr enroll gallery/ people/ --model riface.safetensors\n'
        '        people/ has one folder for each person, named as the person\n'
        '  mmvlr enroll gallery/ ann1.jpg ann2.jpg --person Ann --model riface.safetensors\n'
        '  mmvlr enroll gallery/ --remove Ann\n\n'
        'Images of a person who is there are added to those already enrolled. The gallery\n'
        'remembers model and preprocessing, and refuses embeddings of others.',
    )
    enroll.add_argument('gallery', type=Path, help='folder of the gallery')
    enroll.add_argument('faces', nargs='*', help='folder with a folder a person, or images')
    enroll.add_argument('--person', help='all the images are of this person')
    enroll.add_argument(
        '--template',
        help='how the images of a person become one template: mean, norm, ri, best or images '
        '(default for a new gallery: mean)',
    )
    enroll.add_argument('--remove', metavar='PERSON', action='append', default=[])
    add_model_options(enroll)
    enroll.set_defaults(run=run_enroll)

    people = commands.add_parser(
        'people',
        help='who is in a gallery',
        description='List the people of a gallery with the number of their images, and the rule\n'
        'that makes templates of these.\n\n  mmvlr people gallery/',
    )
    people.add_argument('gallery', type=Path, help='folder of the gallery')
    people.set_defaults(run=run_people)

    calibrate = commands.add_parser(
        'calibrate',
        help='thresholds for accept / unknown / no answer, from faces of yours',
        description='Set the thresholds of identification on faces whose answer is known.\n\n'
        '  mmvlr calibrate gallery/ decision.json --unmated strangers/ --mated known/ \\\n'
        '        --fpir 0.01 --error 0.05 --model riface.safetensors\n\n'
        '--unmated  people who are not in the gallery. Folders are people; images outside of\n'
        '           one each count as a person of its own. A target of 1 % needs 99 people.\n'
        '--mated    people of the gallery, other images than those enrolled, one folder a\n'
        '           person, named as in the gallery. Needed for quality bins and abstention.\n\n'
        'Whatever the model, of new faces of people who are not in the gallery at most the share\n'
        '--fpir is accepted, on average over calibrations (conformal prediction).',
    )
    calibrate.add_argument('gallery', type=Path, help='folder of the gallery')
    calibrate.add_argument('out', type=Path, help='file to write (.json)')
    calibrate.add_argument('--unmated', nargs='+', required=True, metavar='FACES')
    calibrate.add_argument('--mated', type=Path, metavar='FOLDER')
    calibrate.add_argument(
        '--fpir', type=float, default=0.01, help='false positive identification rate (default 0.01)'
    )
    calibrate.add_argument(
        '--error', type=float, help='share of wrong answers to aim at by abstaining'
    )
    calibrate.add_argument(
        '--quality', help='measure along which thresholds are binned (default: ri, else norm)'
    )
    calibrate.add_argument(
        '--abstain-by',
        default='distance',
        help='with --error: a measure such as ri, or the distance of the similarity to its '
        'threshold (default: distance)',
    )
    calibrate.add_argument('--name', help='what the faces are, for the record')
    add_model_options(calibrate)
    calibrate.set_defaults(run=run_calibrate)

    identify = commands.add_parser(
        'identify',
        help='who is it, among the people of a gallery',
        description='Search faces in a gallery.\n\n'
        '  mmvlr identify gallery/ crops/ --decision decision.json --model riface.safetensors\n\n'
        'With --decision every face gets a verdict: accept (it is the person), unknown (nobody of\n'
        'the gallery) or abstain (too poor or too close to tell). Without, the most similar\n'
        'people are listed.',
    )
    identify.add_argument('gallery', type=Path, help='folder of the gallery')
    identify.add_argument('faces', nargs='+', help='images, folders and globs')
    identify.add_argument('--decision', metavar='FILE', help='what mmvlr calibrate wrote')
    identify.add_argument('--top', type=int, default=3, help='people to list (default: 3)')
    add_model_options(identify)
    identify.set_defaults(run=run_identify)


def people_of(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the people of a folder that has a folder for each.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It has no folders, or images beside them that belong to nobody.
    """
    from mmvlr.datasets.base import IMAGE_SUFFIXES

    if not folder.is_dir():
        raise FileNotFoundError(f'{folder} does not exist or is no folder')
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith('.'))
    loose = [e for e in entries if e.is_file() and e.suffix.lower() in IMAGE_SUFFIXES]
    folders = [entry for entry in entries if entry.is_dir()]
    if loose or not folders:
        found = f'{len(loose)} images such as {loose[0].name}' if loose else 'no folder'
        raise ValueError(
            f'{folder} should have one folder for each person; there is {found} in it. '
            'For images of one person: --person NAME'
        )
    return ((entry.name, entry) for entry in folders)


def embed_people(
    inferencer: 'FaceInferencer', folder: Path
) -> tuple[list[str], 'FaceResults', list[str]]:
    """Embed a folder with a folder for each person.

    Returns:
        The person of each face, the faces, and people without an image.
    """
    from mmvlr.apis.images import find_images
    from mmvlr.apis.inferencer import join_results
    from mmvlr.utils.work import progress_bar

    of_person: dict[str, str] = {}
    empty = []
    for person, inner in people_of(folder):
        try:
            of_person.update((str(path), person) for path in find_images(inner))
        except ValueError:
            empty.append(person)
    if not of_person:
        raise ValueError(f'{folder}: no person in it has an image')
    total = len(of_person)
    bar = progress_bar('embedding', total) if total > 200 else nullcontext(lambda: None)
    parts = []
    with bar as advance:
        for part in inferencer.stream(list(of_person)):
            parts.append(part)
            for _ in range(len(part) + len(part.failures)):
                advance()
    results = join_results(parts)
    if not len(results):
        raise ValueError(
            f'{folder}: none of the {len(results.failures)} images can be used; the first: '
            f'{results.failures[0][1]}'
        )
    return [of_person[name] for name in results.names], results, empty


def run_enroll(args: argparse.Namespace) -> Outcome:
    """Enroll or remove people."""
    from mmvlr.identification import Gallery

    if not args.faces and not args.remove:
        raise UsageError('give images to enroll, or --remove PERSON')
    if args.person is None and len(args.faces) > 1:
        raise UsageError('give one folder with a folder for each person, or --person NAME')
    exists = (args.gallery / 'gallery.json').is_file()
    if not exists and not args.faces:
        raise FileNotFoundError(f'gallery {args.gallery} does not exist')
    added, results, failures, told, code, notes = {}, None, [], '', DONE, []
    if args.faces:
        inferencer = inferencer_of(args)
        if exists:
            gallery = Gallery.load(args.gallery, identity=inferencer.identity)
        else:
            gallery = Gallery(inferencer.identity, template=args.template or 'mean')
        if args.person is not None:
            results = inferencer.embed(args.faces)
            owners, empty = [args.person] * len(results), []
        else:
            owners, results, empty = embed_people(inferencer, Path(args.faces[0]))
        failures, told, code = left_out(results)
        lost = sorted(set(empty) - set(owners))
        if lost:
            notes.append(f'{len(lost)} people have no image: {", ".join(lost[:5])}')
    else:
        gallery = Gallery.load(args.gallery)
    for person in args.remove:
        if person not in gallery:
            raise ValueError(f'{person!r} is not in {args.gallery}; mmvlr people lists who is')
        gallery.remove(person)
    if results is not None:
        known = {person: gallery.images(person)[1] for person in {*owners} & {*gallery.people}}
        new = [
            row
            for row, (owner, unit) in enumerate(zip(owners, results.unit, strict=True))
            if owner not in known or (known[owner] @ unit).max() < SAME
        ]
        if len(new) < len(owners):
            notes.append(f'{len(owners) - len(new)} images are enrolled already')
        if new:
            gallery.enroll_many(
                [owners[row] for row in new],
                results.embedding[new],
                {name: values[new] for name, values in results.qualities.items()},
                [results.names[row] for row in new],
            )
        added = dict(Counter(owners[row] for row in new))
    if args.template and exists:
        gallery.template = args.template
    gallery.save(args.gallery)
    document: dict[str, Any] = dict(gallery=str(args.gallery), people=len(gallery))
    document |= dict(enrolled=added, removed=args.remove, failures=failures, notes=notes)
    text = f'{args.gallery}: {len(gallery)} people'
    if added:
        text += f'; {sum(added.values())} images of {len(added)} people enrolled'
    if args.remove:
        text += f'; removed: {", ".join(args.remove)}'
    return Outcome(document, paragraphs(text, *notes, told), code)


def run_people(args: argparse.Namespace) -> Outcome:
    """List the people of a gallery."""
    from mmvlr.identification import Gallery

    gallery = Gallery.load(args.gallery)
    rows = [dict(person=person, images=count) for person, count in gallery.counts.items()]
    document = dict(people=rows, template=gallery.template, identity=gallery.identity)
    text = f'{len(gallery)} people, {gallery.num_images} images, {gallery.template["type"]}'
    return Outcome(document, paragraphs(table(['person', 'images'], rows), text))


def run_identify(args: argparse.Namespace) -> Outcome:
    """Search faces in a gallery."""
    from mmvlr.identification import Decision, Gallery

    inferencer = inferencer_of(args)
    gallery = Gallery.load(args.gallery, identity=inferencer.identity)
    decision = None
    if args.decision:
        decision = Decision.load(args.decision, identity=inferencer.identity)
    results = inferencer.embed(args.faces)
    matches = gallery.search(results.embedding, k=args.top)
    failures, told, code = left_out(results)
    rows = results.rows()
    for row, people, similarity in zip(rows, matches.person, matches.similarity, strict=True):
        row['candidates'] = [
            dict(person=person, similarity=float(value))
            for person, value in zip(people, similarity, strict=True)
            if person
        ]
    shown = []
    if decision is None:
        for row in rows:
            found = [f'{c["person"]} {c["similarity"]:.3f}' for c in row['candidates']]
            shown.append(dict(name=row['name'], candidates=', '.join(found)))
        columns = ['name', 'candidates']
    else:
        verdicts = decision.decide(
            matches.similarity[:, 0], matches.person[:, 0], results.qualities
        )
        for row, verdict in zip(rows, verdicts, strict=True):
            row |= dict(outcome=verdict.outcome, person=verdict.person, reason=verdict.reason)
            row['threshold'] = finite(verdict.threshold)
            who = verdict.person if verdict.outcome == 'accept' else ''
            shown.append(dict(name=row['name'], verdict=verdict.outcome, person=who))
            shown[-1]['reason'] = verdict.reason
        columns = ['name', 'verdict', 'person', 'reason']
    note = '' if decision is None else decision.gallery_note(gallery)
    document = dict(faces=rows, failures=failures, notes=[note] if note else [])
    note = note and f'Warning: {note}.'
    return Outcome(document, paragraphs(table(columns, shown), note, told), code)


def finite(value: float | None) -> float | None:
    """Return a number that JSON knows: None for infinity."""
    return None if value is None or abs(value) == float('inf') else float(value)


def run_calibrate(args: argparse.Namespace) -> Outcome:
    """Calibrate a decision."""
    import numpy as np

    from mmvlr.apis.inferencer import join_results
    from mmvlr.identification import Gallery, SearchedFaces, calibrate

    if args.error is not None and args.mated is None:
        raise UsageError('--error needs --mated: poor faces of known people')
    inferencer = inferencer_of(args)
    gallery = Gallery.load(args.gallery, identity=inferencer.identity)
    unmated = inferencer.embed(args.unmated)
    strangers = [stranger_of(name, args.unmated) for name in unmated.names]
    loose = [n for n, s in zip(unmated.names, strangers, strict=True) if n == s]
    folders = [given for given in args.unmated if Path(given).expanduser().is_dir()]
    if loose and (len(folders) > 1 or any('*' in given for given in args.unmated)):
        raise UsageError(
            f'whose image is {loose[0]}? Give the one folder that holds a folder for each person '
            '(--unmated strangers/), not the folders or images in it'
        )
    both = sorted(set(strangers) & set(gallery.people))
    known = np.concatenate([gallery.images(person)[1] for person in gallery.people])
    both += [
        name
        for name, unit in zip(unmated.names, unmated.unit, strict=True)
        if (known @ unit).max() >= SAME
    ]
    if both:
        raise ValueError(
            f'{len(both)} people or images of --unmated are in the gallery, such as {both[0]}: '
            'they would make the threshold too high. Take them out of one of the two'
        )
    parts, people, empty = [unmated], [f'unmated {name}' for name in strangers], []
    if args.mated is not None:
        owners, mated, empty = embed_people(inferencer, args.mated)
        missing = sorted(set(owners) - set(gallery.people))
        if missing:
            raise ValueError(
                f'{len(missing)} people of {args.mated} are not in the gallery, such as '
                f'{missing[0]}: enroll them, or move them to --unmated'
            )
        enrolled = {person: gallery.images(person)[1] for person in {*owners}}
        same = [
            name
            for name, owner, unit in zip(mated.names, owners, mated.unit, strict=True)
            if (enrolled[owner] @ unit).max() >= SAME
        ]
        if same:
            raise ValueError(
                f'{len(same)} images of {args.mated} are enrolled themselves, such as '
                f'{same[0]}: calibrate with other images of the people'
            )
        parts.append(mated)
        people += [f'mated {name}' for name in owners]
    faces = join_results(parts)
    matches = gallery.search(faces.embedding, k=1)
    is_mated = np.arange(len(faces)) >= len(unmated)
    found = np.array([f'mated {person}' for person in matches.person[:, 0]])
    quality = args.quality or next(name for name in ('ri', 'norm') if name in faces.qualities)
    searched = SearchedFaces(
        similarity=matches.similarity[:, 0],
        mated=is_mated,
        correct=is_mated & (found == np.array(people)),
        people=np.array(people),
        qualities=faces.qualities,
    )
    decision = calibrate(
        searched,
        inferencer.identity,
        target_fpir=args.fpir,
        bin_quality=quality if args.mated is not None else None,
        abstain_by=args.abstain_by if args.error is not None else None,
        target_error=args.error,
        name=args.name or ' '.join(args.unmated),
        gallery=dict(
            path=str(args.gallery),
            people=len(gallery),
            images=gallery.num_images,
            digest=gallery.digest,
        ),
    )
    decision.save(args.out)
    failures, told, code = left_out(faces)
    bins = [
        dict(
            quality=text,
            threshold=threshold.threshold,
            people=threshold.num_people,
            faces=threshold.num_faces,
        )
        for text, threshold in zip(
            bin_names(quality, decision.thresholds.edges),
            decision.thresholds.thresholds,
            strict=True,
        )
    ]
    document = dict(out=str(args.out), target_fpir=args.fpir, bins=bins, failures=failures)
    document['calibrated_on'] = dict(decision.calibrated_on)
    document['people_without_images'] = empty
    worst = max(threshold.realized_fpir(0.9) for threshold in decision.thresholds.thresholds)
    text = (
        f'{args.out}: of faces of people who are not enrolled at most {args.fpir:.1%} is accepted, '
        f'on average over\ncalibrations; with these, below {worst:.1%} with a probability of 90 %.'
    )
    abstention = ''
    if decision.level is not None:
        document['abstention'] = dict(
            quality=args.abstain_by,
            level=finite(decision.level.level),
            error=decision.level.error,
            coverage=decision.level.coverage,
        )
        abstention = f'No answer below {args.abstain_by} {decision.level.level:.3f}: '
        abstention += decision.level.summary
    notes = f'{len(empty)} people have no image: {", ".join(empty[:5])}' if empty else ''
    shown = table(['quality', 'threshold', 'people', 'faces'], bins)
    return Outcome(document, paragraphs(text, shown, abstention, notes, told), code)


def stranger_of(name: str, given: list[str]) -> str:
    """Return whose image a file is: the first folder below what was given, else the file."""
    for root in given:
        path, root_path = Path(name), Path(root).expanduser()
        if root_path.is_dir() and path.is_relative_to(root_path):
            inner = path.relative_to(root_path)
            return inner.parts[0] if len(inner.parts) > 1 else name
    return name


def bin_names(quality: str, edges: tuple[float, ...]) -> list[str]:
    """Return what each quality bin holds, for a reader."""
    if not edges:
        return ['any']
    names = [f'{quality} < {edges[0]:.3f}']
    names += [f'{low:.3f} to {high:.3f}' for low, high in pairwise(edges)]
    return [*names, f'{quality} >= {edges[-1]:.3f}']
