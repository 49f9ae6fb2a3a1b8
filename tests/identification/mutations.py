"""Small damages to files, drawn at random, for tests of what reads them."""

import copy

ODD = [
    None, True, False, 0, -1, 1, 2, 0.5, -0.5, 1e308, -1e308, 2**53, 2**63, 2**64, 10**400, '', 'x',
    'ri', '\ud83d', 'a\0b', '1', 'x' * 1000, [], {}, [None], [[]], [0], ['x'], {'': 0},
    {'type': 'x'}, {'a': {'b': {}}}, [1e308] * 3, list(range(100)),
]  # fmt: skip


def mutate_value(rng, value):
    """Return plain values with one to three of them replaced, removed, doubled or swapped."""
    value = copy.deepcopy(value)
    for _ in range(rng.integers(1, 4)):
        places = [
            (inner, key)
            for inner in walk(value)
            for key in (inner if isinstance(inner, dict) else range(len(inner)))
        ]
        if not places:
            break
        inner, key = places[rng.integers(len(places))]
        odd = copy.deepcopy(ODD[rng.integers(len(ODD))])
        how = rng.integers(4)
        if how == 0 or (how > 1 and isinstance(inner, dict)):
            inner[key] = odd
        elif how == 1:
            del inner[key]
        elif how == 2:
            inner.insert(key, inner[key])
        else:
            other = rng.integers(len(inner))
            inner[key], inner[other] = inner[other], inner[key]
    return value


def walk(value):
    if isinstance(value, (dict, list)):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from walk(inner)


def mutate_bytes(rng, data):
    """Return bytes with some flipped, cut out, doubled or put in."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        start, length = rng.integers(len(data) + 1), rng.integers(1, 20)
        how = rng.integers(5)
        if how == 0 and len(data):
            data[start % len(data)] ^= 1 << rng.integers(8)
        elif how == 1:
            del data[start : start + length]
        elif how == 2:
            data[start:start] = data[start : start + length]
        elif how == 3:
            data[start:start] = rng.bytes(length)
        elif len(data) > 8:
            # Numbers of a binary header and digits of a text.
            data[start % 8] = rng.integers(256)
    return bytes(data)
