"""deploy/azure: its README typed word by word, `az` stood in for; its template checked, as far as that goes without Azure."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from syncagent.drivers import azure_wiring
from syncagent.drivers.wiring import DELIVERIES, KEPT_DAYS
from syncagent.packaging import Target
from syncagent.packaging.targets import AZURE
from tests.rigs.arm import Template, value
from tests.rigs.az import deployed
from tests.rigs.azure import DEV_KEY, AzureRig
from tests.rigs.azure_functions import FunctionApp
from tests.rigs.fake_http import FakeHttp
from tests.rigs.packages import Built, Shell, commands_of
from tests.rigs.server import EMAIL, PASSWORD, ServerRig

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy/azure"


# -- the README ----------------------------------------------------------------------------------


def deliver(world: dict[str, Any], folder: Path, key: str) -> None:
    """What Azure does with an object's event: Event Grid's message, to the function with the settings that the template gives it."""
    settings = dict(world["stack"]["settings"])
    secret = json.dumps({"value": world["secrets"]["syncagent-photos"]}).encode()
    with FakeHttp(lambda _: (200, {"Content-Type": "application/json"}, secret)) as vault:
        for name in ("DTLPY_USERNAME", "DTLPY_PASSWORD"):  # the vault is on this machine
            settings[name] = settings[name].replace("#", f"?endpoint={vault.url}#")
        settings |= {"SYNCAGENT_HOME": str(folder / "function"), "SYNCAGENT_TEST_NO_BACKOFF": "1"}
        event = {
            "id": "1", "eventType": "Microsoft.Storage.BlobCreated", "eventTime": "2026-11-25T00:00:00.1Z",
            "topic": f"/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/{world['account']}",
            "subject": f"/blobServices/default/containers/{world['container']}/blobs/{key}",
            "data": {"url": f"https://{world['account']}.blob.core.windows.net/{world['container']}/{key}"},
        }  # fmt: skip
        with FunctionApp(folder / f"code-{world['code']}", settings) as app:
            assert list(app.functions) == ["on_queue"], app.error
            told = app.invoke("on_queue", base64.b64encode(json.dumps(event).encode()).decode())
            assert told.ok, told.error


def test_the_readme_word_by_word(
    azure_rig: AzureRig, own_server: ServerRig, azure_package: Built, tmp_path: Path
) -> None:
    container = azure_rig.service.create_container("photos-of-the-readme", public_access="container")
    container.upload_blob("old.txt", b"old")
    commands = commands_of(DEPLOY / "README.md")
    exports = [command for command in commands if command.startswith("export ")]
    assert commands[: len(exports)] == exports
    mine = {
        "GROUP": "my-group", "VAULT": "my-vault", "ACCOUNT": "devstoreaccount1", "CONTAINER": container.container_name,
        "SYNCAGENT_CATALOG": f"dataloop+{own_server.url}", "DTLPY_USERNAME": EMAIL, "DTLPY_PASSWORD": PASSWORD,
    }  # fmt: skip
    assert set(re.findall(r"([A-Z_]+)=", " ".join(exports))) == set(mine)
    state = tmp_path / "az.json"
    state.write_text(
        json.dumps(
            {
                "group": "my-group", "vault": "my-vault", "account": "devstoreaccount1", "container": container.container_name,
                "blobs": azure_rig.endpoint, "key": DEV_KEY,
            }
        )
    )  # fmt: skip
    given = {
        **mine, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT),
        "SYNCAGENT_HOME": str(tmp_path / "home"), "AZ_WORLD": str(tmp_path),
    }  # fmt: skip
    told: dict[str, str] = {}
    with Shell(tmp_path, given, installed={"syncagent": {"azure", "cli"}, "azure-cli": set()}) as shell:
        python = shlex.quote(sys.executable)
        shell.tool("az", f'exec {python} -m tests.rigs.az "$@"')
        shell.has(azure_package)
        for command in commands[len(exports) :]:
            # The address of the one thing that is elsewhere here: the account, whose emulator knows no identities.
            there = f"?endpoint={azure_rig.endpoint}&anonymous=yes"
            typed = command.replace('"az://$ACCOUNT/$CONTAINER"', f'"az://$ACCOUNT/$CONTAINER{there}"')
            told[command] = shell.run(typed)
            if command.startswith("az storage blob upload"):
                world = json.loads(state.read_text())
                assert world["events"] == ["hello.txt"]
                deliver(world, tmp_path, "hello.txt")
    listed = told["syncagent items photos"].split()
    assert {word for word in listed if word.endswith(".txt")} == {"old.txt", "hello.txt"}
    world = json.loads(state.read_text())
    assert world["code"] == 2, "deployed, and deployed again"
    assert "stack" not in world, "removed"
    assert world["secrets"] == {}
    assert PASSWORD not in "".join(told.values())


def test_the_stand_in_for_az_refuses_what_az_refuses() -> None:
    from tests.rigs.az import parsed

    assert parsed(["login"]) == ("login", {})
    for words in (
        "stack group make --name x", "login --name x", "keyvault secret delete --name x", "storage blob upload --file f --auth-mode none",
        "stack group show --name --resource-group g", "extension add x --name y",
    ):  # fmt: skip
        with pytest.raises(AssertionError):
            parsed(words.split())


# -- the template --------------------------------------------------------------------------------

TEXT = (DEPLOY / "main.bicep").read_text()
# https://learn.microsoft.com/azure/role-based-access-control/built-in-roles
ROLES = {
    "blobReader": ("Storage Blob Data Reader", "2a2b9908-6ea1-4ae2-8e65-a410df84e7d1"),
    "blobContributor": ("Storage Blob Data Contributor", "ba92f5b4-2d11-453d-a403-e96b0029c9fe"),
    "blobOwner": ("Storage Blob Data Owner", "b7e6dc6d-f1e8-4753-8033-0f276bb0955b"),
    "queueContributor": ("Storage Queue Data Contributor", "974c5e8b-45b9-4653-ba55-5f855dd0fb88"),
    "queueSender": ("Storage Queue Data Message Sender", "c6a89b2d-59bc-44d0-9896-0f6e12d7b80a"),
    "secretsUser": ("Key Vault Secrets User", "4633458b-17de-408a-b874-0445c86b69e6"),
    "metricsPublisher": ("Monitoring Metrics Publisher", "3913510d-42f4-4e42-8a64-420c390055eb"),
}
GIVEN = {"bucket": "myphotos/photos", "account": "my-vault/syncagent-photos", "name": "syncagent-photos"}


@cache
def template() -> Template:
    return Template(DEPLOY / "main.bicep")


def test_the_template_is_bicep() -> None:
    assert [one.text for one in template().tree.find("ERROR", "MISSING")] == []


def test_what_is_no_bicep_is_found(tmp_path: Path) -> None:
    (tmp_path / "broken.bicep").write_text(
        TEXT.replace("param dataset string = ''", "param dataset string = '")
    )
    assert Template(tmp_path / "broken.bicep").tree.find("ERROR", "MISSING")


def test_every_parameter_is_described_and_used() -> None:
    used = Counter(one.text for one in template().tree.find("identifier"))
    for name, parameter in template().parameters.items():
        assert parameter.decorators["description"].endswith("."), name
        assert used[name] > 1, name
    assert all(used[name] > 1 for name in template().variables)


def test_parameters_are_the_other_clouds() -> None:
    text = (ROOT / "deploy/aws/template.yaml").read_text()
    theirs = re.findall(r"^  (\w+):\n    Type: ", text.partition("\nConditions:")[0], re.MULTILINE)
    assert len(theirs) >= 8
    mine = {name.lower() for name in template().parameters}
    renamed = {"alarmtopic": "alarmgroup"}
    assert {renamed.get(name.lower(), name.lower()) for name in theirs} - {"architecture"} <= mine


def test_every_name_stands_for_something() -> None:
    """Also in the places where only resources of a resource may be named."""
    top = {
        *template().parameters,
        *template().variables,
        *(one.name for one in template().resources if not one.parents),
    }
    nested = {(*one.parents, one.name) for one in template().resources}
    assert len(top) == len(template().parameters) + len(template().variables) + sum(
        not one.parents for one in template().resources
    )
    functions = {one.children[0].text for one in template().tree.find("call_expression")}
    assert functions <= {
        "concat", "empty", "environment", "guid", "resourceGroup", "split", "subscriptionResourceId", "uniqueString",
        "allowed", "description", "maxLength", "maxValue", "minLength", "minValue",
    }  # fmt: skip
    for one in template().tree.find("resource_expression"):
        assert tuple(one.text.split("::")) in nested, one.text
    for one in template().tree.find(
        "member_expression", "interpolation", "subscript_expression", "arguments", "ternary_expression"
    ):
        for child in one.children:
            if child.kind == "identifier" and not one.text.startswith("group"):
                assert child.text in top, one.text


def test_no_resource_of_a_resource_hides_another_name() -> None:
    """Inside of it, the name would stand for itself."""
    top = {
        *template().parameters,
        *template().variables,
        *(one.name for one in template().resources if not one.parents),
    }
    assert not top & {one.name for one in template().resources if one.parents}


def test_versions_are_pinned() -> None:
    for one in template().resources:
        if one.parents:
            assert "@" not in one.type, one.name
        else:
            assert re.fullmatch(r"Microsoft\.\w+(/\w+)+@20\d\d-\d\d-\d\d", one.type), one.name
    # bind and the template ask for the same.
    assert template().resource("topic").type.partition("@")[2] == azure_wiring._GRID


def test_roles_are_what_they_are_called_and_no_wider_than_they_have_to_be() -> None:
    scope = template().scope(
        GIVEN, {"resourceGroup": {"id": "g", "location": "l"}, "bucketAccount": {"properties": {}}}
    )
    told = {name: id.rpartition("/")[2] for name, id in scope["role"].items()}
    assert told == {name: id for name, (_, id) in ROLES.items()}
    given = []
    for one in template().resources:
        if one.type.startswith("Microsoft.Authorization"):
            properties = one.properties["properties"].properties()
            role = properties["roleDefinitionId"].text.removeprefix("role.")
            who = "topic" if properties["principalId"].text.startswith("topic") else "function"
            assert value(properties["principalType"], {}) == "ServicePrincipal"
            # Two assignments of one name would be one.
            assert f"role.{role}" in one.properties["name"].text
            given.append((who, ROLES[role][0], one.properties["scope"].text))
    assert sorted(given) == [
        ("function", "Key Vault Secrets User", "keyVault::secret"),
        ("function", "Monitoring Metrics Publisher", "insights"),
        ("function", "Storage Blob Data Owner", "storage"),
        ("function", "Storage Blob Data Reader", "bucketAccount::blobs::container"),
        ("function", "Storage Queue Data Contributor", "storage::queues::events"),
        ("function", "Storage Queue Data Contributor", "storage::queues::poison"),
        ("topic", "Storage Blob Data Contributor", "storage::blobs::undelivered"),
        ("topic", "Storage Queue Data Message Sender", "storage::queues::events"),
    ]  # fmt: skip


def test_the_subscription_asks_for_what_bind_asks_for() -> None:
    there = {
        "resourceGroup": {"id": "g", "location": "l"}, "bucketAccount": {"properties": {}}, "storage": {"id": "s"},
    }  # fmt: skip
    scope = template().scope({**GIVEN, "prefix": "train/"}, there)
    told = value(template().resource("subscription").properties["properties"], scope)
    assert sorted(told["filter"]["includedEventTypes"]) == sorted(azure_wiring.EVENTS)
    assert told["filter"]["subjectBeginsWith"] == "/blobServices/default/containers/photos/blobs/train/"
    assert told["eventDeliverySchema"] == azure_wiring._SCHEMA
    assert told["retryPolicy"] == azure_wiring._RETRIES
    queue = told["deliveryWithResourceIdentity"]["destination"]["properties"]
    assert queue["queueMessageTimeToLiveInSeconds"] == KEPT_DAYS * 24 * 3600
    assert (
        value(template().resource("storage", "queues", "events").properties["name"], scope)
        == queue["queueName"]
    )
    dead = told["deadLetterWithResourceIdentity"]["deadLetterDestination"]["properties"]["blobContainerName"]
    assert value(template().resource("storage", "blobs", "undelivered").properties["name"], scope) == dead
    there["bucketAccount"] = {"properties": {"isHnsEnabled": True}}
    scope = template().scope({**GIVEN, "prefix": "train/"}, there)
    told = value(template().resource("subscription").properties["properties"], scope)
    assert told["filter"]["subjectBeginsWith"] == "/blobServices/default/containers/photos/blobs/"


def test_what_fails_is_kept_and_tried_as_often_as_the_docs_say() -> None:
    queues = json.loads((DEPLOY / "host.json").read_text())["extensions"]["queues"]
    assert queues["maxDequeueCount"] == DELIVERIES
    readme = (DEPLOY / "README.md").read_text()
    assert queues["visibilityTimeout"] == "00:10:00"
    assert "fails for most of a day" in readme  # 100 times 10 minutes are 16 hours
    assert "every ten minutes" in readme
    poison = template().resource("storage", "queues", "poison")
    assert value(poison.properties["name"], {}) == "events-poison"  # the host's own choice
    assert "`events-poison`" in readme


@pytest.mark.parametrize("wiring", ["queue", "function"])
def test_the_settings_are_what_the_archive_asks_for(wiring: str) -> None:
    settings, outputs = deployed(template(), {**GIVEN, "wiring": wiring, "dataset": "d1"})
    entry = (DEPLOY / "function_app.py").read_text()
    assert settings["SYNCAGENT_WIRING"] == wiring
    assert f'case "{wiring}":' in entry
    events = {name for name in settings if name.startswith("EVENTS")}
    assert events == (
        {"EVENTS_QUEUE", "EVENTS__queueServiceUri", "EVENTS__credential", "EVENTS__clientId"} if wiring == "queue" else set()
    )  # fmt: skip
    assert settings["DTLPY_PASSWORD"] == "azure-secret://my-vault.vault.azure.net/syncagent-photos#password"
    assert settings["DATASET_ID"] == "d1"
    assert settings["AZURE_CLIENT_ID"] == settings["AzureWebJobsStorage__clientId"] == "the-client-id"
    host = json.loads((DEPLOY / "host.json").read_text())["extensions"]["queues"]
    assert settings["PYTHON_THREADPOOL_THREAD_COUNT"] == str(host["batchSize"] + host["newBatchThreshold"])
    assert outputs["queue"] == ("azqueue://syncuuuuuuuuuuuuu/events" if wiring == "queue" else "")
    assert outputs["function"].endswith("/sites/syncagent-photos-uuuuuuuuuuuuu/functions/on_event")
    # Flex Consumption refuses these: https://learn.microsoft.com/azure/azure-functions/functions-app-settings
    assert not {"FUNCTIONS_WORKER_RUNTIME", "FUNCTIONS_EXTENSION_VERSION", "WEBSITE_RUN_FROM_PACKAGE"} & set(
        settings
    )


def test_no_key_and_no_secret_in_the_template() -> None:
    assert "listKeys" not in TEXT
    assert "AccountKey" not in TEXT
    assert "password" not in TEXT.replace("#password", "").replace("username and password of", "")
    scope = {"byQueue": True, "bound": True}
    allowed = template().resource("storage").properties["properties"].properties()["allowSharedKeyAccess"]
    assert value(allowed, scope) is False
    scope["bound"] = False  # Event Grid takes a key then
    assert value(allowed, scope) is True


def test_alarms_read_what_the_function_writes() -> None:
    alarms = {
        one.name: one for one in template().resources if "alert" in one.type.lower() or "Rules@" in one.type
    }
    assert set(alarms) == {"lateAlarm", "errorAlarm", "deadAlarm", "undeliveredAlarm", "stuckAlarm"}
    assert all("told" in one.properties["properties"].properties()["actions"].text for one in alarms.values())
    # What the function writes is tested where it runs: tests/integration/test_package_azure.py.
    assert """startswith \\'{"message": "batch"\\'""" in alarms["lateAlarm"].body.text


def test_the_template_beside_an_archive_has_its_python() -> None:
    ((pattern, text),) = Target(AZURE, "3.12").defaults().items()
    (found,) = re.finditer(pattern, TEXT)
    assert (found[0], text) == ("\nparam python string = '3.13'", "3.12")
    assert template().parameters["python"].decorators["allowed"] == list(AZURE.glibc)


def test_limits_of_names() -> None:
    """https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules"""
    rules = template().parameters["name"].decorators
    assert rules["minLength"] >= 4, "a workspace's"
    assert rules["maxLength"] + len("-uuuuuuuuuuuuu") <= 60, "a function app's"
    assert len("sync" + "u" * 13) <= 24, "a storage account's"
