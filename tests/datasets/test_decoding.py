"""One decoder for files, records and .bin files; nothing it raises or is given costs more."""

import io
import pickle

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile

from mmvlr.datasets.alignment import fallback_face
from mmvlr.datasets.storage import ImageError, decoding
from mmvlr.datasets.transforms import read_image

from .test_recordio import header, write_records


def smooth(height=48, width=64):
    y, x = np.mgrid[:height, :width]
    return np.stack([4 * y + 9, 3 * x + 20, 2 * (x + y) + 5], axis=2).clip(0, 255).astype(np.uint8)


def encode(kind, mode='RGB', pixels=None, **options):
    content = io.BytesIO()
    Image.fromarray(smooth() if pixels is None else pixels).convert(mode).save(
        content, kind, **options
    )
    return content.getvalue()


def read_everywhere(tmp_path, content):
    """The image as a file, as a record, and as an entry of a .bin file."""
    path = tmp_path / 'face.img'
    path.write_bytes(content)
    rec = write_records(tmp_path, {1: header(0) + content})
    (tmp_path / 'lfw.bin').write_bytes(pickle.dumps(([content, content], [True])))
    return [str(path), f'{rec}/1', f'{tmp_path}/lfw.bin/0']


@pytest.mark.parametrize(
    ('kind', 'mode', 'options', 'tolerance'),
    [
        ('ICO', 'RGBA', dict(sizes=[(64, 48)]), 0),
        ('TGA', 'RGB', {}, 0),
        ('PCX', 'RGB', {}, 0),
        ('SGI', 'RGB', {}, 0),
        ('TIFF', 'YCbCr', {}, 4),
        ('TIFF', 'YCbCr', dict(compression='tiff_lzw'), 4),
        ('TIFF', 'CMYK', {}, 0),
        ('PNG', 'RGBA', {}, 0),
        ('GIF', 'P', {}, 60),
        ('JPEG', 'CMYK', dict(quality=95), 12),
    ],
)
def test_one_decoder_everywhere(tmp_path, kind, mode, options, tolerance):
    found = [read_image(name) for name in read_everywhere(tmp_path, encode(kind, mode, **options))]
    assert found[0].shape == (48, 64, 3) and found[0].dtype == np.uint8
    assert np.abs(found[0].astype(int) - smooth()).max() <= tolerance
    assert all(np.array_equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize('mode', ['I;16', 'LA', '1'])
def test_depth_and_transparency_everywhere(tmp_path, mode):
    content = encode('PNG', mode, smooth()[..., 0].astype(np.uint16) * 257 if ';' in mode else None)
    found = [read_image(name) for name in read_everywhere(tmp_path, content)]
    assert all(np.array_equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'TIFF'])
@pytest.mark.parametrize('raw', [False, True])
def test_truncated_everywhere(tmp_path, kind, raw):
    content = encode(kind, 'YCbCr' if raw and kind == 'TIFF' else 'RGB')
    for name in read_everywhere(tmp_path, content[: len(content) // 2]):
        with pytest.raises(ImageError, match='cannot be read'):
            read_image(name)


@pytest.mark.parametrize(
    'kind',
    [IndexError, NotImplementedError, RuntimeError, MemoryError, SystemError, KeyError, cv2.error],
)
def test_whatever_a_decoder_raises(tmp_path, monkeypatch, kind):
    def load(self):
        raise kind('odd')

    monkeypatch.setattr(ImageFile.ImageFile, 'load', load)
    for name in read_everywhere(tmp_path, encode('BMP')):
        with pytest.raises(ImageError, match='cannot be read') as error:
            read_image(name)
        assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ('content', 'told'),
    [
        (b'<!DOCTYPE html><html></html>', 'web page'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n', 'git lfs pull'),
        (b'PK\x03\x04' + bytes(30), 'zip'),
        (b'', 'empty'),
    ],
)
def test_what_it_is_instead(tmp_path, content, told):
    with pytest.raises(ImageError, match=told):
        decoding.decode_image(content, 'a.jpg')


# What it would cost ---------------------------------------------------------------------------


@pytest.fixture
def small_limit(monkeypatch):
    monkeypatch.setattr(decoding, 'MAX_PIXELS', 2000)


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'TIFF', 'WEBP', 'ICO', 'BMP'])
def test_too_many_pixels(tmp_path, small_limit, kind):
    options = dict(sizes=[(64, 48)]) if kind == 'ICO' else {}
    for name in read_everywhere(tmp_path, encode(kind, **options)):
        with pytest.raises(ImageError, match=r'64 x 48 pixels'):
            read_image(name)
    if kind == 'ICO':
        options = dict(sizes=[(32, 24)])
    assert decoding.decode_image(encode(kind, pixels=smooth(24, 32), **options), 'a').shape[1] == 32


def test_icon_that_hides_a_larger_image(monkeypatch):
    """The directory of an icon says 16 x 16; the PNG behind it is what is decoded."""
    content = bytearray(encode('ICO', sizes=[(64, 48)]))
    content[6:8] = 16, 16
    monkeypatch.setattr(decoding, 'MAX_PIXELS', 2000)
    with pytest.raises(ImageError, match='64 x 48 pixels'):
        decoding.decode_image(bytes(content), 'a.ico')


def test_jpeg_of_a_camera_is_decoded_smaller(monkeypatch):
    """Only beyond the limit, and only where a face is cut out of it."""
    content = encode('JPEG', quality=95)
    for pixels, scale in ((2000, 2), (200, 4), (50, 8)):
        monkeypatch.setattr(decoding, 'MAX_PIXELS', pixels)
        found = decoding.decode_image(content, 'a.jpg', upright=True)
        expected = cv2.resize(smooth(), (64 // scale, 48 // scale), interpolation=cv2.INTER_AREA)
        assert found.shape == expected.shape
        assert np.abs(found.astype(int) - expected).mean() < 3
    monkeypatch.setattr(decoding, 'MAX_PIXELS', 2000)
    below = encode('JPEG', pixels=smooth(40, 50))
    plain, upright = (decoding.decode_image(below, 'a.jpg', upright=u) for u in (False, True))
    assert np.array_equal(plain, upright)
    assert np.array_equal(plain, cv2.imdecode(np.frombuffer(below, np.uint8), 1)[..., ::-1])


@pytest.mark.parametrize('kind', ['PNG', 'WEBP', 'JPEG2000'])
def test_memory_counts_too(monkeypatch, kind):
    """A format whose decoder needs more may have fewer pixels."""
    costs = dict(PNG=7, WEBP=19, JPEG2000=29)
    monkeypatch.setattr(decoding, 'MAX_MEMORY', costs[kind] * 48 * 64)
    assert decoding.decode_image(encode(kind), 'a').shape == (48, 64, 3)
    monkeypatch.setattr(decoding, 'MAX_MEMORY', costs[kind] * 48 * 64 - 1)
    with pytest.raises(ImageError, match='MB'):
        decoding.decode_image(encode(kind), 'a')


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'P', 'L', '1', 'LA', 'I;16', 'I'])
def test_strips_change_nothing(monkeypatch, mode):
    levels = smooth()[..., 0]
    wide = dict(I=np.int32, **{'I;16': np.uint16}).get(mode)
    image = (
        Image.fromarray(levels.astype(wide) * 100)
        if wide
        else Image.fromarray(smooth()).convert(mode)
    )
    if mode == 'P':
        image.info['transparency'] = 3
    whole = decoding.decode_image(image, 'a')
    monkeypatch.setattr(decoding, '_STRIP', 200)
    assert np.array_equal(decoding.decode_image(image, 'a'), whole)


def test_strip_of_an_image_as_a_face():
    """No square canvas of 100,000 x 100,000 pixels."""
    strip = np.broadcast_to(
        np.linspace(0, 255, 100_000).astype(np.uint8)[None, :, None], (4, 100_000, 3)
    )
    found = fallback_face(np.ascontiguousarray(strip))
    expected = np.linspace(0, 255, 112)[None, :, None]
    assert found.shape == (112, 112, 3)
    assert np.abs(found - expected).max() < 4
