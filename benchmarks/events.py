"""Messages of a queue into the catalog: `syncagent run`, beside the platform tutorial's handler with dtlpy in a loop.

    make bench                                       # or: python benchmarks/events.py --messages 10000 --rounds 3
    python benchmarks/events.py --steady 30          # lag at 50 events a second
    python benchmarks/events.py --memory 100000      # memory over that many events

Everything is one AWS of its own process (ministack): a bucket, whose objects exist, and a queue with one S3 notification a message.
Both read the same kind of queue, and every object has to arrive as an item of a dataset that is new in each round. The tutorial's
loop writes into one of `syncagent serve`; its start and sign-in are not counted, and of the daemon not its start. The loop names the
bucket before the key: the tutorial's own line leaves it out, and then dtlpy 1.126.5 takes the key's first folder for it, tries five
times, and makes no item. The bars: 10x the loop; p99 from a message received to the catalog of 1 s; memory flat. Exits 1 when one is
missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.mirror import ENV  # after the path is known
from syncagent.catalog.sql.sqlite import SqliteCatalog
from syncagent.drivers import parse_url
from tests.rigs import ministack, server
from tests.rigs.ministack import AwsRig
from tests.rigs.server import SDK, ServerRig

TUTORIAL = """
import json, os, time, urllib.parse
import boto3
import dtlpy as dl

dl.login_m2m(email=os.environ["EMAIL"], password=os.environ["PASSWORD"])
dl.verbose.disable_progress_bar = True
dataset = dl.datasets.get(dataset_id=os.environ["DATASET"])
sqs = boto3.client("sqs", endpoint_url=os.environ["AWS"], region_name="us-east-1", aws_access_key_id="testing",
                   aws_secret_access_key="testing")
queue = sqs.get_queue_url(QueueName=os.environ["QUEUE"])["QueueUrl"]
started, done = time.perf_counter(), 0
while True:
    messages = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
    if not messages:
        break
    for message in messages:
        for record in json.loads(message["Body"])["Records"]:
            bucket, key = record["s3"]["bucket"]["name"], urllib.parse.unquote_plus(record["s3"]["object"]["key"])
            dataset.items.upload(local_path="external://" + bucket + "/" + key)
        sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        done += 1
print(json.dumps({"seconds": time.perf_counter() - started, "messages": done}))
"""
AWS_KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
TOKEN = "benchmark"


def fill(rig: AwsRig, bucket: str, count: int) -> None:
    """Objects, which exist before the first message is read."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: rig.s3.put_object(Bucket=bucket, Key=key_of(n), Body=b"x"), range(count)))


def key_of(number: int) -> str:
    return f"2026/11/{number // 1000:03}/image-{number:07}.jpg"


def send(rig: AwsRig, queue: str, bucket: str, numbers: range) -> None:
    url = rig.sqs.get_queue_url(QueueName=queue)["QueueUrl"]

    def ten(start: int) -> None:
        entries = [
            {"Id": str(n), "MessageBody": notification(bucket, key_of(n))}
            for n in range(start, min(start + 10, numbers.stop))
        ]
        rig.sqs.send_message_batch(QueueUrl=url, Entries=entries)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ten, range(numbers.start, numbers.stop, 10)))


def notification(bucket: str, key: str) -> str:
    """As S3 writes it, https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html."""
    record = {
        "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "us-east-1", "eventName": "ObjectCreated:Put",
        "eventTime": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()), "userIdentity": {"principalId": "AIDAJDPLRKLG7UEXAMPLE"},
        "requestParameters": {"sourceIPAddress": "127.0.0.1"},
        "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810", "x-amz-id-2": "FMyUVURIY8/IgAtTv8xRjskZQpcIZ9KG4V5Wp6S7S/JRWeUWerMUE5JgHvANOjpD"},
        "s3": {"s3SchemaVersion": "1.0", "configurationId": "benchmark",
               "bucket": {"name": bucket, "ownerIdentity": {"principalId": "A3NL1KOZZKExample"}, "arn": f"arn:aws:s3:::{bucket}"},
               "object": {"key": key, "size": 1, "eTag": "9dd4e461268c8034f5c8564e155c67a6", "sequencer": "0055AED6DCD90281E5"}},
    }  # fmt: skip
    return json.dumps({"Records": [record]})


class Daemon:
    """`syncagent run` over an embedded catalog."""

    def __init__(self, folder: Path, rig: AwsRig, bucket: str, queue: str) -> None:
        folder.mkdir()
        self.catalog = folder / "catalog.db"
        catalog = SqliteCatalog(self.catalog)
        spec = parse_url(f"s3://{bucket}?endpoint={rig.endpoint}&region=us-east-1")
        catalog.ensure_dataset("bench", spec)
        catalog.close()
        self.url = rig.queue_url(queue, hold=300)
        (folder / "syncagent.toml").write_text(
            f'catalog = "sqlite:///{self.catalog}"\nlog_level = "warning"\n[run]\nlisten = "127.0.0.1:0"\ntoken = "{TOKEN}"\npoll = 1\n'
            f'[datasets.bench]\nqueue = "{self.url}"\nsweep = "off"\n'
        )
        env = {**ENV, **AWS_KEYS, "SYNCAGENT_HOME": str(folder)}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        env.pop("SYNCAGENT_CATALOG", None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "syncagent", "--config", str(folder / "syncagent.toml"), "run"],
            env=env, cwd=folder, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        assert "following" in line, line + self.process.stderr.read()
        # One client: a new one reads all the authorities of the world, and that on a core that is measured.
        address = f"http://{line.split('http://')[1].split('/')[0]}"
        self._http = httpx.Client(base_url=address, headers={"Authorization": f"Bearer {TOKEN}"})

    def metrics(self) -> str:
        return self._http.get("/metrics").raise_for_status().text

    def done(self) -> int:
        lines = [line for line in self.metrics().splitlines() if line.startswith("syncagent_messages_total{")]
        return int(sum(float(line.rpartition(" ")[2]) for line in lines if 'result="done"' in line))

    def until(self, count: int) -> None:
        while self.done() < count:
            assert self.process.poll() is None, "the daemon ended"
            time.sleep(0.05)

    def p99(self) -> float:
        """Seconds from a message received to the catalog, the bucket's upper end."""
        lines = [
            line
            for line in self.metrics().splitlines()
            if line.startswith("syncagent_message_seconds_bucket")
        ]
        counts = {
            line.partition('le="')[2].partition('"')[0]: float(line.rpartition(" ")[2]) for line in lines
        }
        total = counts["+Inf"]
        return min(float(end) for end, count in counts.items() if count >= 0.99 * total)

    def resident(self) -> float:
        """MB."""
        return (
            int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
            * os.sysconf("SC_PAGE_SIZE")
            / 1e6
        )

    def stop(self) -> None:
        self._http.close()
        self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, said

    def items(self) -> int:
        catalog = SqliteCatalog(self.catalog)
        try:
            return catalog.count(catalog.dataset("bench").id)
        finally:
            catalog.close()


@contextlib.contextmanager
def daemon(folder: Path, rig: AwsRig, bucket: str, queue: str) -> Iterator[Daemon]:
    made = Daemon(folder, rig, bucket, queue)
    try:
        yield made
    finally:
        made.stop()


def tutorial(rig: AwsRig, served: ServerRig, bucket: str, queue: str, home: Path, wanted: int) -> float:
    """Seconds for `wanted` messages, each of another object."""
    spec = parse_url(f"s3://{bucket}?endpoint={rig.endpoint}&region=us-east-1")
    with SqliteCatalog(served.folder / "catalog.db") as catalog:
        dataset = catalog.ensure_dataset(queue, spec)
    script = home / "tutorial.py"
    home.mkdir()
    script.write_text(TUTORIAL)
    done = served.client(
        script, home, seconds=900, DATASET=dataset.id, AWS=rig.endpoint, QUEUE=queue, **AWS_KEYS
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    told = json.loads(done.stdout.splitlines()[-1])
    with SqliteCatalog(served.folder / "catalog.db") as catalog:
        # dtlpy drops folders.
        found = {item.filename.rpartition("/")[2] for item in catalog.items(dataset.id)}
    missing = {key_of(n).rpartition("/")[2] for n in range(wanted)} - found
    if missing or told["messages"] != wanted:
        raise SystemExit(
            f"the tutorial's loop took {told['messages']} of {wanted} messages; {len(missing)} objects are no items\n"
            + done.stderr[-2000:]
        )
    return float(told["seconds"])


def load(rig: AwsRig, folder: Path, messages: int, rounds: int) -> bool:
    """The rate of both, in turns."""
    bucket, _ = rig.wired(events=("s3:ReducedRedundancyLostObject",))
    fill(rig, bucket, messages)
    some = max(100, messages // 50)
    fast: list[float] = []
    slow: list[float] = []
    os.environ.update(AWS_KEYS)  # the server's, too: it looks at what the loop names
    with server.serving(folder) as served:
        for number in range(rounds):
            ours, theirs = f"ours-{number}", f"theirs-{number}"
            rig.queue(ours)
            send(rig, ours, bucket, range(messages))
            with daemon(folder / ours, rig, bucket, ours) as run:
                started = time.perf_counter()
                run.until(messages)
                fast.append(messages / (time.perf_counter() - started))
            assert run.items() == messages
            rig.queue(theirs)
            send(rig, theirs, bucket, range(some))
            slow.append(some / tutorial(rig, served, bucket, theirs, folder / f"home-{number}", some))
            print(
                f"round {number}: {fast[-1]:,.0f} messages/s; the tutorial's loop {slow[-1]:,.1f}", flush=True
            )
    ratio = statistics.median(fast) / statistics.median(slow)
    print(
        f"{messages} messages: {statistics.median(fast):,.0f}/s, the tutorial's loop with dtlpy {statistics.median(slow):,.1f}/s:"
        f" {ratio:.0f}x (bar 10x)"
    )
    return ratio >= 10


def steady(rig: AwsRig, folder: Path, seconds: int) -> bool:
    """50 puts a second, each an event."""
    bucket, queue = rig.wired()
    with daemon(folder / "steady", rig, bucket, queue) as run, ThreadPoolExecutor(8) as pool:
        started = time.perf_counter()
        for n in range(50 * seconds):
            pool.submit(rig.s3.put_object, Bucket=bucket, Key=key_of(n), Body=b"x")
            time.sleep(max(0.0, started + (n + 1) / 50 - time.perf_counter()))
        run.until(50 * seconds)
        p99 = run.p99()
    assert run.items() == 50 * seconds
    print(
        f"50 events/s for {seconds} s: p99 from a message received to the catalog at most {p99:g} s (bar 1 s)"
    )
    return p99 <= 1


def memory(rig: AwsRig, folder: Path, events: int) -> bool:
    """The daemon's memory after a tenth of the events, and after all."""
    bucket, _ = rig.wired(events=("s3:ReducedRedundancyLostObject",))
    few = min(events, 5000)
    fill(rig, bucket, few)
    rig.queue("memory")
    at: dict[int, float] = {}
    with daemon(folder / "memory", rig, bucket, "memory") as run:
        for start in range(0, events, few):
            send(rig, "memory", bucket, range(few))
            run.until(start + few)
            at[start + few] = run.resident()
    first = at[max(few, events // 10)]
    last = at[max(at)]
    print(
        f"memory: {first:.0f} MB after {max(few, events // 10):,} events, {last:.0f} MB after {max(at):,} (bar 1.1x)"
    )
    return last <= 1.1 * first


def main() -> int:
    """Returns 1 when a bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steady", type=int, default=0, metavar="SECONDS")
    parser.add_argument("--memory", type=int, default=0, metavar="EVENTS")
    given = parser.parse_args()
    if not SDK.exists():
        raise SystemExit("dtlpy is not installed; run 'make rigs'")
    with tempfile.TemporaryDirectory(prefix="syncagent-bench-") as place, ministack.serving() as rig:
        folder = Path(place)
        if given.steady:
            return 0 if steady(rig, folder, given.steady) else 1
        if given.memory:
            return 0 if memory(rig, folder, given.memory) else 1
        fine = [load(rig, folder, given.messages, given.rounds), steady(rig, folder, 10)]
        return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
