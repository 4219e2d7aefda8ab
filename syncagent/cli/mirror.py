"""sync, plan, check, settle: the main job."""

from __future__ import annotations

import contextlib
import sys
from bisect import insort
from collections import defaultdict
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from syncagent.cli import output
from syncagent.cli.ingest import probe_and_tell, tell_followed
from syncagent.cli.root import integration_option, json_option, option, verbose, with_agent
from syncagent.cli.verify import certifying
from syncagent.errors import EXIT_DIFFERS, Refused, SyncAgentError
from syncagent.model import Action, Outcome, Report

if TYPE_CHECKING:
    from syncagent.agent import Agent
    from syncagent.reconcile import Elsewhere, Reconciler

_dataset_option = option("--dataset", metavar="NAME", help="The dataset's name. Default: from the URL.")


@click.command()
@click.argument("target")
@_dataset_option
@integration_option
@option("--max-deletes", type=click.IntRange(0), help="Items that may be removed. Default: 1,000 or 10 %.")
@option("--fresh", is_flag=True, help="List from the beginning, also when a run was interrupted.")
@option(
    "--inventory",
    metavar="URL",
    help="Instead of listing: an inventory report of the store's, by its manifest.json or the folder of reports.",
)
@option(
    "--cluster",
    metavar="URL",
    help="Have a Dask cluster list and compare: dask://SCHEDULER:8786. Needs a catalog on PostgreSQL.",
)
@option("--quiet", is_flag=True, help="Only the summary.")
@json_option
@with_agent
def sync(
    agent: Agent,
    target: str,
    dataset: str | None,
    integration: str | None,
    max_deletes: int | None,
    fresh: bool,
    inventory: str | None,
    cluster: str | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Make a dataset equal to its bucket. TARGET is a URL, a folder or a dataset."""
    if cluster is not None and inventory is not None:
        raise click.UsageError("an inventory is read here, in minutes: give --inventory or --cluster")
    found = agent.resolve(target, name=dataset, integration=integration, create=True)
    reconciler = agent.reconciler(found)
    report_of = None
    if inventory is None and cluster is None:
        reconciler.stand_by()
    elif inventory is not None:
        report_of = agent.inventory(inventory, reconciler)
        output.note(
            f"inventory of {report_of.report.taken_at}; what changed since then is for events or the next sweep"
        )
    total = 0 if quiet else agent.catalog.count(found.id)
    with (
        _spread(agent, reconciler, cluster) as elsewhere,
        output.Progress(quiet=quiet, total=total) as progress,
    ):
        report = reconciler.sweep(
            max_deletes=agent.settings.max_deletes,
            resume=not fresh,
            inventory=report_of,
            elsewhere=elsewhere,
            on_outcome=None if quiet else output.Lines(as_json=as_json, limit=_limit(as_json)),
            on_progress=progress,
        )
    if report.resumed_after is not None:
        after = f" after {output.printable(report.resumed_after)}" if report.resumed_after else ""
        output.note(f"resumed{after}; --fresh lists everything")
    _finish(report, as_json=as_json)
    files_failed = tell_followed(agent.follow(found), as_json=as_json)
    if agent.catalog.labels.settings(found.id).get("probe"):
        probe_and_tell(agent, found, as_json=as_json, quiet=quiet)
    if report.refused:
        raise Refused(
            f"nothing was removed: {report.refused}",
            resource=found.name,
            hint="look with 'syncagent plan', then pass --max-deletes with the number you expect",
        )
    return EXIT_DIFFERS if report.failed or files_failed else 0


@contextlib.contextmanager
def _spread(agent: Agent, reconciler: Reconciler, cluster: str | None) -> Iterator[Elsewhere | None]:
    """Who lists and compares for a sweep, instead of this process; None for nobody."""
    if cluster is None:
        yield None
        return
    from syncagent.cluster import Spread, check, open_engine

    check(reconciler)
    with contextlib.closing(open_engine(cluster)) as engine:
        yield Spread(engine, reconciler, agent.settings)


@click.command()
@click.argument("target")
@_dataset_option
@integration_option
@json_option
@with_agent
def plan(agent: Agent, target: str, dataset: str | None, integration: str | None, as_json: bool) -> int:
    """Show what sync would do, and change nothing."""
    reconciler = agent.planner(target, name=dataset, integration=integration)
    report, lines = Report(), output.Lines(as_json=as_json, limit=_limit(as_json))
    for outcome in reconciler.plan(report):
        lines(outcome)
    _finish(report, as_json=as_json, future=True)
    return 0


@click.command()
@click.argument("target")
@integration_option
@option("--repair", is_flag=True, help="Then sync.")
@option("--samples", type=click.IntRange(0), default=5, show_default=True, help="Keys shown of each kind.")
@option(
    "--certificate",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write what was seen, range by range, for 'syncagent verify'.",
)
@json_option
@with_agent
def check(
    agent: Agent,
    target: str,
    integration: str | None,
    repair: bool,
    samples: int,
    certificate: Path | None,
    as_json: bool,
) -> int:
    """Compare bucket and catalog, all of it. Exit code 1 if they differ."""
    found = agent.resolve(target, integration=integration)
    reconciler, report = agent.reconciler(found), Report()
    shown: dict[Action, list[Outcome]] = defaultdict(list)
    reconciler.stand_by()
    with certifying(certificate, found, report) as parts:
        for outcome in reconciler.check(report, parts=parts):
            if as_json:
                output.emit_json(output.outcome_json(outcome))
            else:
                # The first by key, in whatever order the workers find them.
                insort(shown[outcome.action], outcome, key=attrgetter("key"))
                del shown[outcome.action][samples:]
    names = {
        Action.ADDED: ("added", "in the bucket, not in the catalog"),
        Action.CHANGED: ("changed", "another object than the catalog knows"),
        Action.REMOVED: ("removed", "in the catalog, not in the bucket"),
    }
    for action, (name, meaning) in names.items():
        if (count := getattr(report, name)) and not as_json:
            sys.stdout.write(f"{action.value} {count} {meaning}\n")
            sys.stdout.writelines(f"  {output.line(outcome)}\n" for outcome in shown[action])
            if count > len(shown[action]):
                sys.stdout.write(f"  … and {count - len(shown[action])} more\n")
    if as_json:
        output.emit_json(output.report_json(report))
    elif not report.drift:
        sys.stdout.write(f"equal: {report.same} objects, {report.listed} listed in {report.seconds:.1f} s\n")
    else:
        sys.stdout.write(f"{report.drift} differences, {report.same} objects the same\n")
    if not report.drift:
        return 0
    if not repair:
        return EXIT_DIFFERS
    repaired = reconciler.sweep(max_deletes=agent.settings.max_deletes, resume=False)
    _finish(repaired, as_json=as_json)
    if repaired.refused:
        raise Refused(
            f"nothing was removed: {repaired.refused}", hint="use 'syncagent sync' with --max-deletes"
        )
    return EXIT_DIFFERS if repaired.failed else 0


@click.command()
@click.argument("dataset")
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@json_option
@with_agent
def settle(agent: Agent, dataset: str, keys: tuple[str, ...], as_json: bool) -> int:
    """Look at single objects, and make their items agree."""
    found = agent.catalog.dataset(dataset)
    reconciler, lines, code = agent.reconciler(found), output.Lines(as_json=as_json, limit=None), 0
    for key in keys:
        try:
            lines(reconciler.settle(key))
            agent.catalog.release(found.id, [key])
        except SyncAgentError as error:
            lines(Outcome(key, Action.FAILED, error=str(error)))
            code = error.exit_code
    tell_followed(agent.follow(found, keys), as_json=as_json)
    return code


def _limit(as_json: bool) -> int | None:
    return None if as_json or verbose() else output.LINES


def _finish(report: Report, *, as_json: bool, future: bool = False) -> None:
    if as_json:
        output.emit_json(output.report_json(report))
    else:
        sys.stdout.write(output.summary(report, future=future) + "\n")


COMMANDS = (sync, plan, check, settle)
