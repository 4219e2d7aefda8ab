"""Who calls: passwords, tokens, roles."""

from __future__ import annotations

import functools
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Annotated, Any, cast

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from syncagent.catalog.sql.accounts import Account, Accounts
from syncagent.errors import AccessDenied, NotFound, Transient
from syncagent.server.platform import Platform

TOKEN_SECONDS = 24 * 3600
REFRESH_SECONDS = 30 * 24 * 3600
_ATTEMPTS, _WINDOW_SECONDS = 10, 300

_READ = {"dataset.read"}
_ANNOTATE = _READ | {"annotation.write"}
_MANAGE = _ANNOTATE | {"item.write"}
_DEVELOP = _MANAGE | {"dataset.write", "driver.write"}
# What each role may do in its projects.
MAY = {
    "viewer": _READ,
    "annotator": _ANNOTATE,
    "annotationManager": _MANAGE,
    "engineer": _DEVELOP,
    "owner": _DEVELOP | {"project.write"},
}


class Unauthorized(AccessDenied):
    """No token, or none that is good: sign in again."""


class TooManyAttempts(Transient):
    """Too many wrong passwords for one address."""


class Passwords:
    """Hashes and checks passwords, and slows down who guesses."""

    def __init__(self) -> None:
        from argon2 import PasswordHasher

        self._hasher = PasswordHasher()
        self._lock = threading.Lock()
        self._wrong: OrderedDict[str, list[float]] = OrderedDict()

    def hash(self, password: str) -> str:
        """An argon2 hash.

        :raises AccessDenied: it is too short to be one.
        """
        if len(password) < 8:
            raise AccessDenied("a password needs at least 8 characters")
        return self._hasher.hash(password)

    def check(self, accounts: Accounts, email: str, password: str, address: str) -> Account:
        """The account of a right password.

        :raises Unauthorized: wrong, or nobody; both take as long.
        :raises TooManyAttempts: wrong too often from this address, or for this account.
        """
        from argon2.exceptions import Argon2Error

        names = [f"account {email.strip().lower()}", f"address {address}"]
        self._refuse_guessing(names)
        try:
            account: Account | None = accounts.get(email)
        except NotFound:
            account = None
        try:
            self._hasher.verify(account.password if account else _nobody(), password)
        except Argon2Error:
            account = None
        if account is None:
            with self._lock:
                for name in names:
                    self._wrong.setdefault(name, []).append(time.monotonic())
                while len(self._wrong) > 10_000:
                    self._wrong.popitem(last=False)
            raise Unauthorized("wrong email address or password")
        with self._lock:
            self._wrong.pop(names[0], None)
        return account

    def _refuse_guessing(self, names: list[str]) -> None:
        since = time.monotonic() - _WINDOW_SECONDS
        with self._lock:
            for name in names:
                recent = [at for at in self._wrong.get(name, []) if at > since]
                if name in self._wrong:
                    self._wrong[name] = recent
                if len(recent) >= _ATTEMPTS:
                    raise TooManyAttempts(
                        "too many wrong passwords", hint="wait some minutes", retry_after=recent[0] - since
                    )


@functools.cache
def _nobody() -> str:
    """A hash to check passwords of unknown accounts against, which must take as long."""
    from argon2 import PasswordHasher

    return PasswordHasher().hash("nobody has this password")


class Tokens:
    """Signs and reads JSON web tokens (HS256)."""

    def __init__(self, accounts: Accounts, secret: str) -> None:
        self._accounts = accounts
        self._secret = secret

    def issue(self, account: Account, *, use: str = "access", seconds: float = TOKEN_SECONDS) -> str:
        """A token that is good for `seconds`."""
        import jwt

        now = int(time.time())
        claims = {
            "email": account.email, "sub": account.id, "iat": now, "exp": now + int(seconds), "use": use,
            "gen": account.generation, "https://dataloop.ai/authorization": {"roles": []},
        }  # fmt: skip
        return jwt.encode(claims, self._secret, algorithm="HS256")

    def read(self, token: str, *, use: str = "access") -> Account:
        """Whose token it is.

        :raises Unauthorized: it is not ours, is over, or was given before the password changed.
        """
        import jwt

        try:
            claims = jwt.decode(
                token, self._secret, algorithms=["HS256"], options={"require": ["exp", "email"]}
            )
            account = self._accounts.get(str(claims["email"]))
        except (jwt.PyJWTError, NotFound):
            raise Unauthorized("the token is not valid; sign in again") from None
        if (
            claims.get("use") != use
            or claims.get("gen") != account.generation
            or claims.get("sub") != account.id
        ):
            raise Unauthorized("the token is not valid; sign in again")
        return account


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who signed in, and what they may do."""

    account: Account
    roles: dict[str, str]
    """Role by id of project."""

    @property
    def email(self) -> str:
        """The address, which is also the name in `creator`."""
        return self.account.email

    def projects(self) -> list[str]:
        """Ids of the projects that the caller may see."""
        return list(self.roles)

    def may(self, action: str, project: str) -> None:
        """Go on if the caller's role allows it.

        :raises NotFound: the caller has no role there, and need not know that there is such a project.
        :raises AccessDenied: the role does not allow it.
        """
        role = self.roles.get(project)
        if role is None:
            raise NotFound(f"no project {project!r:.60}", resource=project)
        if action not in MAY[role]:
            raise AccessDenied(f"not allowed to {action} as {role}", resource=project, permission=action)

    def administer(self) -> None:
        """Go on if the caller may change what all projects share.

        :raises AccessDenied: the caller is no administrator.
        """
        if not self.account.admin:
            raise AccessDenied("only an administrator may do this", permission="admin")


bearer = HTTPBearer(auto_error=False, description="a token of POST /token")


def caller(
    request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> Caller:
    if given is None:
        raise Unauthorized("sign in first: the request has no bearer token")
    platform = cast(Platform, request.app.state.platform)
    tokens: Tokens = request.app.state.tokens
    account = tokens.read(given.credentials)
    projects: list[dict[str, Any]] = platform.accounts.projects(account)
    return Caller(account, {one["id"]: one["role"] for one in projects})


Who = Annotated[Caller, Depends(caller)]
