"""Google Cloud Storage: ``gs://bucket/path``."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, BinaryIO, Literal, cast
from urllib.parse import quote

from syncagent.drivers.base import Capabilities
from syncagent.drivers.streams import Body, read_full
from syncagent.errors import (
    AccessDenied,
    AlreadyExists,
    ConfigError,
    InvalidInput,
    NotFound,
    SyncAgentError,
    Transient,
    Unsupported,
)
from syncagent.model import DriverSpec, Integration, ObjectInfo

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
_FIELDS = "name,size,generation,metageneration,updated,etag,md5Hash,contentType,storageClass"
_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
_PAGE = 5000
_PART = 8 * 1024 * 1024
_DEADLINE = 60.0
_new = tuple.__new__


class GcsDriver:
    """`Driver` over google-cloud-storage: its credentials, session, retries and uploads; our parsing of pages."""

    caps = Capabilities(
        sorted_listing=True,
        conditional_put=True,
        signs=True,
        content_type_in_listing=True,
        any_key=True,
    )

    def __init__(self, spec: DriverSpec, integration: Integration | None = None) -> None:
        self._bucket = spec.bucket
        self._spec = spec
        self._lock = threading.Lock()
        self._made: Any = None
        self._credentials = _credentials(spec, integration)
        self.requests: Counter[str] = Counter()
        signs = hasattr(self._credentials, "sign_bytes")
        self.caps = replace(self.caps, signs=signs, prices=() if spec.endpoint else _PRICES)

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
            "fields": f"nextPageToken,items({_FIELDS})",
        }
        if after:
            given["startOffset"] = after  # inclusive here: the key itself is dropped below
        while True:
            with self._translated("list", self._bucket):
                answer = self._request("list", "GET", self._url(), params=given)
            objects, token = _parse_page(answer.content, self._bucket)
            if after and objects and objects[0].key == after:
                objects = objects[1:]
            if objects:
                yield objects
            if token is None or (until is not None and objects and objects[-1].key >= until):
                return
            given["pageToken"] = token

    def stat(self, key: str) -> ObjectInfo:
        """See `Driver.stat`."""
        with self._translated("head", key):
            answer = self._request(
                "head", "GET", self._url(key), params={"projection": "noAcl", "fields": _FIELDS}
            )
            return _info(answer.json())

    def open(
        self, key: str, *, offset: int = 0, length: int | None = None
    ) -> contextlib.AbstractContextManager[BinaryIO]:
        """See `Driver.open`."""
        if length == 0:
            self.stat(key)
            return contextlib.nullcontext(io.BytesIO())
        headers = {"Accept-Encoding": "identity"}
        if offset or length is not None:
            headers["Range"] = f"bytes={offset}-{'' if length is None else offset + length - 1}"
        try:
            with self._translated("get", key):
                answer = self._request(
                    "get", "GET", self._url(key), params={"alt": "media"}, headers=headers, stream=True
                )
        except _PastEnd:
            return contextlib.nullcontext(io.BytesIO())
        return contextlib.closing(
            cast(BinaryIO, Body(answer.raw.read, answer.close, lambda: self._translated("get", key)))
        )

    def put(
        self, key: str, body: BinaryIO, *, content_type: str | None = None, if_absent: bool = False
    ) -> ObjectInfo:
        """See `Driver.put`. Large objects go up resumably; a checksum is sent along."""
        if "\n" in key or "\r" in key or key in {".", ".."}:
            raise InvalidInput(f"Google Cloud Storage cannot hold the key {key!r}", resource=key)
        with self._translated("put", key):
            self.requests["put"] += 1
            blob = self._client().bucket(self._bucket, user_project=self._pays()).blob(key)
            if self._spec.storage_class:
                blob.storage_class = self._spec.storage_class
            stream, size = _sized(body)
            blob.upload_from_file(
                stream,
                size=size,  # known and small: one request, in which the condition is checked as well
                content_type=content_type or "application/octet-stream",
                if_generation_match=0 if if_absent else None,
                checksum="crc32c",
            )
        return self.stat(key)

    def delete(self, key: str) -> None:
        """See `Driver.delete`."""
        with contextlib.suppress(_Missing), self._translated("delete", key):
            self._request("delete", "DELETE", self._url(key))

    def sign(self, key: str, *, expires: timedelta, method: Literal["GET", "PUT"] = "GET") -> str:
        """See `Driver.sign`. Needs a service account's key."""
        if not self.caps.signs:
            raise Unsupported(
                "these gs:// credentials cannot sign URLs", resource=key, hint="use a service account"
            )
        with self._translated("get", key):
            blob = self._client().bucket(self._bucket, user_project=self._pays()).blob(key)
            url: str = blob.generate_signed_url(version="v4", expiration=expires, method=method)
        return url

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
                    from google.cloud import storage

                    endpoint = self._spec.endpoint
                    options = {"api_endpoint": endpoint} if endpoint else None
                    self._made = storage.Client(
                        project=self._spec.options.get("project", "syncagent"),
                        credentials=self._credentials,
                        client_options=options,
                    )
        return self._made

    def _pays(self) -> str | None:
        return self._spec.options.get("user_project")

    def _url(self, key: str | None = None) -> str:
        host = (self._spec.endpoint or "https://storage.googleapis.com").rstrip("/")
        base = f"{host}/storage/v1/b/{quote(self._bucket, safe='')}/o"
        return base if key is None else f"{base}/{quote(key, safe='')}"

    def _request(self, kind: str, method: str, url: str, **given: Any) -> Any:
        """One call through the SDK's authorized session, with its kind of retry.

        :raises google.api_core.exceptions.GoogleAPICallError: the service's answer is an error.
        """
        from google.api_core import exceptions, retry

        params = given.setdefault("params", {})
        if pays := self._pays():
            params["userProject"] = pays
        session = self._client()._http  # the SDK's own session: it signs and refreshes

        def send() -> Any:
            self.requests[kind] += 1
            answer = session.request(method, url, timeout=(10, 60), **given)
            if answer.status_code >= 400:
                with contextlib.closing(answer):
                    make: Any = exceptions.from_http_response
                    raise make(answer)
            return answer

        return retry.Retry(predicate=_worth_retrying, initial=0.2, maximum=10.0, timeout=_DEADLINE)(send)()

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
        import requests
        import urllib3
        from google.api_core import exceptions
        from google.auth import exceptions as auth

        bucket = self._bucket
        if isinstance(error, exceptions.RetryError) and isinstance(error.cause, Exception):
            error = error.cause
        status = getattr(error, "code", None) if isinstance(error, exceptions.GoogleAPICallError) else None
        if status is None:  # uploads raise the session's own kind of error
            status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, auth.RefreshError | auth.DefaultCredentialsError):
            return AccessDenied(
                f"no usable Google credentials for bucket {bucket}",
                resource=resource,
                hint="run 'gcloud auth application-default login', or pass --integration",
            )
        if isinstance(error, requests.ConnectionError | requests.Timeout | auth.TransportError):
            where = self._spec.endpoint or "Google Cloud Storage"
            return Transient(
                f"cannot reach {where}", resource=resource, hint="check the endpoint and the network"
            )
        if status == 416:
            return _PastEnd("past the end", resource=resource)
        if status == 404:
            if kind == "list":
                return NotFound(f"no such bucket: {bucket}", resource=bucket, hint="check the name")
            return _Missing(f"no object {resource!r} in bucket {bucket}", resource=resource)
        if status == 412:
            return AlreadyExists(f"{resource!r} is already there", resource=resource)
        if status == 401:
            return AccessDenied(
                f"Google does not accept the credentials for bucket {bucket}",
                resource=resource,
                hint="they may have expired: renew them",
            )
        if status == 403:
            action = _ACTIONS[kind]
            what = f"bucket {bucket}" if kind == "list" else f"{resource!r} in bucket {bucket}"
            return AccessDenied(
                f"not allowed: {action} on {what}",
                resource=resource,
                hint=f"'syncagent doctor gs://{bucket}' shows the role to grant",
                permission=action,
            )
        if status in {408, 429} or (status or 0) >= 500:
            return Transient(
                f"Google Cloud Storage is busy ({status}) on bucket {bucket}",
                resource=resource,
                hint="try again later",
            )
        if status == 400:
            return ConfigError(
                f"Google Cloud Storage refuses bucket {bucket} or key {resource!r}", resource=resource
            )
        if isinstance(error, requests.RequestException | urllib3.exceptions.HTTPError):
            return Transient(
                f"the connection to bucket {bucket} failed: {type(error).__name__}", resource=resource
            )
        return SyncAgentError(
            f"Google Cloud Storage failed on {resource!r}: {type(error).__name__}", resource=resource
        )


class _PastEnd(SyncAgentError):
    """A range that begins after the object's end."""


class _Missing(NotFound):
    """The object is not there."""


def _sized(body: BinaryIO) -> tuple[BinaryIO, int | None]:
    """A stream that the SDK can rewind, and its size if it is one part only."""
    first = read_full(body, _PART)
    if len(first) < _PART:
        return io.BytesIO(first), len(first)
    if body.seekable():
        body.seek(-len(first), io.SEEK_CUR)
        return body, None
    spooled = tempfile.TemporaryFile()  # noqa: SIM115  # the garbage collector closes it after the upload
    spooled.write(first)
    shutil.copyfileobj(body, spooled)
    spooled.seek(0)
    return cast(BinaryIO, spooled), None


def _worth_retrying(error: Exception) -> bool:
    import requests
    from google.api_core import exceptions

    if isinstance(error, exceptions.GoogleAPICallError):
        return error.code in {408, 429, 500, 502, 503, 504}
    # A server that is not there at all will not be there in a second either: say so at once.
    return isinstance(error, requests.exceptions.ChunkedEncodingError | requests.exceptions.ReadTimeout)


def _parse_page(body: bytes, resource: str) -> tuple[list[ObjectInfo], str | None]:
    """Objects and the next page's token.

    :raises Transient: the page is cut off.
    """
    try:
        page = json.loads(body)
        objects = [
            _new(
                ObjectInfo,
                (
                    item["name"],
                    f"{item['generation']}.{item.get('metageneration') or 1}",
                    int(item["size"]),
                    f"{item['updated'][:19]}Z",
                    item.get("etag"),
                    item["generation"],
                    f"md5:{item['md5Hash']}" if "md5Hash" in item else None,
                    item.get("contentType"),
                    item.get("storageClass"),
                ),
            )
            for item in page.get("items", ())
        ]
        return objects, page.get("nextPageToken") or None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Transient(
            f"a listing page of {resource} is cut off", resource=resource, hint="run it again"
        ) from error


def _info(item: dict[str, Any]) -> ObjectInfo:
    objects, _ = _parse_page(json.dumps({"items": [item]}).encode(), str(item.get("name")))
    return objects[0]


def _credentials(spec: DriverSpec, integration: Integration | None) -> Any:
    """Credentials of the integration, none at all, or None for the SDK's own chain."""
    from google.auth.credentials import AnonymousCredentials

    anonymous: Any = AnonymousCredentials

    if integration is None:
        if spec.options.get("anonymous", "no") == "yes" or spec.endpoint:
            return anonymous()
        return None
    if integration.type != "gcs":
        raise ConfigError(
            f"integration {integration.name!r} is of type {integration.type}, and gs:// needs gcs",
            resource=integration.name,
        )
    from google.auth import exceptions as auth

    try:
        content = json.loads(integration.options["content"])
        if content.get("type") == "authorized_user":
            from google.oauth2 import credentials as user

            kind: Any = user.Credentials
            return kind.from_authorized_user_info(content, scopes=[_SCOPE])
        from google.oauth2 import service_account

        account: Any = service_account.Credentials
        return account.from_service_account_info(content, scopes=[_SCOPE])
    except (KeyError, ValueError, TypeError, AttributeError, auth.GoogleAuthError):
        # Not chained: the error may quote the key.
        raise ConfigError(
            f"the 'content' of integration {integration.name!r} is no service account's JSON",
            resource=integration.name,
        ) from None


def open_driver(spec: DriverSpec, integration: Integration | None = None) -> GcsDriver:
    """Open a bucket. No request is sent yet.

    :raises ConfigError: the integration does not fit.
    """
    import google.cloud.storage  # noqa: F401  # missing: said at once, with the extra to install

    return GcsDriver(spec, integration)
