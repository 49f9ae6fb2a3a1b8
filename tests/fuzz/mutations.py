"""What is done to good files: to their bytes, and to the values in them."""

import math
import struct
from random import Random
from typing import Any

NUMBERS = (0, 1, -1, 7, 127, 255, 65535, 2**31 - 1, -(2**31), 2**32, 10**9, 10**12, 2**62, 2**70)


def mutate_bytes(rng: Random, data: bytes) -> bytes:
    """Change, cut out, repeat or insert bytes in one to eight places, or cut the end off."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        # Headers decide more than content does.
        place = rng.randrange(min(len(data), rng.choice((40, 400, 10**9)))) if data else 0
        size = rng.choice((1, 1, 2, 4, 8, 30))
        match rng.randrange(8):
            case 0:
                data[place : place + 1] = bytes([rng.randrange(256)])
            case 1 if place < len(data):
                data[place] ^= 1 << rng.randrange(8)
            case 2:
                number = rng.choice(NUMBERS) % 2**32
                data[place : place + 4] = struct.pack(rng.choice('<>') + 'I', number)
            case 3:
                data[place : place + 2] = struct.pack(rng.choice('<>') + 'H', rng.randrange(2**16))
            case 4:
                del data[place : place + size]
            case 5:
                data[place:place] = data[place : place + size] * rng.choice((1, 2, 100))
            case 6:
                data[place:place] = rng.randbytes(size)
            case 7:
                del data[rng.randrange(len(data) + 1) :]
    return bytes(data)


def hostile_value(rng: Random) -> Any:
    """Return a value that a reader may not expect."""
    depth = rng.choice((3, 70, 300))
    nested: Any = 'x'
    for _ in range(depth):
        nested = {'a': nested} if rng.random() < 0.5 else [nested]
    return rng.choice(
        [
            *NUMBERS,
            *(
                None,
                True,
                False,
                '',
                'x',
                'x' * 10_000,
                'a\0b\n\x1b[2J',
                '\ud800',
                '../x',
                '1' * 5000,
            ),
            *(0.5, -0.0, 1e300, math.inf, math.nan, [], {}, [[]], [1, 2, 3], {'type': 'os.system'}),
            *([0] * 5000, {'': None}, {'type': 'MobileFaceNet', 'embed_dims': 10**9}, nested),
        ]
    )


def mutate_value(rng: Random, value: Any) -> Any:
    """Change one to three values in dicts and lists: replaced, removed, doubled or renamed."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        value = _mutate_once(rng, value)
    return value


def _mutate_once(rng: Random, value: Any) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        match rng.randrange(8):
            case 0:
                return {k: v for k, v in value.items() if k != key}
            case 1:
                return {**value, str(hostile_value(rng))[:50]: hostile_value(rng)}
            case _:
                return {**value, key: _mutate_once(rng, value[key])}
    if isinstance(value, (list, tuple)) and value and rng.random() < 0.85:
        index = rng.randrange(len(value))
        changed = [_mutate_once(rng, value[index])] * rng.choice((0, 1, 1, 1, 2))
        return type(value)([*value[:index], *changed, *value[index + 1 :]])
    return hostile_value(rng)
