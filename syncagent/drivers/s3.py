"""Amazon S3 and what speaks its protocol: ``s3://bucket/path``."""

from __future__ import annotations

import contextlib
import io
import re
import threading
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO, Literal, cast

from syncagent.drivers.base import Capabilities
from syncagent.drivers.s3_follow import Follow, whole
from syncagent.drivers.s3_pages import parse_page
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

USAGE = "write s3://bucket/path"
OPTIONS = {
    "anonymous": "yes: send unsigned requests, for public buckets",
    "profile": "a profile of the AWS configuration files",
    "requester_pays": "yes: you pay for the requests",
}
_PRICES = (("list", 0.005), ("put", 0.005), ("head", 0.0004), ("get", 0.0004), ("delete", 0.0))
_MD5_LENGTH = 32
_PART = 8 * 1024 * 1024
Parts = list[dict[str, Any]]
_ACTIONS = {
    "list": "s3:ListBucket",
    "head": "s3:GetObject",
    "get": "s3:GetObject",
    "put": "s3:PutObject",
    "delete": "s3:DeleteObject",
}
PERFORM = re.compile(r"not authorized to perform: ([a-z0-9-]+:[A-Za-z]+)")
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
BAD_KEY = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidClientTokenId"}
BUSY = {
    "SlowDown",
    "ServiceUnavailable",
    "InternalError",
    "RequestTimeout",
    "Throttling",
    "503",
    "500",
    "429",
}


class S3Driver:
    """`Driver` over boto3: its credentials, signing, retries and endpoints; our parsing of pages."""

    caps = Capabilities(
        sorted_listing=True,
        conditional_put=True,
        signs=True,
        content_type_in_listing=False,
        any_key=True,
        ranges=True,
    )

    def __init__(self, spec: DriverSpec, integration: Integration | None = None) -> None:
        self._bucket = spec.bucket
        self._spec = spec
        self._integration = integration
        self._pays = _flag(spec, "requester_pays")
        self._anonymous = _flag(spec, "anonymous")
        self._lock = threading.Lock()
        self._made: Any = None
        self._page = threading.local()
        self._credentials: Any = None
        self.requests: Counter[str] = Counter()
        # Directory buckets list in no order and cannot start at a key.
        ordered = not spec.bucket.endswith("--x-s3")
        self.caps = replace(
            self.caps,
            sorted_listing=ordered,
            signs=not self._anonymous,
            prices=() if spec.endpoint else _PRICES,
        )

    def __repr__(self) -> str:
        return f"<S3Driver {self._bucket}>"

    def list(
        self, prefix: str = "", *, after: str | None = None, until: str | None = None
    ) -> Iterator[Sequence[ObjectInfo]]:
        """See `Driver.list`. One request a page of 1,000."""
        given: dict[str, Any] = {**self._common(), "Prefix": prefix, "EncodingType": "url"}
        if after and self.caps.sorted_listing:
            given["StartAfter"] = after
        follow: Follow | None = None
        while True:
            body = None
            if follow is not None:
                self.requests["list"] += 1
                body = follow.page(given["ContinuationToken"])
            if body is None:
                with self._translated("list", self._bucket):
                    self.requests["list"] += 1
                    self._page.body = self._page.request = None
                    self._client().list_objects_v2(**given)
                    follow = Follow.after(self._page.request, self._client(), self._credentials)
                body = self._page.body
            if body is None:
                raise Transient(
                    f"{self._bucket} answered a listing with something else", resource=self._bucket
                )
            page = parse_page(body, self._bucket)
            if page.objects:
                yield page.objects
            if page.token is None:
                return
            if (
                until is not None
                and page.objects
                and last_key(page.objects) >= until
                and self.caps.sorted_listing
            ):
                return
            if page.token == given.get("ContinuationToken"):
                raise Transient(f"the listing of {self._bucket} goes round in circles", resource=self._bucket)
            given["ContinuationToken"] = page.token

    def stat(self, key: str) -> ObjectInfo:
        """See `Driver.stat`."""
        with self._translated("head", key):
            self.requests["head"] += 1
            return _info(key, self._client().head_object(**self._common(), Key=key))

    def open(
        self, key: str, *, offset: int = 0, length: int | None = None
    ) -> contextlib.AbstractContextManager[BinaryIO]:
        """See `Driver.open`."""
        given = {**self._common(), "Key": key}
        if length == 0:
            self.stat(key)
            return contextlib.nullcontext(io.BytesIO())
        if offset or length is not None:
            end = "" if length is None else offset + length - 1
            given["Range"] = f"bytes={offset}-{end}"
        try:
            with self._translated("get", key):
                self.requests["get"] += 1
                body = self._client().get_object(**given)["Body"]
        except _PastEnd:
            return contextlib.nullcontext(io.BytesIO())
        return contextlib.closing(
            cast(BinaryIO, Body(body.read, body.close, lambda: self._translated("get", key)))
        )

    def put(
        self, key: str, body: BinaryIO, *, content_type: str | None = None, if_absent: bool = False
    ) -> ObjectInfo:
        """See `Driver.put`. Objects above 8 MiB go up in parts, one after the other."""
        given: dict[str, Any] = {**self._common(), "Key": key}
        settings: dict[str, Any] = {}
        if content_type:
            settings["ContentType"] = content_type
        if self._spec.storage_class:
            settings["StorageClass"] = self._spec.storage_class
        condition = {"IfNoneMatch": "*"} if if_absent else {}
        first = read_full(body, _PART)
        with self._translated("put", key):
            if len(first) < _PART:
                self.requests["put"] += 1
                self._client().put_object(**given, **settings, **condition, Body=first)
            else:
                self._put_parts(given, settings, condition, first, body)
        return self.stat(key)

    def _put_parts(
        self,
        given: dict[str, Any],
        settings: dict[str, Any],
        condition: dict[str, Any],
        first: bytes,
        body: BinaryIO,
    ) -> None:
        client = self._client()
        self.requests["put"] += 2
        upload = client.create_multipart_upload(**given, **settings)["UploadId"]
        try:
            parts: Parts = []
            chunk = first
            while chunk:
                self.requests["put"] += 1
                number = len(parts) + 1
                part = client.upload_part(**given, UploadId=upload, PartNumber=number, Body=chunk)
                parts.append({"PartNumber": number, "ETag": part["ETag"]})
                chunk = read_full(body, _PART)
            client.complete_multipart_upload(
                **given, **condition, UploadId=upload, MultipartUpload={"Parts": parts}
            )
        except BaseException:
            # Parts of an upload that nobody completes are paid for.
            with contextlib.suppress(Exception):
                client.abort_multipart_upload(**given, UploadId=upload)
            raise

    def delete(self, key: str) -> None:
        """See `Driver.delete`."""
        with self._translated("delete", key):
            self.requests["delete"] += 1
            self._client().delete_object(**self._common(), Key=key)

    def sign(self, key: str, *, expires: timedelta, method: Literal["GET", "PUT"] = "GET") -> str:
        """See `Driver.sign`. Never longer than the credentials themselves live."""
        if self._anonymous:
            raise Unsupported("anonymous=yes has no credentials to sign with", resource=key)
        operation = {"GET": "get_object", "PUT": "put_object"}[method]
        with self._translated("get", key):
            url: str = self._client().generate_presigned_url(
                operation, Params={**self._common(), "Key": key}, ExpiresIn=int(expires.total_seconds())
            )
        return url

    def region(self) -> str:
        """The bucket's region: the URL's, or as S3 tells it.

        :raises SyncAgentError: there is no such bucket, or S3 cannot be asked.
        """
        with self._translated("list", self._bucket):
            return self._spec.region or str(self._client().meta.region_name)

    def close(self) -> None:
        """See `Driver.close`."""
        with self._lock:
            if self._made is not None:
                self._made.close()

    def _common(self) -> dict[str, Any]:
        return {"Bucket": self._bucket, **({"RequestPayer": "requester"} if self._pays else {})}

    # -- the client ------------------------------------------------------------------------------

    def prepare(self) -> None:
        """See `Bucket.prepare`."""
        with self._translated("list", self._bucket):
            self._client()

    def _client(self) -> Any:
        """The boto3 client, made at the first request: the region may have to be asked for."""
        if self._made is None:
            with self._lock:
                if self._made is None:
                    self._made = self._make_client()
        return self._made

    def _make_client(self) -> Any:
        session = session_of(self._spec, self._integration)
        self._credentials = session.get_credentials()
        region = self._spec.region
        if region is None:
            region = "us-east-1" if self._spec.endpoint else self._discover_region(session)
        client = client_of(session, "s3", self._spec, region)
        client.meta.events.register("before-send.s3.ListObjectsV2", self._keep_page(client))
        return client

    def _discover_region(self, session: Any) -> str:
        """Ask S3 where the bucket is: the answer names the region, also when it is a refusal."""
        from botocore.exceptions import ClientError

        client = client_of(session, "s3", self._spec, session.region_name or "us-east-1")
        try:
            answer = client.head_bucket(Bucket=self._bucket)
        except ClientError as error:
            answer = error.response
            if answer["ResponseMetadata"].get("HTTPStatusCode") not in {301, 307, 400, 403}:
                # The bucket is missing, or S3 is busy: a guess would stay for as long as this driver lives.
                raise self._translate_answer(error, "list", self._bucket) from error
        finally:
            client.close()
        headers = answer["ResponseMetadata"].get("HTTPHeaders", {})
        region: str = headers.get("x-amz-bucket-region") or session.region_name or "us-east-1"
        return region

    def _keep_page(self, client: Any) -> Any:
        """A `before-send` handler that takes list pages past botocore's parser. See docs/decisions/002."""
        from botocore.awsrequest import AWSResponse
        from botocore.exceptions import ConnectionClosedError

        session = client._endpoint.http_session

        class Empty(AWSResponse):  # type: ignore[misc]  # botocore is not typed
            """What botocore gets to parse instead."""

            content = b"<ListBucketResult></ListBucketResult>"

        def send(request: Any, **_: Any) -> Any:
            response = session.send(request)
            if response.status_code == 200 and b"<ListBucketResult" in response.content[:300]:
                if not whole(response.content):
                    # botocore does not check Content-Length; this way it tries again.
                    raise ConnectionClosedError(endpoint_url=request.url)
                self._page.body, self._page.request = response.content, request
                return Empty(response.url, 200, response.headers, None)
            return response  # an error: botocore knows what to retry and what to raise

        return send

    # -- errors ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _translated(self, kind: str, resource: str) -> Generator[None, None, None]:
        """The one place where botocore's errors become ours."""
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
        """Our error; None for one that is not botocore's, such as the uploaded file's own."""
        from botocore.exceptions import ClientError

        if isinstance(error, ClientError):
            return self._translate_answer(error, kind, resource)
        return sdk_error(error, f"bucket {self._bucket}", self._spec.endpoint, resource)

    def _translate_answer(self, error: Any, kind: str, resource: str) -> SyncAgentError:
        answer = error.response
        code = str(answer.get("Error", {}).get("Code", ""))
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        bucket = self._bucket
        region = answer.get("Error", {}).get("Region") or headers.get("x-amz-bucket-region")
        used = self._made.meta.region_name if self._made is not None else None
        if code == "InvalidRange" or status == 416:
            return _PastEnd("past the end", resource=resource)
        if (
            code
            in {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
            or status == 301
            or (code == "400" and region not in {None, used})  # a HEAD's answer has no body
        ):
            hint = f"open it with ?region={region}" if region else "open it with ?region= and its region"
            return ConfigError(
                f"bucket {bucket} is in {region or 'another region'}", resource=bucket, hint=hint
            )
        if code == "NoSuchBucket" or (status == 404 and kind == "list"):
            return NotFound(f"no such bucket: {bucket}", resource=bucket, hint="check the name")
        if status == 404:
            return NotFound(f"no object {resource!r} in bucket {bucket}", resource=resource)
        if code in {"PreconditionFailed", "412"} or status == 412:
            return AlreadyExists(f"{resource!r} is already there", resource=resource)
        if code == "ConditionalRequestConflict" or status == 409:
            return Conflict(f"{resource!r} is being written by somebody else", resource=resource)
        if code in EXPIRED:
            return AccessDenied(
                f"the credentials for bucket {bucket} have expired",
                resource=resource,
                hint="renew them and run it again",
            )
        if code in BAD_KEY:
            return AccessDenied(
                f"S3 does not accept the credentials for bucket {bucket} ({code})",
                resource=resource,
                hint="check the access key and the secret",
            )
        if code == "RequestTimeTooSkewed":
            return AccessDenied(
                "this machine's clock is wrong by minutes", resource=resource, hint="set the clock"
            )
        if code == "InvalidObjectState":
            return Unsupported(f"{resource!r} is archived", resource=resource, hint="restore it first")
        if status in {401, 403} or code == "AccessDenied":
            # S3 often names the action that is missing, which may be one of KMS or STS.
            named = PERFORM.search(str(answer.get("Error", {}).get("Message", "")))
            action = named[1] if named else _ACTIONS[kind]
            if error.operation_name == "AssumeRole":
                return AccessDenied(
                    f"not allowed: sts:AssumeRole, for bucket {bucket}",
                    resource=resource,
                    hint="check roleArns and externalId, and the trust policy of each role",
                    permission="sts:AssumeRole",
                )
            what = f"bucket {bucket}" if kind == "list" else f"{resource!r} in bucket {bucket}"
            return AccessDenied(
                f"not allowed: {action} on {what}",
                resource=resource,
                hint=f"'syncagent doctor s3://{bucket}' shows the policy text to add",
                permission=action,
            )
        if code in BUSY or status >= 500 or status == 429:
            after = headers.get("retry-after", "")
            return Transient(
                f"S3 is busy ({code or status}) on bucket {bucket}",
                resource=resource,
                hint="try again later",
                retry_after=float(after) if after.isdecimal() else None,
            )
        if code == "KeyTooLongError":
            return InvalidInput(f"S3 cannot hold the key {resource[:80]!r}", resource=resource)
        if code == "InvalidBucketName":
            return ConfigError(f"{bucket!r} is not a bucket's name", resource=bucket)
        return SyncAgentError(f"S3 answered {code or status} for {resource!r}", resource=resource)


class _PastEnd(SyncAgentError):
    """A range that begins after the object's end."""


def _info(key: str, head: dict[str, Any]) -> ObjectInfo:
    etag, size = str(head["ETag"]).strip('"'), int(head["ContentLength"])
    modified = head["LastModified"].astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return ObjectInfo(
        key,
        f"{etag}:{size}:{modified}",
        size,
        f"{modified}Z",
        etag,
        None,
        etag if len(etag) == _MD5_LENGTH else None,
        head.get("ContentType"),
        head.get("StorageClass") or "STANDARD",
    )


def _flag(spec: DriverSpec, name: str) -> bool:
    value = spec.options.get(name, "no").lower()
    if value not in {"yes", "true", "1", "no", "false", "0", ""}:
        raise ConfigError(f"{name}={value} is neither yes nor no", resource=spec.bucket)
    return value in {"yes", "true", "1"}


# -- credentials -------------------------------------------------------------------------------------


def sdk_error(error: Exception, what: str, endpoint: str | None, resource: str) -> SyncAgentError | None:
    """Our error for one that botocore raised without an answer from AWS; None for what is not botocore's.

    :param what: such as ``bucket photos``.
    """
    from botocore import exceptions as boto

    if isinstance(
        error,
        boto.NoCredentialsError
        | boto.PartialCredentialsError
        | boto.CredentialRetrievalError
        | boto.NoAuthTokenError
        | boto.TokenRetrievalError
        | boto.SSOError,
    ):
        return AccessDenied(
            f"no usable AWS credentials for {what}",
            resource=resource,
            hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or pass --integration",
        )
    if isinstance(error, boto.ProfileNotFound):
        return ConfigError("no such AWS profile", resource=resource, hint="check ?profile= or AWS_PROFILE")
    if isinstance(error, boto.ParamValidationError):
        kind, _, name = what.partition(" ")
        return ConfigError(f"{name!r} is not a {kind}'s name", resource=resource)
    if isinstance(error, boto.EndpointConnectionError | boto.ConnectTimeoutError | boto.ProxyConnectionError):
        return Transient(
            f"cannot reach {endpoint or 'AWS'} for {what}",
            resource=resource,
            hint="check the endpoint and the network",
        )
    if isinstance(error, boto.HTTPClientError | boto.IncompleteReadError | boto.ConnectionError):
        return Transient(f"the connection to {what} failed: {type(error).__name__}", resource=resource)
    if isinstance(error, ValueError) and str(error).startswith("Invalid endpoint"):
        return ConfigError(f"{endpoint} is not a usable endpoint", resource=resource)
    if isinstance(
        error, RecursionError
    ):  # botocore asks each redirect where the bucket is, and is redirected
        return ConfigError(
            f"{endpoint or 'AWS'} redirects every request",
            resource=resource,
            hint="check the endpoint: http or https?",
        )
    if isinstance(error, boto.BotoCoreError):  # its settings: trying again would change nothing
        return ConfigError(
            f"the AWS SDK cannot use its settings for {what}: {type(error).__name__}",
            resource=resource,
            hint="check the AWS configuration files and AWS_* variables",
        )
    return None


def client_of(session: Any, service: str, spec: DriverSpec, region: str) -> Any:
    from botocore import UNSIGNED
    from botocore.config import Config

    given: dict[str, Any] = {
        "retries": {"mode": "standard", "max_attempts": 5},
        "connect_timeout": 10,
        "read_timeout": 60,
        "max_pool_connections": 32,
    }
    if _flag(spec, "anonymous"):
        given["signature_version"] = UNSIGNED
    elif service == "s3" and not spec.bucket.endswith("--x-s3"):
        # Signed URLs would be of version 2 in old regions. Directory buckets have a version of their own.
        given["signature_version"] = "s3v4"
    if spec.endpoint:
        # Compatible stores know neither host-style buckets nor the newer checksums, as a rule.
        given["s3"] = {"addressing_style": "path"}
        given["request_checksum_calculation"] = "when_required"
        given["response_checksum_validation"] = "when_required"
    endpoint = None if service == "sts" else spec.endpoint
    return session.client(service, region_name=region, endpoint_url=endpoint, config=Config(**given))


def session_of(spec: DriverSpec, integration: Integration | None) -> Any:
    """A boto3 session with the integration's credentials, or with boto3's own chain."""
    import boto3

    if integration is None:
        return boto3.Session(profile_name=spec.options.get("profile"))
    options = integration.options
    if integration.type not in {"s3", "aws-sts"}:
        raise ConfigError(
            f"integration {integration.name!r} is of type {integration.type}, and s3:// needs s3 or aws-sts",
            resource=integration.name,
        )
    keys: dict[str, Any] = {}
    if options.get("key") or options.get("secret") or integration.type == "s3":
        for name in ("key", "secret"):
            if not options.get(name):
                raise ConfigError(
                    f"integration {integration.name!r} lacks {name!r}", resource=integration.name
                )
        keys = {
            "aws_access_key_id": options["key"],
            "aws_secret_access_key": options["secret"],
            "aws_session_token": options.get("token") or None,
        }
    session = boto3.Session(**keys)
    if integration.type == "aws-sts":
        roles = [role.strip() for role in options.get("roleArns", "").split(",") if role.strip()]
        if not roles:
            raise ConfigError(f"integration {integration.name!r} lacks 'roleArns'", resource=integration.name)
        for role in roles:
            last = role == roles[-1]
            session = _assume(session, role, options.get("externalId") if last else None, spec)
    return session


def _assume(session: Any, role: str, external_id: str | None, spec: DriverSpec) -> Any:
    """A session as another role. Its credentials renew themselves, so that a long run outlives them."""
    import boto3
    from botocore.credentials import DeferredRefreshableCredentials
    from botocore.session import get_session

    def refresh() -> dict[str, str]:
        endpoint = replace(spec, endpoint=None, options={})
        sts = client_of(session, "sts", endpoint, spec.region or session.region_name or "us-east-1")
        given = {"RoleArn": role, "RoleSessionName": "syncagent"}
        if external_id:
            given["ExternalId"] = external_id
        try:
            found = sts.assume_role(**given)["Credentials"]
        finally:
            sts.close()
        expiry = found["Expiration"]
        return {
            "access_key": found["AccessKeyId"],
            "secret_key": found["SecretAccessKey"],
            "token": found["SessionToken"],
            "expiry_time": expiry.isoformat() if isinstance(expiry, datetime) else str(expiry),
        }

    inner = get_session()
    inner._credentials = DeferredRefreshableCredentials(refresh, "sts-assume-role")
    return boto3.Session(botocore_session=inner, region_name=session.region_name)


def open_driver(spec: DriverSpec, integration: Integration | None = None) -> S3Driver:
    """Open a bucket. No request is sent yet.

    :raises ConfigError: the integration does not fit.
    """
    import boto3  # noqa: F401  # missing: said at once, with the extra to install

    if integration is not None and integration.type not in {"s3", "aws-sts"}:
        session_of(spec, integration)
    return S3Driver(spec, integration)
