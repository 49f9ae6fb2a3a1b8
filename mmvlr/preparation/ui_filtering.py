"""Which faces become part of a UI set: their crops, near duplicates, the unrecognizable ones."""

from collections.abc import Sequence

import cv2
import numpy as np

from mmvlr.utils.vectors import unit_rows

THUMBNAIL = 16
#: Agglomerative clustering holds the distances of all pairs: 20,000 faces take 3 GB.
MAX_CLUSTERED = 20_000


def crop_box(
    box: Sequence[float], shape: Sequence[int], margin: float
) -> tuple[int, int, int, int]:
    """Return the square around a box with its margin, in whole pixels, cut at the image's edge.

    Args:
        box: (x1, y1, x2, y2) in pixels.
        shape: (height, width, ...) of the image.
        margin: Added on every side, as a share of the longer side of the box.
    """
    x1, y1, x2, y2 = box
    half = max(x2 - x1, y2 - y1) * (0.5 + margin)
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    return (
        max(0, round(x - half)),
        max(0, round(y - half)),
        min(shape[1], round(x + half)),
        min(shape[0], round(y + half)),
    )


def make_thumbnail(face: np.ndarray) -> np.ndarray:
    """Return the unit vector (256,) of a face's 16 x 16 gray thumbnail, less its mean.

    The scalar product of two is their normalized correlation, in [-1, 1]. A flat image gives
    zeros: it correlates with nothing.
    """
    gray = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(gray, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    vector = small.astype(np.float64).ravel()
    vector -= vector.mean()
    return vector / max(np.linalg.norm(vector), 1e-9)


def find_near_duplicates(thumbnails: Sequence[np.ndarray], limit: float) -> np.ndarray:
    """Mark the faces of one track that an earlier, kept one shows already.

    Args:
        thumbnails: Results of :func:`make_thumbnail`, in the order of the frames.
        limit: A face is a near duplicate if it correlates more than this with a kept one.

    Returns:
        (N,) bool.
    """
    kept: list[np.ndarray] = []
    marks = np.zeros(len(thumbnails), bool)
    for index, vector in enumerate(thumbnails):
        if kept and max(float(vector @ other) for other in kept) > limit:
            marks[index] = True
        else:
            kept.append(vector)
    return marks


def find_unrecognizable(embeddings: np.ndarray, distance: float) -> tuple[np.ndarray, list[int]]:
    """Find the cluster of unrecognizable faces: the largest one.

    Agglomerative clustering by cosine distance with average linkage. It holds where the faces are
    of many people with few images each, as behind a filter of near duplicates.

    Args:
        embeddings: (N, D), normalized here.
        distance: Clusters are merged up to this mean distance, 1 - cosine.

    Returns:
        (N,) bool, True in the largest cluster (of equal ones, that of the first face), and the
        sizes of all clusters, largest first.

    Raises:
        ValueError: There are too many faces for the memory.
    """
    if len(embeddings) > MAX_CLUSTERED:
        raise ValueError(
            f'{len(embeddings):,} faces cannot be clustered (at most {MAX_CLUSTERED:,}); use '
            'tighter limits of size, confidence or correlation'
        )
    if len(embeddings) < 2:
        return np.ones(len(embeddings), bool), [1] * len(embeddings)
    from sklearn.cluster import AgglomerativeClustering

    units = unit_rows(embeddings, 'the embedding of face {}'.format, double=True)
    clustering = AgglomerativeClustering(
        n_clusters=None, distance_threshold=distance, metric='cosine', linkage='average'
    )
    labels = clustering.fit_predict(units)
    sizes = np.bincount(labels)
    first = labels[np.argmax(sizes[labels])]
    return labels == first, sorted(sizes.tolist(), reverse=True)
