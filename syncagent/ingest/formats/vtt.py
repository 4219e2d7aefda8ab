"""Subtitles: WebVTT and SubRip, one file for each media file, ``a.vtt`` beside ``a.mp4``.

A cue becomes a `Subtitle` with its times in seconds; where the frames a second are known from elsewhere, also with the frame that
is shown then (time * fps, rounded down, as the platform's client counts). Cues stay in the order of the file, overlapping or not.
Words and who says them are kept, markup (``<i>``, a class, a time inside a text) is not. Times are told to the millisecond.

Names: ``a.en.vtt`` tells of ``a`` in the language ``en``, which becomes the attribute ``language``. ``a.mp4.vtt`` tells of
``a.mp4``; a media file that itself is called ``a.en.mp4`` is written so, since ``a.en.vtt`` would read as another's.

Written here and not taken from a library: tried on files that are cut off, damaged or merely unusual, webvtt-py 0.6.0 passes over
a damaged cue without a word, pysubs2 1.8.1 reads any bytes as a file without cues and drops ids, speakers and settings, srt 3.5.3
gives a cut off cue the end 0:00; none decodes entities, and none names the line of an error.
Sources: https://www.w3.org/TR/webvtt1/ and, for SubRip, which has no specification, what players and the libraries above accept.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import ClassVar

from syncagent.ingest.annotations import Annotation, Label, Labelled, Subtitle
from syncagent.ingest.formats.base import (
    Context,
    Losses,
    Out,
    Tree,
    a,
    read_text,
    refuse,
    without_suffix,
    wrong,
)
from syncagent.ingest.formats.carry import lesser, lesser_of_item, named_as_media, rate
from syncagent.ingest.formats.checks import sound, writable

TEXT = "Text"
"""The label of a subtitle of which no speaker is told, as the platform's client has it."""
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z]{4})?(?:-(?:[A-Za-z]{2}|[0-9]{3}))?")
_VTT_TIMES = re.compile(
    r"(?:([0-9]{2,6}):)?([0-5][0-9]):([0-5][0-9])\.([0-9]{3})[ \t]*-->[ \t]*"
    r"(?:([0-9]{2,6}):)?([0-5][0-9]):([0-5][0-9])\.([0-9]{3})(?:[ \t]+(.*))?"
)
_SRT_TIMES = re.compile(
    r"[ \t]*(?:([0-9]{1,6}):)?([0-5]?[0-9]):([0-5]?[0-9])[,.]([0-9]{1,3})[ \t]*-->[ \t]*"
    r"(?:([0-9]{1,6}):)?([0-5]?[0-9]):([0-5]?[0-9])[,.]([0-9]{1,3})(?:[ \t]+(.*))?"
)
_VOICE = re.compile(r"<v(?:\.[^ \t>]*)?(?:[ \t]+([^>]*))?>")
_VTT_TAG = re.compile(r"</?[A-Za-z0-9][^>]*>")
_SRT_TAG = re.compile(r"</?(?:b|i|u|s|font(?:[ \t][^<>]*)?)>|\{\\an?[0-9]{1,2}\}", re.IGNORECASE)
_BREAK = re.compile(r"\r\n|\n|\r")
# Python reads no number of more than 4300 digits, and no character has that many.
_ENDLESS = re.compile(r"&#[0-9]{1000,}+;?")
# A line without letters would end the cue; a tag around nothing shows as an empty line.
_EMPTY = "<b></b>"

Cue = tuple[int, re.Match[str], str | None, list[str]]
"""The line of its times, the times, its name, its lines."""


class _Subtitles:
    """What WebVTT and SubRip do alike."""

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    holds: ClassVar[frozenset[type]] = frozenset({Subtitle})

    def read(self, tree: Tree, context: Context = Context()) -> Iterator[Labelled]:  # noqa: B008  # frozen
        """See `Format.read`."""
        for name in tree.names():
            if name.lower().endswith(self.suffixes):
                yield self._file(tree, name, context)

    def labels(self, tree: Tree) -> list[Label]:
        """None: the files tell speakers, and declare nothing."""
        return []

    def write(
        self,
        items: Iterable[Labelled],
        out: Out,
        *,
        labels: Sequence[Label] = (),
        losses: Losses | None = None,
    ) -> None:
        """See `Format.write`. A file for each item and language; an item without subtitles has one without cues."""
        told = losses if losses is not None else Losses()
        for item in writable(items, self.name, told):
            lesser_of_item(told, item)
            files: dict[str, list[str]] = {}
            for number, one in enumerate(item.annotations):
                if not isinstance(one.geometry, Subtitle):
                    told.add(self.name, item.key, a(one.geometry))
                    continue
                language = one.attributes.get("language")
                held = language if isinstance(language, str) and _LANGUAGE.fullmatch(language) else ""
                file = files.setdefault(held, [])
                file.append(self._cue(item, number, len(file) + 1, one, one.geometry.text, told))
            for language, cues in (files or {"": []}).items():
                with out.create(_file_name(item, language, self.suffixes[0])) as target:
                    target.write("\n".join([*self._head(), *cues]).encode())

    def _file(self, tree: Tree, name: str, context: Context) -> Labelled:
        key, stem, language = _media(name)
        lines = _BREAK.split(read_text(tree, name))
        fps = _rate(context, key, stem)
        found = []
        for line, times, cue_id, text in self._cues(lines, name):
            start, end = _seconds(times.groups()[:4]), _seconds(times.groups()[4:8])
            if end < start:
                refuse(name, f"line {line}", "the cue ends before it starts")
            attributes = {"language": language} if language else {}
            if settings := (times[9] or "").strip():
                attributes["settings"] = settings
            for voice, (label, words) in enumerate(self._words("\n".join(text))):
                found.append(
                    Annotation(
                        label=label, geometry=Subtitle(words), attributes=attributes, id=None if voice else cue_id, start=float(start), end=float(end),
                        frame=None if fps is None else math.floor(start * fps),
                        end_frame=None if fps is None else math.floor(end * fps),
                    )
                )  # fmt: skip
        return sound(Labelled(key=key, stem=stem, annotations=tuple(found)), name)

    def _cue(
        self, item: Labelled, number: int, count: int, one: Annotation, text: str, losses: Losses
    ) -> str:
        held = {"language"} if _LANGUAGE.fullmatch(str(one.attributes.get("language"))) else set()
        settings = one.attributes.get("settings")
        if isinstance(settings, str) and _line(settings):
            held.add("settings")
        lesser(losses, self.name, item, one, held=("frame", "end_frame", "start", "end"), attributes=held)
        start, end = _times(item, number, one)
        times = f"{_clock(start, self._comma)} --> {_clock(end, self._comma)}"
        if "settings" in held:
            times += f" {settings}"
        marked = self._marked(item, one.label, text, losses)
        return "\n".join([*self._names(count, one.id), times, *([marked] if marked else []), ""])

    _comma: ClassVar[str]

    def _cues(self, lines: Sequence[str], file: str) -> Iterator[Cue]:
        """The cues of a file."""
        raise NotImplementedError

    def _words(self, text: str) -> list[tuple[str, str]]:
        """What a cue's text says, by label; not empty."""
        raise NotImplementedError

    def _head(self) -> list[str]:
        """The lines before the first cue."""
        raise NotImplementedError

    def _names(self, count: int, name: str | None) -> list[str]:
        """The line before a cue's times, if there is to be one."""
        raise NotImplementedError

    def _marked(self, item: Labelled, label: str, text: str, losses: Losses) -> str:
        """The text of a cue as the file has it."""
        raise NotImplementedError


class Vtt(_Subtitles):
    """See `formats.base.Format`. WebVTT: ``<v Speaker>`` is the label, several speakers in a cue are an annotation each."""

    name: ClassVar[str] = "vtt"
    suffixes: ClassVar[tuple[str, ...]] = (".vtt",)
    _comma = "."

    def _head(self) -> list[str]:
        return ["WEBVTT", ""]

    def _names(self, count: int, name: str | None) -> list[str]:
        # What would read as a comment or as times is no name of a cue; a name is no loss.
        return [name] if name and _line(name) and not _block(name) else []

    def _cues(self, lines: Sequence[str], file: str) -> Iterator[Cue]:
        if not re.fullmatch(r"WEBVTT(?:[ \t].*)?", lines[0], re.DOTALL):
            refuse(file, "line 1", "a WebVTT file begins with WEBVTT")
        at = 1
        while at < len(lines) and lines[at] and "-->" not in lines[at]:
            at += 1
        while at < len(lines):
            if not lines[at]:
                at += 1
            elif "-->" not in lines[at] and _block(lines[at]):
                at = _blank(lines, at)
            else:
                name = None if "-->" in lines[at] else lines[at]
                at += name is not None
                times = _VTT_TIMES.fullmatch(lines[at]) if at < len(lines) else None
                if times is None:
                    refuse(
                        file, f"line {at + 1}", "expected the times of a cue, such as 00:01.000 --> 00:02.500"
                    )
                start, at = at, at + 1
                while at < len(lines) and lines[at] and "-->" not in lines[at]:
                    at += 1
                yield start + 1, times, name, list(lines[start + 1 : at])

    def _words(self, text: str) -> list[tuple[str, str]]:
        found, label, at = [], TEXT, 0
        # Behind the last end of a tag none begins: looked for there, each would be looked for to the end of the text.
        for voice in _VOICE.finditer(text, 0, text.rfind(">") + 1):
            if said := _plain(text[at : voice.start()]).strip():
                found.append((label, said))
            label, at = _unescaped((voice[1] or "").strip()) or TEXT, voice.end()
        last = _plain(text[at:])
        return [*found, (label, last)] if last.strip() or not found else found

    def _marked(self, item: Labelled, label: str, text: str, losses: Losses) -> str:
        if label != label.strip() or not _line(label) or not label:
            losses.add(self.name, item.key, f"the label {label!r}")
            label = TEXT
        voice = "" if label == TEXT else f"<v {_escaped(label)}>"
        lines = [_escaped(line).replace("\r", "&#13;") or _EMPTY for line in text.split("\n")]
        if text == "":
            lines = []
        elif voice and lines[0] == _EMPTY:
            lines[0] = ""
        return voice + "\n".join(lines)


class Srt(_Subtitles):
    """See `formats.base.Format`. SubRip: every label is ``Text``; the number before a cue counts, and is no name."""

    name: ClassVar[str] = "srt"
    suffixes: ClassVar[tuple[str, ...]] = (".srt",)
    _comma = ","

    def _head(self) -> list[str]:
        return []

    def _names(self, count: int, name: str | None) -> list[str]:
        return [str(count)]

    def _cues(self, lines: Sequence[str], file: str) -> Iterator[Cue]:
        times = {at: found for at, line in enumerate(lines) if (found := _SRT_TIMES.fullmatch(line))}
        for at, line in enumerate(lines):
            if "-->" in line and at not in times:
                refuse(file, f"line {at + 1}", "expected times such as 00:00:01,000 --> 00:00:02,500")
        # A number counts as a cue's only right above its times and below a blank line: a text may be a number as well.
        begins = {at: at - 1 if _counts(lines, at - 1) else at for at in times}
        ends = [*begins.values(), len(lines)][1:]
        for at, line in enumerate(lines[: next(iter(begins.values()), len(lines))]):
            if line.strip():
                refuse(
                    file,
                    f"line {at + 1}",
                    "no cue: a number, and times such as 00:00:01,000 --> 00:00:02,500",
                )
        for (at, found), end in zip(times.items(), ends, strict=True):
            text = list(lines[at + 1 : end])
            while text and not text[-1].strip():
                text.pop()
            for further, line in enumerate(text[:-1]):
                if _counts(lines, at + 1 + further) and re.match(r"[0-9]+:[0-9]", text[further + 1]):
                    refuse(file, f"line {at + 3 + further}", f"the times of cue {line} are cut off")
            yield at + 1, found, None, text

    def _words(self, text: str) -> list[tuple[str, str]]:
        return [(TEXT, _SRT_TAG.sub("", text))]

    def _marked(self, item: Labelled, label: str, text: str, losses: Losses) -> str:
        if label != TEXT:
            losses.add(self.name, item.key, f"the label {label!r}")
        if _SRT_TAG.search(text):
            losses.add(self.name, item.key, "words that read as markup")
            text = _SRT_TAG.sub("", text)
        if "-->" in text or "\r" in text:
            losses.add(self.name, item.key, "an arrow or a return in a text")
            text = text.replace("-->", "->").replace("\r", "")
        lines = text.split("\n")
        if text and not all(line.strip() for line in lines):
            losses.add(self.name, item.key, "an empty line in a text")
            lines = [line for line in lines if line.strip()]
        return "\n".join(lines)


# -- names ---------------------------------------------------------------------------------------


def _media(file: str) -> tuple[str, bool, str | None]:
    """The media file's key, whether that lacks its extension, and the language."""
    name = without_suffix(file)
    stem, _, tag = name.rpartition(".")
    if (
        stem
        and not stem.endswith("/")
        and "/" not in tag
        and _LANGUAGE.fullmatch(tag)
        and not named_as_media(name)
    ):
        return stem, not named_as_media(stem), tag
    return name, not named_as_media(name), None


def _file_name(item: Labelled, language: str, suffix: str) -> str:
    """The file that tells of an item.

    :raises InvalidInput: whichever it is called, it would be another's.
    """
    tail = f".{language}{suffix}" if language else suffix
    for key in (item.key if item.stem else without_suffix(item.key), item.key):
        told, stem, tag = _media(key + tail)
        if told == key and tag == (language or None) and (stem or key == item.key):
            return key + tail
    raise wrong(item.key, None, "no name of a subtitle file would tell of it")


# -- times ---------------------------------------------------------------------------------------


def _rate(context: Context, key: str, stem: bool) -> Fraction | None:
    """Frames a second, where they are known."""
    return rate(context.fps(key, stem))


def _seconds(told: Sequence[str | None]) -> Fraction:
    hours, minutes, seconds, rest = told
    return Fraction(int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)) + Fraction(
        f"0.{rest}"
    )


def _times(item: Labelled, number: int, one: Annotation) -> tuple[int, int]:
    """Milliseconds of start and end."""
    fps = rate(item.fps)
    found = []
    for time, frame in ((one.start, one.frame), (one.end, one.end_frame)):
        if time is None and frame is not None and fps:
            time = float(frame / fps)  # noqa: PLW2901
        if time is None or not 0 <= time < 3_600_000_000:
            refuse(item.key, f"annotation {number}", "a subtitle needs a start and an end in seconds")
        found.append(round(time * 1000))
    if found[1] < found[0]:
        refuse(item.key, f"annotation {number}", "it ends before it starts")
    return found[0], found[1]


def _clock(milliseconds: int, comma: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{comma}{rest:03}"


# -- text ----------------------------------------------------------------------------------------


def _blank(lines: Sequence[str], at: int) -> int:
    """The next empty line."""
    return next((n for n in range(at, len(lines)) if not lines[n]), len(lines))


def _block(line: str) -> bool:
    """Whether a line begins a block that is no cue."""
    return line.rstrip(" \t") in {"STYLE", "REGION"} or line == "NOTE" or line.startswith(("NOTE ", "NOTE\t"))


def _line(text: str) -> bool:
    """Whether a text fits into a line of its own."""
    return "-->" not in text and not _BREAK.search(text) and text == text.strip() and text != ""


def _counts(lines: Sequence[str], at: int) -> bool:
    """Whether a line is the number of a cue."""
    return (
        at >= 0
        and re.fullmatch(r"[ \t]*[0-9]+[ \t]*", lines[at]) is not None
        and (at == 0 or not lines[at - 1].strip())
    )


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _plain(text: str) -> str:
    """Words without markup. Entities are decoded once, after the tags are gone: ``&lt;i&gt;`` is text."""
    end = text.rfind(">") + 1  # no tag begins behind it
    return _unescaped(_VTT_TAG.sub("", text[:end]) + text[end:])


def _unescaped(text: str) -> str:
    """Entities decoded; a number that no character has is the sign for that."""
    return html.unescape(_ENDLESS.sub("\ufffd", text))
