"""Stands in for `az`, which is too large to install: takes the words that the real one takes, and does what an emulator can do.

    AZ_WORLD=FOLDER python -m tests.rigs.az WORDS

What it made is kept in ``FOLDER/az.json``. Any other command, flag or value is an error.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from tests.rigs.arm import Template, value

_EVERYWHERE = {"--output", "--query"}
# Required flags, and those of the others that a README of ours may want: https://learn.microsoft.com/cli/azure/reference-index.
COMMANDS: dict[str, tuple[set[str], set[str]]] = {
    "login": (set(), {"--tenant", "--use-device-code"}),
    "extension add": ({"--name"}, {"--upgrade", "--yes"}),
    "keyvault secret set": ({"--name", "--vault-name"}, {"--encoding", "--file", "--value", "--tags"}),
    "keyvault secret delete": ({"--name", "--vault-name"}, set()),
    "stack group create": (
        {"--name", "--resource-group", "--action-on-unmanage", "--deny-settings-mode"},
        {"--template-file", "--parameters", "--yes", "--description", "--tags"},
    ),
    "stack group show": ({"--name", "--resource-group"}, set()),
    "stack group delete": ({"--name", "--resource-group", "--action-on-unmanage"}, {"--yes"}),
    "functionapp deployment source config-zip": (
        {"--name", "--resource-group", "--src"},
        {"--build-remote", "--timeout"},
    ),
    "eventgrid system-topic event-subscription show": (
        {"--name", "--resource-group", "--system-topic-name"}, {"--include-full-endpoint-url"},
    ),
    "storage blob upload": (
        {"--file"}, {"--account-name", "--container-name", "--name", "--auth-mode", "--overwrite"},
    ),
    "monitor app-insights query": ({"--analytics-query"}, {"--apps", "--resource-group", "--offset"}),
}  # fmt: skip
_ALONE = {"--yes", "--use-device-code", "--upgrade"}
_VALUES = {
    "--action-on-unmanage": {"deleteAll", "deleteResources", "detachAll"},
    "--deny-settings-mode": {"denyDelete", "denyWriteAndDelete", "none"},
    "--auth-mode": {"key", "login"},
    "--output": {"json", "jsonc", "none", "table", "tsv", "yaml", "yamlc"},
}


def parsed(words: list[str]) -> tuple[str, dict[str, list[str]]]:
    """A command and its flags."""
    known = [name for name in COMMANDS if words[: len(name.split())] == name.split()]
    assert known, f"az has no command {' '.join(words[:4])}"
    command = max(known, key=len)
    required, others = COMMANDS[command]
    flags: dict[str, list[str]] = {}
    current: list[str] | None = None
    for word in words[len(command.split()) :]:
        if word.startswith("--"):
            assert word in required | others | _EVERYWHERE, f"az {command} has no {word}"
            assert word not in flags, f"{word} twice"
            current = flags[word] = []
        else:
            assert current is not None, f"az {command} takes no {word}"
            current.append(word)
    for flag, values in flags.items():
        several = flag in {"--parameters", "--tags"}
        assert len(values) == (0 if flag in _ALONE else 1) or (several and values), f"{flag} {values}"
        assert set(values) <= _VALUES.get(flag, set(values)), f"{flag} {values}"
    assert required <= set(flags), f"az {command} needs {required - set(flags)}"
    return command, flags


class World:
    """What there is, and what the test says of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._file = folder, folder / "az.json"
        self.there: dict[str, Any] = json.loads(self._file.read_text())

    def save(self) -> None:
        self._file.write_text(json.dumps(self.there))

    def run(self, command: str, flags: dict[str, list[str]]) -> str:
        one = {name: values[0] if values else "" for name, values in flags.items()}
        if group := one.get("--resource-group"):
            assert group == self.there["group"], group
        if vault := one.get("--vault-name"):
            assert vault == self.there["vault"], vault
        told = getattr(self, "_" + command.replace(" ", "_").replace("-", "_"))(one, flags)
        return "" if one.get("--output") == "none" or told is None else f"{told}\n"

    def _login(self, *_: Any) -> None:
        self.there["in"] = True

    def _extension_add(self, one: dict[str, str], _: Any) -> None:
        assert one["--name"] == "application-insights"
        self.there["extensions"] = [one["--name"]]

    def _keyvault_secret_set(self, one: dict[str, str], _: Any) -> str:
        assert ("--file" in one) != ("--value" in one)
        secret = Path(one["--file"]).read_text() if "--file" in one else one["--value"]
        self.there.setdefault("secrets", {})[one["--name"]] = secret
        return "a secret that nobody needs to see"

    def _keyvault_secret_delete(self, one: dict[str, str], _: Any) -> None:
        del self.there["secrets"][one["--name"]]

    def _stack_group_create(self, one: dict[str, str], flags: dict[str, list[str]]) -> None:
        given = dict(word.split("=", 1) for word in flags["--parameters"])
        account, _, container = given["bucket"].partition("/")
        assert (account, container) == (self.there["account"], self.there["container"])
        vault, _, name = given["account"].partition("/")
        assert vault == self.there["vault"]
        assert name in self.there["secrets"], "the secret's role needs the secret"
        settings, outputs = deployed(Template(Path(one["--template-file"])), given)
        self.there["stack"] = {
            "name": one["--name"], "parameters": given, "settings": settings, "outputs": outputs,
        }  # fmt: skip

    def _stack_group_show(self, one: dict[str, str], _: Any) -> str:
        stack = self.there["stack"]
        assert stack["name"] == one["--name"]
        outputs, name, what = one["--query"].split(".")
        assert (outputs, what, one["--output"]) == ("outputs", "value", "tsv")
        return str(stack["outputs"][name])

    def _stack_group_delete(self, one: dict[str, str], _: Any) -> None:
        assert self.there["stack"]["name"] == one["--name"]
        assert "--yes" in one, "it would ask"
        del self.there["stack"]

    def _functionapp_deployment_source_config_zip(self, one: dict[str, str], _: Any) -> None:
        assert one["--name"] == self.there["stack"]["outputs"]["app"]
        self.there["code"] = self.there.get("code", 0) + 1
        with ZipFile(one["--src"]) as archive:
            assert {"host.json", "function_app.py"} <= set(archive.namelist())
            archive.extractall(self.folder / f"code-{self.there['code']}")

    def _eventgrid_system_topic_event_subscription_show(self, one: dict[str, str], _: Any) -> str:
        name = self.there["stack"]["parameters"]["name"]
        assert one["--name"] == one["--system-topic-name"] == name
        assert one["--query"] == "provisioningState"
        return "Succeeded"

    def _storage_blob_upload(self, one: dict[str, str], _: Any) -> str:
        from azure.storage.blob import BlobClient

        assert one["--account-name"] == self.there["account"]
        assert one["--auth-mode"] == "login", "there are no keys"
        with BlobClient(
            self.there["blobs"], one["--container-name"], one["--name"], credential=self.there["key"]
        ) as blob:
            blob.upload_blob(Path(one["--file"]).read_bytes())
        self.there.setdefault("events", []).append(one["--name"])
        return "{}"

    def _monitor_app_insights_query(self, one: dict[str, str], _: Any) -> str:
        assert self.there["extensions"] == ["application-insights"], "az would ask whether to install it"
        assert one["--apps"] == self.there["stack"]["parameters"]["name"]
        assert one["--analytics-query"].startswith("traces | ")
        return "{}"


def deployed(template: Template, given: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The app's settings and the outputs of a deployment."""
    host = "core.windows.net"
    storage = {
        "name": "syncuuuuuuuuuuuuu",
        "properties": {
            "primaryEndpoints": {kind: f"https://syncuuuuuuuuuuuuu.{kind}.{host}/" for kind in ("blob", "queue")}
        },
    }  # fmt: skip
    app = f"{given.get('name', 'syncagent')}-uuuuuuuuuuuuu"
    there = {
        "resourceGroup": {"id": "/subscriptions/s/resourceGroups/g", "location": "westeurope"},
        "environment": {"suffixes": {"keyvaultDns": ".vault.azure.net", "storage": host}},
        "bucketAccount": {"properties": {}}, "storage": storage,
        "keyVault": {"secret": {"name": given["account"].partition("/")[2]}},
        "identity": {"properties": {"clientId": "the-client-id"}},
        "insights": {"properties": {"ConnectionString": "InstrumentationKey=i"}},
        "function": {"name": app, "id": f"/subscriptions/s/resourceGroups/g/providers/Microsoft.Web/sites/{app}"},
    }  # fmt: skip
    scope = template.scope(given, there)
    site = template.resource("function").properties
    assert value(site["name"], scope) == app
    settings = value(
        site["properties"].properties()["siteConfig"].properties()["appSettings"],
        {**scope, "function": there["function"]},
    )
    return {one["name"]: one["value"] for one in settings}, {
        name: value(node, scope) for name, node in template.outputs.items()
    }


if __name__ == "__main__":
    world = World(Path(os.environ["AZ_WORLD"]))
    command, flags = parsed(sys.argv[1:])
    assert command == "login" or world.there.get("in"), "az login comes first"
    sys.stdout.write(world.run(command, flags))
    world.save()
