"""Google's template: what it says holds together, and it grants no more than is needed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from syncagent.drivers.wiring import DELIVERIES, name_of
from syncagent.handlers import gcs_events
from syncagent.packaging.targets import GCP
from tests.rigs import terraform

ROOT = Path(__file__).parents[2]
TEMPLATE = GCP.folder / GCP.template
Json = dict[str, Any]
OBJECTS, EVERYTHING = "google_storage_bucket_iam_member", "google_project_iam_member"


@pytest.fixture(scope="module")
def told() -> Json:
    return terraform.read(TEMPLATE)


@pytest.fixture(scope="module")
def resources(told: Json) -> dict[str, Json]:
    return terraform.resources(told)


@pytest.fixture(scope="module")
def variables(told: Json) -> dict[str, Json]:
    return terraform.variables(told)


def texts(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield name  # of a map: may be an expression
            yield from texts(value)
    elif isinstance(node, list):
        for one in node:
            yield from texts(one)
    elif isinstance(node, str):
        yield node


def expressions(node: Any) -> str:
    """All that is evaluated, in one text: without what only looks like it in a text."""
    return "\n".join(found for text in texts(node) for found in re.findall(r"\$\{(.*)\}", text, re.DOTALL))


def text(value: Any) -> str:
    return str(value).strip('"')


def test_every_reference_leads_to_something(
    told: Json, resources: dict[str, Json], variables: dict[str, Json]
) -> None:
    used = expressions({name: value for name, value in told.items() if name != "variable"})
    locals_ = told["locals"][0]
    data = {f"data.{kind}.{name}" for one in told["data"] for kind, named in one.items() for name in named}
    assert set(re.findall(r"\bvar\.(\w+)", used)) == set(variables), "all are there, and all are used"
    assert set(re.findall(r"\blocal\.(\w+)", used)) == set(locals_)
    assert set(re.findall(r"\bdata\.\w+\.\w+", used)) == data
    named = set(re.findall(r"(?<!data\.)\b(google_\w+\.\w+)", used))
    assert named, used
    assert named <= set(resources), named - set(resources)


def test_what_is_counted_is_used_by_its_number_and_by_those_only_that_are_counted_alike(
    resources: dict[str, Json],
) -> None:
    for name, body in resources.items():
        for other, number in re.findall(r"(?<!data\.)\b(google_\w+\.\w+)(\[0\])?", expressions(body)):
            counted = resources[other].get("count")
            waits = other in json.dumps(body.get("depends_on", [])) and number == ""
            assert bool(number) is bool(counted) or waits, f"{name}: {other}"
            if number:
                assert body.get("count") == counted, f"{name}: {other}"


def test_nothing_needs_itself(resources: dict[str, Json]) -> None:
    needs = {
        name: set(re.findall(r"(?<!data\.)\b(google_\w+\.\w+)", expressions(body)))
        for name, body in resources.items()
    }
    done: set[str] = set()
    while ready := {name for name, wanted in needs.items() if name not in done and wanted <= done}:
        done |= ready
    assert done == set(needs)


def test_variables_are_described_and_what_they_take_is_said(variables: dict[str, Json]) -> None:
    assert list(variables) == [
        "bucket", "prefix", "catalog", "account", "dataset", "wiring", "concurrency", "name", "project", "region", "python",
        "memory", "log_days", "alarm_channel",
    ]  # fmt: skip
    for name, body in variables.items():
        assert text(body["description"]).endswith("."), name
        assert body["type"] in {"string", "number"}, name
        for one in body.get("validation", []):
            assert f"var.{name}" in one["condition"], name
            assert text(one["error_message"]), name
    asked = {name for name, body in variables.items() if "default" not in body}
    assert asked == {"bucket", "account", "project", "region"}


def test_variables_are_the_other_clouds_parameters(variables: dict[str, Json]) -> None:
    text = (ROOT / "deploy/aws/template.yaml").read_text()
    theirs = re.findall(r"^  (\w+):\n    Type: ", text.partition("\nConditions:")[0], re.MULTILINE)
    assert len(theirs) >= 8
    renamed = {"alarm_topic": "alarm_channel"}
    names = (re.sub(r"(?<=[a-z])([A-Z])", r"_\1", name).lower() for name in theirs)
    assert {renamed.get(name, name) for name in names} - {"architecture"} <= set(variables)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("bucket", ["my-photos", "media.example.com", "a_b-c"], ["gs://my-photos", "My", "ab/c", "a"]),
        ("catalog", ["dataloop+https://gate.dataloop.ai", "dataloop+http://10.0.0.1:8000"], ["https://host", "dataloop+ftp://x"]),
        ("account", ["my-project/syncagent-photos", "example.com:p/s"], ["syncagent-photos", "projects/p/secrets/s", "p/"]),
        ("name", ["syncagent", "syncagent-photos"], ["sync", "Syncagent", "syncagent-", "9syncagent", "s" * 25]),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_before_anything_is_made(
    variables: dict[str, Json], name: str, good: list[str], bad: list[str]
) -> None:
    (rule,) = variables[name]["validation"]
    found = re.search(r'regex\("(.*)", var\.', rule["condition"])
    assert found, rule
    pattern = re.compile(found[1].replace("\\\\", "\\"))
    assert all(pattern.search(one) for one in good)
    assert not any(pattern.search(one) for one in bad)


def test_pythons_are_those_that_archives_are_made_for(variables: dict[str, Json]) -> None:
    (rule,) = variables["python"]["validation"]
    assert re.findall(r'"([\d.]+)"', rule["condition"]) == list(GCP.glibc)


def test_it_grants_what_is_needed_and_no_more(resources: dict[str, Json]) -> None:
    granted = {
        (kind, name): (text(body["role"]), body["member"])
        for (kind, name), body in ((tuple(one.split(".")), body) for one, body in resources.items())
        if "_iam_" in kind
    }
    function, caller = (
        "${google_service_account.function.member}",
        "${google_service_account.caller.member}",
    )
    assert granted == {
        (OBJECTS, "may_read"): ("roles/storage.objectViewer", function),
        ("google_secret_manager_secret_iam_member", "may_know"): ("roles/secretmanager.secretAccessor", function),
        ("google_cloud_run_service_iam_member", "may_call"): ("roles/run.invoker", caller),
        ("google_pubsub_topic_iam_member", "may_fill"): ("roles/pubsub.publisher", "${local.storage}"),
        ("google_pubsub_topic_iam_member", "may_bury"): ("roles/pubsub.publisher", "${local.pubsub}"),
        ("google_pubsub_subscription_iam_member", "may_take"): ("roles/pubsub.subscriber", "${local.pubsub}"),
        (EVERYTHING, "may_receive"): ("roles/eventarc.eventReceiver", caller),
        (EVERYTHING, "may_tell"): ("roles/pubsub.publisher", "${local.storage}"),
        (EVERYTHING, "may_build"): ("${each.key}", "${google_service_account.builder.member}"),
    }  # fmt: skip
    assert re.findall(r'"(.*?)"', resources[f"{EVERYTHING}.may_build"]["for_each"]) == [
        "roles/artifactregistry.writer", "roles/logging.logWriter", "roles/storage.objectViewer",
    ]  # fmt: skip
    for name in ("may_receive", "may_tell"):
        assert "local.directly" in resources[f"{EVERYTHING}.{name}"]["count"], "a queue needs neither"


def test_a_prefix_narrows_what_may_be_read_but_not_listing(told: Json, resources: dict[str, Json]) -> None:
    (dynamic,) = resources[f"{OBJECTS}.may_read"]["dynamic"]
    condition = dynamic["condition"]
    assert condition["for_each"] == '${var.prefix == "" ? [] : [local.readable]}'
    assert told["locals"][0]["readable"] == '"projects/_/buckets/${var.bucket}/objects/${var.prefix}"'
    assert "storage.googleapis.com/Bucket" in condition["content"][0]["expression"]


def test_the_function_is_the_archives(resources: dict[str, Json]) -> None:
    function = resources["google_cloudfunctions2_function.function"]
    (build,), (service,) = function["build_config"], function["service_config"]
    assert re.findall(r'"(\w+)"', build["entry_point"]) == ["push", "on_event"]
    code = (GCP.folder / "main.py").read_text()
    assert "push = functions_framework.http(" in code
    assert "on_event = functions_framework.cloud_event(" in code
    assert build["environment_variables"] == {"GOOGLE_VENDOR_PIP_DEPENDENCIES": '"wheels"'}
    assert "event_trigger" not in function
    variables = service["environment_variables"]
    for name in ("SYNCAGENT_CATALOG", "DTLPY_USERNAME", "DTLPY_PASSWORD", "DATASET_ID"):
        assert name in variables, name
    assert "#username" in variables
    assert "#password" in variables
    assert service["timeout_seconds"] == 120
    archive = resources["google_storage_bucket_object.archive"]
    assert "syncagent-gcp.zip" in archive["source"]
    assert "filemd5" in archive["name"], "a new archive is noticed"


def test_a_message_is_tried_long_and_then_kept(resources: dict[str, Json]) -> None:
    events = resources["google_pubsub_subscription.events"]
    (policy,) = events["dead_letter_policy"]
    assert policy["max_delivery_attempts"] == DELIVERIES
    assert policy["dead_letter_topic"] == "${google_pubsub_topic.dead_letters[0].id}"
    service = resources["google_cloudfunctions2_function.function"]["service_config"][0]
    assert events["ack_deadline_seconds"] > service["timeout_seconds"], (
        "it must not come again while it is worked on"
    )
    for name in ("events", "dead_letters"):
        subscription = resources[f"google_pubsub_subscription.{name}"]
        assert subscription["expiration_policy"] == [{"ttl": '""'}]
        assert subscription["message_retention_duration"] == '"604800s"'


def test_bind_finds_what_the_template_made(told: Json, resources: dict[str, Json]) -> None:
    """The names of `syncagent.drivers.gcs_wiring`: the topic's, the subscription's, those of the dead letters."""
    assert name_of("photos", longest=250) == "syncagent-photos"
    for kind in ("topic", "subscription"):
        assert resources[f"google_pubsub_{kind}.events"]["name"] == "${var.name}"
        assert resources[f"google_pubsub_{kind}.dead_letters"]["name"] == "${local.dead_name}"
    assert told["locals"][0]["dead_name"] == '"${var.name}-dead"'


def test_eventarc_tells_of_all_that_items_depend_on(resources: dict[str, Json]) -> None:
    trigger = resources["google_eventarc_trigger.trigger"]
    told = {f"google.cloud.storage.object.v1.{one}" for one in re.findall(r'"(\w+)"', trigger["for_each"])}
    assert told == {one for one in gcs_events.NAMES if one.startswith("google.cloud.storage.object.v1.")}
    assert told


def test_alarms(resources: dict[str, Json]) -> None:
    found = {name.rpartition(".")[2]: body for name, body in resources.items() if "alert_policy" in name}
    metrics = {}
    for name, body in found.items():
        assert body["notification_channels"] == "${local.told}"
        assert ("count" in body) is (name != "errors"), "without a queue there is nothing that waits"
        (condition,) = body["conditions"]
        metrics[name] = re.search(
            r'metric\.type=\\"([^"\\]+)', condition["condition_threshold"][0]["filter"]
        )[1]  # type: ignore[index]
    assert metrics == {
        "late": "pubsub.googleapis.com/subscription/oldest_unacked_message_age",
        "errors": "run.googleapis.com/request_count",
        "dead": "pubsub.googleapis.com/subscription/num_undelivered_messages",
    }
