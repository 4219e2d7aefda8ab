"""Google Cloud Storage: ``gs://bucket/path``."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import re
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from importlib.util import find_spec
from typing import Any, BinaryIO, Literal, cast
from urllib.parse import quote

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
from syncagent.retry import retrying

USAGE = "write gs://bucket/path"
OPTIONS = {
    "anonymous": "yes: send no credentials, for public buckets",
    "project": "the project that the requests belong to",
    "user_project": "the project that pays, for requester-pays buckets",
}
_PRICES = (("list", 0.005), ("put", 0.005), ("head", 0.0004), ("get", 0.0004), ("delete", 0.0))
_ACTIONS = {
    "list": "storage.objects.list",
    "head": "storage.objects.get",
    "get": "storage.objects.get",
    "put": "storage.objects.create",
    "delete": "storage.objects.delete",
}
# Google's answers often name the permission, which may be another than the usual one: an overwrite needs delete.
_NAMED = re.compile(
    r"\b(?:storage\.(?:objects|buckets|folders|multipartUploads)|serviceusage\.services)\.\w+"
)
_BUSY = {408, 429, 500, 502, 503, 504}
_NO_KEY = {"", ".", ".."}  # in a URL they would name the listing, or the bucket itself
_FIELDS = "name,size,generation,metageneration,updated,etag,md5Hash,contentType,storageClass"
_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
_HOST = "https://storage.googleapis.com"
_HOSTS = ("STORAGE_EMULATOR_HOST", "API_ENDPOINT_OVERRIDE")  # the SDK's own variables, in its order
_PAGE = 5000
_PART = 8 * 1024 * 1024
_DEADLINE = 60.0
_ATTEMPTS = 20  # some half a minute, with their pauses
_LONGEST = timedelta(days=7)
_ODD = ValueError  # what JSON of another shape ends in
_new = tuple.__new__


class GcsDriver:
    """`Driver` over google-cloud-storage: its credentials, session, retries and uploads; our parsing of pages.

    What is public, and a function's own account, it reads without the SDK's client: see `_plain_session`.
    """

    caps = Capabilities(
        sorted_listing=True,
        conditional_put=True,
        signs=True,
        content_type_in_listing=True,
        any_key=True,
        ranges=True,
    )

    def __init__(self, spec: DriverSpec, integration: Integration | None = None) -> None:
        self._bucket = spec.bucket
        self._spec = spec
        self._lock = threading.Lock()
        self._made: Any = None
        self._plain = _plain_session(spec, integration)
        self._credentials = None if self._plain else credentials_of(spec, integration)
        self.requests: Counter[str] = Counter()
        self.caps = replace(
            self.caps, signs=_signs(self._credentials), prices=() if spec.endpoint else _PRICES
        )

    def __repr__(self) -> str:
        return f"<GcsDriver {self._bucket}>"

    def list(
        self, prefix: str = "", *, after: str | None = None, until: str | None = None
    ) -> Iterator[list[ObjectInfo]]:
        """See `Driver.list`. One request a page of at most 5,000."""
        given = {
            "prefix": prefix,
            "maxResults": str(_PAGE),
            "projection": "noAcl",
            "prettyPrint": "false",
            "fields": f"nextPageToken,items({_FIELDS})",
        }
        if after:
            given["startOffset"] = after  # inclusive here
        while True:
            with self._translated("list", self._bucket):
                body = self._request("list", "GET", self._url(), take=_body, params=given, stream=True)
            objects, token = _parse_page(body, self._bucket)
            if after and objects and objects[0].key <= after:  # the key itself, or all: some ignore the bound
                objects = [found for found in objects if found.key > after]
            if objects:
                yield objects
            if token is None or (until is not None and objects and last_key(objects) >= until):
                return
            if token == given.get("pageToken"):
                raise Transient(f"the listing of {self._bucket} goes round in circles", resource=self._bucket)
            given["pageToken"] = token

    def stat(self, key: str) -> ObjectInfo:
        """See `Driver.stat`."""
        with self._translated("head", key):
            answer = self._request(
                "head", "GET", self._url(key), params={"projection": "noAcl", "fields": _FIELDS}
            )
            body = answer.content
        try:
            return _objects([_decoders()[1].decode(body)])[0]
        except _ODD as error:
            raise Transient(f"the answer about {key!r} is cut off", resource=key) from error

    def open(
        self, key: str, *, offset: int = 0, length: int | None = None
    ) -> contextlib.AbstractContextManager[BinaryIO]:
        """See `Driver.open`."""
        if length == 0:
            self.stat(key)
            return contextlib.nullcontext(io.BytesIO())
        # Without this, Google unpacks what is stored packed: other bytes than `size` says, and no ranges.
        headers = {"Accept-Encoding": "gzip"}
        if offset or length is not None:
            headers["Range"] = f"bytes={offset}-{'' if length is None else offset + length - 1}"
        try:
            with self._translated("get", key):
                answer = self._request(
                    "get", "GET", self._url(key), params={"alt": "media"}, headers=headers, stream=True
                )
        except _PastEnd:
            return contextlib.nullcontext(io.BytesIO())
        if "Range" in headers and answer.status_code != 206:
            answer.close()
            raise SyncAgentError(f"the server sent all of {key!r} instead of a range", resource=key)
        return contextlib.closing(
            cast(BinaryIO, Body(answer.raw.read, answer.close, lambda: self._translated("get", key)))
        )

    def put(
        self, key: str, body: BinaryIO, *, content_type: str | None = None, if_absent: bool = False
    ) -> ObjectInfo:
        """See `Driver.put`. Large objects go up resumably; a checksum is sent along."""
        if "\n" in key or "\r" in key or key in _NO_KEY:
            raise InvalidInput(f"Google Cloud Storage cannot hold the key {key!r}", resource=key)
        with self._translated("put", key), _sized(body) as (stream, size):
            self.requests["put"] += 1
            blob = self._blob(key)
            if self._spec.storage_class:
                blob.storage_class = self._spec.storage_class
            blob.upload_from_file(
                stream,
                size=size,  # known and small: one request, in which the condition is checked as well
                content_type=content_type or "application/octet-stream",
                if_generation_match=0 if if_absent else None,
                checksum="crc32c",
                retry=_retry(),
            )
        return self.stat(key)

    def delete(self, key: str) -> None:
        """See `Driver.delete`."""
        with contextlib.suppress(_MissingObject), self._translated("delete", key):
            self._request("delete", "DELETE", self._url(key))

    def sign(self, key: str, *, expires: timedelta, method: Literal["GET", "PUT"] = "GET") -> str:
        """See `Driver.sign`. Needs a service account's key."""
        if not self.caps.signs:
            raise Unsupported(
                "these gs:// credentials cannot sign URLs", resource=key, hint="use a service account"
            )
        if expires > _LONGEST:
            raise InvalidInput(f"Google signs for 7 days at most, not for {expires}", resource=key)
        with self._translated("get", key):
            url: str = self._blob(key).generate_signed_url(version="v4", expiration=expires, method=method)
        return url

    def close(self) -> None:
        """See `Driver.close`."""
        with self._lock:
            if self._made is not None:
                self._made.close()
            if self._plain is not None:
                self._plain.close()

    # -- the client ------------------------------------------------------------------------------

    def prepare(self) -> None:
        """See `Bucket.prepare`."""
        with self._translated("list", self._bucket):
            self._session()

    def _client(self) -> Any:
        if self._made is None:
            with self._lock:
                if self._made is None:
                    from google.cloud import storage

                    endpoint = self._spec.endpoint
                    options = {"api_endpoint": endpoint.rstrip("/")} if endpoint else None
                    made = storage.Client(
                        project=self._spec.options.get("project", "syncagent"),
                        credentials=self._credentials or credentials_of(self._spec, None),
                        client_options=options,
                    )
                    # 3.17.1 (seen) asks for the bucket in a thread before an upload, to label traces: a request
                    # that nobody counts, pays for or has the permission for.
                    made._bucket_metadata_cache = None
                    self._made = made
        return self._made

    def _session(self) -> Any:
        """What sends requests: the SDK's own session, which signs and refreshes, where there is anything to sign with."""
        return self._client()._http if self._plain is None else self._plain

    def _host(self) -> str:
        if self._plain is None:
            # The client's own idea of the host: STORAGE_EMULATOR_HOST and other universes are in it.
            return str(self._client().api_endpoint)
        host = self._spec.endpoint or next(filter(None, map(os.environ.get, _HOSTS)), _HOST)
        return host.rstrip("/")

    def _pays(self) -> str | None:
        return self._spec.options.get("user_project")

    def _blob(self, key: str) -> Any:
        return self._client().bucket(self._bucket, user_project=self._pays()).blob(key)

    def _url(self, key: str | None = None) -> str:
        base = f"{self._host()}/storage/v1/b/{quote(self._bucket, safe='')}/o"
        if key is None:
            return base
        if key in _NO_KEY:
            raise self._missing(key) from KeyError(key)
        return f"{base}/{quote(key, safe='')}"

    def _request(
        self, kind: str, method: str, url: str, *, take: Callable[[Any], Any] | None = None, **given: Any
    ) -> Any:
        """One call, tried again where that helps: the SDK's session does not.

        :param take: makes the result from the answer, and is tried again with it.
        :raises _Refusal: the service's answer is an error.
        """
        params = given.setdefault("params", {})
        if pays := self._pays():
            params["userProject"] = pays
        session = self._session()

        def send() -> Any:
            self.requests[kind] += 1
            answer = session.request(
                method, url, timeout=(10, 60), hooks={"response": _read_refusal}, **given
            )
            if answer.status_code >= 400:
                raise _Refusal(answer)
            return answer if take is None else take(answer)

        return retrying(send, attempts=_ATTEMPTS, seconds=_DEADLINE, when=_worth_retrying)()

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
        import requests
        import urllib3
        from google.auth import exceptions as auth
        from requests import exceptions as bad

        bucket, failed = self._bucket, requests.RequestException | urllib3.exceptions.HTTPError
        if kind == "put":  # by the SDK's client, which a function never loads
            from google.api_core import exceptions
            from google.cloud.storage.exceptions import DataCorruption

            if isinstance(error, exceptions.RetryError) and isinstance(error.cause, Exception):
                error = error.cause
            if isinstance(error, DataCorruption):
                return Transient(
                    f"{resource!r} was damaged on its way to bucket {bucket}",
                    resource=resource,
                    hint="try again",
                )
            failed |= exceptions.GoogleAPIError
        if (status := _status(error)) is not None:
            return self._translate_answer(error, status, kind, resource)
        if isinstance(error, auth.InvalidOperation):  # no credentials, and 401 made the session renew them
            return self._translate_answer(error, 401, kind, resource)
        if isinstance(error, bad.MissingSchema | bad.InvalidSchema | bad.InvalidURL):
            return ConfigError(
                f"{self._spec.endpoint} is not a usable endpoint", resource=resource, hint="http or https?"
            )
        if isinstance(
            error,
            requests.ConnectionError | requests.ConnectTimeout | auth.TransportError | auth.TimeoutError,
        ) or (isinstance(error, auth.RefreshError) and error.retryable):
            where = self._spec.endpoint or "Google Cloud Storage"
            return Transient(
                f"cannot reach {where} for bucket {bucket}",
                resource=resource,
                hint="check the endpoint and the network",
            )
        if isinstance(error, auth.GoogleAuthError):
            return AccessDenied(
                f"no usable Google credentials for bucket {bucket}",
                resource=resource,
                hint="run 'gcloud auth application-default login', or pass --integration",
            )
        if isinstance(error, failed):
            return Transient(
                f"the connection to bucket {bucket} failed: {type(error).__name__}",
                resource=resource,
                hint="try again",
            )
        return None

    def _missing(self, key: str) -> _MissingObject:
        return _MissingObject(
            f"no object {key!r} in bucket {self._bucket}", resource=key, hint="check the key"
        )

    def _translate_answer(self, error: Any, status: int, kind: str, resource: str) -> SyncAgentError:
        bucket = self._bucket
        told = str(getattr(error, "message", ""))  # read, never repeated: it may quote what was sent
        if status == 416:
            return _PastEnd("past the end", resource=resource)
        if status == 404 and (kind in {"list", "put"} or "bucket does not exist" in told):
            return NotFound(f"no such bucket: {bucket}", resource=bucket, hint="check the name")
        if status == 404:
            return self._missing(resource)
        if status == 412:
            return AlreadyExists(
                f"{resource!r} is already there in bucket {bucket}",
                resource=resource,
                hint="delete it first, or choose another name",
            )
        if status == 409:
            return Conflict(
                f"{resource!r} in bucket {bucket} is being written by somebody else",
                resource=resource,
                hint="try again",
            )
        if status in {401, 403}:
            named = _NAMED.search(told)
            action = named[0] if named else _ACTIONS[kind]
            what = f"bucket {bucket}" if kind == "list" else f"{resource!r} in bucket {bucket}"
            renew = "the credentials are missing, or have expired: renew them, or pass --integration"
            return AccessDenied(
                f"not allowed: {action} on {what}",
                resource=resource,
                hint=renew if status == 401 else f"'syncagent doctor gs://{bucket}' shows the role to grant",
                permission=action,
            )
        if status in {408, 429} or status >= 500:
            after = error.response.headers.get("Retry-After", "")
            return Transient(
                f"Google Cloud Storage is busy ({status}) on bucket {bucket}",
                resource=resource,
                hint="try again later",
                retry_after=float(after) if after.isdecimal() else None,
            )
        if status == 400 and "requester pays" in told.lower():
            return ConfigError(
                f"requests to bucket {bucket} are paid by the requester",
                resource=resource,
                hint="open it with ?user_project= and the project that pays",
            )
        if status == 400:
            made = ConfigError if kind == "list" else InvalidInput
            what = f"bucket {bucket}" if kind == "list" else f"the key {resource!r} in bucket {bucket}"
            return made(f"Google Cloud Storage cannot take {what}", resource=resource, hint="check the name")
        return SyncAgentError(
            f"Google Cloud Storage answered {status} for {resource!r} in bucket {bucket}", resource=resource
        )


class _Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, response: Any) -> None:
        super().__init__(f"the service answered {response.status_code}")
        self.response = response
        self.message = response.content.decode(errors="replace")
        after = response.headers.get("Retry-After", "")
        self.retry_after = float(after) if after.isdecimal() else None
        """Seconds that the server asks for."""


class _PastEnd(SyncAgentError):
    """A range that begins after the object's end."""


class _MissingObject(NotFound):
    """The object is not there."""


@contextlib.contextmanager
def _sized(body: BinaryIO) -> Generator[tuple[BinaryIO, int | None], None, None]:
    """A stream at its beginning that the SDK can rewind, and its size if it is one part only."""
    first = read_full(body, _PART)
    if len(first) < _PART:
        yield io.BytesIO(first), len(first)
    elif body.seekable() and body.tell() == len(first):
        body.seek(0)
        yield body, None
    else:
        with tempfile.TemporaryFile() as spooled:
            spooled.write(first)
            shutil.copyfileobj(body, spooled)
            spooled.seek(0)
            yield cast(BinaryIO, spooled), None


def _body(answer: Any) -> Any:
    """In one piece: `content` would join it from a hundred small ones."""
    with contextlib.closing(answer):
        return answer.raw.read(decode_content=True)


def _read_refusal(answer: Any, **_: Any) -> None:
    """Read an error to its end: the session forgets a 401 to renew the credentials, and its connection with it."""
    if answer.status_code >= 400:
        _ = answer.content


def _retry() -> Any:
    """The SDK's own kind of retry, for what its client sends: its budget is the only one there."""
    from google.api_core import retry

    return retry.Retry(predicate=_worth_retrying, initial=0.2, maximum=10.0, timeout=_DEADLINE)


def _status(error: BaseException) -> int | None:
    """The HTTP status, where the error is an answer: both kinds of the SDK's errors hold the response."""
    status: int | None = getattr(getattr(error, "response", None), "status_code", None)
    return status


def _worth_retrying(error: BaseException) -> bool:
    import requests
    import urllib3

    if (status := _status(error)) is not None:
        return status in _BUSY
    if isinstance(error, requests.ConnectionError):
        # A connection that was lost. A server that is not there at all will not be there in a second either.
        return bool(error.args) and isinstance(error.args[0], urllib3.exceptions.ProtocolError)
    cut = requests.exceptions.ChunkedEncodingError | requests.exceptions.ReadTimeout
    raw = urllib3.exceptions.ProtocolError | urllib3.exceptions.ReadTimeoutError  # the same, of a page
    return isinstance(error, cut | raw)


@functools.cache
def _decoders() -> tuple[Any, Any]:
    """Of a listing page, and of one object's resource; made at first use: whoever imports another driver need not
    have msgspec."""
    import msgspec

    # Typed: no dict of an object is ever made, and no garbage collector looks at what holds strings only.
    item = msgspec.defstruct(
        "Item",
        [
            ("name", str),
            ("generation", str),
            ("size", int),
            ("updated", str),
            ("metageneration", str | None, None),  # null from some emulators
            ("etag", str | None, None),
            ("md5Hash", str | None, None),
            ("contentType", str | None, None),
            ("storageClass", str | None, None),
        ],
        gc=False,
    )
    page = msgspec.defstruct(
        "Page",
        [
            ("items", list[item], msgspec.field(default_factory=list)),  # type: ignore[valid-type]
            ("nextPageToken", str | None, None),
            ("kind", str | None, None),
            ("prefixes", msgspec.Raw | None, None),
        ],
        forbid_unknown_fields=True,  # an error in a page's place would read as an empty bucket
    )
    # Not strict: sizes come as strings, by this service's rule for 64-bit integers.
    return msgspec.json.Decoder(page, strict=False), msgspec.json.Decoder(item, strict=False)


def _parse_page(body: bytes, resource: str) -> tuple[list[ObjectInfo], str | None]:
    """Objects and the next page's token.

    :raises Transient: the page is cut off, or is something else.
    """
    try:
        page = _decoders()[0].decode(body)
        return _objects(page.items), page.nextPageToken or None
    except _ODD as error:
        raise Transient(
            f"a listing page of {resource} is cut off, or something else",
            resource=resource,
            hint="run it again",
        ) from error


def _objects(items: Iterable[Any]) -> list[ObjectInfo]:
    # One comprehension, and a bare tuple each: this is where a listing spends its time.
    return [
        _new(
            ObjectInfo,
            (
                item.name,
                f"{item.generation}.{item.metageneration or 1}",
                item.size,
                f"{item.updated[:19]}Z",
                item.etag,
                item.generation,
                f"md5:{item.md5Hash}" if item.md5Hash is not None else None,
                item.contentType,
                item.storageClass,
            ),
        )
        for item in items
    ]


def _flag(spec: DriverSpec, name: str) -> bool:
    value = spec.options.get(name, "no").lower()
    if value not in {"yes", "true", "1", "no", "false", "0", ""}:
        raise ConfigError(f"{name}={value} is neither yes nor no", resource=spec.bucket)
    return value in {"yes", "true", "1"}


def _plain_session(spec: DriverSpec, integration: Integration | None) -> Any:
    """A session without the SDK where it has nothing to sign, or the metadata server's tokens; else None.

    The SDK's loads what signs and what uploads, which a function that looks at objects never needs.
    """
    public = _flag(spec, "anonymous") or bool(spec.endpoint)
    if integration is not None:
        return None
    from syncagent.drivers.gcs_metadata import Session, Token, in_function

    if public:
        return Session(None)
    if not in_function():
        return None
    return Session(None if os.environ.get(_HOSTS[0]) else Token(_SCOPE))


def _signs(credentials: Any) -> bool:
    """Whether credentials can sign URLs."""
    if credentials is None:
        return False
    from google.auth.credentials import Signing

    return isinstance(credentials, Signing)


def credentials_of(spec: DriverSpec, integration: Integration | None, scope: str = _SCOPE) -> Any:
    """Credentials of the integration, none at all, or None for the SDK's own chain."""
    import google.auth
    from google.auth.credentials import AnonymousCredentials
    from google.oauth2 import credentials, service_account

    user: Any = credentials.Credentials
    account: Any = service_account.Credentials
    anonymous: Any = AnonymousCredentials
    if integration is not None and integration.type != "gcs":
        raise ConfigError(
            f"integration {integration.name!r} is of type {integration.type}, and gs:// needs gcs",
            resource=integration.name,
        )
    if _flag(spec, "anonymous") or (integration is None and spec.endpoint):
        return anonymous()
    if integration is None:
        if not os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
            return None
        # A file: read now, to know whether it can sign. What else is in the chain may ask a metadata server.
        try:
            return google.auth.default(scopes=[scope])[0]
        except google.auth.exceptions.DefaultCredentialsError as error:
            raise ConfigError(
                "the file that GOOGLE_APPLICATION_CREDENTIALS names holds no credentials",
                resource=os.environ["GOOGLE_APPLICATION_CREDENTIALS"],
            ) from error
    try:
        content = json.loads(integration.options["content"])
        if content.get("type") == "authorized_user":
            return user.from_authorized_user_info(content, scopes=[scope])
        return account.from_service_account_info(content, scopes=[scope])
    except Exception:
        # Whatever is wrong with it. Not chained: the error may quote the key.
        raise ConfigError(
            f"the 'content' of integration {integration.name!r} is no service account's or user's JSON",
            resource=integration.name,
        ) from None


def open_driver(spec: DriverSpec, integration: Integration | None = None) -> GcsDriver:
    """Open a bucket. No request is sent yet.

    :raises ConfigError: the integration or the bucket's name does not fit.
    """
    if find_spec("google.cloud.storage") is None:  # said at once, with the extra to install; loaded when used
        raise ModuleNotFoundError(name="google.cloud.storage")
    if not re.fullmatch(r"\w[\w.-]*", spec.bucket, re.ASCII):
        raise ConfigError(f"{spec.bucket!r} is not a bucket's name", resource=spec.bucket)
    return GcsDriver(spec, integration)
