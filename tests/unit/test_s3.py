"""The S3 driver: pages that are odd, answers that are errors, credentials. Keys and ranges: see the contract suite."""

from __future__ import annotations

import hashlib
import hmac
import io
import re
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, quote_plus, urlsplit
from xml.sax.saxutils import escape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncagent import open_bucket
from syncagent.drivers import s3_pages
from syncagent.drivers.s3 import S3Driver, open_driver
from syncagent.drivers.s3_pages import parse_page
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
from tests.rigs.s3 import S3Rig

MD5 = "0123456789abcdef0123456789abcdef"
SECRET = "very-secret-value"
KEYS = Integration("lab", "s3", {"key": "AKIATEST", "secret": SECRET, "token": SECRET + "-token"})
HEAD = "<EncodingType>url</EncodingType><KeyCount>{count}</KeyCount><IsTruncated>false</IsTruncated>"
NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


def entry(
    key: str = "k", *, etag: str = f"&quot;{MD5}&quot;", size: str = "7", tail: str = "", checks: str = ""
) -> str:
    return (
        f"<Contents><Key>{key}</Key><LastModified>2026-01-02T03:04:05.678Z</LastModified>"
        f"<ETag>{etag}</ETag>{checks}<Size>{size}</Size>{tail}</Contents>"
    )


# An order that only the XML parser takes.
ODD = f"<Contents><Size>7</Size><ETag>{MD5}</ETag><LastModified>2026-01-02T03:04:05Z</LastModified><Key>zz</Key></Contents>"


def page(*entries: str, head: str = HEAD, count: int | None = None) -> bytes:
    told = head.format(count=len(entries) if count is None else count)
    return f'<?xml version="1.0"?>\n<ListBucketResult xmlns="{NAMESPACE}">{told}{"".join(entries)}</ListBucketResult>'.encode()


def both(body: bytes) -> s3_pages.Page:
    """The page by either parser, which must agree."""
    slow = s3_pages._parse_slowly(body.decode(), "bucket")
    fast = s3_pages._parse_fast(body.decode(), "bucket")
    assert fast in (None, slow)
    return parse_page(body, "bucket")


# -- pages -------------------------------------------------------------------------------------------


def test_an_entry_becomes_an_object() -> None:
    (found,) = both(page(entry("a/b.jpg", tail="<StorageClass>GLACIER</StorageClass>"))).objects
    assert type(found) is ObjectInfo
    assert found == ObjectInfo(
        "a/b.jpg", f"{MD5}:7:2026-01-02T03:04:05", 7, "2026-01-02T03:04:05Z", MD5, None, MD5, None, "GLACIER"
    )


@pytest.mark.parametrize(
    "text",
    [
        entry(),
        entry(etag=f'"{MD5}"'),
        entry(etag=f"&#34;{MD5}&#34;"),
        entry(etag=MD5),
        entry(tail="<StorageClass>STANDARD</StorageClass>"),
        entry(
            tail="<Owner><ID>x</ID><DisplayName>y</DisplayName></Owner><StorageClass>STANDARD</StorageClass>"
        ),
        entry(tail="<Owner><ID>x</ID></Owner>"),
        entry(
            checks="<ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType>"
        ),
        entry(
            checks="<ChecksumAlgorithm>CRC32</ChecksumAlgorithm><ChecksumAlgorithm>SHA1</ChecksumAlgorithm>"
        ),
    ],
)
def test_usual_entries_take_the_fast_way_and_say_the_same(text: str) -> None:
    assert s3_pages._parse_fast(page(text).decode(), "bucket") is not None
    assert both(page(text)).objects == both(page(entry())).objects


TAILS = [
    "",
    *(f"<StorageClass>{name}</StorageClass>" for name in ("STANDARD", "OUTPOSTS", "GLACIER", "GLACIER_IR")),
]
TAILS += [f"<Owner><ID>{name}</ID></Owner>{TAILS[1]}" for name in ("x", "yy")]
CHECKS = ["", *(f"<ChecksumAlgorithm>{name}</ChecksumAlgorithm>" for name in ("SHA1", "CRC32", "CRC64NVME"))]
ETAGS = [MD5, f'"{MD5}"', f"&quot;{MD5}&quot;", f"&quot;{MD5}-12&quot;", f"&#34;{MD5}&#34;", ""]
ENTRIES = st.builds(
    entry,
    st.sampled_from(["k", "folder/long name.jpg", "%3Cline%0A", "a+b", "&amp;"]),
    etag=st.sampled_from(ETAGS),
    size=st.sampled_from(["0", "7", "123456789"]),
    tail=st.sampled_from(TAILS),
    checks=st.sampled_from(CHECKS),
) | st.just(ODD)


@settings(max_examples=400)
@given(st.lists(ENTRIES, min_size=1, max_size=3), st.lists(ENTRIES, max_size=4))
def test_entries_of_all_kinds_are_read_alike_by_both_parsers(alike: list[str], mixed: list[str]) -> None:
    """Most pages have entries whose tags are as long everywhere; those that do not must not be taken for one."""
    both(page(*alike * 5, *mixed))


def test_the_end_of_an_entry_is_never_taken_for_checksums() -> None:
    """Two that lack what the other has would be one, if as many characters as checksums have were passed over blindly."""
    whole = entry(
        checks="<ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType>",
        tail=TAILS[1],
    )
    time = "<LastModified>2026-01-02T03:04:05.678Z</LastModified>"
    sizeless = f"<Contents><Key>a</Key>{time}<ETag>&quot;{MD5}&quot;</ETag></Contents>"
    tagless = f"<Contents><Key>abc</Key>{time}<Size>7</Size>{TAILS[1]}</Contents>"
    body = page(whole, sizeless, tagless, count=2)
    assert (
        len(f"</Contents><Contents><Key>abc</Key>{time}")
        == whole.index("<Size>") - whole.index("</ETag>") - 7
    )
    assert s3_pages._parse_fast(body.decode(), "bucket") is None
    with pytest.raises(Transient, match="cut off"):
        parse_page(body, "bucket")


@pytest.mark.parametrize(
    "text",
    [
        ODD,
        entry("zz", tail="<RestoreStatus><IsRestoreInProgress>false</IsRestoreInProgress></RestoreStatus>"),
        entry("zz", tail="<Novelty>1</Novelty>"),
        entry("zz").replace("><", ">\n  <"),
    ],
)
def test_unusual_entries_take_the_slow_way(text: str) -> None:
    assert s3_pages._parse_fast(page(entry(), text).decode(), "bucket") is None
    assert [(o.key, o.size, o.etag) for o in parse_page(page(entry(), text), "b").objects] == [
        ("k", 7, MD5),
        ("zz", 7, MD5),
    ]


def test_the_etag_of_a_multipart_upload_is_no_content_hash() -> None:
    (found,) = both(page(entry(etag=f"&quot;{MD5}-12&quot;"))).objects
    assert (found.etag, found.content_id) == (f"{MD5}-12", None)


@pytest.mark.parametrize(
    "body",
    [
        page(entry(), count=2),
        page(entry(), entry("l"), count=1),
        page(entry(), ODD, count=3),
        page(entry(), entry("l"))[:-60],
        page(entry())[: -len("</ListBucketResult>")],
        page(entry(), head="<IsTruncated>true</IsTruncated>"),
        page(ODD, head="<IsTruncated>true</IsTruncated>"),
        page(entry(), head="<IsTruncated>true</IsTruncated><NextContinuationToken></NextContinuationToken>"),
        page(entry(), head="<NextContinuationToken>t</NextContinuationToken>"),
        page("<Contents><Size>1</Size></Contents>"),
        b"<ListBucketResult></ListBucketResult>",
    ],
    ids=[
        "one too few", "one too many", "one too few, slow", "cut in an entry", "cut after an entry", "no token",
        "no token, slow", "empty token", "last or not?", "no key", "nothing",
    ],
)  # fmt: skip
def test_a_page_that_is_not_whole_is_refused(body: bytes) -> None:
    with pytest.raises(Transient, match="is cut off") as caught:
        parse_page(body, "bucket")
    assert caught.value.resource == "bucket"


BOMB = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    f"<ListBucketResult><IsTruncated>false</IsTruncated>{entry('&b;')}</ListBucketResult>"
)


@pytest.mark.parametrize("body", [BOMB.encode(), BOMB.encode("utf-16-le")], ids=["utf-8", "utf-16"])
def test_document_types_are_refused(body: bytes) -> None:
    with pytest.raises(Transient, match="document type"):
        parse_page(body, "bucket")


@pytest.mark.parametrize(
    "body", [page(entry("%FF")), page(entry("k")).replace(b">k<", b">\xff<"), page(ODD.replace("zz", "%FF"))]
)
def test_what_is_not_utf8_is_our_error(body: bytes) -> None:
    with pytest.raises(InvalidInput, match="cannot be decoded") as caught:
        parse_page(body, "bucket")
    assert isinstance(caught.value.__cause__, UnicodeDecodeError)


@pytest.mark.parametrize(
    ("sent", "key"),
    [
        ("a+b", "a b"), ("a%20b", "a b"), ("a%2Bb", "a+b"), ("a%2bb", "a+b"), ("year%3D2025/x", "year=2025/x"),
        ("per%2520cent", "per%20cent"), ("%253D", "%3D"), ("%25252B", "%252B"), ("%00", "\0"), ("%01", "\x01"), ("a%3D%01%20", "a=\x01 "), ("a%0Ab", "a\nb"),
        ("%F0%9F%98%80", "😀"), ("a&amp;b", "a&b"), ("a&#39;b", "a'b"), ("100%", "100%"), ("%zz%1G", "%zz%1G"),
    ],
)  # fmt: skip
def test_url_encoded_keys(sent: str, key: str) -> None:
    assert [o.key for o in both(page(entry("first"), entry(sent), entry("last"))).objects] == [
        "first",
        key,
        "last",
    ]


@pytest.mark.parametrize(
    ("sent", "key"),
    [
        ("a&lt;b&amp;amp;", "a<b&amp;"),
        ("a+b%20c", "a+b%20c"),
        ("a&#xA;b&#10;", "a\nb\n"),
        ("&quot;&apos;", "\"'"),
    ],
)
def test_keys_without_an_encoding_type(sent: str, key: str) -> None:
    head = "<KeyCount>{count}</KeyCount><IsTruncated>false</IsTruncated>"
    assert [o.key for o in both(page(entry(sent), head=head)).objects] == [key]


@pytest.mark.parametrize("head", [HEAD, "<IsTruncated>false</IsTruncated>"])
def test_what_no_xml_may_hold_is_in_keys_all_the_same(head: str) -> None:
    """Some stores send whatever a key holds, and columns are joined by such a character."""
    odd = entry("x\x01y").replace("2026", "2\x0126")
    found = parse_page(page(entry("a"), odd, entry("z"), head=head), "bucket").objects
    assert [one.key for one in found] == ["a", "x\x01y", "z"]
    assert [one.modified[:5] for one in found] == [found[0].modified[:5], "2\x0126-", found[0].modified[:5]]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12), max_size=6))
def test_every_key_comes_back(keys: list[str]) -> None:
    assert [o.key for o in both(page(*(entry(quote_plus(key, safe="/")) for key in keys))).objects] == keys


def test_the_head_may_stand_after_the_entries() -> None:
    tail = "<EncodingType>url</EncodingType><IsTruncated>true</IsTruncated><NextContinuationToken>t&amp;u</NextContinuationToken>"
    found = both(page(entry("a%20b"), tail, head=""))
    assert ([o.key for o in found.objects], found.token) == (["a b"], "t&u")


# -- a server with canned answers --------------------------------------------------------------------

Answer = tuple[int, dict[str, str], bytes]


class Canned:
    """Answers each request with `reply(method, path, query)`, and keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.headers: list[dict[str, str]] = []
        self.reply: Callable[[str, str, dict[str, str]], Answer] = lambda *_: (500, {}, b"")
        canned = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                url = urlsplit(self.path)
                query = {k: v[0] for k, v in parse_qs(url.query, keep_blank_values=True).items()}
                canned.asked.append((self.command, url.path, query))
                canned.headers.append({k.lower(): v for k, v in self.headers.items()})
                status, headers, body = canned.reply(self.command, url.path, query)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)
                self.close_connection = "Content-Length" in headers

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def canned(monkeypatch: pytest.MonkeyPatch) -> Iterator[Canned]:
    no_wait(monkeypatch)
    server = Canned()
    yield server
    server.close()


def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)


@pytest.fixture
def opened() -> Iterator[Callable[..., S3Driver]]:
    """Opens drivers, and closes them at the end."""
    drivers: list[S3Driver] = []

    def make(endpoint: str | None, integration: Integration | None = KEYS, **given: Any) -> S3Driver:
        bucket = given.pop("bucket", "bucket")
        driver = open_driver(DriverSpec("s3", bucket, endpoint=endpoint, **given), integration)
        drivers.append(driver)
        return driver

    yield make
    for driver in drivers:
        driver.close()


Opened = Callable[..., S3Driver]


def listed(driver: S3Driver, **bounds: str) -> list[str]:
    return [found.key for objects in driver.list(**bounds) for found in objects]


def refusal(code: str, status: int = 400, *, extra: str = "", message: str = "m", **headers: str) -> Answer:
    body = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message>{extra}</Error>".encode()
    return status, headers, body


def paged(keys: list[str], size: int) -> Callable[[str, str, dict[str, str]], Answer]:
    def reply(_method: str, _path: str, query: dict[str, str]) -> Answer:
        start = int(query.get("continuation-token", "0"))
        here = keys[start : start + size]
        more = start + size < len(keys)
        head = f"<IsTruncated>{str(more).lower()}</IsTruncated>"
        if more:
            head += f"<NextContinuationToken>{start + size}</NextContinuationToken>"
        return 200, {}, page(*map(entry, here), head=HEAD.partition("<IsTruncated>")[0] + head)

    return reply


# -- listing -----------------------------------------------------------------------------------------


def test_listing_follows_tokens_and_stops_at_until(canned: Canned, opened: Opened) -> None:
    canned.reply = paged(["a", "b", "c", "d", "e"], 2)
    driver = opened(canned.url)
    assert listed(driver) == ["a", "b", "c", "d", "e"]
    assert driver.requests["list"] == len(canned.asked) == 3
    assert {query["encoding-type"] for _, _, query in canned.asked} == {"url"}
    canned.asked.clear()
    assert listed(driver, prefix="p", after="9", until="b") == ["a", "b"]
    ((method, path, query),) = canned.asked
    assert (method, path, query["prefix"], query["start-after"]) == ("GET", "/bucket", "p", "9")


def test_a_listing_that_breaks_in_the_middle_raises(canned: Canned, opened: Opened) -> None:
    whole = paged(["a", "b", "c", "d"], 2)
    canned.reply = lambda m, p, q: (
        whole(m, p, q) if "continuation-token" not in q else (200, {}, whole(m, p, q)[2][:-50])
    )
    pages = opened(canned.url).list()
    assert [found.key for found in next(pages)] == ["a", "b"]
    with pytest.raises(Transient, match="connection to bucket bucket failed"):
        next(pages)


def test_a_body_shorter_than_promised_is_asked_for_again(canned: Canned, opened: Opened) -> None:
    whole = page(entry())
    cut = (200, {"Content-Length": str(len(whole))}, whole[:-30])
    answers = iter([cut, cut, (200, {}, whole)])
    canned.reply = lambda *_: next(answers)
    assert listed(opened(canned.url)) == ["k"]
    assert len(canned.asked) == 3


def test_a_repeated_token_ends_in_an_error(canned: Canned, opened: Opened) -> None:
    head = "<IsTruncated>true</IsTruncated><NextContinuationToken>same</NextContinuationToken>"
    canned.reply = lambda *_: (200, {}, page(entry(), head=head))
    with pytest.raises(Transient, match="circles"):
        listed(opened(canned.url))


def test_an_error_with_status_200_is_retried(canned: Canned, opened: Opened) -> None:
    answers: Iterator[Answer] = iter([(200, {}, refusal("InternalError")[2]), (200, {}, page(entry()))])
    canned.reply = lambda *_: next(answers)
    assert listed(opened(canned.url)) == ["k"]
    assert len(canned.asked) == 2


def test_an_error_with_status_200_that_stays_is_raised(canned: Canned, opened: Opened) -> None:
    canned.reply = lambda *_: (200, {}, refusal("InternalError")[2])
    with pytest.raises(Transient, match="InternalError"):
        listed(opened(canned.url))


def test_an_answer_that_is_no_listing_is_raised(canned: Canned, opened: Opened) -> None:
    canned.reply = lambda *_: (200, {}, b"<Hello/>")
    with pytest.raises(Transient, match="something else"):
        listed(opened(canned.url))


def test_a_directory_bucket_is_not_sorted(opened: Opened) -> None:
    assert not opened(None, bucket="b--usw2-az1--x-s3").caps.sorted_listing
    assert opened(None).caps.sorted_listing


def test_prices_are_known_for_amazon_only(canned: Canned, opened: Opened) -> None:
    assert dict(opened(None).caps.prices)["list"] == 0.005
    assert opened(canned.url).caps.prices == ()


def test_requester_pays(canned: Canned, opened: Opened) -> None:
    canned.reply = paged(["a"], 1)
    listed(opened(canned.url, options={"requester_pays": "true"}))
    assert canned.headers[-1]["x-amz-request-payer"] == "requester"


# -- errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (refusal("NoSuchBucket", 404), NotFound, "no such bucket: bucket"),
        (refusal("AccessDenied", 403), AccessDenied, "s3:ListBucket on bucket bucket"),
        (refusal("InvalidAccessKeyId", 403), AccessDenied, "check the access key"),
        (refusal("SignatureDoesNotMatch", 403), AccessDenied, "check the access key"),
        (refusal("ExpiredToken", 400), AccessDenied, "have expired; renew them"),
        (refusal("RequestTimeTooSkewed", 403), AccessDenied, "clock"),
        (refusal("SlowDown", 503), Transient, "busy"),
        (refusal("InternalError", 500), Transient, "busy"),
        (refusal("TooManyRequests", 429), Transient, "busy"),
        (refusal("InvalidBucketName", 400), ConfigError, "not a bucket's name"),
        (refusal("PermanentRedirect", 301), ConfigError, "redirects every request; check the endpoint"),
        (refusal("Surprise", 400), SyncAgentError, "Surprise"),
    ],
)  # fmt: skip
def test_answers_become_our_errors(
    canned: Canned, opened: Opened, answer: Answer, kind: type[SyncAgentError], says: str
) -> None:
    canned.reply = lambda *_: answer
    with pytest.raises(SyncAgentError) as caught:
        listed(opened(canned.url))
    assert type(caught.value) is kind
    assert says in str(caught.value)
    assert caught.value.resource == "bucket"
    assert caught.value.__cause__ is not None
    assert "\n" not in str(caught.value)
    assert SECRET not in f"{caught.value} {caught.value!r} {caught.value.__cause__}"


@pytest.mark.parametrize(
    ("call", "permission"),
    [
        (lambda d: d.stat("k"), "s3:GetObject"),
        (lambda d: d.open("k"), "s3:GetObject"),
        (lambda d: d.put("k", io.BytesIO(b"x")), "s3:PutObject"),
        (lambda d: d.delete("k"), "s3:DeleteObject"),
        (lambda d: next(d.list()), "s3:ListBucket"),
    ],
)
def test_a_refusal_names_the_permission(
    canned: Canned, opened: Opened, call: Callable[[S3Driver], object], permission: str
) -> None:
    canned.reply = lambda *_: refusal("AccessDenied", 403)
    with pytest.raises(AccessDenied, match=permission) as caught:
        call(opened(canned.url))
    assert caught.value.permission == permission


def test_the_permission_that_s3_names_wins(canned: Canned, opened: Opened) -> None:
    message = "User: arn:aws:iam::1:user/x is not authorized to perform: kms:Decrypt on resource: y"
    canned.reply = lambda *_: refusal("AccessDenied", 403, message=message)
    with pytest.raises(AccessDenied) as caught:
        opened(canned.url).open("k")
    assert caught.value.permission == "kms:Decrypt"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refusal("PreconditionFailed", 412), AlreadyExists),
        (refusal("ConditionalRequestConflict", 409), Conflict),
    ],
)
def test_conditional_puts(canned: Canned, opened: Opened, answer: Answer, kind: type[SyncAgentError]) -> None:
    canned.reply = lambda *_: answer
    with pytest.raises(kind):
        opened(canned.url).put("k", io.BytesIO(b"x"), if_absent=True)
    assert canned.headers[-1]["if-none-match"] == "*"


def test_an_archived_object_is_not_called_forbidden(canned: Canned, opened: Opened) -> None:
    canned.reply = lambda *_: refusal("InvalidObjectState", 403)
    with pytest.raises(Unsupported, match="archived; restore it"):
        opened(canned.url).open("k")


@pytest.mark.parametrize(
    "answer",
    [
        refusal("PermanentRedirect", 301, **{"x-amz-bucket-region": "eu-west-1"}),
        refusal("AuthorizationHeaderMalformed", 400, extra="<Region>eu-west-1</Region>"),
    ],
)
def test_a_wrong_region_names_the_right_one(canned: Canned, opened: Opened, answer: Answer) -> None:
    canned.reply = lambda *_: answer
    with pytest.raises(ConfigError) as caught:
        listed(opened(canned.url, region="us-west-2"))
    assert str(caught.value) == "bucket bucket is in eu-west-1; open it with ?region=eu-west-1"


def test_a_wrong_region_at_a_head_request(canned: Canned, opened: Opened) -> None:
    canned.reply = lambda *_: (400, {"x-amz-bucket-region": "eu-west-1"}, b"")
    with pytest.raises(ConfigError, match=r"\?region=eu-west-1"):
        opened(canned.url, region="us-west-2").stat("k")


def test_a_delete_marker_is_not_found(canned: Canned, opened: Opened) -> None:
    canned.reply = lambda *_: (404, {"x-amz-delete-marker": "true"}, b"")
    with pytest.raises(NotFound, match="'k'"):
        opened(canned.url).stat("k")


def test_a_broken_download_is_transient(canned: Canned, opened: Opened) -> None:
    canned.reply = lambda *_: (200, {"Content-Length": "100", "ETag": '"x"'}, b"only this")
    with opened(canned.url).open("k") as stream, pytest.raises(Transient):
        stream.read()


def test_an_unreachable_endpoint_is_named(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    no_wait(monkeypatch)
    gone = Canned()
    gone.close()
    with pytest.raises(Transient, match=f"cannot reach {gone.url} for bucket bucket; check the endpoint"):
        listed(opened(gone.url))


def test_an_endpoint_that_is_no_url(opened: Opened) -> None:
    with pytest.raises(ConfigError, match="not a usable endpoint"):
        listed(opened("not a url"))


def test_an_impossible_bucket_name(canned: Canned, opened: Opened) -> None:
    with pytest.raises(ConfigError, match="not a bucket's name"):
        listed(opened(canned.url, bucket="no such name!"))


def test_an_unreadable_upload_keeps_its_own_error(canned: Canned, opened: Opened) -> None:
    class Broken(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        opened(canned.url).put("k", Broken())


# -- regions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 403])
def test_the_region_is_discovered_at_the_first_request(
    canned: Canned, opened: Opened, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", canned.url)
    listing = paged(["a"], 1)
    where = {"x-amz-bucket-region": "eu-west-1"}
    canned.reply = lambda m, p, q: (status, where, b"") if m == "HEAD" else listing(m, p, q)
    driver = opened(None)
    assert canned.asked == []
    assert listed(driver) == listed(driver) == ["a"]
    assert [method for method, _, _ in canned.asked] == ["HEAD", "GET", "GET"]
    assert "/eu-west-1/s3/" in canned.headers[-1]["authorization"]


@pytest.mark.parametrize(("status", "kind"), [(404, NotFound), (503, Transient)])
def test_a_region_that_cannot_be_discovered_is_not_guessed(
    canned: Canned, opened: Opened, monkeypatch: pytest.MonkeyPatch, status: int, kind: type[SyncAgentError]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", canned.url)
    canned.reply = lambda *_: (status, {}, b"")
    with pytest.raises(kind, match="bucket") as caught:
        opened(None).stat("k")
    assert caught.value.resource == "bucket"


# -- credentials -------------------------------------------------------------------------------------


def test_secrets_are_never_shown(opened: Opened) -> None:
    driver = opened("http://127.0.0.1:9")
    assert SECRET not in f"{driver!r} {driver} {driver._integration!r} {driver._spec!r}"


def test_anonymous_requests_are_not_signed(canned: Canned, opened: Opened) -> None:
    canned.reply = paged(["a"], 1)
    driver = opened(canned.url, None, options={"anonymous": "yes"})
    assert listed(driver) == ["a"]
    assert "authorization" not in canned.headers[-1]
    assert not driver.caps.signs
    with pytest.raises(Unsupported, match="anonymous"):
        driver.sign("k", expires=timedelta(minutes=1))


def test_an_option_that_is_neither_yes_nor_no(opened: Opened) -> None:
    with pytest.raises(ConfigError, match="anonymous=maybe"):
        opened(None, None, options={"anonymous": "maybe"})


@pytest.mark.parametrize("kind", ["gcs", "azureblob"])
def test_another_clouds_integration_is_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match=f"'other' is of type {kind}"):
        open_bucket("s3://bucket", Integration("other", kind, {"content": SECRET}))


@pytest.mark.parametrize(
    ("kind", "options", "lacks"),
    [("s3", {"key": "x"}, "secret"), ("s3", {}, "key"), ("aws-sts", {}, "roleArns")],
)
def test_an_incomplete_integration_is_named(
    opened: Opened, kind: str, options: dict[str, str], lacks: str
) -> None:
    with pytest.raises(ConfigError, match=f"'lab' lacks '{lacks}'"):
        listed(opened("http://127.0.0.1:9", Integration("lab", kind, options)))


def test_no_credentials_at_all(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(AccessDenied, match=r"no usable AWS credentials.*AWS_ACCESS_KEY_ID"):
        listed(opened("http://127.0.0.1:9", None))


def test_an_unknown_profile(opened: Opened) -> None:
    with pytest.raises(ConfigError, match="no such AWS profile"):
        listed(opened("http://127.0.0.1:9", None, options={"profile": "nobody-has-this"}))


ROLES = "arn:aws:iam::123456789012:role/first, arn:aws:iam::123456789012:role/second"


def test_roles_are_assumed_one_after_the_other(
    s3_rig: S3Rig, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.client import BaseClient

    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", s3_rig.endpoint)
    calls: list[dict[str, str]] = []
    real = BaseClient._make_api_call

    def spy(self: Any, operation: str, given: dict[str, str]) -> Any:
        if operation == "AssumeRole":
            key = self._request_signer._credentials.get_frozen_credentials().access_key
            calls.append({**given, "as": key})
        return real(self, operation, given)

    monkeypatch.setattr(BaseClient, "_make_api_call", spy)
    s3_rig.client.create_bucket(Bucket="roles-chained")
    options = {"key": "testing", "secret": "testing", "roleArns": ROLES, "externalId": "ext"}
    driver = opened(s3_rig.endpoint, Integration("chain", "aws-sts", options), bucket="roles-chained")
    assert listed(driver) == []
    by_role = {call["RoleArn"].rpartition("/")[2]: call for call in calls}
    assert by_role["first"]["as"] == "testing"
    assert "ExternalId" not in by_role["first"]
    assert by_role["second"]["as"].startswith("ASIA")  # as the first role
    assert by_role["second"]["ExternalId"] == "ext"
    assert listed(driver) == []
    assert len(calls) == 2  # kept until they expire


def test_assumed_credentials_renew_themselves(
    canned: Canned, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", canned.url)
    listing = paged(["a"], 1)
    given = (
        "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASIA{}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
        "<SessionToken>t</SessionToken><Expiration>{}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"
    )
    made: list[str] = []

    def reply(method: str, path: str, query: dict[str, str]) -> Answer:
        if method != "POST":
            return listing(method, path, query)
        made.append(path)
        from datetime import UTC, datetime

        # Close to their end, so botocore renews them before the next request.
        expiry = (datetime.now(UTC) + timedelta(seconds=60)).strftime("%Y-%m-%dT%H:%M:%SZ")
        return 200, {}, given.format(len(made), expiry).encode()

    canned.reply = reply
    options = {"key": "k", "secret": "s", "roleArns": ROLES.partition(",")[0]}
    driver = opened(canned.url, Integration("short", "aws-sts", options))
    listed(driver)
    first = canned.headers[-1]["authorization"]
    listed(driver)
    assert first.partition("/")[0] != canned.headers[-1]["authorization"].partition("/")[0]


def test_a_role_that_may_not_be_assumed(
    canned: Canned, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", canned.url)
    body = b"<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"
    canned.reply = lambda *_: (403, {}, body)
    options = {"key": "k", "secret": SECRET, "roleArns": ROLES}
    with pytest.raises(AccessDenied, match=r"sts:AssumeRole.*roleArns") as caught:
        listed(opened(canned.url, Integration("chain", "aws-sts", options)))
    assert caught.value.permission == "sts:AssumeRole"
    assert SECRET not in str(caught.value)


# -- uploads -----------------------------------------------------------------------------------------


def test_a_failed_upload_leaves_no_parts_behind(canned: Canned, opened: Opened) -> None:
    started = b"<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>"
    canned.reply = lambda method, _path, query: (
        (200, {}, started) if method == "POST" and "uploads" in query
        else (204, {}, b"") if method == "DELETE"
        else refusal("AccessDenied", 403)
    )  # fmt: skip
    with pytest.raises(AccessDenied, match="s3:PutObject"):
        opened(canned.url).put("k", io.BytesIO(bytes(9 << 20)))
    assert canned.asked[-1][0] == "DELETE"
    assert canned.asked[-1][2]["uploadId"] == "u1"


def test_storage_class_of_uploads_is_told_alike(s3_rig: S3Rig, opened: Opened) -> None:
    s3_rig.client.create_bucket(Bucket="storage-classes")
    driver = opened(
        s3_rig.endpoint, s3_rig.integration, bucket="storage-classes", storage_class="STANDARD_IA"
    )
    stored = driver.put("k", io.BytesIO(b"x"))
    (found,) = next(iter(driver.list()))
    assert stored.storage_class == found.storage_class == "STANDARD_IA"
    plain = opened(s3_rig.endpoint, s3_rig.integration, bucket="storage-classes").put("l", io.BytesIO(b"x"))
    assert plain.storage_class == "STANDARD"


def test_importing_the_driver_does_not_load_boto3() -> None:
    import subprocess
    import sys

    code = "import sys, syncagent.drivers.s3; sys.exit(any(m in sys.modules for m in ('boto3', 'botocore')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- the pages after the first -----------------------------------------------------------------------


def by_botocore(headers: dict[str, str]) -> bool:
    return "amz-sdk-invocation-id" in {name.lower() for name in headers}


def sound_signature(method: str, path: str, query: str, headers: dict[str, str], secret: str) -> bool:
    """Signature Version 4, computed from what arrived, as a server does it."""
    lower = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    given = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=[^/]+/(\d+)/([\w-]+)/(\w+)/aws4_request, SignedHeaders=([\w;-]+), Signature=(\w+)",
        lower["authorization"],
    )
    assert given
    day, region, service, signed, signature = given.groups()
    pairs = sorted(pair if "=" in pair else f"{pair}=" for pair in query.split("&"))
    canonical = "\n".join(
        [method, path, "&".join(pairs), *(f"{name}:{lower[name]}" for name in signed.split(";")), "", signed,
         lower["x-amz-content-sha256"]]
    )  # fmt: skip
    scope = f"{day}/{region}/{service}/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    text = f"AWS4-HMAC-SHA256\n{lower['x-amz-date']}\n{scope}\n{digest}"
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest() == signature


def test_following_pages_are_signed_and_cost_one_request_each(canned: Canned, opened: Opened) -> None:
    canned.reply = paged([f"k{n}" for n in range(6)], 2)
    driver = opened(canned.url, region="eu-west-1", options={"requester_pays": "yes"})
    assert listed(driver, prefix="k", after="k") == [f"k{n}" for n in range(6)]
    assert (len(canned.asked), driver.requests["list"]) == (3, 3)
    assert [by_botocore(headers) for headers in canned.headers] == [True, False, False]
    for (method, path, query), headers in zip(canned.asked, canned.headers, strict=True):
        raw = "&".join(
            f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in query.items()
        )
        assert sound_signature(method, path, raw, headers, str(KEYS.options["secret"])), (query, headers)
        assert {name.lower(): value for name, value in headers.items()}["x-amz-request-payer"] == "requester"
        assert query["prefix"] == "k" and query["encoding-type"] == "url"
    assert [query.get("start-after") for _, _, query in canned.asked] == ["k", None, None]
    assert not sound_signature(
        "GET", "/bucket", "list-type=2", canned.headers[1], str(KEYS.options["secret"])
    )


@pytest.mark.parametrize("token", ["a+b/c==", "ü %20&x=1", "1ueGcxLPRx1Tr"])
def test_tokens_arrive_as_they_were_given(canned: Canned, opened: Opened, token: str) -> None:
    def reply(_method: str, _path: str, query: dict[str, str]) -> Answer:
        head = HEAD.partition("<IsTruncated>")[0]
        if "continuation-token" in query:
            assert query["continuation-token"] == token
            return 200, {}, page(entry("b"), head=head + "<IsTruncated>false</IsTruncated>")
        told = (
            f"<IsTruncated>true</IsTruncated><NextContinuationToken>{escape(token)}</NextContinuationToken>"
        )
        return 200, {}, page(entry("a"), head=head + told)

    canned.reply = reply
    assert listed(opened(canned.url)) == ["a", "b"]


@pytest.mark.parametrize(
    "answer", [refusal("SlowDown", 503), refusal("ExpiredToken"), (200, {}, b"<ListBucketResult>")]
)
def test_a_following_page_that_fails_is_botocores_again(
    canned: Canned, opened: Opened, answer: Answer
) -> None:
    good, failed = paged([f"k{n}" for n in range(6)], 2), []

    def reply(method: str, path: str, query: dict[str, str]) -> Answer:
        if query.get("continuation-token") == "2" and not failed:
            failed.append(query)
            return answer
        return good(method, path, query)

    canned.reply = reply
    driver = opened(canned.url)
    assert listed(driver) == [f"k{n}" for n in range(6)]
    assert [by_botocore(headers) for headers in canned.headers] == [True, False, True, False]
    assert driver.requests["list"] == 4


def test_a_following_page_that_stays_refused_is_the_usual_error(canned: Canned, opened: Opened) -> None:
    good = paged([f"k{n}" for n in range(6)], 2)
    canned.reply = lambda m, p, q: (
        refusal("AccessDenied", 403) if "continuation-token" in q else good(m, p, q)
    )
    pages = opened(canned.url).list()
    assert len(next(pages)) == 2
    with pytest.raises(AccessDenied, match="s3:ListBucket"):
        next(pages)


def test_anonymous_listings_follow_unsigned(canned: Canned, opened: Opened) -> None:
    canned.reply = paged([f"k{n}" for n in range(4)], 2)
    assert listed(opened(canned.url, None, options={"anonymous": "yes"})) == [f"k{n}" for n in range(4)]
    assert [by_botocore(headers) for headers in canned.headers] == [True, False]
    assert not any("authorization" in {name.lower() for name in headers} for headers in canned.headers)
