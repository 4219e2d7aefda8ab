"""Asks for the pages of a listing that follow the first, without botocore's work for each request.

botocore prepares, signs, sends, retries and parses; all but signing and sending is the same for every
page, and costs a millisecond. So the first page is botocore's, and the following ones are the same
request with another token, signed by botocore's own signer. Whatever is not a sound page at once is
botocore's again, with its retries, refreshed credentials and errors. See docs/decisions/002.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

# What a plain Signature Version 4 says of itself. Directory buckets and multi-region access points say other things.
_SCOPE = re.compile(r"AWS4-HMAC-SHA256 Credential=[^/,]+/\d{8}/([a-z0-9-]+)/s3/aws4_request,")
_ANEW = {"authorization", "x-amz-date", "x-amz-security-token", "amz-sdk-invocation-id", "amz-sdk-request"}
_POSITION = {"continuation-token", "start-after"}


class Follow:
    """The pages after a first one."""

    def __init__(self, request: Any, session: Any, signer: Any) -> None:
        parts = urlsplit(request.url)
        self._session = session
        self._signer = signer
        kept = [pair for pair in parts.query.split("&") if pair.partition("=")[0] not in _POSITION]
        self._url = urlunsplit((parts.scheme, parts.netloc, parts.path, "&".join(kept), ""))
        told = {name: value for name, value in request.headers.items() if name.lower() not in _ANEW}
        self._headers = {
            name: value.decode() if isinstance(value, bytes) else value for name, value in told.items()
        }

    @classmethod
    def after(cls, request: Any, client: Any, credentials: Any) -> Follow | None:
        """What follows a page that botocore sent `request` for; None where only botocore knows how to ask."""
        if request is None or request.method != "GET":
            return None
        authorization = request.headers.get("Authorization")
        if authorization is None:
            return cls(request, client._endpoint.http_session, None)
        if isinstance(authorization, bytes):
            authorization = authorization.decode()
        scope = _SCOPE.match(authorization)
        if scope is None or credentials is None:
            return None
        from botocore.auth import S3SigV4Auth

        return cls(
            request,
            client._endpoint.http_session,
            lambda: S3SigV4Auth(credentials.get_frozen_credentials(), "s3", scope[1]),
        )

    def page(self, token: str) -> bytes | None:
        """The page of a token; None if it did not come, or not as a sound page."""
        from botocore.awsrequest import AWSRequest
        from botocore.exceptions import BotoCoreError
        from urllib3.exceptions import HTTPError

        url = f"{self._url}&continuation-token={quote(token, safe='-_.~')}"
        request = AWSRequest("GET", url, headers=dict(self._headers), stream_output=True)
        # The signer reads how the payload is signed from here; there is none.
        request.context.update(client_config=None, payload_signing_enabled=False)
        try:
            if self._signer is not None:
                self._signer().add_auth(request)
            response = self._session.send(request.prepare())
            # Whole at once: botocore reads parts of 64 KiB, and a thread waits for Python's lock after each.
            body: bytes = response.raw.read()
        except (BotoCoreError, HTTPError):
            return None
        return (
            body
            if response.status_code == 200 and b"<ListBucketResult" in body[:300] and whole(body)
            else None
        )


def whole(body: bytes) -> bool:
    """Whether a page has its end: botocore does not compare Content-Length."""
    return body[-40:].rstrip().endswith(b"</ListBucketResult>")
