"""The plan in docs/scale.md is what benchmarks/scale.py makes of what was measured, and both of its halves still work."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import scale
import scale_measure
from scale_simulation import SHAPES, Rates, Sweep

KEPT: dict[str, Any] = json.loads(scale.KEPT.read_text())


def test_the_page_is_up_to_date() -> None:
    assert scale.PAGE.read_text() == scale.written(scale.PAGE.read_text(), KEPT), "run benchmarks/scale.py"


def test_a_million_is_simulated_as_it_is_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "MACHINES", {"small": scale.MACHINES["small"]})
    again = scale.simulate(KEPT, sizes=[10**6])
    assert set(again) == {"small, first", "small, unchanged"}
    for name, told in again.items():
        assert told[str(10**6)] == KEPT["simulated"][name][str(10**6)]


@pytest.mark.parametrize("shape", SHAPES)
def test_keys_that_are_made_when_they_are_looked_at(shape: str) -> None:
    keys = list(SHAPES[shape](20_000))
    assert len(keys) == 20_000
    assert all(one < other for one, other in itertools.pairwise(keys))


def test_the_slowest_station_is_what_a_sweep_takes() -> None:
    """100 pages, by one lister and by four, with nothing to wait for but one station."""
    keys = SHAPES["uuids"](100_000)

    def took(rates: Rates, listers: int, cores: int) -> float:
        return Sweep(keys, rates, listers=listers, cores=cores, processes=2, known=True).run().seconds

    assert took(Rates(1.0, 0.0, 0.0), 1, 1) == 100
    assert took(Rates(1.0, 0.0, 0.0), 4, 1) == pytest.approx(25, abs=2)
    assert took(Rates(0.0, 1.0, 0.0), 4, 2) == pytest.approx(50, abs=2)
    assert took(Rates(0.0, 0.0, 1.0), 4, 9) == pytest.approx(100, abs=2)
    assert took(Rates(0.0, 1.0, 1.0), 4, 1) == pytest.approx(200, abs=4)


def test_sizes_of_a_small_catalog(capsys: pytest.CaptureFixture[str]) -> None:
    told = scale_measure.measure(3000, ["sqlite"])["sqlite"]
    short, long = told["40"]["bytes_per_million"], told["100"]["bytes_per_million"]
    # Sixty bytes more in the table, and in the index by key; nowhere else.
    for name in ("item", "item_key"):
        assert 40e6 < long["vacuumed"][name] - short["vacuumed"][name] < 90e6
    assert long["vacuumed"]["item_type"] == short["vacuumed"]["item_type"]
    assert long["vacuumed"]["item_key"] <= long["filled"]["item_key"]
    assert told["40"]["annotations_of_a_tenth_bytes_per_million"] > 0
