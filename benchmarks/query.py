"""Query a million items at the server, and show how SQLite answers.

    python benchmarks/query.py --items 1000000 --rounds 15

Fills a catalog, starts `syncagent serve` over it, and asks over HTTP. Queries are interleaved; medians are
printed, then the plan of each. Exits 1 when a median is above 50 ms, or when a page deep in the set costs more
than twice what the first does. `GET /users/me` in the same run shows what an empty request costs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from syncagent.catalog.filters import parse_query
from syncagent.catalog.sql.dql import compile_query
from syncagent.catalog.sql.items import Items
from syncagent.catalog.sql.sqlite import SqliteCatalog
from syncagent.model import DriverSpec, ObjectInfo

BAR = 50.0  # ms
FOLDER = 1000  # items
EMAIL, PASSWORD = "bench@example.com", "correct horse battery"


def fill(path: Path, count: int) -> str:
    """Make a catalog: folders of 1,000 items, one in ten of them labelled; returns the dataset's id."""
    kinds = ("jpg", "jpg", "jpg", "png", "mp4", "txt")
    with SqliteCatalog(path) as catalog:
        dataset = catalog.ensure_dataset("bench", DriverSpec(type="memory", bucket="bench")).id
        for start in range(0, count, 10_000):
            page = [
                ObjectInfo(
                    f"raw/{number // FOLDER:05}/{number:08}.{kinds[number % 6]}", f"{number:032x}", number,
                    "2026-01-02T03:04:05Z", f"{number:032x}",
                )
                for number in range(start, min(count, start + 10_000))
            ]  # fmt: skip
            catalog.insert_new(dataset, page)
        with catalog.db.transaction():
            catalog.db.sql(
                "INSERT INTO annotation (item, data, content_rev, updated_at, dataset, type, label, created_at)"
                ' SELECT n, \'{"type":"class","label":"\' || label || \'"}\', 1, 0, dataset, \'class\', label, 0 FROM'
                " (SELECT n, dataset, CASE WHEN n % 1000 = 0 THEN 'rare' ELSE 'car' END AS label FROM item WHERE n % 10 = 0)"
            )
            catalog.db.sql("UPDATE item SET annotations = 1 WHERE n % 10 = 0")
        catalog.db.sql("PRAGMA wal_checkpoint(TRUNCATE)")
    return dataset


def queries(count: int, item: str, deep: str) -> dict[str, dict[str, Any]]:
    """By name: the body of a query."""
    middle = count // 2
    folder = f"/raw/{middle // FOLDER:05}"
    by_id = {"sort": {"id": "ascending"}}
    return {
        "by id": {"filter": {"$and": [{"id": item}]}},
        "by exact filename": {"filter": {"$and": [{"filename": f"{folder}/{middle:08}.jpg"}]}},
        "a page of a folder, by name": {"filter": {"$and": [{"dir": folder}]}, "sort": {"filename": "ascending"}},
        "count by mimetype": {"filter": {"$and": [{"metadata.system.mimetype": "video/*"}]}, "pageSize": 0},
        "label join": {
            "filter": {"$and": [{"hidden": False}]},
            "join": {"filter": {"$and": [{"label": "rare"}]}, "on": {"resource": "annotations", "local": "itemId", "forigen": "id"}},
        },
        "first page": {"filter": {"$and": []}, **by_id},
        "deep page (keyset)": {"filter": {"$and": [{"id": {"$gt": deep}}]}, **by_id},
    }  # fmt: skip


def whole(body: dict[str, Any]) -> dict[str, Any]:
    """As the client sends it."""
    return {"resource": "items", "page": 0, "pageSize": 100, "context": {}, **body}


def main() -> int:
    """Measure, print tables and plans, and say whether every bar is met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "catalog.db"
        dataset = fill(path, arguments.items)
        given = {
            **os.environ, "SYNCAGENT_CATALOG": f"sqlite:///{path}", "SYNCAGENT_ADMIN_EMAIL": EMAIL,
            "SYNCAGENT_ADMIN_PASSWORD": PASSWORD,
        }  # fmt: skip
        command = [sys.executable, "-m", "syncagent", "serve", "--port", "0"]
        process = subprocess.Popen(
            command, env=given, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        try:
            assert process.stderr is not None
            url = process.stderr.readline().split()[2]
            missed = measure(url, dataset, arguments.items, arguments.rounds)
        finally:
            process.terminate()
            process.communicate()
        plans(path, dataset, arguments.items)
    return missed


def measure(url: str, dataset: str, count: int, rounds: int) -> int:
    """Ask over HTTP; 1 if a bar is missed."""
    with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        login = {"username": EMAIL, "password": PASSWORD, "type": "user_credentials"}
        token = client.post("/token?default", json=login).raise_for_status().json()["id_token"]
        client.headers["Authorization"] = f"Bearer {token}"

        def ask(body: dict[str, Any]) -> Any:
            answer = client.post(f"/api/v1/datasets/{dataset}/query", json=whole(body))
            return answer.raise_for_status().json()

        middle = ask(queries(count, "", "")["by exact filename"])["items"][0]["id"]
        last = ask({"filter": {"$and": []}, "sort": {"id": "descending"}, "pageSize": 1})["items"][0]["id"]
        deep = f"{int(last, 16) - 200:024x}"
        asked = queries(count, middle, deep)
        times: dict[str, list[float]] = {
            "GET /users/me": [],
            "GET /items/{id}": [],
            **{name: [] for name in asked},
        }
        found: dict[str, int] = {}
        for _ in range(rounds):
            for name, taken in times.items():
                started = time.perf_counter()
                if name == "GET /users/me":
                    client.get("/api/v1/users/me").raise_for_status()
                elif name == "GET /items/{id}":
                    client.get(f"/api/v1/items/{middle}").raise_for_status()
                else:
                    found[name] = ask(asked[name])["totalItemsCount"]
                taken.append((time.perf_counter() - started) * 1000)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    print(f"| {count:,} items | found | median ms | bar |\n|---|---|---|---|")
    for name, median in medians.items():
        print(
            f"| {name} | {found.get(name, '')} | {median:.1f} | {'' if name == 'GET /users/me' else f'{BAR:.0f}'} |"
        )
    ratio = medians["deep page (keyset)"] / medians["first page"]
    print(f"\nA deep page costs {ratio:.1f}x the first (bar 2x).\n")
    return int(max(medians.values()) > BAR or ratio > 2)


def plans(path: Path, dataset: str, count: int) -> None:
    """Print SQLite's plan of each query."""
    with SqliteCatalog(path) as catalog:
        items, source = Items(catalog), catalog.source(dataset)
        for name, body in queries(count, f"{catalog.stamp}{1:016x}", f"{catalog.stamp}{1:016x}").items():
            compiled = compile_query(parse_query(whole(body)), stamp=catalog.stamp)
            statement = f"SELECT i.n {items._from(compiled, compiled.order_by)} ORDER BY {compiled.order_by} LIMIT 100"
            rows = catalog.db.sql(f"EXPLAIN QUERY PLAN {statement}", {**compiled.parameters, **source})
            print(f"- {name}: {'; '.join(row[3] for row in rows)}")


if __name__ == "__main__":
    sys.exit(main())
