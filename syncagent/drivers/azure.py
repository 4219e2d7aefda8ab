"""Azure Blob Storage: ``az://account/container/path``."""

from __future__ import annotations

import contextlib
import io
import threading
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO, Literal, cast
from urllib.parse import quote, urlencode

from syncagent.drivers.azure_pages import in_byte_order, parse_page
from syncagent.drivers.base import Capabilities
from syncagent.drivers.streams import Body
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

USAGE = "write az://account/container/path"
BUCKET_SEGMENTS = 2
OPTIONS = {
    "anonymous": "yes: send no credentials, for public containers",
    "suffix": "the cloud's endpoint suffix; default core.windows.net",
}
_PRICES = (("list", 0.0055), ("put", 0.0055), ("head", 0.00044), ("get", 0.00044), ("delete", 0.0))
_BLOBS = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs"
_ACTIONS = {
    "list": f"{_BLOBS}/read",
    "head": f"{_BLOBS}/read",
    "get": f"{_BLOBS}/read",
    "put": f"{_BLOBS}/write",
    "delete": f"{_BLOBS}/delete",
}
_PAGE = 5000
Objects = list[ObjectInfo]


class AzureDriver:
    """`Driver` over azure-storage-blob: its credentials, pipeline, retries and uploads; our parsing of pages."""

    caps = Capabilities(
        sorted_listing=True,
        conditional_put=True,
        signs=True,
        content_type_in_listing=True,
        any_key=True,
    )

    def __init__(self, spec: DriverSpec, integration: Integration | None = None) -> None:
        self._account, _, self._container = spec.bucket.partition("/")
        self._bucket = spec.bucket
        self._spec = spec
        self._lock = threading.Lock()
        self._made: Any = None
        self._starts = True  # the account can begin a listing at a key, until it says otherwise
        self._connection, self._credential, self._key = _credentials(spec, integration)
        self.requests: Counter[str] = Counter()
        self.caps = replace(self.caps, signs=self._key is not None, prices=() if spec.endpoint else _PRICES)

    def __repr__(self) -> str:
        return f"<AzureDriver {self._bucket}>"

    def list(
        self, prefix: str = "", *, after: str | None = None, until: str | None = None
    ) -> Iterator[list[ObjectInfo]]:
        """See `Driver.list`. One request a page of at most 5,000."""
        return in_byte_order(self._pages(prefix, after, until))

    def _pages(self, prefix: str, after: str | None, until: str | None) -> Iterator[Objects]:
        given = {"restype": "container", "comp": "list", "maxresults": str(_PAGE)}
        if prefix:
            given["prefix"] = prefix
        if after and self._starts:
            given["startFrom"] = after  # inclusive here, and some servers ignore it
        while True:
            page = parse_page(self._list_page(given), self._bucket)
            given.pop("startFrom", None)  # only the first request of a chain takes it
            objects = (
                page.objects if after is None else [found for found in page.objects if found.key > after]
            )
            if objects:
                yield objects
            if page.marker is None or (until is not None and objects and objects[0].key > until):
                return
            given["marker"] = page.marker

    def _list_page(self, given: dict[str, str]) -> bytes:
        from azure.core.exceptions import HttpResponseError
        from azure.core.rest import HttpRequest

        with self._translated("list", self._bucket):
            client = self._client()
            base, _, token = client.url.partition("?")
            query = urlencode(given, quote_via=quote)
            self.requests["list"] += 1
            # The generated client sends through the SDK's whole pipeline: signing, retries, logging rules.
            request = HttpRequest(
                "GET",
                f"{base}?{query}{'&' + token if token else ''}",
                headers={"x-ms-version": client.api_version, "Accept": "application/xml"},
            )
            answer = client._client._send_request(request)
            if answer.status_code == 200:
                body: bytes = answer.read()
                return body
            error = HttpResponseError(response=answer)
            if "startFrom" in given and answer.status_code == 400:
                # The account lacks the feature. Listing from the start is slow, and right.
                self._starts = False
                del given["startFrom"]
                return self._list_page(given)
            raise error

    def stat(self, key: str) -> ObjectInfo:
        """See `Driver.stat`."""
        with self._translated("head", key):
            self.requests["head"] += 1
            found = self._client().get_blob_client(key).get_blob_properties()
        etag, size = str(found.etag).strip('"'), int(found.size)
        modified = found.last_modified.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        md5 = found.content_settings.content_md5
        tier = str(found.blob_tier) if found.blob_tier else None
        if (found.metadata or {}).get("hdi_isfolder") == "true":
            raise NotFound(f"{key!r} is a directory", resource=key)
        return ObjectInfo(
            key,
            f"{etag}:{size}:{modified}",
            size,
            modified,
            etag,
            None,
            f"md5:{_base64(md5)}" if md5 else None,
            found.content_settings.content_type,
            tier,
        )

    def open(
        self, key: str, *, offset: int = 0, length: int | None = None
    ) -> contextlib.AbstractContextManager[BinaryIO]:
        """See `Driver.open`."""
        if length == 0:
            self.stat(key)
            return contextlib.nullcontext(io.BytesIO())
        try:
            with self._translated("get", key):
                self.requests["get"] += 1
                found = (
                    self._client()
                    .get_blob_client(key)
                    .download_blob(offset=offset if offset or length is not None else None, length=length)
                )
        except _PastEnd:
            return contextlib.nullcontext(io.BytesIO())
        return contextlib.closing(
            cast(BinaryIO, Body(found.read, lambda: None, lambda: self._translated("get", key)))
        )

    def put(
        self, key: str, body: BinaryIO, *, content_type: str | None = None, if_absent: bool = False
    ) -> ObjectInfo:
        """See `Driver.put`. Large objects go up in blocks, committed together."""
        from azure.storage.blob import ContentSettings

        with self._translated("put", key):
            self.requests["put"] += 1
            self._client().get_blob_client(key).upload_blob(
                body,
                overwrite=not if_absent,
                content_settings=ContentSettings(content_type=content_type or "application/octet-stream"),
                standard_blob_tier=self._spec.storage_class,
            )
        return self.stat(key)

    def delete(self, key: str) -> None:
        """See `Driver.delete`."""
        with contextlib.suppress(_Missing), self._translated("delete", key):
            self.requests["delete"] += 1
            self._client().get_blob_client(key).delete_blob()

    def sign(self, key: str, *, expires: timedelta, method: Literal["GET", "PUT"] = "GET") -> str:
        """See `Driver.sign`. Needs the account's key."""
        if self._key is None:
            raise Unsupported(
                "these az:// credentials cannot sign URLs", resource=key, hint="use the account's key"
            )
        from azure.storage.blob import BlobSasPermissions, generate_blob_sas

        writes = method == "PUT"
        token = generate_blob_sas(
            self._account,
            self._container,
            key,
            account_key=self._key,
            permission=BlobSasPermissions(read=not writes, write=writes, create=writes),
            expiry=datetime.now(UTC) + expires,
        )
        return f"{self._client().get_blob_client(key).url.partition('?')[0]}?{token}"

    def close(self) -> None:
        """See `Driver.close`."""
        with self._lock:
            if self._made is not None:
                self._made.close()

    # -- the client ------------------------------------------------------------------------------

    def _client(self) -> Any:
        if self._made is None:
            with self._lock:
                if self._made is None:
                    self._made = self._make_client()
        return self._made

    def _make_client(self) -> Any:
        from azure.storage.blob import ContainerClient

        settings: dict[str, Any] = {"retry_total": 4, "connection_timeout": 10, "read_timeout": 60}
        if self._connection is not None:
            return ContainerClient.from_connection_string(self._connection, self._container, **settings)
        suffix = self._spec.options.get("suffix", "core.windows.net")
        url = self._spec.endpoint or f"https://{self._account}.blob.{suffix}"
        return ContainerClient(url, self._container, credential=self._credential, **settings)

    # -- errors ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _translated(self, kind: str, resource: str) -> Generator[None, None, None]:
        """The one place where the SDK's errors become ours."""
        try:
            yield
        except SyncAgentError:
            raise
        except Exception as error:
            raise self._translate(error, kind, resource) from error

    def _translate(self, error: Exception, kind: str, resource: str) -> SyncAgentError:
        from azure.core import exceptions

        bucket = self._bucket
        if (
            isinstance(error, exceptions.ClientAuthenticationError)
            and getattr(error, "status_code", None) is None
        ):
            return AccessDenied(
                f"no usable Azure credentials for {bucket}",
                resource=resource,
                hint="run 'az login', or pass --integration",
            )
        if isinstance(error, exceptions.HttpResponseError) and error.status_code:
            return self._translate_answer(error, kind, resource)
        if isinstance(error, exceptions.ServiceRequestError):
            where = self._spec.endpoint or f"the account {self._account}"
            return Transient(
                f"cannot reach {where}", resource=resource, hint="check the account and the network"
            )
        if isinstance(error, exceptions.AzureError):
            return Transient(f"the connection to {bucket} failed: {type(error).__name__}", resource=resource)
        if isinstance(error, ValueError):
            return ConfigError(f"Azure cannot use {bucket} or these credentials", resource=resource)
        return SyncAgentError(f"Azure failed on {resource!r}: {type(error).__name__}", resource=resource)

    def _translate_answer(self, error: Any, kind: str, resource: str) -> SyncAgentError:
        # Never the SDK's message: it may quote a URL with a signature.
        bucket, status = self._bucket, error.status_code
        headers = error.response.headers if error.response is not None else {}
        code = str(getattr(error, "error_code", None) or headers.get("x-ms-error-code") or "")
        if status == 416:
            return _PastEnd("past the end", resource=resource)
        if code == "ContainerNotFound" or (status == 404 and kind == "list"):
            return NotFound(f"no such container: {bucket}", resource=bucket, hint="check the name")
        if status == 404:
            return _Missing(f"no object {resource!r} in {bucket}", resource=resource)
        if code in {"BlobAlreadyExists", "UnauthorizedBlobOverwrite"} or status == 412:
            return AlreadyExists(f"{resource!r} is already there", resource=resource)
        if status == 409:
            return Conflict(f"{resource!r} is in use ({code})", resource=resource)
        if status == 401 or code in {"AuthenticationFailed", "InvalidAuthenticationInfo"}:
            return AccessDenied(
                f"Azure does not accept the credentials for {bucket}",
                resource=resource,
                hint="they may have expired, or this machine's clock is wrong",
            )
        if status == 403:
            action = _ACTIONS[kind]
            what = bucket if kind == "list" else f"{resource!r} in {bucket}"
            return AccessDenied(
                f"not allowed: {action} on {what}",
                resource=resource,
                hint=f"'syncagent doctor az://{bucket}' shows the role to assign",
                permission=action,
            )
        if status in {408, 429} or status >= 500:
            after = headers.get("Retry-After", "")
            return Transient(
                f"Azure is busy ({code or status}) on {bucket}",
                resource=resource,
                hint="try again later",
                retry_after=float(after) if after.isdecimal() else None,
            )
        if code in {"InvalidResourceName", "OutOfRangeInput", "InvalidUri"}:
            made = ConfigError if kind == "list" else InvalidInput
            return made(f"Azure cannot hold {bucket if kind == 'list' else resource!r}", resource=resource)
        return SyncAgentError(f"Azure answered {code or status} for {resource!r}", resource=resource)


class _PastEnd(SyncAgentError):
    """A range that begins after the object's end."""


class _Missing(NotFound):
    """The object is not there."""


def _base64(md5: bytes) -> str:
    from base64 import b64encode

    return b64encode(md5).decode()


def _credentials(spec: DriverSpec, integration: Integration | None) -> tuple[str | None, Any, str | None]:
    """(connection string, credential, account key) of the integration, or the SDK's own chain."""
    if integration is None:
        if spec.options.get("anonymous", "no") == "yes":
            return None, None, None
        from azure.identity import DefaultAzureCredential

        return None, DefaultAzureCredential(), None
    name, options = integration.name, integration.options
    if integration.type != "azureblob":
        raise ConfigError(
            f"integration {name!r} is of type {integration.type}, and az:// needs azureblob", resource=name
        )
    if connection := options.get("connectionString"):
        fields = dict(part.partition("=")[::2] for part in connection.split(";"))
        return connection, None, fields.get("AccountKey")
    if sas := options.get("sas"):
        return None, sas.removeprefix("?"), None
    wanted = ("clientId", "tenantId", "secret")
    given = [field for field in wanted if options.get(field)]
    if key := options.get("accountKey") or (options.get("key") if not given else None):
        return None, {"account_name": spec.bucket.partition("/")[0], "account_key": key}, key
    if lacking := [field for field in wanted if field not in given]:
        raise ConfigError(
            f"integration {name!r} lacks {lacking[0]!r}",
            resource=name,
            hint="give clientId, tenantId and secret; or accountKey; or sas; or connectionString",
        )
    from azure.identity import ClientSecretCredential

    return None, ClientSecretCredential(options["tenantId"], options["clientId"], options["secret"]), None


def open_driver(spec: DriverSpec, integration: Integration | None = None) -> AzureDriver:
    """Open a container. No request is sent yet.

    :raises ConfigError: the integration does not fit.
    """
    import azure.storage.blob  # noqa: F401  # missing: said at once, with the extra to install

    return AzureDriver(spec, integration)
