"""Small pictures: what comes out, and what is refused."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import pytest
from PIL import Image

from syncagent.errors import InvalidInput, SyncAgentError, Unsupported
from syncagent.ingest import thumbnails
from syncagent.ingest.thumbnails import thumbnail


def picture(
    kind: str = "JPEG", size: tuple[int, int] = (800, 400), mode: str = "RGB", **options: Any
) -> bytes:
    image = Image.new(mode, size, 255 if mode == "L" else None)
    image.paste(
        255 if mode in ("L", "P", "1") else (255, 0, 0, 128)[: len(mode)], (0, 0, size[0] // 2, size[1])
    )
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def opened(body: bytes) -> tuple[Any, str]:
    told, kind = thumbnail(io.BytesIO(body), "/x")
    return Image.open(io.BytesIO(told)), kind


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_format_gives_a_small_jpeg(kind: str) -> None:
    image, told = opened(picture(kind))
    assert (image.format, image.size, told) == ("JPEG", (256, 128), "image/jpeg")
    red, _, blue = image.convert("RGB").getpixel((10, 60))
    assert red > 200 and blue < 60


def test_small_images_stay_as_they_are() -> None:
    assert opened(picture(size=(10, 20)))[0].size == (10, 20)


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "I;16", "P", "RGB"])
def test_every_colour_mode_becomes_a_jpeg(mode: str) -> None:
    body = io.BytesIO()
    Image.new(mode, (300, 300)).save(body, "TIFF")
    assert opened(body.getvalue())[1] == "image/jpeg"


def test_what_is_transparent_stays_so() -> None:
    image, told = opened(picture("PNG", mode="RGBA"))
    assert (image.format, image.mode, told) == ("PNG", "RGBA", "image/png")


def test_a_camera_on_its_side_is_put_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert opened(picture(exif=exif))[0].size == (128, 256)


def bomb(width: int, height: int) -> bytes:
    """A PNG that says to be huge, and is not."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" * 999))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        (b"no image at all", Unsupported, "no image"),
        (b"", Unsupported, "no image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", Unsupported, "no image"),
        (picture()[:900], InvalidInput, "sound"),
        (bomb(9_000, 9_000), Unsupported, "too many pixels"),
        (bomb(60_000, 60_000), Unsupported, "too many pixels"),
        (bomb(2000, 2000), InvalidInput, "sound"),
    ],
    ids=["text", "nothing", "svg", "cut off", "large", "huge", "lies"],
)
def test_what_is_no_sound_image_is_refused(body: bytes, kind: type[SyncAgentError], text: str) -> None:
    with pytest.raises(kind, match=text) as caught:
        thumbnail(io.BytesIO(body), "/x")
    assert "\n" not in str(caught.value)


def test_no_more_is_read_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnails, "MAX_BYTES", 100)
    body = io.BytesIO(picture())
    with pytest.raises(Unsupported, match="too large"):
        thumbnail(body, "/x")
    assert body.tell() == 101
