"""Every error that syncagent raises on purpose, and the exit code that each one means.

::

    SyncAgentError            exit 1
    ├── ConfigError           exit 2     wrong settings, an unknown URL parameter
    ├── InvalidInput          exit 2     bad event, unreadable file, impossible key
    ├── NotFound              exit 4     no such bucket, object, dataset
    ├── AlreadyExists         exit 1     a name is taken, a conditional put lost
    ├── AccessDenied          exit 6     credentials missing, wrong, expired or not enough
    ├── Unsupported           exit 1     the driver cannot do this
    ├── Conflict              exit 5     transient: somebody else got there first
    ├── Transient             exit 5     transient: try again, after `retry_after` seconds if given
    └── Refused               exit 8     a safety rule said no

A message is one line: what, which resource, what to do. It never holds a secret or a payload.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EXIT_OK = 0
EXIT_DIFFERS = 1
EXIT_USAGE = 2
EXIT_BUG = 70
EXIT_INTERRUPTED = 130


class SyncAgentError(Exception):
    """Base of all expected errors.

    :param message: one line for a person.
    :param resource: the bucket, key, dataset or file that it is about.
    :param hint: what to do about it, one line.
    """

    exit_code = 1
    transient = False

    def __init__(self, message: str, *, resource: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.resource = resource
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class ConfigError(SyncAgentError):
    """The settings, a URL or a record of a driver or integration are wrong."""

    exit_code = EXIT_USAGE


class InvalidInput(SyncAgentError):
    """What was given cannot be what it claims to be."""

    exit_code = EXIT_USAGE


class NotFound(SyncAgentError):
    """The named thing does not exist."""

    exit_code = 4


class AlreadyExists(SyncAgentError):
    """The name is taken."""


class AccessDenied(SyncAgentError):
    """The store or the catalog refused; `permission` names what is missing, in the store's own words."""

    exit_code = 6

    def __init__(
        self,
        message: str,
        *,
        resource: str | None = None,
        hint: str | None = None,
        permission: str | None = None,
    ) -> None:
        super().__init__(message, resource=resource, hint=hint)
        self.permission = permission


class Unsupported(SyncAgentError):
    """The driver cannot do this operation."""


class Conflict(SyncAgentError):
    """Somebody else changed or holds it; reading again and retrying may succeed."""

    exit_code = 5
    transient = True


class Transient(SyncAgentError):
    """A passing fault: network, throttling, a busy database."""

    exit_code = 5
    transient = True

    def __init__(
        self,
        message: str,
        *,
        resource: str | None = None,
        hint: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, resource=resource, hint=hint)
        self.retry_after = retry_after


class Refused(SyncAgentError):
    """A safety rule said no; nothing was removed."""

    exit_code = 8


def packed(error: SyncAgentError) -> dict[str, Any]:
    """What another process can make the same error of. Its cause is left behind: SDKs' errors hold whole requests."""
    return {
        "kind": next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == __name__),
        "message": error.message,
        "resource": error.resource,
        "hint": error.hint,
        **{name: getattr(error, name) for name in ("retry_after", "permission") if hasattr(error, name)},
    }


def unpacked(told: Mapping[str, Any]) -> SyncAgentError:
    """The error that was `packed`."""
    rest = {name: value for name, value in told.items() if name not in ("kind", "message")}
    return named(told["kind"])(told["message"], **rest)


def named(name: str) -> type[SyncAgentError]:
    """The class that an error had elsewhere, by its name; `SyncAgentError` for a name that is none of them."""
    kinds = (
        ConfigError,
        InvalidInput,
        NotFound,
        AlreadyExists,
        AccessDenied,
        Unsupported,
        Conflict,
        Transient,
        Refused,
    )
    return {kind.__name__: kind for kind in kinds}.get(name, SyncAgentError)
