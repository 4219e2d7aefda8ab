"""ministack, a second AWS: its bucket events have sequencers, versions and delete markers. One a session, in a process of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from syncagent.model import Integration
from tests.rigs.gcs import free_port

RIGS = Path(__file__).resolve().parents[2] / ".rigs"
KEYS = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}


class AwsRig:
    """A running server: buckets, queues, and events from the ones to the others."""

    def __init__(self, endpoint: str) -> None:
        import boto3

        self.endpoint = endpoint
        self.integration = Integration("test", "s3", {"key": "testing", "secret": "testing"})
        self.s3, self.sqs, self.sns = (
            boto3.client(service, endpoint_url=endpoint, **KEYS) for service in ("s3", "sqs", "sns")
        )

    def wired(
        self,
        *,
        versioned: bool = False,
        events: tuple[str, ...] = ("s3:ObjectCreated:*", "s3:ObjectRemoved:*"),
    ) -> tuple[str, str]:
        """A fresh bucket, and the queue that its events go to: their names."""
        name = f"bucket-{uuid.uuid4().hex[:20]}"
        self.s3.create_bucket(Bucket=name)
        if versioned:
            self.s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        queue = self.queue(name)
        arn = self.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"][
            "QueueArn"
        ]
        self.s3.put_bucket_notification_configuration(
            Bucket=name,
            NotificationConfiguration={"QueueConfigurations": [{"QueueArn": arn, "Events": list(events)}]},
        )
        return name, name

    def queue(self, name: str) -> str:
        """A fresh queue; its URL."""
        return str(self.sqs.create_queue(QueueName=name)["QueueUrl"])

    def queue_url(self, name: str, hold: int = 30) -> str:
        """As `open_queue` takes it."""
        return f"sqs://{name}?endpoint={self.endpoint}&region=us-east-1&hold={hold}"

    def close(self) -> None:
        for client in (self.s3, self.sqs, self.sns):
            client.close()


@contextlib.contextmanager
def serving() -> Iterator[AwsRig]:
    """Start it on a free loopback port; stop it by its process id."""
    program = RIGS / "ministack/bin/ministack"
    if not program.exists():
        pytest.fail("ministack is not there: run scripts/rigs.sh")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="ministack-", ignore_cleanup_errors=True) as scratch:
        env = {
            "PATH": os.environ["PATH"], "BIND_HOST": "127.0.0.1", "MINISTACK_HOST": "127.0.0.1", "GATEWAY_PORT": str(port),
            "SERVICES": "s3,sqs,sns,sts,iam,events,secretsmanager", "SFTP_ENABLED": "0", "LOG_LEVEL": "ERROR", "TMPDIR": scratch,
        }  # fmt: skip
        process = subprocess.Popen(
            [str(program)], env=env, cwd=scratch, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        endpoint = f"http://127.0.0.1:{port}"
        try:
            for _ in range(300):
                with contextlib.suppress(httpx.HTTPError):
                    if httpx.get(f"{endpoint}/_ministack/health").is_success:
                        break
                time.sleep(0.1)
            else:
                pytest.fail("ministack did not start")
            rig = AwsRig(endpoint)
            yield rig
            rig.close()
        finally:
            process.terminate()
            process.wait()


@pytest.fixture(scope="session")
def aws_rig() -> Iterator[AwsRig]:
    """ministack. It is installed by scripts/rigs.sh."""
    with serving() as rig:
        yield rig
