"""The reconciler's operations over the server: as the catalog does them, for those who may."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from syncagent.model import DriverSpec
from tests.engine import info
from tests.keys import NASTY
from tests.unit.test_server import client, owner, project, sign_in

__all__ = ["client", "owner", "project"]


@pytest.fixture
def mirrored(client: TestClient) -> str:
    app: Any = client.app
    return str(app.state.platform.catalog.ensure_dataset("data", DriverSpec(type="memory", bucket="box")).id)


@pytest.fixture
def call(client: TestClient, owner: dict[str, str], mirrored: str) -> Any:
    def call(operation: str, *, status: int = 200, headers: Any = None, **body: Any) -> Any:
        url = f"/api/v1/syncagent/datasets/{mirrored}/{operation}"
        answer = client.post(url, json=body, headers=headers or owner)
        assert answer.status_code == status, answer.text
        return answer.json()

    return call


def test_a_client_can_ask_what_is_offered(client: TestClient, owner: dict[str, str]) -> None:
    told = client.get("/api/v1/syncagent", headers=owner).json()
    assert told["version"] == 1
    assert set(told["operations"]) == {"get", "scan", "stamps", "digest", "insert", "settle"}
    assert client.get("/api/v1/syncagent").status_code == 401


def test_odd_keys_go_there_and_back(call: Any) -> None:
    keys = sorted((key for key in NASTY if "\0" not in key), key=str.encode)
    assert call("insert", found=[info(key) for key in keys]) == {"known": []}
    assert [row[0] for row in call("scan")["rows"]] == keys
    assert [row[0] for row in call("get", keys=keys)["rows"]] == keys
    assert call("insert", found=[info(keys[0]), info("~new")]) == {"known": [keys[0]]}


def test_a_range_has_an_open_start_and_a_closed_end(call: Any) -> None:
    call("insert", found=[info(key) for key in "abcde"])
    assert [row[0] for row in call("scan", after="a", until="d")["rows"]] == ["b", "c", "d"]
    assert [row[0] for row in call("scan", after="a", limit=2)["rows"]] == ["b", "c"]
    stamps = call("stamps", after="d", until="e")["stamps"]
    assert stamps == [["e", info("e").fingerprint]]
    assert "end of their range" in call("stamps", status=400)["message"]


def test_a_digest_is_told_in_parts_that_add_up(call: Any) -> None:
    call("insert", found=[info(key) for key in "abcde"])
    first = call("digest", after="a", until="e", limit=3)
    assert (first["count"], first["last"]) == (3, "d")
    rest = call("digest", after=first["last"], until="e", limit=3)
    assert (rest["count"], rest["last"]) == (1, None)
    whole = call("digest", after="a")
    assert (whole["count"], whole["last"]) == (4, None)
    assert (int(first["sum"], 16) + int(rest["sum"], 16)) % 2**128 == int(whole["sum"], 16)
    call("digest", status=400, limit=20_001)


def test_a_settle_that_comes_too_late_is_told_and_stops_no_other(call: Any) -> None:
    call("insert", found=[info("a"), info("b")])
    newer = info("a", "newer")
    rows = call("settle", settles=[
        {"key": "a", "found": newer, "expectRev": 1},
        {"key": "b", "found": None, "expectRev": 7},
        {"key": "c", "found": None, "expectRev": 0},
    ])["rows"]  # fmt: skip
    assert rows[0][:3] == ["a", newer.fingerprint, 2]
    assert rows[1] is None
    assert rows[2][:3] == ["c", None, 1]
    assert [row and row[2] for row in call("get", keys=["a", "b", "c", "d"])["rows"]] == [2, 1, 1, None]


def test_what_does_not_fit_is_refused_whole(call: Any) -> None:
    call("insert", found=[info("a"), info("b")._replace(content_type="x/" + "y" * 5000)])
    wrong = [
        {"key": "a", "found": info("a", "newer"), "expectRev": 1},
        {"key": "a", "found": info("b"), "expectRev": 2},
    ]
    assert "is not the object at" in call("settle", status=400, settles=wrong)["message"]
    assert call("get", keys=["a"])["rows"][0][2] == 1, "the first of the batch is taken back"
    for found in ([["a"]], [["", *info("a")[1:]]], [[*info("a")[:2], -1, *info("a")[3:]]]):
        call("insert", status=400, found=found)
    assert "NUL" in call("insert", status=400, found=[info("a\0b")])["message"]
    call("scan", status=400, limit=0)
    call("scan", status=400, surprise=1)


def test_only_those_who_may_write_write(client: TestClient, call: Any, mirrored: str) -> None:
    app: Any = client.app
    accounts = app.state.platform.accounts
    home = app.state.platform.datasets.get(mirrored)["projects"][0]
    stranger = sign_in(client, "stranger")
    for operation in ("get", "scan", "stamps", "digest", "insert", "settle"):
        body = {"get": {"keys": []}, "insert": {"found": []}, "settle": {"settles": []}}.get(
            operation, {"until": "z"}
        )
        call(operation, status=404, headers=stranger, **body)
    accounts.set_member(home, "writer@example.com", "viewer")
    reader = sign_in(client, "writer")
    call("scan", headers=reader)
    call("insert", status=403, headers=reader, found=[info("a")])
    call("settle", status=403, headers=reader, settles=[])
    app.state.platform.datasets.change(mirrored, readonly=True)
    assert "read-only" in call("insert", status=403, found=[info("a")])["message"]
    assert call("scan")["rows"] == []


def test_uploaded_datasets_have_no_bucket_to_agree_with(
    client: TestClient, owner: dict[str, str], project: str
) -> None:
    made = client.post("/api/v1/datasets", json={"name": "d", "projects": [project]}, headers=owner).json()
    answer = client.post(f"/api/v1/syncagent/datasets/{made['id']}/scan", json={}, headers=owner)
    assert answer.status_code == 400
    assert "mirrors no bucket" in answer.json()["message"]
