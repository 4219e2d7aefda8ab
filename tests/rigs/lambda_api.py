"""AWS Lambda on this machine: its Runtime API, behind which its real runtime client runs a function's folder.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]
RIC = ROOT / ".rigs/ric/bin/python"
"""A Python that sees the runtime client, and nothing else."""
_API = "/2018-06-01/runtime/"


@dataclass
class Answer:
    """What a function made of one event."""

    ok: bool
    body: Any
    seconds: float


@dataclass
class _Invocation:
    id: str
    event: bytes
    done: threading.Event = field(default_factory=threading.Event)
    ok: bool = False
    body: Any = None


class Function:
    """One instance of a function. Use it in a `with` statement: entering waits until it has started.

    :param folder: the archive, unpacked.
    :param handler: ``module.function``.
    :param timeout: seconds that an invocation may take.
    """

    def __init__(
        self,
        folder: Path,
        handler: str,
        environment: dict[str, str],
        *,
        timeout: float = 30,
        python: Path = RIC,
    ) -> None:
        self._folder, self._handler, self._timeout, self._python = folder, handler, timeout, python
        self._environment = environment
        self._waiting: queue.Queue[_Invocation | None] = queue.Queue()
        self._running: dict[str, _Invocation] = {}
        self._began = threading.Event()
        self.init_error: Any = None
        """What the runtime client told, if the function did not start."""
        self.started = 0.0
        """When the process was made, by `time.perf_counter`."""
        self.init_seconds = 0.0

    def __enter__(self) -> Self:
        if not self._python.exists():
            raise AssertionError("Lambda's runtime client is not there: run scripts/rigs.sh")
        outer = self

        class Handler(_Handler):
            function = outer

        self._server = _Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        environment = {
            "PATH": os.defpath, "LANG": "C.UTF-8", "TZ": ":UTC", "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._server.server_port}",
            "_HANDLER": self._handler, "LAMBDA_TASK_ROOT": str(self._folder), "AWS_LAMBDA_FUNCTION_NAME": "function",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512", "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing",
            # A function's own folder cannot be written to, so nothing is compiled for the next start.
            "PYTHONPATH": str(self._folder), "PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": "1", **self._environment,
        }  # fmt: skip
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            [str(self._python), "-m", "awslambdaric", self._handler], cwd=self._folder, env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        while not self._began.wait(0.05):
            if self.process.poll() is not None:
                break
        self.init_seconds = time.perf_counter() - self.started
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._waiting.put(None)
        self._server.shutdown()
        self._server.server_close()
        self._reader.join()
        if self.process.stdout:
            self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.log.append(line)

    def invoke(self, event: Any) -> Answer:
        """Send one event, and wait for what becomes of it, as Lambda does: until the timeout, or the end of the process."""
        one = _Invocation(str(uuid.uuid4()), json.dumps(event).encode())
        self._running[one.id] = one
        began = time.perf_counter()
        self._waiting.put(one)
        while not one.done.wait(0.02):
            if self.process.poll() is not None:
                return Answer(False, {"errorType": "Runtime.ExitError"}, time.perf_counter() - began)
            if time.perf_counter() - began > self._timeout:
                self.process.kill()
                return Answer(False, {"errorType": "Sandbox.Timedout"}, time.perf_counter() - began)
        return Answer(one.ok, one.body, time.perf_counter() - began)

    def next(self) -> tuple[str, bytes] | None:
        self._began.set()
        one = self._waiting.get()
        return (one.id, one.event) if one else None

    def deadline(self) -> int:
        """In milliseconds since 1970."""
        return int((time.time() + self._timeout) * 1000)

    def told(self, path: list[str], body: bytes) -> None:
        told = json.loads(body) if body else None
        if path == ["init", "error"]:
            self.init_error = told
            self._began.set()
            return
        _, id, kind = path
        one = self._running.pop(id)
        one.ok, one.body = kind == "response", told
        one.done.set()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a function that was killed
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    function: Function
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        got = self.function.next()
        if got is None:
            self.close_connection = True
            return
        id, event = got
        headers = {
            "Lambda-Runtime-Aws-Request-Id": id, "Lambda-Runtime-Deadline-Ms": str(self.function.deadline()),
            "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-1:000000000000:function:function",
            "Lambda-Runtime-Trace-Id": "Root=1-0-0", "Content-Type": "application/json",
        }  # fmt: skip
        self._answer(200, event, headers)

    def do_POST(self) -> None:
        self.function.told(self.path.removeprefix(_API).split("/"), self._body())
        self._answer(202, b'{"status":"OK"}', {})

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:
            pass
