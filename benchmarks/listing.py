"""List Google Cloud Storage and Azure Blob, beside each SDK's own iterator on the same server.

    python benchmarks/listing.py --objects 50000 --rounds 3

The server is a stub in another process that sends rendered pages, as the services do: GCS 1,000 objects a page
unless the request asks for more, and only the fields that it names; Azure 5,000. Runs are interleaved; medians
are printed. Exits 1 below 5x. What several workers make of S3: benchmarks/listing_s3.py.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import gc
import hashlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs

PAGE = 5000
BAR = 5.0
KEY = base64.b64encode(b"benchmark").decode()


def gcs_item(number: int, fields: str) -> dict[str, object]:
    """One object resource, whole or as far as `fields` asks."""
    name = f"raw/day={number // 2000:04}/part-{number:09}.parquet"
    md5 = base64.b64encode(hashlib.md5(name.encode(), usedforsecurity=False).digest()).decode()
    whole = {
        "kind": "storage#object",
        "id": f"bucket/{name}/1700000000{number:06}",
        "selfLink": f"https://www.googleapis.com/storage/v1/b/bucket/o/{name}",
        "mediaLink": f"https://storage.googleapis.com/download/storage/v1/b/bucket/o/{name}?alt=media",
        "name": name,
        "bucket": "bucket",
        "generation": f"1700000000{number:06}",
        "metageneration": "1",
        "contentType": "application/octet-stream",
        "storageClass": "STANDARD",
        "size": str(1000 + number),
        "md5Hash": md5,
        "crc32c": "AAAAAA==",
        "etag": "CJDx0N/AAAAAAEAE=",
        "timeCreated": "2026-11-24T00:00:00.000Z",
        "updated": "2026-11-24T00:00:00.000Z",
        "timeStorageClassUpdated": "2026-11-24T00:00:00.000Z",
    }
    return {
        name: value
        for name, value in whole.items()
        if not fields or f"{name}," in f"{fields[:-1]},".partition("(")[2]
    }


def azure_item(number: int) -> str:
    """One blob as the service renders it."""
    name = f"raw/day={number // 2000:04}/part-{number:09}.parquet"
    md5 = base64.b64encode(hashlib.md5(name.encode(), usedforsecurity=False).digest()).decode()
    return (
        f"<Blob><Name>{name}</Name><Properties><Creation-Time>Tue, 24 Nov 2026 00:00:00 GMT</Creation-Time>"
        f"<Last-Modified>Tue, 24 Nov 2026 00:00:00 GMT</Last-Modified><Etag>0x8DE{number:012X}</Etag>"
        f"<Content-Length>{1000 + number}</Content-Length><Content-Type>application/octet-stream</Content-Type>"
        f"<Content-Encoding /><Content-Language /><Content-CRC64 /><Content-MD5>{md5}</Content-MD5><Cache-Control />"
        "<Content-Disposition /><BlobType>BlockBlob</BlobType><AccessTier>Hot</AccessTier>"
        "<AccessTierInferred>true</AccessTierInferred><LeaseStatus>unlocked</LeaseStatus>"
        "<LeaseState>available</LeaseState><ServerEncrypted>true</ServerEncrypted></Properties><OrMetadata /></Blob>"
    )


class Stub(asyncio.Protocol):
    """HTTP/1.1 with keep-alive; pages are rendered once."""

    pages: dict[tuple[int, str, bool, int], bytes] = {}  # noqa: RUF012  # one process, one stub
    objects = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            target = head.split(b" ", 2)[1].decode()
            query = parse_qs(target.partition("?")[2])
            azure = "comp" in query
            start = int(query.get("marker" if azure else "pageToken", ["0"])[0] or 0)
            size = PAGE if azure else min(int(query.get("maxResults", ["1000"])[0]), PAGE)
            wanted = (start, query.get("fields", [""])[0], azure, size)
            if wanted not in self.pages:
                self.pages[wanted] = render(*wanted, self.objects)
            self._transport.write(self.pages[wanted])  # type: ignore[attr-defined]


def render(start: int, fields: str, azure: bool, size: int, objects: int) -> bytes:
    """One page as an HTTP response."""
    end = min(start + size, objects)
    marker = str(end) if end < objects else ""
    if azure:
        body = (
            '<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="http://127.0.0.1/"'
            ' ContainerName="container"><MaxResults>5000</MaxResults><Blobs>'
            + "".join(map(azure_item, range(start, end)))
            + f"</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>"
        )
    else:
        page = {
            "kind": "storage#objects",
            "items": [gcs_item(number, fields) for number in range(start, end)],
        }
        body = json.dumps(page | ({"nextPageToken": marker} if marker else {}))
    kind = "application/xml" if azure else "application/json"
    encoded = body.encode()
    return (
        f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(encoded)}\r\n\r\n".encode()
        + encoded
    )


async def serve(objects: int) -> None:
    """Serve until terminated."""
    Stub.objects = objects
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await server.serve_forever()


@contextlib.contextmanager
def stub(objects: int) -> Iterator[str]:
    """The stub in a process of its own; yields its URL."""
    process = subprocess.Popen(
        [sys.executable, __file__, "--serve", "--objects", str(objects)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def gcs_facts(blob: Any) -> tuple[object, ...]:
    """What `ObjectInfo` holds, by the SDK's own properties."""
    return (
        blob.name, blob.generation, blob.metageneration, blob.size, blob.updated, blob.etag, blob.md5_hash,
        blob.content_type, blob.storage_class,
    )  # fmt: skip


def azure_facts(blob: Any) -> tuple[object, ...]:
    """What `ObjectInfo` holds, by the SDK's own properties."""
    settings = blob.content_settings
    return (
        blob.name, blob.etag, blob.size, blob.last_modified, settings.content_md5, settings.content_type, blob.blob_tier,
    )  # fmt: skip


def contestants(url: str) -> dict[str, Callable[[], int]]:
    """What is measured: each lists everything, and has the same nine facts of every object in hand.

    The bare rows only step through the SDK's iterator and read nothing; they are shown, and not judged by.
    """
    from azure.storage.blob import ContainerClient
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    from syncagent import open_bucket
    from syncagent.model import Integration

    client = storage.Client(
        project="bench", credentials=AnonymousCredentials(), client_options={"api_endpoint": url}
    )
    account = f"{url}/account"
    container = ContainerClient(
        account, "container", credential={"account_name": "account", "account_key": KEY}
    )
    gcs = open_bucket(f"gs://bucket?endpoint={url}")
    azure = open_bucket(
        f"az://account/container?endpoint={account}", Integration("bench", "azureblob", {"accountKey": KEY})
    )
    fields = "items(name,size,generation,metageneration,updated,etag,md5Hash,contentType,storageClass),nextPageToken"
    return {
        "gcs: SDK list_blobs, bare": lambda: sum(1 for _ in client.list_blobs("bucket", fields=fields)),
        "gcs: SDK list_blobs": lambda: len([gcs_facts(b) for b in client.list_blobs("bucket")]),
        "gcs: SDK list_blobs, fields": lambda: len(
            [gcs_facts(b) for b in client.list_blobs("bucket", fields=fields)]
        ),
        "gcs: syncagent": lambda: sum(map(len, gcs.list())),
        "azure: SDK list_blobs, bare": lambda: sum(1 for _ in container.list_blobs()),
        "azure: SDK list_blobs": lambda: len([azure_facts(b) for b in container.list_blobs()]),
        "azure: syncagent": lambda: sum(map(len, azure.list())),
    }


def main() -> int:
    """Measure, print the table, and say whether the bar is met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.objects))
        return 0
    with stub(arguments.objects) as url:
        names = contestants(url)
        times: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(arguments.rounds + 1):
            for name, count in names.items():
                gc.collect()  # what the one before left is not this one's to clear away
                started = time.perf_counter()
                assert count() == arguments.objects, name
                if turn:  # the first round renders the pages
                    times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"| {arguments.objects:,} objects | objects/s | against the SDK | bar |")
    print("|---|---|---|---|")
    met = True
    for name, seconds in medians.items():
        store, _, who = name.partition(": ")
        best = min(
            value
            for other, value in medians.items()
            if other.startswith(f"{store}: SDK") and "bare" not in other
        )
        ours = who == "syncagent"
        met = met and (not ours or best / seconds >= BAR)
        ratio = f"{best / seconds:.1f}x" if ours else ""
        print(f"| {name} | {arguments.objects / seconds:,.0f} | {ratio} | {f'{BAR:.0f}x' if ours else ''} |")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
