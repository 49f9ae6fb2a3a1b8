"""Make text from files and folders safe to display."""

import unicodedata

# Characters that change the direction of the surrounding text and so can disguise it.
_TURNING = frozenset(map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]))


def is_control(character: str) -> bool:
    """Return whether a character is a control character, or changes lines or text direction."""
    return unicodedata.category(character) in ('Cc', 'Zl', 'Zp') or character in _TURNING


def is_number(name: str) -> bool:
    """Return whether a name is a number in the digits 0 to 9; other digits make it a name."""
    # Python refuses to read numbers of more than 4,300 digits.
    return name.isascii() and name.isdecimal() and len(name) < 1000


def printable(text: str) -> str:
    r"""Return text in one line, with control characters as escapes.

    Example:
        >>> printable('a\nb\x1b[2J') == r'a\nb\x1b[2J'
        True
    """
    if text.isprintable():
        return text
    return ''.join(
        character.encode('unicode_escape').decode() if is_control(character) else character
        for character in text
    )
