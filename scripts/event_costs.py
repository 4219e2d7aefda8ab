"""What a million events cost, by cloud and wiring: writes the table of deploy/README.md from the constants here.

    python -m scripts.event_costs

US dollars, list prices of November 2026 as we know them, without free tiers, the catalog and logs.
"""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).parents[1] / "deploy/README.md"
HEAD = "| | AWS | Google | Azure |\n|---|---|---|---|\n"

BATCH = 100
"""Events in a call, where a queue hands out more than one: on AWS."""
GB = 0.5
SECONDS, BATCH_SECONDS = 0.2, 1.0
"""That a call for one event runs, and one for a batch: an object is looked at in 20 ms, eight at once, and a catalog answers in 50."""

# us-east-1, https://aws.amazon.com/sqs/pricing, /lambda/pricing, /s3/pricing, /eventbridge/pricing
SQS, LAMBDA, LAMBDA_GB_SECOND, S3_HEAD, EVENTBRIDGE = 0.40e-6, 0.20e-6, 0.0000166667, 0.40e-6, 1.00e-6
# us-central1, https://cloud.google.com/pubsub/pricing (a KiB a message at least, twice), /run/pricing, /storage/pricing (class B)
PUBSUB, RUN, VCPU_SECOND, GIB_SECOND, GCS_GET = 2 * 40 / 2**30, 0.40e-6, 0.000024, 0.0000025, 0.40e-6
VCPU = 0.333
"""That Google gives an instance of 512 MiB."""
# East US, https://azure.microsoft.com/pricing/details: event-grid, storage/queues, functions (Flex Consumption), storage/blobs (hot)
EVENT_GRID, QUEUE, FLEX, FLEX_GB_SECOND, BLOB_HEAD = 0.60e-6, 0.40e-6, 0.40e-6, 0.000026, 0.44e-6

GOOGLE_CALL = SECONDS * (VCPU * VCPU_SECOND + GB * GIB_SECOND)
NONE: tuple[float, float, float] = (0, 0, 0)
ROWS: dict[str, dict[str, tuple[float | None, float | None, float | None]]] = {
    "queue": {
        # S3 sends; Lambda receives and deletes ten at once. Event Grid takes and delivers; a message is put, got and deleted.
        "messages": (1.2 * SQS, PUBSUB, 2 * EVENT_GRID + (2 + 1 / 16) * QUEUE),
        "calls": (LAMBDA / BATCH, RUN, FLEX),
        "running": (BATCH_SECONDS / BATCH * GB * LAMBDA_GB_SECOND, GOOGLE_CALL, SECONDS * GB * FLEX_GB_SECOND),
        "looking at each object": (S3_HEAD, GCS_GET, BLOB_HEAD),
    },
    "direct": {
        "messages": (0, PUBSUB, 2 * EVENT_GRID),
        "calls": (LAMBDA, RUN, FLEX),
        "running": (SECONDS * GB * LAMBDA_GB_SECOND, GOOGLE_CALL, SECONDS * GB * FLEX_GB_SECOND),
        "looking at each object": (S3_HEAD, GCS_GET, BLOB_HEAD),
    },
    "bus": {
        "the queue's, and the bus": (
            EVENTBRIDGE + 1.2 * SQS + LAMBDA / BATCH + BATCH_SECONDS / BATCH * GB * LAMBDA_GB_SECOND + S3_HEAD, None, None,
        ),
    },
}  # fmt: skip


def table() -> str:
    """In Markdown."""
    lines = []
    for wiring, rows in ROWS.items():
        lines.append(f"| **{wiring}** | | | |")
        for name, prices in rows.items():
            lines.append(f"| {name} | {' | '.join(map(_dollars, prices))} |")
        if len(rows) > 1:
            sums = [sum(price or 0 for price in prices) for prices in zip(*rows.values(), strict=True)]
            lines.append(f"| **together** | {' | '.join(f'**{_dollars(one)}**' for one in sums)} |")
    return HEAD + "\n".join(lines) + "\n"


def _dollars(price: float | None) -> str:
    return "" if price is None else f"{price * 1e6:.2f}"


def written(page: str) -> str:
    """The page with its table."""
    start = page.index(HEAD)
    end = page.index("\n\n", start) + 1
    return page[:start] + table() + page[end:]


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
