"""Azure Blob Storage: ``az://account/container/path``."""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property
from importlib.util import find_spec
from typing import Any, BinaryIO, Literal, NamedTuple, cast
from urllib.parse import parse_qs, quote, urlencode

from syncagent.drivers.azure_identity import default_credential
from syncagent.drivers.azure_pages import Page, common_order, in_byte_order, parse_page
from syncagent.drivers.base import Capabilities
from syncagent.drivers.streams import Body, read_full
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
from syncagent.pages import last_key

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
SUFFIX = "core.windows.net"
# Where tokens come from, in clouds that are not the public one.
_AUTHORITIES = {
    "core.chinacloudapi.cn": "login.chinacloudapi.cn",
    "core.usgovcloudapi.net": "login.microsoftonline.us",
}
_PAGE = 5000
_PART = 8 * 1024 * 1024
_IDENTITY = ("tenantId", "clientId", "secret")  # in the order that the SDK takes them
_NO_SEGMENT = {".", ".."}  # the SDK's HTTP client resolves them, and then names another object
Objects = list[ObjectInfo]


class AzureDriver:
    """`Driver` over azure-storage-blob: its credentials, pipeline, retries and uploads; our parsing of pages.

    What is public, and what a function's identity may read, it reads without the SDK's client: see `azure_pipeline`.
    """

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
        self._starts = True  # the account can begin a listing at a key, until it says otherwise
        self._tier = _tier(spec)
        access = access_of(spec, integration)
        self._access = access
        self._key, self._credential = access.key, access.credential
        self._url = f"{access.url.rstrip('/')}/{quote(self._container)}"
        self._plain = self._pipeline(access, integration)
        if self._plain is None:
            _ = self._client  # what is wrong with the credentials is told now
        self.requests: Counter[str] = Counter()
        self.caps = replace(self.caps, signs=self._key is not None, prices=() if spec.endpoint else _PRICES)

    def __repr__(self) -> str:
        return f"<AzureDriver {self._bucket}>"

    def list(
        self, prefix: str = "", *, after: str | None = None, until: str | None = None
    ) -> Iterator[list[ObjectInfo]]:
        """See `Driver.list`. One request a page of at most 5,000."""
        pages = self._pages(prefix, after, until)
        return pages if self._spec.options.get("sorted") == "no" else in_byte_order(pages, self._bucket)

    def _pages(self, prefix: str, after: str | None, until: str | None) -> Iterator[Objects]:
        given = {"restype": "container", "comp": "list", "maxresults": str(_PAGE)}
        if prefix:
            given["prefix"] = prefix
        start = common_order(after or "")  # sound in whichever order the server sorts
        if self._starts and start > prefix:
            given["startFrom"] = start  # inclusive here, and some servers ignore it
        started, tree = "startFrom" in given, False
        while True:
            page = self._list_page(given)
            tree = tree or page.tree
            if tree and started:
                # A tree's order is another: what comes before `start` in it may still be wanted.
                self._starts = started = False
                given = {name: value for name, value in given.items() if name not in {"startFrom", "marker"}}
                continue
            objects = (
                page.objects if after is None else [found for found in page.objects if found.key > after]
            )
            if objects:
                yield objects
            past = until is not None and bool(objects) and common_order(last_key(objects)) >= until
            if page.marker is None or (past and not tree):
                return
            if page.marker == given.get("marker"):
                raise Transient(f"the listing of {self._bucket} goes round in circles", resource=self._bucket)
            given.pop("startFrom", None)  # only the first request of a chain takes it
            given["marker"] = page.marker

    def _list_page(self, given: dict[str, str]) -> Page:
        with self._translated("list", self._bucket):
            url = f"{self._url}?{urlencode(given, quote_via=quote)}"
            answer = self._ask("GET", url, {"Accept": "application/xml"})
            if answer.status_code in {400, 409} and "startFrom" in given:
                # The account lacks the feature, perhaps. Listing from the start is slow, and right.
                del given["startFrom"]
                page = self._list_page(given)
                self._starts = False
                return page
            _raise_for(answer, 200)
        return parse_page(answer.content, self._bucket)

    def _ask(self, method: str, url: str, headers: dict[str, str]) -> Any:
        """One request through the SDK's whole pipeline: signing, tokens, retries, logging rules.

        Streamed, because otherwise the SDK parses every page as well.
        """
        from azure.core.rest import HttpRequest

        if self._plain is not None:
            from syncagent.drivers.azure_pipeline import VERSION

            request = HttpRequest(method, url, headers={"x-ms-version": VERSION, **headers})
            return self._plain.send_request(request, stream=True)
        request = HttpRequest(method, url, headers={"x-ms-version": self._client.api_version, **headers})
        # The generated client beneath is the one that takes a request as it is.
        return self._client._client._send_request(request, stream=True)

    # The client's own hooks: those that are given with a call, the SDK forgets at the first retry.

    def _sent(self, request: Any) -> None:
        """Called before each request that is sent, retries among them."""
        self.requests.update((_kind(request.http_request),))

    def _received(self, response: Any) -> None:
        """Called at each answer, where a body that breaks is asked for again."""
        kind, answer = _kind(response.http_request), response.http_response
        if kind in {"list", "head"} or (kind == "get" and answer.status_code >= 400):
            answer.read()  # all of it, and the connection is free again

    def stat(self, key: str) -> ObjectInfo:
        """See `Driver.stat`."""
        with self._translated("head", key):
            answer = self._ask("HEAD", self._at(key), {})
            _raise_for(answer, 200)
        told = answer.headers
        try:
            etag, size = told["ETag"].strip('"'), int(told["Content-Length"])
            at = parsedate_to_datetime(told["Last-Modified"]).astimezone(UTC)
        except (KeyError, ValueError):
            raise Transient(
                f"the answer about {key!r} in {self._bucket} is none of Azure's",
                resource=key,
                hint="check the network for a proxy",
            ) from None
        if told.get("x-ms-meta-hdi_isfolder") == "true":
            raise NotFound(f"{key!r} is a directory", resource=key)
        modified, md5 = at.strftime("%Y-%m-%dT%H:%M:%SZ"), told.get("Content-MD5")
        return ObjectInfo(
            key,
            f"{etag}:{size}:{modified}",
            size,
            modified,
            etag,
            None,
            f"md5:{md5}" if md5 else None,
            told.get("Content-Type") or None,
            told.get("x-ms-access-tier") or None,
        )

    def open(
        self, key: str, *, offset: int = 0, length: int | None = None
    ) -> contextlib.AbstractContextManager[BinaryIO]:
        """See `Driver.open`. One request, whose body is streamed as it is stored."""
        if length == 0:
            self.stat(key)
            return contextlib.nullcontext(io.BytesIO())
        ranged = offset > 0 or length is not None
        end = "" if length is None else offset + length - 1
        headers = {"x-ms-range": f"bytes={offset}-{end}"} if ranged else {}
        try:
            with self._translated("get", key):
                answer = self._ask("GET", self._at(key), headers)
                _raise_for(answer, 200, 206)
        except _PastEnd:
            return contextlib.nullcontext(io.BytesIO())
        if ranged and answer.status_code != 206:
            answer.close()
            raise SyncAgentError(f"the server sent all of {key!r} instead of a range", resource=key)
        stream = Body(_reader(answer.iter_raw()), answer.close, lambda: self._translated("get", key))
        return contextlib.closing(cast(BinaryIO, stream))

    def put(
        self, key: str, body: BinaryIO, *, content_type: str | None = None, if_absent: bool = False
    ) -> ObjectInfo:
        """See `Driver.put`. Large objects go up in blocks, committed together."""
        from azure.storage.blob import ContentSettings

        first = read_full(body, _PART + 1)
        # Without a size, which the SDK would ask the file for: it may stand in its middle, or be a pipe.
        rest = itertools.chain([first], iter(lambda: body.read(_PART), b""))
        with self._translated("put", key):
            self._blob(key).upload_blob(
                rest if len(first) > _PART else first,
                overwrite=not if_absent,
                content_settings=ContentSettings(content_type=content_type or "application/octet-stream"),
                standard_blob_tier=self._tier,
            )
        return self.stat(key)

    def delete(self, key: str) -> None:
        """See `Driver.delete`."""
        with contextlib.suppress(_Missing), self._translated("delete", key):
            self._blob(key).delete_blob()

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
        return f"{self._at(key)}?{token}"

    def close(self) -> None:
        """See `Driver.close`."""
        if self._plain is not None:
            self._plain.close()
        if "_client" in vars(self):
            self._client.close()
        if hasattr(self._credential, "close"):
            self._credential.close()

    # -- the client ------------------------------------------------------------------------------

    def _pipeline(self, access: _Access, integration: Integration | None) -> Any:
        """What reads without the SDK's client, where there is nothing to sign; else None."""
        from syncagent.drivers.azure_identity import ManagedIdentity
        from syncagent.drivers.azure_pipeline import pipeline

        mine = isinstance(access.credential, ManagedIdentity)
        if integration is not None or not (mine or access.credential is None):
            return None
        if mine and not access.url.startswith("https:"):
            raise self._unfit(access)
        return pipeline(access.url, access.credential, sent=self._sent, received=self._received)

    def _unfit(self, access: _Access) -> ConfigError:
        return ConfigError(
            f"Azure cannot use {access.url} with these credentials",
            resource=self._bucket,
            hint="tokens need https",
        )

    @cached_property
    def _client(self) -> Any:
        from azure.storage.blob import ContainerClient

        access = self._access
        try:
            return ContainerClient(
                access.url,
                self._container,
                credential=access.credential,
                # Some 15 seconds in all. The SDK's own waits are of 15 seconds each, and then longer.
                retry_total=4,
                initial_backoff=1,
                increment_base=2,
                random_jitter_range=1,
                connection_timeout=10,
                read_timeout=60,
                # Blocks are read before they are sent, so that they can be sent again.
                max_single_put_size=_PART,
                max_block_size=_PART,
                use_byte_buffer=True,
                raw_request_hook=self._sent,
                raw_response_hook=self._received,
            )
        except ValueError as error:
            raise self._unfit(access) from error

    def _blob(self, key: str) -> Any:
        _ = self._at(key)
        return self._client.get_blob_client(key)

    def _at(self, key: str) -> str:
        """The object's address."""
        if not key or "\\" in key or not _NO_SEGMENT.isdisjoint(key.split("/")):
            # It would not fail: it would name another object, or none.
            raise InvalidInput(f"Azure cannot hold the key {key!r} in {self._bucket}", resource=key)
        return f"{self._url}/{quote(key, safe='~/')}"

    # -- errors ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _translated(self, kind: str, resource: str) -> Generator[None, None, None]:
        """The one place where the SDK's errors become ours."""
        try:
            yield
        except SyncAgentError:
            raise
        except Exception as error:
            ours = self._translate(error, kind, resource)
            if ours is None:
                raise
            raise ours from error

    def _translate(self, error: Exception, kind: str, resource: str) -> SyncAgentError | None:
        """Our error; None for one that is not the SDK's, such as the uploaded file's own."""
        from azure.core import exceptions

        bucket, status = self._bucket, getattr(error, "status_code", None)
        if isinstance(error, exceptions.ClientAuthenticationError) and status not in {401, 403}:
            # Of the credential, not of the store: it got no token.
            return AccessDenied(
                f"no usable Azure credentials for {bucket}",
                resource=resource,
                hint="run 'az login', pass --integration, or check its clientId, tenantId and secret",
            )
        if isinstance(error, exceptions.HttpResponseError) and status:
            return self._translate_answer(error, kind, resource)
        if isinstance(error, exceptions.ServiceRequestError):
            where = self._spec.endpoint or f"the account {self._account}"
            return Transient(
                f"cannot reach {where} for {bucket}",
                resource=resource,
                hint="check the account, the endpoint and the network",
            )
        if isinstance(error, exceptions.AzureError):
            return Transient(
                f"the connection to {bucket} failed: {type(error).__name__}",
                resource=resource,
                hint="try again",
            )
        return None

    def _translate_answer(self, error: Any, kind: str, resource: str) -> SyncAgentError:
        # Never the SDK's message: it may quote a URL with a signature.
        bucket, status = self._bucket, error.status_code
        headers = error.response.headers if error.response is not None else {}
        code = headers.get("x-ms-error-code", "")
        what = bucket if kind == "list" else f"{resource!r} in {bucket}"
        if status == 416:
            return _PastEnd("past the end", resource=resource)
        if code == "ContainerNotFound" or (status == 404 and kind in {"list", "put"}):
            hint = "check the name" if self._credential else "check the name, and that it is public"
            return NotFound(f"no such container: {bucket}", resource=bucket, hint=hint)
        if status == 404:
            return _Missing(f"no object {what}", resource=resource, hint="check the key")
        if kind == "put" and code in _TAKEN:
            return AlreadyExists(
                f"{resource!r} is already there in {bucket}",
                resource=resource,
                hint="delete it first, or choose another name",
            )
        if status == 401 or code in {"AuthenticationFailed", "InvalidAuthenticationInfo"}:
            return AccessDenied(
                f"Azure does not accept the credentials for {bucket}",
                resource=resource,
                hint="they may have expired, or this machine's clock is wrong",
            )
        if status == 403 or code == "PublicAccessNotPermitted" or code.startswith("BlobImmutable"):
            action = _ACTIONS[kind]
            return AccessDenied(
                f"not allowed: {action} on {what}{f' ({code})' if code else ''}",
                resource=resource,
                hint=f"'syncagent doctor az://{bucket}' shows the role to assign",
                permission=action,
            )
        if code == "BlobArchived":
            return Unsupported(f"{what} is archived", resource=resource, hint="rehydrate it first")
        if status in {409, 412}:
            return Conflict(f"{what} is in use ({code or status})", resource=resource, hint="try again")
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
            return made(f"Azure cannot hold {what}", resource=resource, hint="check the name")
        return SyncAgentError(f"Azure answered {code or status} for {what}", resource=resource)


# 412 to a put that must not overwrite comes without much of a code from servers other than Azure's.
_TAKEN = {"BlobAlreadyExists", "UnauthorizedBlobOverwrite", "ConditionNotMet"}


class _PastEnd(SyncAgentError):
    """A range that begins after the object's end."""


class _Missing(NotFound):
    """The object is not there."""


class _Access(NamedTuple):
    """Where the account answers, and as whom. `key` signs URLs."""

    url: str
    credential: Any
    key: str | None = None


def access_of(spec: DriverSpec, integration: Integration | None) -> _Access:
    """What the integration says, or the SDK's own chain of credentials."""
    account = spec.bucket.partition("/")[0]
    url = spec.endpoint or f"https://{account}.blob.{spec.options.get('suffix', SUFFIX)}"
    authority = next((at for suffix, at in _AUTHORITIES.items() if suffix in url), None)
    cloud = {"authority": authority} if authority else {}
    if integration is not None and integration.type != "azureblob":
        raise ConfigError(
            f"integration {integration.name!r} is of type {integration.type}, and az:// needs azureblob",
            resource=integration.name,
        )
    if _flag(spec, "anonymous"):
        return _Access(url, None)
    if integration is None:
        return _Access(url, default_credential(**cloud))
    name = integration.name
    options = {field: value.strip() for field, value in integration.options.items()}
    if connection := options.get("connectionString"):
        return _connection(connection, spec, url, name)
    if sas := options.get("sas"):
        return _Access(url, _sas(sas, name))
    wanted = ("clientId", "tenantId", "secret")
    given = [field for field in wanted if options.get(field)]
    if key := options.get("accountKey") or (options.get("key") if not given else None):
        return _Access(url, {"account_name": account, "account_key": _key(key, name)}, key)
    if lacking := [field for field in wanted if field not in given]:
        raise ConfigError(
            f"integration {name!r} lacks {lacking[0]!r}",
            resource=name,
            hint="give clientId, tenantId and secret; or accountKey; or sas; or connectionString",
        )
    from azure.identity import ClientSecretCredential

    try:
        credential = ClientSecretCredential(*(options[field] for field in _IDENTITY), **cloud)
    except ValueError as error:
        raise ConfigError(f"the 'tenantId' of integration {name!r} is none", resource=name) from error
    return _Access(url, credential)


# What UseDevelopmentStorage=true stands for; the key is the same everywhere, and public.
_EMULATOR = {
    "accountname": "devstoreaccount1",
    "accountkey": "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
    "blobendpoint": "http://127.0.0.1:10000/devstoreaccount1",
}


def _connection(connection: str, spec: DriverSpec, url: str, name: str) -> _Access:
    """A connection string, as Azure's portal shows it. The URL's account and endpoint have the last word."""
    pairs = [part.partition("=") for part in connection.split(";") if part]
    fields = {field.strip().lower(): value.strip() for field, _, value in pairs}
    if fields.get("usedevelopmentstorage", "").lower() == "true":
        fields = _EMULATOR
    account = spec.bucket.partition("/")[0]
    if fields.get("accountname", account) != account:
        raise ConfigError(
            f"the 'connectionString' of integration {name!r} is for the account {fields['accountname']!r}, not for {account!r}",
            resource=name,
        )
    if not spec.endpoint and "suffix" not in spec.options:
        scheme = fields.get("defaultendpointsprotocol", "https")
        host = f"{scheme}://{account}.blob.{fields.get('endpointsuffix', SUFFIX)}"
        url = fields.get("blobendpoint", host).rstrip("/")
    if key := fields.get("accountkey"):
        return _Access(url, {"account_name": account, "account_key": _key(key, name)}, key)
    if sas := fields.get("sharedaccesssignature"):
        return _Access(url, _sas(sas, name))
    raise ConfigError(
        f"the 'connectionString' of integration {name!r} holds neither AccountKey nor SharedAccessSignature",
        resource=name,
    )


def _key(key: str, name: str) -> str:
    try:
        base64.b64decode(key, validate=True)
    except ValueError:  # not chained: it may quote the key
        raise ConfigError(
            f"the account key of integration {name!r} is not base64", resource=name, hint="copy it again"
        ) from None
    return key


def _sas(sas: str, name: str) -> Any:
    """The token, of a whole URL as well."""
    from azure.core.credentials import AzureSasCredential

    token = sas.rpartition("?")[2]
    if not parse_qs(token).get("sig"):
        raise ConfigError(
            f"the 'sas' of integration {name!r} has no signature", resource=name, hint="copy it again"
        )
    return AzureSasCredential(token)  # added to each request; never in a URL that a message might quote


_KINDS = {"HEAD": "head", "PUT": "put", "DELETE": "delete"}


def _kind(request: Any) -> str:
    """What an HTTP request is counted as."""
    return _KINDS.get(request.method) or ("list" if request.query.get("comp") == "list" else "get")


def _tier(spec: DriverSpec) -> Any:
    if spec.storage_class is None:
        return None
    from azure.storage.blob import StandardBlobTier

    for tier in StandardBlobTier:
        if tier.value.lower() == spec.storage_class.lower():
            return tier
    known = ", ".join(tier.value for tier in StandardBlobTier)
    raise ConfigError(
        f"storage_class={spec.storage_class} is no access tier",
        resource=spec.bucket,
        hint=f"known are {known}",
    )


def _flag(spec: DriverSpec, name: str) -> bool:
    value = spec.options.get(name, "no").lower()
    if value not in {"yes", "true", "1", "no", "false", "0", ""}:
        raise ConfigError(f"{name}={value} is neither yes nor no", resource=spec.bucket)
    return value in {"yes", "true", "1"}


def _raise_for(answer: Any, *fine: int) -> None:
    from azure.core.exceptions import HttpResponseError

    if answer.status_code not in fine:
        with contextlib.closing(answer):
            raise HttpResponseError(response=answer)


def _reader(chunks: Iterator[bytes]) -> Callable[[int], bytes]:
    """`read` of a stream that comes in pieces."""
    current = io.BytesIO()

    def read(size: int) -> bytes:
        nonlocal current
        while not (data := current.read(size)):
            if not (chunk := next(chunks, b"")):
                return b""
            current = io.BytesIO(chunk)
        return data

    return read


def open_driver(spec: DriverSpec, integration: Integration | None = None) -> AzureDriver:
    """Open a container. No request is sent yet.

    :raises ConfigError: the integration, the URL or a setting does not fit.
    """
    if find_spec("azure.storage.blob") is None:  # said at once, with the extra to install; loaded when used
        raise ModuleNotFoundError(name="azure.storage.blob")
    # Credentials go to the host that these make up.
    suffix, endpoint = spec.options.get("suffix", SUFFIX), spec.endpoint
    if not re.fullmatch(r"[\w.-]+/(\$root|\$web|\$logs|[\w-]+)", spec.bucket, re.ASCII):
        raise ConfigError(f"{spec.bucket!r} is no account and container", resource=spec.bucket, hint=USAGE)
    if not re.fullmatch(r"[\w.-]+", suffix, re.ASCII):
        raise ConfigError(f"suffix={suffix} is not the end of a host name", resource=spec.bucket)
    if endpoint and not re.fullmatch(r"https?://[^/?#]+(/[^?#]*)?", endpoint):
        raise ConfigError(
            f"the endpoint of {spec.bucket} is not usable",  # not quoted: it may hold a signature
            resource=spec.bucket,
            hint="write https://host/path, without parameters",
        )
    return AzureDriver(spec, integration)
