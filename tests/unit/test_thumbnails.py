"""Small pictures: what comes out, and what is refused."""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from syncagent.errors import InvalidInput, SyncAgentError, Transient, Unsupported
from syncagent.ingest import thumbnails
from syncagent.ingest.probe import Window, probe
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


# -- films ---------------------------------------------------------------------------------------


def film(path: Path, *, rotate: int = 0, size: tuple[int, int] = (640, 360), audio: bool = False) -> bytes:
    """Two frames, red above blue, as a camera writes them that was held at an angle."""
    with av.open(str(path), "w", format="mov") as container:
        video = container.add_stream("pcm_s16le" if audio else "mpeg4", rate=48000 if audio else 25)
        if audio:
            frame = av.AudioFrame("s16", "stereo", 1024)
            frame.sample_rate = 48000
            container.mux(video.encode(frame))
        else:
            video.width, video.height = size
            video.pix_fmt = "yuv420p"
            video.set_display_rotation(rotate)
            image = Image.new("RGB", size, (0, 0, 255))
            image.paste((255, 0, 0), (0, 0, size[0], size[1] // 2))
            for number in range(2):
                frame = av.VideoFrame.from_image(image)
                frame.pts = number
                container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path.read_bytes()


def window(body: bytes, limit: int = thumbnails.VIDEO_BYTES) -> Window:
    return Window(lambda offset, length: body[offset : offset + length], len(body), limit=limit)


@pytest.mark.parametrize(
    ("rotate", "size", "red", "blue"),
    [
        (0, (256, 144), (128, 20), (128, 124)),
        (180, (256, 144), (128, 124), (128, 20)),
        (90, (144, 256), (20, 128), (124, 128)),  # anticlockwise: what was above is on the left
        (-90, (144, 256), (124, 128), (20, 128)),
    ],
)
def test_the_first_frame_of_a_film_is_upright_and_small(
    tmp_path: Path, rotate: int, size: tuple[int, int], red: tuple[int, int], blue: tuple[int, int]
) -> None:
    body = film(tmp_path / "film", rotate=rotate)
    told, kind = thumbnails.video_thumbnail(window(body), "/x")
    image = Image.open(io.BytesIO(told))
    assert (image.format, image.size, kind) == ("JPEG", size, "image/jpeg")
    assert image.getpixel(red)[0] > 200 and image.getpixel(red)[2] < 100
    assert image.getpixel(blue)[2] > 200 and image.getpixel(blue)[0] < 100
    info = probe(lambda offset, length: body[offset : offset + length], len(body), "x")
    assert info.width is not None and info.height is not None
    assert (info.width > info.height) == (size[0] > size[1])


def test_what_is_no_sound_film_is_refused(tmp_path: Path) -> None:
    body = film(tmp_path / "film")
    at = body.index(b"mdat") + 4
    end = body.index(b"moov")
    for what, kind, text in (
        (b"no film at all", Unsupported, "no film"),
        (picture(), Unsupported, "no film"),
        (film(tmp_path / "sound", audio=True), Unsupported, "no pictures"),
        (body[: at + 10], InvalidInput, "cut off"),
        (body[:at] + bytes(end - 4 - at) + body[end - 4 :], InvalidInput, "no sound picture"),
        (b"", Unsupported, "no film"),
    ):
        with pytest.raises(kind, match=text) as caught:
            thumbnails.video_thumbnail(window(what), "/x")
        assert "\n" not in str(caught.value)


def test_a_film_of_too_many_pixels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnails, "_MAX_PIXELS", 640 * 360 - 1)
    with pytest.raises(Unsupported, match="too many pixels"):
        thumbnails.video_thumbnail(window(film(tmp_path / "film")), "/x")


def test_no_more_of_a_film_is_read_than_may_be(tmp_path: Path) -> None:
    body = film(tmp_path / "film")
    at = body.index(b"mdat") - 4
    far = body[:at] + struct.pack(">I", 20_000_000) + b"free" + bytes(20_000_000 - 8) + body[at:]
    seen = window(far, 100_000)
    with pytest.raises(InvalidInput):  # the samples are not where the index says
        thumbnails.video_thumbnail(seen, "/x")
    assert seen.bytes_read <= 100_000


def test_without_the_extra_there_are_no_films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = film(tmp_path / "film")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(Unsupported, match=r"syncagent\[video\]"):
        thumbnails.video_thumbnail(window(body), "/x")


def test_an_error_of_the_store_is_the_stores(tmp_path: Path) -> None:
    body = film(tmp_path / "film")
    for after in (0, 100, body.index(b"moov") - 100):

        def failing(offset: int, length: int, after: int = after) -> bytes:
            if offset + length > after:
                raise Transient("busy")
            return body[offset : offset + length]

        with pytest.raises(Transient, match="busy"):
            thumbnails.video_thumbnail(Window(failing, len(body)), "/x")


# -- the cache -----------------------------------------------------------------------------------


def test_a_thumbnail_is_kept_for_one_write_of_one_object(tmp_path: Path) -> None:
    cache = thumbnails.Cache(tmp_path / "a" / "cache", 1 << 20)
    assert cache.get("data", "f1") is None
    cache.put("data", "f1", b"jpeg", "image/jpeg")
    cache.put("data", "f2", b"png", "image/png")
    cache.put("data", "f2", b"newer", "image/png")
    assert cache.get("data", "f1") == (b"jpeg", "image/jpeg")
    assert cache.get("data", "f2") == (b"newer", "image/png")
    assert cache.get("other", "f1") is cache.get("dat", "af1") is None
    assert thumbnails.Cache(cache.folder, 1 << 20).get("data", "f1") == (b"jpeg", "image/jpeg")


def test_the_cache_is_its_owners_and_no_name_leads_out_of_it(tmp_path: Path) -> None:
    cache = thumbnails.Cache(tmp_path / "cache", 1 << 20)
    for name in ("../../etc/passwd", "/etc/passwd", "a/b", "..", "", "x" * 5000, "é\n"):
        cache.put(name, name, b"x" + name.encode(), "image/jpeg")
        assert cache.get(name, name) == (b"x" + name.encode(), "image/jpeg")
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    files = list(tmp_path.rglob("*"))
    assert len(files) == 8 and all(re.fullmatch("[0-9a-f]{64}", path.name) for path in cache.folder.iterdir())
    assert all(path.stat().st_mode & 0o077 == 0 for path in cache.folder.iterdir())


def test_what_was_asked_for_longest_ago_goes(tmp_path: Path) -> None:
    cache = thumbnails.Cache(tmp_path / "cache", 16_000)
    for number in range(10):
        cache.put("d", str(number), bytes(1000), "image/jpeg")
        os.utime(cache._path("d", str(number)), (number, number))
    left = cache.folder / ".new-left-by-a-dead-process"
    left.write_bytes(bytes(1000))
    os.utime(left, (0, 0))
    assert cache.get("d", "0")  # which is new by that
    for number in range(10, 19):
        cache.put("d", str(number), bytes(1000), "image/jpeg")
    assert not left.exists()
    assert cache.get("d", "0") and cache.get("d", "18")
    assert cache.get("d", "1") is None
    assert sum(path.stat().st_size for path in cache.folder.iterdir()) <= 16_000 * 17 / 16


def test_a_cache_that_cannot_keep_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = thumbnails.Cache(tmp_path / "file" / "cache", 1000)
    cache.put("d", "f", b"x", "image/jpeg")
    assert cache.get("d", "f") is None
    cache = thumbnails.Cache(tmp_path / "cache", 1000)
    cache.put("d", "f", b"x", "image/jpeg")
    for broken in (b"", b"\x09what"):
        cache._path("d", "f").write_bytes(broken)
        assert cache.get("d", "f") is None


_BUSY = """
import sys
from pathlib import Path
from syncagent.ingest.thumbnails import Cache
cache = Cache(Path(sys.argv[1]), 20_000)
for number in range(300):
    name = str(number % 40)
    cache.put("d", name, name.encode() * 500, "image/png")
    found = cache.get("d", str((number * 7) % 40))
    assert found is None or (found[1] == "image/png" and len(set(found[0])) <= 2 and len(found[0]) in (500, 1000)), found
"""


def test_several_processes_share_a_cache(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    started = [subprocess.Popen([sys.executable, "-c", _BUSY, str(folder)]) for _ in range(3)]
    assert [process.wait() for process in started] == [0, 0, 0]
    held = [path.stat().st_size for path in folder.iterdir()]
    assert held and sum(held) <= 20_000 * (1 + 3 / 16) and not list(folder.glob(".new-*"))
