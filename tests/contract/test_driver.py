"""The contract of a driver, over every driver. A new driver is right when this says so."""

from __future__ import annotations

import io
import threading
from datetime import timedelta

import httpx
import pytest

from syncagent.drivers import Bucket
from syncagent.errors import AlreadyExists, InvalidInput, NotFound, Refused, SyncAgentError, Unsupported
from syncagent.model import ObjectInfo
from tests.conftest import Store
from tests.keys import NASTY


def put(bucket: Bucket, key: str, body: bytes = b"body") -> ObjectInfo:
    return bucket.put(key, io.BytesIO(body))


def listed(bucket: Bucket, **bounds: str) -> list[str]:
    return [found.key for page in bucket.list(**bounds) for found in page]


def read(bucket: Bucket, key: str, **span: int) -> bytes:
    with bucket.open(key, **span) as stream:
        return stream.read()


def holdable(store: Store, bucket: Bucket) -> list[str]:
    """The nasty keys that this store takes; a file system takes only those that are paths."""
    keys = [key for key in NASTY if key not in store.lacks]
    if bucket.caps.any_key:
        return keys
    return [key for key in keys if not {"", ".", ".."} & set(key.split("/")) and len(key.encode()) < 250]


def test_empty_bucket_lists_nothing(bucket: Bucket) -> None:
    assert listed(bucket) == []


def test_put_then_list_and_stat_agree(bucket: Bucket) -> None:
    stored = bucket.put("a/cat.jpg", io.BytesIO(b"meow"), content_type="image/jpeg")
    (found,) = [o for page in bucket.list() for o in page]
    seen = bucket.stat("a/cat.jpg")
    assert stored.fingerprint == found.fingerprint == seen.fingerprint
    assert (found.key, found.size, found.modified) == ("a/cat.jpg", 4, seen.modified)
    assert found.content_id == seen.content_id
    assert found.etag == seen.etag
    assert seen.content_type == "image/jpeg"
    assert (found.content_type == "image/jpeg") is bucket.caps.content_type_in_listing
    assert seen.modified.endswith("Z")


def test_overwrite_changes_the_fingerprint(bucket: Bucket) -> None:
    first = put(bucket, "k", b"one")
    second = put(bucket, "k", b"three")
    assert first.fingerprint != second.fingerprint
    assert read(bucket, "k") == b"three"


def test_nasty_keys_are_kept_as_they_are(store: Store, bucket: Bucket) -> None:
    keys = holdable(store, bucket)
    for key in keys:
        put(bucket, key, key.encode())
    assert listed(bucket) == sorted(keys, key=str.encode)
    for key in keys:
        assert read(bucket, key) == key.encode(), key
        assert bucket.stat(key).key == key
    for key in keys:
        for page in bucket.list(after=key):
            assert all(found.key > key for found in page)


def test_nasty_keys_can_be_deleted(store: Store) -> None:
    with store.open() as bucket:
        keys = holdable(store, bucket)
        for key in keys:
            put(bucket, key)
        for key in keys:
            bucket.driver.delete(bucket.full_key(key))
        assert listed(bucket) == []


def test_file_system_refuses_what_is_no_path(store: Store, bucket: Bucket) -> None:
    if bucket.caps.any_key:
        put(bucket, "a//b")
        assert listed(bucket) == ["a//b"]
        return
    for key in ("a//b", "../out", "/lead", "a/./b"):
        with pytest.raises(InvalidInput):
            put(bucket, key)
        with pytest.raises(NotFound):
            bucket.stat(key)


@pytest.mark.parametrize("key", ["", "nul\0", "k" * 1025, "lone-\ud800"])
def test_impossible_keys_are_refused(bucket: Bucket, key: str) -> None:
    with pytest.raises(InvalidInput):
        put(bucket, key)


def test_folder_markers_are_not_objects(store: Store, bucket: Bucket) -> None:
    if not bucket.caps.any_key:
        with pytest.raises(InvalidInput):
            put(bucket, "dir/", b"")
        return
    put(bucket, "dir/", b"")
    put(bucket, "dir/file")
    assert listed(bucket) == ["dir/file"]
    assert bucket.ignored == 1
    with pytest.raises(NotFound):
        bucket.stat("dir/")


def test_after_is_exclusive_and_until_inclusive(bucket: Bucket) -> None:
    for key in ("a", "b", "c", "d"):
        put(bucket, key)
    assert listed(bucket, after="b") == ["c", "d"]
    assert listed(bucket, until="c") == ["a", "b", "c"]
    assert listed(bucket, after="a", until="c") == ["b", "c"]
    assert listed(bucket, after="bb") == ["c", "d"]
    assert listed(bucket, after="d") == []
    assert listed(bucket, until="Z") == []


def test_listing_spans_pages(store: Store) -> None:
    with store.open() as bucket:
        keys = [f"p/{n:05d}" for n in range(2100)] if store.name.startswith(("memory", "local")) else []
        keys = keys or [f"p/{n:05d}" for n in range(30)]
        for key in keys:
            put(bucket, key, b"x")
        assert listed(bucket) == keys
        assert listed(bucket, after=keys[3], until=keys[-4]) == keys[4:-3]


def test_a_folder_never_swallows_its_neighbours(store: Store, bucket: Bucket) -> None:
    for key in ("train/a", "training/b", "train.txt", "train"):
        if key == "train" and not bucket.caps.any_key:
            continue
        put(bucket, key)
    if not bucket.caps.any_key:
        with store.open("/train") as folder:
            assert listed(folder) == ["a"]
        return
    with store.open("/train") as folder:
        assert listed(folder) == ["a"]
        assert folder.stat("a").key == "a"
        with pytest.raises(NotFound):
            folder.stat("b")
    head, mark, query = store.url.partition("?")
    with Store(
        store.name, f"{head}/train?scope=prefix{'&' if mark else ''}{query}", store.integration, {}
    ).open() as plain:
        assert listed(plain) == ["train", "train.txt", "train/a", "training/b"]


def test_ranges(bucket: Bucket) -> None:
    put(bucket, "k", b"0123456789")
    assert read(bucket, "k", offset=2, length=3) == b"234"
    assert read(bucket, "k", offset=8) == b"89"
    assert read(bucket, "k", offset=8, length=100) == b"89"
    assert read(bucket, "k", offset=10, length=5) == b""
    assert read(bucket, "k", offset=99) == b""
    assert read(bucket, "k", length=0) == b""
    assert bucket.read_bytes("k", limit=4) == b"0123"


def test_empty_object(bucket: Bucket) -> None:
    put(bucket, "empty", b"")
    assert bucket.stat("empty").size == 0
    assert read(bucket, "empty") == b""
    assert listed(bucket) == ["empty"]


def test_missing_object_is_not_found(bucket: Bucket) -> None:
    for call in (lambda: bucket.stat("nope"), lambda: read(bucket, "nope")):
        with pytest.raises(NotFound) as caught:
            call()
        assert caught.value.resource is not None
        assert "nope" in caught.value.resource
        assert caught.value.__cause__ is not None


def test_conditional_put(bucket: Bucket) -> None:
    if not bucket.caps.conditional_put:
        with pytest.raises(Unsupported):
            bucket.put("k", io.BytesIO(b"one"), if_absent=True)
        return
    bucket.put("k", io.BytesIO(b"one"), if_absent=True)
    with pytest.raises(AlreadyExists):
        bucket.put("k", io.BytesIO(b"two"), if_absent=True)
    assert read(bucket, "k") == b"one"


def test_delete_needs_permission_and_is_idempotent(bucket: Bucket) -> None:
    put(bucket, "k")
    with pytest.raises(Refused):
        bucket.delete("k")
    bucket.driver.delete(bucket.full_key("k"))
    bucket.driver.delete(bucket.full_key("k"))
    with pytest.raises(NotFound):
        bucket.stat("k")


def test_signing_is_as_declared(bucket: Bucket) -> None:
    put(bucket, "a b+c/é.txt", b"signed")
    if not bucket.caps.signs:
        with pytest.raises(Unsupported):
            bucket.sign("a b+c/é.txt", expires=timedelta(minutes=5))
        return
    url = bucket.sign("a b+c/é.txt", expires=timedelta(minutes=5))
    assert httpx.get(url).content == b"signed"


def test_missing_bucket_is_not_found(store: Store) -> None:
    if store.name.startswith("memory"):
        assert listed(store.open()) == []
        return
    gone = Store(
        store.name, store.url.replace("test-", "gone-").replace("/bucket", "/gone"), store.integration, {}
    )
    with pytest.raises(NotFound) as caught:
        listed(gone.open())
    assert "gone" in str(caught.value)


def test_requests_are_counted(bucket: Bucket) -> None:
    put(bucket, "k")
    before = dict(bucket.driver.requests)
    listed(bucket)
    bucket.stat("k")
    read(bucket, "k")
    after = bucket.driver.requests
    assert [after[kind] - before.get(kind, 0) for kind in ("list", "head", "get", "put")] == [1, 1, 1, 0]


def test_threads_share_a_driver(bucket: Bucket) -> None:
    for n in range(8):
        put(bucket, f"t{n}", str(n).encode())
    got: dict[int, bytes] = {}

    def work(n: int) -> None:
        got[n] = read(bucket, f"t{n}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {n: str(n).encode() for n in range(8)}


def test_large_object_round_trips(bucket: Bucket) -> None:
    body = bytes(range(256)) * 4096 * 10  # 10 MiB: above every SDK's single-request threshold
    stored = put(bucket, "big.bin", body)
    assert stored.size == len(body)
    assert bucket.stat("big.bin").fingerprint == stored.fingerprint
    assert read(bucket, "big.bin", offset=len(body) - 5) == body[-5:]


def test_close_twice(store: Store) -> None:
    bucket = store.open()
    bucket.close()
    bucket.close()


def test_an_unknown_parameter_is_named(store: Store) -> None:
    mark = "&" if "?" in store.url else "?"
    url = f"file://{store.url}?regoin=x" if store.name == "local" else f"{store.url}{mark}regoin=x"
    with pytest.raises(SyncAgentError, match="regoin"):
        Store(store.name, url, store.integration, {}).open()
