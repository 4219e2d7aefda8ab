"""Small pictures of images, made when they are asked for. Whoever shows them keeps them: they change with the bytes only."""

from __future__ import annotations

import io
import threading
from typing import BinaryIO

from syncagent.errors import InvalidInput, Unsupported

SIDE = 256
"""Pixels of the longer side, at most."""
MAX_BYTES = 64 << 20
_MAX_PIXELS = 80_000_000  # less than Pillow's own bound, at which it warns
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
# A decoded image may take some hundred megabytes: few at once, however many ask.
_turns = threading.BoundedSemaphore(2)


def thumbnail(body: BinaryIO, name: str) -> tuple[bytes, str]:
    """A picture of at most `SIDE` pixels a side, upright, and its media type (``image/jpeg``, or ``image/png`` if it is
    transparent anywhere).

    :param body: an image of at most `MAX_BYTES`; :param name: what errors call it.
    :raises Unsupported: it is no image that Pillow reads, or too large a one.
    """
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ModuleNotFoundError as missing:
        raise Unsupported(
            "thumbnails need Pillow", resource=name, hint="pip install 'syncagent[server]'"
        ) from missing
    held = body.read(MAX_BYTES + 1)
    if len(held) > MAX_BYTES:
        raise Unsupported(f"{name} is too large for a thumbnail", resource=name)
    try:
        with _turns, Image.open(io.BytesIO(held), formats=_FORMATS) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise Unsupported(f"{name} has too many pixels for a thumbnail", resource=name)
            image.draft("RGB", (SIDE, SIDE))  # a JPEG is then decoded smaller
            upright = ImageOps.exif_transpose(image)
            upright.thumbnail((SIDE, SIDE))
            clear = upright.has_transparency_data
            out = io.BytesIO()
            upright.convert("RGBA" if clear else "RGB").save(out, "PNG" if clear else "JPEG")
    except UnidentifiedImageError as error:
        raise Unsupported(f"{name} is no image with a thumbnail", resource=name) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unsupported(f"{name} has too many pixels for a thumbnail", resource=name) from error
    except (OSError, ValueError, SyntaxError) as error:
        raise InvalidInput(f"{name} is not a sound image", resource=name) from error
    return out.getvalue(), "image/png" if clear else "image/jpeg"
