"""Text out of files and folders, as it may be shown."""

import unicodedata

# What turns the direction of the text around it: what is read is then not what is there.
_TURNING = frozenset(map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]))


def is_control(character: str) -> bool:
    """Return whether a terminal obeys a character instead of showing it, or breaks the line."""
    return unicodedata.category(character) in ('Cc', 'Zl', 'Zp') or character in _TURNING


def is_number(name: str) -> bool:
    """Say whether a name is a number in the digits 0 to 9: others are names, not numbers."""
    # Python refuses to read numbers of more than 4,300 digits.
    return name.isascii() and name.isdecimal() and len(name) < 1000


def printable(text: str) -> str:
    r"""Return text in one line that holds no control characters, which are shown as escapes.

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
