"""LFW and its relatives from lists in their own formats, written from their descriptions."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmvlr.datasets import LFWFamily
from mmvlr.datasets.lfw_family import PROTOCOLS, read_lfw_pairs, read_two_line_pairs
from mmvlr.utils.schema import FileFormatError


def draw(root, names, size=20):
    rng = np.random.default_rng(0)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (size, size, 3), np.uint8)).save(root / name)


LFW = '1\t2\nAnn_Li\t1\t2\nBo\t1\t12\nAnn_Li\t1\tBo\t12\nBo\t1\tAnn_Li\t2\n'
LFW_NAMES = [
    f'{n}/{n}_{i:04}.jpg' for n, i in (('Ann_Li', 1), ('Ann_Li', 2), ('Bo', 1), ('Bo', 12))
]
TWO_LINES = 'A_1.jpg 1\nA_2.jpg 1\nB_1.jpg 2\nB_2.jpg 2\n' + 'A_1.jpg 0\nB_1.jpg 0\n' * 2
FLAT = ['A_1.jpg', 'A_2.jpg', 'B_1.jpg', 'B_2.jpg']


def write_cfp(root):
    frontal = [f'Data/Images/{p}/frontal/{i:02}.jpg' for p in ('001', '002') for i in (1, 2)]
    profile = [f'Data/Images/{p}/profile/01.jpg' for p in ('001', '002')]
    draw(root, frontal + profile)
    for letter, names in (('F', frontal), ('P', profile)):
        lines = [f'{number} ../{name}' for number, name in enumerate(names, 1)]
        (root / 'Protocol').mkdir(exist_ok=True)
        (root / f'Protocol/Pair_list_{letter}.txt').write_text('\n'.join(lines))
    for kind, fold, same, other in (
        ('FF', '01', '1,2\n', '1,3\n'),
        ('FF', '02', '3,4\n', '2,4\n'),
        ('FP', '01', '1,1\n4,2\n', '1,2\n'),
    ):
        folder = root / 'Protocol/Split' / kind / fold
        folder.mkdir(parents=True)
        (folder / 'same.txt').write_text(same)
        (folder / 'diff.txt').write_text(other)


@pytest.fixture
def root(tmp_path):
    draw(tmp_path / 'lfw', LFW_NAMES)
    draw(tmp_path / 'flat/aligned images', FLAT)
    for name in ('lfw/pairs.txt', 'lfw/xqlfw_pairs.txt'):
        (tmp_path / name).write_text(LFW)
    for name in ('pairs_CALFW.txt', 'pairs_CPLFW.txt'):
        (tmp_path / 'flat' / name).write_text(TWO_LINES)
    for name in ('agedb_30_pair.txt', 'pairs.txt'):
        (tmp_path / 'flat' / name).write_text('1 A_1.jpg A_2.jpg\nA_1.jpg B_2.jpg 0\n')
    write_cfp(tmp_path / 'cfp')
    return tmp_path


def listed(dataset):
    dataset.full_init()
    names = ['/'.join(info['img_path'].split('/')[-2:]) for info in dataset.infos()]
    rows = zip(dataset.metainfo['pairs'], dataset.metainfo['same'], strict=True)
    return [(names[a], names[b], bool(s)) for (a, b), s in rows]


@pytest.mark.parametrize(
    'protocol, folder, same, people',
    [
        ('lfw', 'lfw', [1, 1, 0, 0], ['Ann_Li', 'Ann_Li', 'Bo', 'Bo']),
        ('xqlfw', 'lfw', [1, 1, 0, 0], ['Ann_Li', 'Ann_Li', 'Bo', 'Bo']),
        ('calfw', 'flat', [1, 0, 1, 0], ['A', 'A', 'B', 'B']),
        ('cplfw', 'flat', [1, 0, 1, 0], ['A', 'A', 'B', 'B']),
        ('cfp_ff', 'cfp', [1, 0, 1, 0], ['001', '001', '002', '002']),
        ('cfp_fp', 'cfp', [1, 1, 0], ['001', '001', '002', '002']),
        ('agedb_30', 'flat', [1, 0], ['A', 'A', 'B']),
        ('pairs', 'flat', [1, 0], ['A', 'A', 'B']),
    ],
)
def test_every_set(root, protocol, folder, same, people, caplog):
    dataset = LFWFamily(str(root / folder), protocol)
    assert [s for *_, s in listed(dataset)] == [bool(s) for s in same]
    infos = list(dataset.infos())
    assert [info['person'] for info in infos] == people
    assert {info['role'] for info in infos} == {'pair'}
    # People are the same exactly where pairs say so.
    identity = np.array([info['identity'] for info in infos])
    pairs = dataset.metainfo['pairs']
    assert ((identity[pairs[:, 0]] == identity[pairs[:, 1]]) == dataset.metainfo['same']).all()


def test_frontal_and_profile_lists_are_told_apart(root):
    pairs = listed(LFWFamily(str(root / 'cfp'), 'cfp_fp'))
    assert pairs == [
        ('frontal/01.jpg', 'profile/01.jpg', True),
        ('frontal/02.jpg', 'profile/01.jpg', True),
        ('frontal/01.jpg', 'profile/01.jpg', False),
    ]


def test_images_elsewhere_with_another_extension(root):
    draw(root / 'aligned', [name.replace('.jpg', '.png') for name in LFW_NAMES])
    dataset = LFWFamily(str(root / 'lfw'), images=str(root / 'aligned'))
    assert listed(dataset)[0][0] == 'Ann_Li/Ann_Li_0001.png'


def test_full_size_list_has_600_pairs_a_fold(shared):
    pairs = read_lfw_pairs(shared / 'data' / 'formats' / 'lfw_pairs.txt')
    same = np.array([pair[2] for pair in pairs]).reshape(10, 2, 300)
    assert same[:, 0].all() and not same[:, 1].any()
    assert pairs[0][:2] == (
        'Abel_Pacheco/Abel_Pacheco_0001.jpg',
        'Abel_Pacheco/Abel_Pacheco_0004.jpg',
    )


@pytest.mark.parametrize(
    'protocol, folder, file, text, field',
    [
        ('lfw', 'lfw', 'pairs.txt', '1 2\nAnn_Li one 2\n', 'line 2'),
        ('calfw', 'flat', 'pairs_CALFW.txt', 'A_1.jpg 1\nA_2.jpg 2\n', 'line 2'),
        ('calfw', 'flat', 'pairs_CALFW.txt', 'A_1.jpg 1\n', 'lines'),
        ('cfp_ff', 'cfp', 'Protocol/Split/FF/02/diff.txt', '2,9\n', 'line 1'),
        ('agedb_30', 'flat', 'agedb_30_pair.txt', 'A_1.jpg A_2.jpg 2\n', 'line 1'),
    ],
)
def test_damaged_lists_are_named(root, protocol, folder, file, text, field):
    (root / folder / file).write_text(text)
    with pytest.raises(FileFormatError, match=field) as caught:
        LFWFamily(str(root / folder), protocol)
    assert file.split('/')[-1] in str(caught.value)


def test_what_is_missing_is_named(root):
    (root / 'lfw' / LFW_NAMES[3]).unlink()
    with pytest.raises(FileNotFoundError, match='Bo_0012'):
        LFWFamily(str(root / 'lfw'))
    with pytest.raises(FileNotFoundError, match=r'pairs_CALFW\.txt'):
        LFWFamily(str(root / 'lfw' / 'Bo'), 'calfw')
    with pytest.raises(ValueError, match='protocol'):
        LFWFamily(str(root), 'lwf')
    assert set(PROTOCOLS) > {'lfw', 'agedb_30'}


def test_pairs_of_two_people_are_spread_over_the_folds(tmp_path):
    lines = [f'P{i}_1.jpg {i // 3 + 1}\nP{i}_2.jpg {i // 3 + 1}' for i in range(30)]
    lines += [f'P{i}_1.jpg 0\nP{i + 1}_1.jpg 0' for i in range(29)]
    (tmp_path / 'pairs.txt').write_text('\n'.join(lines))
    same = np.array([pair[2] for pair in read_two_line_pairs(tmp_path / 'pairs.txt')])
    assert [part.sum() for part in np.array_split(same, 10)] == [3] * 10


@pytest.mark.parametrize('size, preset', [('', ''), ('16', ''), ('', 'scface_d1')])
def test_config_degrades_on_the_fly(root, monkeypatch, size, preset):
    for name, value in dict(ROOT=str(root / 'lfw'), SIZE=size, PRESET=preset).items():
        monkeypatch.setenv(f'LFW_{name}', value)
    config = Config.fromfile(Path(__file__).parents[2] / 'configs/_base_/datasets/lfw.py')
    options = config.test_dataloader.dataset.to_dict()
    assert options.pop('type') == 'LFWFamily'
    options['pipeline'] = options['pipeline'][:-2]
    dataset = LFWFamily(**options)
    # The images of the test are 20 x 20; the preset's are 10 to 18 pixels high.
    height = dataset[0]['img'].shape[0]
    assert height == (16 if size else height if preset else 20) and (10 <= height <= 20)
    assert (dataset[0]['img'] == dataset[0]['img']).all()
    assert config.test_evaluator.insightface
