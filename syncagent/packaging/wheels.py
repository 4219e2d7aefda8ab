"""Wheels of a target: pinned by a lock with hashes, fetched by pip, unpacked without what no handler opens."""

from __future__ import annotations

import email
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from zipfile import ZipFile

from syncagent.errors import ConfigError, Transient
from syncagent.packaging.targets import Cloud, Target

_LAST = 400  # characters of pip's last words
# What a function never opens: tests, stubs, headers, compilers' leftovers, sources of what is compiled; urllib3 in a browser, and
# over another TLS than Python's; msal's command.
_UNUSED = re.compile(
    r"(^|/)(tests?|testing|__pycache__)/|^pydantic/(v1/|mypy\.py)|^cffi/|^urllib3/contrib/(emscripten/|pyopenssl\.py)|^msal/__main__\.py|\.(pyi|pyx|pxd|pyc|c|h|cpp|hpp|a)$|(^|/)py\.typed$"
    r"|\.dist-info/(RECORD|INSTALLER|REQUESTED|WHEEL|direct_url\.json|top_level\.txt|entry_points\.txt|zip-safe|sboms/.*)$"
)


@dataclass(frozen=True, slots=True)
class Pinned:
    """A package's one version, and the hashes of its files."""

    name: str
    version: str
    hashes: tuple[str, ...]
    """Each as ``sha256:…``."""

    @property
    def line(self) -> str:
        """Of a requirements file."""
        return f"{self.name}=={self.version} " + " ".join(f"--hash={one}" for one in self.hashes)


@dataclass(frozen=True, slots=True)
class Wheel:
    """A package's file."""

    name: str
    version: str
    path: Path
    sha256: str
    license: str | None
    """As its metadata says it: an SPDX expression, or a name."""
    requires: tuple[str, ...] = ()
    """As its metadata says them: PEP 508."""


def pinned(locks: Iterable[Path], target: Target) -> list[Pinned]:
    """What locks pin for a target, in order of name.

    :param locks: requirements files with a version and hashes for each package.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: dict[str, Pinned] = {}
    for lock in locks:
        for entry in re.sub(r"\\\n", " ", lock.read_text(encoding="utf-8")).splitlines():
            text = entry.partition("#")[0].strip()
            if not text or text.startswith("-"):
                continue
            stated, *hashes = re.split(r"\s+--hash=", text)
            requirement = Requirement(stated)
            if requirement.marker and not requirement.marker.evaluate(dict(target.markers())):
                continue
            version = str(requirement.specifier).removeprefix("==")
            name = str(canonicalize_name(requirement.name))
            found[name] = Pinned(name, version, tuple(one.strip() for one in hashes))
    return [found[name] for name in sorted(found)]


def fetch(requirements: Sequence[Pinned], target: Target, folder: Path) -> list[Wheel]:
    """Fetch wheels into a folder. pip chooses them by the target's tags and verifies their hashes.

    :raises ConfigError: there is no pip, or no wheel for the target.
    :raises Transient: pip could not fetch them.
    """
    folder.mkdir(parents=True)
    lines = folder.parent / "requirements.txt"
    lines.write_text("".join(f"{one.line}\n" for one in requirements), encoding="utf-8")
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps",
        "--require-hashes", "--only-binary=:all:", "--implementation=cp", f"--python-version={target.python}",
        f"--abi=cp{target.python.replace('.', '')}", "--abi=abi3", "--abi=none",
        *(f"--platform={one}" for one in target.platforms()), f"--dest={folder}", f"--requirement={lines}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        _failed(done.stderr, target)
    return sorted((_wheel(path) for path in folder.glob("*.whl")), key=lambda one: one.name)


def _failed(told: str, target: Target) -> None:
    if "No module named pip" in told:
        raise ConfigError("packages are fetched by pip, which is not installed", hint="python -m ensurepip")
    if found := re.search(r"No matching distribution found for (\S+)", told):
        if "Retrying (" in told:  # pip then goes on as if the index were empty
            raise Transient("pip cannot reach its package index", hint="look at the network, and try again")
        raise ConfigError(
            f"{found[1]} has no wheel for Python {target.python} with glibc 2.{target.cloud.glibc[target.python]} on {target.arch},"
            " or pip's index does not have it", resource=found[1], hint="choose another --python, or another index",
        )  # fmt: skip
    if "DO NOT MATCH THE HASHES" in told:
        raise ConfigError(
            "a package is not what the lock says: its hash differs", hint="ask who runs your package index"
        )
    # An index's address may hold a password.
    lines = re.sub(r"//[^/\s@]*@", "//…@", told).splitlines()
    last = " ".join(line for line in lines if line.startswith("ERROR")) or " ".join(lines)
    raise Transient(f"pip could not fetch the packages: {last[-_LAST:].strip()}", hint="try again")


def _wheel(path: Path) -> Wheel:
    with ZipFile(path) as wheel:
        (metadata,) = (name for name in wheel.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        told = email.message_from_bytes(wheel.read(metadata))
    text = told["License-Expression"] or told["License"] or ""
    named = [
        one.rpartition(" :: ")[2] for one in told.get_all("Classifier", []) if one.startswith("License ::")
    ]
    licensed = text if text and "\n" not in text else "; ".join(named)
    from packaging.utils import canonicalize_name

    return Wheel(
        str(canonicalize_name(str(told["Name"]))), str(told["Version"]), path,
        hashlib.sha256(path.read_bytes()).hexdigest(), licensed or None, tuple(told.get_all("Requires-Dist", [])),
    )  # fmt: skip


def needed(name: str, wheels: Iterable[Wheel], target: Target) -> set[str]:
    """The names of a package and of all that it needs on a target."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    known = {one.name: one for one in wheels}
    todo, found = [name], set[str]()
    while todo:
        one = todo.pop()
        if one in found or one not in known:
            continue
        found.add(one)
        for text in known[one].requires:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate(dict(target.markers())):
                todo.append(str(canonicalize_name(requirement.name)))
    return found


def unpack(wheels: Iterable[Wheel], cloud: Cloud) -> Mapping[str, bytes]:
    """The files of wheels as they are installed, by path.

    :raises ConfigError: two wheels have a file of one name and different bytes, or a path that leaves its folder.
    """
    unused = [re.compile(one) for one in cloud.unused]
    files: dict[str, bytes] = {}
    for wheel in wheels:
        with ZipFile(wheel.path) as opened:
            for member in opened.infolist():
                name = _installed(member.filename)
                if (
                    member.is_dir()
                    or name is None
                    or _UNUSED.search(name)
                    or any(one.match(name) for one in unused)
                ):
                    continue
                if ".." in PurePosixPath(name).parts or name.startswith("/"):
                    raise ConfigError(
                        f"{wheel.path.name} holds a path outside of itself", resource=wheel.name
                    )
                data = opened.read(member)
                if name.endswith(".dist-info/METADATA"):
                    data = data.partition(b"\n\n")[0] + b"\n"  # without the project's README
                for pattern, trim in cloud.trims.items():
                    if re.fullmatch(pattern, name):
                        name, data = name.removesuffix(".gz"), trim(data)
                if files.setdefault(name, data) != data:
                    raise ConfigError(f"two packages have a file {name}", resource=wheel.name)
    return files


def _installed(name: str) -> str | None:
    """Where a wheel's file goes; scripts and headers go nowhere. PEP 427, ``.data``."""
    top, _, rest = name.partition("/")
    if not top.endswith(".data"):
        return name
    kind, _, rest = rest.partition("/")
    return rest if kind in {"purelib", "platlib"} else None
