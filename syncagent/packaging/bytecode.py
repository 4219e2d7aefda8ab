"""Compiled files beside their sources: a function that finds none compiles all it imports at every cold start."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from syncagent.packaging import strip
from syncagent.packaging.targets import Target


def add_bytecode(files: dict[str, bytes], target: Target) -> str | None:
    """Compile every source, with a Python of the target's version if this machine has one.

    What was compiled is put beside its source, or below `Cloud.below` in its place: `Cloud.sources`.

    :return: its full version, or None: nothing was compiled.
    """
    python = _python(target)
    if python is None:
        return None
    with TemporaryDirectory(prefix="syncagent-compile-") as scratch:
        folder = Path(scratch)
        for name, data in files.items():
            if name.endswith(".py") and (target.cloud.sources or name.startswith(target.cloud.below)):
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        # Isolated: what it writes must not hang on this shell's variables. Sets are written in one order, whatever their hashes.
        told = subprocess.run(  # noqa: S603
            [python, "-I", "-S", str(Path(strip.__file__)), str(folder)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if told.returncode:
            return None
        for path in folder.rglob("*.pyc"):
            name = path.relative_to(folder).as_posix()
            if not target.cloud.sources:
                source = importlib.util.source_from_cache(name)
                del files[source]
                name = f"{source}c"  # where Python looks for it then
            files[name] = path.read_bytes()
    return told.stdout.strip()


def _python(target: Target) -> str | None:
    """A Python of exactly the target's version: bytecode of another is not read."""
    if sys.version_info[:2] == target.version and sys.implementation.name == "cpython":
        return sys.executable
    found = shutil.which(f"python{target.python}")
    if found is None:
        return None
    told = subprocess.run(  # noqa: S603
        [found, "-I", "-c", "import sys; print(sys.implementation.name, *sys.version_info[:2])"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return found if told.stdout.split() == ["cpython", *target.python.split(".")] else None
