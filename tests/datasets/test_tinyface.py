import re

import numpy as np
import pytest
import scipy.io

from mmvlr.datasets import NO_IDENTITY, TinyFace
from mmvlr.datasets.pairs_files import has_prefix, prefix_identity, read_pairs


def rows(dataset):
    """(role, file name, identity) of all images."""
    return [
        (info['role'], info['img_path'].rsplit('/', 1)[1], info['identity'])
        for info in dataset.infos()
    ]


def test_train(tinyface_root):
    dataset = TinyFace(data_root=str(tinyface_root), split='train')
    assert dataset.num_classes == 3
    # Labels follow the numeric order of the people, not the order of their names.
    found = [(info['identity'], info['gt_label'], info['role']) for info in dataset.infos()]
    assert found == [(2, 0, 'train')] * 3 + [(7, 1, 'train')] * 2 + [(10, 2, 'train')] * 2
    assert not dataset.test_mode


def test_test(tinyface_root):
    dataset = TinyFace(data_root=str(tinyface_root), split='test')
    assert rows(dataset) == [
        ('gallery', '11_1.jpg', 11),
        ('gallery', '12_1.jpg', 12),
        ('gallery', '12_2.jpg', 12),
        ('probe', '11_2.jpg', 11),
        ('probe', '12_3.jpg', 12),
        *(('distractor', name, NO_IDENTITY) for name in ('a.jpg', 'b.jpg', 'c.jpg')),
    ]
    assert NO_IDENTITY == -100
    assert dataset.test_mode
    assert dataset.num_classes == 0


def test_without_distractors(tinyface_root):
    dataset = TinyFace(data_root=str(tinyface_root), split='test', with_distractors=False)
    assert [row[0] for row in rows(dataset)] == ['gallery'] * 3 + ['probe'] * 2


def test_identities_come_from_the_mat_file(tinyface_root, write_pairs, messages):
    """Ids that contradict the names are taken, and noticed."""
    write_pairs(
        tinyface_root / 'Testing_Set' / 'probe_img_ID_pairs.mat',
        'probe',
        ['12_3.jpg', '11_2.jpg'],
        [5, 5],
    )
    dataset = TinyFace(data_root=str(tinyface_root), split='test')
    probes = [row for row in rows(dataset) if row[0] == 'probe']
    assert probes == [('probe', '12_3.jpg', 5), ('probe', '11_2.jpg', 5)]
    assert any('the file names contradict' in text for _, text in messages)


@pytest.mark.parametrize(
    ('ids', 'groups'),
    [
        ([11, 12, 13], ['(12, 12)', '(12, 13)']),
        ([11, 12, 11], ['(11, 11)', '(12, 11)', '(12, 12)']),
    ],
)
def test_contradictions_are_named(tinyface_root, write_pairs, ids, groups):
    """One person of the names with two identities, and two with one."""
    file = tinyface_root / 'Testing_Set' / 'gallery_match_img_ID_pairs.mat'
    write_pairs(file, 'gallery', ['11_1.jpg', '12_1.jpg', '12_2.jpg'], ids)
    dataset = TinyFace(data_root=str(tinyface_root), split='test')
    reason = 'identities of the .mat files that the file names contradict'
    assert dataset.noticed == {reason: groups}


def test_another_numbering_is_no_contradiction(tinyface_root, write_pairs, warned):
    test = tinyface_root / 'Testing_Set'
    names = ['11_1.jpg', '12_1.jpg', '12_2.jpg']
    write_pairs(test / 'gallery_match_img_ID_pairs.mat', 'gallery', names, [1, 2, 2])
    write_pairs(test / 'probe_img_ID_pairs.mat', 'probe', ['11_2.jpg', '12_3.jpg'], [1, 2])
    TinyFace(data_root=str(tinyface_root), split='test')
    assert 'contradict' not in warned()


def test_two_numberings_are_a_contradiction(tinyface_root, write_pairs, warned):
    """Each file by itself is consistent; together they match the wrong people."""
    file = tinyface_root / 'Testing_Set' / 'probe_img_ID_pairs.mat'
    write_pairs(file, 'probe', ['11_2.jpg', '12_3.jpg'], [12, 11])
    TinyFace(data_root=str(tinyface_root), split='test')
    assert 'contradict' in warned()


@pytest.mark.parametrize('missing', [('gallery_match',), ('probe',), ('gallery_match', 'probe')])
def test_missing_mat_gives_the_identities_of_the_names(tinyface_root, write_pairs, missing, warned):
    """Those of both folders: the file that is left may count people otherwise."""
    by_name = rows(TinyFace(data_root=str(tinyface_root), split='test'))
    test = tinyface_root / 'Testing_Set'
    names = ['11_1.jpg', '12_1.jpg', '12_2.jpg']
    write_pairs(test / 'gallery_match_img_ID_pairs.mat', 'gallery', names, [1, 2, 2])
    write_pairs(test / 'probe_img_ID_pairs.mat', 'probe', ['11_2.jpg', '12_3.jpg'], [1, 2])
    renumbered = rows(TinyFace(data_root=str(tinyface_root), split='test'))
    assert [row[2] for row in renumbered[:5]] == [1, 2, 2, 1, 2]
    assert 'is missing' not in warned()
    for stem in missing:
        (test / f'{stem}_img_ID_pairs.mat').unlink()
    assert rows(TinyFace(data_root=str(tinyface_root), split='test')) == by_name
    for stem in ('gallery_match', 'probe'):
        said = f'{stem}_img_ID_pairs.mat is missing; identities of gallery and probe' in warned()
        assert said == (stem in missing)


def test_numbers_in_names_that_are_too_long_or_alike(tinyface_root, write_face):
    """Without .mat files: the partition of the names is kept, and doubts are said."""
    test = tinyface_root / 'Testing_Set'
    for folder, file in (('Gallery_Match', '1'), ('Probe', '2')):
        write_face(test / folder / f'{10**20}_{file}.jpg')
        write_face(test / folder / f'0{10 + int(file)}_9.jpg')
    for path in test.glob('*.mat'):
        path.unlink()
    dataset = TinyFace(data_root=str(tinyface_root), split='test')
    people = {}
    for role, name, identity in rows(dataset):
        if role != 'distractor':
            people.setdefault(int(name.split('_')[0]), set()).add(identity)
    assert sorted(people) == [11, 12, 10**20]
    assert [len(identities) for identities in people.values()] == [1, 1, 1]
    assert all(identity < 2**63 for (identity,) in people.values())
    reason = 'numbers in file names that are one person here'
    assert sorted(dataset.noticed[reason]) == ['011 and 11', '012 and 12']


def test_digits_of_other_scripts_are_no_number():
    assert not has_prefix('١_1.jpg')
    with pytest.raises(ValueError, match='no identity'):
        prefix_identity('１２_1.jpg')


@pytest.mark.parametrize('folder', ['Gallery_Match', 'Probe'])
@pytest.mark.parametrize('missing', ['gallery_match', 'probe'])
def test_without_mat_a_name_without_number_is_an_error(tinyface_root, write_face, missing, folder):
    (tinyface_root / 'Testing_Set' / f'{missing}_img_ID_pairs.mat').unlink()
    write_face(tinyface_root / 'Testing_Set' / folder / 'somebody.jpg')
    with pytest.raises(ValueError, match=r'somebody\.jpg'):
        TinyFace(data_root=str(tinyface_root), split='test')


def test_mat_that_names_an_absent_image(tinyface_root):
    (tinyface_root / 'Testing_Set' / 'Probe' / '12_3.jpg').unlink()
    with pytest.raises(FileNotFoundError, match=r'names 1 images .*12_3\.jpg'):
        TinyFace(data_root=str(tinyface_root), split='test')


def test_image_that_the_mat_does_not_name_is_counted(tinyface_root, write_face, warned):
    write_face(tinyface_root / 'Testing_Set' / 'Probe' / '12_9.jpg')
    dataset = TinyFace(data_root=str(tinyface_root), split='test')
    assert '12_9.jpg' not in [row[1] for row in rows(dataset)]
    assert 'left out (1): probe images that probe_img_ID_pairs.mat does not name' in warned()


@pytest.mark.parametrize('content', [b'', b'no mat file at all', None])
def test_damaged_mat(tinyface_root, content):
    path = tinyface_root / 'Testing_Set' / 'probe_img_ID_pairs.mat'
    path.write_bytes(path.read_bytes()[:200] if content is None else content)
    with pytest.raises(ValueError, match=r'probe_img_ID_pairs\.mat: not a readable \.mat file'):
        TinyFace(data_root=str(tinyface_root), split='test')


def test_mat_of_another_kind(tinyface_root):
    path = tinyface_root / 'Testing_Set' / 'probe_img_ID_pairs.mat'
    scipy.io.savemat(path, {'probe_ids': [1]})
    with pytest.raises(ValueError, match=r"no variable probe_set; it has \['probe_ids'\]"):
        TinyFace(data_root=str(tinyface_root), split='test')


def test_mat_with_different_lengths(tmp_path, write_pairs):
    path = tmp_path / 'pairs.mat'
    write_pairs(path, 'probe', ['1_1.jpg', '1_2.jpg'], [1])
    with pytest.raises(ValueError, match='2 probe_set but 1 probe_ids'):
        read_pairs(path, 'probe_set', 'probe_ids')


def test_mat_with_two_identities_of_an_image(tmp_path, write_pairs):
    path = tmp_path / 'pairs.mat'
    write_pairs(path, 'probe', ['1_1.jpg', '1_1.jpg'], [1, 2])
    with pytest.raises(ValueError, match=r'gives 1_1\.jpg two identities, 1 and 2'):
        read_pairs(path, 'probe_set', 'probe_ids')


def test_read_pairs_keeps_the_order(tmp_path, write_pairs):
    names = ['3_1.jpg', '1_1.jpg', '20_10.jpg']
    write_pairs(tmp_path / 'pairs.mat', 'probe', names, [3, 1, 20])
    pairs = read_pairs(tmp_path / 'pairs.mat', 'probe_set', 'probe_ids')
    assert list(pairs.items()) == [('3_1.jpg', 3), ('1_1.jpg', 1), ('20_10.jpg', 20)]


@pytest.mark.parametrize(('name', 'identity'), [('12_3.jpg', 12), ('7_cam1_2.png', 7)])
def test_prefix_identity(name, identity):
    assert prefix_identity(name) == identity


def test_identities_beyond_64_bits(tmp_path, write_pairs):
    """Told on loading, not when the metrics of all faces are computed."""
    write_pairs(tmp_path / 'pairs.mat', 'probe', ['a.jpg', 'b.jpg'], [1.0, 1e20])
    with pytest.raises(ValueError, match=r'pairs\.mat.*probe_ids'):
        read_pairs(tmp_path / 'pairs.mat', 'probe_set', 'probe_ids')


@pytest.mark.parametrize('folder', ['', 'Training_Set', 'Testing_Set'])
def test_missing_folder_names_the_layout(tmp_path, folder):
    (tmp_path / 'there').mkdir()
    split = 'test' if folder == 'Testing_Set' else 'train'
    root = tmp_path / 'there' if folder else tmp_path / 'nowhere'
    with pytest.raises(FileNotFoundError, match=rf'{folder or "nowhere"} does not exist.*Gallery'):
        TinyFace(data_root=str(root), split=split)


def test_empty_set(tinyface_root):
    for path in (tinyface_root / 'Testing_Set' / 'Gallery_Distractor').iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r'no image in .*Gallery_Distractor'):
        TinyFace(data_root=str(tinyface_root), split='test')


def test_unknown_split(tinyface_root):
    with pytest.raises(ValueError, match="'train' or 'test'"):
        TinyFace(data_root=str(tinyface_root), split='val')


def test_other_counts_than_the_official_ones_warn(tinyface_root, warned):
    TinyFace(data_root=str(tinyface_root), split='train')
    assert '3 people (official 2,570), 7 images (official 7,804)' in warned()
    assert 'not comparable' in warned()


def test_real_train(shared):
    root = shared / 'data' / 'tinyface'
    dataset = TinyFace(data_root=str(root), split='train')
    assert len(dataset) == 1060
    assert dataset.num_classes == 150
    # Independent reading: people by their number, images by glob.
    people = sorted(int(folder.name) for folder in (root / 'Training_Set').iterdir())
    label_of = {
        str(path): label
        for label, person in enumerate(people)
        for path in (root / 'Training_Set' / str(person)).glob('*.jpg')
    }
    assert {info['img_path']: info['gt_label'] for info in dataset.infos()} == label_of


def test_real_test(shared, warned):
    root = shared / 'data' / 'tinyface'
    dataset = TinyFace(data_root=str(root), split='test')
    found = rows(dataset)
    counts = {role: sum(row[0] == role for row in found) for role in ('gallery', 'probe')}
    assert counts == {'gallery': 357, 'probe': 406}
    assert sum(row[0] == 'distractor' for row in found) == 1000
    # Independent reading of who is who: from the file names.
    for role, name, identity in found:
        expected = -100 if role == 'distractor' else int(re.match(r'(\d+)_', name).group(1))
        assert identity == expected
    # And of what there is: from the folders.
    for role, folder in (('gallery', 'Gallery_Match'), ('probe', 'Probe')):
        names = sorted(path.name for path in (root / 'Testing_Set' / folder).iterdir())
        assert sorted(row[1] for row in found if row[0] == role) == names
    gallery = {row[2] for row in found if row[0] == 'gallery'}
    assert {row[2] for row in found if row[0] == 'probe'} <= gallery
    assert len(gallery) == 190
    # The official lists and the names agree here: nothing to say but the counts.
    assert 'contradict' not in warned()
    assert 'left out' not in warned()


def test_real_images_load(shared):
    dataset = TinyFace(
        data_root=str(shared / 'data' / 'tinyface'),
        split='test',
        pipeline=[dict(type='LoadFace')],
        indices=np.arange(0, 1700, 100).tolist(),
    )
    sizes = [face['ori_shape'] for face in dataset]
    assert len(sizes) == 17
    assert all(min(size) >= 8 and max(size) <= 60 for size in sizes)
