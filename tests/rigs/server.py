"""`syncagent serve` as a process of its own, and the platform's real client beside it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rigs.catalogs import url_of

ROOT = Path(__file__).parents[2]
SDK = ROOT / ".rigs/dtlpy/bin/python"
EMAIL, PASSWORD = "owner@example.com", "correct horse battery"
OTHER = "other@example.com"
"""An account without rights."""


class ServerRig:
    """A running server with one administrator."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url

    def client(
        self, script: Path, home: Path, *, seconds: float = 300, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a script with dtlpy, pointed at this server by nothing but its own cookie file."""
        settings = home / "dataloop"
        settings.mkdir()
        api = f"{self.url}/api/v1"
        login = {
            "alias": "mine", "gate_url": self.url, "url": f"{self.url}/", "verify_ssl": False, "audience": None,
            "client_id": None, "auth0_url": None, "token": None, "refresh_token": None,
        }  # fmt: skip
        (settings / "cookie.json").write_text(json.dumps({"url": api, "login_parameters": {api: login}}))
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SYNCAGENT_"))
        }
        given = {
            **clean, "DATALOOP_PATH": str(settings), "HOME": str(home), "EMAIL": EMAIL, "PASSWORD": PASSWORD, "OTHER": OTHER,
            "PYTHONPATH": str(script.parent), "PYTHONWARNINGS": "ignore", **variables,
        }  # fmt: skip
        return subprocess.run(
            [str(SDK), str(script)],
            env=given,
            cwd=home,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )


@pytest.fixture(scope="session")
def server_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerRig]:
    """The server, for all tests of a session."""
    with serving(tmp_path_factory.mktemp("server")) as rig:
        yield rig


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerRig]:
    """The server, for one test that names things as a README does."""
    with serving(tmp_path_factory.mktemp("own-server")) as rig:
        yield rig


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[ServerRig]:
    """The server, on a free loopback port, over a catalog of its own in `folder`."""
    given = {
        **os.environ, "SYNCAGENT_CATALOG": url_of(folder / "catalog.db"), "SYNCAGENT_ADMIN_EMAIL": EMAIL,
        "SYNCAGENT_ADMIN_PASSWORD": PASSWORD, "SYNCAGENT_LOG_LEVEL": "warning",
    }  # fmt: skip
    with (folder / "server.log").open("w+") as log:
        command = [sys.executable, "-m", "syncagent", "serve", "--port", "0"]
        process = subprocess.Popen(
            command, env=given, cwd=folder, stderr=subprocess.PIPE, stdout=log, text=True
        )
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert line.startswith("serving on http://127.0.0.1:"), line + process.stderr.read()
            add = [sys.executable, "-m", "syncagent", "users", "add", OTHER]
            subprocess.run(
                add, env={**given, "SYNCAGENT_PASSWORD": PASSWORD}, check=True, capture_output=True
            )
            yield ServerRig(folder, line.split()[2])
        finally:
            process.terminate()
            _, said = process.communicate(timeout=30)
        assert process.returncode == 0, "SIGTERM ends it gracefully"
        assert "Traceback" not in said, said
