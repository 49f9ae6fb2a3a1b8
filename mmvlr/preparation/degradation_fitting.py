"""A degradation fitted to measured faces."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mmvlr.datasets.transforms.degradation import to_uint8
from mmvlr.datasets.transforms.presets import VLRDegradation

from .degradation_statistics import DegradationStatistics, distance, measure_faces


def degrade_faces(
    sources: Sequence[np.ndarray], parameters: dict[str, dict], samples: int, seed: int
) -> list[np.ndarray]:
    """Return ``samples`` degraded copies of the sources in turn, each with a seed of its own."""
    degrade = VLRDegradation(parameters)
    return [
        to_uint8(
            degrade.apply(
                sources[index % len(sources)].astype(np.float32),
                np.random.default_rng((seed, index)),
            )
        )
        for index in range(samples)
    ]


@dataclass(frozen=True)
class Searched:
    """An argument that the fit searches: the ends of a range, or a probability.

    Attributes:
        step: Name of the step in a preset.
        lowest: Smallest value.
        highest: Largest value.
        change: First change of a value.
        get: Reads the values from the step's arguments.
        put: Returns the arguments that express the values.
    """

    step: str
    lowest: float
    highest: float
    change: float
    get: Callable[[dict], Sequence[float]]
    put: Callable[[tuple[float, ...]], dict]


def searched_range(
    step: str, argument: str, lowest: float, highest: float, change: float
) -> Searched:
    """Return the search of a range that stands in the arguments as it is."""
    return Searched(
        step, lowest, highest, change, lambda found: found[argument], lambda ends: {argument: ends}
    )


def searched_probability(step: str) -> Searched:
    """Return the search of a step's probability."""
    return Searched(
        step, 0.0, 1.0, 0.2, lambda found: (found['prob'],), lambda ends: {'prob': ends[0]}
    )


def compute_noise(arguments: dict) -> list[float]:
    """Return the deviation of the noise at mid-gray for the low and high ends of its ranges."""
    ends = zip(arguments['shot'], arguments['read'], strict=True)
    return [float(np.sqrt(shot * 127.5 + read**2)) for shot, read in ends]


def noise_arguments(ends: tuple[float, ...]) -> dict:
    """Return the ranges for a deviation at mid-gray, half the variance by photons."""
    return dict(
        shot=tuple(round(end**2 / 2 / 127.5, 5) for end in ends),
        read=tuple(round(end / float(np.sqrt(2)), 4) for end in ends),
    )


#: What :func:`fit_preset` searches, in this order. Noise is one range, its deviation at mid-gray:
#: the statistics cannot tell photons from read-out.
SEARCHED = (
    searched_range('blur', 'sigma', 0.0, 3.0, 0.3),
    searched_probability('motion'),
    searched_probability('down_up'),
    Searched('noise', 0.0, 30.0, 2.0, compute_noise, noise_arguments),
    searched_range('tone', 'gamma', 0.2, 5.0, 0.2),
    searched_range('tone', 'contrast', 0.1, 3.0, 0.2),
    Searched(
        'jpeg',
        5,
        100,
        12,
        lambda found: found['quality'],
        lambda ends: {'quality': tuple(round(end) for end in ends)},
    ),
)


def fit_preset(
    sources: Sequence[np.ndarray],
    target: DegradationStatistics,
    start: dict[str, dict],
    samples: int = 120,
    halvings: int = 2,
    seed: int = 0,
    report: Callable[[int, float], None] = lambda evaluations, lowest: None,
) -> dict[str, dict]:
    """Fit the parameters of ``VLRDegradation`` to measured faces.

    The native sizes become those of the target, each as often. What ``SEARCHED`` lists is found by
    pattern search (Hooke and Jeeves, "Direct search solution of numerical and statistical
    problems", JACM 1961) on ``distance(...)['total']``: a range is moved as a whole, then each end,
    up or down by its change, and stays where the distance falls; after a round that helped, its
    sum of moves is tried once more; after one that did not, all changes are halved. Every
    evaluation draws the same random numbers, so the search is deterministic. All else stays as in
    ``start``; a step that is missing there is not searched.

    Args:
        sources: High-resolution faces, (H, W, 3) uint8 RGB.
        target: Statistics of the faces to resemble.
        start: Parameters to start from, with all searched arguments of the steps they have.
        samples: Degraded faces an evaluation.
        halvings: How often the changes are halved.
        seed: Seed of the degradation.
        report: Called with the number of evaluations and the smallest distance so far.

    Returns:
        The parameters.

    Raises:
        ValueError: There is no source, or ``start`` lacks an argument.
    """
    if not sources:
        raise ValueError('there is no source')
    start = {**start, 'native': {**start['native'], 'sizes': target.size_histogram()}}
    searches = [searched for searched in SEARCHED if searched.step in start]
    try:
        values = [end for s in searches for end in s.get(start[s.step])]
    except KeyError as error:
        raise ValueError(f'the start preset must give the argument {error}') from error
    counts = [len(searched.get(start[searched.step])) for searched in searches]
    places = np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1])
    lowest, highest, change = (
        np.repeat([getattr(s, name) for s in searches], counts)
        for name in ('lowest', 'highest', 'change')
    )
    # A range as a whole first: an end alone changes the spread too, which may hide what it gains.
    units = np.eye(sum(counts))
    moves = [
        move
        for place in places
        for move in ([units[place].sum(0)] if len(place) > 1 else []) + list(units[place])
    ]
    evaluations = 0

    def build_parameters(values: np.ndarray) -> dict[str, dict]:
        parameters = {step: dict(arguments) for step, arguments in start.items()}
        for searched, place in zip(searches, places, strict=True):
            ends = tuple(round(float(end), 4) for end in np.sort(values[place]))
            parameters[searched.step].update(searched.put(ends))
        return parameters

    def better(values: np.ndarray) -> bool:
        nonlocal best, least, evaluations
        values = np.clip(values, lowest, highest)
        if np.array_equal(values, best):
            return False
        evaluations += 1
        faces = degrade_faces(sources, build_parameters(values), samples, seed)
        found = distance(measure_faces(faces), target)['total']
        smaller = found < least
        if smaller:
            best, least = values, found
        report(evaluations, least)
        return smaller

    best, least = np.full(sum(counts), np.nan), np.inf
    better(np.array(values, dtype=float))
    for _ in range(halvings + 1):
        improved = True
        while improved:
            before = best
            for move in moves:
                if not better(best + move * change):
                    better(best - move * change)
            improved = not np.array_equal(before, best)
            if improved:
                better(best + (best - before))
        change = change / 2
    return build_parameters(best)
