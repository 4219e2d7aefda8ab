"""Google's bucket notifications and Azure's resource manager, as far as a wiring needs them: no emulator has either."""

from __future__ import annotations

import itertools
import json
from typing import Any
from urllib.parse import unquote

import pytest

from tests.rigs.fake_http import Answer, Request

Json = dict[str, Any]


def _json(status: int, told: Any = None) -> Answer:
    return status, {"Content-Type": "application/json"}, b"" if told is None else json.dumps(told).encode()


class Notifications:
    """Answers as Cloud Storage does for buckets' notifications, and for its own account.

    https://cloud.google.com/storage/docs/json_api/v1/notifications
    """

    def __init__(self, *buckets: str) -> None:
        self.of: dict[str, dict[str, Json]] = {name: {} for name in buckets}
        """Of each bucket, its notifications by their ids."""
        self.numbers = itertools.count(1)
        self.denied: set[str] = set()
        """Methods that are refused."""

    def __call__(self, request: Request) -> Answer:
        path = unquote(request.path).removeprefix("/storage/v1/").split("/")
        if request.method in self.denied:
            return _json(403, {"error": {"code": 403, "message": "no"}})
        if path[0] == "projects":
            number = "42" if path[1].isdecimal() else "7"
            told = f"service-{number}@gs-project-accounts.iam.gserviceaccount.com"
            return _json(200, {"kind": "storage#serviceAccount", "email_address": told})
        there = self.of.get(path[1])
        if there is None:
            return _json(404, {"error": {"code": 404, "message": "no such bucket"}})
        if len(path) == 2:
            return _json(200, {"kind": "storage#bucket", "name": path[1], "projectNumber": "42"})
        assert path[2] == "notificationConfigs", path
        if request.method == "GET":
            return _json(200, {"kind": "storage#notifications", "items": list(there.values())})
        if request.method == "POST":
            id = str(next(self.numbers))
            there[id] = {**json.loads(request.body), "id": id, "kind": "storage#notification"}
            return _json(200, there[id])
        return _json(204 if there.pop(path[3], None) else 404)


class Manager:
    """Answers as Azure's resource manager does for storage accounts and event subscriptions, and gives tokens for it.

    https://learn.microsoft.com/rest/api/eventgrid/controlplane/event-subscriptions
    """

    ACCOUNT = "/subscriptions/0002/resourceGroups/Media/providers/Microsoft.Storage/storageAccounts/devstoreaccount1"

    def __init__(self, *, tree: bool = False) -> None:
        self.there: dict[str, Json] = {}
        """Event subscriptions by their names."""
        self.tree = tree
        self.fails: dict[str, Answer] = {}
        """By method: what is answered for event subscriptions in place of what is right."""
        self.outcome = "Succeeded"
        self._doing: dict[str, int] = {}
        self.tokens: list[str] = []
        """What tokens were asked for."""

    def __call__(self, request: Request) -> Answer:
        if request.path == "/token":
            self.tokens.append(request.query["resource"])
            told = {"access_token": "t", "expires_on": "4102444800", "resource": "r", "token_type": "Bearer"}
            return _json(200, told)
        assert request.query["api-version"], request.path
        assert request.headers["authorization"] == "Bearer t"
        if request.path == "/subscriptions":
            if "skip" not in request.query:
                after = "https://management.example/subscriptions?api-version=2022-12-01&skip=1"
                return _json(200, {"value": [{"subscriptionId": "0001"}], "nextLink": after})
            return _json(200, {"value": [{"subscriptionId": "0002"}]})
        account = {"id": self.ACCOUNT, "name": "devstoreaccount1", "properties": {"isHnsEnabled": self.tree}}
        if request.path == self.ACCOUNT:
            return _json(200, account)
        if request.path.endswith("/storageAccounts"):
            return _json(200, {"value": [account] if "0002" in request.path else []})
        if request.method in self.fails:
            return self.fails[request.method]
        _, name = request.path.split("/providers/Microsoft.EventGrid/eventSubscriptions")
        name = name.removeprefix("/")
        if not name:
            return _json(200, {"value": list(self.there.values())})
        if request.method == "PUT":
            # Azure tells defaults, and ids as it likes to write them.
            told = json.loads(request.body)["properties"]
            self.there[name] = {
                "id": request.path, "name": name, "properties": {"topic": self.ACCOUNT.lower(), **told, "provisioningState": "Creating"},
            }  # fmt: skip
            self._doing[name] = 1
            return _json(201, self.there[name])
        if request.method == "DELETE":
            if name not in self.there:
                return _json(204)
            self.there[name]["properties"]["provisioningState"] = "Deleting"
            self._doing[name] = 1
            return _json(202)
        return self._look(name)

    def _look(self, name: str) -> Answer:
        """What was asked for is done at the second look."""
        if name in self._doing:
            self._doing[name] -= 1
            if self._doing[name] < 0:
                del self._doing[name]
                if self.there[name]["properties"]["provisioningState"] == "Deleting":
                    del self.there[name]
                else:
                    self.there[name]["properties"]["provisioningState"] = self.outcome
        found = self.there.get(name)
        return _json(404, {"error": {"code": "ResourceNotFound"}}) if found is None else _json(200, found)


_READ: dict[str, Any] = {}


def remember_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore reads its tables from disk once for all sessions, and not once for each: most of what a client costs."""
    from botocore.loaders import JSONFileLoader

    read = _READ.setdefault("load_file", JSONFileLoader.load_file)
    tables: dict[str, Any] = _READ.setdefault("tables", {})

    def load_file(self: Any, path: str) -> Any:
        if path not in tables:
            tables[path] = read(self, path)
        return tables[path]

    monkeypatch.setattr(JSONFileLoader, "load_file", load_file)
