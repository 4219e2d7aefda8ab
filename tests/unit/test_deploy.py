"""The daemon's unit and its container: checked as far as this machine can."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from syncagent.cli import cli
from syncagent.config import Run

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy/systemd/syncagent.service"
CONTAINER = ROOT / "deploy/container/Containerfile"


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return parser


def test_the_unit_is_one(tmp_path: Path) -> None:
    told = unit()["Service"]
    words = told["ExecStart"].split()
    assert words[0].endswith("/bin/syncagent")
    assert words[-1] in cli.commands
    assert int(told["TimeoutStopSec"]) > Run().drain
    assert told["ExecReload"].endswith("-HUP $MAINPID")
    verify = shutil.which("systemd-analyze")
    if verify:
        # It looks for the program, which is not installed here.
        there = tmp_path / UNIT.name
        there.write_text(UNIT.read_text().replace("/opt/syncagent/bin/syncagent", sys.executable))
        done = subprocess.run([verify, "verify", str(there)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_the_container_installs_extras_that_there_are_and_runs_a_command() -> None:
    text = CONTAINER.read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = re.search(r"'\.\[([a-z0-9,]+)\]'", text)
    assert wanted
    assert set(wanted[1].split(",")) <= set(extras)
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / one).exists() for one in source.split())
    assert re.search(r'^CMD \["run"\]$', text, re.MULTILINE)
    assert re.search(r"^USER (?!root)", text, re.MULTILINE)
    assert Run().listen.rpartition(":")[2] in text


def test_the_costs_are_those_of_the_script() -> None:
    from scripts.event_costs import PAGE, written

    assert PAGE.read_text() == written(PAGE.read_text()), "run python -m scripts.event_costs"


def test_links_of_the_deploy_pages_lead_somewhere() -> None:
    for page in (ROOT / "deploy").rglob("*.md"):
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page}: {link}"
