"""A function's archive: what a handler needs for its cloud, its Python and its machine, and nothing else.

The same input gives the same bytes. No machine of the target's kind is needed: wheels are chosen by their tags.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

from syncagent.packaging.archive import write_zip
from syncagent.packaging.bom import bill_of_materials
from syncagent.packaging.bytecode import add_bytecode
from syncagent.packaging.code import own_files
from syncagent.packaging.targets import Target
from syncagent.packaging.wheels import fetch, needed, pinned, unpack

__all__ = ["Package", "Target", "package"]


@dataclass(frozen=True, slots=True)
class Package:
    """What `package` wrote."""

    archive: Path
    template: Path
    beside: tuple[Path, ...]
    """What else deploys it: `Cloud.beside`."""
    bom: Path
    """CycloneDX 1.6, JSON."""
    checksums: Path
    """Of the others, as ``sha256sum --check`` reads it."""
    sha256: str
    """Of the archive."""
    size: int
    """Of the archive, in bytes."""
    unpacked: int
    """Of its files, in bytes."""
    packages: int
    bytecode: str | None
    """The Python that compiled the archive's files, or None: then the function compiles them at each cold start."""


def package(
    target: Target, out: Path, *, labels: bool = False, on_step: Callable[[str], None] = lambda _: None
) -> Package:
    """Build a function's archive, and the template that deploys it.

    :param out: a folder; files of the same names are replaced.
    :param labels: also what reads label and metadata files.
    :param on_step: told what is being done.
    :raises ConfigError: pip is missing, or a package has no wheel for the target.
    :raises Transient: the packages cannot be fetched.
    :raises OSError: the folder cannot be written to.
    """
    cloud = target.cloud
    names = ["requirements.txt", *(["requirements-labels.txt"] if labels else [])]
    locked = pinned([cloud.folder / name for name in names], target)
    requirements = [one for one in locked if one.name not in cloud.without]
    out.mkdir(parents=True, exist_ok=True)
    TemporaryFile(dir=out).close()  # a folder that cannot be written to is told before all the work
    with TemporaryDirectory(prefix="syncagent-package-") as scratch:
        on_step(f"fetching {len(requirements)} packages")
        wheels = fetch(requirements, target, Path(scratch) / "wheels")
        on_step("packing")
        files: dict[str, bytes] = {name: (cloud.folder / name).read_bytes() for name in cloud.entry}
        ours = {f"syncagent/{name}": data for name, data in own_files(cloud, labels=labels).items()}
        installed = needed(cloud.installs, wheels, target) if cloud.installs else set()
        if installed:  # the cloud's build installs these
            lines = [one.line for one in requirements if one.name in installed]
            files["requirements.txt"] = "".join(f"{line}\n" for line in lines).encode()
            files |= {
                f"wheels/{one.path.name}": one.path.read_bytes() for one in wheels if one.name in installed
            }
        tree = {**unpack((one for one in wheels if one.name not in installed), cloud), **ours}
        files |= {cloud.below + name: data for name, data in tree.items()}
        bytecode = add_bytecode(files, target)
        if bytecode is None:
            on_step(f"not compiled, so the function starts slower: there is no Python {target.python} here")
    archive = out / f"syncagent-{cloud.name}.zip"
    write_zip(archive, files)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    template = out / cloud.template
    template.write_text(_template(target), encoding="utf-8")
    beside = tuple(out / name for name in cloud.beside)
    for path in beside:
        shutil.copy(cloud.folder / path.name, path)
    bom = out / f"syncagent-{cloud.name}.cdx.json"
    bom.write_text(bill_of_materials(archive.name, digest, wheels, target, bytecode), encoding="utf-8")
    sums = out / f"syncagent-{cloud.name}.sha256"
    sums.write_text(
        "".join(
            f"{hashlib.sha256(one.read_bytes()).hexdigest()}  {one.name}\n"
            for one in (archive, template, bom, *beside)
        )
    )
    return Package(
        archive,
        template,
        beside,
        bom,
        sums,
        digest,
        archive.stat().st_size,
        sum(map(len, files.values())),
        len(wheels),
        bytecode,
    )


def _template(target: Target) -> str:
    """The cloud's template, with the Python and the machine of this archive."""
    text = (target.cloud.folder / target.cloud.template).read_text(encoding="utf-8")
    for pattern, value in target.defaults().items():
        found = list(re.finditer(pattern, text))
        if len(found) != 1:
            raise AssertionError(f"{target.cloud.template} has {len(found)} places like {pattern}")
        text = text[: found[0].end(1)] + value + text[found[0].start(2) :]
    return text
