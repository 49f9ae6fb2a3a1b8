"""Normalize names of people: one spelling, and no control characters."""

import unicodedata

from mmvlr.utils.text import is_control


def normalize_name(name: str) -> str:
    r"""Return a person's name in Unicode's composed form (NFC).

    A letter with an accent can be one character or two with the same appearance: without
    normalization, one person could be enrolled as two.

    Raises:
        ValueError: The name is no text, is blank, or holds control characters such as line breaks
            and escape sequences.

    Example:
        >>> len('Rene\u0301'), len(normalize_name('Rene\u0301'))
        (5, 4)
        >>> normalize_name('a\nb')
        Traceback (most recent call last):
        ValueError: the name 'a\nb' of a person holds control characters: rename the person
    """
    if not isinstance(name, str):
        raise ValueError(f'names of people must be text, got {name!r}')
    if name.isascii() and name.isprintable() and name.strip():
        return name
    if all(unicodedata.category(c) in ('Cc', 'Cf', 'Zs', 'Zl', 'Zp') for c in name):
        raise ValueError(f'a person is without name, or it is blank ({name!r}): name the person')
    if not name.isprintable() and any(map(is_control, name)):
        raise ValueError(
            f'the name {name!r} of a person holds control characters: rename the person'
        )
    return unicodedata.normalize('NFC', name)
