"""The page: two faces, or a face and a gallery; how alike, how recognizable, and what follows."""

import contextlib
import copy
import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from mmvlr.apis.images import as_rgb
from mmvlr.apis.inferencer import FaceInferencer
from mmvlr.apis.network import TorchNetwork
from mmvlr.datasets.transforms import ImageError, read_image
from mmvlr.identification import Comparison, Decision, Gallery, Identifier
from mmvlr.reports.faces import find_border, overlay_attention, resize_longer_side
from mmvlr.reports.page import embed_image
from mmvlr.structures.face_table import MEASURES, FaceTable
from mmvlr.utils.contract import tell_training

if TYPE_CHECKING:
    from jinja2 import Template

Face = str | Path | np.ndarray
#: Longer side of the shown images in pixels.
_SHOWN = 224
_OUTCOMES = dict(
    accept='Probably {person}',
    unknown='Nobody of the gallery resembles it enough',
    abstain='No answer',
)


_AT_BORDER = (
    'The colors below are strongest at the border of the image instead of on the face: they do not '
    'say what speaks for the answer.'
)


class FacePage:
    """What the page says, without the page: plain functions from images to images and HTML.

    Args:
        inferencer: The model.
        gallery: People to search among; None: those whose images are dropped on the page.
        decision: Thresholds and calibration set; None: similarities are shown without a verdict.
        images: Folder with the images that were enrolled, to show one of each person found; the
            gallery holds none. See :func:`find_enrolled`.
    """

    def __init__(
        self,
        inferencer: FaceInferencer,
        gallery: Gallery | None = None,
        decision: Decision | None = None,
        images: Path | None = None,
    ):
        self.inferencer = inferencer
        self.images = images
        self._files: Counter[str] = Counter()
        if images is not None and gallery is not None:
            names = (name for person in gallery.people for name in gallery.images(person)[0])
            self._files.update(Path(name).name for name in names)
        self.gallery = gallery
        self.decision = decision
        self.identifier = Identifier(inferencer, gallery, decision)

    def compare(
        self, first: Face | None, second: Face | None
    ) -> tuple[str, np.ndarray | None, np.ndarray | None]:
        """Compare two faces.

        Args:
            first: Path or (H, W, 3) uint8 RGB, or None as long as there is none.
            second: The same.

        Returns:
            What is said, as HTML, and both faces with what carries their similarity.
        """
        if first is None or second is None:
            return 'Drop two faces.', None, None
        pixels = [_pixels(first), _pixels(second)]
        found = self.identifier.verify(*pixels)
        faces = found.faces
        told = self._tell(*self._judge(found), faces, ('first', 'second'), self._level_quality)
        references = faces.embedding[::-1].copy()
        note, *images = self._attention(pixels, references)
        return told + note, *images

    def identify(
        self, face: Face | None, people: Sequence[str] | None = None
    ) -> tuple[str, np.ndarray | None]:
        """Search a face among the people of the gallery or of dropped files.

        Args:
            face: Path or (H, W, 3) uint8 RGB, or None as long as there is none.
            people: Paths of images named as the person, ``Ann.jpg`` or ``Ann_2.jpg``; they
                stand in for the gallery.

        Returns:
            What is said, as HTML, and the face with what carries the similarity to the best match.
        """
        if face is None or not (people or self.gallery):
            return 'Drop a face, and the images of people.', None
        if people:
            identifier = self._dropped(people)
        else:
            # Others may change the gallery meanwhile; a copy stays what it is.
            identifier = Identifier(self.inferencer, copy.copy(self.gallery), self.decision)
        pixels = _pixels(face)
        answer = identifier.identify(pixels, top=5)
        faces, matches = answer.faces, answer.matches
        found = list(zip(matches.person[0], matches.similarity[0].tolist(), strict=True))
        person, similarity = found[0]
        decided: tuple[str, ...] = ()
        if answer.verdicts is None:
            verdict = f'Most similar: {person}, {similarity:.3f}'
            reason = self._uncalibrated
            if self.decision is not None:
                reason = 'The calibration is of another gallery: no verdict.'
        else:
            (given,) = answer.verdicts
            verdict = _OUTCOMES[given.outcome].format(person=person)
            reason = given.reason + (f' Warning: {answer.note}.' if answer.note else '')
            if answer.chances is not None:
                chance, low, high = answer.chances[0].tolist()
                reason += (
                    f' It is {person} with a probability of {chance:.0%} ({low:.0%} to {high:.0%}) '
                    'for faces like those of the calibration.'
                )
            decided = self.decision.needs
        shown = [(*pair, self._show_person(identifier.gallery, pair[0], people)) for pair in found]
        told = self._tell(verdict, reason, faces, ('face',), decided, shown)
        own = identifier.gallery.find_templates(person)
        best = own[(own @ faces.unit[0].numpy()).argmax()]
        note, image = self._attention([pixels], best[None])
        return told + note, image

    _uncalibrated = (
        'No calibration was given, so there is no verdict: similarities differ from model to model.'
    )

    @property
    def _level_quality(self) -> tuple[str, ...]:
        """The quality below which two faces are too poor, if there is one."""
        decision = self.decision
        return () if decision is None else tuple({decision.abstain_by} & {*decision.needs})

    def _judge(self, found: Comparison) -> tuple[str, str]:
        """Return what two faces without a gallery can be told, in a line, and why."""
        decision, bound = self.decision, found.threshold
        similarity = f'{found.similarity:.3f}'
        if bound is None:
            return f'Similarity {similarity}', self._uncalibrated
        if found.poor:
            measure = MEASURES.get(decision.abstain_by, decision.abstain_by)
            poor = ' and '.join(('first', 'second')[which] for which in found.poor)
            return (
                'Too poor to tell',
                f'{measure} of the {poor} face is below {decision.level.level:.3f}, where the '
                'answers of the calibration were too often wrong.',
            )
        above = found.similarity > bound
        return (
            'Probably the same person' if above else 'Not alike enough to be taken for one person',
            f'The similarity {similarity} is {"" if above else "not "}above {bound:.3f}, which '
            'faces of people who are not enrolled rarely exceed in the calibrated gallery (at '
            f'most {decision.target_fpir:.1%} of them). For a single comparison that is a strict '
            'threshold.',
        )

    def _show_person(
        self, gallery: Gallery, person: str, dropped: Sequence[str] | None
    ) -> dict[str, Any] | None:
        """Return an enrolled image of a person, inside of the page; None where there is none."""
        names = gallery.images(person)[0] if person in gallery else []
        for name in names:
            path: Path | None = Path(name)
            if not dropped:
                path = find_enrolled(name, self.images, self._files) if self.images else None
            if path is not None:
                with contextlib.suppress(ImageError, OSError):
                    return embed_image(read_image(str(path), upright=True))
        return None

    def _dropped(self, paths: Sequence[str]) -> Identifier:
        """Return an identifier among the people of dropped files; the decision is not for them."""
        people: dict[str, list[str]] = {}
        for path in paths:
            people.setdefault(name_person(path), []).append(str(path))
        identifier = Identifier(self.inferencer)
        for person, images in people.items():
            identifier.enroll(images, person, on_error='raise')
        return identifier

    @property
    def _has_gradients(self) -> bool:
        return isinstance(self.inferencer.network, TorchNetwork)

    def _attention(
        self, faces: Sequence[np.ndarray], references: np.ndarray
    ) -> tuple[str | np.ndarray, ...]:
        """Return what is to be said of the maps, as HTML, and the faces with them."""
        try:
            maps = self.inferencer.attention(faces, references) if self._has_gradients else None
        except ImportError:
            maps = None
        # A map is of what the network saw, which may be a part of the image.
        aligned = self.inferencer.aligner is not None
        shown = self.inferencer.crops(faces) if aligned else faces
        if maps is None:
            return '', *(resize_longer_side(face, _SHOWN, cv2.INTER_NEAREST) for face in shown)
        peaks = [find_border(values.shape).flat[np.argmax(values)] for values in maps]
        note = f'<p class="face-note">{_AT_BORDER}</p>' if all(peaks) else ''
        return note, *(
            overlay_attention(face, values, size=_SHOWN)
            for face, values in zip(shown, maps, strict=True)
        )

    def _tell(
        self,
        verdict: str,
        reason: str,
        faces: FaceTable,
        titles: Sequence[str],
        decided: Sequence[str] = (),
        people: Sequence[tuple[str, float, dict[str, Any] | None]] = (),
    ) -> str:
        """Return an answer as HTML: first the qualities that decided, or the one that would."""
        names = [*faces.qualities]
        first = decided or names[:1]
        measures = []
        for name in sorted(names, key=lambda name: name not in first):
            values = faces.qualities[name]
            places = [None] * len(values)
            if self.decision is not None and name in self.decision.quantiles:
                places = self.decision.percentile(name, values).tolist()
            rows = list(zip(titles, values.tolist(), places, strict=True))
            label = MEASURES.get(name, name)
            measures.append(dict(name=label, rows=rows, first=name in first))
        return _load_template().render(
            verdict=verdict,
            reason=reason,
            people=people,
            warning=tell_training(self.inferencer.training_note, 'this model'),
            measures=measures,
            decided=bool(decided),
        )


def find_enrolled(name: str, folder: Path, files: Mapping[str, int]) -> Path | None:
    """Return the image below a folder that was enrolled under a name; None if there is none.

    The folder may have been moved: of ``people/Ann/1.jpg`` it may hold the end, ``Ann/1.jpg``. The
    name of the file alone is enough only where no other enrolled image has it.

    Args:
        name: Path of the image when it was enrolled.
        folder: Folder; nothing outside of it is returned.
        files: Number of enrolled images by name of the file.
    """
    parts = [part for part in Path(name).parts if part != Path(name).anchor]
    for start in range(len(parts)):
        if start == len(parts) - 1 and files[parts[-1]] > 1:
            break
        path = folder.joinpath(*parts[start:])
        if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
            return path
    return None


def name_person(path: str | Path) -> str:
    """Return the person a file is named after: ``Ann`` for ``Ann.jpg`` and ``Ann_1.jpg``.

    Example:
        >>> name_person('dir/Ann Lee_12.jpg'), name_person('Bob.png')
        ('Ann Lee', 'Bob')
    """
    stem = Path(path).stem
    name = stem.rstrip('0123456789')
    return name.rstrip('_- ') if name.endswith(('_', '-')) and name.rstrip('_- ') else stem


def _pixels(face: Face) -> np.ndarray:
    if isinstance(face, (str, Path)):
        return read_image(str(face), upright=True)
    return as_rgb(face)


@functools.cache
def _load_template() -> 'Template':
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    # Names of people and files are whatever somebody called them.
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template('answer.html.j2')
