"""The page: a small program that runs in a browser and speaks to the API like every other client."""

from __future__ import annotations

import functools
import hashlib
from importlib import resources
from typing import Annotated

from fastapi import APIRouter, Header, Response

# These routes ask for no token, as /healthz and /token do not: a browser cannot send one before the page is there to
# take a password, and the files are the same for everybody and hold nothing of the catalog. What the page shows it
# fetches from the API, with the token of who signed in. They are no part of the API, so its document leaves them out.
router = APIRouter(include_in_schema=False)

FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/page/style.css": ("style.css", "text/css; charset=utf-8"),
    "/page/icon.svg": ("icon.svg", "image/svg+xml"),
}
_HEADERS = {
    # Trusted types make the browser refuse any text that is set as HTML: names in a bucket are other people's.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # kept, and asked for each time: a new version of the server has a new page
}


@functools.cache
def _file(name: str) -> tuple[bytes, str]:
    """A file of the package, and its entity tag."""
    held = (resources.files("syncagent") / "server" / "static" / name).read_bytes()
    return held, f'"{hashlib.sha256(held).hexdigest()[:32]}"'


def _serve(path: str, name: str, kind: str) -> None:
    @router.api_route(path, methods=["GET", "HEAD"])
    def serve(known: Annotated[str | None, Header(alias="if-none-match")] = None) -> Response:
        held, tag = _file(name)
        headers = {**_HEADERS, "ETag": tag}
        # Something in between may have compressed the file, and then made the tag a weak one.
        if known is not None and tag in [one.strip().removeprefix("W/") for one in known.split(",")]:
            return Response(status_code=304, headers=headers)
        return Response(held, media_type=kind, headers=headers)


for _path, (_name, _kind) in FILES.items():
    _serve(_path, _name, _kind)
