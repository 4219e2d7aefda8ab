"""Mirror 10,000 objects into a server's catalog: `syncagent sync`, beside the platform's client dtlpy.

    make bench                                  # or: python benchmarks/rest.py --objects 10000 --rounds 3

Both write to one `syncagent serve`, over the same bucket of a stub, in turns; medians are printed. What counts for
`sync` is its whole process; for dtlpy only its upload, without start and sign-in.
The bars: one request to the server for 500 objects, and 50x dtlpy. Exits 1 when one is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.mirror import ENV, stub  # after the path is known
from tests.rigs.server import EMAIL, PASSWORD, SDK, ServerRig, serving

UPLOAD = """
import json, os, time
import dtlpy as dl

dl.login_m2m(email=os.environ["EMAIL"], password=os.environ["PASSWORD"])
dl.verbose.disable_progress_bar = True
home = dl.projects.create(project_name=os.environ["NAME"])
key = home.integrations.create(
    integrations_type="s3", name=home.id, options={"key": "bench", "secret": "bench"}
)
driver = home.drivers.create(
    name=home.id, driver_type="s3", integration_id=key.id, integration_type="s3", bucket_name="bucket",
    project_id=home.id, region="us-east-1", endpoint=os.environ["S3"],
)
dataset = home.datasets.create("imported", driver=driver)
keys = open(os.environ["KEYS"], encoding="utf-8").read().split("\\n")
started = time.perf_counter()
dataset.items.upload(local_path=[f"external://bucket/{key}" for key in keys], raise_on_error=True)
seconds = time.perf_counter() - started
print(json.dumps({"seconds": seconds, "items": dataset.items.list().items_count}))
"""


def requests(url: str) -> int:
    """How many requests the server has answered."""
    body = json.dumps({"username": EMAIL, "password": PASSWORD, "type": "user_credentials"}).encode()
    ask = urllib.request.Request(f"{url}/token?default", body, {"Content-Type": "application/json"})
    token = json.load(urllib.request.urlopen(ask))["id_token"]
    ask = urllib.request.Request(f"{url}/metrics", headers={"Authorization": f"Bearer {token}"})
    lines = urllib.request.urlopen(ask).read().decode().splitlines()
    return int(
        sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("syncagent_requests_total"))
    )


def sync(url: str, s3: str, name: str) -> tuple[float, int, int]:
    """Seconds, requests to the server, objects added."""
    env = {**ENV, "SYNCAGENT_CATALOG": f"dataloop+{url}", "DTLPY_USERNAME": EMAIL, "DTLPY_PASSWORD": PASSWORD}
    target = f"s3://bucket?endpoint={s3}&region=us-east-1"
    before = requests(url)
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "syncagent", "sync", target, "--dataset", name, "--quiet", "--json"],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(done.stderr)
    # Two of them are this function's own: a sign-in, and the figures that it read before.
    return seconds, requests(url) - before - 2, json.loads(done.stdout)["report"]["added"]


def dtlpy(rig: ServerRig, s3: str, keys: Path, name: str, home: Path) -> tuple[float, int]:
    """Seconds, items."""
    home.mkdir()
    script = home / "upload.py"
    script.write_text(UPLOAD)
    done = rig.client(script, home, seconds=3600, NAME=name, S3=s3, KEYS=str(keys))
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    told = json.loads(done.stdout.splitlines()[-1])
    return told["seconds"], told["items"]


def main() -> int:
    """Run, print the table, say whether the bars are met."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--objects", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if not SDK.exists():
        raise SystemExit("dtlpy is not installed; run 'make rigs'")
    ours, theirs, sent = [], [], []
    with tempfile.TemporaryDirectory() as folder, stub(given.objects) as s3, serving(Path(folder)) as rig:
        keys = Path(folder) / "keys"
        listed = [
            sys.executable,
            "-m",
            "syncagent",
            "ls",
            f"s3://bucket?endpoint={s3}&region=us-east-1",
            "--format",
            "{key}",
        ]
        keys.write_text(
            subprocess.run(listed, env=ENV, capture_output=True, text=True, check=True).stdout.strip("\n")
        )
        for number in range(given.rounds):
            seconds, asked, added = sync(rig.url, s3, f"mirror-{number}")
            assert added == given.objects
            ours.append(seconds)
            sent.append(asked)
            seconds, items = dtlpy(rig, s3, keys, f"round-{number}", Path(folder) / f"home-{number}")
            print(
                f"round {number}: sync {ours[-1]:.2f} s, {asked} requests; dtlpy {seconds:.1f} s, {items} items",
                flush=True,
            )
            theirs.append(seconds)
    ratio, per = statistics.median(theirs) / statistics.median(ours), given.objects / max(sent)
    print(
        f"sync {statistics.median(ours):.2f} s, dtlpy {statistics.median(theirs):.1f} s: {ratio:.0f}x (bar 50x)"
    )
    print(f"{max(sent)} requests for {given.objects} objects: one for {per:.0f} (bar 500)")
    return 0 if ratio >= 50 and per >= 500 else 1


if __name__ == "__main__":
    sys.exit(main())
