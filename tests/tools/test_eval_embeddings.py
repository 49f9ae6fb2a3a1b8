"""tools/test.py --cache and tools/analysis/eval_embeddings.py."""

import json

import numpy as np
import pytest
import torch

from mmvlr.cli.programs.evaluate import add_conventions
from mmvlr.evaluation import FaceTable
from mmvlr.utils.compat import load_checkpoint_file

pytestmark = pytest.mark.filterwarnings('ignore:.*has been created:UserWarning')


@pytest.fixture
def test(tool, config_file, tmp_path):
    """Return a function: checkpoint and options -> metrics of tools/test.py with a cache."""

    def run(checkpoint, *options):
        out = tmp_path / 'test.json'
        arguments = [config_file, str(checkpoint), '--out', str(out)]
        arguments += ['--work-dir', str(tmp_path / 'work'), '--cache', str(tmp_path / 'cache')]
        assert tool('test.py').main([*arguments, *options]) == 0
        return json.loads(out.read_text())

    return run


@pytest.fixture
def evaluate(tool, tmp_path):
    """Return a function: arguments -> metrics of tools/analysis/eval_embeddings.py."""

    def run(*arguments):
        out = tmp_path / 'eval.json'
        code = tool('analysis/eval_embeddings.py').main([*map(str, arguments), '--out', str(out)])
        assert code == 0
        return json.loads(out.read_text())

    return run


@pytest.fixture
def kept(tmp_path):
    """Return a function: the files of the cache."""
    return lambda: sorted((tmp_path / 'cache').glob('*.npz'))


@pytest.mark.slow
def test_reused_embeddings_give_the_same_numbers(test, trained, kept, tool, config_file, tmp_path):
    checkpoint = trained / 'epoch_3.pth'
    first = test(checkpoint)
    (file,) = kept()
    written = file.stat().st_mtime_ns
    assert test(checkpoint) == first
    # Other metrics come from the same file.
    with_intervals = test(checkpoint, '--intervals')
    assert {k: v for k, v in with_intervals.items() if k in first} == first
    assert with_intervals['tinyface/rank1_low'] <= first['tinyface/rank1']
    assert kept() == [file]
    assert file.stat().st_mtime_ns == written
    plain = tmp_path / 'plain.json'
    tool('test.py').main(
        [config_file, str(checkpoint), '--out', str(plain), '--work-dir', str(tmp_path / 'w')]
    )
    assert json.loads(plain.read_text()) == first


def test_reuse_needs_no_network(test, trained, monkeypatch):
    first = test(trained / 'epoch_3.pth')
    monkeypatch.setattr('mmvlr.engine.testing.build_tester', None)
    assert test(trained / 'epoch_3.pth') == first


@pytest.mark.slow
def test_what_changes_embeddings_is_another_file(test, trained, kept, tmp_path):
    test(trained / 'epoch_3.pth')
    test(trained / 'epoch_2.pth')
    assert len(kept()) == 2
    test(trained / 'epoch_3.pth', '--flip-fusion', 'sum')
    assert len(kept()) == 3
    test(trained / 'epoch_3.pth', '--cfg-options', 'test_dataloader.dataset.num_distractors=3')
    assert len(kept()) == 4
    # The same weights under another name are the same embeddings.
    copy = tmp_path / 'epoch_3.pth'
    copy.write_bytes((trained / 'epoch_3.pth').read_bytes())
    test(copy)
    assert len(kept()) == 4


@pytest.mark.slow
def test_bare_backbone_depends_on_the_ui_set(test, trained, kept, tmp_path):
    state = load_checkpoint_file(str(trained / 'epoch_3.pth'))['state_dict']
    bare = {name: value for name, value in state.items() if name.startswith('backbone.')}
    torch.save(dict(state_dict=bare), tmp_path / 'bare.pth')
    first = test(tmp_path / 'bare.pth')
    assert 'tinyface/discard_auc_ers' in first
    test(
        tmp_path / 'bare.pth',
        *('--cfg-options', 'custom_hooks.1.dataloader.dataset.num_images=5'),
    )
    assert len(kept()) == 2


def test_file_carries_where_it_comes_from(test, trained, kept):
    test(trained / 'epoch_3.pth')
    faces = FaceTable.load(kept()[0])
    assert faces.meta['preprocessing']['size'] == [32, 32]
    assert len(faces.meta['checkpoint_sha256']) == 64
    assert faces.columns['name'][0].startswith('synthetic:')
    assert {'ri', 'ers', 'norm'} <= set(faces.columns)


def test_cached_file_evaluates_alike(test, trained, kept, evaluate, config_file):
    expected = test(trained / 'epoch_3.pth')
    assert evaluate(kept()[0], '--config', config_file) == expected
    # Without a config the metric follows from the roles.
    found = evaluate(kept()[0])
    assert found['closed_set/rank1'] == expected['tinyface/rank1']


def test_embeddings_by_name(test, trained, kept, evaluate, config_file, tmp_path):
    """A competitor's file: names and embeddings in any order, and of more images."""
    expected = test(trained / 'epoch_3.pth')
    faces = FaceTable.load(kept()[0])
    order = np.random.default_rng(0).permutation(len(faces))
    names = faces.columns['name'][order]
    file = tmp_path / 'theirs.npz'
    np.savez(
        file,
        embedding=np.concatenate([7 * faces.embedding[order], np.ones((1, 16), np.float32)]),
        name=np.append(names, 'another'),
    )
    found = evaluate(file, '--config', config_file)
    assert found['tinyface/rank1'] == expected['tinyface/rank1']
    assert found['tinyface/mAP'] == pytest.approx(expected['tinyface/mAP'])


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        (dict(embedding=np.eye(2)), 'needed are embedding with role and identity'),
        (dict(embedding=np.eye(2), name=['a', 'b']), '--config'),
        (
            dict(embedding=np.eye(2), role=['gallery', 'ui'], identity=[1, 2]),
            'the roles gallery, ui make no test',
        ),
        (
            dict(embedding=np.eye(2), role=['gallery'], identity=[1, 2]),
            'role must have 2 entries',
        ),
    ],
)
def test_bad_file_is_named(tool, tmp_path, capsys, fields, message):
    file = tmp_path / 'bad.npz'
    np.savez(file, **fields)
    assert tool('analysis/eval_embeddings.py').main([str(file)]) == 1
    error = capsys.readouterr().err
    assert message in error


def test_missing_image_is_named(test, trained, kept, tool, config_file, tmp_path, capsys):
    test(trained / 'epoch_3.pth')
    faces = FaceTable.load(kept()[0])
    file = tmp_path / 'theirs.npz'
    np.savez(file, embedding=faces.embedding[1:], name=faces.columns['name'][1:])
    assert tool('analysis/eval_embeddings.py').main([str(file), '--config', config_file]) == 1
    error = capsys.readouterr().err
    assert f'1 of {len(faces)} images, such as {faces.columns["name"][0]}' in error


@pytest.mark.slow
def test_comparison(test, trained, kept, evaluate, config_file, tmp_path):
    """Against itself there is no difference; against noise there is, and it is sure."""
    expected = test(trained / 'epoch_3.pth')
    (file,) = kept()
    same = evaluate(file, '--config', config_file, '--against', file)
    assert same['tinyface/rank1_difference'] == 0
    assert same['tinyface/rank1_p'] == 1
    faces = FaceTable.load(file)
    noise = np.random.default_rng(0).standard_normal(faces.embedding.shape).astype(np.float32)
    other = tmp_path / 'noise.npz'
    np.savez(other, embedding=noise, name=faces.columns['name'])
    found = evaluate(file, '--config', config_file, '--against', other)
    theirs = evaluate(other, '--config', config_file)
    difference = expected['tinyface/mAP'] - theirs['tinyface/mAP']
    assert found['tinyface/mAP_difference'] == pytest.approx(difference)
    assert (
        found['tinyface/mAP_difference_low']
        <= found['tinyface/mAP_difference']
        <= found['tinyface/mAP_difference_high']
    )


@pytest.mark.slow
def test_curves(test, trained, tmp_path):
    test(trained / 'epoch_3.pth', '--curves', str(tmp_path / 'curves'))
    names = {path.name for path in (tmp_path / 'curves').glob('*.png')}
    assert names == {'cmc.png', 'discard.png'}
    assert len(list((tmp_path / 'curves').glob('events*'))) == 1


def test_rates_that_a_file_cannot_measure_are_marked(evaluate, tmp_path, capfd):
    """40 pairs of two people say nothing of a false acceptance rate of 0.001."""
    rng = np.random.default_rng(0)
    file, identity = tmp_path / 'pairs.npz', np.repeat(np.arange(40), 2)
    pairs = np.concatenate([np.arange(80).reshape(40, 2), np.arange(80).reshape(40, 2)[::-1] + 1])
    pairs %= 80
    same = identity[pairs[:, 0]] == identity[pairs[:, 1]]
    np.savez(
        file,
        embedding=rng.standard_normal((80, 8)),
        role=['pair'] * 80,
        identity=identity,
        pairs=pairs,
        same=same,
    )
    assert (~same).sum() == 40
    found = evaluate(file)
    names = [f'verification/{n}@far{far}' for far in (0.01, 0.001) for n in ('tar', 'threshold')]
    assert found['unmeasurable'] == dict.fromkeys(names, 40)
    assert set(names) <= set(found)
    assert json.loads(capfd.readouterr().out) == found


def test_a_measure_that_is_not_known_here_is_told(evaluate, tmp_path, capfd):
    rng = np.random.default_rng(0)
    columns = dict(norm=rng.random(8), my_own=rng.random(8), distance=rng.random(8))
    faces = FaceTable(
        rng.standard_normal((8, 4)), ['gallery'] * 4 + ['probe'] * 4, [*range(4)] * 2, columns
    )
    faces.save(tmp_path / 'faces.npz')
    assert not any('my_own' in name for name in evaluate(tmp_path / 'faces.npz'))
    told = capfd.readouterr().err
    assert 'my_own' in told and '--config' in told and 'norm' not in told


def test_conventions_reach_the_metric_of_pairs():
    both = [dict(type='OpenSetMetric'), dict(type='mmvlr.VerificationMetric', prefix='x')]
    first, second = add_conventions(both, ['dasec'])
    assert first == both[0] and second == dict(both[1], conventions=['dasec'])
    with pytest.raises(ValueError, match='--conventions'):
        add_conventions(dict(type='TinyFaceMetric'), 'all')
