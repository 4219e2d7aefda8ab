"""Label Studio's brush: run lengths of bits, of a picture with four channels, of which the last is the mask.

The bits: 32 for the number of values, 5 for the size of a value less one, four times 4 for the sizes of a run's length less one;
then blocks, each of one bit (1: a run of one value; 0: single values), two bits for which size its length has, the length less
one, and the value or values. Source: https://github.com/thi-ng/umbrella (rle-pack), which Label Studio's editor uses, and
``brush.py`` of https://github.com/HumanSignal/label-studio-converter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from syncagent.errors import InvalidInput
from syncagent.ingest import masks
from syncagent.ingest.annotations import Mask

_SIZES = (3, 4, 8, 16)
_CHANNELS = 4


def decode(rle: Sequence[int], width: int, height: int) -> Mask:
    """The mask of a brush: inside is what has any opacity.

    :raises InvalidInput: it is no brush of a picture of this size.
    """
    import numpy as np

    if width < 1 or height < 1 or width * height > masks.MAX_PIXELS:
        raise InvalidInput(f"a mask of {width} x {height} pixels is too large")
    bits = _Bits(_bytes(rle))
    if bits.read(32) != width * height * _CHANNELS:
        raise InvalidInput(f"the brush is not {width} x {height} pixels of four channels")
    lengths: list[int] = []
    inside = False
    done = 0
    for end, value in _blocks(bits, width * height * _CHANNELS):
        # The block covers the alpha of all pixels whose fourth value lies in it.
        pixels = end // _CHANNELS - done // _CHANNELS
        if pixels:
            if (value > 0) != inside or not lengths:
                if not lengths and value > 0:
                    lengths.append(0)
                inside = value > 0
                lengths.append(0)
            lengths[-1] += pixels
        done = end
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return masks.encode(flat.reshape(height, width))


def encode(mask: Mask) -> list[int]:
    """The brush of a mask, byte by byte, as the converter writes it."""
    import numpy as np

    flat = masks.decode(mask).ravel()
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size)
    blocks = [f"{flat.size * _CHANNELS:032b}{7:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    inside, start = bool(flat[0]), 0
    for end in ends.tolist():
        blocks += _run((end - start) * _CHANNELS, 255 if inside else 0)
        inside, start = not inside, end
    told = "".join(blocks)
    told += "0" * (8 - len(told) % 8)
    return list(int(told, 2).to_bytes(len(told) // 8, "big"))


def _run(length: int, value: int) -> Iterator[str]:
    while length:
        part = min(length, 1 << 16)
        which = next(n for n, size in enumerate(_SIZES) if part <= 1 << size)
        yield f"1{which:02b}{part - 1:0{_SIZES[which]}b}{value:08b}"
        length -= part


def _blocks(bits: _Bits, total: int) -> Iterator[tuple[int, int]]:
    """The end and the value of each run; a single value is a run of one."""
    word = bits.read(5) + 1
    sizes = [bits.read(4) + 1 for _ in range(4)]
    at = 0
    while at < total:
        repeated = bits.read(1)
        end = at + 1 + bits.read(sizes[bits.read(2)])
        if end > total:
            raise InvalidInput("the brush has more values than it says")
        if repeated:
            yield end, bits.read(word)
        else:
            for single in range(at + 1, end + 1):
                yield single, bits.read(word)
        at = end


def _bytes(rle: Sequence[int]) -> bytes:
    if not isinstance(rle, list | tuple):  # of a number `bytes` makes that many zeros
        raise InvalidInput("the brush is no list of bytes")
    try:
        return bytes(rle)
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidInput("the brush is no list of bytes") from error


class _Bits:
    """Bits of some bytes, from the highest of the first."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def read(self, count: int) -> int:
        """The next `count` bits, up to 32, as a number."""
        first, end = self._at >> 3, self._at + count
        last = (end + 7) >> 3
        if last > len(self._data):
            raise InvalidInput("the brush is cut off")
        self._at = end
        return (int.from_bytes(self._data[first:last], "big") >> ((last << 3) - end)) & ((1 << count) - 1)
