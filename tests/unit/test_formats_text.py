"""Files that others wrote, to the public specifications of the text formats."""

from __future__ import annotations

import json

import pytest

from syncagent.errors import InvalidInput
from syncagent.ingest.annotations import Box, Labelled, Polygon, Subtitle
from syncagent.ingest.formats import Context, Files, get

KNOWN = Context(size=lambda key, stem: (640, 480), fps=lambda key, stem: "10")


def read(name: str, **files: str) -> list[Labelled]:
    told = {key.replace("__", "/").replace("_DOT_", "."): text.encode() for key, text in files.items()}
    return list(get(name).read(Files(told), KNOWN))


def test_webvtt() -> None:
    text = "WEBVTT - title\n\nNOTE a remark\nof two lines\n\nSTYLE\n::cue { color: red }\n\n1\n00:01.250 --> 00:02.500 line:0\nHello &amp; bye\nsecond\n\n01:00:00.000 --> 01:00:01.000\nlast\n"
    (item,) = read("vtt", a_DOT_vtt=text)
    assert (item.key, item.stem) == ("a", True)
    first, last = item.annotations
    assert isinstance(first.geometry, Subtitle)
    assert (first.start, first.end, first.geometry.text.splitlines()) == (
        1.25,
        2.5,
        ["Hello & bye", "second"],
    )
    assert (last.start, last.end) == (3600.0, 3601.0)
    with pytest.raises(InvalidInput, match=r"a\.vtt"):
        read("vtt", a_DOT_vtt="no header\n")


def test_subrip() -> None:
    (item,) = read(
        "srt",
        a_DOT_srt="\ufeff1\r\n00:00:01,000 --> 00:00:02,500\r\nHi\r\n\r\n2\r\n00:00:03,000 --> 00:00:04,000\r\nYou\r\n",
    )
    assert [(one.start, one.end) for one in item.annotations] == [(1.0, 2.5), (3.0, 4.0)]


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><labels>
<label><name>car</name><color>#2080c0</color><type>any</type><attributes></attributes></label></labels></task></meta>
<image id="0" name="f/a.jpg" width="640" height="480">
<box label="car" source="manual" occluded="0" xtl="10.00" ytl="20.00" xbr="110.50" ybr="80.00" z_order="0"></box>
<polygon label="car" source="manual" occluded="0" points="1.00,2.00;30.00,4.00;20.50,40.00" z_order="0"></polygon>
</image></annotations>"""


def test_cvat_for_images() -> None:
    (item,) = read("cvat", annotations_DOT_xml=CVAT)
    assert (item.key, item.width, item.height) == ("f/a.jpg", 640, 480)
    box, polygon = item.annotations
    assert box.geometry == Box(10, 20, 110.5, 80)
    assert polygon.geometry == Polygon((((1, 2, 30, 4, 20.5, 40),),))
    assert [
        (one.name, one.color) for one in get("cvat").labels(Files({"annotations.xml": CVAT.encode()}))
    ] == [("car", "#2080c0")]


def test_label_studio() -> None:
    value = {"x": 10, "y": 20, "width": 50, "height": 25, "rotation": 0, "rectanglelabels": ["Car"]}
    result = {
        "id": "r1", "type": "rectanglelabels", "from_name": "label", "to_name": "image", "original_width": 200,
        "original_height": 100, "image_rotation": 0, "value": value,
    }  # fmt: skip
    task = {
        "id": 1,
        "data": {"image": "s3://bucket/f/a%20b.jpg"},
        "annotations": [{"id": 9, "result": [result]}],
    }
    (item,) = read("label-studio", tasks_DOT_json=json.dumps([task]))
    (one,) = item.annotations
    assert (one.label, one.geometry) == ("Car", Box(20, 20, 120, 45))
    assert item.key.endswith(("a b.jpg", "a%20b.jpg"))


def test_mot() -> None:
    rows = "1,1,10,20,30,40,1,1,1\n2,1,12,20,30,40,1,1,1\n1,2,100,100,10,10,1,1,0.5\n"
    (item,) = read("mot", MOT__gt__gt_DOT_txt=rows)
    tracks = {one.object_id: one for one in item.annotations}
    assert set(tracks) == {"1", "2"}
    assert (tracks["1"].frame, tracks["1"].geometry) == (0, Box(10, 20, 40, 60))


def test_a_table() -> None:
    text = "key,label,type,left,top,right,bottom\nf/a.jpg,car,box,1,2,30.5,40\nf/a.jpg,dog,class,,,,\n"
    found = [one for item in read("table", labels_DOT_csv=text) for one in item.annotations]
    assert [(one.label, type(one.geometry).__name__) for one in found] == [
        ("car", "Box"),
        ("dog", "Classification"),
    ]
    with pytest.raises(InvalidInput, match=r"labels\.csv"):
        read("table", labels_DOT_csv="key,label,type,left,top,right,bottom\nf/a.jpg,car,box,x,2,3,4\n")
