"""The arguments of the registered classes of mmvlr, from their sources: nothing is imported."""

import ast
import functools
import re
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
#: Entries that are read by others than the class that a dict builds: the registry, the base class
#: of modules, the recognizer, whose backbone gets an adapter, and mmengine's Runner.
READ_BY_OTHERS = frozenset(
    [
        'type',
        '_scope_',
        '_delete_',
        'init_cfg',
        'adapter',
        'priority',
        'constructor',
        'paramwise_cfg',
        'convert_to_iter_based',
    ]
)


@functools.cache
def find_arguments(name: str) -> frozenset[str] | None:
    """Return what a config may state of a class of mmvlr; None if that is not to be known.

    Args:
        name: Its name, such as ``'RIFace'``.

    Example:
        >>> 'attention' in find_arguments('RIFace'), find_arguments('Adam')
        (True, None)
    """
    found = _find_own(name.removeprefix('mmvlr.'), frozenset())
    return None if found is None else found | READ_BY_OTHERS


@functools.cache
def _list_classes() -> dict[str, list[Path]]:
    places: dict[str, list[Path]] = {}
    for path in _PACKAGE.rglob('*.py'):
        text = path.read_text(encoding='utf-8')
        for name in re.findall(r'^class (\w+)[(:]', text, flags=re.MULTILINE):
            places.setdefault(name, []).append(path)
    return places


@functools.cache
def _parse(path: Path) -> list[ast.stmt]:
    return ast.parse(path.read_text(encoding='utf-8')).body


def _hands_on(method: ast.FunctionDef, keywords: str) -> bool:
    """Return whether all that a constructor does with its keywords is to give them to its base."""
    uses = [n for n in ast.walk(method) if isinstance(n, ast.Name) and n.id == keywords]
    given = [
        word.value
        for call in ast.walk(method)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == 'super().__init__'
        for word in call.keywords
        if word.arg is None
    ]
    return len(uses) == 1 and uses[0] in given


def _find_own(name: str, seen: frozenset[str]) -> frozenset[str] | None:
    places = _list_classes().get(name, [])
    if len(places) != 1 or name in seen:
        return None
    nodes = [n for n in _parse(places[0]) if isinstance(n, ast.ClassDef) and n.name == name]
    if not nodes:  # a line of a text
        return None
    node = nodes[0]
    methods = {n.name: n for n in node.body if isinstance(n, ast.FunctionDef)}
    own: frozenset[str] = frozenset()
    if '__init__' in methods:
        given = methods['__init__'].args
        own = frozenset(argument.arg for argument in [*given.args[1:], *given.kwonlyargs])
        if given.kwarg is None:
            return None if given.vararg else own
        if not _hands_on(methods['__init__'], given.kwarg.arg):
            return None
    elif any('dataclass' in ast.unparse(decorator) for decorator in node.decorator_list):
        return None
    bases = [_find_own(ast.unparse(base), seen | {name}) for base in node.bases]
    return None if not bases or None in bases else own.union(*bases)
