"""The one walk: links are followed, loops end, and what cannot be read has a name and a reason."""

import os

import pytest

from mmvlr.apis.images import count_images, find_paths, read_images
from mmvlr.datasets import FaceFolder, UIFaces
from mmvlr.datasets.finding import find_images
from mmvlr.preparation.align_tree import files_below
from mmvlr.preparation.degradation_statistics import require_images


@pytest.fixture
def tree(tmp_path, write_face):
    """Five images, one of them behind a link to a folder elsewhere, and links of all kinds."""
    root = tmp_path / 'here' / 'people'
    for name in ('1/a.png', '1/b.jpg', '2/c.png', '2/deep/d.png', '2/.hidden.png', '.no/e.png'):
        write_face(root / name)
    write_face(tmp_path / 'elsewhere' / 'linked.png')
    write_face(tmp_path / 'here' / 'beside.png')
    (root / '1' / 'notes.txt').write_text('a text')
    (root / '3').symlink_to(tmp_path / 'elsewhere')
    (root / '2' / 'loop').symlink_to(root)
    (root / '2' / 'self').symlink_to('.')
    (tmp_path / 'elsewhere' / 'back').symlink_to(root / '2')
    (root / '4').symlink_to(tmp_path / 'gone')
    (root / '1' / 'gone.jpg').symlink_to('nowhere.jpg')
    os.mkfifo(root / '1' / 'pipe.png')
    return root


IMAGES = ['1/a.png', '1/b.jpg', '2/c.png', '2/deep/d.png', '3/linked.png']
#: The link back is no loop of its own: what it leads to is read under this name too.
BACK = ['3/back/c.png', '3/back/deep/d.png']
UNREAD = {
    '4': 'a link that leads nowhere',
    '1/gone.jpg': 'a link that leads nowhere',
    '1/pipe.png': 'neither file nor folder',
}


def names(paths, root):
    return [path.relative_to(root).as_posix() for path in paths]


def deny(monkeypatch, folder):
    """Take the right to read a folder; the tests may run as root."""
    scandir = os.scandir

    def refuse(path='.'):
        if os.fspath(path) == str(folder):
            raise PermissionError(13, 'Permission denied', str(path))
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', refuse)


def test_tree(tree):
    found = find_images(tree)
    assert names(found.images, tree) == [*IMAGES, *BACK]
    assert names(found.others, tree) == ['1/notes.txt']
    assert {
        entry.path.relative_to(tree).as_posix(): entry.reason for entry in found.unread
    } == UNREAD


def test_link_above_is_named_and_not_followed(tree):
    (tree / 'up').symlink_to(tree.parent)
    found = find_images(tree)
    assert names(found.images, tree) == [*IMAGES, *BACK]
    (entry,) = (entry for entry in found.unread if entry.path == tree / 'up')
    assert 'above' in entry.reason


def test_folder_that_may_not_be_read(tree, monkeypatch):
    deny(monkeypatch, tree / '2')
    found = find_images(tree)
    assert names(found.images, tree) == ['1/a.png', '1/b.jpg', '3/linked.png', *BACK]
    assert f'{tree / "2"} (Permission denied)' in map(str, found.unread)
    deny(monkeypatch, tree)
    with pytest.raises(PermissionError):
        find_images(tree)


def test_every_walk_is_this_one(tree, monkeypatch):
    """Tools and data sets find the same images."""
    deny(monkeypatch, tree / '2' / 'deep')
    readable = ['1/a.png', '1/b.jpg', '2/c.png', '3/back/c.png', '3/linked.png']
    readable.insert(4, '3/back/deep/d.png')
    assert [n for n in files_below(tree) if not n.endswith('.txt')] == sorted(readable)
    assert sorted(names(require_images(tree).images, tree)) == sorted(readable)
    dataset = UIFaces(data_root=str(tree))
    found = [info['img_path'].removeprefix(f'{tree}/') for info in dataset.infos()]
    assert sorted(found) == sorted(readable)
    assert len(dataset.left_out['entries that cannot be read']) == 4


# What a user names ------------------------------------------------------------------------------


def test_what_cannot_be_read_is_a_failure_with_its_name(tree, monkeypatch):
    """Linked folders are entered; folders and links that cannot be read come as errors."""
    deny(monkeypatch, tree / '2' / 'deep')
    images = list(read_images(tree))
    assert count_images(tree) == len(images)
    good = [image.name.removeprefix(f'{tree}/') for image in images if not image.error]
    assert good == [
        '1/a.png',
        '1/b.jpg',
        '2/c.png',
        '3/back/c.png',
        '3/back/deep/d.png',
        IMAGES[-1],
    ]
    errors = {p.name.removeprefix(f'{tree}/'): str(p.error) for p in images if p.error}
    assert set(errors) == {'1/gone.jpg', '1/pipe.png', '2/deep', '4'}
    assert 'leads nowhere (nowhere.jpg)' in errors['1/gone.jpg']
    assert 'Permission denied' in errors['2/deep']
    # One by one, as enrollment asks for them, they are the same.
    again = list(read_images([str(path) for path in find_paths(tree)]))
    assert [(p.name, str(p.error)) for p in again] == [(p.name, str(p.error)) for p in images]


def test_pipes_are_not_opened(tree):
    """Reading one would wait for ever."""
    (image,) = read_images([tree / '1' / 'pipe.png'])
    assert image.error is not None


@pytest.mark.parametrize(
    ('pattern', 'expected'),
    [
        ('*', IMAGES),
        ('**', [*IMAGES[:4], *BACK, IMAGES[4]]),
        ('**/*.png', ['1/a.png', '2/c.png', '2/deep/d.png', *BACK, IMAGES[4]]),
        ('[12]/*.jpg', ['1/b.jpg']),
    ],
)
def test_globs_find_what_the_folders_hold(tree, pattern, expected):
    if pattern == '*':
        # Each folder is a walk of its own, as where the shell expands the pattern.
        (tree / '3' / 'back').unlink()
    found = names(find_paths(tree / pattern), tree)
    assert [name for name in found if name not in UNREAD] == expected


def test_glob_names_what_it_cannot_enter(tree, monkeypatch):
    deny(monkeypatch, tree / '2' / 'deep')
    for pattern in ('**/*.png', '**/*.jpg', '2/*'):
        assert tree / '2' / 'deep' in find_paths(tree / pattern)


# Data sets --------------------------------------------------------------------------------------


def test_person_that_cannot_be_read_is_left_out_and_named(tree, monkeypatch, warned):
    deny(monkeypatch, tree / '2')
    dataset = FaceFolder(data_root=str(tree))
    assert {info['identity'] for info in dataset.infos()} == {1, 3}
    assert sorted(dataset.left_out['entries that cannot be read']) == [
        '1/gone.jpg (a link that leads nowhere)',
        '1/pipe.png (neither file nor folder)',
        '2 (Permission denied)',
        '4 (a link that leads nowhere)',
    ]
    assert 'left out (4): entries that cannot be read' in warned()
