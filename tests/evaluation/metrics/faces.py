"""What the tests of the metrics share: samples of every role, and how they reach a metric."""

import numpy as np
import torch

from mmvlr.evaluation import FaceTable
from mmvlr.structures import FaceDataSample

QUALITIES = dict(ri='recognizability', ers='ers', norm='embedding_norm')


def make_faces(rows, centers, noise, rng):
    """Samples of rows (role, identity) or (role, identity, distance), mixed, as dicts."""
    samples = []
    for index, place in enumerate(rng.permutation(len(rows))):
        role, identity, *distance = rows[place]
        info = dict(sample_idx=index, role=role, identity=identity)
        if distance:
            info['distance'] = distance[0]
        sample = FaceDataSample(metainfo=info)
        direction = centers[identity] if identity >= 0 else np.zeros(centers.shape[1])
        embedding = direction + noise(*rows[place]) * rng.standard_normal(centers.shape[1])
        sample.embedding = torch.tensor(embedding, dtype=torch.float32)
        sample.embedding_norm = sample.embedding.norm()
        sample.recognizability = torch.tensor(rng.lognormal(), dtype=torch.float32)
        samples.append(sample.to_dict())
    return samples


def make_table(samples, **pairs):
    """All samples of all roles as a table, in the order of their index."""
    samples = sorted(samples, key=lambda sample: sample['sample_idx'])
    columns = {
        name: np.array([float(sample[key]) for sample in samples])
        for name, key in QUALITIES.items()
        if all(key in sample for sample in samples)
    }
    if any('distance' in sample for sample in samples):
        columns['distance'] = np.array([sample.get('distance', 0) for sample in samples])
    return FaceTable(
        embedding=np.stack([sample['embedding'].numpy() for sample in samples]),
        role=[sample['role'] for sample in samples],
        identity=[sample['identity'] for sample in samples],
        columns=columns,
        **pairs,
    )


def evaluate(metric, samples, **pairs):
    """The numbers of a metric on all samples; pairs as the metric's data set states them."""
    return metric.report(make_table(samples, **(pairs or metric.dataset_meta or {})))


def saved(samples, path, **pairs):
    """All samples of all roles as a table that was written to a file and read again."""
    return FaceTable.load(make_table(samples, **pairs).save(path))


def unit(sample):
    """The direction of a sample's embedding, in float64."""
    embedding = sample['embedding'].double().numpy()
    return embedding / np.linalg.norm(embedding)


def of(samples, *roles):
    """The samples of some roles, in order."""
    return [sample for sample in samples if sample['role'] in roles]


def ranks_and_precisions(gallery, probes):
    """Rank of the first hit and trapezoidal AP of every probe, by sorting."""
    ranks, precisions = [], []
    for probe in probes:
        scored = [(unit(g) @ unit(probe), g['identity'] == probe['identity']) for g in gallery]
        hits = [hit for _, hit in sorted(scored)[::-1]]
        ranks.append(hits.index(True) + 1)
        area, recall_before, precision_before, found = 0.0, 0.0, 1.0, 0
        for place, hit in enumerate(hits, start=1):
            found += hit
            recall, precision = found / sum(hits), found / place
            area += (recall - recall_before) * (precision_before + precision) / 2
            recall_before, precision_before = recall, precision
        precisions.append(area)
    return np.array(ranks), np.array(precisions)


def discard_area(quality, wrong):
    """Area under the error over the share of discarded probes, for distinct qualities."""
    order = np.argsort(quality)
    left = [order[int(len(order) * step / 20 + 1e-9) :] for step in range(20)]
    return np.trapezoid([np.mean(np.asarray(wrong)[rows]) for rows in left], dx=0.05)


def check_intervals(metric_type, samples, prepare=lambda metric: metric, **options):
    """Intervals change no estimate, lie around it, and are named after it; return all."""
    plain = evaluate(prepare(metric_type(**options)), samples)
    metric = prepare(metric_type(intervals=True, num_resamples=200, **options))
    full = evaluate(metric, samples)
    assert {name: full[name] for name in plain} == plain
    ends = {f'{name}_{end}' for name in plain for end in ('low', 'high')}
    assert set(full) == set(plain) | ends
    for name in plain:
        assert full[f'{name}_low'] <= full[name] <= full[f'{name}_high']
        assert full[f'{name}_low'] < full[f'{name}_high']
    return full
