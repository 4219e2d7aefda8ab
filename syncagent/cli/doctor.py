"""doctor: what do these credentials allow on this bucket, and what is missing?"""

from __future__ import annotations

import io
import json
import secrets
import sys
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

import click

from syncagent.cli import output
from syncagent.cli.browse import describe_scope
from syncagent.cli.root import integration_option, option, with_agent
from syncagent.errors import AccessDenied, SyncAgentError
from syncagent.model import DriverSpec, ObjectInfo, Scope

if TYPE_CHECKING:
    from syncagent.agent import Agent
    from syncagent.drivers import Bucket

_COUNT = 1000
_SAMPLES = 5
_AZURE_ROLE = "Storage Blob Data "


@click.command()
@click.argument("target")
@integration_option
@option("--put", is_flag=True, help="Also store a small object of its own.")
@option("--delete", is_flag=True, help="Also delete that object again.")
@with_agent
def doctor(agent: Agent, target: str, integration: str | None, put: bool, delete: bool) -> int:
    """Test what is allowed on a bucket, one permission at a time."""
    spec = agent.spec(target, integration)
    try:
        bucket = agent.bucket(spec)
    except SyncAgentError as error:
        return _failed(spec, "open", error)
    sys.stdout.write(f"{describe_scope(bucket)}\n")
    tests = _Tests(bucket)
    tests.run("list", tests.list)
    tests.run("get", tests.get)
    if put or delete:
        tests.run("put", tests.put)
    if delete:
        tests.run("delete", tests.delete)
    return tests.code


class _NotTestedError(Exception):
    pass


def _failed(spec: DriverSpec, name: str, error: SyncAgentError) -> int:
    """The line of a failure, with the policy to add where a permission is missing; returns its exit code."""
    sys.stdout.write(f"FAIL  {name}: {error}\n")
    if isinstance(error, AccessDenied) and error.permission:
        sys.stdout.write(policy(spec, name, error.permission) + "\n")
    return error.exit_code


class _Tests:
    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._found: list[ObjectInfo] = []
        self._probe = f".syncagent-doctor-{secrets.token_hex(6)}"
        self._stored = False
        self.code = 0

    def run(self, name: str, test: Callable[[], str]) -> None:
        """One line, `ok` or `FAIL`, or `-` for what could not be tried."""
        try:
            sys.stdout.write(f"ok    {name}: {test()}\n")
        except _NotTestedError as reason:
            sys.stdout.write(f"-     {name}: not tested: {reason}\n")
        except SyncAgentError as error:
            code = _failed(self._bucket.spec, name, error)
            self.code = self.code or code

    def list(self) -> str:
        pages = self._bucket.list()
        self._found = list(islice((found for page in pages for found in page), _COUNT))
        if not self._found:
            output.note("warning: no object matches; check the path, or ?scope=prefix for a plain prefix")
            return "0 objects"
        many = "or more " if len(self._found) == _COUNT else ""
        samples = "".join(f"\n      {output.printable(found.key)}" for found in self._found[:_SAMPLES])
        return f"{len(self._found)} {many}objects, such as{samples}"

    def get(self) -> str:
        if not self._found:
            raise _NotTestedError("there is no object to read")
        key = self._found[0].key
        self._bucket.stat(key)
        self._bucket.read_bytes(key, limit=1)
        return f"read {output.printable(key)}"

    def put(self) -> str:
        self._bucket.put(self._probe, io.BytesIO(b"syncagent doctor"))
        self._stored = True
        return f"stored {self._probe}"

    def delete(self) -> str:
        if not self._stored:
            raise _NotTestedError("nothing of its own was stored")
        # Its own object, whatever the driver's record says of everybody else's.
        self._bucket.driver.delete(self._bucket.full_key(self._probe))
        return f"deleted {self._probe}"


def policy(spec: DriverSpec, test: str, permission: str) -> str:
    """The text that grants what is missing, for the store's own tool."""
    bucket = spec.bucket
    if spec.type == "s3":
        below = f"{spec.path}/" if spec.path and spec.scope is Scope.FOLDER else spec.path
        resource = f"arn:aws:s3:::{bucket}" + ("" if test in ("open", "list") else f"/{below}*")
        statement = {"Effect": "Allow", "Action": permission, "Resource": resource}
        return f"      add to the IAM policy: {json.dumps(statement)}"
    if spec.type == "gcs":
        role = {"put": "objectCreator", "delete": "objectUser"}.get(test, "objectViewer")
        return (
            f"      gcloud storage buckets add-iam-policy-binding gs://{bucket}"
            f" --member=serviceAccount:NAME --role=roles/storage.{role}"
        )
    if spec.type == "azureblob":
        account, _, container = bucket.partition("/")
        role = _AZURE_ROLE + ("Reader" if test in ("open", "list", "get") else "Contributor")
        return (
            f'      az role assignment create --assignee ID --role "{role}" --scope'
            f" /subscriptions/ID/resourceGroups/NAME/providers/Microsoft.Storage/storageAccounts/{account}"
            f"/blobServices/default/containers/{container}"
        )
    return f"      grant {permission}: chmod, or another user"


COMMANDS = (doctor,)
