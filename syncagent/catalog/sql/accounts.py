"""Accounts, projects and roles."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from syncagent.catalog.sql.catalog import SqlCatalog
from syncagent.catalog.sql.items import Json
from syncagent.errors import AlreadyExists, InvalidInput, NotFound, Refused

ROLES = ("owner", "engineer", "annotationManager", "annotator", "viewer")


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody who may sign in."""

    n: int
    id: str
    email: str
    password: str = field(repr=False)
    """Its argon2 hash."""
    bot: bool
    admin: bool
    """Owns every project."""
    generation: int
    """Tokens of an earlier generation are void."""
    created_at: int


class Accounts:
    """Accounts by address, projects by id. Shares the catalog's connection."""

    def __init__(self, catalog: SqlCatalog) -> None:
        self._catalog = catalog
        self._db = catalog.db

    def add(self, email: str, password: str, *, admin: bool = False, bot: bool = False) -> Account:
        """Add somebody.

        :param password: its argon2 hash.
        :raises AlreadyExists: the address is taken; :raises InvalidInput: it is none.
        """
        name, at, host = email.strip().lower().partition("@")
        if not (name and at and host) or any(c.isspace() for c in email.strip()):
            raise InvalidInput(f"{email!r} is no email address", resource=email)
        given = {
            "id": str(uuid.uuid4()), "email": f"{name}@{host}", "password": password, "bot": int(bot),
            "admin": int(admin), "now": self._catalog.now(),
        }  # fmt: skip
        if not self._db.change("create_account", given):
            raise AlreadyExists(f"there is an account {email!r} already", resource=email)
        return self.get(email)

    def get(self, email: str) -> Account:
        """Somebody.

        :raises NotFound: nobody has the address.
        """
        for row in self._db.query("account", {"email": email.strip().lower()}):
            return _account(row)
        raise NotFound(f"no account {email!r}", resource=email, hint="'syncagent users ls' lists them")

    def all(self) -> list[Account]:
        """Everybody, by address."""
        return [_account(row) for row in self._db.query("accounts")]

    def change_password(self, email: str, password: str) -> None:
        """Another hash; tokens given before are void."""
        found = self.get(email)
        self._db.change("change_password", {"email": found.email, "password": password})

    def remove(self, email: str) -> None:
        """Forget somebody.

        :raises Refused: it is the last administrator.
        """
        with self._db.transaction():
            found = self.get(email)
            if found.admin and sum(one.admin for one in self.all()) == 1:
                raise Refused(
                    f"{email} is the last administrator", resource=email, hint="add another one first"
                )
            self._db.change("remove_memberships", {"account": found.n})
            self._db.change("remove_account", {"email": found.email})

    def signing_key(self) -> str:
        """The secret that signs tokens, made on first use."""
        rows = self._db.query("setting", {"name": "signing_key"})
        if rows:
            return self._catalog.vault.open(bytes.fromhex(rows[0][0]), "signing key")["key"]
        sealed = self._catalog.vault.seal({"key": secrets.token_urlsafe(48)}).hex()
        self._db.change("put_setting", {"name": "signing_key", "value": sealed})
        return self.signing_key()

    # -- projects --------------------------------------------------------------------------------

    def projects(self, account: Account) -> list[Json]:
        """The projects that somebody has a role in, oldest first."""
        rows = self._db.query("projects", {"account": account.n})
        return [
            {
                "id": n_id, "name": name, "creator": creator, "createdAt": created * 1000, "updatedAt": updated * 1000,
                "role": "owner" if account.admin else role,
            }
            for n_id, name, creator, created, updated, role in rows
            if account.admin or role
        ]  # fmt: skip

    def create_project(self, name: str, by: Account) -> str:
        """A new project, owned by its maker; its id.

        :raises AlreadyExists: the name is taken.
        """
        if not name or len(name) > 200 or not name.isprintable():
            raise InvalidInput("a project needs a printable name", resource="name")
        n_id = str(uuid.uuid4())
        with self._db.transaction():
            given = {"id": n_id, "name": name, "by": by.email, "now": self._catalog.now()}
            if not self._db.change("create_project", given):
                raise AlreadyExists(f"there is a project {name!r} already", resource=name)
            self._db.change("set_member", {"id": n_id, "email": by.email, "role": "owner"})
        return n_id

    def rename_project(self, project: str, name: str) -> None:
        """Another name.

        :raises AlreadyExists: it is taken.
        """
        with self._db.transaction():
            if self._db.query("project_named", {"name": name, "id": project}):
                raise AlreadyExists(f"there is a project {name!r} already", resource=name)
            self._db.change("rename_project", {"id": project, "name": name, "now": self._catalog.now()})

    def remove_project(self, project: str) -> None:
        """Forget an empty project.

        :raises Refused: something belongs to it.
        """
        with self._db.transaction():
            for (name,) in self._db.query("project_in_use", {"id": project}):
                raise Refused(f"the project still has {name!r}", resource=project, hint="delete that first")
            self._db.change("remove_system_datasets", {"id": project})
            if not self._db.change("remove_project", {"id": project}):
                raise Refused("the project 'syncagent' stays", resource=project)

    def members(self, project: str) -> list[Json]:
        """Who has which role, by address."""
        return [
            {
                "id": n_id,
                "email": email,
                "username": email,
                "bot": bool(bot),
                "role": role,
                "createdAt": at * 1000,
            }
            for n_id, email, bot, role, at in self._db.query("members", {"id": project})
        ]

    def set_member(self, project: str, email: str, role: str) -> None:
        """Give a role.

        :raises InvalidInput: there is no such role; :raises NotFound: no such account.
        """
        if role not in ROLES:
            raise InvalidInput(
                f"unknown role {role!r:.40}", resource="role", hint=f"known are {', '.join(ROLES)}"
            )
        found = self.get(email)
        self._db.change("set_member", {"id": project, "email": found.email, "role": role})

    def remove_member(self, project: str, email: str) -> None:
        """Take a role away.

        :raises NotFound: there was none.
        """
        if not self._db.change("remove_member", {"id": project, "email": email.lower()}):
            raise NotFound(f"{email} is no member of the project", resource=email)

    # -- drivers ---------------------------------------------------------------------------------

    def driver_owner(self, driver: str) -> tuple[str, str | None, int]:
        """The project of a driver, who made it, and when in Unix seconds."""
        for project, creator, created in self._db.query("driver_owner", {"id": driver}):
            return project, creator, created
        raise NotFound(f"no driver {driver!r}", resource=driver)

    def own_driver(self, driver: str, project: str, by: str) -> None:
        """Say whose a driver is."""
        self._db.change("own_driver", {"id": driver, "project": project, "by": by})


def _account(row: Sequence[Any]) -> Account:
    n, n_id, email, password, bot, admin, generation, created = row
    return Account(n, n_id, email, password, bool(bot), bool(admin), generation, created)
