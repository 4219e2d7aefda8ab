"""The clouds' runtimes of functions, as `benchmarks/coldstart.py` needs them: our archive and the tutorial's handler on each.

Only the runtime's own code is between an event and the handler: Lambda's runtime client, Google's functions framework, and the library
of Microsoft's image. The tutorial's handlers are written in our own words, and name the bucket before the key: the tutorial's own
leave it out, and then dtlpy 1.126.5 takes the key's first folder for it, or refuses.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import httpx

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault(
    "AWS_ACCESS_KEY_ID", "testing"
)  # the server's, too: it looks at what the tutorial's handler names
os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "testing")

from benchmarks.events import notification  # after the path is known
from syncagent.packaging.archive import write_zip
from tests.rigs import azure_functions, functions_framework, gcs, lambda_api
from tests.rigs.azure import azurite

ROOT = Path(__file__).parents[1]
DTLPY = "dtlpy==1.126.5"
TIMEOUT = 120  # seconds: dtlpy's cold start on a busy machine

_LAMBDA = """
import os
import urllib.parse

import dtlpy as dl


def lambda_handler(event, context):
    dl.login_m2m(email=os.environ["DTLPY_USERNAME"], password=os.environ["DTLPY_PASSWORD"])
    dataset = dl.datasets.get(dataset_id=os.environ["DATASET_ID"], fetch=False)
    for record in event["Records"]:
        name = urllib.parse.unquote_plus(record["s3"]["object"]["key"])
        if "ObjectRemoved" in record["eventName"]:
            dataset.items.delete(filters=dl.Filters(field="filename", values="/" + name))
        elif "ObjectCreated" in record["eventName"]:
            dataset.items.upload(local_path="external://" + record["s3"]["bucket"]["name"] + "/" + name)
"""
_GOOGLE = """
import os

import dtlpy as dl


def _dataset():
    dl.login_m2m(email=os.environ["DTLPY_USERNAME"], password=os.environ["DTLPY_PASSWORD"])
    return dl.datasets.get(dataset_id=os.environ["DATASET_ID"], fetch=False)


def create_gcs(event, context):
    _dataset().items.upload(local_path="external://" + event["bucket"] + "/" + event["name"])


def delete_gcs(event, context):
    _dataset().items.delete(filename=event["name"])
"""
_AZURE = """
import os

import azure.functions as func
import dtlpy as dl

app = func.FunctionApp()


@app.blob_trigger(arg_name="myblob", path="%BUCKET_CONTAINER%/{name}", connection="BUCKET")
def main(myblob: func.InputStream):
    dl.login_m2m(email=os.environ["DTLPY_USERNAME"], password=os.environ["DTLPY_PASSWORD"])
    dataset = dl.datasets.get(dataset_id=os.environ["DATASET_ID"], fetch=False)
    dataset.items.upload(local_path="external://" + myblob.name)
"""


_NOTHING = {
    "lambda_function.py": "def lambda_handler(event, context):\n    pass\n",
    "main.py": "def create_gcs(event, context):\n    pass\n",
    "function_app.py": """
import azure.functions as func

app = func.FunctionApp()


@app.blob_trigger(arg_name="myblob", path="%BUCKET_CONTAINER%/{name}", connection="BUCKET")
def main(myblob: func.InputStream):
    pass
""",
}
"""A handler that does nothing, by the file that its cloud looks for."""


@dataclass
class Entrant:
    """A handler on a runtime, and what was measured of it."""

    name: str
    folder: Path
    """What the runtime is given."""
    size: int
    """In bytes, zipped."""
    entry: str
    """The handler, as its cloud calls it."""
    python: Path | None = None
    """Of an environment with the packages, where they are not in the folder."""
    settles: bool = True
    """Whether it does what it is told."""
    environment: dict[str, str] = field(default_factory=dict)
    cold: list[float] = field(default_factory=list)
    """Seconds."""
    memory: list[float] = field(default_factory=list)
    """Peak, in MB."""
    first: list[int] = field(default_factory=list)
    """Requests of a cold start with its event."""
    each: list[float] = field(default_factory=list)
    """Requests of an event after it."""


@dataclass(frozen=True)
class Instance:
    """A function that runs."""

    started: float
    """When its process was made, by `time.perf_counter`."""
    pid: int
    tell: Callable[[str], None]
    """Send the event of a key, and wait until it is settled."""
    batch: Callable[[list[str]], None]
    """The same for the keys of one delivery."""


class Cloud(ABC):
    """One cloud's runtime, and an emulator of its buckets."""

    name: str
    batches = True
    """Whether it brings several events at once."""

    @abstractmethod
    def storage(self) -> contextlib.AbstractContextManager[str]:
        """The emulator; its address."""

    @abstractmethod
    def fill(self, url: str, bucket: str, keys: list[str]) -> None:
        """Make a bucket with objects."""

    @abstractmethod
    def url(self, endpoint: str, bucket: str) -> str:
        """The bucket's, for a dataset."""

    @abstractmethod
    def ours(self, place: Path) -> list[Entrant]:
        """The archive of the command, by each way that is compared. The first is what the template deploys."""

    @abstractmethod
    def tutorial(self, place: Path) -> Entrant:
        """dtlpy with what it needs, installed once."""

    def nothing(self, place: Path, theirs: Entrant) -> Entrant:
        """A handler that does nothing: what the tutorial's runtime takes alone."""
        folder = place / f"nothing-{self.name}"
        folder.mkdir()
        for name, text in _NOTHING.items():
            (folder / name).write_text(text)
        return Entrant("nothing", folder, 0, theirs.entry, theirs.python, settles=False)

    @abstractmethod
    def run(
        self, entrant: Entrant, bucket: str, environment: dict[str, str]
    ) -> contextlib.AbstractContextManager[Instance]:
        """Start the function."""

    def batched(self, entrant: Entrant) -> Entrant:
        """What takes a batch."""
        return entrant

    def _packaged(self, place: Path) -> tuple[Path, int]:
        """The archive, unpacked, and its size."""
        command = [sys.executable, "-m", "syncagent", "package", self.name, "-o", str(place / f"dist-{self.name}"), "--json"]  # fmt: skip
        told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        folder = place / f"ours-{self.name}"
        with ZipFile(told["archive"]) as archive:
            archive.extractall(folder)
        return folder, told["size"]


class Aws(Cloud):
    """Lambda's runtime client."""

    name = "aws"

    @contextlib.contextmanager
    def storage(self) -> Iterator[str]:
        import boto3
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        moto.start()
        host, port = moto.get_host_and_port()
        url = f"http://{host}:{port}"
        self._s3 = boto3.client("s3", endpoint_url=url, region_name="us-east-1")
        try:
            yield url
        finally:
            self._s3.close()
            moto.stop()

    def fill(self, url: str, bucket: str, keys: list[str]) -> None:
        self._s3.create_bucket(Bucket=bucket)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda key: self._s3.put_object(Bucket=bucket, Key=key, Body=b"x"), keys))

    def url(self, endpoint: str, bucket: str) -> str:
        return f"s3://{bucket}?endpoint={endpoint}&region=us-east-1"

    def ours(self, place: Path) -> list[Entrant]:
        return [Entrant("syncagent", *self._packaged(place), "lambda_function.lambda_handler")]

    def tutorial(self, place: Path) -> Entrant:
        folder = _installed("tutorial-1.126.5", DTLPY)
        (folder / "lambda_function.py").write_text(_LAMBDA)
        return Entrant("tutorial", folder, _zipped(place, folder), "lambda_function.lambda_handler")

    @contextlib.contextmanager
    def run(self, entrant: Entrant, bucket: str, environment: dict[str, str]) -> Iterator[Instance]:
        with lambda_api.Function(entrant.folder, entrant.entry, environment, timeout=TIMEOUT) as function:

            def tell(key: str) -> None:
                told = function.invoke(json.loads(notification(bucket, key)))
                if not told.ok:
                    raise SystemExit(f"{entrant.name}: {told.body}\n{''.join(function.log)}")

            def batch(keys: list[str]) -> None:
                records = [
                    {"messageId": key, "eventSource": "aws:sqs", "body": notification(bucket, key)}
                    for key in keys
                ]
                told = function.invoke({"Records": records})
                if told.body != {"batchItemFailures": []}:
                    raise SystemExit(f"the batch failed: {told.body}")

            yield Instance(function.started, function.process.pid, tell, batch)


class Google(Cloud):
    """Google's functions framework, in an environment that its build makes: packages compiled, the function's folder not.

    Its build compiles that folder too, but into files that say their sources' times, which the image loses.
    """

    name = "gcp"
    batches = False

    @contextlib.contextmanager
    def storage(self) -> Iterator[str]:
        with gcs.serving() as rig:
            yield rig.endpoint

    def fill(self, url: str, bucket: str, keys: list[str]) -> None:
        with httpx.Client(trust_env=False) as client:
            client.post(f"{url}/storage/v1/b?project=p", json={"name": bucket}).raise_for_status()
            for key in keys:
                given = {"uploadType": "media", "name": key}
                client.post(f"{url}/upload/storage/v1/b/{bucket}/o", params=given, content=b"x").raise_for_status()  # fmt: skip

    def url(self, endpoint: str, bucket: str) -> str:
        return f"gs://{bucket}?endpoint={endpoint}"

    def ours(self, place: Path) -> list[Entrant]:
        folder, size = self._packaged(place)
        python = functions_framework.installed(folder, place / "environment-gcp")
        return [
            Entrant("syncagent, push", folder, size, "push", python),
            Entrant("syncagent, create_gcs", folder, size, "create_gcs", python),
        ]

    def tutorial(self, place: Path) -> Entrant:
        home = ROOT / ".rigs/tutorial-gcp-1.126.5"
        python = functions_framework.environment(home, [DTLPY, "functions-framework"])
        site = next((home / "lib").glob("python*/site-packages"))
        folder = place / "tutorial-gcp"
        folder.mkdir()
        (folder / "main.py").write_text(_GOOGLE)
        return Entrant("tutorial", folder, _zipped(place, site, folder), "create_gcs", python)

    @contextlib.contextmanager
    def run(self, entrant: Entrant, bucket: str, environment: dict[str, str]) -> Iterator[Instance]:
        assert entrant.python is not None
        pushed = entrant.entry == "push"
        signature = "http" if pushed else "event"
        function = functions_framework.Function(
            entrant.python, entrant.folder, entrant.entry, signature, environment
        )
        with function:

            def tell(key: str) -> None:
                told = function.post(_message(bucket, key) if pushed else _background(bucket, key))
                if not told.is_success:
                    raise SystemExit(f"{entrant.name}: {told.status_code}\n{''.join(function.log)}")

            def batch(keys: list[str]) -> None:
                raise SystemExit("Google brings each event alone")

            yield Instance(function.started, function.process.pid, tell, batch)


class Azure(Cloud):
    """The library of Microsoft's image, without the host before it."""

    name = "azure"

    @contextlib.contextmanager
    def storage(self) -> Iterator[str]:
        with azurite() as rig:
            self._service = rig.service
            yield rig.endpoint

    def fill(self, url: str, bucket: str, keys: list[str]) -> None:
        container = self._service.create_container(bucket, public_access="container")
        for key in keys:
            container.upload_blob(key, b"x")

    def url(self, endpoint: str, bucket: str) -> str:
        # Between has no path of its own, and the emulator has the account there.
        return f"az://devstoreaccount1/{bucket}?endpoint={endpoint}&anonymous=yes"

    def ours(self, place: Path) -> list[Entrant]:
        folder, size = self._packaged(place)
        return [
            Entrant("syncagent, queue", folder, size, "on_queue", environment={"SYNCAGENT_WIRING": "queue"}),
            Entrant(
                "syncagent, blob trigger", folder, size, "main", environment={"SYNCAGENT_WIRING": "blob"}
            ),
        ]

    def batched(self, entrant: Entrant) -> Entrant:
        return Entrant(
            "syncagent, webhook", entrant.folder, entrant.size, "webhook", environment={"SYNCAGENT_WIRING": "webhook"}
        )  # fmt: skip

    def tutorial(self, place: Path) -> Entrant:
        packages = _installed("tutorial-azure-1.126.5", DTLPY, "azure-functions==1.26.0")
        folder = place / "tutorial-azure"
        (folder / ".python_packages/lib").mkdir(parents=True)
        (folder / ".python_packages/lib/site-packages").symlink_to(packages)
        (folder / "function_app.py").write_text(_AZURE)
        (folder / "host.json").write_bytes((ROOT / "deploy/azure/host.json").read_bytes())
        return Entrant("tutorial", folder, _zipped(place, packages, folder), "main")

    @contextlib.contextmanager
    def run(self, entrant: Entrant, bucket: str, environment: dict[str, str]) -> Iterator[Instance]:
        with azure_functions.FunctionApp(entrant.folder, environment, timeout=TIMEOUT) as app:
            if app.error is not None:
                raise SystemExit(f"{entrant.name}: {app.error}")

            def invoke(value: Any, **more: Any) -> Any:
                told = app.invoke(entrant.entry, value, **more)
                if not told.ok:
                    raise SystemExit(f"{entrant.name}: {told.error}\n{''.join(app.log)}")
                return told.value

            def tell(key: str) -> None:
                if entrant.entry == "on_queue":
                    invoke(json.dumps(_grid(bucket, key)))
                else:
                    told = {"BlobTrigger": f"{bucket}/{key}", "Uri": _address(bucket, key), "Properties": {"Length": 1}}  # fmt: skip
                    invoke("x", kind="bytes", metadata=told)

            def batch(keys: list[str]) -> None:
                body = json.dumps([_grid(bucket, key) for key in keys])
                request = {"method": "POST", "url": "https://f/api/webhook", "headers": {}, "body": body}
                if invoke(request, kind="http")["status"] != 200:
                    raise SystemExit("the batch failed")

            yield Instance(app.started, app.process.pid, tell, batch)


CLOUDS: dict[str, type[Cloud]] = {one.name: one for one in (Aws, Google, Azure)}


def _background(bucket: str, key: str) -> dict[str, Any]:
    """As the first generation posts it to its containers."""
    resource = {
        "service": "storage.googleapis.com", "type": "storage#object", "name": f"projects/_/buckets/{bucket}/objects/{key}",
    }  # fmt: skip
    context = {
        "eventId": "1", "timestamp": "2026-11-25T00:00:00.000Z", "eventType": "google.storage.object.finalize",
        "resource": resource,
    }  # fmt: skip
    return {"context": context, "data": {"bucket": bucket, "name": key, "generation": "1", "size": "1"}}


def _message(bucket: str, key: str) -> dict[str, Any]:
    """As Pub/Sub pushes what a bucket's notification told it."""
    attributes = {
        "eventType": "OBJECT_FINALIZE", "payloadFormat": "NONE", "bucketId": bucket, "objectId": key, "objectGeneration": "1",
        "eventTime": "2026-11-25T00:00:00.123456Z",
    }  # fmt: skip
    return {
        "message": {"attributes": attributes, "messageId": "1"},
        "subscription": "projects/p/subscriptions/s",
    }


def _grid(bucket: str, key: str) -> dict[str, Any]:
    """In Event Grid's own schema."""
    return {
        "id": "831e1650-001e-001b-66ab-eeb76e069631", "eventType": "Microsoft.Storage.BlobCreated",
        "topic": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/devstoreaccount1",
        "subject": f"/blobServices/default/containers/{bucket}/blobs/{key}", "eventTime": "2026-11-25T00:00:00.1234567Z",
        "data": {"api": "PutBlob", "url": _address(bucket, key), "contentLength": 1}, "dataVersion": "", "metadataVersion": "1",
    }  # fmt: skip


def _address(bucket: str, key: str) -> str:
    return f"https://devstoreaccount1.blob.core.windows.net/{bucket}/{key}"


def _installed(name: str, *packages: str) -> Path:
    """A folder with packages and their compiled files, made once."""
    folder = ROOT / ".rigs" / name
    if not (folder / ".done").exists():
        print(f"installing {packages[0]} into .rigs/{name} (once) ...", file=sys.stderr)
        command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder), "--upgrade", *packages]  # fmt: skip
        subprocess.run(command, check=True)
        (folder / ".done").touch()
    return folder


def _zipped(place: Path, *folders: Path) -> int:
    """The size of a zip of all their files, without compiled ones: what the tutorial's reader uploads, or the cloud's build makes of it."""
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    write_zip(place / "tutorial.zip", files)
    return (place / "tutorial.zip").stat().st_size
