"""Read folders that hold a folder for each person: list the people, find the person of a file."""

from collections.abc import Sequence
from pathlib import Path

from mmvlr.datasets.finding import IMAGE_SUFFIXES, find_images

from .names import normalize_name


class UnknownOwnerError(ValueError):
    """The person of an image cannot be determined."""


def find_people(folder: str | Path) -> list[Path]:
    """Return the people's folders in a folder.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It has no folders, or images beside them without a person.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder} does not exist or is no folder')
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith('.'))
    loose = [e for e in entries if e.is_file() and e.suffix.lower() in IMAGE_SUFFIXES]
    folders = [entry for entry in entries if entry.is_dir()]
    if loose or not folders:
        found = f'the image {loose[0].name}' if loose else 'no folder'
        found += f', and {len(loose) - 1} more,' if loose[1:] else ''
        raise ValueError(
            f'{folder} should have one folder for each person; there is {found} in it. '
            'For images of one person: --person NAME; for names such as ann_1.jpg: --by-name'
        )
    return folders


def find_named_people(folder: str | Path) -> dict[str, str]:
    """Return the person of each image below a folder whose names have the form PERSON_NUMBER.

    Raises:
        FileNotFoundError: There is no such folder.
        UnknownOwnerError: It holds no image, or one whose name has another form.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder} does not exist or is no folder')
    images = find_images(folder).images
    owners = {str(path): Path(str(path)).stem.rpartition('_')[0] for path in images}
    unnamed = [name for name, owner in owners.items() if not owner.strip()]
    if unnamed or not owners:
        found = f'{unnamed[0]} ({len(unnamed)} such)' if unnamed else f'no image in {folder}'
        raise UnknownOwnerError(
            f'--by-name wants names such as ann_1.jpg, the person before the last underscore, and '
            f'found {found}. Rename it, or make a folder for each person'
        )
    return owners


def is_empty(folder: Path) -> bool:
    """Return whether a folder is readable and holds neither images nor unreadable entries."""
    try:
        tree = find_images(folder)
    except OSError:
        return False
    return not tree.images and not tree.unread


def find_owner(name: str, roots: Sequence[str | Path]) -> str:
    """Return the person of a file: the first folder below one of the roots, else the file itself.

    Example:
        >>> find_owner('a/b.png', ['c'])
        'a/b.png'
    """
    path = Path(name)
    for root in map(Path.expanduser, map(Path, roots)):
        if root.is_dir() and path.is_relative_to(root):
            inner = path.relative_to(root)
            return inner.parts[0] if len(inner.parts) > 1 else name
    return name


def describe_names(owners: Sequence[str], empty: Sequence[str]) -> list[str]:
    """Return notes on people without an image and on names that are normalized."""
    notes = []
    lost = sorted({*empty} - {*owners})
    if lost:
        notes.append(f'{len(lost)} people have no image: {", ".join(map(repr, lost[:5]))}')
    changed = sorted(name for name in {*owners} if normalize_name(name) != name)
    if changed:
        notes.append(
            f'{len(changed)} names were written with separate accents (Unicode NFD) and are '
            f'enrolled in the usual form (NFC), such as {normalize_name(changed[0])!r}'
        )
    return notes


def describe_split(owners: Sequence[str]) -> list[str]:
    """Return a note if names of images made a person of every image, several of one beginning."""
    if len({*owners}) < len(owners):
        return []
    groups: dict[str, list[str]] = {}
    for owner in owners:
        groups.setdefault(owner.partition('_')[0], []).append(owner)
    first, several = max(groups.items(), key=lambda item: len(item[1]))
    if len(several) < 2:
        return []
    told = f'{several[0]!r} and {several[1]!r}'
    return [
        f'every image is a person of its own, such as {told}; if {first!r} is the person, make a '
        'folder for each person, and enroll into another gallery'
    ]


def find_most_people(given: Sequence[str | Path]) -> int | None:
    """Return the largest number of people that paths can show; None if that is not to be known."""
    owners: set[str] = set()
    for path in map(Path.expanduser, map(Path, given)):
        if not path.is_dir():
            if not path.is_file():
                return None
            owners.add(str(path))
            continue
        tree = find_images(path)
        entries = [*tree.images, *(entry.path for entry in tree.unread)]
        owners |= {find_owner(str(entry), [path]) for entry in entries}
    return len(owners)


def find_strangers(names: Sequence[str], given: Sequence[str | Path]) -> list[str]:
    """Return the person of each image, or raise an error if it cannot be determined."""
    owners = [find_owner(name, given) for name in names]
    loose = [name for name, owner in zip(names, owners, strict=True) if name == owner]
    folders = [path for path in given if Path(path).expanduser().is_dir()]
    if loose and (len(folders) > 1 or any('*' in str(path) for path in given)):
        raise UnknownOwnerError(
            f'whose image is {loose[0]}? Give the one folder that holds a folder for each person, '
            'not the folders or images in it'
        )
    return owners
