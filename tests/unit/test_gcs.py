"""The GCS driver: pages that are odd, answers that are errors, credentials. Keys and ranges: see the contract suite."""

from __future__ import annotations

import gc
import gzip
import io
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, cast
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncagent.drivers import describe, gcs, open_bucket
from syncagent.drivers.gcs import GcsDriver, open_driver
from syncagent.errors import (
    AccessDenied,
    AlreadyExists,
    ConfigError,
    Conflict,
    InvalidInput,
    NotFound,
    SyncAgentError,
    Transient,
    Unsupported,
)
from syncagent.model import DriverSpec, Integration, ObjectInfo
from tests.keys import NASTY
from tests.rigs.fake_http import DROP, Answer, FakeHttp, Reply, Request
from tests.rigs.gcs import free_port

SECRET = "very-secret-value"


def resource(key: str = "k", **more: Any) -> dict[str, Any]:
    """An object as the service describes it."""
    return {
        "name": key,
        "generation": "1700000000000001",
        "metageneration": "2",
        "size": "7",
        "updated": "2026-01-02T03:04:05.678Z",
        "etag": "CKih16GjycICEAE=",
        "md5Hash": "XUFAKrxLKna5cZ2REBfFkg==",
        "contentType": "image/jpeg",
        "storageClass": "NEARLINE",
        **more,
    }


def page(*keys: str, token: str | None = None) -> dict[str, Any]:
    body: dict[str, Any] = {"items": [resource(key) for key in keys]} if keys else {}
    return {**body, "nextPageToken": token} if token else body


# -- a server with canned answers --------------------------------------------------------------------


def says(body: Any, status: int = 200, **headers: str) -> Answer:
    return status, {"Content-Type": "application/json", **headers}, json.dumps(body).encode()


def refusal(status: int, message: str = "m", **headers: str) -> Answer:
    return says({"error": {"code": status, "message": message}}, status, **headers)


@pytest.fixture(autouse=True)
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries without their pauses: five, and then the budget is used up. The SDK's, too."""
    monkeypatch.setattr(gcs, "_ATTEMPTS", 6)
    monkeypatch.setenv("SYNCAGENT_TEST_NO_BACKOFF", "1")
    monkeypatch.setattr(
        "google.api_core.retry.retry_unary.exponential_sleep_generator",
        lambda *_, **__: itertools.chain(itertools.repeat(0.0, 5), itertools.repeat(1e9)),
    )


@pytest.fixture
def canned() -> Iterator[FakeHttp]:
    with FakeHttp(lambda _: refusal(500)) as server:
        yield server


@pytest.fixture
def opened() -> Iterator[Callable[..., GcsDriver]]:
    """Opens drivers, and closes them at the end."""
    drivers: list[GcsDriver] = []

    def make(endpoint: str | None = None, integration: Integration | None = None, **given: Any) -> GcsDriver:
        bucket = given.pop("bucket", "bucket")
        driver = open_driver(DriverSpec("gcs", bucket, endpoint=endpoint, **given), integration)
        drivers.append(driver)
        return driver

    yield make
    for driver in drivers:
        driver.close()


Opened = Callable[..., GcsDriver]


def listed(driver: GcsDriver, **bounds: str) -> list[str]:
    return [found.key for objects in driver.list(**bounds) for found in objects]


def shelf(
    keys: list[str], size: int, order: Callable[[str], bytes] = str.encode, *, bound: bool = True
) -> Reply:
    """A bucket that lists `keys` in pages, in this order; without `bound`, it ignores `startOffset`."""

    def reply(asked: Request) -> Answer:
        prefix, start = asked.query["prefix"], asked.query.get("startOffset", "") if bound else ""
        here = [k for k in sorted(keys, key=order) if k.startswith(prefix) and order(k) >= order(start)]
        at = int(asked.query.get("pageToken", "0"))
        token = str(at + size) if at + size < len(here) else None
        return says(page(*here[at : at + size], token=token))

    return reply


def read(driver: GcsDriver, key: str = "k", **span: int) -> bytes:
    with driver.open(key, **span) as stream:
        return stream.read()


# -- pages -------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
ITEMS = st.lists(
    st.builds(
        lambda key, lacks, more: {k: v for k, v in {**resource(key), **more}.items() if k not in lacks},
        TEXT,
        st.sets(st.sampled_from(["metageneration", "etag", "md5Hash", "contentType", "storageClass"])),
        st.dictionaries(st.sampled_from(["kind", "id", "crc32c", "metadata"]), TEXT),
    ),
    max_size=6,
)


def plainly(item: dict[str, Any]) -> ObjectInfo:
    """The object of an entry, written down once more and slowly."""
    return ObjectInfo(
        key=item["name"],
        fingerprint=item["generation"] + "." + item.get("metageneration", "1"),
        size=int(item["size"]),
        modified="2026-01-02T03:04:05Z",
        etag=item.get("etag"),
        version=item["generation"],
        content_id="md5:" + item["md5Hash"] if "md5Hash" in item else None,
        content_type=item.get("contentType"),
        storage_class=item.get("storageClass"),
    )


@given(ITEMS, st.booleans(), st.sampled_from([None, 1]), st.sampled_from([None, "", "t", "😀&/="]))
def test_every_page_reads_as_the_standard_json_module_reads_it(
    items: list[dict[str, Any]], ascii_only: bool, indent: int | None, token: str | None
) -> None:
    whole = {"kind": "storage#objects", "nextPageToken": token, "items": items}
    body = json.dumps(whole, ensure_ascii=ascii_only, indent=indent).encode()
    assert json.loads(body) == whole
    assert gcs._parse_page(body, "bucket") == ([plainly(item) for item in items], token or None)


@given(st.data())
@settings(max_examples=30)
def test_no_part_of_a_page_reads_as_a_whole_one(data: st.DataObject) -> None:
    body = json.dumps(page("a", "é", token="t"), ensure_ascii=False).encode()
    cut = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(Transient, match="is cut off"):
        gcs._parse_page(body[:cut], "bucket")


def test_listing_and_stat_say_the_same_of_every_odd_name(canned: FakeHttp, opened: Opened) -> None:
    def reply(asked: Request) -> Answer:
        if asked.path.endswith("/o"):
            return says(page(*sorted(NASTY)))
        return says(resource(unquote(asked.path.rpartition("/")[2])))

    canned.reply = reply
    driver = opened(canned.url)
    ((*found,),) = driver.list()
    assert [o.key for o in found] == sorted(NASTY)
    assert [driver.stat(key) for key in sorted(NASTY)] == found


def test_a_packed_page_is_unpacked(canned: FakeHttp, opened: Opened) -> None:
    canned.always((200, {"Content-Encoding": "gzip"}, gzip.compress(says(page("a", "b"))[2])))
    assert listed(opened(canned.url)) == ["a", "b"]


# -- listing -----------------------------------------------------------------------------------------


def test_an_entry_becomes_an_object_and_stat_says_the_same(canned: FakeHttp, opened: Opened) -> None:
    driver = opened(canned.url)
    canned.always(says({"kind": "storage#objects", "items": [resource("a/b.jpg")]}))
    ((found,),) = driver.list()
    assert type(found) is ObjectInfo
    assert found == ObjectInfo(
        "a/b.jpg",
        "1700000000000001.2",
        7,
        "2026-01-02T03:04:05Z",
        "CKih16GjycICEAE=",
        "1700000000000001",
        "md5:XUFAKrxLKna5cZ2REBfFkg==",
        "image/jpeg",
        "NEARLINE",
    )
    canned.always(says(resource("a/b.jpg")))
    assert driver.stat("a/b.jpg") == found


def test_a_composed_object_has_no_content_hash_and_an_emulator_no_metageneration(
    canned: FakeHttp, opened: Opened
) -> None:
    odd = resource(metageneration=None, crc32c="AAAAAA==")
    del odd["md5Hash"], odd["contentType"]
    driver = opened(canned.url)
    canned.always(says({"items": [odd]}))
    ((found,),) = driver.list()
    assert (found.fingerprint, found.content_id, found.content_type) == ("1700000000000001.1", None, None)
    canned.always(says(odd))
    assert driver.stat("k") == found


def test_listing_follows_tokens_also_over_an_empty_page(canned: FakeHttp, opened: Opened) -> None:
    canned.in_turn(
        says(page("a", "b", token="t1")),
        says(page(token="t2")),
        says({"items": [], "nextPageToken": "t3"}),
        says(page("c")),
    )
    driver = opened(canned.url)
    assert [[o.key for o in objects] for objects in driver.list()] == [["a", "b"], ["c"]]
    assert [asked.query.get("pageToken") for asked in canned.requests] == [None, "t1", "t2", "t3"]
    assert driver.requests == {"list": 4}


def test_an_empty_bucket_answers_an_empty_object(canned: FakeHttp, opened: Opened) -> None:
    canned.always(says({}))
    assert listed(opened(canned.url)) == []


def test_what_a_listing_asks_for(canned: FakeHttp, opened: Opened) -> None:
    canned.always(says(page("p/b")))
    listed(opened(canned.url, options={"user_project": "payer"}), prefix="p/", after="p/a")
    (asked,) = canned.requests
    assert (asked.method, asked.path) == ("GET", "/storage/v1/b/bucket/o")
    assert asked.query == {
        "prefix": "p/",
        "startOffset": "p/a",
        "maxResults": "5000",
        "projection": "noAcl",
        "prettyPrint": "false",
        "fields": "nextPageToken,items(name,size,generation,metageneration,updated,etag,md5Hash,contentType,storageClass)",
        "userProject": "payer",
    }


def test_the_lower_bound_is_dropped_once(canned: FakeHttp, opened: Opened) -> None:
    driver = opened(canned.url)
    canned.in_turn(says(page("b", "c", token="t")), says(page("d")))
    assert listed(driver, after="b") == ["c", "d"]
    canned.in_turn(says(page("b", token="t")), says(page("c")))
    assert listed(driver, after="b") == ["c"]
    canned.in_turn(says(page("c", "d")))
    assert listed(driver, after="bb") == ["c", "d"]


@pytest.mark.parametrize("bound", [True, False], ids=["honoured", "ignored"])
def test_a_lower_bound_that_the_server_ignores_is_cut_here(
    canned: FakeHttp, opened: Opened, bound: bool
) -> None:
    canned.reply = shelf(["a", "b", "c", "d", "e"], 2, bound=bound)
    driver = opened(canned.url)
    for after, left in [("0", "abcde"), ("a", "bcde"), ("bb", "cde"), ("d", "e"), ("e", ""), ("z", "")]:
        assert listed(driver, after=after) == list(left)
        assert canned.requests[-1].query["startOffset"] == after
    assert listed(driver, after="a", until="c")[:2] == ["b", "c"]


# Letters on both sides of the surrogates: UTF-16 puts the last three before U+E000.
LETTERS = ["a", "/", "é", "\ud7ff", "\ue000", "\ufb01", "\uffff", "\U00010000", "😀", "\U0010ffff"]
KEY = st.text(st.sampled_from(LETTERS), min_size=1, max_size=4)


def test_bounds_are_in_the_order_of_utf8_bytes(canned: FakeHttp, opened: Opened) -> None:
    driver = opened(canned.url)

    @given(st.sets(KEY, max_size=8), KEY, KEY, st.integers(1, 4), st.booleans())
    @settings(max_examples=60, deadline=None)
    def check(keys: set[str], after: str, until: str, size: int, bound: bool) -> None:
        canned.reply = shelf(list(keys), size, bound=bound)
        wanted = sorted((k for k in keys if k.encode() > after.encode()), key=str.encode)
        assert listed(driver, after=after) == wanted
        ended = [k for k in wanted if k.encode() <= until.encode()]
        found = listed(driver, after=after, until=until)
        assert found[: len(ended)] == ended  # more may come
        assert found == wanted[: len(found)]

    check()


def test_a_server_that_sorts_by_utf16_is_found_out(canned: FakeHttp) -> None:
    keys = ["a", "ﬁ", "😀"]  # in UTF-16 the emoji, a surrogate pair, comes before the ligature

    def utf16(key: str) -> bytes:
        return key.encode("utf-16-be")

    with open_bucket(f"gs://bucket?endpoint={canned.url}") as bucket:
        canned.reply = shelf(keys, 2)
        assert [found.key for objects in bucket.list() for found in objects] == keys
        canned.reply = shelf(keys, 2, utf16)
        with pytest.raises(SyncAgentError, match="not byte order"):
            list(bucket.list())
    with open_bucket(f"gs://bucket?endpoint={canned.url}&sorted=no") as bucket:
        assert [found.key for objects in bucket.list() for found in objects] == keys


def test_listing_stops_at_until(canned: FakeHttp, opened: Opened) -> None:
    canned.in_turn(says(page("a", "b", token="t1")), says(page("c", "d", token="t2")))
    driver = opened(canned.url)
    assert listed(driver, until="c") == ["a", "b", "c", "d"]
    assert len(canned.requests) == 2
    canned.in_turn(says(page("a", "b", token="t1")))
    assert listed(driver, until="b") == ["a", "b"], "nothing that is wanted can follow"


WHOLE = json.dumps(page("a", "b", token="t")).encode()


@pytest.mark.parametrize(
    "body",
    [
        WHOLE[:-1], WHOLE[: len(WHOLE) // 2], b"", b"<html>Sign in to the Wi-Fi</html>", b"null", b"[]", b'"x"', b"7",
        b'{"items": null}', b'{"items": [null]}', b'{"items": [{"name": "k"}]}', b"\xff\xfe{}",
        json.dumps({"items": [resource(size="many")]}).encode(),
        json.dumps({"items": [resource(updated=None)]}).encode(),
    ],
)  # fmt: skip
def test_a_page_that_is_cut_off_is_no_end(canned: FakeHttp, opened: Opened, body: bytes) -> None:
    canned.in_turn(says(page("0", token="t0")), (200, {}, body))
    pages = opened(canned.url).list()
    assert [found.key for found in next(pages)] == ["0"]
    with pytest.raises(Transient, match="a listing page of bucket is cut off") as caught:
        next(pages)
    assert caught.value.resource == "bucket"
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    "body", [{"error": {"code": 403}}, {"message": "ok"}, {"kind": "x", "name": "bucket"}]
)
def test_an_answer_that_is_no_listing_is_no_empty_bucket(canned: FakeHttp, opened: Opened, body: Any) -> None:
    canned.always(says(body))
    with pytest.raises(Transient, match="something else"):
        listed(opened(canned.url))


def test_a_repeated_token_ends_in_an_error(canned: FakeHttp, opened: Opened) -> None:
    canned.always(says(page(token="same")))
    with pytest.raises(Transient, match="circles"):
        listed(opened(canned.url))


# -- retries -----------------------------------------------------------------------------------------


def test_busy_answers_and_lost_connections_are_asked_again(canned: FakeHttp, opened: Opened) -> None:
    whole = says(page("a"))
    cut = (200, {"Content-Length": str(len(whole[2]))}, whole[2][:-9])
    canned.in_turn(refusal(429), refusal(503), refusal(408), DROP, cut, whole)
    driver = opened(canned.url)
    assert listed(driver) == ["a"]
    assert driver.requests["list"] == len(canned.requests) == 6


def test_a_connection_that_was_closed_between_pages_is_no_fault(canned: FakeHttp, opened: Opened) -> None:
    canned.in_turn(says(page("a", token="t")), DROP, says(page("b")))
    assert listed(opened(canned.url)) == ["a", "b"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_busy_for_too_long_is_transient(canned: FakeHttp, opened: Opened, status: int) -> None:
    canned.always(refusal(status, **{"Retry-After": "7"}))
    with pytest.raises(Transient, match="busy") as caught:
        listed(opened(canned.url))
    assert len(canned.requests) == 6
    assert caught.value.retry_after == 7


@pytest.mark.parametrize("after", ["", "soon", "-1", "²", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_a_pause_that_is_no_number_of_seconds_is_passed_over(
    canned: FakeHttp, opened: Opened, after: str
) -> None:
    canned.always(refusal(503, **{"Retry-After": after}))
    with pytest.raises(Transient, match="busy") as caught:
        listed(opened(canned.url))
    assert caught.value.retry_after is None


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_refusal_is_not_asked_again(canned: FakeHttp, opened: Opened, status: int) -> None:
    canned.always(refusal(status))
    with pytest.raises(SyncAgentError):
        listed(opened(canned.url))
    assert len(canned.requests) == 1


@pytest.mark.parametrize("call", ["list", "get"])
def test_a_refused_stream_leaves_no_connection_behind(canned: FakeHttp, opened: Opened, call: str) -> None:
    canned.always(refusal(401))
    driver = opened(canned.url)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", ResourceWarning)
        with pytest.raises(AccessDenied):
            CALLS[call](driver)
        driver.close()
        gc.collect()
    assert [str(found.message) for found in seen] == []


# -- errors ------------------------------------------------------------------------------------------

NO_BUCKET = "The specified bucket does not exist."
NO_DELETE = "me@x does not have storage.objects.delete access to the Google Cloud Storage object."
PAYER = "Bucket is a requester pays bucket but no user project provided."
CALLS: dict[str, Callable[[GcsDriver], Any]] = {
    "list": listed,
    "head": lambda driver: driver.stat("k/nope"),
    "get": lambda driver: read(driver, "k/nope"),
    "put": lambda driver: driver.put("k/nope", io.BytesIO(b"x")),
    "delete": lambda driver: driver.delete("k/nope"),
}


@pytest.mark.parametrize(
    ("call", "answer", "kind", "text"),
    [
        ("list", refusal(404), NotFound, "no such bucket: bucket"),
        ("head", refusal(404, "No such object: bucket/k"), NotFound, "no object 'k/nope' in bucket bucket"),
        ("get", refusal(404), NotFound, "no object 'k/nope' in bucket bucket"),
        ("get", (404, {}, b"Not Found"), NotFound, "no object 'k/nope' in bucket bucket"),
        ("head", refusal(404, NO_BUCKET), NotFound, "no such bucket: bucket"),
        ("delete", refusal(404, NO_BUCKET), NotFound, "no such bucket: bucket"),
        ("put", refusal(404), NotFound, "no such bucket: bucket"),
        ("list", refusal(403), AccessDenied, "storage.objects.list on bucket bucket"),
        ("head", refusal(403), AccessDenied, "storage.objects.get on 'k/nope' in bucket bucket"),
        ("get", refusal(403), AccessDenied, "storage.objects.get on 'k/nope' in bucket bucket"),
        ("put", refusal(403), AccessDenied, "storage.objects.create on 'k/nope' in bucket bucket"),
        ("put", refusal(403, NO_DELETE), AccessDenied, "storage.objects.delete on 'k/nope' in bucket bucket"),
        ("delete", refusal(403), AccessDenied, "storage.objects.delete on 'k/nope' in bucket bucket"),
        ("list", refusal(401), AccessDenied, "storage.objects.list on bucket bucket; the credentials are missing"),
        ("get", refusal(401), AccessDenied, "storage.objects.get on 'k/nope' in bucket bucket"),
        ("list", refusal(400), ConfigError, "cannot take bucket bucket"),
        ("list", refusal(400, PAYER), ConfigError, "user_project"),
        ("put", refusal(400), InvalidInput, "cannot take the key 'k/nope'"),
        ("put", refusal(412), AlreadyExists, "'k/nope' is already there"),
        ("delete", refusal(409), Conflict, "somebody else"),
        ("put", refusal(503), Transient, "busy"),
        ("get", refusal(418), SyncAgentError, "answered 418"),
    ],
)  # fmt: skip
def test_answers_become_our_errors(
    canned: FakeHttp, opened: Opened, call: str, answer: Answer, kind: type[SyncAgentError], text: str
) -> None:
    canned.always(answer)
    with pytest.raises(SyncAgentError) as caught:
        CALLS[call](opened(canned.url))
    assert isinstance(caught.value, kind)
    assert type(caught.value) in {kind, *kind.__subclasses__()}
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.resource == ("bucket" if "bucket: " in text or call == "list" else "k/nope")
    assert caught.value.__cause__ is not None
    if isinstance(caught.value, AccessDenied):
        assert caught.value.permission == text.partition(" ")[0]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("status", "kind", "hint"),
    [
        (400, SyncAgentError, "check the name"),
        (401, AccessDenied, "renew them, or pass --integration"),
        (403, AccessDenied, "'syncagent doctor gs://bucket' shows the role to grant"),
        (404, NotFound, "check the "),
        (409, Conflict, "try again"),
        (412, AlreadyExists, "delete it first"),
        (429, Transient, "try again later"),
        (500, Transient, "try again later"),
        (502, Transient, "try again later"),
        (503, Transient, "try again later"),
    ],
)
def test_every_refusal_names_the_bucket_and_what_to_do(
    canned: FakeHttp, opened: Opened, call: str, status: int, kind: type[SyncAgentError], hint: str
) -> None:
    canned.always(refusal(status, NO_BUCKET if (call, status) == ("delete", 404) else "m\nn"))
    with pytest.raises(kind) as caught:
        CALLS[call](opened(canned.url))
    assert "\n" not in str(caught.value)
    assert re.search(r"\bbucket:? bucket\b", caught.value.message)
    assert caught.value.hint is not None
    assert hint in caught.value.hint
    assert str(caught.value) == f"{caught.value.message}; {caught.value.hint}"


def test_what_the_service_says_is_not_repeated(canned: FakeHttp, opened: Opened) -> None:
    for name, call in CALLS.items():
        for status in (400, 401, 403, 404, 409, 412, 418, 503):
            canned.always(refusal(status, f"Invalid token {SECRET}"))
            if (name, status) == ("delete", 404):
                continue  # is success
            with pytest.raises(SyncAgentError) as caught:
                call(opened(canned.url))
            assert SECRET not in f"{caught.value} {caught.value!r} {vars(caught.value)}"


def test_a_server_that_is_not_there_is_said_at_once(opened: Opened) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    for call in CALLS.values():
        driver = opened(endpoint)
        with pytest.raises(
            Transient, match=f"cannot reach {endpoint} for bucket bucket; check the endpoint"
        ) as caught:
            call(driver)
        assert caught.value.__cause__ is not None
        assert driver.requests.total() == 1


@pytest.mark.parametrize("endpoint", ["localhost:4443", "127.0.0.1", "ftp://host"])
def test_an_endpoint_that_is_no_url(opened: Opened, endpoint: str) -> None:
    with pytest.raises(ConfigError, match="not a usable endpoint"):
        listed(opened(endpoint))


@pytest.mark.parametrize("bucket", ["..", ".", "a?b", "a#b", "ü"])
def test_a_bucket_name_that_is_none(opened: Opened, bucket: str) -> None:
    with pytest.raises(ConfigError, match="not a bucket's name"):
        opened(bucket=bucket)


# -- objects -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", ".", ".."])
def test_keys_that_would_name_the_bucket_are_never_sent(canned: FakeHttp, opened: Opened, key: str) -> None:
    driver = opened(canned.url)
    driver.delete(key)  # what cannot be there is deleted
    for call in (lambda: driver.stat(key), lambda: read(driver, key), lambda: read(driver, key, length=0)):
        with pytest.raises(NotFound) as caught:
            call()
        assert caught.value.__cause__ is not None
    with pytest.raises(InvalidInput):
        driver.put(key, io.BytesIO())
    assert canned.requests == []


@pytest.mark.parametrize("key", ["new\nline", "carriage\rreturn"])
def test_line_breaks_are_refused(canned: FakeHttp, opened: Opened, key: str) -> None:
    with pytest.raises(InvalidInput, match="cannot hold the key"):
        opened(canned.url).put(key, io.BytesIO())
    assert canned.requests == []


def test_a_key_is_one_segment_of_the_url(canned: FakeHttp, opened: Opened) -> None:
    canned.always(says(resource()))
    opened(canned.url).stat("a/../b c+d%20?é#")
    (asked,) = canned.requests
    assert asked.path == "/storage/v1/b/bucket/o/a%2F..%2Fb%20c%2Bd%2520%3F%C3%A9%23"


@pytest.mark.parametrize("key", [key for key in NASTY if "\n" not in key])
def test_every_odd_key_is_sent_as_it_is(canned: FakeHttp, opened: Opened, key: str) -> None:
    canned.always(says(resource(key)))
    driver = opened(canned.url)
    assert driver.put(key, io.BytesIO(b"x")).key == key
    read(driver, key)
    driver.delete(key)
    put, *others = canned.requests
    (told,) = re.findall(rb'^\{"name".*\}\r?$', put.body, re.MULTILINE)
    assert json.loads(told)["name"] == key
    assert [asked.method for asked in others] == ["GET", "GET", "DELETE"]
    for asked in others:
        head, _, name = asked.path.rpartition("/")
        assert (head, unquote(name)) == ("/storage/v1/b/bucket/o", key)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b"null"])
def test_an_answer_about_an_object_that_is_cut_off(canned: FakeHttp, opened: Opened, body: bytes) -> None:
    canned.always((200, {}, body))
    with pytest.raises(Transient):
        opened(canned.url).stat("k")


def test_a_missing_object_is_deleted(canned: FakeHttp, opened: Opened) -> None:
    canned.always(refusal(404))
    opened(canned.url).delete("k")
    assert [(asked.method, asked.path) for asked in canned.requests] == [
        ("DELETE", "/storage/v1/b/bucket/o/k")
    ]


@pytest.mark.parametrize("payer", ["payer", "example.com:odd&project=é", None])
def test_the_payer_is_named_in_every_request(canned: FakeHttp, opened: Opened, payer: str | None) -> None:
    driver = opened(canned.url, options={"user_project": payer} if payer else {})
    canned.always(says(page("a", token="t")))
    next(driver.list())
    canned.always(says(resource()))
    driver.stat("k")
    read(driver)
    driver.put("k", io.BytesIO(b"x"), if_absent=True)
    driver.delete("k")
    methods = [asked.method for asked in canned.requests]
    assert methods == ["GET", "GET", "GET", "POST", "GET", "DELETE"]
    assert {asked.query.get("userProject") for asked in canned.requests} == {payer}


def test_a_resumable_upload_names_the_payer(canned: FakeHttp, opened: Opened) -> None:
    Uploads(canned)
    opened(canned.url, options={"user_project": "payer"}).put("k", io.BytesIO(LARGE))
    assert [asked.method for asked in canned.requests] == ["POST", "PUT", "GET"]
    assert {asked.query.get("userProject") for asked in canned.requests} == {"payer"}


def test_an_upload_starts_no_thread_of_the_sdk(
    canned: FakeHttp, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    start = threading.Thread.start

    def spy(thread: threading.Thread) -> None:
        started.append(str(getattr(getattr(thread, "_target", None), "__module__", "")))
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", spy)
    canned.always(says(resource()))
    opened(canned.url).put("k", io.BytesIO(b"x"))
    assert "socketserver" in started
    assert [name for name in started if name.startswith("google")] == []


def test_ranges_are_asked_for(canned: FakeHttp, opened: Opened) -> None:
    canned.always((206, {}, b"234"))
    driver = opened(canned.url)
    assert read(driver, offset=2, length=3) == b"234"
    assert read(driver, offset=2) == b"234"
    assert [asked.headers["range"] for asked in canned.requests] == ["bytes=2-4", "bytes=2-"]
    assert {asked.query["alt"] for asked in canned.requests} == {"media"}


def test_past_the_end_there_is_nothing(canned: FakeHttp, opened: Opened) -> None:
    canned.always(refusal(416))
    assert read(opened(canned.url), offset=99) == b""


def test_a_range_that_is_ignored_is_not_taken_for_one(canned: FakeHttp, opened: Opened) -> None:
    canned.always((200, {}, b"0123456789"))
    with pytest.raises(SyncAgentError, match="instead of a range"):
        read(opened(canned.url), offset=2, length=3)


def test_packed_objects_are_read_as_they_are_stored(canned: FakeHttp, opened: Opened) -> None:
    stored = gzip.compress(b"text")
    canned.always((200, {"Content-Encoding": "gzip"}, stored))
    assert read(opened(canned.url)) == stored
    assert canned.requests[0].headers["accept-encoding"] == "gzip"


def test_a_body_that_ends_early_raises(canned: FakeHttp, opened: Opened) -> None:
    canned.always((200, {"Content-Length": "100"}, b"half"))
    with opened(canned.url).open("k") as stream, pytest.raises(Transient, match="connection to bucket"):
        stream.read()


def test_a_stream_may_be_left_unread(canned: FakeHttp, opened: Opened) -> None:
    canned.always((200, {}, b"x" * 1_000_000))
    with opened(canned.url).open("k") as stream:
        assert stream.read(3) == b"xxx"


# -- uploads -----------------------------------------------------------------------------------------


def test_a_conditional_put_is_one_request_with_the_condition(canned: FakeHttp, opened: Opened) -> None:
    canned.always(says(resource()))
    driver = opened(canned.url, storage_class="NEARLINE")
    stored = driver.put("a/k", io.BytesIO(b"body"), content_type="image/png", if_absent=True)
    assert stored.fingerprint == "1700000000000001.2"
    asked = canned.requests[0]
    assert (asked.method, asked.path) == ("POST", "/upload/storage/v1/b/bucket/o")
    assert (asked.query["uploadType"], asked.query["ifGenerationMatch"]) == ("multipart", "0")
    for part in (
        b'"name": "a/k"',
        b'"storageClass": "NEARLINE"',
        b'"crc32c"',
        b"image/png",
        b"\r\n\r\nbody\r\n",
    ):
        assert part in asked.body
    driver.put("a/k", io.BytesIO(b"body"))
    assert "ifGenerationMatch" not in canned.requests[2].query
    assert driver.requests == {"put": 2, "head": 2}


class Uploads:
    """Resumable uploads, as the service answers them."""

    def __init__(self, canned: FakeHttp) -> None:
        self.canned = canned
        canned.reply = self

    def __call__(self, asked: Request) -> Answer:
        if asked.method == "POST":
            assert asked.query["uploadType"] == "resumable"
            return says(
                {}, Location=f"{self.canned.url}/session?userProject={asked.query.get('userProject')}"
            )
        more = {"crc32c": self.crc32c()} if asked.method == "PUT" else {}
        return says(resource(size=str(len(self.body)), **more))

    @property
    def body(self) -> bytes:
        return b"".join(asked.body for asked in self.canned.requests if asked.method == "PUT")

    def crc32c(self) -> str:
        import base64

        import google_crc32c

        return base64.b64encode(google_crc32c.Checksum(self.body).digest()).decode()


class Pipe(io.RawIOBase):
    """A stream that cannot seek and gives a little at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        return self._data.read(min(size, 1_000_000) if size is not None and size >= 0 else -1)


LARGE = bytes(range(256)) * 4096 * 9  # 9 MiB


def positioned(data: bytes) -> BinaryIO:
    body = io.BytesIO(b"skipped" + data)
    body.seek(7)
    return body


@pytest.mark.parametrize(
    "make",
    [io.BytesIO, lambda data: cast(BinaryIO, Pipe(data)), positioned],
    ids=["file", "pipe", "not at 0"],
)
def test_large_bodies_go_up_resumably(
    canned: FakeHttp, opened: Opened, make: Callable[[bytes], BinaryIO]
) -> None:
    uploads = Uploads(canned)
    assert opened(canned.url).put("k", make(LARGE), if_absent=True).size == len(LARGE)
    assert uploads.body == LARGE
    assert canned.requests[0].query["ifGenerationMatch"] == "0"


def test_a_large_body_that_was_damaged_on_its_way(canned: FakeHttp, opened: Opened) -> None:
    uploads = Uploads(canned)
    uploads.crc32c = lambda: "AAAAAA=="  # type: ignore[method-assign]
    with pytest.raises(Transient, match="damaged"):
        opened(canned.url).put("k", io.BytesIO(LARGE))


def test_an_upload_is_tried_again(canned: FakeHttp, opened: Opened) -> None:
    canned.in_turn(refusal(503), says(resource()), says(resource()))
    opened(canned.url).put("k", io.BytesIO(b"x"))
    assert [asked.method for asked in canned.requests] == ["POST", "POST", "GET"]


def test_an_error_of_the_uploaded_file_stays_what_it_is(canned: FakeHttp, opened: Opened) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "disk on fire")

    with pytest.raises(OSError, match="disk on fire"):
        opened(canned.url).put("k", Broken())


# -- credentials -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pem() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    return (
        rsa.generate_private_key(public_exponent=65537, key_size=2048)
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        .decode()
    )


def account(pem: str, **more: str) -> dict[str, str]:
    return {
        "type": "service_account",
        "project_id": "lab",
        "private_key_id": "1",
        "private_key": pem,
        "client_email": "agent@lab.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": "https://oauth2.googleapis.com/token",
        **more,
    }


def lab(content: Any) -> Integration:
    return Integration(
        "lab", "gcs", {"content": content if isinstance(content, str) else json.dumps(content)}
    )


USER = {"type": "authorized_user", "client_id": "c", "client_secret": SECRET, "refresh_token": SECRET}


@pytest.mark.parametrize(
    "content",
    [
        "", SECRET, f'{{"private_key": "{SECRET}', f'["{SECRET}"]', f'"{SECRET}"', "null", "{}",
        json.dumps({"type": "authorized_user", "client_secret": SECRET}),
        json.dumps(account(SECRET)),
        json.dumps(account(f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----\n")),
        json.dumps({"type": "service_account", "private_key": SECRET}),
    ],
)  # fmt: skip
def test_malformed_content_is_not_printed(opened: Opened, content: str) -> None:
    with pytest.raises(ConfigError, match="'content' of integration 'lab'") as caught:
        opened(integration=lab(content))
    assert SECRET not in f"{caught.value} {caught.value!r}"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_an_integration_without_content(opened: Opened) -> None:
    with pytest.raises(ConfigError, match="'content' of integration 'lab'"):
        opened(integration=Integration("lab", "gcs", {}))


@pytest.mark.parametrize("options", [{}, {"anonymous": "yes"}])
def test_another_type_of_integration_is_named(opened: Opened, options: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="integration 'lab' is of type s3, and gs:// needs gcs"):
        opened(integration=Integration("lab", "s3", {"secret": SECRET}), options=options)


def test_a_service_account_gets_a_token_and_renews_it(canned: FakeHttp, opened: Opened, pem: str) -> None:
    tokens = iter(["first", "second"])
    pages = iter([refusal(401), says(page("a"))])

    def reply(asked: Request) -> Answer:
        if asked.path == "/token":
            return says({"access_token": next(tokens), "expires_in": 3600, "token_type": "Bearer"})
        return next(pages)

    canned.reply = reply
    driver = opened(canned.url, lab(account(pem, token_uri=f"{canned.url}/token")))
    assert listed(driver) == ["a"]
    sent = [asked.headers.get("authorization") for asked in canned.requests]
    assert sent == [None, "Bearer first", None, "Bearer second"]
    assert b"assertion=" in canned.requests[0].body
    assert pem.splitlines()[1] not in f"{driver!r} {driver.__dict__!r}"


def test_a_token_that_is_refused_is_access_denied(canned: FakeHttp, opened: Opened, pem: str) -> None:
    canned.always(says({"error": "invalid_grant", "error_description": f"Invalid {SECRET}"}, 400))
    with pytest.raises(AccessDenied, match="no usable Google credentials for bucket bucket") as caught:
        listed(opened(canned.url, lab(account(pem, token_uri=f"{canned.url}/token"))))
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is not None


def test_a_token_server_that_is_not_there_is_transient(canned: FakeHttp, opened: Opened, pem: str) -> None:
    content = account(pem, token_uri=f"http://127.0.0.1:{free_port()}/token")
    with pytest.raises(Transient, match="cannot reach"):
        listed(opened(canned.url, lab(content)))
    assert canned.requests == []


def test_a_user_s_credentials_cannot_sign(opened: Opened) -> None:
    driver = opened(integration=lab(USER))
    assert not driver.caps.signs
    with pytest.raises(Unsupported, match="cannot sign"):
        driver.sign("k", expires=timedelta(minutes=5))


@pytest.mark.parametrize("options", [{"anonymous": "yes"}, {"anonymous": "true"}, {}])
def test_no_credentials_are_sent_when_anonymous(
    canned: FakeHttp, opened: Opened, options: dict[str, str]
) -> None:
    canned.always(says(page("a")))
    driver = opened(canned.url, lab(USER) if options else None, options=options)
    assert listed(driver) == ["a"]
    assert "authorization" not in canned.requests[0].headers
    assert not driver.caps.signs


def test_anonymous_takes_yes_or_no(opened: Opened) -> None:
    with pytest.raises(ConfigError, match="anonymous=perhaps"):
        opened(options={"anonymous": "perhaps"})


def test_a_file_named_by_the_environment_is_used(
    opened: Opened, pem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "account.json"
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    for content in (None, "{", SECRET):
        if content is not None:
            file.write_text(content)
        with pytest.raises(ConfigError, match="GOOGLE_APPLICATION_CREDENTIALS") as caught:
            opened()
        assert SECRET not in str(caught.value)
    file.write_text(json.dumps(account(pem)))
    assert opened().caps.signs
    assert not opened("http://127.0.0.1:9").caps.signs, "not for another server"


@pytest.mark.parametrize("call", CALLS)
def test_no_credentials_at_all(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))  # nobody has logged in
    monkeypatch.setenv("NO_GCE_CHECK", "true")  # and this is no machine of Google's
    driver = opened()
    with pytest.raises(
        AccessDenied, match="bucket bucket; run 'gcloud auth application-default login'"
    ) as caught:
        CALLS[call](driver)
    assert type(caught.value.__cause__).__name__ == "DefaultCredentialsError"
    assert "\n" not in str(caught.value)
    assert driver.requests.total() == (1 if call == "put" else 0)


def test_secrets_are_never_shown(canned: FakeHttp, opened: Opened, pem: str) -> None:
    private = pem.splitlines()[1]
    for content in (account(pem, private_key_id=SECRET, token_uri=f"{canned.url}/token"), USER):
        spec = DriverSpec("gcs", "bucket", endpoint=canned.url, integration="lab")
        driver = open_driver(spec, lab(content))
        shown = f"{driver} {driver!r} {vars(driver)} {describe(spec)} {spec!r} {lab(content)!r}"
        with open_bucket(spec, lab(content)) as bucket:
            shown += f"{bucket} {bucket!r} {bucket.url} {vars(bucket)}"
        driver.close()
        assert SECRET not in shown
        assert private not in shown


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 418, 503])
def test_a_token_is_sent_but_not_told_in_an_error(
    canned: FakeHttp, opened: Opened, pem: str, call: str, status: int
) -> None:
    def reply(asked: Request) -> Answer:
        if asked.path == "/token":
            return says({"access_token": SECRET, "expires_in": 3600, "token_type": "Bearer"})
        return refusal(status, f"{NO_BUCKET} {asked.headers['authorization']}")

    canned.reply = reply
    driver = opened(canned.url, lab(account(pem, token_uri=f"{canned.url}/token")))
    with pytest.raises(SyncAgentError) as caught:
        CALLS[call](driver)
    assert canned.requests[-1].headers["authorization"] == f"Bearer {SECRET}"
    assert SECRET not in f"{caught.value} {caught.value!r} {vars(caught.value)} {driver!r} {vars(driver)}"


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHttp]:
    """The metadata server of a function. Its tokens are numbered."""
    given = itertools.count(1)
    with FakeHttp(lambda _: says({"access_token": f"token-{next(given)}", "expires_in": 3600})) as server:
        monkeypatch.setenv("K_SERVICE", "function")
        monkeypatch.setenv("GCE_METADATA_HOST", server.url.removeprefix("http://"))
        yield server


def test_a_function_sends_tokens_of_its_metadata_server(
    canned: FakeHttp, metadata: FakeHttp, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_ENDPOINT_OVERRIDE", canned.url)
    canned.always(says(page("a")))
    driver = opened()
    assert not driver.caps.signs
    assert [listed(driver), listed(driver)] == [["a"], ["a"]]
    assert [one.headers["authorization"] for one in canned.requests] == ["Bearer token-1"] * 2
    (asked,) = metadata.requests
    assert asked.path.partition("?")[0] == "/computeMetadata/v1/instance/service-accounts/default/token"
    assert asked.headers["metadata-flavor"] == "Google"
    assert asked.query == {"scopes": "https://www.googleapis.com/auth/devstorage.read_write"}
    assert "token-1" not in f"{driver!r} {vars(driver)} {driver._plain.auth!r}"


def test_a_token_that_is_refused_is_asked_for_anew_once(
    canned: FakeHttp, metadata: FakeHttp, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_ENDPOINT_OVERRIDE", canned.url)
    canned.in_turn(refusal(401), says(page("a")), refusal(401), refusal(401))
    driver = opened()
    assert listed(driver) == ["a"]
    with pytest.raises(AccessDenied, match="renew"):
        listed(driver)
    sent = [one.headers["authorization"].removeprefix("Bearer token-") for one in canned.requests]
    assert sent == ["1", "2", "2", "3"]


def test_a_token_is_renewed_before_it_ends(
    canned: FakeHttp, metadata: FakeHttp, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_ENDPOINT_OVERRIDE", canned.url)
    canned.always(says(page("a")))
    clock = iter([0.0, 0.0, 3374.0, 3376.0, 3376.0])
    monkeypatch.setattr("syncagent.drivers.gcs_metadata.time", SimpleNamespace(monotonic=lambda: next(clock)))
    driver = opened()
    driver._plain.auth._ends = -1.0
    for _ in range(3):
        listed(driver)
    assert [one.headers["authorization"][-1] for one in canned.requests] == ["1", "1", "2"]


@pytest.mark.parametrize(
    ("answer", "error", "asked"),
    [
        (says({}, 503), Transient, 4),
        (DROP, Transient, 4),
        (says({}, 404), AccessDenied, 1),
        (says({"access_token": SECRET}), AccessDenied, 1),
        ((200, {}, SECRET.encode()), AccessDenied, 1),
    ],
)
def test_a_metadata_server_without_a_token(
    metadata: FakeHttp, opened: Opened, answer: Answer, error: type[SyncAgentError], asked: int
) -> None:
    metadata.always(answer)
    driver = opened()
    for call in (lambda: listed(driver), lambda: driver.stat("k")):
        del metadata.requests[:]
        with pytest.raises(error, match="metadata server") as caught:
            call()
        assert len(metadata.requests) == asked
        assert SECRET not in f"{caught.value} {vars(caught.value)}"


def test_a_function_with_a_file_of_credentials_uses_these(
    metadata: FakeHttp, opened: Opened, pem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "account.json").write_text(json.dumps(account(pem)))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
    assert opened().caps.signs
    assert metadata.requests == []


def test_what_a_function_reads_with_loads_nothing_that_signs(canned: FakeHttp, metadata: FakeHttp) -> None:
    canned.always(says(resource("k")))
    code = """
import sys
from syncagent.drivers.gcs import open_driver
from syncagent.model import DriverSpec
assert open_driver(DriverSpec("gcs", "bucket")).stat("k").key == "k"
print(*(name for name in ("cryptography", "google.cloud.storage", "google.api_core", "google.auth.jwt") if name in sys.modules))
"""
    given = {**os.environ, "API_ENDPOINT_OVERRIDE": canned.url}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=given, check=False)  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr
    assert canned.requests[0].headers["authorization"] == "Bearer token-1"


def test_an_emulator_of_the_environment_gets_every_request(
    canned: FakeHttp, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", canned.url)
    canned.always(says(page("a")))
    assert listed(opened(options={"anonymous": "yes"})) == ["a"]


def test_signing_needs_no_network(opened: Opened, pem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("asked the network"))
    driver = opened(integration=lab(account(pem)))
    assert driver.caps.signs
    url = urlsplit(driver.sign("a b+c/é.txt", expires=timedelta(minutes=5), method="PUT"))
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    assert (url.scheme, url.netloc, unquote(url.path)) == (
        "https",
        "storage.googleapis.com",
        "/bucket/a b+c/é.txt",
    )
    assert (query["X-Goog-Algorithm"], query["X-Goog-Expires"]) == ("GOOG4-RSA-SHA256", "300")
    assert query["X-Goog-Credential"].startswith("agent@lab.iam.gserviceaccount.com/")
    with pytest.raises(InvalidInput, match="7 days"):
        driver.sign("k", expires=timedelta(days=8))


def test_prices_are_known_for_google_only(canned: FakeHttp, opened: Opened) -> None:
    assert dict(opened().caps.prices)["list"] == 0.005
    assert opened(canned.url).caps.prices == ()


def test_a_url_opens_it(canned: FakeHttp) -> None:
    canned.always(says(page("photos/a.jpg")))
    with open_bucket(f"gs://bucket/photos?endpoint={canned.url}&user_project=payer") as bucket:
        assert [found.key for objects in bucket.list() for found in objects] == ["a.jpg"]
    assert canned.requests[0].query["userProject"] == "payer"


def test_closing_ends_the_connections_and_may_be_done_twice(canned: FakeHttp, opened: Opened) -> None:
    opened(canned.url).close()
    assert canned.requests == []
    canned.always(says(page("a")))
    driver = opened(canned.url)
    assert listed(driver) == ["a"]
    kept = driver._session().get_adapter(canned.url).poolmanager.pools
    assert len(kept) == 1
    driver.close()
    driver.close()
    assert len(kept) == 0


def test_importing_the_driver_does_not_load_the_sdk() -> None:
    lazy = ("google.cloud.storage", "google.auth", "google.api_core", "requests", "msgspec")
    code = f"import sys, syncagent.drivers.gcs; sys.exit(any(m in sys.modules for m in {lazy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
