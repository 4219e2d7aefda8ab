"""Archives of `syncagent package`, built once a session whatever the number of workers, and unpacked."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Built:
    """What the command wrote, and its archive unpacked. Nobody writes into these folders."""

    dist: Path
    unpacked: Path
    told: str
    """The command's output."""

    @property
    def archive(self) -> Path:
        (found,) = self.dist.glob("*.zip")
        return found


def built(factory: pytest.TempPathFactory, cloud: str) -> Built:
    """The archive of a cloud for this machine's Python, by the command line."""
    base = factory.getbasetemp()
    # xdist's workers have a folder each, in one that is the session's.
    home = (base.parent if base.name.startswith("popen-") else base) / f"package-{cloud}"
    home.mkdir(exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        told = home / "told"
        if not told.exists():
            command = [sys.executable, "-m", "syncagent", "package", cloud, "-o", str(home / "dist")]
            done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=home)
            assert done.returncode == 0, done.stderr
            with ZipFile(home / "dist" / f"syncagent-{cloud}.zip") as archive:
                archive.extractall(home / "unpacked")  # it is ours
            told.write_text(done.stdout)
    return Built(home / "dist", home / "unpacked", told.read_text())


@pytest.fixture(scope="session")
def aws_package(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return built(tmp_path_factory, "aws")


@pytest.fixture(scope="session")
def gcp_package(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return built(tmp_path_factory, "gcp")


@pytest.fixture(scope="session")
def azure_package(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return built(tmp_path_factory, "azure")


def commands_of(readme: Path) -> list[str]:
    """Commands of a README's shell blocks, in order; a line that ends in ``\\`` or ``|`` goes on."""
    found: list[str] = []
    inside, pending = False, ""
    for line in readme.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            inside = line == "```sh"
        elif inside:
            pending += line
            if line.endswith(("\\", "|")):
                pending += "\n"
            elif pending:
                found.append(pending)
                pending = ""
    return found
