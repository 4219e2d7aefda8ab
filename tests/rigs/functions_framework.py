"""Google's runtime of functions on this machine: the archive's own packages, installed as Google's build does, and nothing else."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import pytest

from tests.rigs.gcs import free_port
from tests.rigs.packages import Built

_WAIT = 30  # seconds until it has loaded the function


class Function:
    """One instance of a function. Use it in a `with` statement: entering waits until it listens.

    :param python: of the environment with the archive's packages.
    :param folder: the archive, unpacked.
    :param signature: ``cloudevent``, ``event`` or ``http``, as Google tells its containers.
    """

    def __init__(
        self, python: Path, folder: Path, target: str, signature: str, environment: Mapping[str, str]
    ) -> None:
        self.url = f"http://127.0.0.1:{free_port()}/"
        port = self.url.rstrip("/").rpartition(":")[2]
        self._command = [str(python.parent / "functions-framework"), "--host", "127.0.0.1", "--port", port]
        self._folder = folder
        self._environment = {
            "PATH": os.defpath, "LANG": "C.UTF-8", "HOME": "/nowhere", "FUNCTION_TARGET": target,
            "FUNCTION_SIGNATURE_TYPE": signature, "K_SERVICE": "function", "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1", **environment,
        }  # fmt: skip
        self.log: list[str] = []
        self.started = 0.0
        """When the process was made, by `time.perf_counter`."""

    def __enter__(self) -> Self:
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            self._command, cwd=self._folder, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.client = httpx.Client(timeout=60, trust_env=False)
        until = time.monotonic() + _WAIT
        while True:
            try:
                # The port may listen before the function is loaded; an answer is the function's.
                self.client.get(f"{self.url}robots.txt")
                return self
            except httpx.TransportError:
                if self.process.poll() is not None or time.monotonic() > until:
                    self.__exit__(None, None, None)
                    raise AssertionError(f"the function does not start: {''.join(self.log)}") from None
                time.sleep(0.01)

    def stop(self) -> None:
        """Tell it to end, and do not wait for that."""
        self.process.terminate()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self.stop()
        self.process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            self.log.extend(lines)

    def post(self, body: Any, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """A request as Google sends it.

        :param body: JSON, as objects.
        """
        return self.client.post(self.url, json=body, headers=dict(headers or {}))


def environment(home: Path, requirements: Sequence[str], *, cwd: Path | None = None) -> Path:
    """The Python of an environment with packages and nothing else, made once, as Google's build makes it.

    https://github.com/GoogleCloudPlatform/buildpacks/blob/main/pkg/python/python.go: without pip's compiled files, but with those that
    are not compared with their sources, whose times an image loses.

    :param requirements: for pip: its options, too.
    """
    python = home / "bin/python"
    with (home.parent / f"{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "done").exists():
            venv.create(home, clear=True, with_pip=False)
            command = [
                sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--disable-pip-version-check",
                "--no-compile", *requirements,
            ]  # fmt: skip
            done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            # Not all of it compiles: there are templates among the sources.
            compiles = ["-m", "compileall", "--invalidation-mode", "unchecked-hash", "-qq", str(home / "lib")]
            subprocess.run([str(python), *compiles], capture_output=True, check=False)
            (home / "done").touch()
    return python


def installed(folder: Path, home: Path) -> Path:
    """The Python of an environment with what an archive's requirements name, out of its own wheels.

    https://cloud.google.com/functions/docs/writing/specifying-dependencies-python, "vendored dependencies"

    :param folder: the archive, unpacked.
    """
    given = ["--no-index", "--find-links", "wheels", "--requirement", "requirements.txt"]
    return environment(home, given, cwd=folder)


@pytest.fixture(scope="session")
def gcp_python(gcp_package: Built) -> Path:
    """The Python that the archive runs in."""
    return installed(gcp_package.unpacked, gcp_package.unpacked.parent / "environment")
