"""Identify the kind of a file from its name or its first bytes, without a package."""

IMAGE_SUFFIXES = frozenset({'.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp'})
#: Files of a gallery: of this version and of the first.
GALLERY_FILES = ('gallery.safetensors', 'gallery.json')

_STARTS = (
    (b'version https://git-lfs', 'a Git LFS pointer: git lfs pull gets the file itself'),
    (b'PK\x03\x04', 'a zip archive: unpack it'),
    (b'\x1f\x8b', 'compressed by gzip: unpack it'),
    (b'\xfd7zXZ', 'compressed by xz: unpack it'),
    (b'7z\xbc\xaf', 'a 7z archive: unpack it'),
    (b'Rar!', 'a RAR archive: unpack it'),
    (b'\x89HDF', 'an HDF5 file, such as weights of Keras'),
    (b'\x93NUMPY', 'an array of NumPy (.npy)'),
    (b'%PDF', 'a PDF'),
    (b'\xff\xd8\xff', 'a JPEG image'),
    (b'\x89PNG', 'a PNG image'),
)


def describe_content(head: bytes) -> str | None:
    """Return a description of a file's kind, with the remedy if there is one; None if unknown.

    Args:
        head: The first few hundred bytes.

    Example:
        >>> describe_content(b'<!DOCTYPE html><html>')
        'a web page: the download was answered by a page, such as one to log in or to confirm'
    """
    if not head:
        return 'empty: a copy or download was cut off'
    start = head.lstrip(b'\xef\xbb\xbf \r\n\t')[:200].lower()
    if start.startswith((b'<!doctype', b'<html', b'<?xml', b'<head', b'<script')):
        return (
            'a web page: the download was answered by a page, such as one to log in or to confirm'
        )
    if head[257:262] == b'ustar':
        return 'a tar archive: unpack it'
    if head[8:9] == b'{' and int.from_bytes(head[:8], 'little') < 10**8:
        return 'a safetensors file: give it the ending .safetensors'
    for known, kind in _STARTS:
        if head.startswith(known):
            return kind
    if start.startswith((b'{', b'[')):
        return 'a JSON text'
    return None
