"""Options and output of commands whose probes may be tracks of several faces."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import existing_file, quality_level
from .common import UsageError

if TYPE_CHECKING:
    from mmvlr.identification import Identification, TrackRule

FOLDER = 'folder'


def track_source(text: str) -> str | Path:
    """Return what names the track of each image: ``folder``, or a CSV file."""
    return FOLDER if text == FOLDER else existing_file(text)


def add_track_options(parser: argparse.ArgumentParser) -> None:
    """Add what says which faces are one probe, and how they become one."""
    group = parser.add_argument_group('tracks: probes of several faces')
    group.add_argument(
        '--tracks',
        type=track_source,
        metavar='folder|FILE',
        help='folder: the images of a folder are a track; or a CSV file with the columns '
        'file,track,medium. Each track is one probe and gets one answer',
    )
    group.add_argument(
        '--track-template',
        metavar='RULE',
        help='how the faces of a track become one probe: mean, norm, ri, best or media '
        '(default: that of the decision, else mean)',
    )
    group.add_argument(
        '--least',
        type=quality_level,
        action='append',
        default=[],
        metavar='QUALITY=VALUE',
        help='leave out the faces of a track whose quality is lower, such as ri=0.4',
    )


def read_rule(args: argparse.Namespace) -> 'TrackRule | None':
    """Return the rule that the options describe; None for that of the decision.

    Raises:
        UsageError: There are options for tracks, but no tracks.
    """
    if args.track_template is None and not args.least:
        return None
    if args.tracks is None:
        raise UsageError('--track-template and --least go with --tracks')
    from mmvlr.identification import TrackRule

    return TrackRule(args.track_template or 'mean', dict(args.least))


def add_tracks(rows: list[dict[str, Any]], done: 'Identification', quality: str | None) -> None:
    """Add the numbers of faces and the best shot to the rows of tracks.

    Tracks without a used face get a row of their own at the end.
    """
    tracks = done.tracks
    best, names = tracks.best_shots(quality), tracks.faces.names
    for row, images, used in zip(
        rows, tracks.probes.columns['images'], tracks.probes.columns['used'], strict=True
    ):
        row |= dict(images=int(images), used=int(used), best_shot=names[best[row['name']]])
    for track, count in tracks.empty.items():
        reason = done.rule.tell_empty(count)
        changes = done.rule.find_changes(tracks.faces.take(tracks.rows(track)))
        if changes:
            reason += f' The highest is {changes[0].value:.3f}.'
        row = dict(name=track, candidates=[], images=count, used=0, best_shot=names[best[track]])
        row |= dict(outcome='abstain', person=None, reason=reason, threshold=None)
        rows.append(row | dict(changes=[change.describe() for change in changes]))
