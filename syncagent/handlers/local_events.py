"""Changes of a watched folder. See `drivers.local_queue`."""

from __future__ import annotations

from pathlib import PurePath

from syncagent.handlers.events import Event, Json, Kind, Parsed, decoded, text

# https://watchfiles.helpmanual.io/api/watch/#watchfiles.main.Change
NAMES = {"added": Kind.CREATED, "modified": Kind.CREATED, "deleted": Kind.REMOVED}


def parse(payload: str | Json) -> Parsed:
    """One change. What was a folder is one change for everything in it.

    :raises BadEvent: it is none.
    """
    told = decoded(payload, "the change")
    folder, path, name = (text(told, field, "the change") for field in ("folder", "path", "change"))
    kind = NAMES.get(name)
    found = Parsed()
    if kind is None or path == folder or not PurePath(path).is_relative_to(folder):
        found.ignored[name if kind is None else "outside"] += 1
        return found
    key = PurePath(path).relative_to(folder).as_posix()
    found.events.append(Event("file", folder, key, kind, name))
    if name != "modified":
        found.events.append(Event("file", folder, f"{key}/", Kind.BELOW, name))
    return found
