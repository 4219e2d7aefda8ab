"""An S3 server that only lists, and is much cheaper than any client of it.

Keys are date-partitioned, as data lakes have them. Every entry is rendered once, and a page of 1,000 is only
joined, wherever it begins, so what a benchmark measures is the client.

    python benchmarks/s3_stub.py --objects 1000000        # prints its URL when it is ready
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import hashlib
from urllib.parse import quote, unquote, unquote_plus
from xml.sax.saxutils import escape

PAGE = 1000
_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'


def make_keys(count: int) -> list[str]:
    """`count` sorted keys, spread over the days of a year."""
    per_day = -(-count // 365)
    keys = []
    for number in range(count):
        day, part = divmod(number, per_day)
        name = hashlib.blake2b(str(number).encode(), digest_size=6).hexdigest()
        keys.append(
            f"raw/events/year=2025/month={day // 31 + 1:02}/day={day % 31 + 1:02}/part-{part:05}-{name}.parquet"
        )
    return sorted(keys)


def entry(number: int, key: str, *, encoded: bool) -> str:
    """One object as S3 renders it."""
    etag = hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()
    return (
        f"<Contents><Key>{quote(key, safe='/-_.~') if encoded else escape(key)}</Key>"
        f"<LastModified>2026-{number % 9 + 1:02}-1{number % 10}T0{number % 9}:30:{number % 60:02}.000Z</LastModified>"
        f"<ETag>&quot;{etag}&quot;</ETag><ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm>"
        f"<ChecksumType>FULL_OBJECT</ChecksumType><Size>{1000 + number * 37 % 100000}</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
    )


class Pages:
    """Pages of a bucket, rendered on first use."""

    def __init__(self, keys: list[str]) -> None:
        self.keys = keys
        self.requests = 0
        self._rendered: dict[tuple[int, bool, bool], bytes] = {}
        self._entries: list[bytes] = []

    def response(self, query: dict[str, str]) -> bytes:
        """The HTTP response to a ListObjects(V2) request."""
        self.requests += 1
        v2, encoded = query.get("list-type") == "2", query.get("encoding-type") == "url"
        if query.get("delimiter") or query.get("prefix"):
            return self._folder(query, encoded, v2)
        if "continuation-token" in query:
            start = int(query["continuation-token"])
        else:
            start = bisect.bisect_right(self.keys, query.get("start-after") or query.get("marker") or "")
        if self._entries and encoded:
            return self._render(start, encoded, v2)
        wanted = (start, encoded, v2)
        if wanted not in self._rendered:
            self._rendered[wanted] = self._render(*wanted)
        return self._rendered[wanted]

    def _folder(self, query: dict[str, str], encoded: bool, v2: bool) -> bytes:
        """A page of what is below a prefix; with a delimiter, what is below that once more is one entry."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after = query.get("start-after") or query.get("marker") or ""
        at = bisect.bisect_left(self.keys, prefix)
        if "continuation-token" in query:
            at = int(query["continuation-token"])
        elif after:
            at = max(at, bisect.bisect_right(self.keys, after))
        entries, folders, last = [], [], ""
        while at < len(self.keys) and self.keys[at].startswith(prefix) and len(entries) + len(folders) < PAGE:
            last = self.keys[at]
            head, found, _ = last[len(prefix) :].partition(delimiter) if delimiter else (last, "", "")
            if not found:
                entries.append(entry(at, last, encoded=encoded))
                at += 1
                continue
            last = prefix + head + delimiter
            at = bisect.bisect_left(self.keys, last + "\U0010ffff", at)
            if last > after:  # the marker names a folder that was told
                name = quote(last, safe="/-_.~") if encoded else escape(last)
                folders.append(f"<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>")
        more = at < len(self.keys) and self.keys[at].startswith(prefix)
        parts = [
            _HEAD,
            "<Name>bucket</Name>",
            f"<Prefix>{quote(prefix) if encoded else escape(prefix)}</Prefix>",
        ]
        parts += ["<EncodingType>url</EncodingType>"] * encoded
        parts += [f"<KeyCount>{len(entries) + len(folders)}</KeyCount>"] * v2
        parts.append(f"<MaxKeys>{PAGE}</MaxKeys><IsTruncated>{str(more).lower()}</IsTruncated>")
        if more and v2:
            parts.append(f"<NextContinuationToken>{at}</NextContinuationToken>")
        elif more:
            parts.append(f"<NextMarker>{quote(last) if encoded else escape(last)}</NextMarker>")
        return _answer("".join([*parts, *entries, *folders, "</ListBucketResult>"]).encode())

    def head(self, key: str) -> bytes:
        """The HTTP response to a HeadObject request, or to HeadBucket for no key."""
        if not key:
            return b"HTTP/1.1 200 OK\r\n%sContent-Length: 0\r\n\r\n" % _HEADERS
        number = bisect.bisect_left(self.keys, key)
        if self.keys[number : number + 1] != [key]:
            return b"HTTP/1.1 404 Not Found\r\n%sContent-Length: 0\r\n\r\n" % _HEADERS
        etag = hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()
        facts = (
            f'Content-Length: {1000 + number * 37 % 100000}\r\nETag: "{etag}"\r\nContent-Type: image/jpeg\r\n'
        )
        facts += "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
        return f"HTTP/1.1 200 OK\r\n{facts}\r\n".encode()

    def prepare(self) -> None:
        """Render every entry now: pages may begin anywhere, and are only joined from then on."""
        self._entries = [entry(n, key, encoded=True).encode() for n, key in enumerate(self.keys)]

    def _render(self, start: int, encoded: bool, v2: bool) -> bytes:
        keys = self.keys[start : start + PAGE]
        more = start + PAGE < len(self.keys)
        parts = [_HEAD, "<Name>bucket</Name><Prefix></Prefix>"]
        if encoded:
            parts.append("<EncodingType>url</EncodingType>")
        if v2:
            parts.append(f"<KeyCount>{len(keys)}</KeyCount>")
        parts.append(f"<MaxKeys>{PAGE}</MaxKeys><IsTruncated>{str(more).lower()}</IsTruncated>")
        if more and v2:
            parts.append(f"<NextContinuationToken>{start + PAGE}</NextContinuationToken>")
        if self._entries and encoded:
            entries = b"".join(self._entries[start : start + PAGE])
        else:
            entries = "".join([entry(start + n, key, encoded=encoded) for n, key in enumerate(keys)]).encode()
        return _answer("".join(parts).encode() + entries + b"</ListBucketResult>")


def _answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s" % (_HEADERS, len(body), body)


_HEADERS = b"Content-Type: application/xml\r\nx-amz-request-id: 0\r\nx-amz-bucket-region: us-east-1\r\n"


class Server(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, for requests without a body."""

    def __init__(self, pages: Pages, latency: float = 0.0) -> None:
        self._pages = pages
        self._latency = latency
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            query = dict(pair.partition("=")[::2] for pair in target.partition("?")[2].split("&"))
            if method == "HEAD":
                answer = self._pages.head(
                    unquote(target.partition("?")[0].removeprefix("/bucket").lstrip("/"))
                )
            else:
                answer = self._pages.response({name: unquote_plus(value) for name, value in query.items()})
            if self._latency:
                asyncio.get_running_loop().call_later(self._latency, self._transport.write, answer)  # type: ignore[attr-defined]
            else:
                self._transport.write(answer)  # type: ignore[attr-defined]


async def serve(objects: int, port: int, shape: str | None, latency: float) -> None:
    """Serve until terminated. Keys of a shape of benchmarks/listing_s3.py, or as `make_keys` makes them."""
    if shape is not None:
        from listing_s3 import keys_of

        pages = Pages(keys_of(shape, objects))
        pages.prepare()
    else:
        pages = Pages(make_keys(objects))
        pages.prepare()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Server(pages, latency), "127.0.0.1", port)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--shape", help="default: date-partitioned")
    parser.add_argument("--latency", type=float, default=0.0, help="milliseconds of each request")
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.objects, arguments.port, arguments.shape, arguments.latency / 1000))
