"""Whatever a user calls faces: files, folders, globs, arrays, and what is none of these."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmvlr.apis.images import VideoError, count_images, find_paths, read_images
from mmvlr.datasets.transforms import ImageError, read_image


def face(level=90, height=8, width=9):
    return np.full((height, width, 3), level, np.uint8)


def save(path, level=90):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(face(level)).save(path)
    return path


def levels(faces):
    """First gray level of each image; of one that cannot be used its error."""
    return [p.error if p.pixels is None else int(p.pixels[0, 0, 0]) for p in read_images(faces)]


def the_error(faces):
    (error,) = levels(faces)
    assert isinstance(error, Exception)
    return error


# Paths ------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path):
    """Three images, and all sorts of other things."""
    save(tmp_path / 'b.png', 2)
    save(tmp_path / 'a.PNG', 1)
    save(tmp_path / 'sub' / 'c.bmp', 3)
    save(tmp_path / '.cache' / 'd.png', 4)
    save(tmp_path / 'sub' / '._c.bmp.png', 5)
    (tmp_path / 'notes.txt').write_text('a text')
    (tmp_path / 'movie.mp4').write_bytes(b'')
    (tmp_path / 'folder.jpg').mkdir()
    return tmp_path


def test_folder(tree):
    """Images below it by name; hidden ones (a Mac's, a cache's) and other files are none."""
    assert [path.name for path in find_paths(tree)] == ['a.PNG', 'b.png', 'c.bmp']
    assert levels(str(tree)) == [1, 2, 3]
    assert count_images(tree) == 3


def test_hidden_folder_that_is_named(tmp_path):
    save(tmp_path / '.hidden' / 'a.png', 7)
    assert levels(tmp_path / '.hidden') == [7]


def test_empty_folder(tmp_path):
    (tmp_path / 'movie.mp4').write_bytes(b'')
    with pytest.raises(ValueError, match=r'holds no image \(\.bmp, \.jpeg, \.jpg'):
        list(read_images(tmp_path))


def test_nothing_of_that_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nobody\.png does not exist'):
        list(read_images(tmp_path / 'nobody.png'))
    with pytest.raises(FileNotFoundError, match=r'no file matches .*\*\.jpeg'):
        list(read_images(str(tmp_path / '*.jpeg')))


def test_glob(tree):
    assert levels(str(tree / '*.png')) == [2]
    assert levels(str(tree / '**' / '*.bmp')) == [3]
    assert count_images(f'{tree}/*.[pP][nN][gG]') == 2


def test_name_that_looks_like_a_glob(tmp_path):
    assert levels(str(save(tmp_path / 'face [1].png', 8))) == [8]


def test_spaces_and_other_alphabets(tmp_path):
    path = save(tmp_path / 'Zoë Müller' / 'лицо 顔 01.png', 9)
    (image,) = read_images(str(path.parent))
    assert image.name == str(path)
    assert image.pixels[0, 0, 0] == 9


def test_home(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    save(tmp_path / 'crops' / 'a.png', 5)
    for named in ('~/crops', '~/crops/a.png', '~/crops/*.png'):
        assert levels(named) == [5]
        assert count_images(named) == 1


def test_file_named_like_a_home(tmp_path, monkeypatch):
    """Path.expanduser raises RuntimeError for it."""
    monkeypatch.chdir(tmp_path)
    save(tmp_path / '~nobody-here.png', 6)
    assert levels('~nobody-here.png') == [6]


# What is no image -----------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['clip.mp4', 'CLIP.MOV', 'clip.webm'])
def test_video_by_name(tmp_path, name):
    (tmp_path / name).write_bytes(b'')
    error = the_error(tmp_path / name)
    assert isinstance(error, VideoError)
    assert name in str(error) and 'ffmpeg' in str(error)


@pytest.mark.parametrize(
    'head',
    [
        b'\0\0\0\x20ftypisom\0\0\2\0',
        b'\0\0\0\x14ftypqt  ',
        b'\x1a\x45\xdf\xa3\x01\0\0\0\0\0\0\x1f',
        b'RIFF\x24\0\0\0AVI LIST',
    ],
)
def test_video_by_content(tmp_path, head):
    (tmp_path / 'face.jpg').write_bytes(head + bytes(100))
    assert isinstance(the_error(tmp_path / 'face.jpg'), VideoError)


@pytest.mark.parametrize('suffix', ['webp', 'avif'])
def test_images_in_the_containers_of_videos(tmp_path, suffix):
    """RIFF and ISO media hold images too."""
    path = tmp_path / f'face.{suffix}'
    try:
        Image.fromarray(face(80)).save(path)
    except (KeyError, ValueError, OSError) as error:
        pytest.skip(f'this Pillow writes no {suffix} ({error})')
    assert levels(path)[0] == pytest.approx(80, abs=3)


@pytest.mark.parametrize('content', [b'', b'hello\n', b'\xff\xd8\xff\xe0 no jpeg'])
def test_no_image(tmp_path, content):
    (tmp_path / 'face.jpg').write_bytes(content)
    error = the_error(tmp_path / 'face.jpg')
    assert isinstance(error, ImageError)
    assert 'face.jpg cannot be read' in str(error)


@pytest.mark.parametrize(('size', 'good'), [((1, 1), 0), ((100, 3), 0), ((4, 4), 1)])
def test_smallest_image(tmp_path, size, good):
    Image.fromarray(face(50, *size)).save(tmp_path / 'tiny.png')
    (image,) = read_images(tmp_path / 'tiny.png')
    assert (image.pixels is not None) == good
    if not good:
        assert f'tiny.png has {size[0]} x {size[1]} pixels' in str(image.error)


def test_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = save(tmp_path / 'a.png')

    def refuse(*args, **kwargs):
        raise PermissionError(13, 'Permission denied', str(path))

    monkeypatch.setattr('mmvlr.apis.images.read_image', refuse)
    assert isinstance(the_error(path), PermissionError)


# Arrays -----------------------------------------------------------------------------------------


def pixels_of(array):
    (image,) = read_images(array)
    assert image.error is None, image.error
    return image.pixels


def test_arrays():
    draws = np.random.default_rng(0)
    colors = draws.integers(0, 256, (8, 9, 3), np.uint8)
    assert np.array_equal(pixels_of(colors), colors)
    for gray in (colors[..., 0], colors[..., :1]):
        assert np.array_equal(pixels_of(gray), np.stack([colors[..., 0]] * 3, axis=2))
    alpha = draws.integers(0, 256, (8, 9, 1), np.uint8)
    blended = pixels_of(np.concatenate([colors, alpha], axis=2))
    expected = np.zeros((8, 9, 3))
    for y in range(8):
        for x in range(9):
            a = float(alpha[y, x, 0]) / 255
            expected[y, x] = [a * float(c) + (1 - a) * 127 for c in colors[y, x]]
    assert blended.dtype == np.uint8
    assert np.abs(blended - expected).max() <= 0.5 + 1e-4
    assert np.array_equal(pixels_of(colors.astype(np.uint16) * 257), colors)


def test_batch():
    batch = np.stack([face(level) for level in (1, 2, 3)])
    assert levels(batch) == [1, 2, 3]
    assert count_images(batch) == 3
    assert [p.name for p in read_images([batch, face(4)])] == [f'array {i}' for i in range(4)]


def test_tensors():
    batch = torch.from_numpy(np.stack([face(4), face(5)]))
    assert levels(batch) == [4, 5]
    assert levels([batch[1], batch[0]]) == [5, 4]
    assert count_images(batch) == 2
    assert count_images(batch[0]) == 1
    assert count_images([batch, batch[0]]) == 3


@pytest.mark.parametrize(
    ('array', 'told'),
    [
        (np.zeros((8, 9, 3), np.float32), r'float32 .*\(255 \* array\)\.round\(\)'),
        (np.zeros((8, 9, 3), np.int64), 'int64'),
        (np.zeros((8, 9), bool), 'bool'),
        (torch.zeros(8, 9, 3), 'float32'),
        (torch.zeros(3, 8, 9, dtype=torch.uint8), r'\(3, 8, 9\).*channels last'),
        (np.zeros((8, 9, 2), np.uint8), r'\(8, 9, 2\)'),
        (np.zeros((2, 2, 8, 9, 3), np.uint8), r'\(2, 2, 8, 9, 3\)'),
        (np.zeros(8, np.uint8), r'\(8,\)'),
        (np.zeros((3, 9, 3), np.uint8), '3 x 9 pixels'),
        (np.zeros((0, 9, 3), np.uint8), '0 x 9 pixels'),
    ],
)
def test_arrays_that_are_no_images(array, told):
    error = the_error(array)
    assert isinstance(error, ImageError)
    with pytest.raises(ImageError, match=told):
        raise error


@pytest.mark.parametrize('nothing', [None, 3, 2.5, object(), b'bytes', {}])
def test_what_is_nothing_of_this_kind(nothing):
    with pytest.raises(TypeError, match=f'not {type(nothing).__name__}'):
        list(read_images(nothing))
    first, wrong, last = levels([face(1), nothing, face(2)])
    assert (first, last) == (1, 2)
    assert isinstance(wrong, ImageError) and type(nothing).__name__ in str(wrong)
    assert count_images([face(1), nothing]) == 2


def test_images_of_pillow():
    """Of any mode, as a file of them is read."""
    palette = Image.fromarray(face(5)).convert('P', palette=Image.Palette.ADAPTIVE)
    wide = Image.fromarray(np.full((8, 9), 6 * 257, np.uint16))
    clear = Image.fromarray(np.dstack([face(3), np.zeros((8, 9), np.uint8)]))
    assert levels([palette, wide, clear]) == [5, 6, 127]
    assert levels(wide) == [6] and count_images(wide) == 1


@pytest.mark.parametrize('address', ['rtsp://me:pw@camera:554/1', 'http://a.b/c.jpg', 'RTMP://a/b'])
@pytest.mark.parametrize('kind', [str, Path])
def test_addresses_point_to_stream(address, kind):
    """pathlib makes one slash of two; the message has both, and the remedy."""
    with pytest.raises(VideoError, match='stream') as error:
        list(read_images(kind(address)))
    assert address in str(error.value)
    assert isinstance(levels([kind(address), face(1)])[0], VideoError)


# Many -------------------------------------------------------------------------------------------


def test_nested_lists_and_generators(tree):
    given = [
        str(tree / 'b.png'),
        [face(20), (tree / 'a.PNG', [])],
        (face(level) for level in (21, 22)),
        tree / 'sub',
        np.stack([face(23), face(24)]),
    ]
    assert count_images(given[:2]) == 3
    assert count_images(given) is None
    assert levels(given) == [2, 20, 1, 21, 22, 3, 23, 24]
    assert levels([]) == []


def test_nothing_is_taken_before_it_is_asked_for():
    taken = []

    def camera():
        for level in range(10):
            taken.append(level)
            yield face(level)

    images = read_images(camera())
    assert taken == []
    next(images)
    next(images)
    assert taken == [0, 1]


def test_one_of_many_that_cannot_be_used(tree):
    (tree / 'empty').mkdir()
    given = [tree / 'a.PNG', tree / 'absent.png', [tree / 'empty', f'{tree}/*.gif'], tree / 'b.png']
    assert count_images(given) == 5
    first, absent, empty, unmatched, last = levels(given)
    assert (first, last) == (1, 2)
    assert isinstance(absent, FileNotFoundError) and 'absent.png' in str(absent)
    assert type(empty) is ValueError and 'holds no image' in str(empty)
    assert isinstance(unmatched, FileNotFoundError) and '*.gif' in str(unmatched)


def test_errors_of_the_callers_own_generator_are_raised():
    def camera():
        yield face(1)
        raise FileNotFoundError('the cable')

    for faces in (camera(), [camera()]):
        images = read_images(faces)
        next(images)
        with pytest.raises(FileNotFoundError, match='the cable'):
            next(images)


def test_images_of_a_camera_stand_upright(tmp_path):
    """As its tag says; data sets are read as their makers read them, without."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(face(height=8, width=20)).save(tmp_path / 'a.jpg', exif=exif)
    (image,) = read_images(tmp_path / 'a.jpg')
    assert image.pixels.shape == (20, 8, 3)
    assert read_image(str(tmp_path / 'a.jpg')).shape == (8, 20, 3)
