"""Layouts of person re-identification sets."""

import re
from collections import defaultdict
from pathlib import Path

from mmvlr.datasets.base import require_folder
from mmvlr.datasets.finding import IMAGE_SUFFIXES

from .align_tree import files_below

#: LPW: scenes, views, people; the crops are called by their frame.
LPW = re.compile(r'(?P<track>scen\d/view\d/[^/]+)/[^/]+')
#: MARS: person (-1 as 00-1), camera, track, frame.
MARS = re.compile(r'bbox_train/[^/]+/(?P<track>[^/]+C\d+T\d+)F\d+\.\w+')
FOLDER = re.compile(r'(?:(?P<track>.+)/)?[^/]+')
LAYOUTS = {
    'lpw': (LPW, 'scen{1,2,3}/view{1..4}/<person>/*.jpg'),
    'mars': (MARS, 'bbox_train/<person>/<person>C<camera>T<track>F<frame>.jpg'),
    'folder': (FOLDER, 'any folders of images; each folder is a track'),
}


def natural_key(name: str) -> list[tuple[str, int]]:
    """Return a sort key under which ``f9`` stands before ``f10``."""
    return [(text, int(number or 0)) for text, number in re.findall(r'(\D*)(\d*)', name)]


def scan_people(src: Path, layout: str) -> tuple[dict[str, str], dict[str, list[str]]]:
    """List the person images of a layout.

    - ``lpw``, Labeled Pedestrian in the Wild (Song et al., AAAI 2018): 2,731 people in 7,694
      sequences, three scenes, the first with three views and the others with four; images are
      scaled to 256 x 128 (folder ``pep_256x128``). A number means the same person in all views of
      a scene. SRC is the folder that holds ``scen1``.
    - ``mars`` (Zheng et al., ECCV 2016): 1,261 people, six cameras, images of 256 x 128. SRC
      holds ``bbox_train``; the test people of ``bbox_test`` are left alone.
    - ``folder``: anything.

    Returns:
        Image -> track, in the order of tracks and frames, and what was left out.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: No image fits the layout.
    """
    pattern, described = LAYOUTS[layout]
    require_folder(src, f'UI set from {layout}', described)
    tracks: dict[str, str] = {}
    left_out: dict[str, list[str]] = defaultdict(list)
    for name in files_below(src):
        fits = pattern.fullmatch(name)
        if Path(name).suffix.lower() not in IMAGE_SUFFIXES:
            left_out['files that are no images'].append(name)
        elif fits is None:
            left_out[f'images outside the layout {described}'].append(name)
        else:
            tracks[name] = fits['track'] or ''
    if not tracks:
        raise ValueError(f'no image under {src} in the layout {described}')
    order = sorted(tracks, key=lambda name: (natural_key(tracks[name]), natural_key(name)))
    return {name: tracks[name] for name in order}, left_out


def take_every_nth(tracks: dict[str, str], step: int) -> tuple[dict[str, str], list[str]]:
    """Take every ``step``-th image of each track.

    Returns:
        Image -> track, in the same order, and the other images.
    """
    place: dict[str, int] = defaultdict(int)
    taken, skipped = {}, []
    for name, track in tracks.items():
        if place[track] % step:
            skipped.append(name)
        else:
            taken[name] = track
        place[track] += 1
    return taken, skipped
