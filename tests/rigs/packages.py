"""Archives of `syncagent package`, built once a session whatever the number of workers, and unpacked."""

from __future__ import annotations

import fcntl
import json
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Self
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


_PIP = """#!/bin/sh
# Stands in for pip: what a README installs is here already.
exec {python} {script} "$@"
"""
_CHECK = """
import json, re, sys

installed, extras = json.loads(sys.argv[1]), set(json.loads(sys.argv[2]))
words = sys.argv[3:]
assert words[0] == "install", words
for word in words[1:]:
    name, _, wanted = word.rstrip("]").partition("[")
    wanted = set(filter(None, wanted.split(",")))
    assert name in installed, f"{name} is not expected"
    assert name != "syncagent" or (wanted <= extras and set(installed[name]) <= wanted), word
"""


class Shell:
    """A shell that a README is typed into, command by command. Use it in a `with` statement.

    :param installed: what the README installs, with the extras that it needs.
    """

    def __init__(self, folder: Path, environment: dict[str, str], installed: dict[str, set[str]]) -> None:
        tools = folder / "tools"
        tools.mkdir()
        (tools / "check.py").write_text(_CHECK)
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        words = [
            json.dumps({name: sorted(wanted) for name, wanted in installed.items()}),
            json.dumps(list(extras)),
        ]
        script = " ".join(shlex.quote(word) for word in (str(tools / "check.py"), *words))
        (tools / "pip").write_text(_PIP.format(python=shlex.quote(sys.executable), script=script))
        (tools / "pip").chmod(0o755)
        self.tools = tools
        self._environment = {**environment, "PATH": f"{tools}:{environment['PATH']}"}
        self._folder = folder

    def tool(self, name: str, script: str) -> None:
        """A command of the shell's own."""
        (self.tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.tools / name).chmod(0o755)

    def has(self, built: Built) -> None:
        """`syncagent package` gives what the session has built by it already: the same input gives the same bytes."""
        cloud = built.archive.stem.removeprefix("syncagent-")
        copy = f"mkdir -p dist && exec cp {shlex.quote(str(built.dist))}/* dist"
        given = f'if [ "$*" = "package {cloud} -o dist" ]; then {copy}; fi'
        self.tool("syncagent", f'{given}\nexec {shlex.quote(sys.executable)} -m syncagent "$@"')

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"], env=self._environment, cwd=self._folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()

    def run(self, command: str, *, again_after: str | None = None) -> str:
        """What a command prints. It has to end well.

        :param again_after: an emulator's own fault in what it prints; then it is run once more.
        """
        code, told = self._run(command)
        if code and again_after and again_after in told:
            code, told = self._run(command)
        assert code == 0, f"{command}\n{told}"
        return told

    def _run(self, command: str) -> tuple[int, str]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f'{command}\necho "=== $?"\n')
        self._process.stdin.flush()
        told = ""
        for line in self._process.stdout:
            if found := re.search(r"=== (\d+)$", line):
                return int(found[1]), told
            told += line
        raise AssertionError(f"the shell ended\n{told}")
