"""The wrappers against brute force; the functions inside have tests of their own."""

from itertools import pairwise

import pytest
import torch

from mmvlr.evaluation.metrics import ClosedSetMetric, TinyFaceMetric
from mmvlr.structures import FaceDataSample

from .faces import check_intervals, evaluate

DIMS = 6


def face(index, role, identity, **values):
    sample = FaceDataSample(metainfo=dict(sample_idx=index, role=role, identity=identity))
    for name, value in values.items():
        setattr(sample, name, torch.as_tensor(value))
    return sample.to_dict()


@pytest.fixture
def faces():
    """5 people with 2 gallery images, 12 distractors, 20 probes and 8 UI faces, mixed."""
    people = 3 * torch.randn(5, DIMS)
    rows = []
    for identity in range(5):
        rows += [('gallery', identity)] * 2 + [('probe', identity)] * 4
    rows += [('distractor', -100)] * 12 + [('ui', -100)] * 8
    order = torch.randperm(len(rows)).tolist()
    result = []
    for index, (role, identity) in enumerate(rows[i] for i in order):
        center = people[identity] if identity >= 0 else torch.zeros(DIMS)
        embedding = center + 2.5 * torch.randn(DIMS)
        result.append(
            face(
                index,
                role,
                identity,
                embedding=embedding,
                embedding_norm=embedding.norm(),
                recognizability=torch.randn(()),
            )
        )
    return result


def brute_force(faces):
    """rank of the first hit and trapezoidal AP of every probe, by sorting in plain Python."""
    gallery = [f for f in faces if f['role'] in ('gallery', 'distractor')]
    ranks, precisions = [], []
    for probe in (f for f in faces if f['role'] == 'probe'):
        scored = sorted(
            (
                torch.cosine_similarity(probe['embedding'], g['embedding'], dim=0).item(),
                g['identity'] == probe['identity'],
            )
            for g in gallery
        )[::-1]
        hits = [hit for _, hit in scored]
        ranks.append(hits.index(True) + 1)
        ap, old_recall, old_precision, found = 0.0, 0.0, 1.0, 0
        for place, hit in enumerate(hits, start=1):
            found += hit
            recall, precision = found / sum(hits), found / place
            ap += (recall - old_recall) * (old_precision + precision) / 2
            old_recall, old_precision = recall, precision
        precisions.append(ap)
    return ranks, precisions


def test_ranks_and_map(faces):
    found = evaluate(ClosedSetMetric(ranks=(1, 3, 5)), faces)
    ranks, precisions = brute_force(faces)
    assert max(ranks) > 1
    for k in (1, 3, 5):
        expected = sum(rank <= k for rank in ranks) / 20
        assert found[f'closed_set/rank{k}'] == pytest.approx(expected)
    assert found['closed_set/mAP'] == pytest.approx(sum(precisions) / 20, abs=1e-6)


def test_discard_and_ui(faces):
    found = evaluate(ClosedSetMetric(prefix='x'), faces)
    ranks, _ = brute_force(faces)
    probes = [f for f in faces if f['role'] == 'probe']
    ui = [f for f in faces if f['role'] == 'ui']
    for name, key in (('ri', 'recognizability'), ('norm', 'embedding_norm')):
        order = sorted(range(20), key=lambda i: probes[i][key].item())
        errors = []
        for step in range(20):
            kept = order[int(20 * 0.05 * step + 1e-9) :]
            errors.append(sum(ranks[i] != 1 for i in kept) / len(kept))
        area = sum(0.05 * (a + b) / 2 for a, b in pairwise(errors))
        assert found[f'x/discard_auc_{name}'] == pytest.approx(area, abs=1e-6)
        pairs = [
            (p[key] > u[key]).item() + 0.5 * (p[key] == u[key]).item() for p in probes for u in ui
        ]
        assert found[f'x/ui_auc_{name}'] == pytest.approx(sum(pairs) / len(pairs))


def test_qualities_that_the_model_does_not_give(faces):
    for sample in faces:
        del sample['recognizability'], sample['embedding_norm']
    found = evaluate(ClosedSetMetric(), faces)
    assert not [name for name in found if 'auc' in name]


def test_ui_faces_are_no_gallery_and_no_probes(faces):
    without = [f for f in faces if f['role'] != 'ui']
    without = [{**sample, 'sample_idx': index} for index, sample in enumerate(without)]
    one, other = evaluate(ClosedSetMetric(), faces), evaluate(ClosedSetMetric(), without)
    assert not [name for name in other if 'ui_auc' in name]
    for name, value in other.items():
        assert one[name] == pytest.approx(value)


def test_length_of_embeddings_does_not_matter(faces):
    expected = evaluate(ClosedSetMetric(), faces)
    for index, sample in enumerate(faces):
        sample['embedding'] = sample['embedding'] * (1 + index)
    found = evaluate(ClosedSetMetric(), faces)
    assert found['closed_set/mAP'] == pytest.approx(expected['closed_set/mAP'])


def test_intervals(faces):
    found = check_intervals(ClosedSetMetric, faces, ranks=(1, 5))
    assert {'closed_set/ui_auc_ri_low', 'closed_set/discard_auc_norm_high'} < set(found)


def test_tinyface(faces):
    found = evaluate(TinyFaceMetric(), faces)
    names = {'rank1', 'rank5', 'rank10', 'rank20', 'mAP'}
    assert {f'tinyface/{name}' for name in names} <= set(found)


def test_two_evaluations_are_independent(faces):
    metric = ClosedSetMetric()
    assert evaluate(metric, faces) == evaluate(metric, faces)
