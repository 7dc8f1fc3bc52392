"""Random numbers as an argument: one independent stream for each (campaign seed, key)."""

import hashlib

import numpy as np


def rng(seed: int, *key: str | int | np.integer) -> np.random.Generator:
    """Return the generator that belongs to `seed` and `key`, the same on every machine.

    The key names what the numbers are for, for example ("info-map", round, image_id), so that no result depends on the
    order in which images, shards or stages are worked through.
    """
    plain = (int(each) if isinstance(each, np.integer) else each for each in key)
    digest = hashlib.sha256(repr((int(seed), *plain)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))
