"""Writes a COCO file of any size, the same one for the same seed, without holding it in memory.

python benchmarks/coco_file.py out.json --images 5000
python benchmarks/coco_file.py out.json --bytes 1e9 --shuffled --annotations-first
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import IO

WIDTH, HEIGHT = 640, 480
CATEGORIES = 80
OBJECTS = 7.2
"""Annotations an image, as COCO 2017 has them."""
CORNERS = 25
BYTES_AN_ANNOTATION = 540
"""Of those that `annotation` writes, about."""


def annotation(random_: random.Random, number: int, image: int, corners: int = CORNERS) -> str:
    """An object whose outline is a star around a place."""
    x, y = random_.uniform(60, WIDTH - 60), random_.uniform(60, HEIGHT - 60)
    ring = []
    for corner in range(corners):
        angle, radius = 2 * math.pi * corner / corners, random_.uniform(20, 60)
        ring += [round(x + radius * math.cos(angle), 2), round(y + radius * math.sin(angle), 2)]
    left, top, right, bottom = min(ring[::2]), min(ring[1::2]), max(ring[::2]), max(ring[1::2])
    box = [left, top, round(right - left, 2), round(bottom - top, 2)]
    told = {
        "segmentation": [ring], "area": round(box[2] * box[3] / 2, 4), "iscrowd": 0, "image_id": image, "bbox": box,
        "category_id": random_.randint(1, CATEGORIES), "id": number,
    }  # fmt: skip
    return json.dumps(told)


def image(number: int) -> str:
    """An image as COCO 2017 tells it."""
    name = f"{number:012}.jpg"
    told = {
        "license": 4, "file_name": name, "coco_url": f"http://images.cocodataset.org/train2017/{name}", "height": HEIGHT,
        "width": WIDTH, "date_captured": "2013-11-14 17:02:52",
        "flickr_url": f"http://farm7.staticflickr.com/6116/{number}_z.jpg", "id": number,
    }  # fmt: skip
    return json.dumps(told)


def write(
    path: Path,
    images: int,
    *,
    corners: int = CORNERS,
    shuffled: bool = False,
    annotations_first: bool = False,
    seed: int = 1,
) -> int:
    """Write a file; returns its number of annotations.

    :param shuffled: annotations are not grouped by image.
    :param annotations_first: they stand before the images and categories.
    """
    random_ = random.Random(seed)
    count = int(images * OBJECTS)
    categories = [
        json.dumps({"id": n, "name": f"class {n}", "supercategory": "thing"})
        for n in range(1, CATEGORIES + 1)
    ]
    members: dict[str, Iterator[str]] = {
        "images": (image(number) for number in range(1, images + 1)),
        "annotations": (
            annotation(
                random_, n + 1, random_.randint(1, images) if shuffled else 1 + int(n / OBJECTS), corners
            )
            for n in range(count)
        ),
        "categories": iter(categories),
    }
    order = ["annotations", "images", "categories"] if annotations_first else [*members]
    with path.open("w") as out:
        out.write('{"info": {}, "licenses": []')
        for name in order:
            out.write(f', "{name}": [')
            _joined(out, members[name])
            out.write("]")
        out.write("}")
    return count


def _joined(out: IO[str], entries: Iterator[str]) -> None:
    comma = ""
    for entry in entries:
        out.write(comma + entry)
        comma = ", "


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--bytes", type=float, help="about so large, instead of --images")
    parser.add_argument("--corners", type=int, default=CORNERS)
    parser.add_argument("--shuffled", action="store_true")
    parser.add_argument("--annotations-first", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    told = parser.parse_args()
    images = int(told.bytes / (OBJECTS * BYTES_AN_ANNOTATION + 260)) if told.bytes else told.images
    count = write(
        told.path, images, corners=told.corners, shuffled=told.shuffled, annotations_first=told.annotations_first, seed=told.seed
    )  # fmt: skip
    print(f"{told.path}: {told.path.stat().st_size} bytes, {images} images, {count} annotations")


if __name__ == "__main__":
    main()
