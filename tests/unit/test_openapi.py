"""Requests that the OpenAPI document allows, and some that it does not: no 500, no undeclared status."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from hypothesis.strategies import booleans
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import status_code_conformance

from syncagent.agent import Agent
from syncagent.config import load
from syncagent.model import DriverSpec
from syncagent.server.app import create_app
from syncagent.server.auth import Passwords
from tests.rigs.catalogs import url_of

PASSWORD = "correct horse battery"
EXAMPLES = 6
"""Requests for each operation."""


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("openapi")
    with Agent(load(catalog=url_of(folder / "catalog.db"))) as agent:
        app = create_app(agent, secret="s" * 40)
        app.state.platform.accounts.add("owner@example.com", Passwords().hash(PASSWORD), admin=True)
        yield app


@pytest.fixture(scope="module")
def bearer(application: Any) -> dict[str, str]:
    account = application.state.platform.accounts.get("owner@example.com")
    return {"Authorization": f"Bearer {application.state.tokens.issue(account)}"}


@pytest.fixture(scope="module")
def ids(application: Any, bearer: dict[str, str]) -> dict[str, str]:
    """Something of each kind that paths can name, so that not every answer is a 404."""
    from fastapi.testclient import TestClient

    client = TestClient(application, headers=bearer)
    project = client.post("/api/v1/projects", data={"name": "p"}).json()
    dataset = client.post("/api/v1/datasets", json={"name": "d", "projects": [project["id"]]}).json()
    upload = {"type": "file", "path": "/a/b.jpg"}
    item = client.post(
        f"/api/v1/datasets/{dataset['id']}/items", data=upload, files={"file": ("b", b"data", "image/jpeg")}
    ).json()
    label = {"type": "box", "label": "car", "coordinates": [{"x": 1, "y": 1}, {"x": 2, "y": 2}]}
    annotation = client.post(f"/api/v1/items/{item['id']}/annotations", json=[label]).json()[0]
    recipe = dataset["metadata"]["system"]["recipes"][0]
    ontology = client.get(f"/api/v1/recipes/{recipe}").json()["ontologyIds"][0]
    mirrored = application.state.platform.catalog.ensure_dataset("m", DriverSpec(type="memory", bucket="m"))
    return {
        "mirrored": mirrored.id, "project": project["id"], "dataset": dataset["id"], "item": item["id"], "annotation": annotation["id"],
        "recipe": recipe, "ontology": ontology, "org": project["org"]["id"],
    }  # fmt: skip


def test_every_answer_is_declared_and_none_is_500(
    application: Any, bearer: dict[str, str], ids: dict[str, str]
) -> None:
    schema = schemathesis.openapi.from_dict(application.openapi())
    schema.app = application
    wrong: dict[str, str] = {}
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 60
    for operation in operations:

        @settings(
            max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )
        @seed(1)
        @given(case=operation.as_strategy(), real=booleans())
        def requests(case: Any, real: bool) -> None:
            if real and "/syncagent/" in case.path:
                case.path_parameters.update(dict.fromkeys(case.path_parameters, ids["mirrored"]))
            elif real and case.method != "DELETE":
                case.path_parameters.update({name: ids[name] for name in case.path_parameters if name in ids})
            case.call_and_validate(headers=bearer, checks=[not_a_server_error, status_code_conformance])

        try:
            requests()
        except Exception as error:
            wrong[operation.label] = str(error)
    assert not wrong, "\n".join(f"{label}: {text[:400]}" for label, text in wrong.items())
