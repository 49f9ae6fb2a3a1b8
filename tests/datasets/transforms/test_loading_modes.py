"""Images of every mode and orientation against numpy, and damaged ones."""

import io

import numpy as np
import pytest
from PIL import Image

from mmvlr.datasets.transforms import ImageError, read_image


def noise(height=20, width=24, channels=3):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)


def smooth(height=20, width=24):
    """JPEG keeps it to a few gray levels."""
    y, x = np.mgrid[:height, :width]
    return np.stack([4 * y + 60, 5 * x + 40, 3 * (x + y) + 50], axis=2).astype(np.uint8)


@pytest.fixture
def written(tmp_path):
    """Write a Pillow image, read it with the product."""

    def write(image, suffix='.png', **kwargs):
        path = tmp_path / f'image{suffix}'
        image.save(path, **kwargs)
        return read_image(str(path), upright=True)

    return write


def composited(colors, alpha):
    """Over gray 127, in plain loops and float64."""
    found = np.zeros(colors.shape)
    for y in range(colors.shape[0]):
        for x in range(colors.shape[1]):
            share = float(alpha[y, x]) / 255
            for c in range(3):
                found[y, x, c] = share * colors[y, x, c] + (1 - share) * 127
    return found


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
def test_16_bits_are_scaled(written, suffix):
    """Pillow's own conversion cuts off at 255: all white."""
    gray = noise(channels=1)
    found = written(Image.fromarray(gray.astype(np.uint16) * 257), suffix)
    assert np.array_equal(found, np.repeat(gray[..., None], 3, axis=2))


def test_dark_16_bits_stay_dark(written):
    """Values up to 255 of 65,535 are black, not white."""
    found = written(Image.fromarray(np.full((8, 8), 200, np.uint16)))
    assert (found == 1).all()


def test_32_bit_integers(written):
    """Some tools write 16-bit values, others 8-bit values into 32 bits."""
    gray = noise(channels=1)
    for factor in (1, 257):
        found = written(Image.fromarray(gray.astype(np.int32) * factor), '.tif')
        assert np.array_equal(found[..., 0], gray)


def test_floating_point_images_are_refused(written):
    """Nobody knows what 1.0 means: gray 1 of 255, or white."""
    with pytest.raises(ImageError, match=r'image\.tif cannot be read.*save it with 8 or 16'):
        written(Image.fromarray(np.full((8, 8), 0.5, np.float32)), '.tif')


def test_gray_and_one_bit(written):
    gray = noise(channels=1)
    assert np.array_equal(written(Image.fromarray(gray)), np.stack([gray] * 3, axis=2))
    black_and_white = written(Image.fromarray(gray > 127))
    assert np.array_equal(black_and_white, np.stack([255 * (gray > 127)] * 3, axis=2))


def test_alpha_is_blended_onto_gray(written):
    pixels = noise(channels=4)
    pixels[0, :, 3], pixels[1, :, 3] = 0, 255
    found = written(Image.fromarray(pixels))
    # Pillow blends in integers.
    assert np.abs(found - composited(pixels[..., :3], pixels[..., 3])).max() <= 1
    assert (found[0] == 127).all()
    assert np.array_equal(found[1], pixels[1, :, :3])


def test_gray_with_alpha(written):
    pixels = noise(channels=2)
    found = written(Image.fromarray(pixels, 'LA'))
    expected = composited(np.repeat(pixels[..., :1], 3, axis=2), pixels[..., 1])
    assert np.abs(found - expected).max() <= 1


def test_transparent_color_of_a_palette(written):
    indices = np.random.default_rng(0).integers(0, 4, (8, 9), dtype=np.uint8)
    image = Image.fromarray(indices, 'P')
    colors = np.array([(250, 0, 0), (0, 240, 0), (0, 0, 230), (9, 8, 7)], np.uint8)
    image.putpalette(colors.tobytes())
    assert np.array_equal(written(image), colors[indices])
    colors[2] = 127
    assert np.array_equal(written(image, transparency=2), colors[indices])


def test_transparent_color_of_rgb(written):
    pixels = noise()
    found = written(Image.fromarray(pixels), transparency=tuple(pixels[3, 4].tolist()))
    assert (found[3, 4] == 127).all()
    assert np.array_equal(found[0], pixels[0])


def test_cmyk_jpeg(written):
    face = smooth()
    found = written(Image.fromarray(face).convert('CMYK'), '.jpg', quality=95)
    assert found.shape == face.shape
    assert np.abs(found.astype(int) - face).mean() < 3


# The stored image that looks like ``face`` when the tag is obeyed (EXIF 2.3, table of 0x0112).
STORED = {
    1: lambda face: face,
    2: np.fliplr,
    3: lambda face: np.rot90(face, 2),
    4: np.flipud,
    5: lambda face: face.transpose(1, 0, 2),
    6: lambda face: np.rot90(face, 1),
    7: lambda face: np.rot90(face.transpose(1, 0, 2), 2),
    8: lambda face: np.rot90(face, -1),
}


@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.tif', '.webp'])
@pytest.mark.parametrize('orientation', STORED)
def test_orientation(written, orientation, suffix):
    face = smooth()
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](face)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    quality = {'.jpg': dict(quality=100, subsampling=0), '.webp': dict(lossless=True)}
    found = written(stored, suffix, exif=exif, **quality.get(suffix, {}))
    assert found.shape == face.shape
    assert np.abs(found.astype(int) - face).max() <= (3 if suffix == '.jpg' else 0)


def test_16_bits_are_turned_too(written):
    face = noise(channels=1)
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.ascontiguousarray(np.rot90(face, 1)).astype(np.uint16) * 257
    assert np.array_equal(written(Image.fromarray(stored), exif=exif)[..., 0], face)


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize('kind', ['JPEG', 'WEBP'])
def test_damaged_orientation_data_do_not_cost_the_image(tmp_path, kind):
    """Pillow raises TypeError, AttributeError, SyntaxError and more for them."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x011A] = 6, 'name', 1.5
    content = io.BytesIO()
    Image.fromarray(smooth(6, 6)).save(content, kind, exif=exif)
    content = content.getvalue()
    start = content.find(b'MM\0*')
    assert start > 0
    draws = np.random.default_rng(0)
    path = tmp_path / 'face.jpg'
    for _ in range(100):
        damaged = bytearray(content)
        for _ in range(3):
            place = min(start + draws.integers(60), len(content) - 1)
            damaged[place] = draws.integers(256)
        path.write_bytes(damaged)
        assert read_image(str(path), upright=True).shape == (6, 6, 3)


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'BMP', 'TIFF', 'WEBP'])
def test_damaged_files_are_read_or_refused_by_name(tmp_path, kind, capfd):
    content = io.BytesIO()
    Image.fromarray(noise()).save(content, kind)
    content = content.getvalue()
    draws = np.random.default_rng(1)
    path = tmp_path / 'face.jpg'
    refused = 0
    for _ in range(60):
        damaged = bytearray(content[: draws.integers(1, len(content) + 1)])
        for _ in range(2):
            damaged[draws.integers(min(len(damaged), 100))] = draws.integers(256)
        path.write_bytes(damaged)
        try:
            found = read_image(str(path), upright=True)
            assert found.ndim == 3 and found.dtype == np.uint8
        except ImageError as error:
            refused += 1
            assert str(path) in str(error)
    assert refused
    capfd.readouterr()  # libtiff and libjpeg talk to standard error


@pytest.mark.parametrize('content', [b'', b'this is a text\n'])
def test_no_image(tmp_path, content):
    path = tmp_path / 'face.jpg'
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r'face\.jpg cannot be read \(no image\)'):
        read_image(str(path), upright=True)


@pytest.mark.parametrize('share', [0.3, 0.6, 0.95])
def test_truncated_jpeg(tmp_path, share):
    content = io.BytesIO()
    Image.fromarray(noise(64, 64)).save(content, 'JPEG')
    content = content.getvalue()
    path = tmp_path / 'face.jpg'
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ImageError, match=r'face\.jpg cannot be read'):
        read_image(str(path), upright=True)


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in (40, 200)]
    path = tmp_path / 'face.webp'
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    assert (read_image(str(path), upright=True) == 40).all()
