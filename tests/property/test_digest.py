"""A digest depends on what the objects are, and on nothing else."""

from __future__ import annotations

import random

from hypothesis import assume, given
from hypothesis import strategies as st

from syncagent.digest import Digest, Summing, digest_of, hashed

# Any characters but NUL, which no key and no fingerprint holds. Few of them, so that texts run into each other.
TEXT = st.text(st.sampled_from("ab01:,\n/") | st.characters(exclude_characters="\0"), max_size=12)
SURROGATE = st.text(st.characters(exclude_characters="\0", categories=["Cs", "L"]), max_size=6)
OBJECTS = st.dictionaries(TEXT | SURROGATE, TEXT, max_size=30)
SEEDS = st.integers(0, 2**32)


def of(objects: dict[str, str]) -> Digest:
    return digest_of(objects.items())


@given(OBJECTS, SEEDS)
def test_order_does_not_matter(objects: dict[str, str], seed: int) -> None:
    shuffled = list(objects.items())
    random.Random(seed).shuffle(shuffled)
    assert digest_of(shuffled) == of(objects)


@given(OBJECTS, SEEDS, st.integers(1, 5))
def test_ranges_add_up_to_their_whole(objects: dict[str, str], seed: int, parts: int) -> None:
    chance = random.Random(seed)
    ranges: list[dict[str, str]] = [{} for _ in range(parts)]
    for key, fingerprint in objects.items():
        chance.choice(ranges)[key] = fingerprint
    assert sum(map(of, ranges), Digest()) == of(objects)
    assert of(objects) - of(ranges[0]) == sum(map(of, ranges[1:]), Digest())


@given(OBJECTS, TEXT, TEXT)
def test_a_lost_or_an_extra_key_shows(objects: dict[str, str], key: str, fingerprint: str) -> None:
    assume(key not in objects)
    assert of({**objects, key: fingerprint}) != of(objects)
    assert of({**objects, key: fingerprint}) - of({key: fingerprint}) == of(objects)


@given(OBJECTS, st.data())
def test_another_fingerprint_or_another_key_shows(objects: dict[str, str], data: st.DataObject) -> None:
    assume(objects)
    key = data.draw(st.sampled_from(sorted(objects)))
    other = data.draw(TEXT)
    assume(other != objects[key])
    assert of({**objects, key: other}).sum != of(objects).sum
    renamed = dict(objects)
    new = data.draw(TEXT.filter(lambda text: text not in objects))
    renamed[new] = renamed.pop(key)
    assert of(renamed).sum != of(objects).sum


@given(OBJECTS, st.data())
def test_two_objects_that_swap_their_fingerprints_show(objects: dict[str, str], data: st.DataObject) -> None:
    assume(len(objects) > 1)
    one, two = data.draw(st.lists(st.sampled_from(sorted(objects)), min_size=2, max_size=2, unique=True))
    assume(objects[one] != objects[two])
    assert of({**objects, one: objects[two], two: objects[one]}).sum != of(objects).sum


@given(TEXT, TEXT, TEXT)
def test_what_is_key_and_what_is_fingerprint_is_told_apart(key: str, middle: str, fingerprint: str) -> None:
    assume(middle)
    assert hashed(key + middle, fingerprint) != hashed(key, middle + fingerprint)


@given(OBJECTS, st.sets(TEXT, max_size=5))
def test_a_tombstone_is_no_object(objects: dict[str, str], gone: set[str]) -> None:
    rows = [*objects.items(), *((key, None) for key in gone - set(objects))]
    assert digest_of(rows) == of(objects)
    summing = Summing()
    for key, fingerprint in rows:
        summing.step(key, fingerprint)
    assert int(summing.finalize()) == of(objects).sum


def test_a_digest_as_docs_tell_it() -> None:
    """`printf 'cats/1.jpg\\0d41d8cd98f00b204e9800998ecf8427e:0:2026-01-02T03:04:05Z' | sha256sum | cut -c1-32`."""
    told = of({"cats/1.jpg": "d41d8cd98f00b204e9800998ecf8427e:0:2026-01-02T03:04:05Z"})
    assert (told.count, told.hex) == (1, "274b22601c2fc6bfb73c8ce8e308d4d2")
    assert Digest().hex == "0" * 32
    assert (Digest(1, 2**128 - 1) + Digest(1, 1)).hex == "0" * 32
