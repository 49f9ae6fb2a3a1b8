"""The page: two faces, or a face and a gallery; how alike, how recognizable, and what follows."""

import html
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from mmvlr.apis.images import as_rgb
from mmvlr.apis.inferencer import FaceInferencer, FaceResults
from mmvlr.apis.network import TorchNetwork
from mmvlr.datasets.transforms import read_image
from mmvlr.identification import Comparison, Decision, Gallery, Identifier
from mmvlr.reports.faces import overlay_attention, resize_longer_side

Face = str | Path | np.ndarray
#: Longer side of the shown images in pixels.
_SHOWN = 224
_MEASURES = dict(ri='RI', ers='ERS', norm='norm', size='size')
_OUTCOMES = dict(accept='It is {person}', unknown='Nobody of the gallery', abstain='No answer')


class FacePage:
    """What the page says, without the page: plain functions from images to images and HTML.

    Args:
        inferencer: The model.
        gallery: People to search among; None: those whose images are dropped on the page.
        decision: Thresholds and calibration set; None: similarities are shown without a verdict.
    """

    def __init__(
        self,
        inferencer: FaceInferencer,
        gallery: Gallery | None = None,
        decision: Decision | None = None,
    ):
        self.inferencer = inferencer
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
        told = _heading(f'Similarity {found.similarity:.3f}', self._two(found))
        references = faces.embedding[::-1].copy()
        return (
            told + self._table(faces, ('first', 'second')),
            *self._attention(pixels, references),
        )

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
        identifier = self._dropped(people) if people else self.identifier
        pixels = _pixels(face)
        answer = identifier.identify(pixels, top=5)
        faces, matches = answer.faces, answer.matches
        found = list(zip(matches.person[0], matches.similarity[0].tolist(), strict=True))
        person, similarity = found[0]
        if answer.verdicts is None:
            note = self._uncalibrated
            if self.decision is not None:
                note = 'The calibration is of another gallery: no verdict.'
            told = _heading(f'Most similar: {person}, {similarity:.3f}', note)
        else:
            (verdict,) = answer.verdicts
            warning = f' Warning: {answer.note}.' if answer.note else ''
            outcome = _OUTCOMES[verdict.outcome].format(person=person)
            told = _heading(outcome, verdict.reason + warning)
        rows = [(html.escape(name), f'{value:.3f}') for name, value in found]
        told += _html_table(('person', 'similarity'), rows)
        told += self._table(faces, ('face',))
        own = identifier.gallery.find_templates(person)
        best = own[(own @ faces.unit[0]).argmax()]
        return told, *self._attention([pixels], best[None])

    _uncalibrated = (
        'No calibration was given, so there is no verdict: similarities differ from model to model.'
    )

    def _two(self, found: Comparison) -> str:
        """What two faces without a gallery can be told."""
        if found.threshold is None:
            return self._uncalibrated
        decision, bound = self.decision, found.threshold
        if found.poor:
            measure = _MEASURES.get(decision.abstain_by, decision.abstain_by)
            poor = ' and '.join(('first', 'second')[which] for which in found.poor)
            return (
                f'Too poor to tell: {measure} of the {poor} face is below '
                f'{decision.level.level:.3f}, where the answers of the calibration were too often '
                'wrong.'
            )
        above = 'Above' if found.similarity > bound else 'Not above'
        return (
            f'{above} {bound:.3f}, which faces of people who are not enrolled rarely exceed in '
            f'the calibrated gallery (at most {decision.target_fpir:.1%} of them). For a single '
            'comparison that is a strict threshold.'
        )

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
    ) -> tuple[np.ndarray, ...]:
        try:
            maps = self.inferencer.attention(faces, references) if self._has_gradients else None
        except ImportError:
            maps = None
        # A map is of what the network saw, which may be a part of the image.
        aligned = self.inferencer.aligner is not None
        shown = self.inferencer.crops(faces) if aligned else faces
        if maps is None:
            return tuple(resize_longer_side(face, _SHOWN, cv2.INTER_NEAREST) for face in shown)
        return tuple(
            overlay_attention(face, values, size=_SHOWN)
            for face, values in zip(shown, maps, strict=True)
        )

    def _table(self, faces: FaceResults, titles: Sequence[str]) -> str:
        """Qualities of the faces, each with its place in the calibration set."""
        rows = []
        for name, values in faces.qualities.items():
            for title, value in zip(titles, values.tolist(), strict=True):
                place = ''
                if self.decision is not None and name in self.decision.quantiles:
                    percent = float(self.decision.percentile(name, [value])[0])
                    place = (
                        f'better than {percent:.0f} % of the calibration'
                        f'<div class="face-bar"><span style="left:{percent:.0f}%"></span></div>'
                    )
                rows.append((title, _MEASURES.get(name, html.escape(name)), f'{value:.3g}', place))
        return _html_table(('', 'quality', 'value', ''), rows)


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


def _heading(verdict: str, reason: str) -> str:
    return (
        f'<p class="face-verdict">{html.escape(verdict)}</p>'
        f'<p class="face-reason">{html.escape(reason)}</p>'
    )


def _html_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = ''.join(f'<th scope="col">{title}</th>' for title in titles)
    body = ''.join('<tr>' + ''.join(f'<td>{cell}</td>' for cell in row) + '</tr>' for row in rows)
    return f'<table class="face-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
