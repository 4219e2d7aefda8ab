"""package: a function's archive."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import click

from syncagent.cli import output
from syncagent.cli.root import json_option, option
from syncagent.errors import ConfigError


@click.command()
@click.argument("cloud", type=click.Choice(["aws", "gcp", "azure"]))
@option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path, file_okay=False),
    default="dist",
    show_default=True,
    help="Folder for it.",
)
@option(
    "--python",
    metavar="VERSION",
    help="Python of the function, such as 3.13. Default: the one that runs this, where the cloud has it.",
)
@option(
    "--arch",
    type=click.Choice(["arm64", "x86_64"]),
    default="x86_64",
    show_default=True,
    help="Machine of the function; arm64 on AWS only.",
)
@option("--labels", is_flag=True, help="Also what reads label and metadata files; else a sweep reads them.")
@json_option
def package(cloud: str, out: Path, python: str | None, arch: str, labels: bool, json: bool) -> None:
    """Build a function's archive, and write the template that deploys it beside it.

    The archive holds what the handler needs on that cloud, and nothing else. The same input gives the same bytes. Packages are
    fetched by pip, as wheels for the function's Python and machine, whatever this machine is; their versions and hashes are fixed.
    """
    try:
        import packaging  # noqa: F401

        from syncagent.packaging import Target, package
        from syncagent.packaging.targets import CLOUDS
    except ModuleNotFoundError as missing:
        raise ConfigError(f"packages need {missing.name}", hint="pip install 'syncagent[cli]'") from missing
    made = package(Target(CLOUDS[cloud], python or "", arch), out, labels=labels, on_step=output.note)
    if json:
        told: dict[str, Any] = dataclasses.asdict(made)
        told = {name: str(value) if isinstance(value, Path) else value for name, value in told.items()}
        output.emit_json(told | {"beside": [str(path) for path in made.beside]})
        return
    sys.stdout.write(
        f"{made.archive}  {made.size / 1e6:.1f} MB, {made.unpacked / 1e6:.1f} MB unpacked, sha256 {made.sha256}\n"
    )
    for path in (made.template, *made.beside, made.bom, made.checksums):
        sys.stdout.write(f"{path}\n")


COMMANDS = (package,)
