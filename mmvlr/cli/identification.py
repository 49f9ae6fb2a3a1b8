"""``mmvlr enroll``, ``people``, ``calibrate`` and ``identify``."""

import argparse
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from mmvlr.utils.text import printable

from .arguments import (
    existing_file,
    existing_folder,
    existing_gallery,
    face_source,
    output_file,
    output_folder,
    positive,
)
from .common import (
    DONE,
    LEFT_OUT,
    Outcome,
    UsageError,
    add_model_options,
    count,
    left_out,
    load_inferencer,
    paragraphs,
    table,
)
from .operating import count_abstentions, tell_level, tell_operation
from .tracks import add_track_options, add_tracks, read_rule

if TYPE_CHECKING:
    from mmvlr.apis import FaceInferencer
    from mmvlr.identification import Gate

OUTCOMES = dict(
    accept='accept (it is the person named)',
    unknown='unknown (nobody of the gallery)',
    abstain='abstain (too poor or too close to tell)',
)
#: Share of answered faces below which a calibration is warned of.
FEW_ANSWERS = 0.2
KEEP_MODE = 'keep the permissions of a file that is there, also where others may read it'


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
        'remembers model and preprocessing, and refuses embeddings of others. Its file can be\n'
        'read by its owner alone, and several of these commands may run at once.',
    )
    enroll.add_argument('gallery', type=output_folder, help='folder of the gallery')
    enroll.add_argument(
        'faces', nargs='*', type=face_source, help='folder with a folder a person, or images'
    )
    owner = enroll.add_mutually_exclusive_group()
    owner.add_argument('--person', help='all the images are of this person')
    owner.add_argument(
        '--by-name', action='store_true', help='in the folder ann_1.jpg shows ann, and so on'
    )
    enroll.add_argument(
        '--template',
        help='how the images of a person become one template: mean, norm, ri, best or images '
        '(default for a new gallery: mean)',
    )
    enroll.add_argument('--remove', metavar='PERSON', action='append', default=[])
    enroll.add_argument(
        '--gate',
        type=existing_file,
        metavar='FILE',
        help='what mmvlr calibrate wrote: refuse images that --strangers match, or that are '
        'poorer than nearly all of these',
    )
    enroll.add_argument(
        '--strangers',
        nargs='+',
        type=face_source,
        metavar='FACES',
        help='with --gate: faces of people who are not enrolled, as --unmated of mmvlr calibrate',
    )
    enroll.add_argument(
        '--force',
        action='store_true',
        help='with --gate: enroll refused images all the same; the gallery remembers it',
    )
    enroll.add_argument('--keep-mode', action='store_true', help=KEEP_MODE)
    add_model_options(enroll)
    enroll.set_defaults(run=run_enroll)

    people = commands.add_parser(
        'people',
        help='who is in a gallery',
        description='List the people of a gallery with the number of their images, and the rule\n'
        'that makes templates of these.\n\n  mmvlr people gallery/',
    )
    people.add_argument('gallery', type=existing_gallery, help='folder of the gallery')
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
        '--fpir is accepted, on average over calibrations (conformal prediction). With --tracks,\n'
        'of new tracks of such people.',
    )
    calibrate.add_argument('gallery', type=existing_gallery, help='folder of the gallery')
    calibrate.add_argument('out', type=output_file, help='file to write (.json)')
    calibrate.add_argument('--unmated', nargs='+', type=face_source, required=True, metavar='FACES')
    calibrate.add_argument('--mated', type=existing_folder, metavar='FOLDER')
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
    add_track_options(calibrate)
    calibrate.add_argument('--name', help='what the faces are, for the record')
    calibrate.add_argument('--keep-mode', action='store_true', help=KEEP_MODE)
    add_model_options(calibrate)
    calibrate.set_defaults(run=run_calibrate)

    identify = commands.add_parser(
        'identify',
        help='who is it, among the people of a gallery',
        description='Search faces in a gallery.\n\n'
        '  mmvlr identify gallery/ crops/ --decision decision.json --model riface.safetensors\n\n'
        'With --decision every face gets a verdict: accept (it is the person), unknown (nobody of\n'
        'the gallery) or abstain (too poor or too close to tell). Without, the most similar\n'
        'people are listed. With --tracks, each track of faces gets one:\n\n'
        '  mmvlr identify gallery/ tracks/ --tracks folder --decision tracks.json --model ...',
    )
    identify.add_argument('gallery', type=existing_gallery, help='folder of the gallery')
    identify.add_argument('faces', nargs='+', type=face_source, help='images, folders and globs')
    identify.add_argument(
        '--decision', type=existing_file, metavar='FILE', help='what mmvlr calibrate wrote'
    )
    identify.add_argument('--top', type=positive, default=3, help='people to list')
    add_track_options(identify)
    identify.add_argument(
        '--best-shot',
        metavar='QUALITY',
        help='with --tracks: quality of the best shot that is named (default: ri, else the first)',
    )
    add_model_options(identify)
    identify.set_defaults(run=run_identify)


def run_enroll(args: argparse.Namespace) -> Outcome:
    """Enroll or remove people."""
    if not args.faces and not args.remove:
        raise UsageError('give images to enroll, or --remove PERSON')
    if args.person is None and len(args.faces) > 1:
        raise UsageError('give one folder with a folder for each person, or --person NAME')
    if (args.gate is None) != (args.strangers is None) or (args.force and args.gate is None):
        raise UsageError('--gate and --strangers go together, and --force goes with them')
    inferencer = load_inferencer(args) if args.faces else None
    from mmvlr.identification import Identifier

    gate = None
    if args.gate is not None and inferencer is not None:
        gate = read_gate(args, inferencer)
    identifier = Identifier(inferencer, args.gallery, keep_mode=args.keep_mode)
    faces = args.faces if args.person is not None or not args.faces else args.faces[0]
    done = identifier.enroll(
        faces or None,
        args.person,
        by_name=args.by_name,
        remove=args.remove,
        template=args.template,
        gate=gate,
        force=args.force,
    )
    document: dict[str, Any] = dict(gallery=str(args.gallery), people=done.people)
    document |= dict(enrolled=done.enrolled, removed=done.removed, notes=done.notes)
    document['shared'] = [
        dict(zip(('image', 'person', 'same_as', 'other_person'), pair, strict=True))
        for pair in done.shared
    ]
    document['refused'] = [dict(vars(refusal)) for refusal in done.refused]
    left, told, code = left_out(*([] if done.faces is None else [done.faces]))
    if done.refused:
        verb = 'enrolled by --force' if args.force else 'refused'
        told = paragraphs(
            '\n'.join(
                [f'{count(len(done.refused), "image")} {verb}:']
                + [f'  {r.image}: {" ".join(r.reasons)}' for r in done.refused[:10]]
                + (['  ... (--json lists all)'] if len(done.refused) > 10 else [])
            ),
            told,
        )
        code = code or (DONE if args.force else LEFT_OUT)
    text = f'{args.gallery}: {count_people(done.people)}'
    if done.enrolled:
        images = count(sum(done.enrolled.values()), 'image')
        text += f'; {images} of {count_people(len(done.enrolled))} enrolled'
    if done.removed:
        text += f'; removed: {", ".join(map(printable, done.removed))}'
    return Outcome(document | left, paragraphs(text, *map(printable, done.notes), told), code)


def read_gate(args: argparse.Namespace, inferencer: 'FaceInferencer') -> 'Gate':
    """Return the gate that the options of ``enroll`` describe."""
    from mmvlr.identification import Decision, Gate
    from mmvlr.identification.people import find_strangers

    decision = Decision.load(args.gate, inferencer.fingerprint)
    strangers = inferencer.embed(args.strangers)
    return Gate(decision, strangers, find_strangers(strangers.names, args.strangers))


def run_people(args: argparse.Namespace) -> Outcome:
    """List the people of a gallery."""
    from mmvlr.identification import Gallery

    gallery = Gallery.load(args.gallery)
    rows = [dict(person=person, images=count) for person, count in gallery.counts.items()]
    document = dict(people=rows, template=gallery.template, fingerprint=gallery.fingerprint)
    images, template = count(gallery.num_images, 'image'), gallery.template['type']
    text = f'{count_people(len(gallery))}, {images}, {template}'
    return Outcome(document, paragraphs(table(['person', 'images'], rows), text))


def run_identify(args: argparse.Namespace) -> Outcome:
    """Search faces in a gallery."""
    if args.best_shot and args.tracks is None:
        raise UsageError('--best-shot goes with --tracks')
    rule, inferencer = read_rule(args), load_inferencer(args)
    from mmvlr.identification import Identifier

    identifier = Identifier(inferencer, args.gallery, args.decision)
    done = identifier.identify(args.faces, top=args.top, tracks=args.tracks, rule=rule)
    left, told, code = left_out(done.faces if done.tracks is None else done.tracks.faces)
    rows, shown = done.faces.rows(), []
    columns = ['name', 'candidates'] if done.verdicts is None else ['name', 'verdict', 'candidates']
    for number, row in enumerate(rows):
        row['candidates'] = [
            dict(person=person, similarity=float(value))
            for person, value in zip(
                done.matches.person[number], done.matches.similarity[number], strict=True
            )
            if person
        ]
        found = [f'{c["person"]} {c["similarity"]:.3f}' for c in row['candidates']]
        shown.append(dict(name=row['name'], candidates=', '.join(found)))
        if done.verdicts is not None:
            verdict = done.verdicts[number]
            row |= dict(outcome=verdict.outcome, person=verdict.person, reason=verdict.reason)
            row['threshold'] = finite(verdict.threshold)
            row['changes'] = [change.describe() for change in verdict.changes]
            if done.chances is not None:
                chance, low, high = done.chances[number].tolist()
                row |= dict(probability=chance, probability_low=low, probability_high=high)
                shown[-1]['right'] = f'{chance:.0%} ({low:.0%} to {high:.0%})'
            shown[-1] |= dict(verdict=verdict.outcome, candidates=', '.join(found[:1]))
            shown[-1]['reason'] = verdict.reason
    thing, outcomes = 'face', Counter(verdict.outcome for verdict in done.verdicts or ())
    if done.tracks is not None:
        thing, number = 'track', len(rows)
        add_tracks(rows, done, args.best_shot)
        for row in rows[number:]:
            shown.append(dict(name=row['name'], verdict='abstain', reason=row['reason']))
            outcomes['abstain'] += 1
        for row, line in zip(rows, shown, strict=True):
            line |= dict(faces=f'{row["used"]} of {row["images"]}')
            line['best shot'] = row['best_shot']
        columns[1:1] = ['faces']
    document = dict(faces=rows, notes=[done.note] if done.note else []) | left
    note = done.note and f'Warning: {done.note}.'
    columns += ['best shot'] if done.tracks is not None else []
    columns += ['right'] if done.chances is not None else []
    columns += [] if done.verdicts is None else ['reason']
    total = count(len(rows), thing)
    if done.verdicts is not None:
        document['counts'] = {name: outcomes[name] for name in ('accept', 'unknown', 'abstain')}
        total += ': ' + ', '.join(f'{outcomes[name]} {told}' for name, told in OUTCOMES.items())
        document['abstained_for'], reasons = count_abstentions(rows)
        total += reasons
        if done.chances is not None:
            total += '\nright: probability that it is the person named, with a 95% interval'
    else:
        total += '. Similarities are no verdict: mmvlr calibrate makes what --decision takes'
    return Outcome(document, paragraphs(table(columns, shown), total, note, told), code)


def count_people(number: int) -> str:
    """Return a number of people."""
    return '1 person' if number == 1 else f'{number:,} people'


def finite(value: float | None) -> float | None:
    """Return a number that JSON knows: None for infinity."""
    return None if value is None or abs(value) == float('inf') else float(value)


def run_calibrate(args: argparse.Namespace) -> Outcome:
    """Calibrate a decision."""
    if args.error is not None and args.mated is None:
        raise UsageError('--error needs --mated: poor faces of known people')
    rule, inferencer = read_rule(args), load_inferencer(args)
    from mmvlr.identification import Identifier, UnknownOwnerError

    identifier = Identifier(inferencer, args.gallery)
    try:
        done = identifier.calibrate(
            args.unmated,
            args.mated,
            target_fpir=args.fpir,
            target_error=args.error,
            quality=args.quality,
            abstain_by=args.abstain_by,
            name=args.name or ' '.join(args.unmated),
            tracks=args.tracks,
            rule=rule,
        )
    except UnknownOwnerError as error:
        raise UsageError(str(error)) from error
    decision = done.decision
    decision.save(args.out, keep_mode=args.keep_mode)
    left, told, code = left_out(*done.faces)
    bins = [
        dict(quality=text, threshold=one.threshold, people=one.num_people, faces=one.num_faces)
        for text, one in zip(
            bin_names(decision.bin_quality, decision.thresholds.edges),
            decision.thresholds.thresholds,
            strict=True,
        )
    ]
    document = dict(out=str(args.out), target_fpir=args.fpir, bins=bins) | left
    document['calibrated_on'] = dict(decision.calibrated_on)
    document['people_without_images'] = done.empty
    worst = max(threshold.realized_fpir(0.9) for threshold in decision.thresholds.thresholds)
    probes = 'faces' if args.tracks is None else 'tracks'
    text = (
        f'{args.out}: of {probes} of people who are not enrolled at most {args.fpir:.1%} is '
        f'accepted, on average over\ncalibrations; by this one the true share is below {worst:.1%} '
        'with a probability of 90%.'
    )
    abstention = ''
    if decision.level is not None:
        document['abstention'] = dict(
            quality=args.abstain_by,
            level=finite(decision.level.level),
            error=decision.level.error,
            coverage=decision.level.coverage,
        )
        abstention = tell_level(args.abstain_by, decision.level)
        if decision.level.coverage < FEW_ANSWERS:
            document['warnings'] = [
                f'only {decision.level.coverage:.0%} of such faces get an answer: take a higher '
                '--error, another --abstain-by, better images, or a better model'
            ]
            abstention += f'\nWARNING: {document["warnings"][0]}.'
    if done.left:
        document['unused_tracks'] = sorted(done.left)
        abstention += f'\n{count(len(done.left), "track")} without a used face do not count'
    operating = tell_operation(decision.calibrated_on.get('operating'))
    names = ', '.join(map(printable, done.empty[:5]))
    notes = f'without an image: {count_people(len(done.empty))} ({names})' if done.empty else ''
    lines = [line | {probes: line['faces']} for line in bins]
    shown = table(['quality', 'threshold', 'people', probes], lines)
    return Outcome(document, paragraphs(text, shown, operating, abstention, notes, told), code)


def bin_names(quality: str | None, edges: Sequence[float]) -> list[str]:
    """Return what each quality bin holds, for a reader."""
    if not edges:
        return ['any']
    names = [f'{quality} < {edges[0]:.3f}']
    names += [f'{low:.3f} to {high:.3f}' for low, high in pairwise(edges)]
    return [*names, f'{quality} >= {edges[-1]:.3f}']
