"""bind: a bucket's events come to a queue or a function."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from syncagent.cli import output
from syncagent.cli.root import json_option, option, with_agent
from syncagent.errors import EXIT_DIFFERS, ConfigError, InvalidInput, SyncAgentError
from syncagent.model import Action

if TYPE_CHECKING:
    from syncagent.agent import Agent
    from syncagent.catalog import Dataset
    from syncagent.drivers.wiring import Step, Target

_WORDS = ("queue", "function", "eventbridge", "pubsub", "eventgrid")
_OF_SETTINGS = ("queue", "function", "service_account", "dead_letter")


@dataclass(frozen=True, slots=True)
class _Given:
    """What the command line says; what it does not say is the settings'."""

    to: str | None
    queue: str | None
    function: str | None
    service_account: str | None
    dead_letter: str | None
    scope: str | None


@click.command()
@click.argument("datasets", nargs=-1, metavar="[DATASET]...")
@option(
    "--to", type=click.Choice(_WORDS), help="Where events go. Default: bind in [datasets.NAME], or queue."
)
@option(
    "--queue",
    metavar="URL",
    help="The queue: sqs://, pubsub://, azqueue://. Default: one of the dataset's name.",
)
@option(
    "--function",
    metavar="NAME",
    help="Lambda's name or ARN, an https:// URL on Google, a resource id on Azure.",
)
@option(
    "--service-account",
    metavar="EMAIL",
    help="Whom a push on Google is signed for; it may invoke the function.",
)
@option(
    "--dead-letter", metavar="CONTAINER", help="On Azure, where Event Grid keeps what it could not deliver."
)
@option(
    "--scope", metavar="ID", help="The storage account's resource id on Azure. Default: it is looked for."
)
@option("--dry-run", is_flag=True, help="Show only what would be done.")
@option("--unbind", is_flag=True, help="Take away what bind made, and nothing else.")
@option("--check", is_flag=True, help="Show lost and altered wiring. Exit code 1 if there is any.")
@json_option
@with_agent
def bind(
    agent: Agent, datasets: tuple[str, ...], to: str | None, queue: str | None, function: str | None,
    service_account: str | None, dead_letter: str | None, scope: str | None, dry_run: bool, unbind: bool, check: bool,
    as_json: bool,
) -> int:  # fmt: skip
    """Make the events of a dataset's bucket come to a queue or a function.

    Shows what it does: + made, * changed, - removed, = as it should be. Others' notifications stay as they are, and doing it again
    changes nothing. --check without DATASET looks at every [datasets.NAME] that has a queue or a bind.
    """
    given = _Given(to, queue, function, service_account, dead_letter, scope)
    if check and (unbind or dry_run):
        raise InvalidInput("--check changes nothing", hint="leave --unbind and --dry-run out")
    if check:
        return _check(agent, datasets or _wired(agent), given, as_json=as_json)
    if len(datasets) != 1:
        raise InvalidInput("bind takes one dataset", hint="name it; only --check takes several, or none")
    return _bind(
        agent, agent.catalog.dataset(datasets[0]), given, dry_run=dry_run, unbind=unbind, as_json=as_json
    )


def _bind(
    agent: Agent, dataset: Dataset, given: _Given, *, dry_run: bool, unbind: bool, as_json: bool
) -> int:
    wiring = agent.wiring(dataset, target := _target(agent, dataset, given))
    try:
        steps = wiring.plan(unbind=unbind)
        if not steps:
            output.note(
                f"nothing is bound for {dataset.name!r}; if it was bound with other options, repeat them"
            )
        # Looked at before anything is done: half a wiring is worse than none.
        ahead = [step for step in steps if step.action is Action.FAILED]
        if dry_run:
            for step in steps:
                _tell(dataset, step, as_json=as_json)
            return EXIT_DIFFERS if ahead else 0
        for step in ahead or steps:
            try:
                step.apply()
            except SyncAgentError as reason:
                _tell(dataset, step, as_json=as_json, error=reason)
                raise
            _tell(dataset, step, as_json=as_json)
        if not unbind:
            _advise(agent, dataset, target, wiring.queue)
    finally:
        wiring.close()
    return 0


def _check(agent: Agent, names: tuple[str, ...], given: _Given, *, as_json: bool) -> int:
    """Each dataset is looked at, also when another one cannot be; the first error's code wins over a difference."""
    differs, code = False, 0
    for name in names:
        try:
            dataset = agent.catalog.dataset(name)
            wiring = agent.wiring(dataset, _target(agent, dataset, given))
            try:
                steps = wiring.plan()
            finally:
                wiring.close()
        except SyncAgentError as reason:
            _fail(name, reason, as_json=as_json)
            code = code or reason.exit_code
            continue
        differs = differs or any(step.action is not Action.SAME for step in steps)
        for step in steps:
            _tell(dataset, step, as_json=as_json, several=len(names) > 1)
    return code or (EXIT_DIFFERS if differs else 0)


def _wired(agent: Agent) -> tuple[str, ...]:
    found = tuple(name for name, one in agent.settings.datasets.items() if one.bind or _bindable(one.queue))
    if not found:
        raise ConfigError(
            "no dataset has a queue or a bind in the settings",
            hint="name one, or write [datasets.NAME] into syncagent.toml",
        )
    return found


def _bindable(url: str | None) -> bool:
    """Whether a queue is one that buckets are bound to: others are followed in other ways."""
    return url is not None and url.startswith(("sqs://", "https://", "pubsub://", "azqueue://"))


def _target(agent: Agent, dataset: Dataset, given: _Given) -> Target:
    from syncagent.config import Follow
    from syncagent.drivers.wiring import Target

    settings = agent.settings.datasets.get(dataset.name, Follow())
    told = {name: getattr(given, name) or getattr(settings, name) for name in _OF_SETTINGS}
    told_by_options = "function" if given.function else "queue" if given.queue else None
    if told_by_options == "queue" and settings.bind not in {None, "function"}:
        told_by_options = None  # whatever leads to a queue leads to this one
    to = given.to or told_by_options or settings.bind or "queue"
    if to != "function" and not given.function:  # the settings' own, which this time is not meant
        told["function"] = None
    return Target(
        dataset.name,
        dataset.id,
        to,
        told["queue"],
        told["function"],
        told["service_account"],
        given.scope,
        told["dead_letter"],
    )


def _tell(
    dataset: Dataset, step: Step, *, as_json: bool, error: SyncAgentError | None = None, several: bool = False
) -> None:
    action, detail = (Action.FAILED, str(error)) if error else (step.action, step.detail)
    if as_json:
        record: dict[str, Any] = {"dataset": dataset.name, "action": action.name.lower(), "what": step.what}
        output.emit_json({**record, **({"detail": detail} if detail else {})})
        return
    head = f"{output.printable(dataset.name)}: " if several else ""
    tail = f" ({output.printable(detail)})" if detail else ""
    sys.stdout.write(f"{action.value} {head}{output.printable(step.what)}{tail}\n")


def _fail(name: str, reason: SyncAgentError, *, as_json: bool) -> None:
    if as_json:
        output.emit_json({"dataset": name, "action": "failed", "detail": str(reason)})
    else:
        sys.stdout.write(f"! {output.printable(name)}: {reason}\n")


def _advise(agent: Agent, dataset: Dataset, target: Target, queue: str | None) -> None:
    """What to write into the settings, so that the daemon and --check know it, too."""
    from syncagent.config import Follow

    there = agent.settings.datasets.get(dataset.name, Follow())
    wanted = {
        "queue": queue, "bind": target.to if target.to in {"function", "eventbridge"} else None, "function": target.function,
        "service_account": target.account, "dead_letter": target.dead_letter,
    }  # fmt: skip
    lacking = {name: value for name, value in wanted.items() if value and getattr(there, name) != value}
    if lacking:
        name = dataset.name if re.fullmatch(r"[A-Za-z0-9_-]+", dataset.name) else _quoted(dataset.name)
        lines = "".join(f"{field} = {_quoted(value)}\n" for field, value in lacking.items())
        output.note(f"for syncagent.toml:\n[datasets.{name}]\n{lines}".rstrip())


def _quoted(text: str) -> str:
    """A string of TOML, which escapes as JSON does."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


COMMANDS = (bind,)
