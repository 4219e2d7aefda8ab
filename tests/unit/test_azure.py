"""The Azure driver: pages that are odd, answers that are errors, credentials. Keys and ranges: see the contract suite."""

from __future__ import annotations

import base64
import gzip
import io
import json
import logging
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import product
from typing import Any, BinaryIO, cast
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncagent.drivers import azure_pages, describe, open_bucket
from syncagent.drivers.azure import AzureDriver, open_driver
from syncagent.drivers.azure_pages import Page, in_byte_order, parse_page
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

SECRET = "very-secret-value="
KEY = base64.b64encode(b"the account's very secret key").decode()
SAS = f"sv=2024-11-04&sr=c&sp=rl&sig={quote(SECRET, safe='')}"
MD5 = "XUFAKrxLKna5cZ2REBfFkg=="
MODIFIED = "Fri, 02 Jan 2026 03:04:05 GMT"
ISO = "2026-01-02T03:04:05Z"

# -- pages -------------------------------------------------------------------------------------------


def element(name: str, text: str | None) -> str:
    return "" if text is None else f"<{name}>{text}</{name}>" if text else f"<{name} />"


def entry(name: str, *, encoded: bool = False, **more: str | None) -> str:
    """A blob as the service describes it; `more` overwrites, and None leaves out."""
    told = {"Creation-Time": MODIFIED, "Last-Modified": MODIFIED, "Etag": "0x8DE1", "ResourceType": None}
    told |= {"Content-Length": "7", "Content-Type": "image/jpeg", "Content-Encoding": "", "Content-MD5": MD5}
    told |= {"Cache-Control": "", "BlobType": "BlockBlob", "AccessTier": "Hot", "ServerEncrypted": "true"}
    told |= {field.replace("_", "-"): text for field, text in more.items()}
    properties = "".join(element(field, text) for field, text in told.items())
    opening = '<Name Encoded="true">' if encoded else "<Name>"
    return f"<Blob>{opening}{name}</Name><Properties>{properties}</Properties><OrMetadata /></Blob>"


def page(*entries: str, marker: str | None = "") -> bytes:
    head = '\ufeff<?xml version="1.0" encoding="utf-8"?><EnumerationResults ContainerName="con"><Prefix>p</Prefix>'
    text = f"{head}{element('Blobs', ''.join(entries))}{element('NextMarker', marker)}</EnumerationResults>"
    return text.encode(errors="surrogateescape")


def keyed(*keys: str, marker: str = "") -> bytes:
    return page(*(entry(escape(key)) for key in keys), marker=escape(marker))


def read_page(body: bytes) -> Page:
    return parse_page(body, "acc/con")


PLAIN = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cn"]), min_size=1, max_size=9)
TRICKY = st.sampled_from([*NASTY, "a\rb", "&amp;", "&amp;lt;", "&#97;", "%41%", "</Name>", "]]>", "<!x>"])
ODD = st.sampled_from(["\ufffe", "\x01\x1f", "a\uffffb", "%25&\0"])  # XML cannot hold these as they are
USUAL = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#xD;"}
WRITTEN = st.sampled_from([{}, {'"': "&quot;", "'": "&apos;"}, {"\n": "&#xA;", "a": "&#97;"}])
ETAG = st.sampled_from(["0x1", "0x1", "0x1", '"0x1"', "&quot;0x1&quot;", "0&#120;1"])


@st.composite
def described(draw: st.DrawFn) -> tuple[str, ObjectInfo]:
    """An entry, and the object that it stands for."""
    encoded = draw(st.booleans())
    key = draw(PLAIN | TRICKY | ODD if encoded else PLAIN | TRICKY)
    name = (quote(key, safe="/&'") if encoded else key).translate(str.maketrans(USUAL | draw(WRITTEN)))
    size, etag, resource = draw(st.integers(0, 2**45)), draw(ETAG), draw(st.sampled_from([None, "file"]))
    md5, kind, tier = (draw(st.sampled_from([text, text, None, ""])) for text in (MD5, "a/b; c=d", "Cool"))
    more = {"Content_MD5": md5, "Content_Type": kind, "AccessTier": tier, "ResourceType": resource}
    told = entry(name, encoded=encoded, Content_Length=str(size), Etag=etag, **more)
    said = (f"md5:{md5}" if md5 else None, kind or None, tier or None)
    return told, ObjectInfo(key, f"0x1:{size}:{ISO}", size, ISO, "0x1", None, *said)


@given(st.lists(described(), max_size=4), st.sampled_from([None, "", "t", '2!é&<>"/=']), st.booleans())
@settings(max_examples=300)
def test_both_ways_of_reading_a_page_say_what_it_says(
    entries: list[tuple[str, ObjectInfo]], marker: str | None, indented: bool
) -> None:
    body = page(*(xml for xml, _ in entries), marker=marker and escape(marker))
    if indented:
        body = re.sub(rb"(?<=[a-z/]>)<(?!/Name)", b"\n  <", body)
    found, text = read_page(body), body.decode("utf-8-sig")
    assert found.objects == [info for _, info in entries]
    assert found.marker == (marker or None)
    assert found == azure_pages._parse_slowly(text, "acc/con")
    assert azure_pages._parse_fast(text) in (found, None)


@pytest.mark.parametrize(
    "more",
    [{}, {"Etag": '"0x1"', "ResourceType": "file"}, {"Content_MD5": "", "AccessTier": None, "Content_Encoding": "gzip"}],
)  # fmt: skip
def test_usual_entries_take_the_fast_way(more: dict[str, Any]) -> None:
    assert azure_pages._parse_fast(page(entry("a &amp; b", **more)).decode()) is not None


@pytest.mark.parametrize(
    ("name", "plain", "decoded"),
    [("&quot;&apos;&lt;", "\"'<", "\"'<"), ("&#97;", "a", "a"), ("&amp;#97;", "&#97;", "&#97;"), ("%41&amp;", "%41&", "A&")],
)  # fmt: skip
def test_a_name_is_decoded_once(name: str, plain: str, decoded: str) -> None:
    found = read_page(page(entry(name), entry(name, encoded=True), marker=name))
    assert ([o.key for o in found.objects], found.marker) == ([plain, decoded], plain)


WHOLE = keyed("a", "日本語/é", marker="m")


@pytest.mark.parametrize(
    "body",
    [
        *(WHOLE[:cut] for cut in range(0, len(WHOLE), 3)), WHOLE[:-1], WHOLE[: WHOLE.index("語".encode()) + 1],
        b"<html>Sign in to the Wi-Fi</html>", b"<Blobs></EnumerationResults>", page().replace(b"<Blobs />", b"<Blobs>"), page(entry("")),
        *(page(entry("a", Content_Length=size)) for size in (None, "", "many", "²", "-1")),
        *(page(entry("a", Last_Modified=date)) for date in (None, "", "yesterday")),
        page("<Blob><Properties /></Blob>"), page("<Blob><Name>a</Name></Blob>"),
    ],
    ids=repr,
)  # fmt: skip
def test_a_page_that_is_cut_off_or_damaged_is_no_end(body: bytes) -> None:
    with pytest.raises(Transient, match="a listing page of acc/con is cut off") as caught:
        read_page(body)
    assert caught.value.resource == "acc/con"


@pytest.mark.parametrize("name", ["a", "&lol2;", "&#97;"])
def test_document_types_are_refused(name: str) -> None:
    bomb = b'<!DOCTYPE x [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;&lol;">]><Enum'
    with pytest.raises(Transient, match="document type"):
        read_page(page(entry(name)).replace(b"<Enum", bomb, 1))


@pytest.mark.parametrize(("name", "encoded"), [("\udcff", False), ("%FF", True), ("%FF&#97;", True)])
def test_what_is_not_utf8_is_our_error(name: str, encoded: bool) -> None:
    with pytest.raises(InvalidInput, match="cannot be decoded") as caught:
        read_page(page(entry(name, encoded=encoded)))
    assert caught.value.resource == "acc/con"


def test_directories_are_no_objects() -> None:
    directory = entry("d", ResourceType="directory", Content_Length="0", Content_Type="")
    found = read_page(page(directory, entry("d/a", ResourceType="file"), marker="m"))
    assert ([o.key for o in found.objects], found.marker, found.tree) == (["d/a"], "m", True)
    assert read_page(page(directory)) == Page([], None, tree=True)
    assert not read_page(keyed("d/a")).tree


# -- order -------------------------------------------------------------------------------------------

# Letters on both sides of the surrogates: UTF-16 puts the last three before U+E000.
LETTERS = ["a", "/", "é", "\ud7ff", "\ue000", "\ufb01", "\uffff", "\U00010000", "😀", "\U0010ffff"]
ANY_KEY = st.text(st.sampled_from(LETTERS), min_size=1, max_size=4)
Order = Callable[[str], bytes]
ORDERS: dict[str, Order] = {"utf-8": str.encode, "utf-16": lambda key: key.encode("utf-16-be")}


def infos(*keys: str) -> list[ObjectInfo]:
    return [ObjectInfo(key, "f", 1, ISO) for key in keys]


@pytest.mark.parametrize("order", ORDERS)
@given(keys=st.sets(ANY_KEY, max_size=12), size=st.integers(1, 5))
def test_pages_come_in_byte_order(order: str, keys: set[str], size: int) -> None:
    found = infos(*sorted(keys, key=ORDERS[order]))
    pages = list(in_byte_order((found[at : at + size] for at in range(0, len(found), size)), "acc/con"))
    assert [o.key for objects in pages for o in objects] == sorted(keys, key=str.encode)
    assert all(pages)


def test_usual_pages_pass_as_they_are_and_no_more_is_held_than_must() -> None:
    pages = [infos("a", "b\ufb01"), infos("c😀"), infos("c\ufb01", "d"), infos("e")]
    ordered = in_byte_order(iter(pages), "acc/con")
    assert next(ordered) is pages[0]
    assert [o.key for o in next(ordered)] == ["c\ufb01", "c😀", "d"]
    assert next(ordered) is pages[3]


def test_a_run_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(azure_pages, "_HELD", 3)
    assert len(list(in_byte_order(iter([infos("😀1", "😀2"), infos("😀3")]), "acc/con"))) == 1
    with pytest.raises(SyncAgentError, match=r"acc/con holds too many keys like '😀1'.*sorted=no"):
        list(in_byte_order(iter([infos("😀1", "😀2"), infos("😀3", "😀4")]), "acc/con"))


# -- a server with canned answers --------------------------------------------------------------------


def says(body: bytes, status: int = 200, **headers: str) -> Answer:
    return status, {"Content-Type": "application/xml", **headers}, body


def refusal(status: int, code: str = "", **headers: str) -> Answer:
    return status, {**({"x-ms-error-code": code} if code else {}), **headers}, b""


TOLD = {"Last-Modified": MODIFIED, "ETag": '"0x8DE1"'}
STORED: Answer = (201, TOLD, b"")
MORE = {"Content-Type": "image/jpeg", "Content-MD5": MD5, "x-ms-access-tier": "Hot"}
BLOB: Answer = (200, {**TOLD, **MORE}, b"1234567")


def stores(asked: Request) -> Answer:
    return STORED if asked.method == "PUT" else (202, {}, b"") if asked.method == "DELETE" else BLOB


@pytest.fixture(autouse=True)
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's retries without their pauses."""
    monkeypatch.setattr("azure.core.pipeline.transport.HttpTransport.sleep", lambda *_: None)


@pytest.fixture
def canned() -> Iterator[FakeHttp]:
    with FakeHttp() as server:
        yield server


def lab(**options: str) -> Integration:
    return Integration("lab", "azureblob", options)


KEYED = lab(accountKey=KEY)
Opened = Callable[..., AzureDriver]


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Opens drivers, with the account's key unless told otherwise, and closes them at the end."""
    drivers: list[AzureDriver] = []

    def make(
        endpoint: str | None = None, integration: Integration | None = KEYED, **given: Any
    ) -> AzureDriver:
        spec = DriverSpec("azureblob", given.pop("bucket", "acc/con"), endpoint=endpoint, **given)
        drivers.append(open_driver(spec, integration))
        return drivers[-1]

    yield make
    for driver in drivers:
        driver.close()


@pytest.fixture
def driver(canned: FakeHttp, opened: Opened) -> AzureDriver:
    """With the account's key, at the server with canned answers."""
    return opened(canned.url)


@pytest.fixture(params=["key", "public"])
def either(request: pytest.FixtureRequest, canned: FakeHttp, opened: Opened) -> AzureDriver:
    """The same, and one of a public container, which reads without the SDK's client."""
    if request.param == "key":
        return opened(canned.url)
    return opened(canned.url, None, options={"anonymous": "yes"})


def listed(driver: AzureDriver, **bounds: str) -> list[str]:
    return [found.key for objects in driver.list(**bounds) for found in objects]


def read(driver: AzureDriver, key: str = "k", **span: int) -> bytes:
    with driver.open(key, **span) as stream:
        return stream.read()


def shelf(keys: list[str], size: int, order: Order = str.encode, start: str = "honoured") -> Reply:
    """A container that lists `keys` in pages, in this order; `start` is what it does with `startFrom`."""

    def reply(asked: Request) -> Answer:
        if "startFrom" in asked.query and start.isdecimal():
            return refusal(int(start), "FeatureNotSupported")
        first = order(asked.query.get("startFrom", "")) if start == "honoured" else b""
        here = sorted(keys, key=order)
        at = int(asked.query.get("marker", sum(order(key) < first for key in here)))
        return says(keyed(*here[at : at + size], marker=str(at + size) if at + size < len(here) else ""))

    return reply


# -- listing -----------------------------------------------------------------------------------------


def test_an_entry_becomes_an_object_and_stat_says_the_same(canned: FakeHttp, either: AzureDriver) -> None:
    canned.always(says(page(entry("a/b.jpg"))))
    ((found,),) = either.list()
    assert type(found) is ObjectInfo
    expected = ("a/b.jpg", f"0x8DE1:7:{ISO}", 7, ISO, "0x8DE1", None, f"md5:{MD5}", "image/jpeg", "Hot")
    assert found == expected
    canned.always(BLOB)
    assert either.stat("a/b.jpg") == found


def test_what_a_listing_asks_for(canned: FakeHttp, either: AzureDriver) -> None:
    canned.in_turn(says(keyed("p ü/b", marker="2!a&=é")), says(page(marker="3")), says(keyed("p ü/c")))
    assert listed(either, prefix="p ü/", after="p ü/a") == ["p ü/b", "p ü/c"]
    asked = {"restype": "container", "comp": "list", "maxresults": "5000", "prefix": "p ü/"}
    changing = [{"startFrom": "p ü/a"}, {"marker": "2!a&=é"}, {"marker": "3"}]
    assert [sent.query for sent in canned.requests] == [{**asked, **more} for more in changing]
    assert {(sent.method, sent.path) for sent in canned.requests} == {("GET", "/con")}
    assert either.requests == {"list": 3}


def test_where_a_listing_ends(canned: FakeHttp, driver: AzureDriver) -> None:
    canned.in_turn(says(keyed("a", "b", marker="1")), says(keyed("c", "d", marker="2")))
    assert listed(driver, until="c") == ["a", "b", "c", "d"], "nothing that is wanted can follow"
    canned.in_turn(says(keyed("a", marker="1")), says(page(marker="1")))
    with pytest.raises(Transient, match="acc/con goes round in circles"):
        listed(driver)
    canned.in_turn(says(keyed("a", marker="1")), says(WHOLE[:-30]))
    pages = driver.list()
    assert [found.key for found in next(pages)] == ["a"]
    with pytest.raises(Transient, match="is cut off"):
        next(pages)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("start", ["honoured", "ignored", "400", "409"])
def test_bounds_are_in_the_order_of_utf8_bytes(
    canned: FakeHttp, opened: Opened, start: str, order: str
) -> None:
    @given(st.sets(ANY_KEY, max_size=8), ANY_KEY, ANY_KEY, st.integers(1, 4))
    @settings(max_examples=25, deadline=None)
    def check(keys: set[str], after: str, until: str, size: int) -> None:
        driver = opened(canned.url)
        canned.reply = shelf(list(keys), size, ORDERS[order], start)
        wanted = sorted((k for k in keys if k.encode() > after.encode()), key=str.encode)
        assert listed(driver, after=after) == wanted
        found = listed(driver, after=after, until=until)
        assert [k for k in found if k <= until] == [k for k in wanted if k <= until]  # more may come
        assert found == [k for k in wanted if k in found]

    check()


@pytest.mark.parametrize("status", ["400", "409"])
def test_an_account_refuses_a_lower_bound_once(canned: FakeHttp, either: AzureDriver, status: str) -> None:
    canned.always(refusal(int(status), "ContainerBeingDeleted"))
    with pytest.raises(SyncAgentError, match="ContainerBeingDeleted"):  # with or without the bound
        listed(either, after="a")
    canned.reply = shelf(["a", "b", "c"], 2, start=status)
    assert listed(either, after="a") == listed(either, after="a") == ["b", "c"]
    assert ["startFrom" in sent.query for sent in canned.requests] == [True, False, True] + [False] * 4
    assert either.requests == {"list": 7}


def test_a_tree_is_listed_from_its_start_and_to_its_end(canned: FakeHttp, opened: Opened) -> None:
    def reply(asked: Request) -> Answer:
        here = [entry(key, ResourceType="file") for key in ("a/b", "c", "a", "a.b")]  # not in byte order
        at = int(asked.query.get("marker", "1" if "startFrom" in asked.query else "0"))
        return says(page(*here[at : at + 2], marker="2" if at < 2 else ""))

    canned.reply = reply
    driver = opened(canned.url, options={"sorted": "no"})
    assert listed(driver, after="a", until="b") == ["a/b", "c", "a.b"]
    assert ["startFrom" in sent.query for sent in canned.requests] == [True, False, False]
    assert listed(driver, after="a") == ["a/b", "c", "a.b"]
    assert ["startFrom" in sent.query for sent in canned.requests[3:]] == [False, False]


# -- retries -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answers",
    [[refusal(500), refusal(503), refusal(408)], [DROP, (200, {"Content-Length": "9999"}, WHOLE[:-9])]],
    ids=["busy", "cut off"],
)
def test_a_page_is_asked_for_again(canned: FakeHttp, either: AzureDriver, answers: list[Answer]) -> None:
    packed = says(gzip.compress(keyed("1")), **{"Content-Encoding": "gzip"})
    canned.in_turn(says(keyed("0", marker="m")), *answers, packed)
    assert listed(either) == ["0", "1"]
    assert either.requests["list"] == len(canned.requests) == len(answers) + 2


def test_every_request_is_counted_by_its_kind(canned: FakeHttp, either: AzureDriver) -> None:
    canned.reply = lambda asked: refusal(503) if len(canned.requests) % 3 else stores(asked)
    either.put("k", io.BytesIO(b"x"))
    read(either, "comp=list&k")
    either.delete("k")
    assert either.requests == {"put": 3, "head": 3, "get": 3, "delete": 3}


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("after", ["7", "", "soon", "-1", "²", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_busy_for_too_long(canned: FakeHttp, either: AzureDriver, status: int, after: str) -> None:
    canned.always(refusal(status, "ServerBusy", **{"Retry-After": after}))
    with pytest.raises(Transient, match=r"busy \(ServerBusy\) on acc/con; try again later") as caught:
        listed(either)
    assert caught.value.retry_after == (7 if after == "7" else None)
    assert either.requests["list"] == len(canned.requests) == (1 if status == 429 else 4)


# -- errors ------------------------------------------------------------------------------------------

CALLS: dict[str, Callable[[AzureDriver], Any]] = {
    "list": listed,
    "head": lambda driver: driver.stat("k/nope"),
    "get": lambda driver: read(driver, "k/nope"),
    "put": lambda driver: driver.put("k/nope", io.BytesIO(b"x")),
    "delete": lambda driver: driver.delete("k/nope"),
}
ALL = " ".join(CALLS)
RIGHTS = {"list": "read", "head": "read", "get": "read", "put": "write", "delete": "delete"}
ONE = "'k/nope' in acc/con"


@pytest.mark.parametrize(
    ("calls", "answer", "kind", "text"),
    [
        ("list put", refusal(404), NotFound, "no such container: acc/con; check the name"),
        *(("head get", refusal(404, code), NotFound, f"no object {ONE}; check the key") for code in ("BlobNotFound", "")),
        (ALL, refusal(404, "ContainerNotFound"), NotFound, "no such container: acc/con; check the name"),
        (ALL, refusal(401), AccessDenied, "does not accept the credentials for acc/con; they may have expired"),
        (ALL, refusal(403, "AuthenticationFailed"), AccessDenied, "the credentials for acc/con; they may have expired"),
        (ALL, refusal(403), AccessDenied, "acc/con; 'syncagent doctor az://acc/con' shows the role to assign"),
        (ALL, refusal(403, "AuthorizationFailure"), AccessDenied, "acc/con (AuthorizationFailure); 'syncagent doctor"),
        (ALL, refusal(409, "PublicAccessNotPermitted"), AccessDenied, "acc/con (PublicAccessNotPermitted)"),
        ("put delete", refusal(409, "BlobImmutableDueToPolicy"), AccessDenied, f"{ONE} (BlobImmutableDueToPolicy)"),
        ("get put", refusal(409, "BlobArchived"), Unsupported, f"{ONE} is archived; rehydrate it first"),
        *((ALL, answer, Conflict, "acc/con is in use (") for answer in (refusal(409), refusal(412), refusal(412, "LeaseIdMissing"))),
        ("get delete", refusal(412, "ConditionNotMet"), Conflict, f"{ONE} is in use (ConditionNotMet); try again"),
        ("put", refusal(409, "BlobAlreadyExists"), AlreadyExists, "'k/nope' is already there in acc/con; delete it"),
        ("put", refusal(412, "ConditionNotMet"), AlreadyExists, "'k/nope' is already there in acc/con; delete it"),
        ("put", refusal(403, "UnauthorizedBlobOverwrite"), AlreadyExists, "'k/nope' is already there in acc/con"),
        (ALL, refusal(429), Transient, "Azure is busy (429) on acc/con; try again later"),
        (ALL, refusal(500), Transient, "Azure is busy (500) on acc/con; try again later"),
        (ALL, refusal(503, "ServerBusy"), Transient, "Azure is busy (ServerBusy) on acc/con; try again later"),
        (ALL, DROP, Transient, "the connection to acc/con failed: ServiceResponseError; try again"),
        ("list", refusal(400, "InvalidResourceName"), ConfigError, "Azure cannot hold acc/con; check the name"),
        ("head put", refusal(400, "InvalidUri"), InvalidInput, f"Azure cannot hold {ONE}; check the name"),
        (ALL, refusal(418), SyncAgentError, "Azure answered 418 for "),
        (ALL, refusal(400, "InvalidHeaderValue"), SyncAgentError, "Azure answered InvalidHeaderValue for "),
    ],
)  # fmt: skip
def test_answers_become_our_errors(
    canned: FakeHttp, either: AzureDriver, calls: str, answer: Answer, kind: type[SyncAgentError], text: str
) -> None:
    canned.always(answer)
    for call in calls.split():
        canned.requests.clear()
        with pytest.raises(SyncAgentError) as caught:
            CALLS[call](either)
        error, where = caught.value, "acc/con" if call == "list" else ONE
        assert isinstance(error, kind)
        assert type(error) in {kind, *kind.__subclasses__()}
        assert text in str(error)
        assert "acc/con" in error.message
        assert "\n" not in str(error)
        assert error.resource == ("acc/con" if "container:" in text or call == "list" else "k/nope")
        assert error.__cause__ is not None
        assert len(canned.requests) == (1 if 400 <= answer[0] < 500 else 4)
        if isinstance(error, AccessDenied) and "credentials" not in text:
            right = f"Microsoft.Storage/storageAccounts/blobServices/containers/blobs/{RIGHTS[call]}"
            assert error.permission == right
            assert error.message.startswith(f"not allowed: {right} on {where}")


def test_a_server_that_is_not_there_is_named(opened: Opened) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    for call in CALLS.values():
        with pytest.raises(Transient, match=f"cannot reach {endpoint} for acc/con; check the") as caught:
            call(opened(endpoint))
        assert caught.value.__cause__ is not None


# -- objects -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", ".", "..", "a/../b", "a/./b", "a/..", "back\\slash"])
def test_keys_that_would_name_another_object(canned: FakeHttp, either: AzureDriver, key: str) -> None:
    put, sign = partial(either.put, body=io.BytesIO()), partial(either.sign, expires=timedelta(minutes=5))
    calls: list[Callable[..., Any]] = [either.stat, either.delete, either.open, put]
    for call in [*calls, *([sign] if either.caps.signs else [])]:
        with pytest.raises(InvalidInput, match="cannot hold the key"):
            call(key=key)
    assert canned.requests == []


def test_a_missing_object_is_deleted(canned: FakeHttp, driver: AzureDriver) -> None:
    for code in ("BlobNotFound", ""):
        canned.always(refusal(404, code))
        driver.delete("k")
    assert [(asked.method, asked.path) for asked in canned.requests] == [("DELETE", "/con/k")] * 2


def test_an_answer_that_is_about_no_object(canned: FakeHttp, either: AzureDriver) -> None:
    canned.always((200, {**BLOB[1], "x-ms-meta-hdi_isfolder": "true"}, b""))
    with pytest.raises(NotFound, match="'d' is a directory"):
        either.stat("d")
    for lacks in TOLD:
        canned.always((200, {name: value for name, value in BLOB[1].items() if name != lacks}, b""))
        with pytest.raises(Transient, match="none of Azure's"):
            either.stat("d")


def test_ranges_are_asked_for(canned: FakeHttp, either: AzureDriver) -> None:
    canned.always((206, {}, b"234"))
    spans = [{"offset": 2, "length": 3}, {"offset": 2}, {"length": 3}]
    assert [read(either, **span) for span in spans] == [b"234"] * 3
    assert [sent.headers["x-ms-range"] for sent in canned.requests] == ["bytes=2-4", "bytes=2-", "bytes=0-2"]
    canned.always((200, {}, b"0123456789"))
    assert read(either) == b"0123456789"
    assert not {"x-ms-range", "range"} & set(canned.requests[-1].headers)
    with pytest.raises(SyncAgentError, match="instead of a range"):
        read(either, offset=2, length=3)
    canned.always(refusal(416, "InvalidRange"))
    assert read(either, offset=99) == b"", "past the end"
    canned.always(BLOB)
    assert read(either, length=0) == b""
    assert canned.requests[-1].method == "HEAD"


def test_a_body_is_read_as_it_is_stored(canned: FakeHttp, either: AzureDriver) -> None:
    stored = gzip.compress(bytes(range(256)) * 9000, compresslevel=0)
    canned.always((200, {"Content-Encoding": "gzip"}, stored))
    assert read(either) == stored
    with either.open("k") as stream:  # and may be left unread
        assert stream.read(3) == stored[:3]
    canned.always((200, {"Content-Length": "100"}, b"half"))
    with either.open("k") as stream, pytest.raises(Transient, match="connection to acc/con"):
        stream.read()


# -- uploads -----------------------------------------------------------------------------------------

LARGE = bytes(range(256)) * 4096 * 9  # 9 MiB


class Pipe(io.RawIOBase):
    """A stream that cannot seek and gives a little at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        return self._data.read(min(size, 1_000_000) if size is not None and size >= 0 else -1)


def positioned(data: bytes) -> BinaryIO:
    body = io.BytesIO(b"skipped" + data)
    body.seek(7)
    return body


@pytest.mark.parametrize("make", [io.BytesIO, Pipe, positioned])
@pytest.mark.parametrize("data", [b"body", LARGE], ids=["small", "large"])
def test_a_put_uploads_what_is_left_of_a_body(
    canned: FakeHttp, opened: Opened, make: Callable[[bytes], BinaryIO], data: bytes
) -> None:
    canned.reply = stores
    driver, large = opened(canned.url, storage_class="cool"), data is LARGE
    stored = driver.put("a/k", make(data), content_type="image/png", if_absent=True)
    assert stored.fingerprint == f"0x8DE1:7:{ISO}"
    *blocks, last, head = canned.requests
    assert (head.method, {asked.path for asked in canned.requests}) == ("HEAD", {"/con/a/k"})
    assert {asked.query["comp"] for asked in blocks} == ({"block"} if large else set())
    assert last.query.get("comp") == ("blocklist" if large else None)
    assert b"".join(asked.body for asked in (blocks or [last])) == data
    sent = [last.headers[name] for name in ("x-ms-blob-content-type", "x-ms-access-tier", "if-none-match")]
    assert sent == ["image/png", "Cool", "*"]
    assert driver.requests == {"put": len(blocks) + 1, "head": 1}
    opened(canned.url).put("k", make(b""))  # may overwrite
    sent = canned.requests[-2].headers
    assert not {"if-none-match", "x-ms-access-tier"} & set(sent)
    assert sent["x-ms-blob-content-type"] == "application/octet-stream"


@pytest.mark.parametrize("data", [b"x", LARGE], ids=["small", "large"])
@pytest.mark.parametrize("answer", [refusal(409, "BlobAlreadyExists"), refusal(412, "ConditionNotMet")])
def test_a_put_that_comes_second(canned: FakeHttp, driver: AzureDriver, answer: Answer, data: bytes) -> None:
    canned.reply = lambda asked: STORED if asked.query.get("comp") == "block" else answer
    with pytest.raises(AlreadyExists, match="'k' is already there in acc/con"):
        driver.put("k", io.BytesIO(data), if_absent=True)
    assert canned.requests[-1].headers["if-none-match"] == "*"


def test_a_block_is_sent_again(canned: FakeHttp, driver: AzureDriver) -> None:
    canned.in_turn(STORED, refusal(503), STORED, STORED, BLOB)
    driver.put("k", cast(BinaryIO, Pipe(LARGE)))
    first, lost, again, *_ = canned.requests
    assert lost.query == again.query != first.query
    assert lost.body == again.body == LARGE[len(first.body) :]


@pytest.mark.parametrize("good", [b"", LARGE], ids=["at once", "later"])
def test_an_error_of_the_file_stays_what_it_is(canned: FakeHttp, driver: AzureDriver, good: bytes) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if data := super().read(size):
                return data
            raise OSError(5, "disk on fire")

    canned.reply = stores
    with pytest.raises(OSError, match="disk on fire"):
        driver.put("k", Broken(good))
    assert "blocklist" not in {asked.query.get("comp") for asked in canned.requests}


# -- credentials -------------------------------------------------------------------------------------

STRING = "DefaultEndpointsProtocol=https;AccountName=acc;"
SHARED = {
    "account key": {"accountKey": KEY},
    "key": {"key": f" {KEY}\n"},
    "connection string": {"connectionString": f"{STRING}AccountKey={KEY};EndpointSuffix=core.windows.net"},
}
SIGNED = {
    "token": {"sas": SAS},
    "token?": {"sas": f"?{SAS}"},
    "url": {"sas": f" https://acc.blob.core.windows.net/con?{SAS}\n"},
    "string with token": {"connectionString": f"{STRING}SharedAccessSignature={SAS}"},
    "no account": {"connectionString": f"BlobEndpoint=https://a.net/;SharedAccessSignature=?{SAS}"},
}
CREDENTIALS = {**SHARED, **SIGNED}
IDENTITY = {"tenantId": "33333333-aaaa-bbbb", "clientId": "11111111-aaaa-bbbb", "secret": SECRET}


@pytest.mark.parametrize("name", CREDENTIALS)
def test_every_request_is_signed_once(canned: FakeHttp, opened: Opened, name: str) -> None:
    canned.in_turn(refusal(503), says(keyed("a", marker="1")), says(keyed("b")), refusal(503), BLOB, BLOB)
    driver = opened(canned.url, lab(**CREDENTIALS[name]))
    assert listed(driver) == ["a", "b"]
    assert driver.stat("k").size == len(read(driver))
    for asked in canned.requests:
        assert ("authorization" in asked.headers) is (name in SHARED)
        assert asked.headers.get("authorization", "SharedKey acc:").startswith("SharedKey acc:")
        expected = (None, None) if name in SHARED else ("2024-11-04", SECRET)
        assert (asked.query.get("sv"), asked.query.get("sig")) == expected
    assert driver.caps.signs is (name in SHARED)


def url_of(driver: AzureDriver) -> str:
    return str(driver._client.url)


@pytest.mark.parametrize(
    ("text", "given", "url"),
    [
        (f"{STRING}AccountKey={KEY}", {}, "https://acc.blob.core.windows.net/con"),
        (f" AccountName = acc ; accountkey = {KEY};;", {}, "https://acc.blob.core.windows.net/con"),
        (f"{STRING}AccountKey={KEY};EndpointSuffix=x.net", {}, "https://acc.blob.x.net/con"),
        (f"{STRING}AccountKey={KEY};EndpointSuffix=x.net", {"options": {"suffix": "y.net"}}, "https://acc.blob.y.net/con"),
        (f"{STRING}AccountKey={KEY};BlobEndpoint=https://b.net/", {}, "https://b.net/con"),
        (f"{STRING}AccountKey={KEY};BlobEndpoint=https://b.net/", {"endpoint": "https://c.net"}, "https://c.net/con"),
        ("UseDevelopmentStorage=true", {"bucket": "devstoreaccount1/con"}, "http://127.0.0.1:10000/devstoreaccount1/con"),
    ],
)  # fmt: skip
def test_a_connection_string_says_where(opened: Opened, text: str, given: dict[str, Any], url: str) -> None:
    driver = opened(integration=lab(connectionString=text), **given)
    assert url_of(driver) == url
    assert driver.sign("k", expires=timedelta(minutes=5)).startswith(f"{url}/k?")


NO_KEY = "the account key of integration 'lab' is not base64; copy it again"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"connectionString": STRING}, "holds neither AccountKey nor SharedAccessSignature"),
        ({"connectionString": SECRET}, "holds neither AccountKey nor SharedAccessSignature"),
        ({"connectionString": f"AccountName=other;AccountKey={KEY}"}, "for the account 'other', not for 'acc'"),
        ({"connectionString": "UseDevelopmentStorage=true"}, "for the account 'devstoreaccount1', not for 'acc'"),
        ({"connectionString": f"{STRING}AccountKey={SECRET}"}, NO_KEY),
        ({"accountKey": SECRET}, NO_KEY),
        ({"key": f"{KEY}é"}, NO_KEY),
        ({"sas": SECRET}, "the 'sas' of integration 'lab' has no signature; copy it again"),
        ({"sas": "sv=1&sig="}, "the 'sas' of integration 'lab' has no signature"),
        ({"connectionString": f"{STRING}SharedAccessSignature={SECRET}"}, "has no signature"),
        ({}, "lacks 'clientId'; give clientId, tenantId and secret; or accountKey; or sas; or connectionString"),
        ({**IDENTITY, "clientId": " "}, "integration 'lab' lacks 'clientId'"),
        ({**IDENTITY, "tenantId": ""}, "integration 'lab' lacks 'tenantId'"),
        ({"clientId": "c", "tenantId": "t", "key": KEY}, "integration 'lab' lacks 'secret'"),
        ({**IDENTITY, "tenantId": "not a tenant"}, "the 'tenantId' of integration 'lab' is none"),
    ],
)  # fmt: skip
def test_an_integration_that_cannot_be_used(opened: Opened, options: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(text)) as caught:
        opened(integration=lab(**options))
    assert caught.value.resource == "lab"
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert SECRET not in shown
    assert KEY not in shown


@pytest.mark.parametrize("options", [{}, {"anonymous": "yes"}])
def test_what_does_not_fit_together(opened: Opened, options: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="integration 'lab' is of type s3, and az:// needs azureblob"):
        opened(integration=Integration("lab", "s3", {"secret": SECRET}), options=options)
    with pytest.raises(ConfigError, match="cannot use http://host with these credentials; tokens need https"):
        opened("http://host", lab(**IDENTITY))


@pytest.mark.parametrize("given", [None, KEYED, lab(sas=SAS)], ids=["none", "key", "sas"])
def test_anonymous_sends_no_credentials(canned: FakeHttp, opened: Opened, given: Integration | None) -> None:
    driver = opened(canned.url, given, options={"anonymous": "yes"})
    canned.always(refusal(404, "ResourceNotFound"))
    with pytest.raises(NotFound, match="check the name, and that it is public"):
        listed(driver)
    assert "authorization" not in canned.requests[0].headers
    assert "sig" not in canned.requests[0].query
    assert not driver.caps.signs


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHttp]:
    """Who hands out tokens to a function, as App Service does."""
    told = {"access_token": SECRET, "expires_on": "4102444800", "resource": "r", "token_type": "Bearer"}
    with FakeHttp(lambda _: (200, {"Content-Type": "application/json"}, json.dumps(told).encode())) as server:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{server.url}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", "proof")
        yield server


@pytest.mark.parametrize("client", [None, "the-client-id"])
def test_a_function_has_its_own_identity(
    identity: FakeHttp, opened: Opened, monkeypatch: pytest.MonkeyPatch, client: str | None
) -> None:
    if client:
        monkeypatch.setenv("AZURE_CLIENT_ID", client)
    driver = opened(integration=None)
    token = driver._credential.get_token("https://storage.azure.com/.default")
    assert (token.token, driver._credential.get_token("https://storage.azure.com/.default").token) == (SECRET,) * 2  # fmt: skip
    assert token.expires_on > time.time() + 3600
    (asked,) = identity.requests
    assert asked.headers["x-identity-header"] == "proof"
    assert (asked.query["resource"], asked.query.get("client_id")) == ("https://storage.azure.com", client)
    assert not driver.caps.signs
    assert SECRET not in f"{driver!r} {vars(driver)} {vars(driver._credential)}"


def test_an_identity_s_tokens_go_over_https_only(identity: FakeHttp, opened: Opened) -> None:
    with pytest.raises(ConfigError, match="cannot use http://host with these credentials; tokens need https"):
        opened("http://host", None)
    assert identity.requests == []


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ((400, {}, b'{"statusCode": 400, "message": "No identity"}'), AccessDenied),
        ((200, {}, SECRET.encode()), AccessDenied),
        ((503, {}, b""), AccessDenied),
        (DROP, Transient),
    ],
)
def test_an_identity_without_a_token(
    identity: FakeHttp, opened: Opened, monkeypatch: pytest.MonkeyPatch, answer: Answer, kind: Any
) -> None:
    monkeypatch.setattr("urllib3.util.retry.Retry.sleep", lambda *_: None)
    identity.always(answer)
    for call in ("list", "head", "get"):
        with pytest.raises(kind) as caught:
            CALLS[call](opened(integration=None))
        assert SECRET not in f"{caught.value} {vars(caught.value)}"
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "other", ["AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_TOKEN_CREDENTIALS"]
)
def test_a_function_with_another_identity_asks_the_sdk_s_chain(
    identity: FakeHttp, opened: Opened, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    from azure.identity import DefaultAzureCredential

    monkeypatch.setenv(other, "dev" if other == "AZURE_TOKEN_CREDENTIALS" else "x")
    assert type(opened(integration=None)._credential) is DefaultAzureCredential


def test_what_a_function_reads_with_loads_nothing_that_encrypts(canned: FakeHttp, identity: FakeHttp) -> None:
    canned.always(BLOB)
    code = f"""
import sys
from syncagent.drivers.azure import open_driver
from syncagent.drivers.azure_identity import default_credential
from syncagent.model import DriverSpec
public = DriverSpec("azureblob", "acc/con", endpoint={canned.url!r}, options={{"anonymous": "yes"}})
assert open_driver(public).stat("k").key == "k"
open_driver(DriverSpec("azureblob", "acc/con"))
assert default_credential().get_token("https://storage.azure.com/.default").token
print(*(name for name in ("cryptography", "azure.identity", "azure.storage.blob") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


def test_the_version_of_the_service_is_one_that_the_sdk_knows() -> None:
    from azure.storage.blob._serialize import _SUPPORTED_API_VERSIONS

    from syncagent.drivers.azure_pipeline import VERSION

    assert VERSION in _SUPPORTED_API_VERSIONS


CLOUDS = {"core.chinacloudapi.cn": "login.chinacloudapi.cn", "core.usgovcloudapi.net": "login.microsoftonline.us"}  # fmt: skip


@pytest.mark.parametrize("suffix", ["core.windows.net", *CLOUDS])
@pytest.mark.parametrize("kind", ["ClientSecretCredential", "DefaultAzureCredential"])
def test_an_identity_gets_its_tokens_in_its_own_cloud(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, kind: str, suffix: str
) -> None:
    import azure.identity

    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")  # which holds none
    real, made, ended = getattr(azure.identity, kind), [], []
    close = real.close
    spy = lambda *args, **more: made.append((args, more)) or real(*args, **more)  # noqa: E731
    monkeypatch.setattr(azure.identity, kind, spy)
    monkeypatch.setattr(real, "close", lambda self: ended.append(self) or close(self))
    chain = kind == "DefaultAzureCredential"
    driver = opened(integration=None if chain else lab(**IDENTITY), options={"suffix": suffix})
    assert url_of(driver) == f"https://acc.blob.{suffix}/con"
    cloud = {"authority": CLOUDS[suffix]} if suffix in CLOUDS else {}
    assert made == [(() if chain else tuple(IDENTITY.values()), cloud)]
    assert SECRET not in f"{driver!r} {vars(driver)}"
    for call in CALLS.values() if chain else ():
        with pytest.raises(AccessDenied, match="no usable Azure credentials for acc/con; run 'az") as caught:
            call(driver)
        assert caught.value.__cause__ is not None
        assert "\n" not in str(caught.value)
    assert ended == []
    driver.close()
    assert [type(credential) for credential in ended] == [real]


@pytest.mark.parametrize("name", CREDENTIALS)
def test_secrets_are_sent_but_never_told(
    canned: FakeHttp, opened: Opened, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    for logger in ("azure", "syncagent"):
        caplog.set_level(logging.DEBUG, logger)
    integration = lab(**CREDENTIALS[name])
    driver = opened(canned.url, integration)
    shown = [f"{driver} {driver!r} {integration!r} {describe(driver._spec)}"]
    for status, body in product((400, 401, 403, 409, 418, 503, 0), (b"", f"{KEY} {SAS}".encode())):
        canned.always((status, {}, body))
        for call in CALLS.values():
            with pytest.raises(SyncAgentError) as caught:
                call(driver)
            shown.append(f"{caught.value} {caught.value!r} {vars(caught.value)}")
            shown += [] if body else traceback.format_exception(caught.value)
    told = [record for record in caplog.records if record.name.startswith(("azure", "syncagent"))]
    assert told, "the SDK logs its requests"
    text = "\n".join([*shown, *(f"{record.getMessage()} {record.args}" for record in told)])
    for secret in (SECRET, quote(SECRET, safe=""), KEY):
        assert secret not in text


# -- the URL -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"bucket": "acc"}, "'acc' is no account and container; write az://account/container/path"),
        *(({"bucket": name}, "is no account and container") for name in ("a/", "evil.net#/c", "a/c?x", "a/../x", "ä/c", "a/c\n")),
        *(
            ({"options": {"suffix": name}}, f"suffix={name} is not the end of a host name")
            for name in ("", "core.windows.net/x", "x@evil.net", "x:1", "x?")
        ),
        *(
            ({"endpoint": url}, "the endpoint of acc/con is not usable; write https://host/path")
            for url in ("localhost:10000", "ftp://host", f"https://host/?{SAS}", f"https://h#{SAS}", "https://")
        ),
        ({"storage_class": "GLACIER"}, "storage_class=GLACIER is no access tier; known are "),
        ({"options": {"anonymous": "maybe"}}, "anonymous=maybe is neither yes nor no"),
    ],
)  # fmt: skip
def test_a_url_that_is_none(opened: Opened, given: dict[str, Any], text: str) -> None:
    for integration in (None, KEYED):
        with pytest.raises(ConfigError, match=re.escape(text)) as caught:
            opened(integration=integration, **given)
        assert "sig=" not in f"{caught.value} {caught.value!r}"


@pytest.mark.parametrize("container", ["$root", "$web", "con-1"])
def test_a_url_opens_it(canned: FakeHttp, container: str) -> None:
    canned.always(says(keyed("photos/a.jpg")))
    with open_bucket(f"az://acc/{container}/photos?endpoint={canned.url}/acc", KEYED) as bucket:
        assert [found.key for objects in bucket.list() for found in objects] == ["a.jpg"]
        assert bucket.caps.prices == ()
    assert unquote(canned.requests[0].path) == f"/acc/{container}"


@pytest.mark.parametrize(("method", "rights"), [("GET", "r"), ("PUT", "cw")])
def test_a_signed_url_holds_a_signature_and_no_key(opened: Opened, method: Any, rights: str) -> None:
    for options in SHARED.values():
        driver = opened(integration=lab(**options))
        signed = driver.sign("a b+c/é?.txt", expires=timedelta(minutes=5), method=method)
        url = urlsplit(signed)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        assert (url.netloc, unquote(url.path)) == ("acc.blob.core.windows.net", "/con/a b+c/é?.txt")
        assert (query["sr"], query["sp"]) == ("b", rights)
        left = datetime.fromisoformat(query["se"]) - datetime.now(UTC)
        assert timedelta(minutes=4) < left <= timedelta(minutes=5)
        assert len(base64.b64decode(query["sig"])) == 32
        assert KEY not in signed
        assert quote(KEY, safe="") not in signed


@pytest.mark.parametrize("given", [lab(sas=SAS), lab(**IDENTITY), None], ids=["sas", "identity", "chain"])
def test_without_the_account_s_key_nothing_is_signed(opened: Opened, given: Integration | None) -> None:
    driver = opened(integration=given)
    assert not driver.caps.signs
    assert dict(driver.caps.prices)["list"] == 0.0055
    with pytest.raises(Unsupported, match="cannot sign URLs; use the account's key"):
        driver.sign("k", expires=timedelta(minutes=5))
