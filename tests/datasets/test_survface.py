import re
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from mmvlr.datasets import NO_IDENTITY, SurvFace

PIPELINE = [dict(type='LoadFace'), dict(type='ResizeFace', size=(32, 32)), dict(type='PackFace')]
IDENTIFICATION = 'Face_Identification_Test_Set'
VERIFICATION = 'Face_Verification_Test_Set'
UNMATED = [
    ('unmated', '20_2.jpg', 10),
    ('unmated', '20_cam1_1.jpg', 10),
    ('unmated', '3_cam1_1.jpg', 11),
    ('unmated', 'distractors_1.jpg', NO_IDENTITY),
]


def make(root, split='identification', **kwargs):
    return SurvFace(data_root=str(root), split=split, **kwargs)


def rows(dataset, *roles):
    """(role, file name, identity) of the images."""
    return [
        (info['role'], Path(info['img_path']).name, info['identity'])
        for info in dataset.infos()
        if not roles or info['role'] in roles
    ]


def named_pairs(dataset):
    """(name, name, same) of the pairs, looked up through the sample indices."""
    meta = dataset.metainfo
    assert meta['pairs'].shape == (len(meta['same']), 2)
    return [
        (
            *(Path(dataset.get_data_info(int(i))['img_path']).name for i in pair),
            bool(same),
        )
        for pair, same in zip(meta['pairs'], meta['same'], strict=True)
    ]


def test_train(survface_root, warned):
    dataset = make(survface_root, 'train')
    # Labels follow the numeric order of the people, not the order of their names.
    found = [(info['identity'], info['gt_label'], info['role']) for info in dataset.infos()]
    assert found == [(2, 0, 'train')] * 3 + [(7, 1, 'train')] * 2 + [(10, 2, 'train')] * 2
    assert dataset.num_classes == 3
    assert not dataset.test_mode
    assert '3 people (official 5,319), 7 images (official 220,890)' in warned()
    assert 'pairs' not in dataset.metainfo


def test_identification(survface_root, warned):
    dataset = make(survface_root)
    # Unmated people get the numbers above those of the .mat files, one for each prefix.
    assert rows(dataset) == [
        ('gallery', '11_cam1_1.jpg', 5),
        ('gallery', '12_cam1_1.jpg', 9),
        ('gallery', '12_2.jpg', 9),
        ('probe', '11_cam2_2.jpg', 5),
        ('probe', '12_cam3_3.jpg', 9),
        *UNMATED,
    ]
    assert NO_IDENTITY == -100
    assert dataset.test_mode
    assert dataset.num_classes == 0
    assert 'pairs' not in dataset.metainfo
    assert '2 people in the gallery (official 3,000), 2 mated probes (official 60,423)' in warned()
    assert 'note (' not in warned()
    assert 'left out' not in warned()


@pytest.mark.parametrize('missing', ['gallery', 'mated_probe'])
def test_missing_mat(survface_root, missing, warned):
    """The other file counts people otherwise than the names do: it must not be used either."""
    make(survface_root)
    assert 'is missing' not in warned()
    (survface_root / IDENTIFICATION / f'{missing}_img_ID_pairs.mat').unlink()
    assert rows(make(survface_root)) == [
        ('gallery', '11_cam1_1.jpg', 11),
        ('gallery', '12_2.jpg', 12),
        ('gallery', '12_cam1_1.jpg', 12),
        ('probe', '11_cam2_2.jpg', 11),
        ('probe', '12_cam3_3.jpg', 12),
        *(
            (role, name, identity + 3 if identity > 0 else identity)
            for role, name, identity in UNMATED
        ),
    ]
    assert f'{missing}_img_ID_pairs.mat is missing; identities of gallery and probe' in warned()


PAIRS_FILES = [
    f'{IDENTIFICATION}/gallery_img_ID_pairs.mat',
    f'{IDENTIFICATION}/mated_probe_img_ID_pairs.mat',
    f'{VERIFICATION}/positive_pairs_names.mat',
    f'{VERIFICATION}/negative_pairs_names.mat',
]


@pytest.mark.parametrize('file', PAIRS_FILES)
def test_damaged_mat(survface_root, file):
    path = survface_root / file
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(ValueError, match=rf'{path.name}: not a readable \.mat file'):
        make(survface_root, 'test')


@pytest.mark.parametrize('file', PAIRS_FILES)
def test_mat_of_another_kind(survface_root, file):
    scipy.io.savemat(survface_root / file, {'other': [1]})
    expected = rf"{Path(file).name}: no variable \w+(_set|_names); it has \['other'\]"
    with pytest.raises(ValueError, match=expected):
        make(survface_root, 'test')


@pytest.mark.parametrize(
    ('file', 'image'),
    [
        ('gallery_img_ID_pairs.mat', 'gallery/12_2.jpg'),
        ('mated_probe_img_ID_pairs.mat', 'mated_probe/11_cam2_2.jpg'),
    ],
)
def test_mat_that_names_an_absent_image(survface_root, file, image):
    (survface_root / IDENTIFICATION / image).unlink()
    folder, name = image.split('/')
    with pytest.raises(
        FileNotFoundError, match=rf'{file} names 1 images .* in .*/{folder}, such as {name}'
    ):
        make(survface_root)


@pytest.mark.parametrize('kind', ['positive', 'negative'])
def test_pair_of_an_absent_image(survface_root, write_name_pairs, kind):
    key = f'{kind}_pairs_names'
    pairs = [('31_cam1_1.jpg', '99_1.jpg'), ('98_1.jpg', '99_1.jpg')]
    write_name_pairs(survface_root / VERIFICATION / f'{key}.mat', key, pairs)
    expected = rf'{key}\.mat names 2 images .*verification_images, such as 99_1\.jpg'
    with pytest.raises(FileNotFoundError, match=expected):
        make(survface_root, 'verification')


def test_image_that_the_mat_does_not_name_is_counted(survface_root, write_face, warned):
    write_face(survface_root / IDENTIFICATION / 'gallery' / '11_cam9_9.jpg')
    assert '11_cam9_9.jpg' not in [row[1] for row in rows(make(survface_root))]
    assert 'left out (1): gallery images that gallery_img_ID_pairs.mat does not name' in warned()


NOT_TOGETHER = '1 mated probes have no image of their person in the gallery, such as'


def test_mated_probe_whose_person_is_not_in_the_gallery(survface_root, write_pairs):
    file = survface_root / IDENTIFICATION / 'mated_probe_img_ID_pairs.mat'
    write_pairs(file, 'mated_probe', ['11_cam2_2.jpg', '12_cam3_3.jpg'], [5, 8])
    with pytest.raises(ValueError, match=rf'{NOT_TOGETHER} 12_cam3_3\.jpg; .*do not belong'):
        make(survface_root)


def test_mated_probe_whose_person_is_not_in_the_gallery_by_name(survface_root, write_face):
    (survface_root / IDENTIFICATION / 'gallery_img_ID_pairs.mat').unlink()
    write_face(survface_root / IDENTIFICATION / 'mated_probe' / '40_1.jpg')
    with pytest.raises(ValueError, match=rf'{NOT_TOGETHER} 40_1\.jpg; .*do not belong'):
        make(survface_root)


@pytest.mark.parametrize('name', ['12_2.jpg', '11_cam2_2.jpg'])
def test_unmated_image_that_is_also_matched(survface_root, write_face, name, warned):
    """A copy would be a false alarm with a score of 1."""
    write_face(survface_root / IDENTIFICATION / 'unmated_probe' / name)
    dataset = make(survface_root)
    assert rows(dataset, 'unmated') == UNMATED
    expected = 'left out (1): unmated images that are also in gallery or mated_probe'
    assert f'{expected} ({name})' in warned()
    assert 'note (' not in warned()


def test_unmated_image_whose_name_is_in_both(survface_root, write_face, write_pairs, warned):
    """The copy in the gallery counts, although a mated probe has its name too."""
    test = survface_root / IDENTIFICATION
    write_face(test / 'mated_probe' / '12_2.jpg', size=(9, 9))
    file = test / 'mated_probe_img_ID_pairs.mat'
    write_pairs(file, 'mated_probe', ['11_cam2_2.jpg', '12_2.jpg'], [5, 9])
    write_face(test / 'unmated_probe' / '12_2.jpg')
    assert rows(make(survface_root), 'unmated') == UNMATED
    assert 'left out (1): unmated images that are also in gallery or mated_probe' in warned()


def test_unmated_image_with_the_name_of_another(survface_root, write_face, warned):
    write_face(survface_root / IDENTIFICATION / 'unmated_probe' / '12_2.jpg', size=(9, 9))
    assert rows(make(survface_root), 'unmated') == [('unmated', '12_2.jpg', 9), *UNMATED]
    assert 'left out' not in warned()
    assert 'note (1): unmated images named like people of the gallery (12_2.jpg)' in warned()


def test_unmated_image_named_like_a_person_of_the_gallery(survface_root, write_face, warned):
    write_face(survface_root / IDENTIFICATION / 'unmated_probe' / '11_cam7_7.jpg')
    assert rows(make(survface_root), 'unmated') == [('unmated', '11_cam7_7.jpg', 5), *UNMATED]
    assert 'note (1): unmated images named like people of the gallery (11_cam7_7' in warned()


def test_unmated_without_an_image(survface_root, write_face):
    folder = survface_root / IDENTIFICATION / 'unmated_probe'
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r'no image in .*unmated_probe; expected training_set'):
        make(survface_root)
    write_face(folder / '12_2.jpg')
    with pytest.raises(ValueError, match=r'every image of .*unmated_probe is also in gallery'):
        make(survface_root)


def test_foreign_files_are_counted(survface_root, warned):
    for folder in ('gallery', 'mated_probe', 'unmated_probe'):
        (survface_root / IDENTIFICATION / folder / 'Thumbs.db').write_text('junk')
    assert len(make(survface_root)) == 9
    assert 'left out (3): entries that are no images (gallery/Thumbs.db, mated_' in warned()


PAIRS = [
    ('31_cam1_1.jpg', '31_cam2_2.jpg', True),
    ('32_cam1_1.jpg', '32_2.jpg', True),
    ('33_cam1_1.jpg', '31_cam1_1.jpg', False),
]


def test_verification(survface_root, warned):
    dataset = make(survface_root, 'verification')
    # Each image once, though one is in two pairs.
    assert rows(dataset) == [
        ('pair', '31_cam1_1.jpg', 31),
        ('pair', '31_cam2_2.jpg', 31),
        ('pair', '32_cam1_1.jpg', 32),
        ('pair', '32_2.jpg', 32),
        ('pair', '33_cam1_1.jpg', 33),
    ]
    assert dataset.metainfo['pairs'].tolist() == [[0, 1], [2, 3], [4, 0]]
    assert dataset.metainfo['same'].tolist() == [True, True, False]
    assert dataset.metainfo['same'].dtype == bool
    assert named_pairs(dataset) == PAIRS
    assert dataset.test_mode
    assert not warned()


def test_test_is_both(survface_root):
    dataset = make(survface_root, 'test')
    identification = rows(make(survface_root))
    assert rows(dataset) == identification + rows(make(survface_root, 'verification'))
    assert dataset.metainfo['pairs'].min() == len(identification)
    assert named_pairs(dataset) == PAIRS
    assert dataset.test_mode


def test_pairs_files_in_the_evaluation_folder(survface_root):
    other = survface_root / 'Face_Verification_Evaluation'
    other.mkdir()
    for kind in ('positive', 'negative'):
        name = f'{kind}_pairs_names.mat'
        (survface_root / VERIFICATION / name).rename(other / name)
        assert named_pairs(make(survface_root, 'verification')) == PAIRS


@pytest.mark.parametrize('kind', ['positive', 'negative'])
def test_missing_pairs_file(survface_root, kind):
    (survface_root / VERIFICATION / f'{kind}_pairs_names.mat').unlink()
    with pytest.raises(FileNotFoundError, match=rf'{kind}_pairs_names\.mat is missing; expected'):
        make(survface_root, 'verification')


@pytest.mark.parametrize('shape', [(2, 3), (6, 1), (0, 2)])
def test_pairs_of_another_shape(survface_root, write_name_pairs, shape):
    cells = np.full(shape, '31_cam1_1.jpg', dtype=object)
    file = survface_root / VERIFICATION / 'positive_pairs_names.mat'
    write_name_pairs(file, 'positive_pairs_names', cells)
    with pytest.raises(ValueError, match=re.escape(f'has shape {shape}; expected (N, 2)')):
        make(survface_root, 'verification')


def test_pairs_that_are_no_names(survface_root):
    file = survface_root / VERIFICATION / 'positive_pairs_names.mat'
    scipy.io.savemat(file, {'positive_pairs_names': np.ones((3, 2))})
    with pytest.raises(ValueError, match=r'where a file name is expected'):
        make(survface_root, 'verification')


def test_images_in_no_pair_are_counted(survface_root, write_face, warned):
    write_face(survface_root / VERIFICATION / 'verification_images' / '50_1.jpg')
    dataset = make(survface_root, 'verification')
    assert named_pairs(dataset) == PAIRS
    assert '50_1.jpg' not in [row[1] for row in rows(dataset)]
    assert 'left out (1): verification images that are in no pair (50_1.jpg)' in warned()


@pytest.mark.parametrize(
    ('kind', 'pair'),
    [
        ('positive', ('31_cam1_1.jpg', '32_2.jpg')),
        ('negative', ('31_cam1_1.jpg', '31_cam2_2.jpg')),
    ],
)
def test_pairs_that_the_names_contradict(survface_root, write_name_pairs, kind, pair, warned):
    """The .mat file decides; the contradiction is said."""
    key = f'{kind}_pairs_names'
    pairs = [p[:2] for p in PAIRS if p[2] == (kind == 'positive')] + [pair]
    write_name_pairs(survface_root / VERIFICATION / f'{key}.mat', key, pairs)
    dataset = make(survface_root, 'verification')
    assert (*pair, kind == 'positive') in named_pairs(dataset)
    expected = f'note (1): {kind} pairs that the file names contradict ({pair[0]} and {pair[1]})'
    assert expected in warned()


def test_pair_without_a_number_in_the_name(survface_root, write_face, write_name_pairs, warned):
    write_face(survface_root / VERIFICATION / 'verification_images' / 'somebody.jpg')
    key = 'positive_pairs_names'
    pairs = [(*PAIRS[0][:2],), ('32_2.jpg', '32_cam1_1.jpg'), ('somebody.jpg', '31_cam1_1.jpg')]
    write_name_pairs(survface_root / VERIFICATION / f'{key}.mat', key, pairs)
    dataset = make(survface_root, 'verification')
    assert ('pair', 'somebody.jpg', NO_IDENTITY) in rows(dataset)
    assert ('somebody.jpg', '31_cam1_1.jpg', True) in named_pairs(dataset)
    assert not warned()


@pytest.mark.parametrize('split', ['train', 'identification', 'verification', 'test'])
def test_root_that_holds_the_data_set_and_images_load(tmp_path, survface_root, split):
    expected = rows(make(survface_root, split))
    survface_root.rename(tmp_path / 'QMUL-SurvFace')
    dataset = make(tmp_path, split, pipeline=PIPELINE)
    assert rows(dataset) == expected
    for index, (face, (role, name, identity)) in enumerate(zip(dataset, expected, strict=True)):
        assert face['inputs'].shape == (3, 32, 32)
        sample = face['data_samples']
        assert (sample.role, sample.identity, sample.sample_idx) == (role, identity, index)
        assert sample.img_path.endswith(f'/{name}')
        assert ('gt_label' in sample) == (split == 'train')


@pytest.mark.parametrize(
    ('split', 'folder'),
    [
        ('train', 'training_set'),
        ('identification', IDENTIFICATION),
        ('identification', f'{IDENTIFICATION}/unmated_probe'),
        ('verification', f'{VERIFICATION}/verification_images'),
    ],
)
def test_missing_folder_names_the_layout(survface_root, split, folder):
    (survface_root / folder).rename(survface_root / 'elsewhere')
    expected = rf'SurvFace: .*{folder} does not exist; expected training_set/<person>'
    with pytest.raises(FileNotFoundError, match=expected):
        make(survface_root, split)


def test_unknown_split(survface_root):
    with pytest.raises(ValueError, match=r"'identification', 'verification'\), not 'val'"):
        make(survface_root, 'val')


def test_real_train(shared):
    root = shared / 'data' / 'survface' / 'training_set'
    dataset = make(root.parent, 'train')
    assert (len(dataset), dataset.num_classes) == (1060, 150)
    # Independent reading: people by their number, images by glob.
    people = sorted(int(folder.name) for folder in root.iterdir())
    label_of = {
        str(path): label
        for label, person in enumerate(people)
        for path in (root / str(person)).glob('*.jpg')
    }
    assert {info['img_path']: info['gt_label'] for info in dataset.infos()} == label_of


def test_real_test(shared, warned):
    root = shared / 'data' / 'survface'
    dataset = make(root, 'test', pipeline=PIPELINE)
    counts = {'gallery': 261, 'probe': 283, 'unmated': 447}
    folders = {'gallery': 'gallery', 'probe': 'mated_probe', 'unmated': 'unmated_probe'}
    people = {}
    for role, count in counts.items():
        found = rows(dataset, role)
        assert len(found) == count
        # Independent reading of what there is: from the folders.
        listed = sorted(path.name for path in (root / IDENTIFICATION / folders[role]).iterdir())
        assert sorted(row[1] for row in found) == listed
        # And of who is who: the numbers differ, but group the images as the names do.
        people[role] = {(name.split('_')[0], identity) for _, name, identity in found}
    distractors = {person for person in people['unmated'] if person[1] == NO_IDENTITY}
    assert distractors == {('distractors', NO_IDENTITY)}
    assert people['gallery'] == people['probe']
    assert len(people['gallery']) == 126
    assert {identity for _, identity in people['gallery']} == set(range(1, 127))
    unmated = people['unmated'] - distractors
    assert {identity for _, identity in unmated} == set(range(127, 127 + len(unmated)))
    assert len({name for name, _ in unmated}) == len(unmated)

    pairs = named_pairs(dataset)
    assert [same for _, _, same in pairs] == [True] * 500 + [False] * 500
    for one, other, same in pairs:
        assert (one.split('_')[0] == other.split('_')[0]) == same
    content = scipy.io.loadmat(root / VERIFICATION / 'negative_pairs_names.mat')
    first = [cell.item() for cell in content['negative_pairs_names'][0]]
    assert list(pairs[500]) == [*first, False]

    for index in range(0, len(dataset), 200):
        assert dataset[index]['inputs'].shape == (3, 32, 32)
    assert 'contradict' not in warned()
    assert 'left out' not in warned()
