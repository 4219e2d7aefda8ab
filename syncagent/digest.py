"""A digest of many objects that does not depend on their order: what both sides of a key range are compared by first.

Of each object it takes the SHA-256 of

    key, in UTF-8 · one zero byte · fingerprint, in UTF-8

and of that the first 16 bytes as a number, the most significant byte first. A `Digest` is the number of objects and the sum of
these numbers modulo 2**128. No key of a store and no fingerprint holds a zero byte, so two objects never make the same text; one
lost, added or changed object, or two that swapped their fingerprints, go unnoticed with a probability of 2**-128. Against
somebody who makes up objects in order to hit a sum it is no defence. docs/scale.md recomputes one with other tools.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

ALGORITHM = "sha256-128-sum"
"""Names all of the above, in certificates."""
MODULUS = 1 << 128
_number = int.from_bytes


@dataclass(frozen=True, slots=True)
class Digest:
    """Count and sum of some objects. Ranges add up to their whole, and an object can be taken out of it again."""

    count: int = 0
    sum: int = 0
    """From 0 to 2**128 - 1."""

    def __add__(self, other: Digest) -> Digest:
        return Digest(self.count + other.count, (self.sum + other.sum) % MODULUS)

    def __sub__(self, other: Digest) -> Digest:
        return Digest(self.count - other.count, (self.sum - other.sum) % MODULUS)

    @property
    def hex(self) -> str:
        """The sum as 32 hexadecimal digits."""
        return f"{self.sum:032x}"


def hashed(key: str, fingerprint: str) -> int:
    """What one object adds to a sum."""
    # A lone surrogate is no character, but a store's JSON may hold one: whatever it says has a digest.
    return _number(sha256(f"{key}\0{fingerprint}".encode("utf-8", "surrogatepass")).digest()[:16], "big")


def digest_of(objects: Iterable[tuple[Any, ...]]) -> Digest:
    """The digest of objects or rows, whose first two values are key and fingerprint. Those without a fingerprint are no objects."""
    numbers = [hashed(one[0], one[1]) for one in objects if one[1] is not None]
    return Digest(len(numbers), sum(numbers) % MODULUS)


class Summing:
    """The same as an aggregate of SQLite's, of the columns key and fingerprint: the sum as a text, because it is no 64-bit number."""

    def __init__(self) -> None:
        self._sum = 0

    def step(self, key: str, fingerprint: str | None) -> None:
        """Add a row."""
        if fingerprint is not None:
            self._sum += hashed(key, fingerprint)

    def finalize(self) -> str:
        """The sum."""
        return str(self._sum % MODULUS)
