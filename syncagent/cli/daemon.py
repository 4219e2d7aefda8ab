"""run, handle, status: following events."""

from __future__ import annotations

import logging
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from syncagent.cli import output
from syncagent.cli.root import json_option, option, with_agent
from syncagent.errors import EXIT_DIFFERS, ConfigError, SyncAgentError

if TYPE_CHECKING:
    from collections.abc import Callable

    from syncagent.agent import Agent
    from syncagent.catalog import Dataset
    from syncagent.config import Settings

_PROVIDERS = {"aws": "s3", "gcp": "gcs", "azure": "azureblob", "local": "file"}


@click.command()
@click.argument("datasets", nargs=-1, metavar="[DATASET]...")
@option(
    "--queue",
    metavar="URL",
    help="Queue of their events: sqs://, pubsub://, azqueue://, servicebus://, watch://.",
)
@option("--sweep", metavar="WHEN", help="6h, a cron line in UTC, or off.")
@option("--listen", metavar="HOST:PORT", help="Address for health, metrics and status; empty for none.")
@with_agent
def run(
    agent: Agent, datasets: tuple[str, ...], queue: str | None, sweep: str | None, listen: str | None
) -> None:
    """Follow queues of events, and sweep on a schedule what they missed, until SIGTERM.

    What to follow stands in syncagent.toml, a table [datasets.NAME] each; or give DATASETs here. SIGHUP reads the settings and
    the secrets again.
    """
    try:
        from syncagent.daemon.service import Daemon, Lines
    except ModuleNotFoundError as missing:
        raise ConfigError(
            f"the daemon needs the package {missing.name}", hint="pip install 'syncagent[daemon]'"
        ) from missing
    read = _reader(datasets, queue, sweep, listen)
    settings = read()
    root = logging.getLogger("syncagent")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines(as_json=settings.run.log == "json"))
    root.addHandler(handler)
    root.propagate = False
    if "log_level" not in settings.model_fields_set:
        root.setLevel("INFO")
    agent.close()  # the daemon has its own
    daemon = Daemon(read)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: daemon.stop())
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda *_: daemon.reload())
    daemon.run(
        lambda address: output.note(
            f"following {', '.join(settings.datasets)}" + (f"; http://{address}/healthz" if address else "")
        )
    )
    output.note("stopped")


def _reader(
    datasets: tuple[str, ...], queue: str | None, sweep: str | None, listen: str | None
) -> Callable[[], Settings]:
    """What reads the settings, with the command's own words over them."""
    given = click.get_current_context().find_root().obj

    def read() -> Settings:
        from syncagent.config import Follow, load

        settings = load(given["config"], catalog=given["catalog"])
        follow = dict(settings.datasets)
        for name in datasets:
            known = follow.get(name, Follow())
            follow[name] = known.model_copy(
                update={
                    field: value for field, value in (("queue", queue), ("sweep", sweep)) if value is not None
                }
            )
        if datasets:
            follow = {name: follow[name] for name in datasets}
        elif queue is not None or sweep is not None:
            raise ConfigError(
                "--queue and --sweep are for datasets", hint="name them: syncagent run DATASET --queue …"
            )
        if not follow:
            raise ConfigError(
                "there is nothing to follow",
                hint="name a dataset, or write [datasets.NAME] into syncagent.toml; see docs/events.md",
            )
        run = settings.run if listen is None else settings.run.model_copy(update={"listen": listen})
        return settings.model_copy(update={"datasets": follow, "run": run})

    return read


@click.command()
@click.argument("file", metavar="FILE|-")
@option(
    "--from",
    "provider",
    type=click.Choice(sorted(_PROVIDERS)),
    help="Whose event it is. A dead letter says it itself.",
)
@json_option
@with_agent
def handle(agent: Agent, file: str, provider: str | None, as_json: bool) -> int:
    """Settle what an event's payload names, as a function or the daemon would.

    FILE holds the payload as the cloud sent it, or a message that the daemon gave up; - reads from standard input.
    """
    from syncagent.handlers.deliveries import take
    from syncagent.handlers.mirror import Mirror

    name = "standard input" if file == "-" else file
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{name} cannot be read: {error.strerror}", resource=name) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name} is no UTF-8 text", resource=name) from error
    taken = take(Mirror(agent), [(name, _delivery(text, provider, name))])
    outcomes = taken.settled.outcomes if taken.settled else []
    lines = output.Lines(as_json=as_json, limit=None)
    for _, outcome in outcomes:
        lines(outcome)
    record = taken.record()
    if as_json:
        output.emit_json({"handled": record})
    else:
        told = (
            ", ".join(f"{count} {what}" for what, count in {**record.get("settled", {})}.items()) or "nothing"
        )
        ignored = f"; {sum(taken.ignored.values())} ignored" if taken.ignored else ""
        outside = f"; {record['outside']} outside every dataset" if record.get("outside") else ""
        sys.stdout.write(f"{sum(taken.events.values())} events: {told}{ignored}{outside}\n")
    for reason in taken.errors.values():
        raise reason
    return 0


def _delivery(text: str, provider: str | None, name: str) -> Any:
    import json

    from syncagent.handlers.deliveries import parser

    body: str = text
    attributes: dict[str, str] = {}
    try:
        told = json.loads(text)
    except ValueError:
        told = None
    if (
        isinstance(told, dict)
        and isinstance(told.get("body"), str)
        and "queue" in told
        and "given_up_at" in told
    ):
        body, attributes = told["body"], told.get("attributes") or {}
        kind = told.get("provider")
    elif provider is None:
        raise ConfigError(
            f"{name} does not say whose event it is", hint="give --from aws, gcp, azure or local"
        )
    else:
        kind = None
        if isinstance(told, dict) and isinstance(told.get("attributes"), dict) and "body" in told:
            body, attributes = told["body"], told["attributes"]
    parse = parser(_PROVIDERS[provider] if provider else str(kind))
    return lambda: parse(body, attributes)


@click.command()
@click.argument("datasets", nargs=-1, metavar="[DATASET]...")
@json_option
@with_agent
def status(agent: Agent, datasets: tuple[str, ...], as_json: bool) -> int:
    """Show how far every dataset is: its last sweep, what events missed, its queue. Exit code 1 if one needs a look."""
    from syncagent.config import Follow

    known = [agent.catalog.dataset(name) for name in datasets] or agent.catalog.datasets()
    daemon, unheard = _daemon(agent.settings)
    told_of = [one.name for one in known if agent.settings.datasets.get(one.name, Follow()).queue]
    if unheard:
        output.note(unheard)
    elif daemon is None and told_of and agent.settings.run.listen:
        output.note(f"no daemon answers at {agent.settings.run.listen}, to follow {', '.join(told_of)}")
    rows = [_status(agent, dataset, daemon) for dataset in known]
    if as_json:
        for row in rows:
            output.emit_json(row)
    else:
        if daemon:
            output.note(
                f"the daemon runs (process {daemon['pid']}), {'ready' if daemon['ready'] else 'not ready yet'}"
            )
        output.table(
            [
                (
                    row["dataset"], row["items"], row["sweep"], row["ended"] or "-",
                    "-" if row["drift"] is None else row["drift"], row["quarantined"], row["queue"] or "-",
                    "; ".join(row["warnings"]) or "ok",
                )
                for row in rows
            ],
            ("dataset", "items", "last sweep", "ended", "drift", "quarantined", "queue", ""),
        )  # fmt: skip
    return EXIT_DIFFERS if any(row["warnings"] for row in rows) else 0


def _status(agent: Agent, dataset: Dataset, daemon: dict[str, Any] | None) -> dict[str, Any]:
    from syncagent.config import Follow

    runs = agent.catalog.runs(dataset.id, limit=20) if dataset.driver.type != "none" else []
    done = [run for run in runs if run.state == "done"]
    drift = done[0].report.drift if len(done) > 1 else None
    followed = agent.settings.datasets.get(dataset.name, Follow())
    told = daemon or {}
    # What the daemon follows may come by its command line, of which the settings know nothing.
    url = told.get("datasets", {}).get(dataset.name, {}).get("queue") or followed.queue
    quarantined = len(agent.catalog.quarantined(dataset.id)) if runs or url else 0
    warnings = []
    if runs and runs[0].state in {"failed", "refused"}:
        warnings.append(f"the last sweep was {runs[0].state}: {runs[0].error or runs[0].report.refused}")
    if drift is not None and url and drift > followed.drift_warning:
        warnings.append(f"drift: {drift} keys differed that no event told of")
    if quarantined:
        warnings.append("see 'syncagent quarantine ls'")
    if url and url in told.get("waits_for", ()):
        warnings.append("the daemon waits for its queue")
    queue = told.get("queues", {}).get(url, {})
    if queue.get("trouble") and time.time() - queue.get("trouble_at", 0) < 120:
        warnings.append(f"queue: {queue['trouble']}")
    return {
        "dataset": dataset.name,
        "items": agent.catalog.count(dataset.id),
        "sweep": runs[0].state if runs else "never",
        "ended": (done[0].ended_at if done else None),
        "drift": drift,
        "quarantined": quarantined,
        "queue": _depth(agent, url, followed.integration, queue),
        "warnings": warnings,
    }


def _depth(agent: Agent, url: str | None, integration: str | None, told: dict[str, Any]) -> str | None:
    """What waits in a queue, as the daemon or the queue itself says."""
    if url is None:
        return None
    if "waiting" not in told:
        from syncagent.drivers.queues import open_queue

        try:
            queue = open_queue(url, agent.catalog.integration(integration) if integration else None)
            try:
                depth = queue.depth()
            finally:
                queue.close()
        except SyncAgentError as reason:
            return f"? ({reason.message})"
        told = {"waiting": depth.waiting, "in_flight": depth.in_flight}
    waiting = "?" if told.get("waiting") is None else told["waiting"]
    held = f", {told['held']} in hand, oldest {told['oldest_seconds']:.0f} s" if told.get("held") else ""
    return f"{waiting} waiting{held}"


def _daemon(settings: Settings) -> tuple[dict[str, Any] | None, str | None]:
    """What the daemon on this machine says of itself, None where it does not run; and why it does not say it to us."""
    import httpx

    try:
        from syncagent.daemon.service import token_of
    except ModuleNotFoundError:
        return None, None
    if not settings.run.listen:
        return None, None
    try:
        token = token_of(settings)
    except SyncAgentError as reason:
        return None, f"the daemon cannot be asked: run.token: {reason}"
    host, _, port = settings.run.listen.rpartition(":")
    host = "127.0.0.1" if host in {"0.0.0.0", "[::]", ""} else host  # noqa: S104
    try:
        answer = httpx.get(
            f"http://{host}:{port}/status",
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=2,
            trust_env=False,
        )
        told = answer.json() if answer.status_code == 200 else None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return None, None
    if answer.status_code == 401:
        from syncagent.config import home

        who, remedy = f"the daemon at {settings.run.listen}", "set run.token or SYNCAGENT_HOME as it has them"
        if token is None:
            return None, f"{who} cannot be asked: there is no token in {home() / 'run.token'}; {remedy}"
        return None, f"{who} does not take this token; {remedy}"
    return told if isinstance(told, dict) else None, None


COMMANDS = (run, handle, status)
