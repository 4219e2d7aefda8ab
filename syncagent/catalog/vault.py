"""Seals integration options at rest, with Fernet (AES-128-CBC and HMAC-SHA256) of `cryptography`."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from syncagent.errors import AccessDenied, ConfigError


class Vault:
    """Seals and opens; the key comes from the settings, or from a file made on first use (mode 0600)."""

    def __init__(self, key: str | None, key_file: Path | None) -> None:
        self._key = key
        self._key_file = key_file

    def __repr__(self) -> str:
        return f"<Vault {self._key_file}>"

    def seal(self, options: Mapping[str, str]) -> bytes:
        """Encrypt `options`."""
        token: bytes = self._fernet(create=True).encrypt(json.dumps(dict(options)).encode())
        return token

    def open(self, sealed: bytes, name: str) -> dict[str, str]:
        """Decrypt.

        :raises AccessDenied: the key is another one than it was sealed with.
        """
        from cryptography.fernet import InvalidToken

        try:
            options: dict[str, str] = json.loads(self._fernet(create=False).decrypt(sealed))
        except InvalidToken as error:
            raise AccessDenied(
                f"integration {name!r} was sealed with another key",
                resource=name,
                hint=f"set SYNCAGENT_SECRET_KEY or restore {self._key_file or 'its key'}",
            ) from error
        return options

    def _fernet(self, *, create: bool):  # type: ignore[no-untyped-def]  # the package is optional
        try:
            from cryptography.fernet import Fernet
        except ModuleNotFoundError as error:
            raise ConfigError(
                "stored integrations need the package cryptography", hint="pip install 'syncagent[cli]'"
            ) from error
        try:
            return Fernet(self._key or self._read_key(create=create))
        except ValueError as error:
            raise ConfigError(
                "the secret key is not a Fernet key", hint="32 bytes in URL-safe base64, 44 characters"
            ) from error

    def _read_key(self, *, create: bool) -> str:
        from cryptography.fernet import Fernet

        if self._key_file is None:
            raise ConfigError(
                "the catalog's stored secrets need a key",
                hint="set SYNCAGENT_SECRET_KEY, or SYNCAGENT_SECRET_KEY_FILE to a file that is made on first use",
            )
        if create:
            with contextlib.suppress(FileExistsError):
                handle = os.open(self._key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(handle, "wb") as file:
                    file.write(Fernet.generate_key())
        try:
            return self._key_file.read_text().strip()
        except FileNotFoundError as error:
            raise AccessDenied(
                f"the key file {self._key_file} is gone",
                resource=str(self._key_file),
                hint="restore it, or set SYNCAGENT_SECRET_KEY",
            ) from error
