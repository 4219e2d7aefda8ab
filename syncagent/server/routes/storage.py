"""Integrations (credentials) and drivers (buckets)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastapi import APIRouter

from syncagent.catalog.wire import time
from syncagent.errors import InvalidInput, NotFound, Refused
from syncagent.model import DriverSpec, Integration
from syncagent.server.auth import Who
from syncagent.server.platform import Platform
from syncagent.server.routes.common import Json, JsonBody, On, part, text

router = APIRouter(tags=["storage"])
_INTEGRATIONS = ("s3", "aws-sts", "gcs", "azureblob", "key_value")
_BUCKET = {"s3": "bucketName", "gcs": "bucket", "azureblob": "containerName"}


# -- integrations: an administrator's, and the secrets never come back ---------------------------


def _integration(on: Platform, found: Integration) -> Json:
    return {
        "id": found.id, "name": found.name, "type": found.type, "org": on.organization, "creator": None,
        "createdAt": None, "updatedAt": None, "metadata": [{"name": "status", "value": "active"}],
    }  # fmt: skip


def _one(on: Platform, org: str, integration: str) -> Integration:
    if org == on.organization:
        for found in on.catalog.integrations():
            if found.id == integration:
                return found
    raise NotFound(f"no integration {integration!r:.60}", resource=integration)


@router.post("/orgs/{org}/integrations", summary="Store credentials, sealed")
def create(on: On, who: Who, org: str, body: JsonBody) -> Json:
    who.administer()
    kind = text(body, "type")
    if kind not in _INTEGRATIONS:
        raise InvalidInput(
            f"integrations of type {kind!r:.40} are not offered", resource="type",
            hint=f"known are {', '.join(_INTEGRATIONS)}",
        )  # fmt: skip
    return _integration(
        on, on.catalog.create_integration(Integration(text(body, "name"), kind, _options(body)))
    )


def _options(body: Json) -> dict[str, str]:
    told = part(body, "options")
    if not all(isinstance(value, str) for value in told.values() if value is not None):
        raise InvalidInput("the options of an integration are texts", resource="options")
    return {name: value for name, value in told.items() if value}


@router.get("/orgs/{org}/integrations", summary="Integrations, without their secrets")
@router.get("/orgs/{org}/availableIntegrations", summary="Integrations that may be used")
def listed(on: On, who: Who, org: str) -> list[Json]:
    return [_integration(on, found) for found in on.catalog.integrations()] if org == on.organization else []


@router.get("/orgs/{org}/integrations/{integration}", summary="One integration")
def get(on: On, who: Who, org: str, integration: str) -> Json:
    return _integration(on, _one(on, org, integration))


@router.patch("/orgs/{org}/integrations", summary="Rename an integration, or change its secrets")
def change(on: On, who: Who, org: str, body: JsonBody) -> Json:
    who.administer()
    found = _one(on, org, text(body, "integrationId"))
    credentials = part(body, "credentials")
    options = _options(credentials) if credentials else None
    name = body.get("name")
    on.catalog.change_integration(
        found.name, new_name=name if isinstance(name, str) and name else None, options=options
    )
    on.forget_all()
    return _integration(on, _one(on, org, found.id))


@router.delete("/orgs/{org}/integrations/{integration}", summary="Forget credentials that no driver uses")
def delete(on: On, who: Who, org: str, integration: str) -> Json:
    who.administer()
    on.catalog.remove_integration(_one(on, org, integration).name)
    return {"id": integration}


# -- drivers -------------------------------------------------------------------------------------


def _driver(on: Platform, found: DriverSpec, integrations: dict[str, Integration]) -> Json:
    project, creator, created = on.accounts.driver_owner(found.id)
    used = integrations.get(found.integration or "")
    return {
        "id": found.id, "name": found.name, "type": found.type, "creator": creator, "createdAt": time(created),
        "integrationId": used.id if used else None, "integrationType": used.type if used else None,
        "allowExternalDelete": found.allow_external_delete, "allowExternalModification": False,
        "metadata": {"system": {"projectId": project}}, _BUCKET.get(found.type, "bucket"): found.bucket,
        "storageClass": found.storage_class or "", "region": found.region, "path": found.path,
        "endpoint": found.endpoint,
    }  # fmt: skip


def _named(on: Platform) -> dict[str, Integration]:
    return {found.name: found for found in on.catalog.integrations()}


def _find(on: Platform, driver: str) -> DriverSpec:
    for found in on.catalog.drivers():
        if found.id == driver:
            return found
    raise NotFound(f"no driver {driver!r:.60}", resource=driver)


@router.post("/drivers", summary="Say where a bucket is")
def create_driver(on: On, who: Who, body: JsonBody) -> Json:
    project = text(part(part(body, "metadata"), "system"), "projectId")
    who.may("driver.write", project)
    who.administer()  # a driver opens a bucket with everybody's credentials
    kind, payload = text(body, "type"), part(body, "payload")
    if kind not in _BUCKET:
        raise InvalidInput(
            f"drivers of type {kind!r:.40} are not offered", resource="type", hint=f"known are {', '.join(_BUCKET)}"
        )  # fmt: skip
    integration = None
    if wanted := body.get("integrationId"):
        integration = _one(on, on.organization, str(wanted)).name
    spec = DriverSpec(
        type=kind, bucket=text(payload, _BUCKET[kind]), path=str(payload.get("path") or "").strip("/"),
        region=payload.get("region") or None, endpoint=payload.get("endpoint") or None,
        storage_class=payload.get("storageClass") or None, name=text(body, "name"), integration=integration,
        allow_external_delete=bool(body.get("allowExternalDelete")),
    )  # fmt: skip
    with on.catalog.db.transaction():
        made = on.catalog.create_driver(_with_account(on, spec))
        on.accounts.own_driver(made.id, project, who.email)
    return _driver(on, _find(on, made.id), _named(on))


def _with_account(on: Platform, spec: DriverSpec) -> DriverSpec:
    """The platform names an Azure container without its account, which the integration's key holds."""
    if spec.type != "azureblob" or "/" in spec.bucket or spec.integration is None:
        return spec
    account: Any = on.catalog.integration(spec.integration).options.get("key")
    return replace(spec, bucket=f"{account}/{spec.bucket}") if account else spec


@router.get("/drivers", summary="Drivers of a project")
def drivers(on: On, who: Who, projectId: str) -> list[Json]:  # noqa: N803
    who.may("dataset.read", projectId)
    named = _named(on)
    told = [_driver(on, found, named) for found in on.catalog.drivers()]
    return [one for one in told if one["metadata"]["system"]["projectId"] == projectId]


@router.get("/drivers/{driver}", summary="One driver")
def driver(on: On, who: Who, driver: str) -> Json:
    who.may("dataset.read", on.accounts.driver_owner(driver)[0])
    return _driver(on, _find(on, driver), _named(on))


@router.delete("/drivers/{driver}", summary="Forget a driver that no dataset uses")
def delete_driver(on: On, who: Who, driver: str) -> Json:
    who.may("driver.write", on.accounts.driver_owner(driver)[0])
    who.administer()
    try:
        on.catalog.remove_driver(_find(on, driver).name)
    except Refused as used:
        raise InvalidInput(str(used), resource=driver) from used
    return {"id": driver}
