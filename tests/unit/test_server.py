"""The server: nothing without a token, nothing beyond one's role, one line for what is wrong."""

from __future__ import annotations

import io
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import uvicorn
from fastapi.testclient import TestClient

from syncagent.agent import Agent
from syncagent.catalog.sql.accounts import ROLES
from syncagent.cli.serve import listening
from syncagent.config import load
from syncagent.server.app import create_app
from syncagent.server.auth import MAY, Passwords

PASSWORD = "correct horse battery"
PUBLIC = {("GET", "/healthz"), ("POST", "/token")}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with Agent(load(catalog=f"sqlite:///{tmp_path / 'catalog.db'}")) as agent:
        app = create_app(agent, secret="s" * 40)
        accounts = app.state.platform.accounts
        hashed = Passwords().hash(PASSWORD)
        accounts.add("owner@example.com", hashed, admin=True)
        for name in ("writer", "stranger"):
            accounts.add(f"{name}@example.com", hashed)
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
    found += [("GET", "/docs"), ("GET", "/openapi.json")]
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
def test_every_route_but_two_wants_a_token(client: TestClient, given: dict[str, str]) -> None:
    for method, path in routes(client):
        if (method, path) in PUBLIC:
            continue
        answer = call(client, method, path, given)
        assert answer.status_code == 401, (method, path, answer.status_code, answer.text)
        assert answer.json()["status"] == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"


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


def test_asking_for_an_item_counts_nothing(client: TestClient, owner: dict[str, str], dataset: str) -> None:
    app: Any = client.app
    item = upload(client, owner, dataset, "/a.txt").json()["id"]
    statements: list[str] = []
    app.state.platform.catalog.db._db.set_trace_callback(statements.append)
    assert client.get(f"/api/v1/items/{item}", headers=owner).status_code == 200
    app.state.platform.catalog.db._db.set_trace_callback(None)
    ran = [one for one in statements if "count(" in one and "CASE WHEN 0" not in one]
    assert statements and not ran, "a count walks over the whole dataset"
