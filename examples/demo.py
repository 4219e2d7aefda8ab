"""The main job on real files: mirror a folder, then the same files from an S3 server on this machine.

Run by `make demo`. Everything it writes is in .demo/, which it empties first. No cloud account is used.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
WORK = ROOT / ".demo"
SYNCAGENT = Path(sys.executable).with_name("syncagent")


def say(text: str) -> None:
    """A heading."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n# {text}", flush=True)


def run(*words: str, expect: int = 0) -> None:
    """Run syncagent as typed at a shell, and insist on its exit code."""
    print(f"$ syncagent {shlex.join(words)}", flush=True)
    code = subprocess.run([str(SYNCAGENT), *words], cwd=WORK, check=False).returncode
    if code != expect:
        sys.exit(f"demo: exit code {code}, expected {expect}")


def main() -> None:
    """The demo."""
    shutil.rmtree(WORK, ignore_errors=True)
    shutil.copytree(HERE / "bucket", WORK / "photos")
    for name in [name for name in os.environ if name.startswith(("SYNCAGENT_", "AWS_"))]:
        del os.environ[name]
    os.environ["SYNCAGENT_CATALOG"] = f"sqlite:///{WORK / 'catalog.db'}"
    os.environ["SYNCAGENT_HOME"] = str(WORK)

    say("A folder is a bucket. What would a sync do?")
    run("plan", "./photos")
    say("Do it.")
    run("sync", "./photos")
    say("Again: nothing to do, and nothing is written.")
    run("sync", "photos")

    say("Change a file, rename one, delete one. check finds the drift, sync repairs it.")
    (WORK / "photos/text/consent.txt").write_text("Now with another sentence.\n")
    (WORK / "photos/graphics/logo.png").rename(WORK / "photos/graphics/brand.png")
    (WORK / "photos/photos/val/street-004.jpg").unlink()
    run("check", "photos", expect=1)
    run("sync", "photos")
    run("check", "photos")
    run("trash", "ls", "photos")

    say("The same files in S3 (moto's server, on this machine).")
    with s3_server() as endpoint:
        source = f"s3://demo-bucket/photos?endpoint={endpoint}"
        run("doctor", source)
        run("sync", source, "--dataset", "photos-s3")
        run("ls", "photos-s3", "--summary")
        run("check", "photos-s3")

    say("What happened, and what it cost.")
    run("runs")
    run("item", "photos", "odd names/emoji-😀.jpg")
    say("Next: point it at a bucket of yours.")
    print(
        "  .venv/bin/syncagent doctor s3://YOUR-BUCKET/FOLDER\n  .venv/bin/syncagent sync s3://YOUR-BUCKET/FOLDER"
    )
    print(f"\nThe demo's catalog: {WORK.relative_to(ROOT)}/catalog.db; commands: docs/cli.md")


class s3_server:  # noqa: N801  # reads as what it is in a with statement
    """moto's S3 server on a free loopback port, holding the example files."""

    def __enter__(self) -> str:
        import boto3
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        os.environ.update(AWS_ACCESS_KEY_ID="demo", AWS_SECRET_ACCESS_KEY="demo")
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
        client.create_bucket(Bucket="demo-bucket")
        for path in sorted((HERE / "bucket").rglob("*")):
            if path.is_file():
                key = f"photos/{path.relative_to(HERE / 'bucket').as_posix()}"
                client.put_object(Bucket="demo-bucket", Key=key, Body=path.read_bytes())
        # Keys that no file system here could hold; a bucket can, and they are kept as they are.
        for odd in (
            "a//b.jpg",
            "/lead.jpg",
            "q?x=1&y=2.jpg",
            "[a-z]*.jpg",
            "up/../here.jpg",
            "cafe\u0301.jpg",
        ):
            client.put_object(Bucket="demo-bucket", Key=f"photos/odd names/{odd}", Body=odd.encode())
        client.put_object(Bucket="demo-bucket", Key="photos-old/not-ours.jpg", Body=b"a neighbour")
        client.close()
        return endpoint

    def __exit__(self, *exc: object) -> None:
        self._server.stop()


if __name__ == "__main__":
    main()
