"""The server: nothing without a token, nothing beyond one's role, one line for what is wrong."""

from __future__ import annotations

import io
import os
import re
import socket
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import uvicorn
from fastapi.testclient import TestClient

from syncagent.agent import Agent
from syncagent.catalog.sql.accounts import ROLES
from syncagent.cli.serve import listening
from syncagent.config import load
from syncagent.drivers import parse_url
from syncagent.model import Integration
from syncagent.server import bodies, page
from syncagent.server.app import create_app
from syncagent.server.auth import MAY, Passwords
from tests.rigs.catalogs import url_of
from tests.rigs.s3 import S3Rig, s3_rig
from tests.rigs.served import HASH, PASSWORD

__all__ = ["s3_rig"]

# The page's files hold nothing of the catalog: what they show they fetch, with a token.
PAGE = {(method, path) for path in page.FILES for method in ("GET", "HEAD")}
PUBLIC = {("GET", "/healthz"), ("POST", "/token")} | PAGE


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with Agent(load(catalog=url_of(tmp_path / "catalog.db"))) as agent:
        app = create_app(agent, secret="s" * 40)
        accounts = app.state.platform.accounts
        accounts.add("owner@example.com", HASH, admin=True)
        for name in ("writer", "stranger"):
            accounts.add(f"{name}@example.com", HASH)
        with TestClient(app, raise_server_exceptions=False) as client:
            yield client


def sign_in(client: TestClient, name: str = "owner") -> dict[str, str]:
    body = {"username": f"{name}@example.com", "password": PASSWORD, "type": "user_credentials"}
    answer = client.post("/token?default", json=body)
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['id_token']}"}


@pytest.fixture
def owner(client: TestClient) -> dict[str, str]:
    return sign_in(client)


@pytest.fixture
def project(client: TestClient, owner: dict[str, str]) -> str:
    return str(client.post("/api/v1/projects", data={"name": "p"}, headers=owner).json()["id"])


@pytest.fixture
def dataset(client: TestClient, owner: dict[str, str], project: str) -> str:
    body = {"name": "d", "projects": [project], "createDefaultRecipe": True}
    return str(client.post("/api/v1/datasets", json=body, headers=owner).json()["id"])


def upload(
    client: TestClient, who: dict[str, str], dataset: str, path: str, data: bytes = b"data", **more: Any
) -> Any:
    given = {"type": "file", "path": path, **more.pop("form", {})}
    files = {"file": ("name", io.BytesIO(data), more.pop("kind", "text/plain"))}
    return client.post(f"/api/v1/datasets/{dataset}/items", data=given, files=files, headers=who, **more)


def routes(client: TestClient) -> list[tuple[str, str]]:
    """Every route, with ids that nobody has."""
    found = []
    app: Any = client.app
    for path, operations in app.openapi()["paths"].items():
        found += [(method.upper(), path) for method in operations]
    found += [("GET", "/docs"), ("GET", "/openapi.json"), *PAGE]
    assert len(found) > 60
    return sorted(found)


def call(
    client: TestClient, method: str, path: str, headers: dict[str, str], ids: dict[str, str] | None = None
) -> Any:
    filled = re.sub(r"{(\w+)}", lambda match: (ids or {}).get(match[1], "0" * 24), path)
    return client.request(method, filled, headers=headers)


# -- who may -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Basic b3duZXI6eA=="},
        {
            "Authorization": "Bearer "
            + jwt.encode({"email": "owner@example.com", "exp": 9e9}, None, algorithm="none")
        },
        {
            "Authorization": "Bearer "
            + jwt.encode({"email": "owner@example.com", "exp": 9e9}, "t" * 40, algorithm="HS256")
        },
    ],
    ids=["none", "nonsense", "basic", "unsigned", "signed by another"],
)
def test_every_route_but_two_and_the_page_wants_a_token(client: TestClient, given: dict[str, str]) -> None:
    for method, path in routes(client):
        if (method, path) in PUBLIC:
            continue
        answer = call(client, method, path, given)
        assert answer.status_code == 401, (method, path, answer.status_code, answer.text)
        assert answer.json()["status"] == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_the_page_is_the_same_for_everybody(client: TestClient, owner: dict[str, str]) -> None:
    for method, path in PAGE:
        answer = client.request(method, path)
        assert answer.status_code == 200, path
        assert client.request(method, path, headers=owner).content == answer.content
    assert not any(path in client.app.openapi()["paths"] for _, path in PAGE)  # type: ignore[attr-defined]


def test_a_stranger_sees_nothing_of_a_project(
    client: TestClient, owner: dict[str, str], project: str, dataset: str
) -> None:
    item = upload(client, owner, dataset, "/a.txt").json()["id"]
    body = [{"type": "class", "label": "x"}]
    annotation = client.post(f"/api/v1/items/{item}/annotations", json=body, headers=owner).json()[0]["id"]
    recipe = client.get(f"/api/v1/datasets/{dataset}", headers=owner).json()["metadata"]["system"]["recipes"][
        0
    ]
    ontology = client.get(f"/api/v1/recipes/{recipe}", headers=owner).json()["ontologyIds"][0]
    ids = {
        "project": project,
        "dataset": dataset,
        "item": item,
        "annotation": annotation,
        "recipe": recipe,
        "ontology": ontology,
    }
    stranger, refused = sign_in(client, "stranger"), 0
    for method, path in routes(client):
        if not re.search(r"{(project|dataset|item|annotation|recipe|ontology)}", path):
            continue
        filled = re.sub(r"{(\w+)}", lambda match: ids.get(match[1], "0" * 24), path)
        json: Any = (
            [] if path.endswith("imports") or "{folder}" in path else {"filter": {}, "resource": "items"}
        )
        given = (
            {"data": {"path": "/x", "type": "dir"}} if path.endswith("{dataset}/items") else {"json": json}
        )
        answer = client.request(method, filled, headers=stranger, **given)
        assert answer.status_code == 404, (method, path, answer.status_code, answer.text)
        refused += 1
    assert refused > 30
    assert client.get("/api/v1/projects", headers=stranger).json() == []
    found = client.post(
        "/api/v1/datasets/query", json={"filter": {}, "resource": "datasets"}, headers=stranger
    )
    assert found.json()["items"] == []


@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_do_what_its_row_says(
    client: TestClient, owner: dict[str, str], project: str, dataset: str, role: str
) -> None:
    item = upload(client, owner, dataset, "/a.txt").json()["id"]
    told = client.post(
        f"/api/v1/projects/{project}/members/writer@example.com", json={"role": role}, headers=owner
    )
    assert told.status_code == 200, told.text
    writer = sign_in(client, "writer")
    api = "/api/v1"
    tries = {
        "dataset.read": client.get(f"{api}/items/{item}/stream", headers=writer),
        "annotation.write": client.post(f"{api}/items/{item}/annotations", json=[], headers=writer),
        "item.write": client.patch(
            f"{api}/items/{item}", json={"metadata": {"user": {"k": 1}}}, headers=writer
        ),
        "dataset.write": client.patch(f"{api}/datasets/{dataset}", json={"name": "d"}, headers=writer),
        "project.write": client.patch(f"{api}/projects/{project}", json={"name": "p"}, headers=writer),
    }
    for action, answer in tries.items():
        assert answer.status_code == (200 if action in MAY[role] else 403), (role, action, answer.text)
    for method, path in (("POST", f"{api}/orgs/x/integrations"), ("PATCH", f"{api}/orgs/x/integrations")):
        assert client.request(method, path, json={}, headers=writer).status_code == 403


def test_guessing_is_slowed_down(client: TestClient) -> None:
    for _ in range(10):
        answer = client.post("/token", json={"username": "owner@example.com", "password": "wrong"})
        assert (answer.status_code, answer.json()["message"]) == (401, "wrong email address or password")
    right = client.post("/token", json={"username": "owner@example.com", "password": PASSWORD})
    assert right.status_code == 429
    assert 1 <= int(right.headers["Retry-After"]) <= 300


def test_tokens_end(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    app: Any = client.app
    accounts, tokens = app.state.platform.accounts, app.state.tokens
    account = accounts.get("owner@example.com")
    over = {"Authorization": f"Bearer {tokens.issue(account, seconds=-1)}"}
    assert client.get("/api/v1/users/me", headers=over).status_code == 401
    body = {"username": "owner@example.com", "password": PASSWORD}
    given = client.post("/token", json=body).json()
    as_bearer = {"Authorization": f"Bearer {given['refresh_token']}"}
    assert client.get("/api/v1/users/me", headers=as_bearer).status_code == 401, (
        "it renews, and opens nothing"
    )
    renewed = client.post(
        "/token?default", json={"type": "refresh_token", "refresh_token": given["refresh_token"]}
    )
    fresh = {"Authorization": f"Bearer {renewed.json()['id_token']}"}
    assert client.get("/api/v1/users/me", headers=fresh).json()["email"] == "owner@example.com"
    claims = jwt.decode(renewed.json()["id_token"], options={"verify_signature": False})
    assert claims["email"] == "owner@example.com" and claims["exp"] - claims["iat"] == 24 * 3600
    accounts.change_password("owner@example.com", Passwords().hash("another password"))
    assert client.get("/api/v1/users/me", headers=fresh).status_code == 401, "the password changed"
    again = client.post("/token", json={"type": "refresh_token", "refresh_token": given["refresh_token"]})
    assert again.status_code == 401


# -- what is wrong -------------------------------------------------------------------------------


def test_errors_are_one_line_of_json(
    client: TestClient, owner: dict[str, str], project: str, dataset: str
) -> None:
    api = "/api/v1"
    for answer, status, text in (
        (client.get(f"{api}/items/{'0' * 24}", headers=owner), 404, "no item"),
        (client.get(f"{api}/nowhere", headers=owner), 404, "Not Found"),
        (
            client.post(f"{api}/datasets", json={"name": "d", "projects": [project]}, headers=owner),
            409,
            "already",
        ),
        (
            client.post(f"{api}/datasets", json={"name": "e", "projects": []}, headers=owner),
            400,
            "one project",
        ),
        (
            client.post(f"{api}/datasets/{dataset}/query", json={"filter": {"x": 1}}, headers=owner),
            400,
            "unknown field 'x'",
        ),
        (client.post(f"{api}/datasets/{dataset}/query", content=b"{", headers=owner), 400, "the body"),
        (client.post(f"{api}/datasets/{dataset}/sync", headers=owner), 400, "no driver to mirror"),
        (upload(client, owner, dataset, "/"), 400, "is no path"),
        (upload(client, owner, dataset, "/x.txt", form={"metadata": "{"}), 400, "is no JSON"),
        (
            client.post(f"{api}/orgs/x/integrations", json={"name": "n", "type": "ftp"}, headers=owner),
            400,
            "'ftp'",
        ),
    ):
        assert answer.status_code == status, answer.text
        told = answer.json()
        assert told["status"] == status and text in told["message"] and "\n" not in told["message"]


def test_a_bug_tells_nothing(
    client: TestClient, owner: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    app: Any = client.app

    def broken(_: Any) -> Any:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(app.state.platform.accounts, "projects", broken)
    answer = client.get("/api/v1/projects", headers=owner)
    assert answer.status_code == 500
    assert "secret" not in answer.text


# -- bytes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "status", "body", "told"),
    [
        (None, 200, b"0123456789", None),
        ("bytes=0-", 200, b"0123456789", None),
        ("bytes=3-", 206, b"3456789", "bytes 3-9/10"),
        ("bytes=3-5", 206, b"345", "bytes 3-5/10"),
        ("bytes=8-99", 206, b"89", "bytes 8-9/10"),
        ("bytes=-4", 206, b"6789", "bytes 6-9/10"),
        ("lines=1-2", 200, b"0123456789", None),
        ("bytes=10-", 400, None, None),
    ],
)
def test_streams_and_ranges(
    client: TestClient,
    owner: dict[str, str],
    dataset: str,
    wanted: str | None,
    status: int,
    body: bytes | None,
    told: str | None,
) -> None:
    item = upload(client, owner, dataset, "/a.txt", b"0123456789").json()["id"]
    headers = {**owner, **({"Range": wanted} if wanted else {})}
    answer = client.get(f"/api/v1/items/{item}/stream", headers=headers)
    assert answer.status_code == status
    if body is not None:
        assert (answer.content, answer.headers["Content-Length"]) == (body, str(len(body)))
        assert answer.headers.get("Content-Range") == told


def test_an_empty_file_streams(client: TestClient, owner: dict[str, str], dataset: str) -> None:
    item = upload(client, owner, dataset, "/empty", b"").json()
    assert item["metadata"]["system"]["size"] == 0
    answer = client.get(f"/api/v1/items/{item['id']}/stream", headers={**owner, "Range": "bytes=0-"})
    assert (answer.status_code, answer.content) == (200, b"")


def test_the_same_bytes_are_kept_once_and_paths_stay_inside(
    client: TestClient, owner: dict[str, str], dataset: str
) -> None:
    app: Any = client.app
    for path in ("/../../etc/passwd", "/a//b", "//lead", "/x/../y", "/per%20cent", "/tab\tnew\nline"):
        made = upload(client, owner, dataset, path, b"same bytes").json()
        assert made["filename"] == path
    kept = [one for one in app.state.platform.files.root.rglob("*") if one.is_file()]
    assert len(kept) == 1 and kept[0].read_bytes() == b"same bytes"
    assert oct(app.state.platform.files.root.stat().st_mode)[-3:] == "700"


def test_a_skipped_upload_tells_the_size_that_was_sent(
    client: TestClient, owner: dict[str, str], dataset: str
) -> None:
    first = upload(client, owner, dataset, "/a.txt", b"first")
    again = upload(client, owner, dataset, "/a.txt", b"something else", params={"mode": "skip"})
    assert (first.headers["x-item-op"], again.headers["x-item-op"]) == ("created", "skip")
    assert again.json()["id"] == first.json()["id"]
    assert again.json()["metadata"]["system"]["size"] == len(b"something else"), (
        "or the client deletes the item"
    )
    stored = client.get(f"/api/v1/items/{first.json()['id']}", headers=owner).json()
    assert stored["metadata"]["system"]["size"] == len(b"first")


# -- upkeep --------------------------------------------------------------------------------------


def test_health_metrics_and_the_api_document(client: TestClient, owner: dict[str, str]) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    client.get(f"/api/v1/items/{'0' * 24}", headers=owner)
    told = client.get("/metrics", headers=owner).text
    assert 'syncagent_requests_total{method="GET",route="/items/{item}",status="404"} 1.0' in told
    document = client.get("/openapi.json", headers=owner).json()
    assert document["components"]["schemas"]["Error"]
    assert "swagger" in client.get("/docs", headers=owner).text.lower()


def test_secrets_never_come_back(
    client: TestClient, owner: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    [org] = client.get("/api/v1/orgs", headers=owner).json()
    body = {"name": "i", "type": "s3", "options": {"key": "AKIA", "secret": "hunter2"}}
    made = client.post(f"/api/v1/orgs/{org['id']}/integrations", json=body, headers=owner)
    answers = [made, client.post(f"/api/v1/orgs/{org['id']}/integrations", json=body, headers=owner)]
    for path in ("integrations", "availableIntegrations", f"integrations/{made.json()['id']}"):
        answers.append(client.get(f"/api/v1/orgs/{org['id']}/{path}", headers=owner))
    assert [one.status_code for one in answers] == [200, 409, 200, 200, 200]
    assert not any("hunter2" in one.text for one in answers)
    assert "hunter2" not in caplog.text


def test_a_dataset_cannot_open_the_bucket_of_another_project(
    client: TestClient, owner: dict[str, str], project: str
) -> None:
    other = client.post("/api/v1/projects", data={"name": "other"}, headers=owner).json()["id"]
    integration = {"name": "keys", "type": "s3", "options": {"key": "a", "secret": "b"}}
    org = client.get("/api/v1/orgs", headers=owner).json()[0]["id"]
    made = client.post(f"/api/v1/orgs/{org}/integrations", json=integration, headers=owner).json()
    body = {
        "name": "theirs", "type": "s3", "integrationId": made["id"], "payload": {"bucketName": "box"},
        "metadata": {"system": {"projectId": other}},
    }  # fmt: skip
    driver = client.post("/api/v1/drivers", json=body, headers=owner).json()["id"]
    for home, status in ((project, 404), (other, 200)):
        given = {"name": "d2", "projects": [home], "driver": driver}
        assert client.post("/api/v1/datasets", json=given, headers=owner).status_code == status


def test_answers_are_sent_at_once() -> None:
    with listening(uvicorn.Config(lambda: None, "127.0.0.1", 0)) as bound:
        assert bound.proto == socket.IPPROTO_TCP, "else asyncio leaves Nagle's algorithm on: 40 ms an answer"
        socket.create_connection(bound.getsockname(), timeout=5).close()  # before anything serves it


def test_asking_for_an_item_counts_nothing(
    client: TestClient, owner: dict[str, str], dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app: Any = client.app
    item = upload(client, owner, dataset, "/a.txt").json()["id"]
    statements: list[str] = []
    run = app.state.platform.catalog.db.sql

    def noted(statement: str, parameters: Any = ()) -> Any:
        statements.append(f"{statement} with {parameters}")
        return run(statement, parameters)

    with monkeypatch.context() as patched:
        patched.setattr(app.state.platform.catalog.db, "sql", noted)
        assert client.get(f"/api/v1/items/{item}", headers=owner).status_code == 200
    ran = [one for one in statements if "count(" in one and "'counted': False" not in one]
    assert statements and not ran, "a count walks over the whole dataset"


# -- what is sent before one is known --------------------------------------------------------------


def test_a_file_of_somebody_unknown_is_not_read(
    client: TestClient, owner: dict[str, str], dataset: str
) -> None:
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    for given in ({}, {"Authorization": "Bearer x.y.z"}, {"Authorization": "Basic eDp5"}):
        answer = client.post(f"/api/v1/datasets/{dataset}/items", content=b"--x", headers={**kind, **given})
        assert answer.status_code == 401, given
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert upload(client, owner, dataset, "/a.txt").status_code == 200


def test_a_request_without_end_is_ended(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "LIMIT", 10_000)
    told = client.post("/token?default", content=b"x" * 20_000)
    assert (told.status_code, told.headers["connection"]) == (413, "close")
    endless = client.post("/token?default", content=(b"x" * 1000 for _ in range(1000)))
    assert endless.status_code == 400, "it is like a client that hung up"
    assert client.post("/token?default", json={"username": "x", "password": "y"}).status_code == 401


# -- thumbnails, statuses, subsets, expiration ----------------------------------------------------


def image(size: tuple[int, int] = (600, 300)) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", size).save(out, "JPEG")
    return out.getvalue()


def test_images_have_thumbnails_that_a_browser_keeps(
    client: TestClient, owner: dict[str, str], dataset: str
) -> None:
    told = upload(client, owner, dataset, "/a.jpg", image(), kind="image/jpeg").json()
    first = client.get(told["thumbnail"], headers=owner)
    assert (first.status_code, first.headers["content-type"]) == (200, "image/jpeg")
    assert len(first.content) < 5000
    again = client.get(told["thumbnail"], headers={**owner, "If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    upload(
        client, owner, dataset, "/a.jpg", image((300, 300)), kind="image/jpeg", params={"mode": "overwrite"}
    )
    other = client.get(told["thumbnail"], headers={**owner, "If-None-Match": first.headers["etag"]})
    assert other.status_code == 200, "the bytes are others"
    text = upload(client, owner, dataset, "/a.txt").json()
    assert client.get(text["thumbnail"], headers=owner).status_code == 404
    fake = upload(client, owner, dataset, "/b.jpg", b"no image", kind="image/jpeg").json()
    assert client.get(fake["thumbnail"], headers=owner).status_code == 400


def test_statuses_are_kept_by_task_and_assignment(
    client: TestClient, owner: dict[str, str], dataset: str
) -> None:
    a, b = (upload(client, owner, dataset, f"/{name}").json()["id"] for name in "ab")

    def system(item: str) -> dict[str, Any]:
        told: dict[str, Any] = client.get(f"/api/v1/items/{item}", headers=owner).json()["metadata"]["system"]
        return told

    def set_status(task: str, items: list[str], status: str, operation: str = "create") -> Any:
        payload = {"operation": operation, "returnLastStatus": True, "status": status}
        url = f"/api/v1/assignments/items/tasks/{task}/status"
        return client.post(url, json={"itemIds": items, "statusPayload": payload}, headers=owner)

    assert set_status("t1", [a, b], "completed").json() == {
        a: {"status": "completed"}, b: {"status": "completed"},
    }  # fmt: skip
    url = f"/api/v1/assignments/x1/items/{a}/status"
    assert (
        client.post(url, json={"operation": "create", "status": "approved"}, headers=owner).status_code == 200
    )
    assert system(a)["annotationStatus"] == ["approved", "completed"]
    assert {(one["type"], one["id"]) for one in system(a)["refs"]} == {("task", "t1"), ("assignment", "x1")}
    set_status("t1", [a], "discard")
    assert system(a)["annotationStatus"] == ["approved", "discard"]
    set_status("t1", [a], "discard", "delete")
    assert system(a)["annotationStatus"] == ["approved"]
    body = {"filter": {"metadata.system.annotationStatus": "completed"}, "resource": "items"}
    found = client.post(f"/api/v1/datasets/{dataset}/query", json=body, headers=owner).json()["items"]
    assert [one["id"] for one in found] == [b]
    assert set_status("t1", [a], "great").status_code == 400
    assert set_status("t1", ["0" * 24], "completed").status_code == 404
    assert client.post(url, json={"status": "approved"}, headers=sign_in(client, "stranger")).status_code in (
        403,
        404,
    )


def finished(client: TestClient, owner: dict[str, str], command: Any) -> Any:
    for _ in range(500):
        told = client.get(f"/api/v1/commands/{command['id']}", headers=owner).json()
        if told["status"] in ("success", "failed"):
            return told
        time.sleep(0.01)
    raise AssertionError(f"{told} does not end")


def test_a_split_gives_each_item_one_subset(client: TestClient, owner: dict[str, str], dataset: str) -> None:
    for number in range(20):
        upload(client, owner, dataset, f"/{number}.txt")
    url = f"/api/v1/datasets/{dataset}/split"
    for shares in ({"train": 70, "validation": 20, "test": 10}, [{"name": "train", "percentage": 100}]):
        command = client.post(url, json={"itemsQuery": {}, "MLSplitList": shares}, headers=owner).json()
        assert finished(client, owner, command)["status"] == "success"
        items = client.post(
            f"/api/v1/datasets/{dataset}/query", json={"filter": {}, "resource": "items"}, headers=owner
        ).json()["items"]
        counts = Counter(
            name for one in items for name, set_ in one["metadata"]["system"]["tags"].items() if set_ is True
        )
        assert counts == (
            {"train": 14, "validation": 4, "test": 2}
            if isinstance(shares, dict)
            else {"train": 20, "validation": 4, "test": 2}
        )
        if isinstance(shares, dict):
            assert all(len(one["metadata"]["system"]["tags"]) == 1 for one in items)
    for wrong in ({"a": 50}, {"a": 50.5, "b": 49.5}, {"a": 150, "b": -50}, "x", [1], None):
        assert client.post(url, json={"MLSplitList": wrong}, headers=owner).status_code == 400, wrong


def test_items_expire_into_the_trash(client: TestClient, owner: dict[str, str], project: str) -> None:
    app: Any = client.app
    catalog = app.state.platform.catalog
    body = {"name": "short", "projects": [project], "expirationOptions": {"itemMaxDays": 3}}
    short = client.post("/api/v1/datasets", json=body, headers=owner).json()["id"]
    keep = client.post(
        "/api/v1/datasets", json={"name": "keep", "projects": [project]}, headers=owner
    ).json()["id"]
    now = catalog._clock()
    for one in (short, keep):
        upload(client, owner, one, "/a.txt")
    assert catalog.vacuum()["expired"] == 0
    catalog._clock = lambda: now + 4 * 86400
    client.patch(f"/api/v1/datasets/{short}", json={"readonly": True}, headers=owner)
    assert catalog.vacuum()["expired"] == 0, "a locked dataset is not written"
    client.patch(f"/api/v1/datasets/{short}/unlock", headers=owner)
    assert catalog.vacuum()["expired"] == 1
    assert (catalog.count(short), catalog.count(keep)) == (0, 1)
    assert [one.key for one in catalog.items(short, trashed=True)] == ["a.txt"]
    for days in ("3", -1, 0, True):
        wrong = client.post(
            "/api/v1/datasets",
            json={**body, "name": "x", "expirationOptions": {"itemMaxDays": days}},
            headers=owner,
        )
        assert (wrong.status_code, "itemMaxDays" in wrong.text) == (400, True)


def test_bytes_that_no_item_has_are_collected(
    client: TestClient, owner: dict[str, str], dataset: str, tmp_path: Path
) -> None:
    app: Any = client.app
    catalog = app.state.platform.catalog
    for name in ("keep", "drop", "fresh"):
        upload(client, owner, dataset, f"/{name}", name.encode())
    upload(client, owner, dataset, "/again", b"keep")
    ids = {one.key: one.id for one in catalog.items(dataset)}
    for name in ("drop", "fresh", "again"):
        client.delete(f"/api/v1/items/{ids[name]}", headers=owner)
    files = {path.read_bytes(): path for path in catalog.files.root.glob("??/*")}
    for body in (b"keep", b"drop"):
        os.utime(files[body], (1, 1))
    assert catalog.vacuum()["files"] == 0, "the trash can still be brought back"
    assert catalog.vacuum(trash_days=-1)["files"] == 1
    assert {body for body, path in files.items() if path.exists()} == {b"keep", b"fresh"}


def test_bytes_of_a_bucket_may_be_had_from_there(
    client: TestClient, owner: dict[str, str], project: str, s3_rig: S3Rig
) -> None:
    app: Any = client.app
    platform = app.state.platform
    name = f"signed-{uuid.uuid4().hex[:8]}"
    s3_rig.client.create_bucket(Bucket=name)
    s3_rig.client.put_object(Bucket=name, Key="a.txt", Body=b"0123456789")
    platform.catalog.create_integration(Integration("k", "s3", {"key": "testing", "secret": "testing"}))
    spec = parse_url(f"s3://{name}?endpoint={s3_rig.endpoint}&region=us-east-1")
    made = platform.catalog.ensure_dataset("signed", replace(spec, integration="k"))
    platform.reconciler(made.id).sweep()
    (item,) = platform.catalog.items(made.id)
    url = f"/api/v1/items/{item.id}/stream"
    assert client.get(url, headers=owner, follow_redirects=False).content == b"0123456789"
    platform.agent.settings = platform.agent.settings.model_copy(update={"redirect_streams": True})
    answer = client.get(url, headers=owner, follow_redirects=False)
    assert (answer.status_code, answer.headers["cache-control"]) == (307, "no-store")
    there = answer.headers["location"]
    assert there.startswith(s3_rig.endpoint) and "Signature" in there
    assert httpx.get(there, headers={"Range": "bytes=2-4"}).content == b"234"
    held = upload(client, owner, client.post(
        "/api/v1/datasets", json={"name": "own", "projects": [project]}, headers=owner
    ).json()["id"], "/b.txt").json()  # fmt: skip
    assert client.get(held["stream"], headers=owner, follow_redirects=False).content == b"data", (
        "not in a bucket"
    )
