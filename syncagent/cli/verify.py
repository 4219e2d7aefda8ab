"""Certificates: written by check, compared again by verify."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from syncagent.cli import output
from syncagent.cli.root import json_option, option, with_agent
from syncagent.errors import EXIT_DIFFERS, InvalidInput, NotFound

if TYPE_CHECKING:
    from syncagent.agent import Agent
    from syncagent.catalog import Dataset
    from syncagent.certificate import Certificate, Part
    from syncagent.digest import Digest
    from syncagent.model import Report


@contextlib.contextmanager
def certifying(path: Path | None, dataset: Dataset, report: Report) -> Iterator[list[Part] | None]:
    """Give the list that `Reconciler.check` fills, and write a certificate of it once that has ended; None for no path."""
    if path is None:
        yield None
        return
    from syncagent.certificate import Certificate, Draft, moment, sorted_parts
    from syncagent.drivers import describe

    parts: list[Part] = []
    started, source = moment(), describe(dataset.driver)
    with contextlib.closing(Draft(path)) as draft:
        yield parts
        seen = sorted_parts(parts)
        draft.write(Certificate(dataset.id, dataset.name, source, started, moment(), report.requests, seen))


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@option("--list", is_flag=True, help="List the bucket again as well.")
@json_option
@with_agent
def verify(agent: Agent, file: Path, again: bool, as_json: bool) -> int:
    """Compare a certificate with the catalog as it is now. Exit code 1 if a range differs.

    FILE is what 'syncagent check --certificate' wrote.
    """
    from syncagent.certificate import of_bucket, of_catalog, read

    held = read(file)
    dataset = _certified(agent, held, file)
    sides = {"catalog": list(of_catalog(held, agent.catalog))}
    if again:
        of = agent.reconciler(dataset)
        of.stand_by()
        sides["bucket"] = of_bucket(held, of.bucket, of.listers, processes=of.processes)
    differing = 0
    for part, *now in zip(held.parts, *sides.values(), strict=True):
        if any(digest != part.digest for digest in now):
            differing += 1
            _tell(part, dict(zip(sides, now, strict=True)), as_json=as_json)
    if as_json:
        told = {"dataset": dataset.name, "certified_at": held.ended, "ranges": len(held.parts)}
        output.emit_json({"verified": {**told, "differ": differing, "objects": held.digest.count}})
        return EXIT_DIFFERS if differing else 0
    state = f"{differing} of {len(held.parts)} ranges differ" if differing else "equal"
    sys.stdout.write(f"{state}: {' and '.join(sides)}, {held.digest.count} objects certified {held.ended}\n")
    if held.differences:
        output.note(f"already then, {held.differences} keys differed between bucket and catalog")
    if differing:
        output.note(f"'syncagent check {dataset.name}' tells the keys")
    return EXIT_DIFFERS if differing else 0


def _certified(agent: Agent, held: Certificate, file: Path) -> Dataset:
    """The dataset that a certificate is of.

    :raises NotFound: it is not in this catalog. :raises InvalidInput: it mirrors another bucket.
    """
    from syncagent.drivers import describe, parse_url

    try:
        dataset = agent.catalog.dataset(held.dataset)
    except NotFound:
        dataset = None
    if dataset is None or dataset.id != held.dataset:
        raise NotFound(
            f"{file} certifies the dataset {held.name!r:.80} ({held.dataset}), which this catalog does not have",
            resource=held.dataset,
            hint="name the one that has it with --catalog",
        )
    if not parse_url(held.source).same_objects(dataset.driver):
        raise InvalidInput(
            f"{file} certifies {output.printable(held.source):.200}, and dataset {dataset.name!r} mirrors {describe(dataset.driver)}",
            resource=dataset.name,
            hint="make a new one with 'syncagent check --certificate'",
        )
    return dataset


def _tell(part: Part, now: dict[str, Digest], *, as_json: bool) -> None:
    """One range that differs."""
    if as_json:
        told = {name: {"count": one.count, "digest": one.hex} for name, one in now.items()}
        certified = {"count": part.digest.count, "digest": part.digest.hex}
        output.emit_json({"after": part.after, "until": part.until, "certified": certified, **told})
        return
    bounds = [
        f"{word} {output.printable(key)}"
        for word, key in (("after", part.after), ("until", part.until))
        if key is not None
    ]
    counts = [f"{name} {one.count}" + " differs" * (one != part.digest) for name, one in now.items()]
    sys.stdout.write(
        f"* {' '.join(bounds) or 'all keys'}: {', '.join([f'certified {part.digest.count}', *counts])}\n"
    )


COMMANDS = (verify,)
