"""deploy/gcp: its README and its script typed word by word, with `gcloud` and `terraform` stood in for."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.rigs import gcloud, terraform
from tests.rigs.between import Between
from tests.rigs.fake_http import Answer, Request
from tests.rigs.functions_framework import Function
from tests.rigs.gcs import GcsRig
from tests.rigs.packages import Built, Shell, commands_of
from tests.rigs.pubsub import PubSub
from tests.rigs.server import EMAIL, PASSWORD, ServerRig
from tests.rigs.wiring import Notifications

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy/gcp"
BUCKET, PROJECT = "my-photos", "my-project"
TOPIC = f"projects/{PROJECT}/topics/syncagent-photos"


def environment(folder: Path, storage: str, **more: str) -> dict[str, str]:
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(folder), "PYTHONPATH": str(ROOT),
        "SYNCAGENT_HOME": str(folder / "home"), "GCLOUD_WORLD": str(folder), "STORAGE_EMULATOR_HOST": storage, **more,
    }  # fmt: skip


@pytest.fixture
def notifications() -> Notifications:
    return Notifications(BUCKET)


@pytest.fixture
def storage(gcs_rig: GcsRig, notifications: Notifications) -> Iterator[str]:
    """The emulator, and what it has not: notifications, and Google's own account."""

    def meddle(request: Request) -> Answer | None:
        theirs = (
            "/notificationConfigs" in request.path
            or "/projects/" in request.path
            or (request.method == "GET" and request.path == f"/storage/v1/b/{BUCKET}")
        )
        return notifications(request) if theirs else None

    with Between(gcs_rig.endpoint) as between:
        between.meddle = meddle
        yield between.url


def deliver(function: Function, there: dict[str, Any], key: str) -> int:
    """What Google does with an object: the bucket's notification tells the topic, whose subscription is pushed."""
    attributes = {
        "eventType": "OBJECT_FINALIZE", "bucketId": BUCKET, "objectId": key, "objectGeneration": "1",
        "payloadFormat": there["payload_format"], **there["custom_attributes"],
    }  # fmt: skip
    data = base64.b64encode(json.dumps({"bucket": BUCKET, "name": key}).encode()).decode()
    return function.post({"message": {"attributes": attributes, "data": data, "messageId": "1"}}).status_code


def test_the_readme_word_by_word(
    gcs_rig: GcsRig, own_server: ServerRig, pubsub_rig: PubSub, gcp_package: Built, gcp_python: Path, storage: str,
    notifications: Notifications, tmp_path: Path,
) -> None:  # fmt: skip
    url = f"{gcs_rig.endpoint}/storage/v1/b?project=p"
    httpx.post(url, json={"name": BUCKET}, trust_env=False).raise_for_status()
    (tmp_path / "old.txt").write_text("old")
    commands = commands_of(DEPLOY / "README.md")
    account = {"DTLPY_USERNAME": EMAIL, "DTLPY_PASSWORD": PASSWORD}
    mine = {"SYNCAGENT_CATALOG": f"dataloop+{own_server.url}", **account}
    given = environment(tmp_path, storage, PUBSUB_EMULATOR_HOST=f"127.0.0.1:{pubsub_rig.port}")
    function_settings = {
        **mine, "STORAGE_EMULATOR_HOST": storage, "SYNCAGENT_HOME": str(tmp_path / "function"), "SYNCAGENT_TEST_NO_BACKOFF": "1",
    }  # fmt: skip
    told: list[tuple[str, str]] = []
    installed = {"syncagent": {"gcs", "cli", "daemon"}}
    function = Function(gcp_python, gcp_package.unpacked, "push", "http", function_settings)
    with function, Shell(tmp_path, given, installed) as shell:
        python = shlex.quote(sys.executable)
        shell.tool("gcloud", f'exec {python} -m tests.rigs.gcloud "$@"')
        shell.tool("terraform", f'exec {python} -m tests.rigs.terraform "$@"')
        shell.has(gcp_package)
        first = next(n for n, command in enumerate(commands) if not command.startswith("export "))
        for command in commands[:first]:
            shell.run(command)
        # What a reader puts in place of the README's.
        shell.run("export " + " ".join(f"{name}={shlex.quote(value)}" for name, value in mine.items()))
        shell.run(f"gcloud storage cp old.txt gs://{BUCKET}/old.txt")
        for command in commands[first:]:
            told.append((command, shell.run(command)))
            if command.startswith("gcloud storage cp"):
                (there,) = notifications.of[BUCKET].values()
                assert there["topic"] == f"//pubsub.googleapis.com/{TOPIC}"
                pushed = pubsub_rig.subscriptions[TOPIC.replace("topics", "subscriptions")].push_config
                assert pushed.push_endpoint == gcloud.URL
                assert deliver(function, there, "hello.txt") == 204, function.log
    said = dict(told)
    assert {word for word in said["syncagent items photos"].split() if word.endswith(".txt")} == {"old.txt", "hello.txt"}  # fmt: skip
    assert json.loads((tmp_path / "secret.json").read_text()) == {"username": EMAIL, "password": PASSWORD}
    bound, unbound = (text for command, text in told if command.startswith("syncagent bind"))
    steps = [line for line in bound.splitlines() if line[:2] in {"+ ", "* ", "- ", "= "}]
    assert [line for line in steps if not line.startswith("= ")] == [f"+ notification of bucket {BUCKET}"], (
        "all else is what the template made"
    )
    assert len(steps) > 6
    assert [line for line in unbound.splitlines() if line.startswith(("+ ", "* ", "- "))] == [
        f"- notification 1 of bucket {BUCKET}"
    ], "what the template made is not bind's"
    assert notifications.of[BUCKET] == {}
    assert not (tmp_path / "terraform.json").exists(), "destroyed"
    assert PASSWORD not in "".join(text for _, text in told)


def calls(folder: Path) -> list[tuple[str, list[str], dict[str, str], int]]:
    return [tuple(json.loads(line)) for line in (folder / "gcloud.jsonl").read_text().splitlines()]


def test_the_script_makes_what_the_template_makes(gcp_package: Built, tmp_path: Path) -> None:
    given = environment(
        tmp_path, "http://127.0.0.1:9", BUCKET=BUCKET, REGION="europe-west1", GOOGLE_CLOUD_PROJECT=PROJECT,
        SYNCAGENT_CATALOG="dataloop+https://catalog.example.com",
    )  # fmt: skip
    run = f"{shlex.quote(str(DEPLOY / 'gcloud.sh'))} {shlex.quote(str(gcp_package.dist))} syncagent-photos"
    with Shell(tmp_path, given, {}) as shell:
        shell.tool("gcloud", f'exec {shlex.quote(sys.executable)} -m tests.rigs.gcloud "$@"')
        shell.run("echo '{}' | gcloud secrets create syncagent-photos --data-file=-")
        assert gcloud.URL in shell.run(run)
        once = calls(tmp_path)
        shell.run(run)
    again = calls(tmp_path)[len(once) :]
    assert not [command for command, *_ in again if command.endswith(" create")], "all is there already"
    accounts = {
        "function": "syncagent-photos", "caller": "syncagent-photos-call", "builder": "syncagent-photos-make",
    }  # fmt: skip
    meaning = {
        **{f"${{google_service_account.{name}.member}}": f"serviceAccount:{account}@{PROJECT}.iam.gserviceaccount.com"
           for name, account in accounts.items()},
        "${local.storage}": f"serviceAccount:service-{gcloud.NUMBER}@gs-project-accounts.iam.gserviceaccount.com",
        "${local.pubsub}": f"serviceAccount:service-{gcloud.NUMBER}@gcp-sa-pubsub.iam.gserviceaccount.com",
    }  # fmt: skip
    template = terraform.resources(terraform.read(DEPLOY / "main.tf"))
    wanted = set()
    for name, body in template.items():
        if "_iam_member." in name and "local.directly" not in str(body.get("count")):
            roles = re.findall(r'"(roles/.*?)"', str(body.get("for_each", body["role"])))
            wanted |= {(role, meaning[body["member"]]) for role in roles}
    granted = {
        (flags["role"], flags["member"]) for command, _, flags, _ in once if command.endswith("-binding")
    }
    assert granted == wanted
    (deployed,) = (flags for command, _, flags, _ in once if command == "functions deploy")
    function = template["google_cloudfunctions2_function.function"]["service_config"][0]
    assert deployed["runtime"] == f"python3{sys.version_info[1]}", "the archive's"
    assert deployed["entry-point"] == "push"
    assert deployed["timeout"] == f"{function['timeout_seconds']}s"
    assert int(deployed["concurrency"]) == function["max_instance_request_concurrency"]
    told = dict(one.split("=", 1) for one in deployed["set-env-vars"].split(","))
    assert told == {
        "SYNCAGENT_CATALOG": "dataloop+https://catalog.example.com",
        "DTLPY_USERNAME": f"gcp-secret://{PROJECT}/syncagent-photos#username",
        "DTLPY_PASSWORD": f"gcp-secret://{PROJECT}/syncagent-photos#password",
    }
    made = {names[0]: flags for command, names, flags, _ in once if command == "pubsub subscriptions create"}
    for name, resource in (("syncagent-photos", "events"), ("syncagent-photos-dead", "dead_letters")):
        body = template[f"google_pubsub_subscription.{resource}"]
        assert int(made[name]["ack-deadline"]) == body["ack_deadline_seconds"]
        assert made[name]["message-retention-duration"] == "7d"
        assert made[name]["expiration-period"] == "never"
    events = template["google_pubsub_subscription.events"]
    mine = made["syncagent-photos"]
    assert int(mine["max-delivery-attempts"]) == events["dead_letter_policy"][0]["max_delivery_attempts"]
    assert f'"{mine["min-retry-delay"]}"' == events["retry_policy"][0]["minimum_backoff"]
    assert f'"{mine["max-retry-delay"]}"' == events["retry_policy"][0]["maximum_backoff"]
    assert mine["push-endpoint"] == gcloud.URL


@pytest.mark.parametrize(
    "words",
    [
        "secret create x", "secrets create", "secrets create x --data=-", "pubsub topics create a b", "storage cp a",
        "pubsub subscriptions create x", "pubsub subscriptions create x --topic=t --ack-deadline=900", "functions deploy x --region=r",
        "secrets add-iam-policy-binding x --member=me --role=roles/storage.objectViewer", "functions describe x --region=r --gen2=yes",
    ],
)  # fmt: skip
def test_the_stand_in_for_gcloud_refuses_what_gcloud_refuses(words: str) -> None:
    with pytest.raises(AssertionError):
        gcloud.parsed(words.split())
