"""deploy/aws: its README typed word by word, against an AWS of this machine; its template checked."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import httpx
import pytest
import yaml

from syncagent.drivers.s3 import _ACTIONS
from tests.rigs.gcs import free_port
from tests.rigs.lambda_api import Function
from tests.rigs.packages import Built, Shell, commands_of
from tests.rigs.server import EMAIL, PASSWORD, ServerRig

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy/aws"
TOOLS = ROOT / ".rigs/aws/bin"
KEYS = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "eu-west-1"}


class Aws:
    """moto with CloudFormation; and Lambda, which it has no machine for, by the real runtime client."""

    def __init__(self, endpoint: str, folder: Path) -> None:
        self.endpoint, self._folder = endpoint, folder

    @contextlib.contextmanager
    def client(self, service: str) -> Iterator[Any]:
        import boto3

        with contextlib.closing(boto3.client(service, endpoint_url=self.endpoint, **KEYS)) as made:
            yield made

    def deliver(self, stack: str, artifacts: str) -> int:
        """Call the stack's function with what is in its queue, as Lambda does; how many messages are done."""
        with self.client("lambda") as functions, self.client("sqs") as sqs, self.client("s3") as s3:
            environment = functions.get_function(FunctionName=stack)["Configuration"]["Environment"][
                "Variables"
            ]
            (mapping,) = functions.list_event_source_mappings(FunctionName=stack)["EventSourceMappings"]
            name = mapping["EventSourceArn"].rpartition(":")[2]
            queue = sqs.get_queue_url(QueueName=name)["QueueUrl"]
            code = self._folder / "code"
            if not code.exists():
                (only,) = s3.list_objects_v2(Bucket=artifacts)["Contents"]
                s3.download_file(artifacts, only["Key"], str(self._folder / "code.zip"))
                with ZipFile(self._folder / "code.zip") as archive:
                    archive.extractall(code)
            found = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
            if not found:
                return 0
            environment |= {
                "AWS_ENDPOINT_URL": self.endpoint,
                "SYNCAGENT_HOME": str(self._folder / "function"),
            }
            with Function(code, "lambda_function.lambda_handler", environment) as function:
                records = [
                    {"messageId": one["MessageId"], "eventSource": "aws:sqs", "body": one["Body"]}
                    for one in found
                ]
                told = function.invoke({"Records": records})
                assert told.body == {"batchItemFailures": []}, function.log
            for one in found:
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=one["ReceiptHandle"])
            return len(found)


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Aws]:
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [str(TOOLS / "moto_server"), "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )  # fmt: skip
    try:
        for _ in range(300):
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{endpoint}/moto-api/").status_code:
                    break
            time.sleep(0.1)
        yield Aws(endpoint, tmp_path)
    finally:
        process.terminate()
        process.wait()


def test_the_readme_word_by_word(aws: Aws, own_server: ServerRig, aws_package: Built, tmp_path: Path) -> None:
    with aws.client("s3") as s3:
        for bucket in ("my-photos", "my-artifacts"):
            s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        s3.put_object(Bucket="my-photos", Key="old.txt", Body=b"old")
    commands = commands_of(DEPLOY / "README.md")
    exports = [command for command in commands if command.startswith("export ")]
    assert commands[: len(exports)] == exports
    mine = {
        "AWS_DEFAULT_REGION": "eu-west-1", "BUCKET": "my-photos", "ARTIFACTS": "my-artifacts", "DTLPY_USERNAME": EMAIL,
        "DTLPY_PASSWORD": PASSWORD, "SYNCAGENT_CATALOG": f"dataloop+{own_server.url}",
    }  # fmt: skip
    assert set(re.findall(r"([A-Z_]+)=", " ".join(exports))) == set(mine)
    given = {
        **mine, "PATH": f"{Path(sys.executable).parent}:{TOOLS}:{os.environ['PATH']}", "HOME": str(tmp_path),
        "AWS_ENDPOINT_URL": aws.endpoint, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing",
        "SYNCAGENT_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    told: dict[str, str] = {}
    with Shell(tmp_path, given, installed={"syncagent": {"s3", "cli"}, "awscli": set()}) as shell:
        shell.has(aws_package)
        for command in commands[len(exports) :]:
            # moto's first update of a stack stumbles over a rule whose condition is false.
            told[command] = shell.run(command, again_after="500 Internal Server Error")
            if command.startswith("aws s3 cp"):
                assert aws.deliver("syncagent-photos", "my-artifacts") == 2, (
                    "S3's test message, and the object's"
                )
    items = [line.split() for line in told["syncagent items photos"].splitlines()]
    assert {key for line in items for key in line if key.endswith(".txt")} == {"old.txt", "hello.txt"}
    assert "\n+ " in "\n" + told["syncagent bind photos"]
    assert "\n- " in "\n" + told["syncagent bind photos --unbind"]
    with aws.client("s3") as s3, aws.client("lambda") as functions:
        assert not s3.get_bucket_notification_configuration(Bucket="my-photos").get("QueueConfigurations")
        assert functions.list_functions()["Functions"] == []


# -- the template --------------------------------------------------------------------------------


def test_the_template_is_one() -> None:
    command = [str(TOOLS / "cfn-lint"), "--ignore-checks", "W3002", "--", str(DEPLOY / "template.yaml")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False
    )  # W3002: 'package' replaces the path
    assert (done.returncode, done.stdout) == (0, "")


class _Yaml(yaml.SafeLoader):
    """CloudFormation's short forms, as text."""


_Yaml.add_multi_constructor("!", lambda loader, tag, node: f"!{tag} {node.value}")
TEMPLATE: dict[str, Any] = yaml.load(
    (DEPLOY / "template.yaml").read_text(),
    _Yaml,  # noqa: S506  # a safe loader, with one more constructor
)
RESOURCES: dict[str, Any] = TEMPLATE["Resources"]


def test_the_role_may_do_what_doctor_asks_for_and_nothing_else_with_the_bucket() -> None:
    text = (DEPLOY / "template.yaml").read_text()
    assert set(re.findall(r"\b(s3:\w+)", text)) == {_ACTIONS[one] for one in ("list", "head", "get")}
    statements = RESOURCES["Role"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
    assert all("*" not in str(one["Action"]) for one in statements)
    assert all(str(one["Resource"]) != "*" for one in statements)


def test_what_fails_is_kept_and_tried_as_often_as_the_docs_say() -> None:
    queue = RESOURCES["Events"]["Properties"]
    timeout = RESOURCES["Function"]["Properties"]["Timeout"]
    assert queue["VisibilityTimeout"] >= 6 * timeout
    # A failed message is seen again after the visibility timeout: a catalog that is away for half a day buries nothing.
    assert queue["RedrivePolicy"]["maxReceiveCount"] * queue["VisibilityTimeout"] > 12 * 3600
    assert RESOURCES["DeadLetters"]["Properties"]["MessageRetentionPeriod"] == 14 * 24 * 3600
    assert RESOURCES["FromQueue"]["Properties"]["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert (
        RESOURCES["Failures"]["Properties"]["DestinationConfig"]["OnFailure"]["Destination"]
        == "!GetAtt DeadLetters.Arn"
    )


def test_alarms_logs_and_concurrency() -> None:
    metrics = {
        one["Properties"]["MetricName"]
        for one in RESOURCES.values()
        if one["Type"] == "AWS::CloudWatch::Alarm"
    }
    assert metrics == {"ApproximateAgeOfOldestMessage", "Errors", "ApproximateNumberOfMessagesVisible"}
    assert RESOURCES["Logs"]["Properties"]["RetentionInDays"] == "!Ref LogDays"
    assert RESOURCES["Function"]["Properties"]["ReservedConcurrentExecutions"] == "!Ref Concurrency"


def test_what_the_archive_decides_is_no_parameter() -> None:
    """`aws cloudformation deploy` keeps the old value of a parameter that is not named, and a new archive may be for another Python."""
    function = RESOURCES["Function"]["Properties"]
    assert re.fullmatch(r"python3\.\d+", function["Runtime"])
    assert [re.fullmatch(r"arm64|x86_64", one)[0] for one in function["Architectures"]]


def test_no_secret_in_the_template() -> None:
    variables = RESOURCES["Function"]["Properties"]["Environment"]["Variables"]
    assert all(
        str(variables[name]).startswith("!Sub aws-secret://") for name in ("DTLPY_USERNAME", "DTLPY_PASSWORD")
    )
    assert json.dumps(TEMPLATE).count("password") == 2, "the parameter's description, and the reference"


def test_every_parameter_is_described_and_used() -> None:
    text = (DEPLOY / "template.yaml").read_text()
    grouped = [
        name
        for group in TEMPLATE["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
        for name in group["Parameters"]
    ]
    assert sorted(grouped) == sorted(TEMPLATE["Parameters"])
    for name, parameter in TEMPLATE["Parameters"].items():
        assert parameter["Description"].endswith("."), name
        assert re.search(rf"!Ref {name}\b|\$\{{{name}\}}|\[!Ref {name},|!Equals \[!Ref {name}\b", text), name
