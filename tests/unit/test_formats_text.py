"""Files that others wrote, to the public specifications of the text formats; and that nothing is dropped without a word."""

from __future__ import annotations

import base64
import io
import json
import math
import time
import tracemalloc
import zipfile
from collections.abc import Iterator
from fractions import Fraction
from typing import Any
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from syncagent.errors import InvalidInput, Unsupported
from syncagent.ingest import masks
from syncagent.ingest.annotations import (
    Annotation,
    Box,
    Classification,
    Ellipse,
    Joint,
    KeyFrame,
    Label,
    Labelled,
    Other,
    Point,
    Polygon,
    Pose,
    Subtitle,
)
from syncagent.ingest.formats import (
    Context,
    Files,
    Losses,
    NewFiles,
    base,
    cvat_meta,
    get,
    label_studio_rle,
    mot,
    table,
)
from syncagent.ingest.formats.carry import difference, real, straightened, total, turned, whole
from syncagent.ingest.formats.dataloop import annotations_json, annotations_of
from syncagent.ingest.formats.label_studio import LabelStudio, key_of
from syncagent.ingest.formats.table import Table
from tests import labelled as l
from tests.profiles import profile

KNOWN = Context(size=lambda key, stem: (640, 480), fps=lambda key, stem: "10")
NAMES = ("vtt", "srt", "cvat", "mot", "label-studio", "table")
SOME = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def read(form: Any, context: Context = KNOWN, /, **files: str | bytes) -> list[Labelled]:
    """Items of files; ``__`` in a name is ``/``, the last ``_`` a dot."""
    told = {
        ".".join(name.replace("__", "/").rsplit("_", 1)): text.encode() if isinstance(text, str) else text
        for name, text in files.items()
    }
    return list((get(form) if isinstance(form, str) else form).read(Files(told), context))


def write(
    form: Any, *items: Labelled, labels: list[Label] | None = None, losses: Losses | None = None
) -> dict[str, bytes]:
    out = NewFiles()
    (get(form) if isinstance(form, str) else form).write(iter(items), out, labels=labels or [], losses=losses)
    return out.files


# -- exact numbers -------------------------------------------------------------------------------

finite = st.floats(-1e12, 1e12).filter(lambda number: abs(number) > 1e-12 or number == 0)


@SOME
@given(finite, finite)
def test_a_width_and_a_side_give_the_other_side_again(low: float, high: float) -> None:
    assert total(repr(low), difference(high, low)) == high


@SOME
@given(st.floats(-360, 360).filter(lambda angle: abs(angle) > 1e-12 or angle == 0))
def test_angles_turn_and_come_back(angle: float) -> None:
    assert 0 <= float(turned(angle)) <= 360
    back = straightened(turned(angle))
    assert math.isclose(math.sin(math.radians(back)), math.sin(math.radians(angle)), abs_tol=1e-12)
    if -180 < angle <= 180:
        assert back == angle


@pytest.mark.parametrize("text", ["", "x", "nan", "inf", "1e999", "1_0", "0x1", "1e99999999999", "١"])
def test_what_is_no_number(text: str) -> None:
    for reads in (real, whole):
        with pytest.raises(ValueError, match="number"):
            reads(text)


# -- nothing is dropped without a word -----------------------------------------------------------


@st.composite
def anything(draw: st.DrawFn) -> Annotation:
    """An annotation of any kind, with up to two things that most formats have no place for."""
    likely = [l.boxes(), l.subtitles, l.classifications]
    geometry = draw(draw(st.sampled_from([*likely, *likely, *likely, *l.every_geometry.values()])))
    fields: dict[str, Any] = {"frame": 2, "end_frame": 12} if draw(st.booleans()) else {}
    if isinstance(geometry, Subtitle):
        fields |= {"start": 0.2, "end": 1.2}
    frame = st.builds(
        KeyFrame, frame=st.integers(5, 8), geometry=st.one_of(l.boxes(), l.boxes(l.angles), l.points),
        label=st.sampled_from([None, None, "bus"]), visible=st.booleans(), attributes=st.just({}) | l.attributes,
    )  # fmt: skip
    named = st.fixed_dictionaries({}, optional={
        "visibility": st.sampled_from([0.5, 2, True]), "ignored": st.just(True) | st.just("x"),
        "language": st.sampled_from(["en", "x y"]), "settings": st.sampled_from(["a", "b\nc"]),
        "source": st.sampled_from(["auto", 3]), "z_order": st.sampled_from([3, "a"]), "occluded": st.just(True),
    })  # fmt: skip
    more: dict[str, st.SearchStrategy[Any]] = {
        "attributes": l.attributes | named, "object_id": st.sampled_from(["3", "x"]), "crowd": st.just(True),
        "score": st.just(0.5), "visible": st.just(False), "description": st.just("d"), "parent": st.just("p"),
        "model": st.just("m"), "key_frames": frame.map(lambda one: (one,)), "end": st.just(1.2), "start": st.just(0.2),
    }  # fmt: skip
    for name in draw(st.lists(st.sampled_from(sorted(more)), max_size=2)):
        fields[name] = draw(more[name])
    return Annotation(
        label=draw(st.sampled_from(["car", "Text", "Text"])), geometry=geometry, id="i", **fields
    )


def look(one: Annotation, name: str) -> Any:
    """What an annotation says, however it says it: a track by its frames, a span by its seconds."""
    one = msgspec.structs.replace(one, id=None)
    if name == "table":
        return one
    if isinstance(one.geometry, Subtitle):
        return msgspec.structs.replace(one, frame=None, end_frame=None)
    if isinstance(one.geometry, Classification) and name == "label-studio":  # frames of a video, else seconds
        start = one.start if one.start is not None or one.frame is None else one.frame / 10
        end = one.end if one.end is not None or one.end_frame is None else one.end_frame / 10
        return msgspec.structs.replace(one, start=start, end=end, frame=None, end_frame=None)
    if one.frame is None:
        return one
    if isinstance(one.geometry, Box):
        frames = [
            (frame, tuple(round(side, 5) for side in msgspec.structs.astuple(box)), label, dict(attributes))
            for frame, box, label, attributes in mot._frames(one)
        ]
        rest = {
            "geometry": Classification(),
            "key_frames": (),
            "frame": None,
            "end_frame": None,
            "attributes": {},
        }
        lasting = (
            {}
            if name == "mot"
            else {key: one.attributes[key] for key in one.attributes if key not in frames[0][3]}
            if frames
            else {}
        )
        if name == "label-studio":  # what the track has lasts there: a frame has what differs from that
            lasting = dict(one.attributes)
            frames = [
                (*rest_of, {key: value for key, value in own.items() if lasting.get(key) != value})
                for *rest_of, own in frames
            ]
        one = msgspec.structs.replace(
            one,
            **rest,
            start=None,
            end=None,
            visible=True,
            object_id=None if one.object_id == "1" else one.object_id,
        )
        return one, frames, lasting
    return msgspec.structs.replace(
        one, start=None, end=None, object_id=None if one.object_id == "1" else one.object_id,
        end_frame=one.frame if one.end_frame is None else one.end_frame,
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_listed_as_lost_is_there(name: str) -> None:
    form, about = profile(name)
    kept = 0

    @settings(SOME, max_examples=400)
    @given(anything(), st.sampled_from(["a.mp4", "a.jpg"]))
    def there(one: Annotation, key: str) -> None:
        nonlocal kept
        video: dict[str, Any] = {"fps": "10", "frames": 100} if key == "a.mp4" else {}
        item = Labelled(key=key, width=64, height=48, annotations=(one,), **video)
        losses = Losses(allowed=True)
        try:
            files = write(form, item, losses=losses)
        except InvalidInput:  # it lacks a time or a frame
            return
        if not losses.counts:
            kept += 1
            found = [each for item in form.read(Files(files), about.context) for each in item.annotations]
            assert [look(each, name) for each in found] == [look(one, name)]

    there()
    assert kept, "nothing was tried"


def test_what_a_frame_of_a_label_studio_track_has_of_its_own_is_listed_as_lost() -> None:
    box = Box(left=0, top=0, right=8, bottom=8)
    one = Annotation(
        label="car", geometry=box, frame=2, attributes={"a": 1}, id="i",
        key_frames=(KeyFrame(frame=5, geometry=box, attributes={"a": 2}),),
    )  # fmt: skip
    form, about = profile("label-studio")
    losses = Losses(allowed=True)
    item = Labelled(key="a.mp4", width=64, height=48, annotations=(one,), fps="10", frames=100)
    files = write(form, item, losses=losses)
    assert losses.counts == {"the attribute 'a'": 1}
    (found,) = (each for item in form.read(Files(files), about.context) for each in item.annotations)
    assert look(found, "label-studio") != look(one, "label-studio"), "and the other test would see it"
    assert found.attributes == {"a": 1}


def test_every_loss_is_listed_by_what_it_is() -> None:
    one = Annotation(
        label="Bob", geometry=Subtitle("x"), attributes={"a": 1, "language": "en", "settings": "x\ny"}, description="d",
        parent="p", object_id="o", crowd=True, score=0.5, model="m", visible=False, start=0.0, end=1.0, id="i",
        key_frames=(KeyFrame(frame=1, geometry=Subtitle("y")),),
    )  # fmt: skip
    losses = Losses(allowed=True)
    write("vtt", Labelled(key="a.mp4", annotations=(one, one)), losses=losses)
    assert losses.counts == dict.fromkeys(
        [
            "a description", "a parent", "an object's id", "the mark of a crowd", "a score", "a model's name", "key frames",
            "that something is hidden", "the attribute 'a'", "the attribute 'settings'",
        ],
        2,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["vtt", "srt", "cvat", "mot"])
def test_what_is_about_the_item_is_counted_and_stops_nothing(name: str) -> None:
    losses = Losses()
    item = Labelled(key="a.mp4", width=4, height=4, user={"a": 1}, description="d")
    write(name, item, losses=losses)
    assert losses.counts == {"the item's metadata": 1, "the item's description": 1}


# -- WebVTT and SubRip ---------------------------------------------------------------------------

VTT = """\ufeffWEBVTT - a title
Kind: captions

NOTE a remark
of two lines, with --> an arrow

STYLE
::cue { color: red }

REGION
id:fred

intro 1
00:01.250 --> 00:02.500 align:start line:0%
Hello &amp; &lt;i&gt; bye
<i>second</i> <c.loud>line</c>

01:00:00.000 --> 01:00:01.000
<v.first Bob &amp; Co>Yes <00:01:00.500>indeed</v>

00:10.000\t-->\t00:20.000
<v Ann>One
<v Bob>Two

00:09.000 --> 00:30.000
5 < 6 &amp;lt;
"""


def test_webvtt_as_others_write_it() -> None:
    for text in (VTT, VTT.replace("\n", "\r\n"), VTT.replace("\n", "\r")):
        (item,) = read("vtt", a_vtt=text)
        assert (item.key, item.stem) == ("a", True)
        told = [(one.label, one.start, one.end, one.geometry.text, one.id) for one in item.annotations]  # type: ignore[union-attr]
        assert told == [
            ("Text", 1.25, 2.5, "Hello & <i> bye\nsecond line", "intro 1"),
            ("Bob & Co", 3600.0, 3601.0, "Yes indeed", None),
            ("Ann", 10.0, 20.0, "One", None),
            ("Bob", 10.0, 20.0, "Two", None),
            ("Text", 9.0, 30.0, "5 < 6 &lt;", None),
        ]
        assert item.annotations[0].attributes == {"settings": "align:start line:0%"}
        assert (item.annotations[0].frame, item.annotations[0].end_frame) == (12, 25)
    (item,) = read("vtt", Context(), a_vtt=VTT)
    assert item.annotations[0].frame is None


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("no header\n", 1),
        ("WEBVTTX\n", 1),
        ("WEBVTT\n\n00:01.000 -> 00:02.000\nx", 4),
        ("WEBVTT\n\n00:01.000 --> 00:61.000\nx", 3),
        ("WEBVTT\n\n00:03.000 --> 00:02.000\nx", 3),
        ("WEBVTT\n\n00:01.000 --> 00:02.000\nx\n\nname\n", 7),
        ("WEBVTT\n\n00:01.000 --> 00:02.000\nx\n\nname\n00:03", 7),
        ("WEBVTT\n\n9999999:00:01.000 --> 9999999:00:02.000\nx", 3),
    ],
)
def test_webvtt_that_is_wrong_names_the_line(text: str, line: int) -> None:
    with pytest.raises(InvalidInput, match=rf"^f/a\.vtt: line {line}:"):
        read("vtt", f__a_vtt=text)


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("f/a.vtt", ("f/a", True, None)),
        ("f/a.en.vtt", ("f/a", True, "en")),
        ("f/a.pt-BR.vtt", ("f/a", True, "pt-BR")),
        ("a.b.vtt", ("a.b", True, None)),
        ("a.mp4.vtt", ("a.mp4", False, None)),
        ("a.mp4.de.vtt", ("a.mp4", False, "de")),
        ("en.vtt", ("en", True, None)),
        ("f/.en.vtt", ("f/.en", True, None)),
    ],
)
def test_names_of_subtitle_files(file: str, told: tuple[str, bool, str | None]) -> None:
    text = b"WEBVTT\n\n00:01.000 --> 00:02.000\nx\n"
    (item,) = get("vtt").read(Files({file: text}), KNOWN)
    assert (item.key, item.stem, item.annotations[0].attributes.get("language")) == told


def test_a_media_file_that_looks_like_a_language_keeps_its_subtitles() -> None:
    said = Annotation(label="Text", geometry=Subtitle("x"), start=0.0, end=1.0)
    files = write("vtt", *(Labelled(key=key, annotations=(said,)) for key in ("clip.en.mp4", "clip.mp4")))
    assert sorted(files) == ["clip.en.mp4.vtt", "clip.vtt"]
    assert {(item.key, item.stem) for item in get("vtt").read(Files(files))} == {
        ("clip.en.mp4", False),
        ("clip", True),
    }


def test_subrip_as_others_write_it() -> None:
    text = (
        "\ufeff1\r\n00:00:01,000 --> 00:00:02,500 X1:40 X2:600\r\n<i>Hi</i>\r\n{\\an8}you\r\n\r\n"
        "2\r\n00:00:00.5 --> 0:00:04,000\r\nA\r\n\r\nB --\r\n42\r\n\r\n\r\n3\r\n00:00:03,000 --> 00:00:04,000\r\n"
    )
    (item,) = read("srt", a_en_srt=text)
    told = [(one.start, one.end, one.geometry.text) for one in item.annotations]  # type: ignore[union-attr]
    assert told == [(1.0, 2.5, "Hi\nyou"), (0.5, 4.0, "A\n\nB --\n42"), (3.0, 4.0, "")]
    assert item.annotations[0].attributes == {"settings": "X1:40 X2:600"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x\n00:00:01,000 --> 00:00:02,000\nHi\n", 1),
        ("1\n00:00:01,000 -> 00:00:02,000\nHi\n", 1),
        ("1\n00:99:01,000 --> 00:00:02,000\nHi\n", 2),
        ("1\n00:00:01,000 --> 00:00:02,000\nHi\n\n2\n00:00:0", 6),
        ("1\n00:00:01,000 --> 00:00:00,000\nHi\n", 2),
    ],
)
def test_subrip_that_is_wrong_names_the_line(text: str, line: int) -> None:
    with pytest.raises(InvalidInput, match=rf"^a\.srt: line {line}:"):
        read("srt", a_srt=text)


def test_subtitles_without_a_time_are_refused() -> None:
    item = Labelled(key="a.mp4", annotations=(Annotation(label="Text", geometry=Subtitle("x"), start=1.0),))
    with pytest.raises(InvalidInput, match=r"a\.mp4: annotation 0: .*start and an end"):
        write("vtt", item)
    timed = msgspec.structs.replace(
        item, fps="10", annotations=(Annotation(label="Text", geometry=Subtitle("x"), frame=5, end_frame=20),)
    )
    assert b"00:00:00.500 --> 00:00:02.000" in write("vtt", timed)["a.vtt"]


# -- CVAT ----------------------------------------------------------------------------------------

META = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><id>5</id><name>t</name><size>100</size><mode>{mode}</mode><labels>
<label><name>car</name><color>#2080c0</color><type>any</type><attributes>
<attribute><name>model</name><mutable>False</mutable><input_type>text</input_type><default_value></default_value><values></values></attribute>
<attribute><name>parked</name><mutable>True</mutable><input_type>checkbox</input_type><default_value>false</default_value><values>false</values></attribute>
<attribute><name>doors</name><mutable>True</mutable><input_type>number</input_type><default_value>1</default_value><values>1;5;1</values></attribute>
</attributes></label>
<label><name>body</name><type>skeleton</type><attributes></attributes><svg>&lt;line x1="1"&gt;</svg></label>
<label><name>nose</name><type>points</type><attributes></attributes><parent>body</parent></label>
<label><name>ear</name><type>points</type><attributes></attributes><parent>body</parent></label>
</labels>{more}</task><dumped>2024-01-01</dumped></meta>
"""
IMAGES = (
    META.format(mode="annotation", more="")
    + """
<image id="0" name="f/a.jpg" width="10" height="6" subset="train" task_id="5">
<box label="car" source="semi-auto" occluded="1" xtl="10.00" ytl="20.00" xbr="110.50" ybr="80.00" rotation="315.50" z_order="2">
<attribute name="model">T &amp; Co</attribute><attribute name="parked">true</attribute><attribute name="doors">5</attribute>
</box>
<polygon label="car" source="manual" occluded="0" points="1.00,2.00;30.00,4.00;20.50,40.00" z_order="0" group_id="4"></polygon>
<points label="car" source="manual" occluded="0" points="1.00,2.00;3.00,4.00" z_order="0"></points>
<ellipse label="car" source="manual" occluded="0" cx="5" cy="6" rx="2" ry="1" z_order="0"></ellipse>
<cuboid label="car" occluded="0" xtl1="1" ytl1="2" xbl1="3" ybl1="4" xtr1="5" ytr1="6" xbr1="7" ybr1="8" xtl2="9" ytl2="10"
 xbl2="11" ybl2="12" xtr2="13" ytr2="14" xbr2="15" ybr2="16" z_order="0"></cuboid>
<mask label="car" source="manual" occluded="0" rle="1, 2, 1, 2" left="4" top="3" width="3" height="2" z_order="0"></mask>
<skeleton label="body" source="manual" z_order="0"><points label="ear" source="manual" outside="0" occluded="1" points="3,4"></points>
<points label="nose" source="manual" outside="1" occluded="0" points="7,8"></points></skeleton>
<tag label="car" source="manual"></tag>
<text>what a later version may have</text>
</image>
<image id="1" name="b.jpg" width="10" height="6"></image>
</annotations>"""
)


def test_cvat_for_images() -> None:
    item, empty = read("cvat", annotations_xml=IMAGES)
    assert (item.key, item.width, item.height, item.user) == ("f/a.jpg", 10, 6, {"subset": "train"})
    assert (empty.key, empty.annotations) == ("b.jpg", ())
    box, polygon, first, second, ellipse, cuboid, mask, pose, tag = item.annotations
    assert box.geometry == Box(10, 20, 110.5, 80, -44.5)
    assert box.attributes == {
        "model": "T & Co",
        "parked": True,
        "doors": 5,
        "occluded": True,
        "z_order": 2,
        "source": "semi-auto",
    }
    assert (polygon.geometry, polygon.object_id) == (Polygon((((1, 2, 30, 4, 20.5, 40),),)), "4")
    assert (first.geometry, second.geometry) == (Point(1, 2), Point(3, 4))
    assert first.object_id == second.object_id == "5"
    assert ellipse.geometry == Ellipse(5, 6, 2, 1)
    assert cuboid.geometry.corners == (1, 2, 5, 6, 7, 8, 3, 4, 9, 10, 13, 14, 15, 16, 11, 12)  # type: ignore[union-attr]
    inside = {(int(y), int(x)) for y, x in zip(*masks.decode(mask.geometry).nonzero(), strict=True)}  # type: ignore[arg-type]
    assert inside == {(3, 5), (3, 6), (4, 5), (4, 6)}
    assert pose.geometry == Pose((Joint("nose", 0, 0, 0), Joint("ear", 3, 4, 1)))
    assert tag.geometry == Classification()


def test_the_labels_of_cvat() -> None:
    car, body = get("cvat").labels(Files({"a.xml": IMAGES.encode()}))
    assert (car.name, car.color, car.attributes["doors"]["values"]) == ("car", "#2080c0", "1;5;1")
    assert (body.name, body.joints) == ("body", ("nose", "ear"))
    files = write("cvat", labels=[car, body])
    assert [
        (one.name, one.color, one.joints, sorted(one.attributes)) for one in get("cvat").labels(Files(files))
    ] == [(one.name, one.color, one.joints, sorted(one.attributes)) for one in (car, body)]


SHAPE = '<box frame="{}" keyframe="{}" outside="{}" occluded="0" xtl="{}" ytl="0" xbr="9" ybr="9" z_order="0"></box>'


def test_cvat_for_video() -> None:
    text = META.format(
        mode="interpolation",
        more="<original_size><width>64</width><height>48</height></original_size><source>v.mp4</source>",
    )
    for track, shapes in (
        (0, [(5, 1, 0, 1), (6, 0, 0, 2), (7, 1, 0, 3), (8, 1, 1, 3), (20, 1, 0, 4), (31, 1, 1, 4)]),
        (1, [(90, 1, 0, 1)]),
    ):
        text += (
            f'<track id="{track}" label="car" source="manual">'
            + "".join(SHAPE.format(*one) for one in shapes)
            + "</track>"
        )
    points = '<points label="nose" keyframe="1" outside="{0}" occluded="0" points="1,2"></points>'
    text += '<track id="2" label="body" source="manual">' + "".join(
        f'<skeleton frame="{frame}" keyframe="1" z_order="0">{points.format(out)}</skeleton>'
        for frame, out in ((0, 0), (4, 1))
    )
    (item,) = read("cvat", a_xml=text + "</track></annotations>")
    assert (item.key, item.stem, item.frames, item.width) == ("v.mp4", False, 100, 64)
    first, second, third = item.annotations
    assert (first.object_id, first.frame, first.end_frame, first.visible) == ("0", 5, 30, True)
    assert [(one.frame, one.visible, one.geometry.left) for one in first.key_frames] == [
        (7, True, 3),
        (8, False, 3),
        (20, True, 4),
    ]  # type: ignore[union-attr]
    assert (second.frame, second.end_frame, second.key_frames) == (90, 99, ())
    assert (third.frame, third.end_frame, third.key_frames) == (0, 3, ())


def test_a_video_of_a_cvat_project_is_that_of_its_task() -> None:
    task = "<task><id>{0}</id><name>n</name><mode>interpolation</mode><source>{0}.mp4</source></task>"
    text = f"<annotations><meta><project><tasks>{task.format(1)}{task.format(2)}</tasks></project></meta>"
    empty = read("cvat", a_xml=text + "</annotations>")
    assert [(item.key, item.annotations) for item in empty] == [("1.mp4", ()), ("2.mp4", ())]
    for number, name in enumerate((2, 1)):
        text += f'<track id="{number}" label="car" task_id="{name}">{SHAPE.format(0, 1, 0, 1)}</track>'
    assert [item.key for item in read("cvat", a_xml=text + "</annotations>")] == ["2.mp4", "1.mp4"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ('<box label="a" xtl="1" ytl="1" xbr="1"></box>', "image 1: lacks 'ybr'"),
        ('<box label="a" xtl="x" ytl="1" xbr="1" ybr="2"></box>', "image 1: 'x' is not a number"),
        ('<box label="a" xtl="inf" ytl="1" xbr="1" ybr="2"></box>', "not a number"),
        ('<polygon label="a" points="1,2;3"></polygon>', "not a number"),
        ('<mask label="a" rle="1,2" left="0" top="0" width="2" height="2"></mask>', "not 2 x 2 pixels"),
        ('<mask label="a" rle="4" left="9" top="0" width="2" height="2"></mask>', "leaves its picture"),
        ('<mask label="a" rle="-1,5" left="0" top="0" width="2" height="2"></mask>', "not 2 x 2 pixels"),
        (
            '<mask label="a" rle="999999999999999" left="0" top="0" width="2" height="2"></mask>',
            "not 2 x 2 pixels",
        ),
        ('<box xtl="1" ytl="1" xbr="1" ybr="2"></box>', "lacks 'label'"),
        (
            '<skeleton label="a"><points label="b" points="1,2"></points><points label="b" points="1,2"></points></skeleton>',
            "two points",
        ),
        ("<a>" * 40 + "</a>" * 40, "too deeply"),
    ],
)
def test_cvat_that_is_wrong_names_the_record(bad: str, reason: str) -> None:
    text = f'<annotations><image name="a.jpg" width="10" height="6">{bad}</image></annotations>'
    with pytest.raises(InvalidInput, match=rf"^f/a\.xml: .*{reason}") as error:
        read("cvat", f__a_xml=text)
    assert error.value.resource == "f/a.xml"


def test_cvat_is_read_as_it_comes_and_no_record_is_endless(monkeypatch: pytest.MonkeyPatch) -> None:
    image = b'<image name="%d.jpg" width="1" height="1"><tag label="a"></tag></image>'
    file = io.BytesIO(b"<annotations>" + b"".join(image % n for n in range(20_000)) + b"</annotations>")

    class One(Files):
        def open(self, name: str) -> Any:
            return file

    found = get("cvat").read(One({"a.xml": b""}))
    next(found)
    assert file.tell() < 200_000, "the first image waits for the file's end"
    monkeypatch.setattr(cvat_meta, "MAX_RECORD", 100_000)
    text = b"<annotations><image name='" + b"a" * 300_000 + b"'></image></annotations>"
    with pytest.raises(InvalidInput, match=r"a\.xml: a record is larger"):
        read("cvat", a_xml=text)


def test_cvat_takes_no_more_memory_for_more_images() -> None:
    image = b'<image name="%d.jpg" width="1" height="1"><box label="a" xtl="1" ytl="1" xbr="2" ybr="2"></box></image>'

    def peak(count: int) -> int:
        files = Files(
            {"a.xml": b"<annotations>" + b"".join(image % n for n in range(count)) + b"</annotations>"}
        )
        tracemalloc.start()
        assert sum(1 for _ in get("cvat").read(files)) == count
        found = tracemalloc.get_traced_memory()[1] - len(files.open("a.xml").read())
        tracemalloc.stop()
        return found

    few = peak(200)
    assert peak(4000) < few + 500_000


def test_text_of_cvat_keeps_its_white_space() -> None:
    told = " a\r\n\tb\r "
    one = Annotation(label=told, geometry=Classification(), attributes={told: told})
    (item,) = get("cvat").read(Files(write("cvat", Labelled(key="a\tb.jpg", annotations=(one,)))))
    assert (item.key, item.annotations) == ("a\tb.jpg", (one,))
    losses = Losses(allowed=True)
    item = Labelled(key="a.jpg", annotations=(Annotation(label="a\0b\ufffe", geometry=Classification()),))
    (item,) = get("cvat").read(Files(write("cvat", item, losses=losses)))
    assert item.annotations[0].label == "ab"
    assert losses.counts == {"characters that XML does not have": 1}
    with pytest.raises(InvalidInput, match="XML"):
        write("cvat", Labelled(key="a\0.jpg"))


def test_what_cvat_imports_needs_is_there() -> None:
    """The attributes that CVAT's own loader asks for by name."""
    needed = {
        "image": {"id", "name"}, "box": {"xtl", "ytl", "xbr", "ybr"}, "polygon": {"points"}, "polyline": {"points"},
        "points": {"points"}, "ellipse": {"cx", "cy", "rx", "ry"}, "mask": {"rle", "left", "top", "width", "height"},
        "track": {"id", "label"},
    }  # fmt: skip
    seen = set()

    @SOME
    @given(profile("cvat")[1].items)
    def importable(items: list[Labelled]) -> None:
        for data in write("cvat", *items).values():
            root = ElementTree.fromstring(data)  # noqa: S314
            assert root.findtext("version") == "1.1"
            assert root.find("meta/task/labels") is not None
            for parent in root.iter():
                for child in parent:
                    wanted = set(needed.get(child.tag, ()))
                    if parent.tag in {"image", "track", "skeleton"} and child.tag != "attribute":
                        wanted |= {"label"} if parent.tag != "track" else {"frame", "keyframe"}
                        wanted |= {"occluded", "outside"} if parent.tag == "skeleton" else set()
                        seen.add((parent.tag, child.tag))
                    assert wanted <= set(child.attrib), (child.tag, wanted - set(child.attrib))

    importable()
    assert {("image", "mask"), ("image", "skeleton"), ("skeleton", "points"), ("track", "box")} <= seen


def test_cvat_writes_parts_apart_where_that_is_allowed() -> None:
    ring = (0.0, 0.0, 1.0, 0.0, 1.0, 1.0)
    one = Annotation(label="a", geometry=Polygon(((ring,), (ring, ring))))
    item = Labelled(key="a.jpg", width=4, height=4, annotations=(one,))
    with pytest.raises(Unsupported, match="a polygon of several rings"):
        write("cvat", item)
    losses = Losses(allowed=True)
    (back,) = get("cvat").read(Files(write("cvat", item, losses=losses)))
    assert [each.geometry for each in back.annotations] == [Polygon(((ring,),))] * 2
    assert losses.counts == {"a polygon of several rings": 1}


# -- MOT -----------------------------------------------------------------------------------------


def test_mot_as_the_challenge_has_it() -> None:
    rows = "3,1,12,20,30,40,1,1,1\n1,1,10,20,30,40.5,1,1,0.86014\n1,2,100,100,10,10,0,3,1\n6,1,9,20,30,40,1,1,1\n"
    info = "[Sequence]\nname=MOT16-02\nimDir=img1\nframeRate=30\nseqLength=600\nimWidth=1920\nimHeight=1080\nimExt=.jpg\n"
    det = "1,-1,10,20,30,40,0.9,-1,-1,-1\n1,-1,10,20,30,40,44.9,-1,-1,-1\n"
    files = {
        "train/x/gt/gt.txt": rows, "train/x/seqinfo.ini": info, "train/x/det/det.txt": det, "test/y/det/det.txt": det,
        "res/MOT16-09.txt": "2,7,1,1,2,2,0.5,-1,-1,-1\n",
    }  # fmt: skip
    found = {
        item.key: item
        for item in get("mot").read(Files({name: text.encode() for name, text in files.items()}))
    }
    assert sorted(found) == ["res/MOT16-09", "test/y", "train/MOT16-02"]
    item = found["train/MOT16-02"]
    assert (item.stem, item.width, item.height, item.fps, item.frames) == (True, 1920, 1080, "30", 600)
    walker, car = item.annotations
    assert (walker.label, walker.object_id, walker.frame, walker.end_frame) == ("pedestrian", "1", 0, 5)
    assert (walker.geometry, walker.attributes) == (Box(10, 20, 40, 60.5), {"visibility": 0.86014})
    assert [(one.frame, one.visible) for one in walker.key_frames] == [
        (1, False),
        (2, True),
        (3, False),
        (5, True),
    ]
    assert (car.label, car.attributes) == ("car", {"ignored": True})
    sure, odd = found["test/y"].annotations
    assert (sure.object_id, sure.score, sure.frame, sure.end_frame) == (None, 0.9, 0, 0)
    assert (odd.score, odd.attributes) == (None, {"confidence": 44.9})
    assert found["res/MOT16-09"].annotations[0].score == 0.5


def test_mot_as_cvat_exports_it() -> None:
    rows = "1,1,1363.5,569,103,241,1,2,0.86014\n"
    with pytest.raises(InvalidInput, match=r"gt/gt\.txt: stands in no folder of its video's name"):
        read("mot", gt__gt_txt=rows)
    (item,) = read(mot.Mot(video="v.mp4"), gt__gt_txt=rows, gt__labels_txt="cat\nfine dog\n")
    assert (item.key, item.stem, item.annotations[0].label) == ("v.mp4", False, "fine dog")
    assert get("mot").labels(Files({"gt/labels.txt": b"cat\ndog\n"})) == [
        Label(name="cat", id=1),
        Label(name="dog", id=2),
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("1,1,1,1,2", "line 1: 5 columns"),
        ("0,1,1,1,2,2,1,1,1", "line 1: frames count from 1"),
        ("1.5,1,1,1,2,2,1,1,1", "not a whole number"),
        ("1,1,1,1,-2,2,1,1,1", "no negative width"),
        ("1,1,1,nan,2,2,1,1,1", "not a number"),
        ("1,1,1e300,1,1e999,2,1,1,1", "not a number"),
        ("1,1,1,1,2,2,1,77,1", "class 77 is none"),
        ("1,1,1,1,2,2,1,1,3", "visibility"),
        ("1,1,1,1,2,2,1,1,1\n\n1,1,1,1,2,2,1,1,1", "line 3: object 1 is twice in frame 1"),
        ("9" * 5000, "line 1: too long"),
    ],
)
def test_mot_that_is_wrong_names_the_line(row: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=rf"^x/gt/gt\.txt: .*{reason}"):
        read("mot", x__gt__gt_txt=row)


@pytest.mark.parametrize(
    "info",
    ["x", "[Other]\n", "[Sequence]\nimWidth=x", "[Sequence]\nframeRate=0", "[Sequence]\nname=../x", "[[["],
)
def test_a_seqinfo_that_is_wrong_is_named(info: str) -> None:
    with pytest.raises(InvalidInput, match=r"seqinfo\.ini"):
        read("mot", x__gt__gt_txt="", x__seqinfo_ini=info)


def test_mot_writes_every_frame_of_a_track_and_no_gap() -> None:
    frames = (
        KeyFrame(frame=2, geometry=Box(2, 0, 6, 4)),
        KeyFrame(frame=3, geometry=Box(0, 0, 4, 4), visible=False),
        KeyFrame(frame=5, geometry=Box(9, 0, 10, 4), label="bus"),
    )
    track = Annotation(
        label="car", geometry=Box(0, 0, 4, 4), frame=0, end_frame=6, key_frames=frames, object_id="4"
    )
    files = write("mot", Labelled(key="f/v.mp4", annotations=(track,)))
    assert files["f/v/gt/gt.txt"].decode().splitlines() == [
        "1,4,0,0,4,4,1,2,1", "2,4,1,0,4,4,1,2,1", "3,4,2,0,4,4,1,2,1", "6,4,9,0,1,4,1,1,1", "7,4,9,0,1,4,1,1,1",
    ]  # fmt: skip
    assert files["f/v/gt/labels.txt"] == b"bus\ncar\n"


# -- Label Studio --------------------------------------------------------------------------------

RESULT = {
    "id": "r1", "type": "rectanglelabels", "from_name": "label", "to_name": "image", "original_width": 200,
    "original_height": 100, "image_rotation": 0,
    "value": {"x": 10, "y": 20, "width": 50, "height": 25, "rotation": 0, "rectanglelabels": ["Car"]},
}  # fmt: skip


def task(*results: Any, data: Any = None, **more: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "data": data or {"image": "/data/upload/3/0a1b2c3d-a.jpg"},
        "annotations": [{"id": 9, "result": list(results)}],
        **more,
    }


def studio(*tasks: Any, form: Any = "label-studio") -> list[Labelled]:
    return read(form, tasks_json=json.dumps(list(tasks)))


def only(*results: Any, **more: Any) -> Annotation:
    ((found,),) = [item.annotations for item in studio(task(*results, **more))]
    return found


def shape(type_name: str, **value: Any) -> dict[str, Any]:
    return {**RESULT, "type": type_name, "value": {type_name: ["Car"], **value}}


def test_label_studio_rectangles() -> None:
    (item,) = studio(task(RESULT))
    assert (item.key, item.width, item.height) == ("a.jpg", 200, 100)
    assert (item.annotations[0].label, item.annotations[0].geometry) == ("Car", Box(20, 20, 120, 45))


@pytest.mark.parametrize("angle", [30, 90, -120, 315])
def test_a_rectangle_of_label_studio_is_turned_around_its_corner(angle: float) -> None:
    value = {**RESULT["value"], "rotation": angle}  # type: ignore[dict-item]
    geometry = only({**RESULT, "value": value}).geometry
    assert isinstance(geometry, Box)
    x, y, second_x, second_y = geometry.corners()[:4]
    assert (x, y) == pytest.approx((20, 20), abs=1e-5)
    turn = math.radians(angle)
    assert (second_x, second_y) == pytest.approx(
        (20 + 100 * math.cos(turn), 20 + 100 * math.sin(turn)), abs=1e-5
    )


def test_label_studio_shapes() -> None:
    assert only(shape("polygonlabels", points=[[0, 0], [50, 0], [50, 50]], closed=True)).geometry == Polygon(
        (((0, 0, 100, 0, 100, 50),),)
    )
    assert only(shape("keypointlabels", x=10, y=10, width=0.5)).geometry == Point(20, 10)
    assert only(shape("ellipselabels", x=50, y=50, radiusX=10, radiusY=10, rotation=5)).geometry == Ellipse(
        100, 50, 20, 10, 5
    )
    apart = [
        {**RESULT, "type": "rectangle"},
        {**RESULT, "type": "labels", "value": {"labels": ["Bus", "Red"]}},
    ]
    assert (only(*apart).label, only(*apart).attributes) == ("Bus", {"labels": ["Red"]})
    strange = only({**RESULT, "type": "vectorlabels", "value": {"vertices": [], "vectorlabels": ["v"]}})
    assert (strange.label, strange.geometry) == (
        "v",
        Other("vectorlabels", {"vertices": [], "vectorlabels": ["v"]}),
    )


def test_answers_about_a_region_are_its_attributes() -> None:
    about = [
        {**RESULT, "type": "choices", "from_name": "color", "value": {"choices": ["red"]}},
        {**RESULT, "type": "choices", "from_name": "parts", "value": {"choices": ["a", "b"]}},
        {**RESULT, "type": "number", "from_name": "doors", "value": {"number": 4}},
        {**RESULT, "type": "textarea", "from_name": "plate", "value": {"text": ["AB", "12"]}},
    ]
    one = only({**RESULT, "parentID": "p", "score": 0.5, "meta": {"note": "n"}}, *about)
    assert one.attributes == {"color": "red", "parts": ["a", "b"], "doors": 4, "note": "n"}
    assert (one.description, one.parent, one.score, one.id) == ("AB\n12", "p", 0.5, "r1")
    assert only({**RESULT, "meta": {"text": ["a note"]}}).description == "a note"


def test_answers_about_the_whole_item() -> None:
    results = [
        {"id": "c", "type": "choices", "from_name": "kind", "value": {"choices": ["day", "rain"]}},
        {"id": "t", "type": "taxonomy", "from_name": "tree", "value": {"taxonomy": [["animal", "cat"]]}},
        {"id": "x", "type": "textarea", "from_name": "caption", "value": {"text": ["words"]}},
        {"id": "r", "type": "rating", "from_name": "stars", "value": {"rating": 4}},
        {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"},
    ]
    (item,) = studio(task(*results, data={"image": "a.jpg", "site": "north"}))
    assert [(one.label, one.id) for one in item.annotations] == [
        ("day", None),
        ("rain", None),
        ("animal.cat", "t"),
    ]
    assert (item.description, item.user) == ("words", {"site": "north", "stars": 4})


def test_label_studio_sounds() -> None:
    span = {"start": 1.5, "end": 2.5, "channel": 0}
    results = [
        {"id": "s", "type": "labels", "from_name": "who", "value": {**span, "labels": ["Ann"]}},
        {"id": "s", "type": "textarea", "from_name": "said", "value": {**span, "text": ["Hello"]}},
        {"id": "n", "type": "labels", "from_name": "who", "value": {**span, "labels": ["Noise"]}},
        {
            "id": "ts",
            "type": "timeserieslabels",
            "value": {"start": 3, "end": 4, "timeserieslabels": ["Run"]},
        },
        {"id": "w", "type": "labels", "value": {"start": 0, "end": 5, "text": "Hello", "labels": ["Word"]}},
    ]
    said, noise, run, word = studio(task(*results, data={"audio": "s3://b/a.wav"}))[0].annotations
    assert (said.label, said.geometry, said.start, said.end) == ("Ann", Subtitle("Hello"), 1.5, 2.5)
    assert (noise.label, noise.geometry) == ("Noise", Classification())
    assert (run.label, run.start) == ("Run", 3)
    assert isinstance(word.geometry, Other), "a span of letters is none of time"


def test_label_studio_videos() -> None:
    def at(frame: int, x: float, enabled: bool) -> dict[str, Any]:
        return {
            "frame": frame,
            "x": x,
            "y": 0,
            "width": 10,
            "height": 10,
            "rotation": 0,
            "enabled": enabled,
            "time": frame / 10,
        }

    value = {
        "framesCount": 100,
        "duration": 10,
        "labels": ["Car"],
        "sequence": [at(11, 50, False), at(1, 0, True), at(5, 10, False), at(8, 20, True)],
    }
    video = {"video": "https://host/v/a%20b.mp4?token=1"}
    one = only({**RESULT, "type": "videorectangle", "value": value}, data=video)
    assert (one.label, one.frame, one.end_frame, one.geometry) == ("Car", 0, 10, Box(0, 0, 20, 10))
    assert [(each.frame, each.visible, each.geometry.left) for each in one.key_frames] == [  # type: ignore[union-attr]
        (4, True, 20), (5, False, 20), (7, True, 40), (10, True, 100),
    ]  # fmt: skip
    value["sequence"] = [at(1, 0, False), at(2, 0, True), at(3, 0, False)]
    one = only({**RESULT, "type": "videorectangle", "value": value}, data=video)
    assert ([each.frame for each in one.key_frames], one.end_frame) == ([1], 2)
    value["sequence"] = [at(1, 0, True)]
    assert only({**RESULT, "type": "videorectangle", "value": value}, data=video).end_frame == 99
    ranges = {
        "type": "timelinelabels",
        "value": {"ranges": [{"start": 1, "end": 5}], "timelinelabels": ["Run"]},
    }
    assert (only(ranges, data=video).frame, only(ranges, data=video).end_frame) == (0, 4)


def test_which_annotation_of_a_task_is_read() -> None:
    def one(label: str, **more: Any) -> dict[str, Any]:
        return {"result": [{"type": "choices", "value": {"choices": [label]}}], **more}

    def labels(*annotations: Any, form: Any = "label-studio", **more: Any) -> list[str]:
        found = studio({"data": {"image": "a.jpg"}, "annotations": list(annotations), **more}, form=form)
        return [each.label for each in found[0].annotations]

    old, new = one("old", created_at="2024-01-01T00:00:00Z"), one("new", created_at="2024-01-02T00:00:00Z")
    cancelled = one("cancelled", created_at="2025-01-01T00:00:00Z", was_cancelled=True)
    assert labels(new, old, cancelled) == ["new"]
    assert labels(new, one("truth", created_at="2023-01-01", ground_truth=True), old) == ["truth"]
    assert labels(one("a"), one("b")) == ["b"]
    assert labels(old, new, cancelled, form=LabelStudio(every=True)) == ["old", "new"]
    guess = one("guess", model_version="m1", score=0.75)
    assert labels(cancelled, predictions=[guess]) == []
    (item,) = studio({"data": {"image": "a.jpg"}, "predictions": [guess]}, form=LabelStudio(predictions=True))
    assert (item.annotations[0].score, item.annotations[0].model) == (0.75, "m1")


def test_other_files_of_label_studio() -> None:
    lines = "\n".join(json.dumps(task(RESULT, data={"image": f"{n}.jpg"})) for n in range(2))
    assert [item.key for item in read("label-studio", a_jsonl=lines)] == ["0.jpg", "1.jpg"]
    alone = {"id": 3, "result": [RESULT], "task": {"id": 1, "data": {"image": "s.jpg"}}}
    assert [(item.key, len(item.annotations)) for item in read("label-studio", a_json=json.dumps(alone))] == [
        ("s.jpg", 1)
    ]
    value = {**RESULT["value"], "original_width": 200, "original_height": 100}  # type: ignore[dict-item]
    (item,) = studio(
        {"image": "m.jpg", "id": 5, "box": [value], "kind": {"choices": ["day", "rain"]}, "mood": "good"}
    )
    assert [(one.label, one.geometry) for one in item.annotations] == [
        ("Car", Box(20, 20, 120, 45)), ("day", Classification()), ("rain", Classification()),
    ]  # fmt: skip
    assert item.user == {"id": 5, "mood": "good"}


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("/data/upload/12/0a1b2c3d-my_photo.jpg", "my_photo.jpg"),
        ("http://host:8080/data/upload/12/0a1b2c3d-a%20b.jpg", "a b.jpg"),
        ("/data/upload/plain.jpg", "plain.jpg"),
        ("/data/local-files/?d=x/a%2520b.jpg", "x/a%20b.jpg"),
        ("http://host/data/local-files/?d=/abs/a.jpg", "abs/a.jpg"),
        ("s3://bucket/x/a%20b.jpg", "x/a%20b.jpg"),
        ("gs://bucket/x/a?b.jpg", "x/a?b.jpg"),
        ("https://host/x/a%20b.jpg?sig=1", "x/a b.jpg"),
        ("x/a%20b.jpg", "x/a%20b.jpg"),
        ("/tasks/4/resolve/?fileuri=" + base64.b64encode(b"s3://b/x/c.jpg").decode(), "x/c.jpg"),
    ],
)
def test_the_file_of_a_url(url: str, key: str) -> None:
    assert key_of(url) == key


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"id": 4}, "task 4: no member of its data tells a file"),
        ({"id": 4, "data": []}, "task 4: a task's data must be an object"),
        ({"data": {"image": "s3://bucket"}}, "task 0: data.image tells no file"),
        (task({"type": "rectanglelabels"}), "task 1: result 0: lacks 'value'"),
        (task("x"), "result 0: must be an object"),
        (task(shape("rectanglelabels", x="1", y=1, width=1, height=1)), "a number is expected"),
        (task(shape("rectanglelabels", x=1e308, y=1, width=1e308, height=1)), "out of all bounds"),
        (task({**RESULT, "image_rotation": 90}), "image_rotation"),
        (task({**RESULT, "original_width": 0}), "no size"),
        (task(shape("polygonlabels", points=[])), "without points"),
        (task(shape("polygonlabels", points=[[1]])), "result 0"),
        (task(shape("brushlabels", rle=[1, 2])), "cut off"),
        (task(shape("brushlabels", rle=[-1])), "no list of bytes"),
        (task(shape("brushlabels", rle=[0] * 40)), "not 200 x 100 pixels"),
        (task({**RESULT, "type": "videorectangle", "value": {"sequence": []}}), "without key frames"),
        (task({**RESULT, "type": "videorectangle", "value": {"sequence": [{"frame": 0}]}}), "count from 1"),
        (
            {"data": {"image": "a.jpg"}, "annotations": [{"result": {}, "id": 1}, {"result": {"a": 1}}]},
            "must be a list",
        ),
    ],
)
def test_label_studio_that_is_wrong_names_the_task(bad: Any, reason: str) -> None:
    with pytest.raises(InvalidInput, match=rf"^tasks\.json: .*{reason}"):
        studio(bad)


def test_json_that_is_nested_without_end_is_an_error() -> None:
    for text in ("[" + '{"a":' * 100_000, '[{"data":' + "[" * 100_000, "[" * 100_000):
        with pytest.raises(InvalidInput, match=r"a\.json"):
            read("label-studio", a_json=text)
        with pytest.raises(InvalidInput, match=r"a\.csv: line 2"):
            read("table", a_csv=f'key,points\na,"{text.replace(chr(34), chr(34) * 2)}"\n')


@pytest.mark.parametrize(
    "text", ["[] x", "[{}", "[{},]", "[{} {}]", "[1]", "[{}]]", "", " ", "[", '[{"a":1.']
)
def test_json_that_is_no_list_of_tasks(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^a\.json: "):
        read("label-studio", a_json=text)


def test_tasks_that_are_large_and_nested_are_read_one_by_one() -> None:
    many = [{**RESULT, "id": f"r{n}"} for n in range(3000)]
    text = json.dumps([task(*many, data={"image": f"{n}.jpg"}) for n in range(4)], indent=1)
    assert len(text) > 3 << 20
    assert [(item.key, len(item.annotations)) for item in read("label-studio", a_json=text)] == [
        (f"{n}.jpg", 3000) for n in range(4)
    ]


# What the converter of Label Studio makes of a picture of 4 x 2 pixels whose upper left one and right column are inside.
BRUSH = [0, 0, 0, 32, 57, 27, 252, 127, 243, 128, 71, 255, 108, 2, 63, 240]


def test_a_brush_is_as_the_converter_has_it() -> None:
    import numpy as np

    pixels = np.array([[1, 0, 0, 1], [0, 0, 0, 1]], dtype=bool)
    mask = masks.encode(pixels)
    assert label_studio_rle.encode(mask) == BRUSH
    assert label_studio_rle.decode(BRUSH, 4, 2) == mask
    assert (
        only(
            {**shape("brushlabels", rle=BRUSH, format="rle"), "original_width": 4, "original_height": 2}
        ).geometry
        == mask
    )
    # The editor's own encoder also writes several single values in a block; a colour without opacity is outside.
    head = f"{8:032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    single = head + "0" + "00" + "111" + "".join(map("{:08b}".format, (9, 8, 7, 0, 0, 0, 0, 6)))
    told = list(int(single.ljust(136, "0"), 2).to_bytes(17, "big"))
    assert label_studio_rle.decode(told, 2, 1) == masks.encode(np.array([[False, True]]))


def test_ids_of_results_are_stable_and_no_two_are_the_same() -> None:
    boxes = tuple(
        Annotation(label="a", geometry=Box(0, 0, 1, 1), id=name) for name in ("r1", None, "x", "x", None)
    )
    item = Labelled(key="a.jpg", width=4, height=4, annotations=boxes)
    (file,) = write("label-studio", item).values()
    assert [one["id"] for one in json.loads(file)[0]["annotations"][0]["result"]] == [
        "r1",
        "r2",
        "x",
        "r3",
        "r4",
    ]
    assert file == write("label-studio", item)["label-studio.json"]


# -- tables --------------------------------------------------------------------------------------


def test_a_table_as_people_write_it() -> None:
    text = (
        "\ufeffkey,label,left,top,right,bottom,points,colour,occluded\r\n"
        "f/a.jpg,car,1,2,30.5,40,,red,\r\n"
        'f/a.jpg,dog,,,,,"[[0,0,1,0,1,1]]",,yes\r\n'
        "\r\n"
        "b.jpg,,,,,,,,\r\n"
        "f/a.jpg,day,,,,,,,\r\n"
    )
    first, empty, again = read("table", labels_csv=text)
    assert [item.key for item in (first, empty, again)] == ["f/a.jpg", "b.jpg", "f/a.jpg"]
    car, dog = first.annotations
    assert (car.label, car.geometry, car.attributes) == ("car", Box(1, 2, 30.5, 40), {"colour": "red"})
    assert (dog.geometry, dog.attributes) == (Polygon((((0, 0, 1, 0, 1, 1),),)), {"occluded": "yes"})
    assert (empty.annotations, again.annotations[0].geometry) == ((), Classification())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("label\ncar\n", "header: has no column 'key'"),
        ("key,key\na,b\n", "twice"),
        ("key,label\na\n", "line 2: 1 cells"),
        ("key,label\na,b,c\n", "line 2: 3 cells"),
        ('key,label\na,"b\n', "line 2: no CSV"),
        ("key,label\n,b\n", "line 2: tells no key"),
        ("key,left,top,right,bottom\na,1,2,3,\n", "line 2: bottom: is empty"),
        ("key,left,top,right,bottom\na,1,2,3,x\n", "line 2: bottom: 'x' is not a number"),
        ("key,type\na,blob\n", "line 2: type: 'blob' is none"),
        ('key,points\na,"[[1,2,3]]"\n', "line 2: points: a ring"),
        ("key,points\na,x\n", "line 2: points: no such JSON"),
        ("key,type,x,y\n\na,point,1,nan\n", "line 3: y: 'nan'"),
        ("key,type,counts\na,mask,xx\n", "width and height"),
        ("key,type,counts,width,height\na,mask,xx,5,5\n", "line 2: the mask"),
        ("key,crowd\na,maybe\n", "neither true nor false"),
        ("key,frame\na,1.5\n", "not a whole number"),
        ('key,type,geometry\na,pose,"{""joints"":[[1]]}"\n', "line 2: geometry: no such JSON"),
        (
            'key,left,top,right,bottom,key_frames\na,1,2,3,4,"[{""type"":""box""}]"\n',
            "key frame 0: frame: is empty",
        ),
    ],
)
def test_a_table_that_is_wrong_names_the_line(text: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=rf"^labels\.csv: .*{reason}"):
        read("table", labels_csv=text)


def test_a_line_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MAX_RECORD", 1000)
    with pytest.raises(InvalidInput, match="line 2: longer than"):
        read("table", a_csv="key,label\n" + "a" * 5000)


def test_texts_are_written_as_they_are_or_guarded() -> None:
    labels = ["=1+1", "+a", "-5", "@x", "'q", "plain"]
    item = Labelled(
        key="a.jpg", annotations=tuple(Annotation(label=label, geometry=Classification()) for label in labels)
    )
    assert b"\na.jpg,,,,,,,,=1+1,class," in write("table", item)["annotations.csv"]
    form = Table(guard=True)
    files = write(form, item)
    assert b",'=1+1,class," in files["annotations.csv"]
    assert list(form.read(Files(files))) == [item]


def test_parquet_holds_what_csv_does() -> None:
    form, about = Table(parquet=True), profile("table")[1]

    @SOME
    @given(about.items)
    def same(items: list[Labelled]) -> None:
        found = list(form.read(Files(write(form, *items))))
        assert found == items

    same()


def test_parquet_as_others_write_it() -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    out = io.BytesIO()
    rows = arrow.Table.from_pydict({
        "key": ["a.jpg", "a.jpg", "b.jpg"], "label": ["car", "dog", None], "left": [1.0, math.nan, None], "top": [2, None, None],
        "right": [3.0, None, None], "bottom": [4.0, None, None], "points": [None, [[0.0, 0.0, 1.0, 0.0, 1.0, 1.0]], None],
        "object_id": [7.0, math.nan, math.nan], "attributes": [{"a": 1}, None, None], "size": [5, None, None],
    })  # fmt: skip
    parquet.write_table(rows, out, row_group_size=1)
    first, second = read("table", a_parquet=out.getvalue())
    car, dog = first.annotations
    assert (car.geometry, car.object_id, car.attributes) == (Box(1, 2, 3, 4), "7", {"a": 1, "size": 5})
    assert (dog.geometry, dog.object_id) == (Polygon((((0, 0, 1, 0, 1, 1),),)), None)
    assert second.annotations == ()


def test_parquet_that_is_noise_is_an_error() -> None:
    pytest.importorskip("pyarrow")
    form = Table(parquet=True)
    item = Labelled(key="a.jpg", annotations=(Annotation(label="car", geometry=Box(1, 2, 3, 4)),))
    whole_file = write(form, item)["annotations.parquet"]

    @SOME
    @given(st.integers(0, len(whole_file) - 1), st.integers(0, 255), st.booleans())
    def noise(at: int, byte: int, cut: bool) -> None:
        data = whole_file[:at] if cut else whole_file[:at] + bytes([byte]) + whole_file[at + 1 :]
        try:
            read("table", a_parquet=data)
        except InvalidInput as error:
            assert error.resource == "a.parquet"

    noise()


def test_parquet_without_pyarrow_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Iterator[None]:
        raise ImportError(name)

    monkeypatch.setattr(table, "import_module", missing)
    with pytest.raises(Unsupported, match="pip install"):
        read("table", a_parquet=b"PAR1")
    assert read("table", a_csv="key\na\n") == [Labelled(key="a")]


def test_rates() -> None:
    from syncagent.ingest.formats.carry import rate

    assert (rate("30000/1001"), rate("29.97"), rate("25")) == (
        Fraction(30000, 1001),
        Fraction(2997, 100),
        Fraction(25),
    )
    assert [rate(text) for text in ("0", "1/0", "x", "", None, "1e9", "-1", "9" * 99)] == [None] * 8


# -- the platform's JSON -------------------------------------------------------------------------


def platform(*annotations: Any, **more: Any) -> bytes:
    return json.dumps({"filename": "/a.jpg", "annotations": [*annotations], **more}).encode()


def of(type_name: str, coordinates: Any = None, system: Any = None, user: Any = None, **more: Any) -> Any:
    metadata = {"system": system or {}, "user": user or {}}
    return {"type": type_name, "label": "a", "coordinates": coordinates, "metadata": metadata, **more}


BOX = [{"x": 1, "y": 1}, {"x": 2, "y": 2}]
POSE = of("pose", {}, id="p")


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        (of("box", BOX, id=7), "id must be a text"),
        (of("box", BOX, id=[]), "id must be a text"),
        (of("pose", {}, id=[]), "id must be a text"),
        (of("box", BOX, description=[1]), "description must be a text"),
        (of("box", BOX, {"frame": "x"}), "frame must be a whole number"),
        (of("box", BOX, {"frame": 1.5}), "frame must be a whole number"),
        (of("box", BOX, {"frame": 10**30}), "frame must be a whole number"),
        (of("box", BOX, {"endFrame": []}), "endFrame must be a whole number"),
        (of("box", BOX, {"startTime": "q"}), "startTime must be a number"),
        (of("box", BOX, {"endTime": True}), "endTime must be a number"),
        (of("box", BOX, {"parentId": 5}), "parentId must be a text"),
        (of("point", BOX[0], {"parentId": {}}), "parentId must be a text"),
        (of("box", BOX, {"objectId": [1]}), "objectId must be a text"),
        (of("box", BOX, user={"model": {"confidence": "high"}}), "confidence must be a number"),
        (of("box", BOX, user={"model": {"name": 5}}), "name must be a text"),
        (of("box", BOX, {"syncagent": {"visible": "no"}}), "visible must be true or false"),
        (of("box", BOX, {"snapshots_": [5]}), "snapshots_ must be a list of objects"),
        (of("box", BOX, {"snapshots_": {}, "frame": 1}), None),
        (of("box", BOX, {"snapshots_": [{"data": BOX}]}), "lacks its frame"),
        (of("box", BOX, {"snapshots_": [{"frame": "x", "data": BOX}]}), "frame must be a whole number"),
        (of("box", BOX, {"snapshots_": [{"frame": 1, "data": BOX, "label": 5}]}), "label must be a text"),
        (of("box", BOX, {"snapshots_": [{"frame": 1, "data": BOX, "type": [1]}]}), "type must be a text"),
        (of("box", BOX, {"snapshots_": [{"frame": 1, "data": BOX, "fixed": 3}]}), "fixed must be true or false"),
        (of("point", {"x": "nan", "y": 1}), "not finite"),
        (of("point", {"x": 1, "y": "inf"}), "not finite"),
        (of("box", [*BOX, "nan"]), "not finite"),
        (of("segment", [[{"x": 1, "y": 1}, {"x": "inf", "y": 1}, {"x": 2, "y": 2}]]), "not finite"),
        (of("ellipse", {"center": BOX[0], "rx": "nan", "ry": 1}), "not finite"),
        (of("ellipse", {"center": BOX[0], "rx": 1, "ry": 1, "angle": "inf"}), "not finite"),
        (of("point", {"x": 10**400, "y": 1}), "int too large"),
        (of("binary", 5), "a mask is no text"),
        (of("note", {"box": BOX, "note": {"messages": [{"body": 5}]}}), "body must be a text"),
        (of("note", {"box": BOX, "note": {"messages": [{"time": "x"}]}}), "time must be a whole number"),
        (of("note", {"box": BOX, "note": {"status": 5}}), "status must be a text"),
        (of("segment", [BOX], {"syncagent": {"parts": [-1, 2]}}), "its parts are not its rings"),
        (5, "must be an object"),
    ],
)  # fmt: skip
def test_fields_of_the_platform_are_what_they_should_be(annotation: Any, said: str | None) -> None:
    data = json.dumps([{"filename": "/x", "annotations": []}, json.loads(platform(of("class"), annotation))])
    if said is None:
        assert read("dataloop", a_json=data)
        return
    with pytest.raises(InvalidInput, match=rf"a\.json: item 1, annotation 1: .*{said}"):
        read("dataloop", a_json=data)


@pytest.mark.parametrize("visible", [True, False])
def test_a_point_below_a_pose_is_no_joint_of_it(visible: bool) -> None:
    """But one that somebody puts there on the platform is."""
    pose = Annotation(label="dog", geometry=Pose((Joint("nose", 1, 2, 2), Joint("tail", 0, 0, 0))), id="p")
    point = Annotation(label="nose", geometry=Point(3, 4), id="x", parent="p", visible=visible)
    for told in (annotations_json([pose, point]), annotations_json([point, pose])):
        assert sorted(annotations_of(told, "f"), key=lambda one: str(one.id)) == [pose, point]
        told.append(of("point", BOX[0], {"parentId": "p"}))
        (changed,) = (one for one in annotations_of(told, "f") if one.id == "p")
        assert isinstance(changed.geometry, Pose)
        assert len(changed.geometry.joints) == 3


@pytest.mark.parametrize("visible", [3, -1, "2", True, None, 1.5])
def test_a_joint_of_the_platform_is_seen_or_not(visible: Any) -> None:
    joint = of("point", BOX[0], {"parentId": "p", "syncagent": {"visible": visible}})
    with pytest.raises(InvalidInput, match=r"a\.json: annotation 0: a joint's visible is not 0, 1 or 2"):
        read("dataloop", a_json=platform(POSE, joint))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"description": 5}, "description must be a text"),
        ({"filename": 5}, "filename must be a text"),
        ({"metadata": {"fps": [1]}}, "fps must be a number"),
        ({"metadata": {"system": {"fpsRational": 7}}}, "fpsRational must be a text"),
        ({"metadata": {"system": {"width": "9"}}}, "width must be a whole number"),
        ({"metadata": {"system": {"width": 1e300}}}, "width must be a whole number"),
        ({"metadata": {"system": {"height": -9}}}, "height -9 is no number of pixels"),
        ({"metadata": {"system": {"nb_frames": -1}}}, "-1 is no number of frames"),
    ],
)
def test_facts_of_an_item_of_the_platform_are_what_they_should_be(more: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=rf"a\.json: (its )?{said}"):
        read("dataloop", a_json=platform(**more))


def test_what_the_platform_leaves_out_or_sets_to_null_is_read() -> None:
    nothing: Any = dict.fromkeys(
        ("frame", "endFrame", "startTime", "endTime", "parentId", "objectId", "snapshots_")
    )
    told = of("box", BOX, nothing, {"model": {"name": None, "confidence": None}}, id=None, description=None)
    (item,) = read(
        "dataloop", a_json=platform(told, of("box", BOX, {"objectId": 7, "frame": 3.0}), description=None)
    )
    assert item.annotations == (
        Annotation(label="a", geometry=Box(1, 1, 2, 2)),
        Annotation(label="a", geometry=Box(1, 1, 2, 2), object_id="7", frame=3),
    )


def test_an_item_of_the_platform_is_told_by_its_place_in_the_file() -> None:
    items = [{"filename": "a" * 1000, "annotations": []}] * 3000 + [{"filename": "b", "annotations": 5}]
    with pytest.raises(InvalidInput, match=r"a\.json: item 3000: annotations must be a list"):
        read("dataloop", a_json=json.dumps(items))


def test_a_file_of_the_platform_is_no_larger_than_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MAX_RECORD", 1 << 20)
    with pytest.raises(InvalidInput, match=r"a\.json: larger than 1 MiB"):
        read("dataloop", a_json=platform(x="x" * (1 << 20)))


def test_zips_in_zips_are_unpacked_a_few_times() -> None:
    def packed(times: int) -> bytes:
        name, data = "a.json", platform()
        for _ in range(times):
            out = io.BytesIO()
            with zipfile.ZipFile(out, "w") as file:
                file.writestr(name, data)
            name, data = "z.zip", out.getvalue()
        return data

    assert [item.key for item in read("dataloop", a_zip=packed(3))] == ["a.jpg"]
    with pytest.raises(InvalidInput, match=r"z\.zip: more than 8 zips in each other"):
        read("dataloop", a_zip=packed(400))


@pytest.mark.parametrize("damage", ["palette", "cut"])
def test_a_damaged_mask_of_the_platform_is_an_error(damage: str) -> None:
    out = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint8)).convert("P").save(out, "PNG")
    data = out.getvalue()
    if damage == "palette":
        at = data.index(b"PLTE") - 4
        data = data[:at] + data[at + 12 + int.from_bytes(data[at : at + 4], "big") :]
    else:
        data = data[:40]
    with pytest.raises(InvalidInput, match=r"a\.json: annotation 0: the mask is no sound PNG"):
        url = "data:image/png;base64," + base64.b64encode(data).decode()
        read("dataloop", a_json=platform(of("binary", url)))


# -- odd texts and numbers -----------------------------------------------------------------------


def cue(text: str) -> list[tuple[str, str]]:
    (item,) = read("vtt", a_vtt=f"WEBVTT\n\n00:01.000 --> 00:02.000\n{text}\n")
    return [(one.label, one.geometry.text) for one in item.annotations if isinstance(one.geometry, Subtitle)]


@pytest.mark.parametrize("piece", ["<v ", "<a", "<", "<v.", "<v\t", "</", "<v.x y", "&#", "&"])
def test_tags_that_nobody_closes_are_text_and_looked_at_once(piece: str) -> None:
    text = (piece * (200_000 // len(piece))).strip()
    started = time.process_time()
    assert cue(text) == [("Text", text)]
    assert cue(f"<b>{text}") == [("Text", text)]
    assert len(cue(f"{text}>")) == 1
    assert time.process_time() - started < 2


def test_tags_of_subtitles_end_where_they_end() -> None:
    assert cue("<v Bob>Hi <i>you</i> <b") == [("Bob", "Hi you <b")]
    assert cue("<v.loud Bob & Ann>Hi<v Ann>Ho") == [("Bob & Ann", "Hi"), ("Ann", "Ho")]
    assert cue("1 < 2 <v Bob") == [("Text", "1 < 2 <v Bob")]


def test_a_character_of_endless_digits_is_no_character() -> None:
    assert cue("a &#" + "9" * 5000 + "; &amp; b") == [("Text", "a \ufffd & b")]
    assert cue("<v &#" + "0" * 5000 + "65>a &#x" + "0" * 5000 + "41;") == [("\ufffd", "a A")]
    assert cue("&#65;&#0065;&#99999999;") == [("Text", "AA\ufffd")]


@pytest.mark.parametrize(
    "rotation", ["1e70", "1e300", "-1e300", "1.5e16", "720", "-540", "1e-400", "359.99999"]
)
def test_an_angle_of_any_size_is_within_a_turn(rotation: str) -> None:
    found = straightened(rotation)
    assert -180 < found <= 180
    assert 0 <= float(turned(float(rotation))) < 360
    assert straightened(turned(found)) == found
    box = f'<box label="c" xtl="0" ytl="0" xbr="5" ybr="5" rotation="{rotation}"/>'
    told = f'<annotations><image id="0" name="a.jpg" width="9" height="9">{box}</image></annotations>'
    (item,) = read("cvat", a_xml=told)
    assert read("cvat", a_xml=write("cvat", item)["annotations.xml"]) == [item]


def test_an_angle_beyond_all_turns_is_written_to_cvat() -> None:
    item = Labelled(
        key="a.jpg", width=9, height=9, annotations=(Annotation(label="x", geometry=Box(0, 0, 5, 5, 1e70)),)
    )
    (found,) = read("cvat", a_xml=write("cvat", item)["annotations.xml"])
    (one,) = found.annotations
    assert isinstance(one.geometry, Box)
    assert math.isclose(one.geometry.angle % 360, math.fmod(1e70, 360), abs_tol=1e-9)


def brushed(value: Any, type_name: str = "brushlabels", **more: Any) -> str:
    one = {"id": "x", "type": type_name, "original_width": 10, "original_height": 10, "value": value}
    return json.dumps([{"id": 1, "data": {"image": "a.jpg"}, "annotations": [{"result": [one], **more}]}])


@pytest.mark.parametrize("rle", [99999999999999, 10**30, "x", {"a": 1}, [10**30], [-1], [1.5], None, True])
def test_a_brush_is_a_list_of_bytes(rle: Any) -> None:
    with pytest.raises(InvalidInput, match=r"a\.json: task 1: result 0: the brush is no list of bytes"):
        read("label-studio", a_json=brushed({"format": "rle", "rle": rle, "brushlabels": ["a"]}))


def test_a_score_of_a_prediction_is_a_number_that_one_may_be() -> None:
    told = '[{"data":{"image":"a.jpg"},"predictions":[{"score":1' + "0" * 400 + ',"result":[]}]}]'
    with pytest.raises(InvalidInput, match=r"a\.json: task 0: an annotation's score"):
        read(LabelStudio(predictions=True), a_json=told)


def test_a_result_without_a_type_is_kept_and_a_loss_elsewhere() -> None:
    (item,) = read("label-studio", a_json=brushed({"x": 1}, ""))
    assert [one.geometry for one in item.annotations] == [Other("", {"x": 1})]
    for name in ("coco", "yolo", "voc", "cvat"):
        with pytest.raises(Unsupported, match=rf"a\.jpg: {name}.* cannot hold a geometry without a type"):
            write(name, item)


def test_tasks_in_lines_may_begin_with_the_mark_of_utf8() -> None:
    told = b'\xef\xbb\xbf{"data":{"image":"a.jpg"}}\n{"data":{"image":"b.jpg"}}\n'
    assert [item.key for item in read("label-studio", a_jsonl=told)] == ["a.jpg", "b.jpg"]


# -- MOT of CVAT and of numpy --------------------------------------------------------------------


def test_the_track_0_is_a_track() -> None:
    rows = "1,0,1,1,5,5,1,1,1\n2,0,2,2,5,5,1,1,1\n1,-1,9,9,5,5,1,1,1\n1,1,3,3,5,5,1,1,1\n"
    (item,) = read("mot", v__gt__gt_txt=rows)
    assert [(one.object_id, one.frame, one.end_frame) for one in item.annotations] == [
        ("0", 0, 1),
        (None, 0, 0),
        ("1", 0, 0),
    ]
    files = write("mot", item)
    assert files["v/gt/gt.txt"].decode().splitlines()[:2] == ["1,0,1,1,5,5,1,1,1", "2,0,2,2,5,5,1,1,1"]
    (again,) = read("mot", v__gt__gt_txt=files["v/gt/gt.txt"], v__gt__labels_txt=files["v/gt/labels.txt"])
    assert again.annotations == item.annotations


def test_rows_as_numpy_saves_them_are_read() -> None:
    numbers = [1, 3, 10.5, 20, 5, 5, 1, 1, 1]
    out = io.BytesIO()
    np.savetxt(out, np.array([numbers, [2, *numbers[1:]]], float), delimiter=",")
    assert out.getvalue().startswith(b"1.000000000000000000e+00,")
    (item,) = read("mot", v__gt__gt_txt=out.getvalue())
    (one,) = item.annotations
    assert (one.object_id, one.frame, one.end_frame, one.geometry) == ("3", 0, 1, Box(10.5, 20, 15.5, 25))


@pytest.mark.parametrize(
    ("text", "number"), [("1.000e+00", 1), ("2.5e1", 25), ("1e14", 10**14), ("-0.0e0", 0)]
)
def test_whole_numbers_may_have_an_exponent(text: str, number: int) -> None:
    assert whole(text) == number


@pytest.mark.parametrize("text", ["1e15", "1e300", "1e-1", "2.5", "1e999", "nan", "1_0", "1e0.5"])
def test_what_is_no_whole_number_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="is not a whole number"):
        whole(text)
