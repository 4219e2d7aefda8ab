"""Stands in for `gcloud`, which no registry has: takes the words that the real one takes, and does what an emulator can do.

    GCLOUD_WORLD=FOLDER python -m tests.rigs.gcloud WORDS

What it was told is kept in ``FOLDER/gcloud.jsonl``, a line a command, and what it made in ``FOLDER/gcloud/``. Any other
command, flag or value is an error.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

_BINDING = {"member", "role"}


@dataclass(frozen=True)
class Command:
    """What follows its words: so many names, and flags, of which some must be there."""

    names: tuple[int, int]
    required: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()


def _command(
    least: int, most: int, required: set[str] = frozenset(), others: set[str] = frozenset()
) -> Command:  # type: ignore[assignment]
    return Command((least, most), frozenset(required), frozenset(others))


# Those of the flags that a README of ours may want; https://cloud.google.com/sdk/gcloud/reference.
COMMANDS = {
    "services enable": _command(1, 20, others={"async", "project"}),
    "secrets create": _command(1, 1, others={"data-file", "labels", "locations", "replication-policy"}),
    "secrets delete": _command(1, 1, others={"etag"}),
    "secrets add-iam-policy-binding": _command(1, 1, _BINDING, {"condition"}),
    "storage cp": _command(2, 20, others={"recursive", "no-clobber"}),
    "storage service-agent": _command(0, 0, others={"project"}),
    "storage buckets add-iam-policy-binding": _command(1, 1, _BINDING, {"condition"}),
    "projects describe": _command(1, 1),
    "projects add-iam-policy-binding": _command(1, 1, _BINDING, {"condition"}),
    "iam service-accounts create": _command(1, 1, others={"display-name", "description"}),
    "iam service-accounts describe": _command(1, 1),
    "functions deploy": _command(
        1, 1, {"region", "runtime"},
        {"gen2", "source", "entry-point", "trigger-http", "no-allow-unauthenticated", "ingress-settings", "service-account",
         "build-service-account", "set-build-env-vars", "set-env-vars", "cpu", "memory", "timeout", "max-instances", "concurrency"},
    ),
    "functions describe": _command(1, 1, {"region"}, {"gen2"}),
    "run services add-iam-policy-binding": _command(1, 1, {*_BINDING, "region"}),
    "pubsub topics create": _command(1, 1, others={"labels", "message-retention-duration"}),
    "pubsub topics describe": _command(1, 1),
    "pubsub topics add-iam-policy-binding": _command(1, 1, _BINDING),
    "pubsub subscriptions create": _command(
        1, 1, {"topic"},
        {"ack-deadline", "dead-letter-topic", "expiration-period", "max-delivery-attempts", "max-retry-delay",
         "message-retention-duration", "min-retry-delay", "push-auth-service-account", "push-endpoint"},
    ),
    "pubsub subscriptions describe": _command(1, 1),
    "pubsub subscriptions add-iam-policy-binding": _command(1, 1, _BINDING),
    "logging read": _command(0, 1, others={"limit", "freshness", "order"}),
}  # fmt: skip
_EVERYWHERE = {"format", "project", "quiet"}
_ALONE = {"async", "gen2", "no-allow-unauthenticated", "no-clobber", "quiet", "recursive", "trigger-http"}
_VALUES = {
    "ack-deadline": r"[1-5]?\d\d|600", "condition": "None", "concurrency": r"\d+", "cpu": r"[\d.]+",
    "expiration-period": r"never|\d+d", "ingress-settings": "all|internal-only|internal-and-gclb", "max-delivery-attempts": r"\d\d?|100",
    "max-retry-delay": r"\d+s", "member": r"serviceAccount:[\w-]+@[\w.-]+\.gserviceaccount\.com", "memory": r"\d+(M|Mi|G|Gi)",
    "message-retention-duration": r"[1-7]d", "min-retry-delay": r"\d+s", "push-endpoint": r"https://\S+", "role": r"roles/[a-z.]+[A-Za-z]+",
    "runtime": r"python3\d\d", "timeout": r"\d+s",
}  # fmt: skip
SERVICES = {
    f"{name}.googleapis.com"
    for name in (
        "artifactregistry",
        "cloudbuild",
        "cloudfunctions",
        "eventarc",
        "pubsub",
        "run",
        "secretmanager",
    )
}
NUMBER, BUCKETS_NUMBER = "7", "42"
"""Of the project, and of the one that the bucket is in: see `tests.rigs.wiring.Notifications`."""
URL = "https://syncagent-photos-7xyz-ew.a.run.app"


@dataclass
class Said:
    """A command line, understood."""

    command: str
    names: list[str] = field(default_factory=list)
    flags: dict[str, str] = field(default_factory=dict)


def parsed(words: list[str]) -> Said:
    """A command, what it is about, and its flags."""
    known = [name for name in COMMANDS if words[: len(name.split())] == name.split()]
    assert known, f"gcloud has no command {' '.join(words[:4])}"
    said = Said(max(known, key=len))
    what, rest = COMMANDS[said.command], words[len(said.command.split()) :]
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            said.names.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        assert name in what.required | what.others | _EVERYWHERE, f"{said.command} has no flag --{name}"
        assert bool(equals) is (name not in _ALONE) or rest, word
        if name not in _ALONE and not equals:
            value = rest.pop(0)
        assert name not in _ALONE or not equals, f"--{name} takes no value"
        assert re.fullmatch(_VALUES.get(name, r"(?s).*"), value), f"--{name} does not take {value}"
        said.flags[name] = value
    assert what.required <= set(said.flags), f"{said.command} lacks {what.required - set(said.flags)}"
    least, most = what.names
    assert least <= len(said.names) <= most, f"{said.command} takes {least} to {most} names"
    return said


def done(said: Said, world: Path) -> int:
    """What a command does. The exit code."""
    there = world / "gcloud"
    there.mkdir(exist_ok=True)
    words = said.command.split()
    first = said.names[0] if said.names else ""
    kind, mark = words[-2], there / quote(f"{words[-2]} {first.partition('@')[0]}", safe="")
    match words[-1]:
        case "enable":
            assert set(said.names) <= SERVICES, set(said.names) - SERVICES
        case "describe" if kind == "projects":
            print(NUMBER)
        case "describe" if kind == "functions":
            assert mark.exists(), "there is no such function"
            print(URL)
        case "describe":
            return 0 if mark.exists() else 1
        case "create" | "deploy":
            assert words[-1] == "deploy" or not mark.exists(), f"{first} is there already"
            if kind == "secrets":
                assert said.flags["data-file"] == "-"
                (world / "secret.json").write_text(sys.stdin.read())
            if words[-1] == "deploy":
                source = Path(said.flags["source"])
                assert (source / "main.py").is_file(), "a function's source is a folder with a main.py"
                assert (source / "requirements.txt").is_file()
            for name in ("topic", "dead-letter-topic"):
                if name in said.flags:
                    assert (there / quote(f"topics {said.flags[name]}", safe="")).exists(), said.flags[name]
            mark.touch()
        case "delete":
            mark.unlink()
        case "service-agent":
            print(f"service-{NUMBER}@gs-project-accounts.iam.gserviceaccount.com")
        case "cp":
            _copy(Path(said.names[0]), said.names[1])
    return 0


def _copy(file: Path, to: str) -> None:
    import httpx  # a script runs this file some forty times

    bucket, _, key = to.removeprefix("gs://").partition("/")
    url = f"{os.environ['STORAGE_EMULATOR_HOST']}/upload/storage/v1/b/{bucket}/o"
    given = {"uploadType": "media", "name": key}
    httpx.post(url, params=given, content=file.read_bytes(), trust_env=False).raise_for_status()


if __name__ == "__main__":
    told, folder = parsed(sys.argv[1:]), Path(os.environ["GCLOUD_WORLD"])
    code = done(told, folder)
    with (folder / "gcloud.jsonl").open("a") as log:
        log.write(json.dumps([told.command, told.names, told.flags, code]) + "\n")
    sys.exit(code)
