"""When to sweep: every so often, or by a cron line."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from syncagent.errors import ConfigError

_EVERY = re.compile(r"(\d+)\s*(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Schedule:
    """``6h`` (s, m, h, d), a cron line of five fields in UTC, or ``off``.

    :raises ConfigError: it is none of these.
    """

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        self.every: int | None = None
        if self.text == "off":
            return
        if every := _EVERY.fullmatch(self.text):
            self.every = int(every[1]) * _SECONDS[every[2]]
            if self.every > 0:
                return
        elif len(self.text.split()) == 5:
            from croniter import CroniterBadDateError, croniter

            if croniter.is_valid(self.text):
                try:
                    croniter(self.text, datetime.now(UTC)).get_next(datetime)
                except CroniterBadDateError:
                    raise ConfigError(
                        f"{text!r} is no schedule: that day never comes",
                        resource=text,
                        hint="write days that there are, such as '0 3 28 2 *'",
                    ) from None
                return
        raise ConfigError(
            f"{text!r} is no schedule",
            resource=text,
            hint="write 6h, a cron line such as '0 3 * * *', or off",
        )

    def next(self, last: float | None, now: float) -> float | None:
        """When the next sweep is due, in Unix seconds; None: never.

        :param last: when the last one began; None: there was none, and one is due now.
        """
        if self.text == "off":
            return None
        if last is None:
            return now
        if self.every is not None:
            # A clock that was set back must not put it off.
            return min(last, now) + self.every
        from croniter import croniter

        at: datetime = croniter(self.text, datetime.fromtimestamp(min(last, now), UTC)).get_next(datetime)
        return at.timestamp()

    @property
    def latency(self) -> str:
        """How long a change may go unnoticed where no event tells of it."""
        return {"off": "until somebody syncs it"}.get(
            self.text, f"up to {self.text}" if self.every else f"until the next of {self.text!r}"
        )
