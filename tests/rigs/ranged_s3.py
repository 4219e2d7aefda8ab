"""An S3 server of few keys a page that only lists and looks, slowly: what several machines sweep."""

from __future__ import annotations

import bisect
import hashlib
import threading
import time
from urllib.parse import quote, unquote, urlsplit

from tests.rigs.fake_http import Answer, FakeHttp, Request

PAGE = 20
_HEADERS = {"Content-Type": "application/xml", "x-amz-bucket-region": "us-east-1"}


class RangedS3(FakeHttp):
    """Bodies by key. Use it in a `with` statement.

    :param seconds: that a page takes.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(self._answer)
        self.bodies: dict[str, bytes] = {}
        self.pages = 0
        self.seconds = seconds
        self._lock = threading.Lock()

    def _answer(self, request: Request) -> Answer:
        key = unquote(urlsplit(request.path).path).removeprefix("/box").removeprefix("/")
        if request.method == "HEAD":
            return self._look(key)
        with self._lock:
            self.pages += 1
        time.sleep(self.seconds)
        keys = sorted(self.bodies)
        after = request.query.get("continuation-token") or request.query.get("start-after") or ""
        start = bisect.bisect_right(keys, after)
        page, more = keys[start : start + PAGE], start + PAGE < len(keys)
        entries = "".join(
            f"<Contents><Key>{quote(key)}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>"
            f"<ETag>&quot;{_etag(self.bodies[key])}&quot;</ETag><Size>{len(self.bodies[key])}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
            for key in page
        )
        token = f"<NextContinuationToken>{quote(page[-1])}</NextContinuationToken>" if more else ""
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>box</Name><Prefix></Prefix>'
            f"<EncodingType>url</EncodingType><KeyCount>{len(page)}</KeyCount><MaxKeys>{PAGE}</MaxKeys>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{entries}</ListBucketResult>"
        )
        return 200, _HEADERS, body.encode()

    def _look(self, key: str) -> Answer:
        if not key:
            return 200, _HEADERS, b""
        body = self.bodies.get(key)
        if body is None:
            return 404, _HEADERS, b""
        found = {
            "ETag": f'"{_etag(body)}"', "Content-Length": str(len(body)),
            "Last-Modified": "Fri, 02 Jan 2026 03:04:05 GMT",
        }  # fmt: skip
        return 200, {**_HEADERS, **found}, b""


def _etag(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()
