"""Media facts by ranged reads: right, few bytes, and no harm from any content.

Images are held against Pillow, films and sound against FFmpeg (PyAV): both may read everything, the probe may not.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import random
import struct
import sys
import tempfile
import wave
import zipfile
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import IFDRational

from syncagent import open_bucket
from syncagent.errors import NotFound, Transient
from syncagent.ingest.probe import LIMIT, MediaInfo, Window, probe, probe_object
from syncagent.ingest.probe.window import CutOff, Spent

EXAMPLES = Path(__file__).parents[2] / "examples" / "bucket"
NOISE = random.Random(7).randbytes(1201 * 903 * 3)


class Object:
    """An object that counts what is read of it."""

    def __init__(self, body: bytes) -> None:
        self.body, self.bytes, self.requests = body, 0, 0

    def __call__(self, offset: int, length: int) -> bytes:
        assert offset >= 0 and length > 0
        data = self.body[offset : offset + length]
        self.bytes += len(data)
        self.requests += 1
        return data


def probed(body: bytes, name: str = "x", *, most: int = LIMIT) -> MediaInfo:
    """The facts of a body, of which no more than `most` bytes are read, in few requests."""
    read = Object(body)
    info = probe(read, len(body), name)
    assert read.bytes <= most, f"{name}: {read.bytes} bytes"
    assert read.requests <= 24, f"{name}: {read.requests} requests"
    return info


def noise(size: tuple[int, int] = (1201, 903), mode: str = "RGB") -> Image.Image:
    """A picture that no format makes small."""
    return Image.frombytes("RGB", size, NOISE[: size[0] * size[1] * 3]).convert(mode)


def camera(orientation: int = 1, **notes: Any) -> Image.Exif:
    """EXIF as a camera writes it, in Sydney."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    details = exif.get_ifd(0x8769)
    details[0x9003] = notes.get("taken", "2024:05:06 07:08:09")
    if "offset" in notes:
        details[0x9011] = notes["offset"]
    if "maker" in notes:
        details[0x927C] = notes["maker"]
    exif.get_ifd(0x8825).update(
        notes.get("gps", {1: "S", 2: (33.0, 51.0, 21.5), 3: "E", 4: (151.0, 12.0, 30.0)})
    )
    return exif


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


# -- images --------------------------------------------------------------------------------------

IMAGES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("JPEG", "RGB", "image/jpeg", {"quality": 95}),
    ("JPEG", "L", "image/jpeg", {"progressive": True, "quality": 95}),
    ("JPEG", "CMYK", "image/jpeg", {"quality": 95}),
    ("MPO", "RGB", "image/jpeg", {"save_all": True}),
    ("PNG", "RGB", "image/png", {}),
    ("PNG", "I;16", "image/png", {}),
    ("GIF", "P", "image/gif", {}),
    ("BMP", "RGB", "image/bmp", {}),
    ("TIFF", "RGB", "image/tiff", {}),
    ("TIFF", "RGB", "image/tiff", {"compression": "tiff_lzw"}),  # its directory is at the end
    ("TIFF", "RGB", "image/tiff", {"big_tiff": True}),
    ("WEBP", "RGB", "image/webp", {"quality": 95, "method": 0}),
    ("WEBP", "RGB", "image/webp", {"lossless": True, "method": 0}),
    ("WEBP", "RGB", "image/webp", {"quality": 90, "method": 0, "icc_profile": b"x" * 3000}),
    ("AVIF", "RGB", "image/avif", {"speed": 10, "quality": 90}),
    ("JPEG2000", "RGB", "image/jp2", {}),
    ("JPEG2000", "RGB", "image/j2c", {"no_jp2": True}),
    ("PPM", "RGB", "image/x-portable-pixmap", {}),
    ("PPM", "L", "image/x-portable-graymap", {}),
    ("PPM", "1", "image/x-portable-bitmap", {}),
]


@pytest.mark.parametrize(
    ("kind", "mode", "mimetype", "options"), IMAGES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_images_have_the_size_that_pillow_finds(
    kind: str, mode: str, mimetype: str, options: dict[str, Any]
) -> None:
    body = saved(noise(mode=mode), kind, **options)
    assert mode == "1" or len(body) > 256 * 1024
    info = probed(body, "photo", most=16 * 1024)
    assert (info.width, info.height) == Image.open(io.BytesIO(body)).size == (1201, 903)
    assert (info.mimetype, info.reason) == (mimetype, None)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("PNG", {}), ("WEBP", {"method": 0}), ("TIFF", {}), ("AVIF", {"speed": 10})],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_pictures_are_as_wide_as_they_are_shown(kind: str, options: dict[str, Any], orientation: int) -> None:
    body = saved(noise((300, 200)), kind, exif=camera(orientation), **options)
    with Image.open(io.BytesIO(body)) as image:
        shown = ImageOps.exif_transpose(image).size
    info = probed(body)
    assert (info.width, info.height) == shown == ((200, 300) if orientation > 4 else (300, 200))
    # An AVIF that is not turned says nothing at all.
    assert info.orientation == (None if kind == "AVIF" and orientation == 1 else orientation)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_time_and_place_come_from_exif(kind: str) -> None:
    exif = camera(offset="+10:00", maker=NOISE[:40_000])
    info = probed(saved(noise((801, 603)), kind, exif=exif.tobytes()), most=24 * 1024)
    assert info.taken_at == "2024-05-06T07:08:09+10:00"
    assert (info.latitude, info.longitude) == (pytest.approx(-33.8559722), pytest.approx(151.2083333))


@pytest.mark.parametrize(
    ("taken", "offset", "told"),
    [
        ("2024:05:06 07:08:09", "Z", "2024-05-06T07:08:09Z"),
        ("2024:05:06 07:08:09", "-03:30", "2024-05-06T07:08:09-03:30"),
        ("2024:05:06 07:08:09", "   :  ", "2024-05-06T07:08:09"),
        ("0000:00:00 00:00:00", "+01:00", None),
        ("2024:13:01 00:00:00", "+01:00", None),
        ("    :  :     :  :  ", "", None),
        ("yesterday", "", None),
    ],
)
def test_a_clock_that_was_never_set_tells_no_time(taken: str, offset: str, told: str | None) -> None:
    info = probed(saved(noise((8, 8)), "JPEG", exif=camera(taken=taken, offset=offset)))
    assert (info.taken_at, info.reason) == (told, None)


@pytest.mark.parametrize(
    "gps",
    [
        {},
        {1: "N", 2: (1.0, 2.0, 3.0)},
        {1: "N", 2: (91.0, 0.0, 0.0), 3: "E", 4: (1.0, 0.0, 0.0)},
        {1: "N", 2: (IFDRational(0, 0),) * 3, 3: "E", 4: (IFDRational(0, 0),) * 3},
    ],
    ids=["none", "half", "beyond the pole", "not known"],
)
def test_a_place_that_is_none_is_not_told(gps: dict[int, Any]) -> None:
    info = probed(saved(noise((8, 8)), "JPEG", exif=camera(gps=gps)))
    assert (info.latitude, info.longitude, info.reason) == (None, None, None)


def test_the_exif_of_a_webp_is_behind_chunks_of_any_length() -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        return name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)

    head = chunk(b"VP8X", b"\x08\0\0\0\x27\0\0\x1d\0\0")
    body = b"WEBP" + head + chunk(b"VP8L", NOISE[:200_001]) + chunk(b"EXIF", camera(8).tobytes())
    info = probed(b"RIFF" + struct.pack("<I", len(body)) + body, most=16 * 1024)
    assert (info.width, info.height, info.orientation) == (30, 40, 8)


def test_profiles_and_notes_of_a_jpeg_are_passed_over() -> None:
    body = saved(noise(), "JPEG", exif=camera(6, maker=NOISE[:60_000]), icc_profile=NOISE[:500_000])
    info = probed(body)
    assert (info.width, info.height, info.orientation, info.reason) == (903, 1201, 6, None)


def test_a_jpeg_may_be_padded_between_its_segments() -> None:
    body = saved(noise((30, 20)), "JPEG")
    at = body.index(b"\xff\xdb")
    info = probed(body[:at] + b"\xff\xff\xff" + body[at:])
    assert (info.width, info.height, info.reason) == (30, 20, None)


def test_a_jpeg_with_too_much_before_its_size_says_so() -> None:
    info = probed(saved(noise(), "JPEG", exif=camera(6), icc_profile=NOISE[:2_000_000]))
    assert (info.mimetype, info.width) == ("image/jpeg", None)
    assert info.reason == f"its facts are not in the {LIMIT} bytes that were read"


def test_exif_that_is_broken_leaves_the_size() -> None:
    body = saved(noise((8, 9)), "JPEG", exif=camera())
    at = body.index(b"Exif\0\0") + 6
    info = probed(body[: at + 4] + b"\xff\xff\xff\x7f" + body[at + 8 :])
    assert (info.width, info.height, info.reason) == (8, 9, "EXIF: a TIFF directory points outside")


def test_the_picture_in_a_raw_file_is_not_its_thumbnail() -> None:
    def directory(*entries: tuple[int, int, int]) -> bytes:
        rows = b"".join(struct.pack(">HHII", tag, 4, count, value) for tag, count, value in entries)
        return struct.pack(">H", len(entries)) + rows + bytes(4)

    thumbnail = directory((254, 1, 1), (256, 1, 160), (257, 1, 120), (330, 1, 100))
    picture = directory((254, 1, 0), (256, 1, 6000), (257, 1, 4000))
    body = (b"MM\0*" + struct.pack(">I", 8) + thumbnail).ljust(100, b"\0") + picture
    info = probed(body, "DSC_1.dng")
    assert (info.mimetype, info.width, info.height) == ("image/x-adobe-dng", 6000, 4000)


def test_a_size_that_no_picture_has_is_not_told() -> None:
    entries = b"".join(struct.pack("<HHQQ", tag, 16, 1, (1 << 63) - 1) for tag in (256, 257))
    body = b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2) + entries + bytes(8)
    assert probed(body) == MediaInfo("image/tiff", reason="its header is not sound")


def test_the_largest_picture_of_an_icon_counts() -> None:
    info = probed(saved(noise((256, 256)), "ICO"), "favicon.ico", most=8192)
    assert (info.mimetype, info.width, info.height) == ("image/vnd.microsoft.icon", 256, 256)


def test_a_photoshop_file_tells_its_size() -> None:
    body = b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 90, 120, 8, 3)
    assert (probed(body).width, probed(body).height) == (120, 90)


@pytest.mark.parametrize(
    ("svg", "size", "reason"),
    [
        ('<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30px"/>', (40, 30), None),
        ('<?xml version="1.0"?><!-- x --><s:svg xmlns:s="http://www.w3.org/2000/svg" viewBox="0 0 64,48"/>', (64, 48), None),
        ('<svg width="1in" height="2.54cm">', (96, 96), None),
        ('<svg width="100%" height="100%" viewBox="0 0 10 20"/>', (10, 20), None),
        ('<svg width="1e9" height="-4"/>', (None, None), "an SVG without a size"),
        ('<!DOCTYPE svg [<!ENTITY a "&b;&b;">]><svg width="4" height="4"/>', (None, None), "an SVG with a DOCTYPE is not read"),
        ('<!DOCTYPE svg SYSTEM "file:///etc/passwd"><svg width="4" height="4"/>', (None, None), "an SVG with a DOCTYPE is not read"),
    ],
)  # fmt: skip
def test_an_svg_has_the_size_of_its_root(svg: str, size: tuple[int, int], reason: str | None) -> None:
    for body in (svg.encode(), svg.encode("utf-16") if "?xml" not in svg else svg.encode()):
        info = probed(body, "logo.svg")
        assert ((info.width, info.height), info.reason) == (size, reason)
        assert info.mimetype == "image/svg+xml"


# -- types ---------------------------------------------------------------------------------------


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("word/document.xml", "<w/>")
    return out.getvalue()


WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
TYPES: list[tuple[bytes, str, str]] = [
    # What the name says more precisely.
    (b"a,b\n1,2\n", "rows.csv", "text/csv"),
    (b"# Title\n", "README.md", "text/markdown"),
    (b"a: 1\n", "config.yaml", "application/yaml"),
    (b'{"cells": []}', "work.ipynb", "application/x-ipynb+json"),
    (b'{"type": "Feature"}', "map.geojson", "application/geo+json"),
    (zipped(), "letter.docx", WORD),
    (zipped(), "arrays.npz", "application/x-npz"),
    (saved(noise((9, 9)), "TIFF"), "IMG.NEF", "image/x-nikon-nef"),
    (b"\x89HDF\r\n\x1a\n" + bytes(99), "air.nc", "application/x-netcdf"),
    # What it says in other words.
    (b"RIFF\x24\0\0\0WAVEfmt ", "a.wav", "audio/x-wav"),
    (b"RIFF\x24\0\0\0WAVEfmt ", "a", "audio/wav"),
    # What it says and is not so.
    (saved(noise((9, 9)), "PNG"), "photo.jpg", "image/png"),
    (b"<!DOCTYPE html><html><h1>403</h1>", "photo.jpg", "text/html"),
    (b" <!-- a --><!-- b --> <HTML lang=en>", "photo.png", "text/html"),
    (b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>', "photo.jpg", "application/xml"),
    (b'{"message": "Forbidden"}', "photo.jpg", "application/json"),
    (b"not found\n", "photo.jpg", "text/plain"),
    (zipped(), "photo.jpg", "application/zip"),
    (b"%PDF-1.7\n", "scan.tiff", "application/pdf"),
    (zipped(), "notes.txt", "application/zip"),
    # What only the content knows.
    (b'{"a": 1}\n{"a": 2}\n', "log", "application/x-ndjson"),
    (b'{"a": 1}\n{"a": 2}\n', "log.jsonl", "application/x-ndjson"),
    (b'[{"a": "' + b"x" * 20_000 + b'"}]', "big", "application/json"),
    (b"[INFO] started\n", "log", "text/plain"),
    (b"[1] a footnote\n", "notes", "text/plain"),
    (b"[" * 9_000, "deep", "application/json"),
    (b"WEBVTT\n\n", "x", "text/vtt"),
    (b"<p>a < b</p>", "x", "application/xml"),
    (b"<- not xml", "x", "text/plain"),
    ("größer".encode("utf-16"), "x", "text/plain"),
    ("größer".encode("utf-8-sig"), "x", "text/plain"),
    (("é" * 9_000).encode()[:-1] + b"\xa9", "x", "text/plain"),
    (gzip.compress(b"x"), "a.csv.gz", "application/gzip"),
    (b"II*\0", "x", "image/tiff"),
    (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a.jpg", "image/heic"),
    (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", "a", "image/avif"),
    (b"\0\0\0\x14ftypcrx \0\0\0\0isom", "a", "image/x-canon-cr3"),
    (b"\0\0\0\x14ftyp", "a", "video/mp4"),
    (b"\0\1\2\3", "folder.json/jpg", "application/octet-stream"),
    (b"\0\0\0\x14ftyp3gp4\0\0\0\0isom", "a.bin", "video/3gpp"),
    (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "a.mp4", "video/quicktime"),
    (b"\0\0\0\x08wide\0\0\x10\0mdat", "a", "video/quicktime"),
    (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\x82\x84webm", "a.mkv", "video/webm"),
    (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\x82\x88matroska", "a.webm", "video/x-matroska"),
    (b"PAR1" + bytes(40), "x", "application/vnd.apache.parquet"),
    (b"\x93NUMPY\x01\0", "x", "application/x-npy"),
    (b"LASF" + bytes(99), "x", "application/vnd.las"),
    (b"# .PCD v0.7 - Point Cloud Data file format\n", "x.txt", "application/x-pcd"),
    (b"ply\nformat ascii 1.0\n", "x", "model/x-ply"),
    (bytes(128) + b"DICM", "x", "application/dicom"),
    ((b"\x47" + bytes(187)) * 6, "x.mts", "video/mp2t"),
    ((bytes(4) + b"\x47" + bytes(187)) * 6, "x", "video/mp2t"),
    # What neither knows, and what only the name does.
    (b"\x00\x01\x02\x03", "x", "application/octet-stream"),
    (b"\x00\x01\x02\x03", "x.jpg", "image/jpeg"),
    (b"", "x.csv", "text/csv"),
    (b"BM, said the text", "x", "text/plain"),
    (b"GIF by mistake", "x", "text/plain"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "name", "told"), TYPES, ids=lambda v: v if isinstance(v, str) else "")
def test_content_is_believed_before_the_name(body: bytes, name: str, told: str) -> None:
    assert probed(body, name, most=16 * 1024).mimetype == told


@pytest.mark.parametrize(
    ("body", "name", "reason"),
    [
        (b"", "a.jpg", "empty"),
        (b"\xff\xd8", "a.jpg", "cut off after 2 bytes"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0", "a.jpg", "cut off after 14 bytes"),
        (b"\xff\xd8\xff\xdb" + bytes(99), "a.jpg", "no JPEG marker where one has to be"),
        (saved(noise((9, 9)), "PNG")[:20], "a.png", "cut off after 20 bytes"),
        (NOISE[:5000], "a.jpg", "its content is not that of image/jpeg"),
        (b"\0\0\0\x14ftypmp42\0\0\0\0isom" + b"\0\0\x10\0mdat" + bytes(99), "a.mp4", "cut off after 127 bytes: the film's index is missing"),
        (b"\0\0\0\x14ftypisom\0\0\0\0isom\0\0\0\x04moov", "a.mp4", "a box of 4 bytes"),
        (b"\xff\x0a", "a.jxl", "facts of image/jxl are not read"),
        (b"hello", "a.txt", None),
        (b"", "a.txt", None),
    ],
)  # fmt: skip
def test_what_is_missing_is_explained_in_one_line(body: bytes, name: str, reason: str | None) -> None:
    info = probed(body, name)
    assert info == MediaInfo(mimetype=info.mimetype, reason=reason)


# -- films and sound -----------------------------------------------------------------------------


def film(kind: str, video: str | None, audio: str | None = None, **how: Any) -> bytes:
    """A film of noise, or a sound of it."""
    size, seconds = how.get("size", (320, 180)), how.get("seconds", 1)
    with tempfile.TemporaryDirectory() as folder:
        return _film(Path(folder) / "film", kind, video, audio, size, seconds, how)


def _film(
    path: Path,
    kind: str,
    video: str | None,
    audio: str | None,
    size: Any,
    seconds: float,
    how: dict[str, Any],
) -> bytes:
    with av.open(str(path), "w", format=kind, options=how.get("options", {})) as container:
        pictures = container.add_stream(video, rate=how.get("rate", Fraction(30000, 1001))) if video else None
        if pictures is not None:
            pictures.width, pictures.height = size
            pictures.pix_fmt, pictures.bit_rate = (
                how.get("pix_fmt", "yuv420p"),
                how.get("bit_rate", 20_000_000),
            )
            pictures.thread_count = 1
            pictures.options = how.get("codec", {})
        sound = container.add_stream(audio, rate=how.get("hertz", 48000)) if audio else None
        if sound is not None:
            sound.layout = how.get("layout", "stereo")
            sound.options = how.get("codec", {}) if video is None else {}
            if "quality" in how:
                sound.codec_context.qscale, sound.codec_context.global_quality = True, how["quality"]
        if pictures is not None:
            if "rotate" in how:
                pictures.set_display_rotation(how["rotate"])
            frames = [av.VideoFrame.from_image(noise(size).rotate(90 * number)) for number in range(4)]
            for number in range(how.get("frames", 30)):
                frame = frames[number % how.get("different", 4)]
                frame.pts = how.get("pts", int)(number)
                container.mux(pictures.encode(frame))
            container.mux(pictures.encode(None))
        if sound is not None:
            for frame in hiss(sound, seconds):
                container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return path.read_bytes()


def hiss(stream: Any, seconds: float) -> Iterator[av.AudioFrame]:
    rate, layout = stream.sample_rate, stream.layout.name
    fit = av.AudioResampler(stream.format.name, layout, rate, stream.codec_context.frame_size or 1024)
    total, at = int(rate * seconds), 0
    while at < total:
        samples = min(4096, total - at)
        frame = av.AudioFrame("s16", layout, samples)
        frame.sample_rate, frame.pts = rate, at
        frame.planes[0].update(NOISE[at % 1000 : at % 1000 + frame.planes[0].buffer_size])
        yield from fit.resample(frame)
        at += samples
    yield from fit.resample(None)


FAST = {"preset": "ultrafast", "crf": "10"}
SAMPLES: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "faststart.mp4": (("mp4", "libx264", "aac"), {"codec": FAST, "options": {"movflags": "faststart"}}),
    "end.mp4": (("mp4", "libx264", "aac"), {"codec": FAST, "size": (640, 360)}),
    "small.mp4": (("mp4", "mpeg4", None), {"size": (32, 18), "frames": 5, "bit_rate": 1000}),
    "hevc.mp4": (("mp4", "libx265", None), {"frames": 4, "codec": {"preset": "ultrafast", "x265-params": "log-level=none"}}),
    "turned.mov": (("mov", "mpeg4", "pcm_s16le"), {"rotate": 90}),
    "phone.3gp": (("3gp", "mpeg4", "aac"), {"size": (176, 144)}),
    "sound.m4a": (("ipod", None, "aac"), {"seconds": 20}),
    "lossless.m4a": (("ipod", None, "alac"), {"layout": "mono"}),
    "film.mkv": (("matroska", "libx264", "libopus"), {"codec": FAST}),
    "film.webm": (("webm", "libvpx", "libopus"), {"rate": 25, "frames": 25, "codec": {"deadline": "realtime", "cpu-used": "8"}}),
    "sound.webm": (("webm", None, "libopus"), {}),
    "film.avi": (("avi", "mpeg4", "libmp3lame"), {}),
    "film.flv": (("flv", "flv1", None), {"bit_rate": 200_000, "frames": 8}),
    "film.ts": (("mpegts", "mpeg2video", "mp2"), {"rate": 25}),
    "film.mpg": (("mpeg", "mpeg2video", "mp2"), {"rate": 25}),
    "cbr.mp3": (("mp3", None, "libmp3lame"), {"seconds": 20, "options": {"write_xing": "0"}}),
    "vbr.mp3": (("mp3", None, "libmp3lame"), {"seconds": 20, "quality": 236}),
    "low.mp3": (("mp3", None, "libmp3lame"), {"seconds": 5, "hertz": 22050, "layout": "mono"}),
    "sound.flac": (("flac", None, "flac"), {"seconds": 5}),
    "opus.ogg": (("ogg", None, "libopus"), {"seconds": 20}),
    "vorbis.ogg": (("ogg", None, "vorbis"), {"seconds": 5, "codec": {"strict": "experimental"}}),
    "flac.ogg": (("ogg", None, "flac"), {"seconds": 2}),
    "short.aac": (("adts", None, "aac"), {"seconds": 1}),
    "long.aac": (("adts", None, "aac"), {"seconds": 20}),
    "sound.aiff": (("aiff", None, "pcm_s16be"), {"seconds": 5}),
    "float.wav": (("wav", None, "pcm_f32le"), {"seconds": 5}),
    "huge.wav": (("wav", None, "pcm_s16le"), {"seconds": 2, "options": {"rf64": "always"}}),
}  # fmt: skip


@pytest.fixture(scope="module")
def media() -> dict[str, bytes]:
    return {name: film(*what, **how) for name, (what, how) in SAMPLES.items()}


VIDEO = {"width": 320, "height": 180, "fpsRational": "30000/1001", "nb_frames": 30}
H264 = {**VIDEO, "videoCodec": "h264"}
MPEG4 = {**VIDEO, "videoCodec": "mpeg4"}
STEREO = {"channels": 2, "sampleRate": 48000}
AAC = {"audioCodec": "aac", **STEREO}
UNTOLD = "it does not tell its duration in the bytes that were read"
MPEG2 = {"width": 320, "height": 180, "fpsRational": "25/1", "videoCodec": "mpeg2video", "mediaError": UNTOLD}
FACTS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "faststart.mp4": ("video/mp4", 12, {**H264, **AAC, "duration": 1.001}),
    "end.mp4": ("video/mp4", 16, {**H264, **AAC, "width": 640, "height": 360, "duration": 1.001}),
    "small.mp4": ("video/mp4", 12, {**MPEG4, "width": 32, "height": 18, "nb_frames": 5, "duration": 0.167}),
    "hevc.mp4": ("video/mp4", 16, {**VIDEO, "videoCodec": "hevc", "nb_frames": 4, "duration": 0.134}),
    "turned.mov": ("video/quicktime", 16, {**MPEG4, "width": 180, "height": 320, "audioCodec": "pcm_s16le", **STEREO, "duration": 1.001}),
    "phone.3gp": ("video/3gpp", 16, {**MPEG4, "width": 176, "height": 144, **AAC, "duration": 1.001}),
    "sound.m4a": ("audio/mp4", 16, {**AAC, "duration": 20.0}),
    "lossless.m4a": ("audio/mp4", 16, {"audioCodec": "alac", "channels": 1, "sampleRate": 48000, "duration": 1.0}),
    "film.mkv": ("video/x-matroska", 64, {**H264, "audioCodec": "opus", **STEREO, "duration": 1.008}),
    "film.webm": ("video/webm", 64, {**VIDEO, "fpsRational": "25/1", "nb_frames": 25, "videoCodec": "vp8", "audioCodec": "opus", **STEREO, "duration": 1.008}),
    "sound.webm": ("audio/webm", 64, {"audioCodec": "opus", **STEREO, "duration": 1.008}),
    "film.avi": ("video/x-msvideo", 64, {**MPEG4, "nb_frames": 31, "audioCodec": "mp3", **STEREO}),
    "film.flv": ("video/x-flv", 64, {"width": 320, "height": 180, "videoCodec": "flv1"}),
    "film.ts": ("video/mp2t", 64, MPEG2),
    "film.mpg": ("video/mpeg", 64, {**MPEG2, "audioCodec": "mp2", **STEREO}),
    "cbr.mp3": ("audio/mpeg", 12, {"audioCodec": "mp3", **STEREO}),
    "vbr.mp3": ("audio/mpeg", 12, {"audioCodec": "mp3", **STEREO, "duration": 20.0}),
    "low.mp3": ("audio/mpeg", 12, {"audioCodec": "mp3", "channels": 1, "sampleRate": 22050, "duration": 5.0}),
    "sound.flac": ("audio/flac", 12, {"audioCodec": "flac", **STEREO, "duration": 5.0}),
    "opus.ogg": ("audio/ogg", 36, {"audioCodec": "opus", **STEREO, "duration": 20.0}),
    "vorbis.ogg": ("audio/ogg", 36, {"audioCodec": "vorbis", **STEREO}),
    "flac.ogg": ("audio/ogg", 64, {"audioCodec": "flac", **STEREO, "duration": 2.0}),
    "short.aac": ("audio/aac", 32, AAC),
    "long.aac": ("audio/aac", 12, {**AAC, "mediaError": "a stream of AAC does not tell its duration"}),
    "sound.aiff": ("audio/x-aiff", 12, {"audioCodec": "pcm_s16be", **STEREO, "duration": 5.0}),
    "float.wav": ("audio/x-wav", 12, {"audioCodec": "pcm_f32le", **STEREO, "duration": 5.0}),
    "huge.wav": ("audio/x-wav", 12, {"audioCodec": "pcm_s16le", **STEREO, "duration": 2.0}),
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLES)
def test_films_and_sounds_tell_their_facts(media: dict[str, bytes], name: str) -> None:
    mimetype, kib, facts = FACTS[name]
    info = probed(media[name], name, most=kib * 1024)
    told = info.system()
    told.pop("fps", None)
    close = {key: pytest.approx(value, abs=0.0006) for key, value in facts.items() if key == "duration"}
    others = {
        key: told[key]
        for key in told.keys() - facts.keys()
        if key in ("duration", "fpsRational", "nb_frames")
    }
    assert info.mimetype == mimetype
    assert told == {**facts, **close, **others}


@pytest.mark.parametrize(
    "name", [name for name in SAMPLES if name not in {"film.ts", "film.mpg", "long.aac"}]
)
def test_durations_are_those_of_what_is_decoded(media: dict[str, bytes], name: str) -> None:
    with av.open(io.BytesIO(media[name])) as container:
        stream = (container.streams.video or container.streams.audio)[0]
        frames = list(container.decode(stream))
        if stream.type == "video":
            played = len(frames) / float(stream.guessed_rate)
        else:
            played = sum(frame.samples for frame in frames) / stream.rate
    # AAC and MP3 without a header play the encoder's padding as well.
    assert probed(media[name], name).duration == pytest.approx(played, abs=0.11)


def test_the_film_of_the_examples_is_large_enough_to_prove_something(media: dict[str, bytes]) -> None:
    body = media["end.mp4"]
    assert len(body) > 4 << 20
    assert body.index(b"moov") > len(body) - 100_000
    read = Object(body)
    assert probe(read, len(body), "end.mp4").frames == 30
    assert read.requests <= 4


def test_the_tables_of_a_long_film_are_passed_over() -> None:
    body = film("mp4", "mpeg4", "aac", size=(16, 16), frames=30_000, different=1, bit_rate=1000)
    moov = body[body.index(b"moov") :]
    assert len(moov) > 2 * LIMIT
    info = probed(body, "long.mp4", most=24 * 1024)
    assert (info.frames, info.fps, info.sample_rate) == (30_000, "30000/1001", 48000)


@pytest.mark.parametrize(
    ("degrees", "size"), [(0, (320, 180)), (90, (180, 320)), (180, (320, 180)), (270, (180, 320))]
)
def test_a_film_is_as_wide_as_it_is_shown(degrees: int, size: tuple[int, int]) -> None:
    info = probed(film("mp4", "mpeg4", rotate=degrees, frames=2), "x.mp4")
    assert (info.width, info.height) == size


def test_a_film_in_fragments_tells_what_it_can() -> None:
    body = film("mp4", "mpeg4", "aac", options={"movflags": "frag_keyframe+empty_moov"})
    info = probed(body, "x.mp4")
    assert (info.width, info.video_codec, info.audio_codec, info.duration) == (320, "mpeg4", "aac", None)
    assert info.reason == "a film in fragments that does not tell its duration"


def test_frames_of_many_lengths_have_a_mean_rate() -> None:
    body = bytearray(film("mp4", "mpeg4", frames=4, rate=10))
    at = body.index(b"stts")
    assert struct.unpack(">II", body[at + 8 : at + 16])[0] == 1
    count, delta = struct.unpack(">II", body[at + 12 : at + 20])
    assert count == 4
    body[at + 16 : at + 20] = struct.pack(">I", delta * 3)
    assert probed(bytes(body), "x.mp4").fps == "10/3"


@pytest.mark.parametrize("frames", [20, 24_000])
def test_the_rate_of_a_film_whose_frames_last_differently_is_their_mean(frames: int) -> None:
    def uneven(number: int) -> int:
        return number * 3 // 2  # 1 and 2 in turn: a run for each frame

    body = film("mp4", "mpeg4", size=(16, 16), frames=frames, different=1, rate=30, bit_rate=1000, pts=uneven)
    info = probed(body, "x.mp4", most=24 * 1024)
    assert info.fps is not None and info.frames == frames
    assert float(Fraction(info.fps)) == pytest.approx(20, rel=0.05)


def test_frames_are_not_counted_by_the_sound_that_goes_on(media: dict[str, bytes]) -> None:
    body = film("matroska", "mpeg4", "libopus", rate=125, frames=100, seconds=1)
    info = probed(body.replace(b"DURATION", b"duration"), "x.mkv")
    assert (info.duration, info.fps, info.frames) == (1.008, "125/1", None)
    alone = film("matroska", "mpeg4", rate=125, frames=100).replace(b"DURATION", b"duration")
    assert probed(alone, "x.mkv").frames == 100


@pytest.mark.parametrize("kind", ["mpeg", "mpegts"])
def test_the_duration_of_a_stream_is_not_guessed_from_its_beginning(kind: str) -> None:
    body = film(kind, "mpeg2video", "mp2", size=(64, 32), frames=800, rate=25, seconds=32, bit_rate=100_000)
    assert len(body) > 4 * LIMIT
    info = probed(body, "x")
    assert (info.width, info.fps, info.duration) == (64, "25/1", None)


def test_a_sound_behind_a_large_cover_is_found(media: dict[str, bytes]) -> None:
    size = 300_000
    tag = (
        b"ID3\x04\0\0"
        + bytes((size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127))
        + NOISE[:size]
    )
    plain = media["cbr.mp3"][10 + media["cbr.mp3"][9] :]
    for name, body in (("a.mp3", plain), ("a.flac", media["sound.flac"])):
        info, alone = probed(tag + body, name, most=24 * 1024), probed(body, name)
        assert info.duration == pytest.approx(alone.duration, abs=0.001)
        assert (info.mimetype, info.audio_codec) == (alone.mimetype, alone.audio_codec)


def pcm(channels: int = 2, width: int = 2, rate: int = 8000, frames: int = 8000) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as sound:
        sound.setnchannels(channels)
        sound.setsampwidth(width)
        sound.setframerate(rate)
        sound.writeframes(NOISE[: frames * channels * width])
    return out.getvalue()


@pytest.mark.parametrize(
    ("width", "codec"), [(1, "pcm_u8"), (2, "pcm_s16le"), (3, "pcm_s24le"), (4, "pcm_s32le")]
)
def test_a_wav_needs_no_extra(monkeypatch: pytest.MonkeyPatch, width: int, codec: str) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    info = probed(pcm(1, width), "a.wav", most=8192)
    assert info == MediaInfo("audio/x-wav", duration=1.0, audio_codec=codec, channels=1, sample_rate=8000)


def test_a_wav_that_is_streamed_or_cut_off_lasts_as_long_as_what_is_there() -> None:
    whole = pcm()
    at = whole.index(b"data") + 4
    streamed = probed(whole[:at] + b"\xff\xff\xff\xff" + whole[at + 4 :])
    assert (streamed.duration, streamed.reason) == (1.0, None)
    cut = probed(whole[: at + 4 + 16000])
    assert (cut.duration, cut.reason) == (0.5, f"cut off after {at + 16004} bytes")


def test_without_the_extra_the_rest_is_told(monkeypatch: pytest.MonkeyPatch, media: dict[str, bytes]) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    info = probed(media["film.mkv"], "film.mkv", most=8192)
    assert info == MediaInfo(
        "video/x-matroska", reason="needs the extra video: pip install 'syncagent[video]'"
    )
    for name in ("end.mp4", "turned.mov", "sound.m4a", "vbr.mp3", "opus.ogg", "sound.flac"):
        assert probed(media[name], name).reason is None


# -- harm ----------------------------------------------------------------------------------------

PICTURES = {
    kind: saved(noise((64, 48)), kind, **options)
    for kind, options in {
        "JPEG": {"exif": camera(6, offset="Z")},
        "PNG": {"exif": camera()},
        "WEBP": {"exif": camera(), "method": 0},
        "TIFF": {"compression": "tiff_lzw", "exif": camera()},
        "AVIF": {"exif": camera(8), "speed": 10},
        "GIF": {},
        "BMP": {},
        "ICO": {},
        "JPEG2000": {},
        "MPO": {},
    }.items()
}


@pytest.fixture(scope="module")
def bodies(media: dict[str, bytes]) -> list[bytes]:
    return [
        *PICTURES.values(),
        *media.values(),
        pcm(),
        zipped(),
        b'<svg width="4" height="4">',
        b'{"a": [1]}',
    ]


def harmless(body: bytes, size: int | None = None, name: str = "a.jpg") -> MediaInfo:
    """No exception, no more than the limit, and one line for a reason."""
    read = Object(body)
    info = probe(read, len(body) if size is None else size, name)
    assert read.bytes <= LIMIT and read.requests <= 64
    assert info.mimetype and (info.reason is None or (info.reason and "\n" not in info.reason))
    assert all(
        value is None or 0 < value < 1 << 31
        for value in (info.width, info.height, info.channels, info.sample_rate)
    )
    assert info.duration is None or 0 <= info.duration < 1e9
    assert info.system() is not None
    return info


fuzz = settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@fuzz
@given(data=st.data())
def test_a_file_that_ends_anywhere_is_harmless(bodies: list[bytes], data: st.DataObject) -> None:
    body = data.draw(st.sampled_from(bodies))
    end = data.draw(st.one_of(st.integers(0, min(len(body), 4096)), st.integers(0, len(body))))
    harmless(body[:end])
    harmless(body[:end], size=len(body))  # the store said more than there is


def test_a_picture_that_ends_anywhere_is_harmless() -> None:
    for kind, body in PICTURES.items():
        for end in range(min(len(body), 1500)):
            info = harmless(body[:end], name="a.bin")
            assert info.width is None or kind == "ICO" or {info.width, info.height} == {64, 48}, kind


@fuzz
@given(data=st.data())
def test_bytes_that_flipped_are_harmless(bodies: list[bytes], data: st.DataObject) -> None:
    body = bytearray(data.draw(st.sampled_from(bodies)))
    places = st.one_of(
        st.integers(0, min(len(body), 600) - 1), st.integers(max(len(body) - 3000, 0), len(body) - 1)
    )
    for at in data.draw(st.lists(places, min_size=1, max_size=12)):
        body[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, body[at] ^ 1, body[at] ^ 0x10]))
    harmless(bytes(body))


HEADS = [
    b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"8BPS\0\1",
    b"RIFF\xff\xff\xff\xffWEBPVP8X", b"RIFF\0\0\0\0WAVEfmt ", b"RIFF\0\0\0\0AVI LIST", b"FORM\0\0\0\0AIFCCOMM",
    b"\0\0\0\x18ftypavif\0\0\0\0mif1avif", b"\0\0\0\x14ftypisom\0\0\0\0isom", b"\0\0\0\x0cjP  \r\n\x87\n", b"fLaC", b"OggS\0\x02",
    b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\x82\x84webm", b"ID3\x03\0\0\0\0\0\0\xff\xfb\x90\x64", b"\xff\xf1\x50\x80", b"\0\0\x01\xba",
    b"FLV\x01\x05\0\0\0\x09", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"<svg ", b"<?xml", b"[", b"\0\0\1\0\1\0", b"BM", b"P6 ",
]  # fmt: skip


@fuzz
@given(
    head=st.sampled_from(HEADS),
    tail=st.binary(max_size=600),
    size=st.sampled_from([None, 1, 1 << 20, 1 << 62]),
)
@example(head=b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", tail=b"\xff" * 8, size=1 << 62)
def test_random_bytes_are_harmless(head: bytes, tail: bytes, size: int | None) -> None:
    harmless(head + tail, size)


class Endless:
    """An object of any size whose every part is the same few bytes."""

    def __init__(self, head: bytes, part: bytes) -> None:
        self.head, self.part, self.bytes, self.requests = head, part, 0, 0

    def __call__(self, offset: int, length: int) -> bytes:
        self.bytes += length
        self.requests += 1
        rest = (offset - len(self.head)) % len(self.part)
        body = self.head[offset:] if offset < len(self.head) else b""
        return (body + (self.part * (length // len(self.part) + 2))[rest if not body else 0 :])[:length]


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (b"\xff\xd8", b"\xff\xe1\0\x02"),  # segments of nothing
        (b"\xff\xd8", b"\xff"),
        (b"\xff\xd8", b"\xff\xe1\xff\xff" + bytes(65533)),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\0\0\0\0\0\0\0\0", b"\0\0\0\0tEXtcrc!"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\0\0\0\0\0\0\0\0", b"\0\1\0\0tEXtcrc!" + bytes(65536)),
        (b"RIFF\xff\xff\xff\xffWEBPVP8X\x0a\0\0\0\x08\0\0\0\0\0\0\0\0\0", b"ANMF\0\0\0\0"),
        (b"II*\0\x08\0\0\0\xff\xff", b"\x69\x87\4\0\1\0\0\0\x08\0\0\0"),  # a directory in itself
        (b"\0\0\0\x14ftypisom\0\0\0\0isom", b"\0\0\0\x08free"),
        (b"\0\0\0\x14ftypisom\0\0\0\0isom", b"\0\0\x20\0free" + bytes(8184)),
        (b"\0\0\0\x14ftypisom\0\0\0\0isom", b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x10"),
        (b"\0\0\0\x14ftypisom\0\0\0\0isom\0\0\0\0moov", b"\0\0\0\0trak"),
        (b"\0\0\0\x14ftypavif\0\0\0\0avif\0\0\0\0meta\0\0\0\0", b"\0\0\0\x0cfree\0\0\0\0"),
        (b"RIFF\xff\xff\xff\xffWAVE", b"LIST\0\0\0\0"),
        (b"OggS", b"OggS\0\x02"),
        (b"ID3\x04\0\0\x7f\x7f\x7f\x7f", b"\xff"),
        (b"", b"\xff\xfb"),
        (b"", b"<!---->"),
        (b"", b"[[{\"a\":"),
        (b"P6", b"#\n"),
        (b"P6", b" "),
        (b"<svg ", b"a"),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\x82\x84webm", b"\xec\x81\0"),
        (b"\0\0\x01\xba", b"\0\0\x01\xbe\0\x02\xff\xff"),
        (b"", b"\x47" + bytes(187)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [1 << 20, 1 << 45])
def test_what_never_ends_is_given_up(head: bytes, part: bytes, size: int) -> None:
    read = Endless(head, part)
    info = probe(read, size, "a.jpg")
    assert read.bytes <= LIMIT and read.requests <= 64
    assert info.mimetype


def test_a_picture_that_says_to_be_huge_is_only_told() -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    info = probed(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b""))
    assert (info.width, info.height, info.reason) == (60_000, 60_000, None)


@pytest.mark.parametrize("name", ["end.mp4", "film.mkv", "film.avi", "opus.ogg"])
@pytest.mark.parametrize("after", [0, 1, 2])
def test_an_error_of_the_store_is_no_fact(media: dict[str, bytes], name: str, after: int) -> None:
    read = Object(media[name])
    probe(read, len(read.body), name)
    needed, seen = read.requests, 0

    def failing(offset: int, length: int) -> bytes:
        nonlocal seen
        seen += 1
        if seen > after:
            raise Transient("busy")
        return read(offset, length)

    if needed > after:
        with pytest.raises(Transient, match="busy"):
            probe(failing, len(read.body), name)


# -- the window ----------------------------------------------------------------------------------


def test_a_window_reads_what_is_asked_for_once() -> None:
    read = Object(NOISE[:100_000])
    window = Window(read, 100_000)
    assert window.at(0, 20) == NOISE[:20]
    assert window.at(0, 8192) == NOISE[:8192]
    assert (read.requests, window.requests, window.bytes_read) == (1, 1, 8192)
    assert window.at(50_000, 10) == NOISE[50_000:50_010]
    assert window.at(49_990, 30) == NOISE[49_990:50_020]  # what is missing before it, up to what is there
    assert (window.requests, window.bytes_read) == (3, 8192 + 4096 + 10)
    assert window.at(99_990, 100) == NOISE[99_990:100_000]
    with pytest.raises(CutOff, match="cut off after 100000 bytes"):
        window.exactly(99_990, 100)
    with pytest.raises(Spent):
        window.at(0, LIMIT)
    assert window.bytes_read == read.bytes <= LIMIT
    little = Window(read, 100_000, limit=100)
    with pytest.raises(Spent):
        little.at(0, 101)
    assert little.bytes_read == 0  # what cannot be had whole is not begun


@given(reads=st.lists(st.tuples(st.integers(0, 30_000), st.integers(0, 9_000)), max_size=20))
def test_a_window_is_the_object(reads: list[tuple[int, int]]) -> None:
    body = NOISE[:25_000]
    read = Object(body)
    window = Window(read, len(body))
    for offset, length in reads:
        assert window.at(offset, length) == body[offset : offset + length]
    assert window.bytes_read == read.bytes <= len(body)


def test_a_window_is_a_file() -> None:
    body = NOISE[:20_000]
    file = Window(Object(body), len(body)).file()
    assert file.read(5) == body[:5]
    assert (file.seek(-5, io.SEEK_END), file.read(), file.read(1)) == (19_995, body[-5:], b"")
    assert (file.seek(3), file.seek(2, io.SEEK_CUR), file.read(2)) == (3, 5, body[5:7])
    assert file.readable() and file.seekable() and not file.writable()
    with pytest.raises(OSError, match="before the beginning"):
        file.seek(-1)
    with pytest.raises(Spent):
        Window(Object(body), len(body), limit=100).file().read()


def test_an_object_that_is_smaller_than_was_said_is_cut_off() -> None:
    body = saved(noise((8, 8)), "JPEG", exif=camera())[:150]
    assert probe(Object(body), 1 << 40, "a.jpg").reason == "cut off after 150 bytes"
    read = Object(b"")
    window = Window(read, 1 << 40)
    assert (window.at(0, 10), window.at(0, 10), read.requests, window.size) == (b"", b"", 1, 0)


def test_a_limit_that_is_small_is_kept() -> None:
    body = PICTURES["JPEG"]
    for limit in (0, 1, 20, 200, 1000):
        read = Object(body)
        assert probe(read, len(body), "a.jpg", limit=limit).mimetype == "image/jpeg"
        assert read.bytes <= limit


def test_more_may_be_read_where_more_is_allowed(media: dict[str, bytes]) -> None:
    read = Object(media["film.ts"])
    info = probe(read, len(read.body), "film.ts", limit=4 << 20)
    assert info.reason is None and info.duration == pytest.approx(1.2, abs=0.02)
    assert LIMIT < read.bytes <= 4 << 20
    short = probe(Object(media["opus.ogg"]), len(media["opus.ogg"]), "a", limit=16 * 1024)
    assert (short.audio_codec, short.reason) == ("opus", "an Ogg file whose last page is not found")


def test_a_store_that_sends_more_than_was_asked_for_changes_nothing() -> None:
    body = PICTURES["JPEG"]
    assert probe(lambda offset, length: body[offset:], len(body), "a") == probed(body, "a")


# -- buckets -------------------------------------------------------------------------------------


def test_the_examples_are_read_from_a_bucket() -> None:
    told = {}
    with open_bucket(str(EXAMPLES)) as bucket:
        for page in bucket.list():
            for found in page:
                info = probe_object(bucket, found.key, found.size)
                assert info.reason is None, found.key
                told[found.key] = info
        assert bucket.driver.requests["get"] == len(told)
        with pytest.raises(NotFound):
            probe_object(bucket, "nothing.jpg", 10)
    assert told["photos/train/street-000.jpg"].system() == {
        "width": 240,
        "height": 160,
        "exif": {"Orientation": 1},
    }
    assert told["video/crossing.mp4"] == MediaInfo(
        "video/mp4", width=160, height=96, duration=2.0, fps="15/1", frames=30, video_codec="h264"
    )
    assert told["audio/chime.mp3"].duration == told["audio/chime.wav"].duration == 1.0
    assert told["text/reviews.jsonl"].mimetype == "application/x-ndjson"
    assert told["graphics/icon.webp"].mimetype == "image/webp"


def test_an_item_gets_the_facts_by_the_platforms_names() -> None:
    info = MediaInfo(
        "video/mp4",
        4,
        3,
        6,
        "2024-01-01T00:00:00Z",
        1.5,
        -2.5,
        1.25,
        "30000/1001",
        37,
        "h264",
        "aac",
        2,
        48000,
        "so so",
    )
    assert info.system() == {
        "width": 4, "height": 3, "exif": {"Orientation": 6}, "takenAt": "2024-01-01T00:00:00Z",
        "gps": {"latitude": 1.5, "longitude": -2.5}, "duration": 1.25, "fps": 30000 / 1001, "fpsRational": "30000/1001",
        "nb_frames": 37, "videoCodec": "h264", "audioCodec": "aac", "channels": 2, "sampleRate": 48000, "mediaError": "so so",
    }  # fmt: skip
    assert len(dataclasses.fields(MediaInfo)) == 15
    assert MediaInfo("text/plain").system() == {}


def test_a_probe_imports_nothing_heavy() -> None:
    import subprocess

    script = "import sys, syncagent.ingest.probe; print(sorted({'av', 'PIL', 'numpy', 'boto3'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
