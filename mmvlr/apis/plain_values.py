"""Read values from the Python text of a config, without running it."""

import ast
from typing import Any

#: Longest text of a config, in characters.
_LONGEST_CONFIG = 2**18


def plain_assignment(text: str, name: str, source: str) -> dict[str, Any] | None:
    """Return the value that a Python text gives to ``name``, without running the text.

    Args:
        text: Assignments whose values are literals and calls of ``dict`` with keywords.
        name: The variable.
        source: File name, for the error message.

    Raises:
        ValueError: The text is not Python, or the value holds other expressions.

    Example:
        >>> plain_assignment('a = dict(x=[1, dict(y=(2,))]); b = f()', 'a', 'text')
        {'x': [1, {'y': (2,)}]}
    """
    if len(text) > _LONGEST_CONFIG:
        raise ValueError(
            f'{source}: the config in it has {len(text):,} characters; {_LONGEST_CONFIG:,} are read'
        )
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f'{source}: the config in it cannot be read ({error})') from error
    value = None
    try:
        for node in tree.body:
            if isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] == [name]:
                value = _plain(node.value, source)
    except RecursionError as error:
        raise ValueError(f'{source}: the config in it cannot be read ({error})') from error
    return value


def _plain(node: ast.expr, source: str) -> Any:
    match node:
        case ast.Call(func=ast.Name(id='dict'), args=[], keywords=keywords) if all(
            keyword.arg for keyword in keywords
        ):
            return {keyword.arg: _plain(keyword.value, source) for keyword in keywords}
        case ast.Dict(keys=keys, values=values) if all(isinstance(k, ast.Constant) for k in keys):
            return {k.value: _plain(v, source) for k, v in zip(keys, values, strict=True)}
        case ast.List(elts=items):
            return [_plain(item, source) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_plain(item, source) for item in items)
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f'{source}: the config in it holds {ast.unparse(node)!r:.80}, which is no plain value'
        ) from error
