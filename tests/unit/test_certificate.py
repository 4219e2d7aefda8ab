"""What a check reads, and what it certifies: over buckets in memory, by one worker and by several."""

from __future__ import annotations

import contextlib
import json
import re
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from syncagent import certificate as certificates
from syncagent import reconcile
from syncagent.catalog import open_catalog
from syncagent.catalog.served import ServedCatalog
from syncagent.catalog.sql.postgres import PostgresCatalog
from syncagent.catalog.sql.sqlite import SqliteCatalog
from syncagent.certificate import Certificate, Draft, Part, moment, sorted_parts
from syncagent.digest import Digest, digest_of
from syncagent.errors import InvalidInput, SyncAgentError, Transient
from syncagent.model import Action, DriverSpec, ObjectInfo, Report, Row
from syncagent.reconcile import Reconciler
from tests.engine import drop, info, memory_bucket, put, reconciler
from tests.keys import NASTY
from tests.rigs.postgres import server
from tests.rigs.served import EMAIL, PASSWORD, Served
from tests.unit.test_cli import Shell, run
from tests.unit.test_sweep_ranges import PAGE, Ranged

__all__ = ["run"]

SIZE = 1000
PART = 5 * PAGE


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges of few pages, hints that are closer than that."""
    monkeypatch.setattr(reconcile, "_SUMMED", PART)
    monkeypatch.setattr(reconcile, "_HINT", 2 * PAGE)


@pytest.fixture
def driver() -> Ranged:
    return Ranged()


@pytest.fixture(params=["rows", "sums"])
def of(
    request: pytest.FixtureRequest, tmp_path: Path, driver: Ranged, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Reconciler]:
    """A bucket that was swept, over a catalog that is asked for rows, or for digests first."""
    monkeypatch.setattr(SqliteCatalog, "sums", request.param == "sums")
    with SqliteCatalog(tmp_path / "catalog.db") as catalog:
        bucket = memory_bucket({f"{n:04}": b"%d" % n for n in range(SIZE)}, driver=driver)
        made = reconciler(catalog, bucket)
        made.sweep()
        yield made


def disturb(of: Reconciler) -> None:
    """Neighbours of one range, and single keys far apart."""
    drop(of.bucket, "0130", "0131", "0700")
    put(of.bucket, "0132", b"changed")
    put(of.bucket, "zz", b"new")


def certified(of: Reconciler, report: Report | None = None) -> tuple[Certificate, list[tuple[str, str]]]:
    report, parts, started = report or Report(), [], moment()
    told = [(outcome.action.value, outcome.key) for outcome in of.check(report, parts=parts)]
    made = Certificate(
        of.dataset.id, "data", "memory://box", started, moment(), report.requests, sorted_parts(parts)
    )
    return made, told


def listed(of: Reconciler) -> Digest:
    return digest_of(found for page in of.bucket.list() for found in page)


# -- checking ------------------------------------------------------------------------------------


@pytest.mark.parametrize("listers", [1, 4])
def test_a_certificate_is_of_what_the_bucket_and_the_catalog_hold(of: Reconciler, listers: int) -> None:
    of.listers = listers
    report = Report()
    made, told = certified(of, report)
    assert told == []
    assert (report.listed, report.same, report.drift) == (SIZE, SIZE, 0)
    assert (made.differences, made.digest) == (0, listed(of))
    assert made.digest == of.catalog.digest(of.dataset.id, after=None, until=None)
    assert list(certificates.of_catalog(made, of.catalog)) == [part.digest for part in made.parts]
    assert len(made.parts) >= SIZE // (2 * PART), "in ranges"
    assert max(part.digest.count for part in made.parts) < PART + PAGE
    assert made.requests["list"] >= SIZE // PAGE
    for part in made.parts:
        assert made.started <= part.listed_from <= part.listed_to <= made.ended


@pytest.mark.parametrize("listers", [1, 4])
def test_every_difference_is_found_and_counted_in_its_range(of: Reconciler, listers: int) -> None:
    of.listers = listers
    disturb(of)
    made, told = certified(of)
    wanted = [("-", "0130"), ("-", "0131"), ("*", "0132"), ("-", "0700"), ("+", "zz")]
    assert sorted(told, key=lambda one: one[1]) == wanted
    if listers == 1:
        assert told == wanted, "in the order of the keys"
    assert made.digest == listed(of)
    for part in made.parts:
        inside = [
            key for _, key in told if (part.after or "") < key and (part.until is None or key <= part.until)
        ]
        assert part.differences == len(inside)
        now = of.catalog.digest(of.dataset.id, after=part.after, until=part.until)
        assert (now == part.digest) == (not inside)


def test_rows_are_read_only_where_a_digest_differs(of: Reconciler, monkeypatch: pytest.MonkeyPatch) -> None:
    disturb(of)
    read: list[tuple[str | None, str | None]] = []
    real = of.catalog.unchanged

    def unchanged(dataset: str, objects: Sequence[ObjectInfo], *, after: str | None) -> bool | None:
        read.append((after, objects[-1].key))
        return real(dataset, objects, after=after)

    monkeypatch.setattr(of.catalog, "unchanged", unchanged)
    list(of.check())
    if of.catalog.sums:
        assert len(read) == 3, "of ten ranges"
        assert all(
            any((after or "") < key <= str(until) for key in ("0130", "0700", "zz")) for after, until in read
        )
    else:
        assert len(read) == SIZE // PAGE, "each page"


@pytest.mark.parametrize("listers", [1, 4])
@pytest.mark.parametrize("kind", ["emptied", "never swept"])
def test_one_side_may_be_empty(of: Reconciler, tmp_path: Path, listers: int, kind: str) -> None:
    of.listers = listers
    if kind == "emptied":
        drop(of.bucket, *[f"{n:04}" for n in range(SIZE)])
    else:
        other = of.catalog.ensure_dataset("other", replace(of.dataset.driver, name="other"))
        of = Reconciler(of.catalog, other, of.bucket, listers=listers)
    made, told = certified(of)
    assert len(told) == made.differences == SIZE
    assert made.digest == listed(of)


def test_what_changes_while_it_is_listed_is_certified_as_it_is_then(
    of: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler settles keys between the listing and the second look."""
    put(of.bucket, "0132", b"changed")
    put(of.bucket, "0133+", b"new")
    drop(of.bucket, "0700")
    real, done = of.catalog.get, set()

    def get(dataset: str, key: str) -> Row | None:
        if key not in done:
            done.add(key)
            if key == "0132":
                put(of.bucket, key, b"changed once more")
            of.settle(key)
        return real(dataset, key)

    monkeypatch.setattr(of.catalog, "get", get)
    made, told = certified(of)
    assert (told, made.differences) == ([], 0)
    assert made.digest == listed(of) == of.catalog.digest(of.dataset.id, after=None, until=None)


@pytest.mark.parametrize("listers", [1, 4])
def test_a_listing_that_breaks_certifies_nothing(
    of: Reconciler, driver: Ranged, listers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncagent.drivers.parallel._PAUSE", 0.0001)
    of.listers = listers
    driver.fail_at, driver.error = 30, SyncAgentError("broken")
    parts: list[Part] = []
    with pytest.raises(SyncAgentError, match="broken"):
        list(of.check(parts=parts))
    with pytest.raises(ValueError, match="ranges"):
        Certificate(of.dataset.id, "data", "memory://box", "", "", {}, sorted_parts(parts))


@pytest.mark.parametrize("listers", [1, 4])
def test_the_same_ranges_are_listed_again(of: Reconciler, driver: Ranged, listers: int) -> None:
    made, _ = certified(of)
    driver.works()
    assert certificates.of_bucket(made, of.bucket, listers) == [part.digest for part in made.parts]
    assert driver.pages <= SIZE // PAGE * 1.2
    disturb(of)
    now = certificates.of_bucket(made, of.bucket, listers)
    differing = [part for part, digest in zip(made.parts, now, strict=True) if part.digest != digest]
    assert len(differing) == 3
    assert sum(now, Digest()) == listed(of)


def test_over_postgresql_the_database_adds_up(tmp_path: Path, driver: Ranged) -> None:
    with PostgresCatalog(server().schema(), secret_key_file=tmp_path / "key") as catalog:
        of = reconciler(catalog, memory_bucket({f"{n:04}": b"%d" % n for n in range(SIZE)}, driver=driver))
        of.sweep()
        before = catalog.db.statements
        made, told = certified(of)
        assert (told, made.digest) == ([], listed(of))
        assert catalog.db.statements - before <= SIZE // PART + 2
        disturb(of)
        assert [key for _, key in certified(of)[1]] == ["0130", "0131", "0132", "0700", "zz"]


def test_over_a_server_no_rows_travel_where_nothing_differs(
    tmp_path: Path, driver: Ranged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "_SUMMED", 10_000)
    with (
        Served(tmp_path / "catalog.db") as server,
        contextlib.closing(
            open_catalog(f"dataloop+{server.url}", username=EMAIL, password=SecretStr(PASSWORD))
        ) as catalog,
    ):
        assert isinstance(catalog, ServedCatalog)
        of = reconciler(catalog, memory_bucket({f"{n:04}": b"%d" % n for n in range(SIZE)}, driver=driver))
        of.sweep()
        sent: list[str] = []
        real = catalog._of

        def of_dataset(dataset: str, operation: str, **body: Any) -> Any:
            sent.append(operation)
            return real(dataset, operation, **body)

        monkeypatch.setattr(catalog, "_of", of_dataset)
        made, told = certified(of)
        assert (told, sent, made.digest) == ([], ["digest"], listed(of))
        sent.clear()
        disturb(of)
        assert len(certified(of)[1]) == 5
        assert sent == ["digest", "stamps", "scan", *["get"] * 5, "scan"]


# -- the file ------------------------------------------------------------------------------------

KEYS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8) | st.sampled_from(NASTY),
    unique=True,
    max_size=8,
)
COUNTS = st.integers(0, 2**40)
DIGESTS = st.builds(Digest, COUNTS, st.integers(0, 2**128 - 1))


@st.composite
def made_up(draw: Callable[..., Any]) -> Certificate:
    keys = sorted(draw(KEYS))
    now = moment()
    parts = [
        Part(after, until, now, now, draw(DIGESTS), draw(COUNTS))
        for after, until in zip([None, *keys], [*keys, None], strict=True)
    ]
    name = draw(st.text(st.characters(exclude_categories=["Cs"])))
    return Certificate("0" * 24, name, "s3://box", now, now, {"list": draw(COUNTS)}, parts)


@settings(deadline=None)
@given(made_up())
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, made: Certificate) -> None:
    path = tmp_path_factory.getbasetemp() / "certificate.json"
    draft = Draft(path)
    draft.write(made)
    draft.close()
    assert certificates.read(path) == made
    assert path.read_bytes().isascii()
    told = json.loads(path.read_text())
    assert (told["count"], told["digest"]) == (made.digest.count, made.digest.hex)
    assert len([line for line in path.read_text().splitlines() if '"after"' in line]) == len(made.parts)


def test_a_file_is_its_owners_and_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "certificate.json"
    path.write_text("old")
    now = moment()
    made = Certificate("0" * 24, "data", "s3://box", now, now, {}, [Part(None, None, now, now, Digest(), 0)])
    draft = Draft(path)
    draft.close()
    assert path.read_text() == "old", "nothing came to be written"
    draft = Draft(path)
    assert path.read_text() == "old"
    draft.write(made)
    draft.close()
    assert certificates.read(path) == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["certificate.json"]
    with pytest.raises(InvalidInput, match="no file"):
        Draft(tmp_path)


def sound() -> dict[str, Any]:
    now = moment()
    parts = [
        Part(None, "k", now, now, digest_of([info("a"), info("k")]), 0),
        Part("k", "t", now, now, digest_of([info("m")]), 2),
        Part("t", None, now, now, digest_of([info("z")]), 0),
    ]
    made = Certificate("0" * 24, "data", "s3://box", now, now, {"list": 3}, parts)
    told: dict[str, Any] = json.loads(made.dumps())
    return told


def spoil(told: dict[str, Any], path: str, value: object) -> None:
    """Set a field, by its names with dots in between; `...` takes it out."""
    *names, last = path.split(".")
    for name in names:
        told = told[int(name)] if isinstance(told, list) else told[name]
    at: Any = int(last) if isinstance(told, list) else last
    if value is ...:
        del told[at]
    else:
        told[at] = value


SPOILT = [
    ("certificate", 2, "version 2"),
    ("certificate", True, "missing or wrong"),
    ("certificate", ..., "no field 'certificate'"),
    ("algorithm", "md5", "algorithm 'md5'"),
    ("dataset.id", "../../etc", "24 hexadecimal digits"),
    ("dataset", [], "'dataset' is missing or wrong"),
    ("source", None, "'source' is missing or wrong"),
    ("source", "s3://\ud800", "not valid Unicode"),
    ("ended", "yesterday", "no time"),
    ("requests.list", -1, "negative"),
    ("equal", True, "'equal' does not agree"),
    ("differences", 1, "differences are not what its ranges add up to"),
    ("count", 5, "count and digest are not what its ranges add up to"),
    ("digest", "0" * 32, "count and digest are not what its ranges add up to"),
    ("digest", "0" * 31, "32 hexadecimal digits"),
    ("digest", "\uff11" * 32, "32 hexadecimal digits"),
    ("ranges", {}, "'ranges' is missing or wrong"),
    ("ranges", [], "do not cover all keys"),
    ("ranges.0", None, "no object"),
    ("ranges.0", ..., "do not cover all keys"),
    ("ranges.1", ..., "do not meet at 'k'"),
    ("ranges.2", ..., "do not cover all keys"),
    ("ranges.1.after", "j", "do not meet at 'k'"),
    ("ranges.1.after", ..., "'after' is missing or wrong"),
    ("ranges.1.until", None, "do not meet at None"),
    ("ranges.1.until", 7, "'until' is missing or wrong"),
    ("ranges.1.count", 2, "add up to"),
    ("ranges.1.count", 1.0, "'count' is missing or wrong"),
    ("ranges.1.digest", "f" * 32, "add up to"),
    ("ranges.1.differences", 0, "add up to"),
    ("ranges.1.listed_to", "2026-01-01", "no time"),
]


@pytest.mark.parametrize(("path", "value", "why"), SPOILT, ids=[f"{p}={v!r:.12}" for p, v, _ in SPOILT])
def test_a_spoilt_certificate_is_refused(tmp_path: Path, path: str, value: object, why: str) -> None:
    told = sound()
    file = tmp_path / "certificate.json"
    file.write_text(json.dumps(told))
    assert certificates.read(file).differences == 2
    spoil(told, path, value)
    file.write_text(json.dumps(told))
    with pytest.raises(InvalidInput) as refused:
        certificates.read(file)
    assert why in str(refused.value)
    assert str(file) in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_ranges_out_of_order_are_refused(tmp_path: Path) -> None:
    told = sound()
    told["ranges"][0]["until"] = told["ranges"][1]["after"] = "t"
    told["ranges"][1]["until"] = told["ranges"][2]["after"] = "k"
    file = tmp_path / "certificate.json"
    file.write_text(json.dumps(told))
    with pytest.raises(InvalidInput, match="out of order at 'k'"):
        certificates.read(file)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xfe", b"[" * 100_000, b"{}", b"[]", b"7", b'{"certificate": 1', b'{"certificate": ' + b"9" * 5000 + b"}"],
)  # fmt: skip
def test_what_is_no_certificate_is_refused_in_one_line(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "certificate.json"
    file.write_bytes(data)
    with pytest.raises(InvalidInput, match="no sound certificate"):
        certificates.read(file)


# -- the commands --------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: Path, run: Shell) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.jpg").write_text(f"{number}")
    assert run("sync", folder).code == 0
    return folder


def test_check_writes_what_verify_reads(run: Shell, photos: Path, tmp_path: Path) -> None:
    held = tmp_path / "held.json"
    done = run("check", "photos", "--certificate", held)
    assert (done.code, done.err) == (0, "")
    told = json.loads(held.read_text())
    assert (told["equal"], told["count"], told["source"]) == (True, 5, str(photos))
    assert told["dataset"]["name"] == "photos"
    same = run("verify", held)
    assert same.code == 0
    assert same.out.startswith("equal: catalog, 5 objects certified ")
    assert run("verify", held, "--list").out.startswith("equal: catalog and bucket, 5 objects")


def test_verify_tells_which_side_differs(run: Shell, photos: Path, tmp_path: Path) -> None:
    held = tmp_path / "held.json"
    run("check", "photos", "--certificate", held)
    (photos / "0.jpg").unlink()
    assert run("verify", held).code == 0, "the catalog is as it was certified"
    listed = run("verify", held, "--list")
    assert listed.code == 1
    assert listed.out.splitlines()[0] == "* all keys: certified 5, catalog 5, bucket 4 differs"
    assert listed.out.splitlines()[1].startswith("1 of 1 ranges differ: catalog and bucket")
    assert "'syncagent check photos' tells the keys" in listed.err
    run("sync", "photos")
    told = run("verify", held, "--json")
    assert told.code == 1
    assert (told.json[0]["certified"]["count"], told.json[0]["catalog"]["count"]) == (5, 4)
    assert (told.json[1]["verified"]["ranges"], told.json[1]["verified"]["differ"]) == (1, 1)


def test_a_check_with_differences_certifies_them(run: Shell, photos: Path, tmp_path: Path) -> None:
    held = tmp_path / "held.json"
    (photos / "new.jpg").write_text("new")
    assert run("check", "photos", "--certificate", held, "--repair").code == 0
    told = json.loads(held.read_text())
    assert (told["equal"], told["differences"], told["count"]) == (False, 1, 6)
    after = run("verify", held)
    assert after.code == 0, "the catalog is by now what the bucket was"
    assert "1 keys differed" in after.err


def test_a_certificate_of_another_dataset_is_refused(run: Shell, photos: Path, tmp_path: Path) -> None:
    held = tmp_path / "held.json"
    run("check", "photos", "--certificate", held)
    told = json.loads(held.read_text())
    held.write_text(json.dumps({**told, "source": "s3://elsewhere"}))
    other = run("verify", held)
    assert other.code == 2
    assert "certifies s3://elsewhere, and dataset 'photos' mirrors" in other.err
    held.write_text(json.dumps({**told, "dataset": {"id": "f" * 24, "name": "gone"}}))
    gone = run("verify", held)
    assert gone.code == 4
    assert "certifies the dataset 'gone'" in gone.err
    for hostile in ("nonsense://\0", "s3://two\nlines", "s3://\x1b[2Jbox", "s3://user:secret@box"):
        held.write_text(json.dumps({**told, "source": hostile}))
        refused = run("verify", held)
        assert refused.code == 2
        assert len(refused.err.splitlines()) == 1 and "\x1b" not in refused.err
        assert "secret" not in refused.err


def test_no_certificate_is_written_of_a_listing_that_broke(
    run: Shell, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = tmp_path / "held" / "held.json"
    assert run("check", "photos", "--certificate", held).code == 4, "no such folder"
    held.parent.mkdir()

    def broken(*_: object, **__: object) -> Iterator[Any]:
        raise Transient("the store is away")
        yield

    monkeypatch.setattr("syncagent.drivers.local.LocalDriver.list", broken)
    assert run("check", "photos", "--certificate", held).code == 5
    assert list(held.parent.iterdir()) == []


def test_the_docs_recompute_a_digest_with_other_tools(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs/scale.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"python3 -c '\n(.*?)'\n", text, flags=re.DOTALL)
    with SqliteCatalog(tmp_path / "told.db") as catalog:
        told = catalog.ensure_dataset("photos", DriverSpec(type="memory", bucket="box"))
        catalog.insert_new(told.id, [info(key) for key in NASTY])
        row = catalog.get(told.id, NASTY[0])
        assert row is not None
        catalog.settle(told.id, NASTY[0], None, expect_rev=row.rev)
        wanted = catalog.digest(told.id, after=None, until=None)
    command = [sys.executable, "-c", textwrap.dedent(script).replace("catalog.db", str(tmp_path / "told.db"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{wanted.count} {wanted.hex}\n"


def test_samples_are_the_first_by_key_whoever_finds_them(
    tmp_path: Path, run: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    from syncagent.model import Outcome

    def check(self: Reconciler, report: Report, **_: object) -> Iterator[Outcome]:
        for key in "mazkb":
            report.added += 1
            yield Outcome(key, Action.ADDED)

    (tmp_path / "box").mkdir()
    run("sync", tmp_path / "box")
    monkeypatch.setattr(Reconciler, "check", check)
    assert run("check", "box", "--samples", "2").out.splitlines()[1:3] == ["  + a", "  + b"]
