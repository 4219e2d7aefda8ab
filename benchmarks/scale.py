"""What mirroring a million to a billion objects takes: writes the tables of docs/scale.md, "A plan for a billion".

    python benchmarks/scale.py                    # writes the tables from benchmarks/scale.json
    nice python benchmarks/scale.py --measure --simulate    # measures this machine and simulates first: an hour or less

Three kinds of figures, told apart in the tables: *measured* by benchmarks/scale_measure.py; *simulated* page by page, with
those, by benchmarks/scale_simulation.py; and *reckoned* from both in proportion to the number of objects.
Prices are list prices in US dollars: `syncagent.drivers` for requests, scripts/event_costs.py for events, here for reports.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from scale_simulation import HINT, SHAPES, Rates, Sweep

from scripts.event_costs import ROWS
from syncagent.drivers import azure, gcs, partition, s3

KEPT = Path(__file__).with_name("scale.json")
PAGE = Path(__file__).parents[1] / "docs/scale.md"
HEAD = "### The plan in figures\n"

LEAST = 1_000_000
"""Objects of a measurement that is kept."""
SIZES = (10**6, 10**7, 10**8, 10**9)
SIMULATED = SIZES[:3]
"""Page by page; a billion is ten times a hundred million."""
SHAPE = "dates"
NAMED = {
    "dates": "a folder for each day",
    "uuids": "UUIDs",
    "tenants": "2,000 tenants, one with 40 %, each counting from 0 in ten digits",
}
PROVIDERS = {
    # Keys of a page, and dollars for a thousand listings.
    "S3": (1000, dict(s3._PRICES)["list"]),
    "Google": (gcs._PAGE, dict(gcs._PRICES)["list"]),
    "Azure": (azure._PAGE, dict(azure._PRICES)["list"]),
}
REPORT = 0.0025
"""Dollars for a million objects of an inventory report: S3 Inventory, Google's inventory reports in one region (its price list,
September 2026) and Azure Blob Inventory, the first and the last as we know them."""
LATENCY = 0.082
"""Seconds of an S3 page, from a machine in its region: 100,000,000 objects in 8,214 s, says the README of aws-samples/s3-fast-list."""
AZURE_LATENCY = 1.2
"""Seconds of an Azure page in XML: 100,000 blobs in 23.9 s, says rclone's documentation."""
COUNT = 0.0424
"""Seconds in which SQLite counts a million items, which every page of a query does: docs/performance.md."""
EVENTS = 440
"""Messages a second of one `syncagent run`, the least median of docs/performance.md."""
REQUESTS = 5500
"""Reads a second that S3 promises for a prefix."""

MACHINES = {"small": (2, 8), "large": (16, 8), "wide": (16, 64)}
"""Cores and listers."""
TOLD = ("small", "wide")
"""Sixteen cores are no faster than two with eight listers, which mostly wait for the store."""
CLUSTER = 16
"""Workers of a core each, with eight listers, as docs/scale.md starts them."""
DATABASE = 16
"""Cores of the PostgreSQL that they write to."""
CREWS = (8, 16, 32, 64)
UNEVEN = 3_000_000


def processes(cores: int) -> int:
    """How many read pages, as `Bucket.crew` has it."""
    return min(4, cores)


def rates(kept: dict[str, Any], *, known: bool) -> Rates:
    """What a page costs on SQLite, from what was measured for a million objects."""
    told = kept["sweep"]["unchanged_2_processes" if known else "first_2_processes"]
    return Rates(LATENCY, told["listing_cpu_s_per_million"] / 1000, told["main_cpu_s_per_million"] / 1000)


def simulate(kept: dict[str, Any], sizes: Iterable[int] = SIMULATED) -> dict[str, dict[str, list[float]]]:
    """Requests and seconds by machine and state, for each size."""
    found: dict[str, dict[str, list[float]]] = {}
    for name, (cores, listers) in MACHINES.items():
        for state in ("first", "unchanged"):
            known = state == "unchanged"
            for size in sizes:
                sweep = Sweep(
                    SHAPES[SHAPE](size), rates(kept, known=known),
                    listers=listers, cores=cores, processes=processes(cores), known=known,
                )  # fmt: skip
                told = sweep.run()
                found.setdefault(f"{name}, {state}", {})[str(size)] = [told.requests, round(told.seconds, 1)]
                print(name, state, size, told, file=sys.stderr, flush=True)
    return found


def speedups() -> dict[str, dict[str, float]]:
    """How much faster than one lister a first listing is, by shape and listers, if reading and writing took no time."""
    found: dict[str, dict[str, float]] = {}
    for shape, make in SHAPES.items():
        for listers in CREWS:
            free = Rates(LATENCY, 0.0, 0.0)
            sweep = Sweep(make(UNEVEN), free, listers=listers, cores=listers, processes=listers, known=False)
            alone = UNEVEN / 1000 * LATENCY
            found.setdefault(shape, {})[str(listers)] = round(alone / sweep.run().seconds, 1)
            print(shape, listers, found[shape][str(listers)], file=sys.stderr, flush=True)
    return found


# -- tables --------------------------------------------------------------------------------------


def tables(kept: dict[str, Any]) -> str:
    """In Markdown."""
    parts: list[Callable[[dict[str, Any]], str]] = [constants, money, times, room, events, walls]
    return "\n\n".join(part(kept) for part in parts) + "\n"


def constants(kept: dict[str, Any]) -> str:
    """What was measured."""
    first, same = kept["sweep"]["first_2_processes"], kept["sweep"]["unchanged_2_processes"]
    short, long = kept["sqlite"]["40"], kept["sqlite"]["100"]
    pg = kept["postgres"]["100"]
    rows = [
        ("reading its pages", cpu(first["listing_cpu_s_per_million"]), cpu(same["listing_cpu_s_per_million"])),
        ("the thread that compares and writes, SQLite", cpu(first["main_cpu_s_per_million"]), cpu(same["main_cpu_s_per_million"])),
        ("of that, inserting", cpu(long["insert_cpu_s_per_million"]), ""),
        ("PostgreSQL: client, server", f"{cpu(pg['client_cpu_s_per_million'])}, {cpu(pg['server_cpu_s_per_million'])}",
         f"{cpu(pg['client_read_cpu_s_per_million'])}, {cpu(pg['server_read_cpu_s_per_million'])}"),
        ("`catalog vacuum`, keys of 40 and of 100 bytes", f"{cpu(short['vacuum_cpu_s_per_million'])}, {cpu(long['vacuum_cpu_s_per_million'])}", ""),
    ]  # fmt: skip
    head = f"Measured on {kept['measured']}, {kept['objects']:,} objects, {kept['machine']}, PostgreSQL {kept['postgres']['version']}, with other work on the machine. CPU seconds for a million objects:"
    wire = f"A page of 1,000 is {kept['sweep']['wire_bytes_per_page'] / 1000:.0f} kB on the wire."
    return f"{head}\n\n{grid(('', 'first sweep', 'unchanged'), rows)}\n\n{wire}\n\n{bytes_of(kept)}"


def bytes_of(kept: dict[str, Any]) -> str:
    """What a million rows weigh."""
    told = {f"SQLite, {n}": kept["sqlite"][n]["bytes_per_million"]["filled"] for n in ("40", "100")}
    told["after VACUUM, 100"] = kept["sqlite"]["100"]["bytes_per_million"]["vacuumed"]
    told |= {f"PostgreSQL, {n}": kept["postgres"][n]["bytes_per_million"] for n in ("40", "100")}
    names = sorted({name for sizes in told.values() for name in sizes if name.startswith("item")})
    rows = [
        (f"`{name}`", *(f"{sizes[name] / 1e6:.0f}" if name in sizes else "" for sizes in told.values()))
        for name in names
    ]
    rows.append(
        ("**together**", *(f"**{sum(s.get(n, 0) for n in names) / 1e6:.0f}**" for s in told.values()))
    )
    more = kept["sqlite"]["40"]["annotations_of_a_tenth_bytes_per_million"] * 10
    return (
        "MB for a million items, with keys of so many bytes, as eight listers fill it:\n\n"
        + grid(("", *told), rows)
        + f"\n\nA million annotations (boxes) are {more / 1e6:.0f} MB more, indexes included (SQLite)."
    )


def money(kept: dict[str, Any]) -> str:
    """Requests and prices of one look at everything."""
    rows = []
    for size in SIZES:
        row = [power(size)]
        for page, price in PROVIDERS.values():
            requests = math.ceil(size / page)
            row += [f"{requests:,}", dollars(requests * price / 1000)]
        rows.append((*row, dollars(size / 1e6 * REPORT)))
    head = (
        "objects",
        *(f"{name}: {what}" for name in PROVIDERS for what in ("requests", "$")),
        "a report, $",
    )
    surplus = [
        told[str(SIMULATED[-1])][0] * 1000 / SIMULATED[-1] - 1
        for name, told in kept["simulated"].items()
        if name.endswith("first")
    ]
    return (
        "One listing, by one lister, or of a bucket that the catalog knows (reckoned); several listers on a first listing ask "
        f"{min(surplus):.1%} to {max(surplus):.1%} more of {power(SIMULATED[-1])} (simulated):\n\n{grid(head, rows)}"
    )


def times(kept: dict[str, Any]) -> str:
    """How long a sweep of S3 takes."""
    rows = []
    for size in SIZES:
        row = [power(size)]
        for name in TOLD:
            for state in ("first", "unchanged"):
                row.append(span(seconds(kept, f"{name}, {state}", size)))
        row += [span(cluster(kept, size, known=known)) for known in (False, True)]
        rows.append((*row, span(report(kept, size))))
    head = (
        "S3 objects",
        *(
            f"{cores} cores, {listers} listers: {state}"
            for cores, listers in (MACHINES[name] for name in TOLD)
            for state in ("first", "unchanged")
        ),
        f"cluster of {CLUSTER}: first",
        "unchanged",
        "inventory: unchanged",
    )
    return (
        f"Time of a sweep, keys by date, {LATENCY * 1000:.0f} ms a page (what aws-samples/s3-fast-list needed for each of 100,000); one machine with SQLite is simulated up to {power(SIMULATED[-1])}, a billion is ten times that (with 8 listers {power(SIMULATED[-1])} is within {drift(kept, 'small'):.1%} of ten times {power(SIMULATED[-2])}; 64 learn the keys meanwhile, and are up to {drift(kept, 'wide'):.0%} off). With 8 listers, 16 cores take as long as two, within {same_cores(kept):.0%}. The cluster is reckoned: "
        f"{CLUSTER} workers of a core each, and a PostgreSQL of {DATABASE} cores. An inventory is read by one core ({kept['inventory']['rows']:,} rows measured); "
        f"it chooses what to look at, so a first sweep lists:\n\n{grid(head, rows)}\n\n{crews(kept)}"
    )


def drift(kept: dict[str, Any], machine: str) -> float:
    """How far the largest simulated sweep is off from ten times the one before, at most."""
    last, before = str(SIMULATED[-1]), str(SIMULATED[-2])
    told = [kept["simulated"][f"{machine}, {state}"] for state in ("first", "unchanged")]
    return max(abs(one[last][1] / (10 * one[before][1]) - 1) for one in told)


def same_cores(kept: dict[str, Any]) -> float:
    """By how much sixteen cores beat two with eight listers, at most."""
    pairs = [
        (kept["simulated"][f"{name}, {state}"])
        for state in ("first", "unchanged")
        for name in ("small", "large")
    ]
    return max(
        abs(small[size][1] / large[size][1] - 1) for small, large in (pairs[:2], pairs[2:]) for size in small
    )


def crews(kept: dict[str, Any]) -> str:
    """What more listers gain on a first listing."""
    rows = [(told, *(f"{kept['crews'][shape][str(n)]:.1f}" for n in CREWS)) for shape, told in NAMED.items()]
    head = ("keys", *(f"{n} listers" for n in CREWS))
    return (
        f"Speed-up of a first listing of {UNEVEN:,} keys, if Python took no time (simulated; of a bucket that the catalog knows it is the number of listers, nearly):\n\n"
        + grid(head, rows)
    )


def seconds(kept: dict[str, Any], name: str, size: int) -> float:
    """Of a sweep."""
    told = kept["simulated"][name]
    if str(size) in told:
        return float(told[str(size)][1])
    return float(told[str(SIMULATED[-1])][1]) * size / SIMULATED[-1]


def cluster(kept: dict[str, Any], size: int, *, known: bool) -> float:
    """Seconds of a sweep: of the slowest of store, workers and database. A worker waits for the database, which does one thing at a time for it."""
    pg, long = kept["postgres"]["100"], kept["sqlite"]["100"]
    if known:
        here = kept["sweep"]["unchanged_0_processes"]["main_cpu_s_per_million"]
        there = pg["server_read_cpu_s_per_million"]
    else:
        here = kept["sweep"]["first_0_processes"]["main_cpu_s_per_million"]
        here += pg["client_cpu_s_per_million"] - long["insert_cpu_s_per_million"]
        there = pg["server_cpu_s_per_million"]
    millions = size / 1e6
    return max(
        size / 1000 * LATENCY / (CLUSTER * 8),
        millions / CLUSTER * (here + there),
        millions / DATABASE * there,
    )


def report(kept: dict[str, Any], size: int) -> float:
    """Seconds in which an inventory is read, sorted and compared."""
    return float(kept["inventory"]["s_per_million"] * size / 1e6)


def room(kept: dict[str, Any]) -> str:
    """Disk, memory, and what grows with the catalog, for keys of 100 bytes."""
    long, pg = kept["sqlite"]["100"], kept["postgres"]["100"]
    each = sum(size for name, size in long["bytes_per_million"]["filled"].items() if name.startswith("item"))
    rows = []
    for size in SIZES:
        millions = size / 1e6
        rows.append((
            power(size), gigabytes(each * millions), gigabytes(sum(pg["bytes_per_million"].values()) * millions),
            span(long["vacuum_cpu_s_per_million"] * millions), f"{memory(kept, size):,.0f} MB",
            gigabytes(kept["sweep"]["wire_bytes_per_page"] * size / 1000), gigabytes(240 * size), span(COUNT * millions),
        ))  # fmt: skip
    head = (
        "objects",
        "SQLite",
        "PostgreSQL",
        "VACUUM, of a core",
        "memory of a sweep, at most",
        "over the wire",
        "disk to sort a report",
        "count of a query's page",
    )
    return f"Room, for keys of 100 bytes (reckoned from the above; a first sweep of a million took {kept['sweep']['first_2_processes']['memory_mb']} MB of memory):\n\n{grid(head, rows)}"


def memory(kept: dict[str, Any], size: int) -> float:
    """MB of a sweep: what a million objects took, all beginnings of keys that a partition remembers, and a catalog's hints."""
    most = max(told["memory_mb"] for name, told in kept["sweep"].items() if name.endswith("2_processes"))
    learned = partition._KNOWN * kept["hints"]["learned_bytes_each"]
    return float(most + (learned + size / HINT * kept["hints"]["bytes_each"]) / 1e6)


def events(kept: dict[str, Any]) -> str:
    """What changes cost, beside a look at everything."""
    each = [sum(prices[n] or 0 for prices in ROWS["queue"].values()) for n in range(3)]
    listing = 10**9 / 1000 * PROVIDERS["S3"][1] / 1000
    rows = []
    for changes in (10**5, 10**6, 10**7, 10**8):
        rows.append((
            power(changes), *(dollars(one * changes) for one in each), span(changes / EVENTS),
            f"{each[0] * changes / listing:.2f}", f"{each[0] * changes / (REPORT * 1000):.2f}",
        ))  # fmt: skip
    head = (
        "changes a day",
        "AWS, $",
        "Google, $",
        "Azure, $",
        "one `syncagent run`",
        "to an S3 listing of 10^9",
        "to its report",
    )
    return (
        f"Events through a queue to a function, by the prices of deploy/README.md; the time of one daemon at {EVENTS} a second (measured, over an emulator). "
        f"The last two columns: AWS's price as a multiple of {dollars(listing)} and of {dollars(REPORT * 1000)} dollars:\n\n{grid(head, rows)}"
    )


def rest(sizes: dict[str, Any]) -> int:
    """Bytes of the indexes that sweeps do not read."""
    filled = sizes["bytes_per_million"]["filled"]
    return int(filled["item_order"] + filled["item_type"])


def walls(kept: dict[str, Any]) -> str:
    """What stops first, with the figure that shows it."""
    first = kept["sweep"]["first_2_processes"]
    writer = 1e6 / first["main_cpu_s_per_million"]
    reader = 1e6 / first["listing_cpu_s_per_million"]
    same = 1e6 / kept["sweep"]["unchanged_2_processes"]["main_cpu_s_per_million"]
    long, pg = kept["sqlite"]["100"], kept["postgres"]["100"]
    tenths = kept["growth"]["insert_cpu_s_per_million_by_tenth"]
    each = sum(size for name, size in long["bytes_per_million"]["filled"].items() if name.startswith("item"))
    rows = [
        ("**1. the wait for pages**", f"{about(8 / LATENCY * 1000)} objects/s by 8 listers", "reckoned", "16 or 32 listers; 64 where the catalog knows the keys"),
        ("**2. the thread that compares and writes**", f"{about(writer)} objects/s on a first sweep, {about(same)} unchanged", "measured", "a cluster, which has as many as it has workers; an inventory or events for what is unchanged"),
        ("a core that reads pages", f"{about(reader)} objects/s", "measured", "one process for each core, four at most"),
        ("an Azure container, which one lister reads", f"a billion blobs: {span(10**9 / azure._PAGE * AZURE_LATENCY)}", "reckoned", "Blob Inventory, or the change feed"),
        ("a page of a query, which counts what it finds", f"1 s from {about(1e6 / COUNT)} items on", "reckoned", "ask for a folder, a type or a label, not for everything; sweeps and events count nothing"),
        ("SQLite's file", f"{gigabytes(each * 1000)} for a billion", "reckoned", "PostgreSQL, or a disk of that size, and twice that for `catalog vacuum` (`SQLITE_TMPDIR` says where)"),
        ("reading that file, which an unchanged sweep does once", f"{gigabytes(1000 * (each - rest(long)))} for a billion", "reckoned", f"a fast disk: at 500 MB/s it takes {span(1000 * (each - rest(long)) / 5e8)}"),
        ("VACUUM", f"{span(long['vacuum_cpu_s_per_million'] * 1000)} of a core for a billion, while nobody writes", "reckoned", "only after many removals: free pages are used again without it"),
        ("inserting, once the catalog is larger than SQLite's cache", f"{cpu(tenths[0])} of a core for the first million, {cpu(tenths[-1])} for the tenth", "measured", "no wall: rows come in as many places of the index as there are ranges, not all over it"),
        ("one PostgreSQL", f"{about(DATABASE * 1e6 / pg['server_cpu_s_per_million'])} rows/s, if {DATABASE} cores do {DATABASE} times what one does", "reckoned", "the cluster's wall; a database for each bucket beyond it"),
        ("S3's reads", f"{about(MACHINES['wide'][1] / LATENCY)} a second by 64 listers, of {REQUESTS:,} for a prefix", "reckoned", "not reached; who does reach them is told so by S3, and halves the listers"),
        ("one daemon that follows events", f"{EVENTS} changes/s, {EVENTS * 86400 / 1e6:.0f} million a day", "measured", "several daemons on one queue; a sweep, where a large part of the bucket changes"),
        ("memory", f"{memory(kept, 10**9):,.0f} MB for a billion, at most", "reckoned", "no wall: it grows by a key for every 2,000"),
        ("numbers of rows, item ids", "2^63", "", "no wall"),
    ]  # fmt: skip
    return "Walls on the way to a billion, on one machine:\n\n" + grid(("", "where", "", "what to do"), rows)


# -- how figures are written ---------------------------------------------------------------------


def grid(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table."""
    head = list(head)
    lines = [head, *rows]
    text = [re.sub(r"\|  (?=\|)", "| ", f"| {' | '.join(line)} |") for line in lines]
    return "\n".join([text[0], "|---" * len(head) + "|", *text[1:]])


def power(number: int) -> str:
    """10^6."""
    return f"10^{round(math.log10(number))}"


def about(number: float) -> str:
    """To two digits: 120,000, or 24 million."""
    rounded = float(f"{number:.2g}")
    return f"{rounded / 1e6:g} million" if rounded >= 1e6 else f"{rounded:,.0f}"


def dollars(price: float) -> str:
    """To the cent, or to what is left of one."""
    return f"{price:,.2f}" if price >= 0.1 else f"{price:.4f}".rstrip("0")


def gigabytes(size: float) -> str:
    """GB, or TB."""
    return f"{size / 1e12:.1f} TB" if size >= 1e12 else f"{size / 1e9:.1f} GB" if size < 1e10 else f"{size / 1e9:.0f} GB"  # fmt: skip


def cpu(seconds: float) -> str:
    """Of a core."""
    return f"{seconds:.1f} s"


def span(seconds: float) -> str:
    """Seconds, minutes, hours or days."""
    for unit, size in (("days", 2 * 86400), ("h", 5400), ("min", 100)):
        if seconds >= size:
            return f"{seconds / {'days': 86400, 'h': 3600, 'min': 60}[unit]:.1f} {unit}"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2f} s"


def written(page: str, kept: dict[str, Any]) -> str:
    """The page with its tables."""
    start = page.index(HEAD) + len(HEAD)
    end = page.index("\n## ", start)
    return f"{page[:start]}\n{tables(kept)}{page[end:]}"


def main() -> None:
    """Measure and simulate, if that is asked for, and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--measure",
        nargs="*",
        metavar="PART",
        help="measure anew: everything, or sqlite, sweep, hints, postgres, growth, inventory",
    )
    parser.add_argument("--simulate", action="store_true", help="simulate anew")
    parser.add_argument(
        "--objects",
        type=int,
        default=1_000_000,
        help=f"of the measurements; fewer than {LEAST:,} are printed, and not kept",
    )
    given = parser.parse_args()
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    if given.measure is not None:
        from scale_measure import measure

        found = measure(given.objects, given.measure)
        if given.objects < LEAST:
            print(json.dumps(found, indent=1))
            return
        kept |= found
        KEPT.write_text(json.dumps(kept, indent=1) + "\n")
    if given.simulate:
        kept |= {"simulated": simulate(kept), "crews": speedups()}
        KEPT.write_text(json.dumps(kept, indent=1) + "\n")
    PAGE.write_text(written(PAGE.read_text(), kept))


if __name__ == "__main__":
    main()
