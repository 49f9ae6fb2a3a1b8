"""Study tracks of a video: ``python projects/studies/track_video.py tracks FACES FRAMES``.

A video is made of real faces, which move over frames of a street: everybody walks in an arc from
edge to edge at a speed of their own, larger or smaller, and shows another of their images every
half second. So it is known who is where. ``FACES`` is a folder of images, the person of which is
what ``--person`` finds in the path, and ``FRAMES`` one of frames. The verb ``mmvlr track`` runs on
the video as users run it.

``tracks``: recall of faces and people, purity of tracks, switches (the track of a person changes
from one found face to the next), tracks of nobody, and frames a second, by ``--every``.
``memory``: resident memory at the start, in the middle and at the end of a long video, without a
detector, whose place is taken by who is where.
``kill``: a run that is killed again and again against an uninterrupted one, file by file.
"""

import mmvlr  # noqa: F401  # isort: skip

import argparse
import csv
import hashlib
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np

from mmvlr.cli.common import tell_errors
from mmvlr.datasets.finding import find_images
from mmvlr.datasets.transforms import read_image
from mmvlr.preparation import Detection, TrackSettings, open_frames, track_faces

#: Overlap from which on a box is that of a face.
OVERLAP = 0.3


@dataclass
class Walk:
    """How a person goes through the video.

    Attributes:
        person: Who it is.
        images: RGB images of the person, shown one after the other.
        begin: First frame.
        length: Number of frames.
        start: (x, y) of the middle of the face at the beginning.
        move: (x, y) from there to the end.
        bow: Height of the arc in pixels.
        sides: Longer side of the face at the beginning and at the end, in pixels.
    """

    person: str
    images: list[np.ndarray]
    begin: int
    length: int
    start: np.ndarray
    move: np.ndarray
    bow: float
    sides: tuple[float, float]

    def place(self, number: int, rate: float) -> tuple[np.ndarray, tuple[float, ...]] | None:
        """Return the scaled image and the box (x1, y1, x2, y2) in a frame; None if absent."""
        if not 0 <= number - self.begin < self.length:
            return None
        share = (number - self.begin) / self.length
        x, y = self.start + share * self.move + (0, self.bow * np.sin(np.pi * share))
        side = self.sides[0] + share * (self.sides[1] - self.sides[0])
        image = self.images[int((number - self.begin) / rate * 2) % len(self.images)]
        scale = side / max(image.shape[:2])
        size = [max(1, round(length * scale)) for length in image.shape[1::-1]]
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        box = x - size[0] / 2, y - size[1] / 2, x + size[0] / 2, y + size[1] / 2
        return cv2.resize(image, size, interpolation=how), box


def choose_walks(args: argparse.Namespace) -> list[Walk]:
    """Return the walks of the people."""
    rng = np.random.default_rng(args.seed)
    images = defaultdict(list)
    for path in find_images(args.faces).images:
        if match := re.search(args.person, path.relative_to(args.faces).as_posix()):
            images[match[1]].append(path)
    people = sorted(who for who, paths in images.items() if len(paths) >= args.images)
    frames = round(args.seconds * args.fps)
    walks = []
    for index, who in enumerate(rng.permutation(people)[: args.people]):
        length = round(rng.uniform(4, 8) * args.fps)
        begin = round(index / args.people * (frames - length))
        left = rng.random() < 0.5
        start = np.array([0.04 if left else 0.96, rng.uniform(0.15, 0.85)])
        end = np.array([0.96 if left else 0.04, rng.uniform(0.15, 0.85)])
        size = np.array([args.width, args.height])
        sides = tuple(rng.uniform(*args.sizes, 2))
        read = [read_image(str(path)) for path in sorted(images[who])[: args.images]]
        move, bow = (end - start) * size, rng.uniform(-0.15, 0.15) * args.height
        walks.append(Walk(who, read, begin, length, start * size, move, bow, sides))
    return walks


def paste(frame: np.ndarray, image: np.ndarray, box: tuple[float, ...]) -> None:
    """Paste a face with soft edges, as far as it lies in the frame."""
    height, width = image.shape[:2]
    left, top = round(box[0]), round(box[1])
    x1, y1 = max(0, left), max(0, top)
    x2, y2 = min(frame.shape[1], left + width), min(frame.shape[0], top + height)
    if x1 >= x2 or y1 >= y2:
        return
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    mask = np.clip((1.15 - np.maximum(abs(rows), abs(columns)) ** 4) / 0.3, 0, 1)[..., None]
    inside = slice(y1 - top, y2 - top), slice(x1 - left, x2 - left)
    part = frame[y1:y2, x1:x2]
    part[:] = np.rint(mask[inside] * image[inside] + (1 - mask[inside]) * part)


def write_video(path: Path, args: argparse.Namespace) -> list[dict[str, tuple[float, ...]]]:
    """Write the video; return the box by person of every frame."""
    streets = [read_image(str(file)) for file in find_images(args.frames).images]
    size = args.width, args.height
    streets = [cv2.resize(street, size, interpolation=cv2.INTER_AREA) for street in streets]
    walks, truth = choose_walks(args), []
    rng = np.random.default_rng(args.seed)
    frames = round(args.seconds * args.fps)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('mpeg4', rate=args.fps)
        stream.width, stream.height, stream.pix_fmt = *size, 'yuv420p'
        stream.bit_rate = 8 * args.width * args.height
        noise = rng.normal(0, 2, (args.height + 64, args.width, 1))
        for number in range(frames):
            # One street all the time, as a fixed camera sees it, with the noise of a sensor.
            shift = number * 7 % 64
            frame = streets[0] + noise[shift : shift + args.height]
            frame = np.clip(frame, 0, 255).astype(np.uint8)
            boxes = {}
            for walk in walks:
                if (found := walk.place(number, args.fps)) is not None:
                    paste(frame, *found)
                    boxes[walk.person] = found[1]
            truth.append(boxes)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        container.mux(stream.encode(None))
    return truth


def run_track(video: Path, out: Path, args: argparse.Namespace, every: int) -> subprocess.Popen:
    """Start ``mmvlr track``."""
    words = [sys.executable, '-m', 'mmvlr', 'track', str(video), str(out), '--every', str(every)]
    words += ['--min-size', str(args.min_size), '--jobs', str(args.jobs), *args.options]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    quiet = dict(stderr=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    return subprocess.Popen(words, env=environment, **quiet)


def overlap(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """Return intersection over union of two boxes."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / (sum(areas) - shared)


def compare(table: Path, truth: list[dict[str, tuple[float, ...]]], every: int) -> dict[str, float]:
    """Compare a table of tracks with who was where."""
    people, who = defaultdict(list), defaultdict(Counter)
    with open(table, encoding='utf-8', newline='') as file:
        for row in csv.DictReader(file):
            box = tuple(float(row[name]) for name in ('x1', 'y1', 'x2', 'y2'))
            boxes = truth[int(row['frame'])]
            best = max(boxes, key=lambda person: overlap(boxes[person], box), default=None)
            if best is not None and overlap(boxes[best], box) < OVERLAP:
                best = None
            who[row['track']][best] += 1
            if best is not None:
                people[best].append((int(row['frame']), row['track']))
    there = Counter(person for boxes in truth[::every] for person in boxes)
    switches = sum(
        first[1] != second[1]
        for rows in people.values()
        for first, second in pairwise(sorted(rows))
    )
    named = {track: found for track, found in who.items() if found.most_common(1)[0][0] is not None}
    right = sum(found.most_common(1)[0][1] for found in named.values())
    return {
        'faces': sum(there.values()),
        'found in tracks, %': 100 * sum(map(len, people.values())) / sum(there.values()),
        'people': len(there),
        'people with a track': len({found.most_common(1)[0][0] for found in named.values()}),
        'tracks': len(who),
        'tracks of nobody': len(who) - len(named),
        'tracks of several people': sum(len({*found} - {None}) > 1 for found in who.values()),
        'crops of their track, %': 100 * right / max(1, sum(f.total() for f in named.values())),
        'switches': switches,
    }


def study_tracks(args: argparse.Namespace, folder: Path) -> None:
    """Print the table of recall, switches and speed."""
    video = folder / 'video.mp4'
    truth = write_video(video, args)
    print(f'{len(truth)} frames of {args.width} x {args.height}, {args.fps} a second')
    columns = []
    for every in args.every:
        out = folder / f'every_{every}'
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = run_track(video, out, args, every)
        said = started.communicate()[0]
        if started.returncode:
            raise RuntimeError(f'mmvlr track ended with {started.returncode}: {said}')
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        columns.append(compare(out / 'tracks.csv', truth, every))
        columns[-1] |= {
            'frames a second': re.search(r'([\d.,]+) a second', said)[1],
            'seconds of a core a frame, the start included': f'{used / len(truth[::every]):.2f}',
        }
    print('| | ' + ' | '.join(f'every {every}' for every in args.every) + ' |')
    print('|---|' + '---:|' * len(columns))
    for name in columns[0]:
        cells = [column[name] for column in columns]
        shown = [f'{cell:.1f}' if isinstance(cell, float) else str(cell) for cell in cells]
        print(f'| {name} | ' + ' | '.join(shown) + ' |')


def resident(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    text = Path(f'/proc/{pid}/status').read_text(encoding='ascii')
    return int(re.search(r'VmRSS:\s+(\d+)', text)[1]) / 1024


def study_memory(args: argparse.Namespace, folder: Path) -> None:
    """Print the memory over a long video, with who is where in the place of a detector."""
    video, samples = folder / 'video.mp4', []
    truth = write_video(video, args)
    boxes = iter(truth[:: args.every[0]])

    def find(pixels: np.ndarray) -> list[Detection]:
        samples.append(resident(os.getpid()))
        return [Detection(box, 0.99, None) for box in next(boxes).values()]

    settings = TrackSettings(every=args.every[0], best=args.best)
    report = track_faces(open_frames(video, args.every[0]), folder / 'out', settings, find)
    print(
        f'{args.seconds / 60:.1f} minutes of video, {report.frames} frames, {report.tracks} tracks'
    )
    places = {share: round(samples[int(share * (len(samples) - 1))]) for share in (0.1, 0.5, 1)}
    print('MiB by share of the frames:', places)


def digest(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file that is no note of mmvlr's."""
    files = (path for path in folder.rglob('*') if path.is_file() and path.name[0] != '.')
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def study_kill(args: argparse.Namespace, folder: Path) -> None:
    """Kill a run again and again and compare it with an uninterrupted one."""
    video = folder / 'video.mp4'
    frames = len(write_video(video, args)[:: args.every[0]])
    whole = run_track(video, folder / 'whole', args, args.every[0])
    whole.communicate()
    kills, journal = 0, folder / 'killed' / '.frames.jsonl'
    for kill in range(1, args.kills + 1):
        started = run_track(video, folder / 'killed', args, args.every[0])
        wanted = frames * kill / (args.kills + 1)
        while started.poll() is None:
            lines = journal.read_bytes().count(b'\n') - 1 if journal.exists() else 0
            if lines >= wanted:
                started.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.02)
        started.communicate()
    last = run_track(video, folder / 'killed', args, args.every[0])
    print(last.communicate()[0])
    first, second = digest(folder / 'whole'), digest(folder / 'killed')
    print(
        f'{kills} kills; {len(first)} files, equal: {first == second}; exit code {last.returncode}'
    )


def main(argv: list[str] | None = None) -> int:
    """Run the study; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split(':')[0])
    studies = dict(tracks=study_tracks, memory=study_memory, kill=study_kill)
    parser.add_argument('study', choices=studies)
    parser.add_argument('faces', type=Path, help='folder of images of faces')
    parser.add_argument('frames', type=Path, help='folder of frames of a street')
    parser.add_argument('--person', default=r'(?:^|/)(\d+)_', help='finds the person in a path')
    parser.add_argument('--images', type=int, default=4, help='images of each person')
    parser.add_argument('--people', type=int, default=40)
    parser.add_argument('--seconds', type=float, default=40)
    parser.add_argument('--fps', type=int, default=25)
    parser.add_argument('--width', type=int, default=640)
    parser.add_argument('--height', type=int, default=360)
    parser.add_argument('--sizes', type=float, nargs=2, default=(20, 36), help='in pixels')
    parser.add_argument('--every', type=int, nargs='+', default=[1, 5])
    parser.add_argument('--min-size', type=float, default=12)
    parser.add_argument('--jobs', type=int, default=2)
    parser.add_argument('--best', type=int, help='memory: faces kept of each track')
    parser.add_argument('--kills', type=int, default=3)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--keep', type=Path, help='write the video and tracks to this new folder')
    parser.add_argument('--options', nargs=argparse.REMAINDER, default=[], help='of mmvlr track')
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) if args.keep is None else args.keep
        place.mkdir(exist_ok=True)
        studies[args.study](args, place)
    return 0


if __name__ == '__main__':
    sys.exit(tell_errors('track_video.py', main))
