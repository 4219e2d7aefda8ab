"""Messages that were given up: a file each, as they came, so that they can be replayed. They hold keys: mode 0600."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from syncagent.drivers.queues import Message
from syncagent.errors import SyncAgentError


class DeadLetters:
    """A folder of them. ``syncagent handle`` takes such a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, queue: str, provider: str, message: Message, reason: SyncAgentError) -> None:
        """Write one. The same message is kept once.

        :raises OSError: it could not be; then it must stay in its queue.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        told = {
            "queue": queue, "provider": provider, "id": message.id, "attempts": message.attempts,
            "sent_at": message.sent_at, "given_up_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "error": type(reason).__name__, "reason": str(reason), "attributes": dict(message.attributes), "body": message.body,
        }  # fmt: skip
        name = hashlib.sha256(f"{queue}\n{message.id}".encode()).hexdigest()[:24]
        handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=".", suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogatepass") as out:
            json.dump(told, out, indent=1)
            out.flush()
            os.fsync(out.fileno())
        Path(temporary).replace(self.folder / f"{name}.json")

    def count(self) -> int:
        """How many there are."""
        try:
            return sum(one.suffix == ".json" for one in self.folder.iterdir())
        except OSError:
            return 0
