"""Looks into objects that were written since the last look, and notes what their bytes say of them.

Outside `settle`: it costs a request or two for each object, and nothing waits for it. What was looked at stands in the catalog
beside the write that it is of, so an interrupted run goes on, and a look that came too late is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from syncagent.catalog import Item
from syncagent.catalog.labels import Facts, LabelStore
from syncagent.drivers import Bucket
from syncagent.errors import NotFound, SyncAgentError
from syncagent.ingest.probe import MediaInfo, probe_object
from syncagent.workers import each

_PAGE = 500
_NAMED = 20


@dataclass(slots=True)
class Probed:
    """What a run looked at."""

    looked: int = 0
    known: int = 0
    """Objects of which facts could be told."""
    unknown: int = 0
    """Objects without: no media, hostile, cut off. The reason stands in ``metadata.system.mediaError``."""
    failed: int = 0
    """Objects that could not be read; they are looked at again."""
    late: int = 0
    """Written again, or gone, since."""
    lines: list[str] = field(default_factory=list)
    """The first failures."""


def probe_dataset(
    store: LabelStore,
    dataset: str,
    bucket: Bucket,
    *,
    workers: int = 8,
    limit: int | None = None,
    on_progress: Callable[[Probed], None] | None = None,
) -> Probed:
    """Probe every file of a dataset that was written since it was probed.

    :param limit: at most so many; None for all.
    :raises SyncAgentError: the catalog cannot be read or written.
    """
    report = Probed()
    for page in _pages(store, dataset, limit):
        mirrored = [(item, stamp) for item, stamp in page if item.storage is None]
        facts = []
        found = list(each(lambda pair: _look(bucket, *pair), mirrored, workers, name="syncagent-probe"))
        for (item, stamp), info in zip(mirrored, found, strict=True):
            report.looked += 1
            if isinstance(info, MediaInfo):
                told = info.system()
                facts.append(Facts(item.id, stamp, told, info.mimetype))
                if told.keys() - {"mediaError"}:
                    report.known += 1
                else:
                    report.unknown += 1
            elif isinstance(info, NotFound):
                report.late += 1
            else:
                report.failed += 1
                if len(report.lines) < _NAMED:
                    report.lines.append(str(info))
        report.late += len(facts) - store.set_facts(dataset, facts)
        if on_progress is not None:
            on_progress(report)
    return report


def _pages(store: LabelStore, dataset: str, limit: int | None) -> Iterator[list[tuple[Item, str]]]:
    after: str | None = None
    left = limit
    while left is None or left > 0:
        page = store.unprobed(dataset, after=after, limit=_PAGE if left is None else min(_PAGE, left))
        if page:
            yield page
            after = page[-1][0].id
        if len(page) < (_PAGE if left is None else min(_PAGE, left)):
            return
        left = None if left is None else left - len(page)


def _look(bucket: Bucket, item: Item, _: str) -> MediaInfo | SyncAgentError:
    try:
        return probe_object(bucket, item.key, item.size)
    except SyncAgentError as error:
        return error
