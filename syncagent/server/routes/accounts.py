"""Signing in, organizations, projects and their members."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request

from syncagent.errors import InvalidInput, NotFound
from syncagent.server.auth import REFRESH_SECONDS, TOKEN_SECONDS, Caller, Passwords, Tokens, Who
from syncagent.server.platform import Platform
from syncagent.server.routes.common import Json, JsonBody, On, text

gate = APIRouter(tags=["accounts"])
router = APIRouter(tags=["accounts"])


@gate.post("/token", summary="Sign in, or renew a token")
def token(on: On, request: Request, body: JsonBody) -> Json:
    tokens: Tokens = request.app.state.tokens
    passwords: Passwords = request.app.state.passwords
    if body.get("type") == "refresh_token":
        account = tokens.read(text(body, "refresh_token"), use="refresh")
        return {"id_token": tokens.issue(account), "token_type": "Bearer", "expires_in": TOKEN_SECONDS}
    address = request.client.host if request.client else ""
    account = passwords.check(on.accounts, text(body, "username"), text(body, "password"), address)
    return {
        "id_token": tokens.issue(account),
        "refresh_token": tokens.issue(account, use="refresh", seconds=REFRESH_SECONDS),
        "token_type": "Bearer",
        "expires_in": TOKEN_SECONDS,
    }


@router.get("/users/me", summary="Who I am")
def me(on: On, who: Who) -> Json:
    return _user(on, who)


def _user(on: Platform, who: Caller) -> Json:
    account = who.account
    return {
        "id": account.id, "username": account.email, "email": account.email, "firstName": "", "lastName": "",
        "type": "bot" if account.bot else "user", "org": on.organization, "createdAt": account.created_at * 1000,
    }  # fmt: skip


@router.post("/apiKeys", summary="A long-lived token")
def api_key(on: On, who: Who, request: Request, body: JsonBody) -> Json:
    if str(body.get("userId", who.email)).lower() != who.email:
        raise InvalidInput("a key can only be made for oneself", resource="userId")
    tokens: Tokens = request.app.state.tokens
    return {"jwt": tokens.issue(who.account, seconds=365 * 24 * 3600)}


# -- organizations -------------------------------------------------------------------------------


def _organization(on: Platform, org: str | None = None) -> Json:
    if org not in (None, on.organization):
        raise NotFound(f"no organization {org!r:.60}", resource=str(org))
    return {"id": on.organization, "name": "syncagent", "members": [], "groups": [], "plan": "self-hosted"}


@router.get("/orgs", summary="The organization")
def organizations(on: On, who: Who) -> list[Json]:
    return [_organization(on)]


@router.get("/orgs/{org}", summary="The organization")
def organization(on: On, who: Who, org: str) -> Json:
    return _organization(on, org)


@router.get("/orgs/{org}/members", summary="Everybody, for administrators; else oneself")
def organization_members(on: On, who: Who, org: str) -> list[Json]:
    _organization(on, org)
    if not who.account.admin:
        return [_user(on, who)]
    return [_user(on, Caller(account, {})) for account in on.accounts.all()]


@router.get("/orgs/{org}/groups", summary="There are no groups")
def organization_groups(on: On, who: Who, org: str) -> list[Json]:
    _organization(on, org)
    return []


@router.get("/orgs/{org}/projects", summary="My projects")
def organization_projects(on: On, who: Who, org: str) -> list[Json]:
    _organization(on, org)
    return projects(on, who)


# -- projects ------------------------------------------------------------------------------------


def _project(on: Platform, told: Json) -> Json:
    return told | {
        "org": _organization(on),
        "contributors": on.accounts.members(told["id"]),
        "isBlocked": False,
        "archived": False,
        "systemProject": False,
        "featureConstraints": [],
    }


def _mine(on: Platform, who: Who, project: str) -> Json:
    for told in on.accounts.projects(who.account):
        if told["id"] == project:
            return told
    raise NotFound(f"no project {project!r:.60}", resource=project)


@router.get("/projects", summary="My projects")
def projects(on: On, who: Who) -> list[Json]:
    return [_project(on, told) for told in on.accounts.projects(who.account)]


@router.post("/projects", summary="Create a project")
def create(on: On, who: Who, name: Annotated[str, Form()]) -> Json:
    return _project(on, _mine(on, who, on.accounts.create_project(name, who.account)))


@router.get("/projects/{name:path}/name", summary="Projects of a name")
def by_name(on: On, who: Who, name: str) -> list[Json]:
    return [_project(on, told) for told in on.accounts.projects(who.account) if told["name"] == name]


@router.get("/projects/{project}", summary="One project")
def get(on: On, who: Who, project: str) -> Json:
    return _project(on, _mine(on, who, project))


@router.patch("/projects/{project}", summary="Rename a project")
def change(on: On, who: Who, project: str, body: JsonBody) -> Json:
    who.may("project.write", project)
    if isinstance(name := body.get("name"), str) and name:
        on.accounts.rename_project(project, name)
    return _project(on, _mine(on, who, project))


@router.delete("/projects/{project}", summary="Delete an empty project")
def delete(on: On, who: Who, project: str) -> Json:
    who.may("project.write", project)
    on.accounts.remove_project(project)
    return {"id": project}


@router.get("/projects/{project}/members", summary="Who may do what")
def members(on: On, who: Who, project: str) -> list[Json]:
    who.may("dataset.read", project)
    return on.accounts.members(project)


@router.post("/projects/{project}/members/{email}", summary="Give a role")
@router.patch("/projects/{project}/members/{email}", summary="Change a role")
def set_member(on: On, who: Who, project: str, email: str, body: JsonBody) -> list[Json]:
    who.may("project.write", project)
    on.accounts.set_member(project, email, text(body, "role"))
    return on.accounts.members(project)


@router.delete("/projects/{project}/members/{email}", summary="Take a role away")
def remove_member(on: On, who: Who, project: str, email: str) -> list[Json]:
    who.may("project.write", project)
    on.accounts.remove_member(project, email)
    return on.accounts.members(project)
