"""A function app on this machine: its folder, run by the library that Microsoft's image runs it with."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".rigs/functions/bin/python"
"""A Python that has that library, and nothing of what a function brings along."""


@dataclass
class Answer:
    """What a function made of one event."""

    error: dict[str, str] | None
    """Its message and stack trace: the host tries again."""
    value: Any

    @property
    def ok(self) -> bool:
        return self.error is None


class FunctionApp:
    """One instance of an app. Use it in a `with` statement: entering waits until its functions are indexed.

    :param folder: the archive, unpacked.
    :param settings: the app's.
    :param timeout: seconds that anything may take.
    """

    def __init__(self, folder: Path, settings: dict[str, str], *, timeout: float = 30) -> None:
        self._folder, self._settings, self._timeout = folder, settings, timeout
        self._answers: dict[str, queue.Queue[Answer]] = {}
        self._began: queue.Queue[dict[str, Any]] = queue.Queue()
        self.log: list[str] = []
        """Records that the host is sent, each with its level and logger, and what the process writes."""
        self.functions: dict[str, list[dict[str, Any]]] = {}
        """Bindings by function."""
        self.error: dict[str, str] | None = None
        """Why the app did not start."""
        self.started = 0.0
        """When the process was made, by `time.perf_counter`."""

    def __enter__(self) -> Self:
        if not PYTHON.exists():
            raise AssertionError("Azure's function runtime is not there: run scripts/rigs.sh")
        environment = {
            "PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONNOUSERSITE": "1", "AZURE_FUNCTIONS_ENVIRONMENT": "Production",
            # The package is mounted to be read only, so nothing is compiled for the next start.
            "PYTHONDONTWRITEBYTECODE": "1", "FUNCTIONS_WORKER_RUNTIME": "python",
        }  # fmt: skip
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            [str(PYTHON), "-P", str(Path(__file__).with_name("azure_host.py")), str(self._folder)], env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._send(self._settings)
        try:
            began = self._began.get(timeout=self._timeout)
        except queue.Empty:
            self.process.kill()
            raise AssertionError("the app did not start: " + "".join(self.log)) from None
        self.functions, self.error = began["functions"], began["error"]
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        self.process.stdout.close()

    def _send(self, told: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(told) + "\n")
        self.process.stdin.flush()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            told = json.loads(line) if line.startswith("{") else {"log": line.rstrip("\n")}
            if "log" in told:
                self.log.append(told["log"])
            elif "id" in told:
                self._answers[told["id"]].put(Answer(told["error"], told["value"]))
            else:
                self._began.put(told)
        self._began.put({"functions": {}, "error": {"message": "the process ended: " + "\n".join(self.log)}})

    def start(
        self, function: str, value: Any, *, kind: str = "string", metadata: dict[str, Any] | None = None
    ) -> queue.Queue[Answer]:
        """Send one event to a function's trigger; the answer is put into what is given back.

        :param kind: of `value`, as the host tells it: ``string``, ``json``, ``bytes`` or ``http``.
        """
        id = str(uuid.uuid4())
        answer = self._answers[id] = queue.Queue()
        (trigger,) = (one for one in self.functions[function] if one["type"].lower().endswith("trigger"))
        self._send(
            {"id": id, "function": function, "parameter": trigger["name"], "kind": kind, "value": value, "metadata": metadata or {}}
        )  # fmt: skip
        return answer

    def invoke(
        self, function: str, value: Any, *, kind: str = "string", metadata: dict[str, Any] | None = None
    ) -> Answer:
        """Send one event, and wait for what becomes of it."""
        return self.start(function, value, kind=kind, metadata=metadata).get(timeout=self._timeout)
