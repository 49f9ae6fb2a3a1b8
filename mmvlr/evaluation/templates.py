"""Rules that make templates, which represent a person in a search, of the person's images.

Every rule has the signature ``rule(embeddings, qualities) -> templates`` and handles one person at
a time; :meth:`TemplateRule.many` handles many people at once. All but
:class:`ImageTemplates` are weighted means of the *unit* embeddings, scaled to length one, and
differ in the weights alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmvlr.registry import TEMPLATES, check_registered
from mmvlr.utils.schema import FileFormatError
from mmvlr.utils.vectors import unit_rows

from .functional.averaging import weighted_means

#: Images that are averaged at a time, which limits the memory for float64.
_BLOCK = 16_384
#: RI below which the weight of an image does not fall further; it is the least of a logarithm's.
_TINY = 1e-35


class TemplateRule:
    """Base of the rules, which map the images of a person to unit templates.

    A subclass sets ``name`` and ``needs``, and implements :meth:`weights`.

    Attributes:
        name: Short name, for configs and tables.
        needs: Names of the qualities that it uses.

    Example:
        >>> class ShrinkingTemplate(TemplateRule):
        ...     '''The n-th image counts 1 / n.'''
        ...     name = 'shrinking'
        ...
        ...     def weights(self, qualities, starts):
        ...         place = np.arange(starts[-1]) - np.repeat(starts[:-1], np.diff(starts))
        ...         return 1 / (1 + place)
        >>> ShrinkingTemplate()([[0.0, 2.0], [5.0, 0.0]]).round(3)
        array([[0.447, 0.894]], dtype=float32)
    """

    name: str
    needs: tuple[str, ...] = ()

    def weights(self, qualities: Mapping[str, np.ndarray], starts: np.ndarray) -> np.ndarray:
        """Return the weight of every image, >= 0 and not all 0 in one person.

        Args:
            qualities: Qualities by name, float64 (N,) each; those in ``needs`` are present.
            starts: The images of person i are rows ``starts[i]`` to ``starts[i + 1] - 1``;
                int64 (K + 1,).

        Returns:
            float64 (N,); only the ratios within a person matter.
        """
        raise NotImplementedError

    def __call__(self, embeddings: Any, qualities: Mapping[str, Any] | None = None) -> np.ndarray:
        """Return the templates of one person.

        Args:
            embeddings: Embeddings of the n images, of any length, (n, D).
            qualities: Qualities by name, higher is better, (n,) each.

        Returns:
            Unit templates, float32 (m, D).

        Raises:
            ValueError: There is no image, an embedding has no direction, a quality that the rule
                needs is missing or not finite, or the images cancel out.
        """
        unit = unit_rows(embeddings)
        if not len(unit):
            raise ValueError('a template needs at least one image')
        qualities = {
            name: as_quality(values, name, len(unit)) for name, values in (qualities or {}).items()
        }
        return self.many(unit, np.array([0, len(unit)]), qualities)[0]

    def many(
        self,
        unit: np.ndarray,
        starts: np.ndarray,
        qualities: Mapping[str, np.ndarray],
        people: Sequence[str] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the templates of many people.

        Args:
            unit: Unit embeddings, float32 (N, D), the images of each person in a row.
            starts: Start of each person's rows, int64 (K + 1,); see :meth:`weights`.
            qualities: Qualities by name, (N,) each.
            people: Names of the people, for messages.

        Returns:
            Unit templates, float32 (T, D), and the person of each, int64 (T,), not decreasing. If
            every person has one image, the templates are ``unit`` itself, not a copy.

        Raises:
            ValueError: A quality that the rule needs is missing or not finite, or the images of
                a person cancel out.
        """
        self.check(qualities)
        number = np.arange(len(starts) - 1)
        if len(unit) == len(number):
            return unit, number
        wanted = {name: np.asarray(qualities[name], np.float64) for name in self.needs}
        weights = np.asarray(self.weights(wanted, starts), np.float64)

        def label(person: int) -> str:
            name = f'number {person}' if people is None else repr(people[person])
            return f'the images of person {name}'

        templates = weighted_means(unit, weights, starts, label, block_size=_BLOCK)
        # A single image is the template, bit for bit, whatever other people there are.
        alone = np.flatnonzero(np.diff(starts) == 1)
        templates[alone] = unit[starts[alone]]
        return templates, number

    def check(self, qualities: Mapping[str, np.ndarray]) -> None:
        """Raise ``ValueError`` unless the qualities that the rule needs are present and finite."""
        for name in self.needs:
            if name not in qualities:
                there = ', '.join(sorted(qualities)) or 'none'
                raise ValueError(
                    f'{type(self).__name__} needs the quality {name!r} of every image; '
                    f'given: {there}'
                )
            bad = np.flatnonzero(~np.isfinite(qualities[name]))
            if len(bad):
                raise ValueError(
                    f'{type(self).__name__} needs the quality {name!r} of every image; '
                    f'image {bad[0] + 1} has none'
                )


@TEMPLATES.register_module()
class MeanTemplate(TemplateRule):
    """Mean of the unit embeddings, normalized: the rule of QMUL-SurvFace.

    Example:
        >>> MeanTemplate()([[2.0, 0.0], [0.0, 1.0]]).round(3)
        array([[0.707, 0.707]], dtype=float32)
    """

    name = 'mean'

    def weights(self, qualities: Mapping[str, np.ndarray], starts: np.ndarray) -> np.ndarray:
        """See :class:`TemplateRule`."""
        return np.ones(starts[-1])


@TEMPLATES.register_module()
class NormWeightedTemplate(TemplateRule):
    """Mean weighted by the norm, normalized: each image counts as much as its norm.

    The norm is the quality ``norm``, the length of the backbone's embedding, as networks trained
    with a margin encode quality in it (Meng, Zhao, Huang and Zhou, "MagFace", CVPR 2021).

    Example:
        >>> NormWeightedTemplate()([[1.0, 0.0], [0.0, 1.0]], dict(norm=[3.0, 4.0])).round(3)
        array([[0.6, 0.8]], dtype=float32)
    """

    name = 'norm'
    needs = ('norm',)

    def weights(self, qualities: Mapping[str, np.ndarray], starts: np.ndarray) -> np.ndarray:
        """See :class:`TemplateRule`.

        Raises:
            ValueError: A norm is not positive.
        """
        if not (qualities['norm'] > 0).all():
            raise ValueError('the quality norm must be above 0: it is the length of an embedding')
        return qualities['norm']


@TEMPLATES.register_module()
class RIWeightedTemplate(TemplateRule):
    r"""Mean of the unit embeddings weighted by recognizability, normalized.

    The weight of an image is :math:`RI^{1 / T}`: with T = 1 its RI, with T = 2 the square root of
    it. Only ratios within a person matter: the unit of RI differs between trainings, and the
    template does not depend on it. A T near 0 keeps the best image only, a large T gives the mean.
    Lower T was worse on training people, as it gives up the averaging of images; see the page on
    galleries. A read-out of xi itself, not of its logarithm, can be 0 or less; such an image counts
    as one of a tiny RI.

    Args:
        temperature: T, above 0.

    Example:
        >>> qualities = dict(ri=[3.0, 4.0])
        >>> RIWeightedTemplate(1.0)([[1.0, 0.0], [0.0, 1.0]], qualities).round(3)
        array([[0.6, 0.8]], dtype=float32)
    """

    name = 'ri'
    needs = ('ri',)

    def __init__(self, temperature: float = 2.0):
        if not 0 < temperature < 1e100:
            raise ValueError(f'temperature must be above 0, got {temperature}')
        self.temperature = temperature

    def weights(self, qualities: Mapping[str, np.ndarray], starts: np.ndarray) -> np.ndarray:
        """See :class:`TemplateRule`."""
        # The best image of a person gets weight 1, so nothing overflows at a low temperature.
        logarithm = np.log(np.maximum(np.asarray(qualities['ri'], np.float64), _TINY))
        best = np.maximum.reduceat(logarithm, starts[:-1])
        return np.exp((logarithm - np.repeat(best, np.diff(starts))) / self.temperature)


@TEMPLATES.register_module()
class BestTemplate(TemplateRule):
    """Mean of the unit embeddings of the best images of a person, normalized.

    Of equally good images the one that was enrolled first counts as better.

    Args:
        k: Number of images kept per person; all if a person has fewer.
        quality: Name of the quality by which they are chosen.

    Example:
        >>> BestTemplate(k=1)([[1.0, 0.0], [0.0, 1.0]], dict(ri=[0.8, 1.3]))
        array([[0., 1.]], dtype=float32)
    """

    name = 'best'

    def __init__(self, k: int = 2, quality: str = 'ri'):
        if not 1 <= k <= 2**31:
            raise ValueError(f'k must be at least 1, got {k}')
        self.k = k
        self.needs = (quality,)

    def weights(self, qualities: Mapping[str, np.ndarray], starts: np.ndarray) -> np.ndarray:
        """See :class:`TemplateRule`."""
        (quality,) = self.needs
        person = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        # The sort is stable and keeps the order of people, so the n-th row of a person in this
        # order is the person's n-th best image.
        order = np.lexsort((-qualities[quality], person))
        place = np.arange(starts[-1]) - np.repeat(starts[:-1], np.diff(starts))
        kept = np.zeros(starts[-1])
        kept[order[place < self.k]] = 1
        return kept


@TEMPLATES.register_module()
class MediaTemplate(TemplateRule):
    """Mean of the means of each medium, normalized: the rule of IJB-B and IJB-C.

    The frames of a video are alike, and hundreds of them must not outweigh a photograph: each
    medium counts once, however many images it has (Maze et al., "IARPA Janus Benchmark - C", ICB
    2018). The medium is the quality ``medium``, a number of each image.

    Example:
        >>> frames = [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
        >>> MediaTemplate()(frames, dict(medium=[7, 7, 7, 8])).round(3)
        array([[0.707, 0.707]], dtype=float32)
    """

    name = 'media'
    needs = ('medium',)

    def weights(self, qualities: Mapping[str, np.ndarray], starts: np.ndarray) -> np.ndarray:
        """See :class:`TemplateRule`."""
        person = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        medium = np.stack([person, qualities['medium']], axis=1)
        _, number, count = np.unique(medium, axis=0, return_inverse=True, return_counts=True)
        return 1 / count[number.ravel()]


@TEMPLATES.register_module()
class ImageTemplates(TemplateRule):
    """Use every image as a separate template; the best one of a person counts in a search.

    Example:
        >>> ImageTemplates()([[2.0, 0.0], [0.0, 1.0]])
        array([[1., 0.],
               [0., 1.]], dtype=float32)
    """

    name = 'images'

    def many(
        self,
        unit: np.ndarray,
        starts: np.ndarray,
        qualities: Mapping[str, np.ndarray],
        people: Sequence[str] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`TemplateRule`; the templates are ``unit`` itself, not a copy."""
        return unit, np.repeat(np.arange(len(starts) - 1), np.diff(starts))


def template_config(template: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a rule that is given by short name, class name or config.

    Raises:
        ValueError: There is no such rule; the message lists the rules.
    """
    TEMPLATES.import_from_location()
    if not isinstance(template, str):
        return dict(template)
    short = {part.name: key for key, part in TEMPLATES.module_dict.items()}
    if template not in short and TEMPLATES.get(template) is None:
        raise ValueError(
            f'there is no template rule {template!r}; there are {", ".join(sorted(short))}'
        )
    return dict(type=short.get(template, template))


def find_lacking(
    rule: TemplateRule, qualities: Mapping[str, np.ndarray], count: int
) -> tuple[int, str] | None:
    """Return the row of the first image that lacks a quality the rule needs, and its name."""
    for name in rule.needs:
        bad = np.flatnonzero(~np.isfinite(qualities.get(name, np.full(count, np.nan))))
        if len(bad):
            return int(bad[0]), name
    return None


def build_stored_rule(
    config: Mapping[str, Any], qualities: Mapping[str, np.ndarray], count: int, source: str | Path
) -> TemplateRule:
    """Build the rule that a file names, for the ``count`` images in it.

    Raises:
        FileFormatError: There is no such rule, it has no such options, or a quality that it needs
            is missing.
    """
    try:
        check_registered(config, TEMPLATES, str(source))
        rule = TEMPLATES.build(dict(config))
        lacking = find_lacking(rule, qualities, count)
    except (KeyError, TypeError, ValueError) as error:
        remedy = 'update mmvlr, or import the module that registers the rule first'
        raise FileFormatError(source, f'template: {config}: {error}', remedy) from error
    if lacking:
        problem = f'template: {config}: an image lacks the quality {lacking[1]!r}'
        remedy = 'enroll the images again, into another folder'
        raise FileFormatError(source, problem, remedy)
    return rule


def as_quality(values: Any, name: str, length: int) -> np.ndarray:
    """Return a quality as float32 (n,).

    Raises:
        ValueError: It is not one number per image.
    """
    vector = np.asarray(values)
    if vector.shape != (length,) or vector.dtype.kind not in 'fiu':
        raise ValueError(
            f'the quality {name!r} must be one number for each of the {length} images, '
            f'got {vector.dtype} {vector.shape}'
        )
    return vector.astype(np.float32)
