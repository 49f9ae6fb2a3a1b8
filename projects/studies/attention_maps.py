r"""Measure where networks look: maps of activation and attention against landmarks.

  python projects/studies/attention_maps.py DATA OUT --model arcface=FILE --model riface=FILE \
      --turned '_1[1-4]\.'

DATA is a folder in TinyFace's layout. Of each drawn probe MTCNN finds the landmarks; probes without
are counted and left out. The maps are Grad-CAM of the cosine to the person's mean gallery embedding
and, of a network with an attention module, its spatial attention and Grad-CAM of its attended
embedding. For each map, scaled to its own range:

- ``face``: share of its mass in the face, an ellipse around eyes and mouth; ``parts``: in disks
  around eyes, nose and corners of the mouth. The row ``uniform`` is the area of each.
- ``deletion``: mean similarity while the highest positions are blurred first, tenth by tenth, and
  ``insertion`` while they are the first to be put back into the blurred face. A map that finds what
  matters has a low deletion and a high insertion. ``center`` is a fixed bump in the middle of the
  image: a map that is not better than it says nothing about the face.
- ``follows``: correlation of the horizontal centers of map and landmarks, over all probes.

OUT.csv holds each number with its 95 % interval from resampling people, and differences to
``--base``; OUT.png the maps of some probes.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import mmvlr  # noqa: F401  # isort: skip

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from rich.progress import track

from mmvlr.apis import load_model
from mmvlr.cli.arguments import positive
from mmvlr.cli.common import tell_errors
from mmvlr.datasets import TinyFace
from mmvlr.datasets.transforms import read_image
from mmvlr.datasets.transforms.geometric import resize
from mmvlr.evaluation.functional import resample
from mmvlr.models.activation import activation_maps
from mmvlr.models.recognizers import FaceRecognizer
from mmvlr.preparation.detection import MTCNNDetector, main_face
from mmvlr.reports.faces import overlay_attention
from mmvlr.utils.io import write_atomic, write_csv
from mmvlr.utils.vectors import unit_rows

SIZE, STEPS, BATCH, SHOWN = 112, 10, 33, 10


class Probes:
    """Probes with landmarks, and the gallery images of their people."""

    def __init__(self, root: Path, count: int, turned: str, seed: int):
        data = [dict(info) for info in TinyFace(data_root=str(root), split='test')]
        probes = [info for info in data if info['role'] == 'probe']
        np.random.default_rng(seed).shuffle(probes)
        detector, kept = MTCNNDetector(), []
        self.missed = 0
        groups = dict(turned=[], others=[]) if turned else dict(others=[])
        for info in probes:
            group = 'turned' if turned and re.search(turned, info['img_path']) else 'others'
            if len(groups[group]) == count // len(groups):
                continue
            image = read_image(info['img_path'])
            face = main_face(detector.detect([image])[0], image.shape)
            if face is None:
                self.missed += 1
                continue
            groups[group].append(len(kept))
            scale = np.array([SIZE / image.shape[1], SIZE / image.shape[0]])
            points = (face.landmarks + 0.5) * scale - 0.5
            kept.append((resize(image, (SIZE, SIZE)), points, info['identity']))
        self.images, self.landmarks, self.people = (
            np.array(part) for part in zip(*kept, strict=True)
        )
        self.groups = {name: np.array(rows) for name, rows in groups.items()} | dict(
            all=np.arange(len(kept))
        )
        gallery = [info for info in data if info['role'] == 'gallery']
        gallery = [info for info in gallery if info['identity'] in set(self.people.tolist())]
        self.gallery_people = np.array([info['identity'] for info in gallery])
        self.gallery = np.array(
            [resize(read_image(info['img_path']), (SIZE, SIZE)) for info in gallery]
        )

    def regions(self) -> dict[str, np.ndarray]:
        """Return the masks (N, SIZE, SIZE) of the faces and of their parts."""
        y, x = np.mgrid[:SIZE, :SIZE]
        eyes, mouth = self.landmarks[:, :2].mean(1), self.landmarks[:, 3:].mean(1)
        height = np.linalg.norm(mouth - eyes, axis=1)[:, None, None]
        middle = ((eyes + mouth) / 2)[:, :, None, None]
        face = ((x - middle[:, 0]) / (0.95 * height)) ** 2
        face = face + ((y - middle[:, 1]) / (1.2 * height)) ** 2 <= 1
        at = self.landmarks[:, :, :, None, None]
        parts = np.hypot(x - at[:, :, 0], y - at[:, :, 1]) <= 0.3 * height[:, None]
        return dict(face=face, parts=parts.any(1))


def embed(model: FaceRecognizer, images: np.ndarray, kind: str = 'embedding') -> torch.Tensor:
    """Return the unit embeddings (N, D) of images (N, H, W, 3)."""
    with torch.no_grad():
        found = [
            model.plain_predictions(prepare(model, images[start : start + BATCH]))[kind]
            for start in range(0, len(images), BATCH)
        ]
    return F.normalize(torch.cat(found), dim=1)


def prepare(model: FaceRecognizer, images: np.ndarray) -> torch.Tensor:
    """Return network input (N, 3, H, W) of images (N, H, W, 3)."""
    batch = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    return model.data_preprocessor(dict(inputs=batch))['inputs']


def find_templates(model: FaceRecognizer, probes: Probes) -> np.ndarray:
    """Return the unit template (N, D) of each probe's person."""
    gallery = embed(model, probes.gallery).numpy()
    means = [gallery[probes.gallery_people == person].mean(0) for person in probes.people]
    return unit_rows(np.array(means))


def make_maps(model: FaceRecognizer, probes: Probes) -> dict[str, np.ndarray]:
    """Return each map (N, SIZE, SIZE) of a network by name."""
    inputs = prepare(model, probes.images)
    batches = range(0, len(inputs), BATCH)

    def explain() -> np.ndarray:
        templates = find_templates(model, probes)
        parts = [
            activation_maps(model, inputs[b : b + BATCH], templates[b : b + BATCH]) for b in batches
        ]
        return np.concatenate(parts)

    maps = {'Grad-CAM': explain()}
    if getattr(model, 'attention', None) is None:
        return maps
    with torch.no_grad():
        spatial = torch.cat(
            [
                model.attention.attention(model.extract_feat(inputs[b : b + BATCH])[0])[1]
                for b in batches
            ]
        )
    spatial = F.interpolate(spatial, (SIZE, SIZE), mode='bilinear')[:, 0].numpy()
    maps['attention'] = spatial
    usual, model.inference_embedding = model.inference_embedding, 'attention'
    maps['Grad-CAM of the attended embedding'] = explain()
    model.inference_embedding = usual
    return maps


def scale(maps: np.ndarray) -> np.ndarray:
    """Scale each map to [0, 1]; a constant one becomes 1 everywhere."""
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    return np.where(high > low, (maps - low) / np.maximum(high - low, 1e-12), 1.0)


def measure(
    maps: np.ndarray, probes: Probes, similarity: Callable[[np.ndarray], np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the numbers (N,) of each map."""
    maps = scale(maps)
    mass = maps / maps.sum((1, 2), keepdims=True)
    found = {name: (mass * mask).sum((1, 2)) for name, mask in probes.regions().items()}
    found['center_x'] = (mass.sum(1) * np.arange(SIZE)).sum(1)
    found['face_x'] = probes.landmarks[:, :, 0].mean(1)
    blurred = np.array([cv2.GaussianBlur(image, (0, 0), 12) for image in probes.images])
    # Ties are broken in the same, random order for every map.
    noise = np.random.default_rng(0).random(maps.shape) * 1e-6
    rank = np.argsort(np.argsort(-(maps + noise).reshape(len(maps), -1), axis=1), axis=1)
    rank = rank.reshape(maps.shape)[..., None] / rank[0].size
    for name, first, then in (
        ('deletion', blurred, probes.images),
        ('insertion', probes.images, blurred),
    ):
        curve = [
            similarity(np.where(rank < step / STEPS, first, then)) for step in range(STEPS + 1)
        ]
        found[name] = np.trapezoid(curve, axis=0) / STEPS
    return found


def summarize(values: np.ndarray) -> dict[str, float]:
    """Return the mean of each column, and how far maps follow faces."""
    if not len(values):
        return {}
    names = ('face', 'parts', 'deletion', 'insertion')
    found = dict(zip(names, values[:, :4].mean(0).tolist(), strict=True))
    moved = values[:, 4:].std(0).min() > 1e-9
    follows = float(np.corrcoef(values[:, 4], values[:, 5])[0, 1]) if moved else 0.0
    return found | dict(follows=follows)


def list_rows(
    numbers: Mapping[str, dict[str, np.ndarray]], probes: Probes, base: str
) -> list[dict]:
    """Return the rows of the table: each number of each map and group, with intervals."""
    rows = []
    for group, chosen in probes.groups.items():
        drawn = {
            name: resample(
                np.stack([found[k] for k in KEYS], 1)[chosen], probes.people[chosen], summarize
            )
            for name, found in numbers.items()
        }
        for name, one in drawn.items():
            against = one.minus(drawn[base]) if base in drawn and name != base else {}
            for measure_name, value in one.intervals().items():
                row = dict(group=group, map=name, number=measure_name, value=value.estimate)
                row |= dict(low=value.low, high=value.high)
                if measure_name in against:
                    other = against[measure_name]
                    row |= dict(minus_base=other.difference)
                    row |= dict(minus_base_low=other.low, minus_base_high=other.high)
                rows.append(row)
    return rows


KEYS = ('face', 'parts', 'deletion', 'insertion', 'center_x', 'face_x')


def main() -> int:
    """Measure, write the table and the sheet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('data', type=Path)
    parser.add_argument('out', type=Path)
    parser.add_argument('--model', action='append', required=True, metavar='NAME=FILE')
    parser.add_argument('--turned', default='', help='pattern of names of turned faces')
    parser.add_argument('--count', type=positive, default=300, help='probes, half of each kind')
    parser.add_argument('--base', default='arcface: Grad-CAM')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    probes = Probes(args.data, args.count, args.turned, args.seed)
    print(f'{len(probes.images)} probes; {probes.missed} without landmarks left out')
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    fixed = dict(center=np.exp(-(x**2 + y**2) / (2 * 25**2)), uniform=np.ones((SIZE, SIZE)))
    numbers, shown = {}, {}
    for text in track(args.model, 'networks'):
        name, _, path = text.partition('=')
        model = load_model(path).eval()
        maps = make_maps(model, probes)
        for kind, values in maps.items():
            shown[f'{name}: {kind}'] = values
        if not any(key.startswith('center') for key in numbers):
            maps |= {k: np.broadcast_to(v, probes.images.shape[:3]) for k, v in fixed.items()}
        for kind, values in maps.items():
            attended = kind in ('attention', 'Grad-CAM of the attended embedding')
            usual = model.inference_embedding if attended else None
            if attended:
                model.inference_embedding = 'attention'
            templates = torch.from_numpy(find_templates(model, probes)).float()

            def similarity(
                images: np.ndarray, model: FaceRecognizer = model, templates=templates
            ) -> np.ndarray:
                return (embed(model, images.astype(np.uint8)) * templates).sum(1).numpy()

            label = f'{kind} ({name})' if kind in fixed else f'{name}: {kind}'
            numbers[label] = measure(values, probes, similarity)
            if attended:
                model.inference_embedding = usual
    rows = list_rows(numbers, probes, args.base)
    write_csv(args.out.with_suffix('.csv'), list(dict.fromkeys(k for r in rows for k in r)), rows)
    for row in rows:
        print(
            f'{row["group"]:7} {row["map"]:45} {row["number"]:10} {row["value"]:7.3f} '
            f'({row["low"]:.3f} to {row["high"]:.3f})'
        )
    columns = np.concatenate([rows[: SHOWN // 2] for rows in list(probes.groups.values())[:-1]])
    sheet = [np.concatenate(probes.images[columns], 1)]
    for values in shown.values():
        faces = [overlay_attention(probes.images[i], values[i], SIZE) for i in columns]
        sheet.append(np.concatenate(faces, 1))
    write_atomic(args.out.with_suffix('.png'), Image.fromarray(np.concatenate(sheet)).save)
    print('rows of the sheet: faces, then', ', '.join(shown))
    return 0


if __name__ == '__main__':
    sys.exit(tell_errors('attention_maps.py', main))
