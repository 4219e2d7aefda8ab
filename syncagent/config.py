"""Settings: option, then environment, then file, then default."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from syncagent.errors import ConfigError

_FILES = (Path("syncagent.toml"), Path("~/.config/syncagent/config.toml"))


def home() -> Path:
    """Where the default catalog is: ``SYNCAGENT_HOME``, or ``~/.syncagent``."""
    return Path(os.environ.get("SYNCAGENT_HOME") or "~/.syncagent").expanduser()


class Follow(BaseModel):
    """How ``syncagent run`` follows one dataset: a table ``[datasets.NAME]``."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    queue: str | None = None
    """URL of the queue that its bucket's events go to. Several datasets may name one queue."""
    integration: str | None = None
    """Stored credentials for the queue; default the SDK's own chain."""
    bind: Literal["queue", "function", "eventbridge", "pubsub", "eventgrid"] | None = None
    """Where ``syncagent bind`` makes the bucket's events go: its ``--to``; default ``queue``."""
    function: str | None = None
    """With ``bind = "function"``: which one, as its ``--function`` has it."""
    service_account: str | None = None
    """Whom a push on Google is signed for."""
    dead_letter: str | None = None
    """Container on Azure for what Event Grid could not deliver."""
    sweep: str | None = None
    """``6h``, a cron line in UTC, or ``off``. Default: ``24h`` with a queue, ``15m`` without one."""
    max_deletes: int | None = Field(default=None, ge=0)
    """Items that one of its sweeps may remove; default the setting of all."""
    drift_warning: int = Field(default=100, ge=0)
    """Warn when a sweep had to repair more keys than this."""


class Run(BaseModel):
    """``syncagent run``: the table ``[run]``."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    listen: str = "127.0.0.1:9464"
    """Address and port for health, metrics and status; empty for none."""
    token: SecretStr | None = None
    """Asked for by metrics and status; default: made once, in ``SYNCAGENT_HOME/run.token``."""
    in_flight: int = Field(default=2000, ge=1, le=100_000)
    """Messages of one queue that are worked on at once."""
    attempts: int = Field(default=10, ge=1)
    """Deliveries after which a message that fails for good is given up, into `dead_letters`."""
    dead_letters: Path | None = None
    """Folder for messages that were given up; default ``SYNCAGENT_HOME/dead-letters``."""
    poll: float = Field(default=5.0, ge=1, le=20)
    """Seconds that one request waits for messages."""
    drain: float = Field(default=30.0, ge=0)
    """Seconds that work in progress has to end, once told to stop."""
    log: Literal["text", "json"] = "text"


_TABLES: dict[str, type[BaseModel]] = {"run": Run, "datasets": Follow}


_PLATFORMS = {"dataset_id", "dtlpy_username", "dtlpy_password"}
"""Settings whose variables have the names that the platform's own client gives them."""


class Settings(BaseModel):
    """Everything that can be set. Each has a ``SYNCAGENT_…`` variable of the same name, unless it names its own."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    catalog: str = Field(default_factory=lambda: f"sqlite:///{home() / 'catalog.db'}")
    secret_key: SecretStr | None = None
    """Fernet key that seals integrations; else from `secret_key_file`."""
    secret_key_file: Path | None = None
    """Default: beside the catalog, made on first use with mode 0600. With PostgreSQL there is no default."""
    files: Path | None = None
    """Folder for uploaded bytes and thumbnails of datasets without a bucket; default beside the catalog. With PostgreSQL there
    is no default, and every server of the catalog needs the same one."""
    catalog_timeout: float = Field(default=30.0, ge=0)
    """Seconds to wait for another process's write."""
    catalog_pool: int = Field(default=8, ge=1, le=1000)
    """Connections to PostgreSQL that one process opens at most, apart from one that holds locks."""
    dataset_id: str | None = None
    """The one dataset of a ``dataloop+https://`` catalog to work on; its variable is ``DATASET_ID``."""
    dtlpy_username: str | None = None
    """The account for a ``dataloop+https://`` catalog; its variable is ``DTLPY_USERNAME``."""
    dtlpy_password: SecretStr | None = None
    """Of that account; its variable is ``DTLPY_PASSWORD``."""
    max_deletes: int | None = Field(default=None, ge=0)
    """Items that one sweep may remove; default the larger of 1,000 and 10 % of the dataset."""
    workers: int = Field(default=8, ge=1, le=256)
    """Keys settled at once."""
    listers: int = Field(default=8, ge=1, le=256)
    """Parts of a bucket that a sweep lists at once, where the store can begin at any key."""
    processes: int | None = Field(default=None, ge=0, le=64)
    """Processes that read a long listing's pages for a sweep; default one for each core, 4 at most. Below 2 there are none."""
    trash_days: float = Field(default=30, ge=0)
    tombstone_days: float = Field(default=15, ge=0)
    """Longer than the slowest redelivery of an event: SQS keeps messages up to 14 days."""
    admin_email: str | None = None
    """Of the administrator that the server's first start makes."""
    admin_password: SecretStr | None = None
    """Of that administrator; else one is made up and printed once."""
    redirect_streams: bool = False
    """Answer for an item's bytes with a short-lived signed URL of its bucket, where the credentials can sign one."""
    server_secret: SecretStr | None = None
    """Signs the server's tokens; needed to listen on other addresses than this machine's own."""
    run: Run = Field(default_factory=Run)
    datasets: dict[str, Follow] = Field(default_factory=dict)
    """What ``syncagent run`` follows, by the dataset's name."""
    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    """What the log on stderr tells, such as names that a driver passes over."""


def load(path: Path | None = None, **options: Any) -> Settings:
    """Read settings.

    :param path: a TOML file; None looks for ``syncagent.toml`` here, then in ``~/.config/syncagent``.
    :param options: given by the user; None means not given.
    :raises ConfigError: a file that is no TOML, an unknown key, a value that does not fit.
    """
    named = path or (Path(os.environ["SYNCAGENT_CONFIG"]) if os.environ.get("SYNCAGENT_CONFIG") else None)
    found = named or next((file.expanduser() for file in _FILES if file.expanduser().is_file()), None)
    given = {name: value for name, value in options.items() if value is not None}
    from_file = _read(found) if found else {}
    from_environment = _environment()
    from_file = {name: value for name, value in from_file.items() if name not in from_environment}
    try:
        return Settings(**{**from_file, **from_environment, **given})
    except ValidationError as error:
        first = error.errors()[0]
        top, *below = map(str, first["loc"])
        name = ".".join((top, *below))
        where = str(found) if top in from_file else _variable(top)
        if first["type"] == "extra_forbidden" and top in _TABLES:
            known = _TABLES[top].model_fields
            raise ConfigError(
                f"{where}: unknown setting {name!r}", resource=name, hint=_meant(below[-1], known)
            ) from None
        if name in given:
            name = f"--{name.replace('_', '-')}"
        else:
            name = f"{where}: {name}" if below or top in from_file else where
        page = "docs/events.md" if top in _TABLES else "docs/cli.md"
        raise ConfigError(f"{name}: {first['msg']}", resource=name, hint=f"see {page}") from None


def _environment() -> dict[str, Any]:
    """What variables say; an empty one says nothing. Tables are JSON objects."""
    found: dict[str, Any] = {}
    for name in Settings.model_fields:
        text = os.environ.get(variable := _variable(name))
        if text and name in _TABLES:
            try:
                found[name] = json.loads(text)
            except ValueError as error:
                raise ConfigError(
                    f"{variable} is no JSON object", resource=variable, hint="see docs/events.md"
                ) from error
        elif text:
            found[name] = text
    return found


def _variable(name: str) -> str:
    return name.upper() if name in _PLATFORMS else f"SYNCAGENT_{name.upper()}"


def _read(path: Path) -> dict[str, Any]:
    import tomllib  # a function has no such file

    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no such settings file: {path}", resource=str(path)) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} is not readable TOML: {error}", resource=str(path)) from error
    for name in values:
        if name not in Settings.model_fields:
            hint = _meant(name, Settings.model_fields)
            raise ConfigError(f"{path}: unknown setting {name!r}", resource=name, hint=hint)
    return values


def _meant(name: str, known: Iterable[str]) -> str:
    """What a person may have meant by a setting's name."""
    import difflib

    names = sorted(known)
    close = difflib.get_close_matches(name, names, 1)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(names)}"
