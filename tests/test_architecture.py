"""Imports point one way, and every SDK has one home."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncagent import errors
from syncagent.errors import SyncAgentError

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "syncagent"
MODULES = sorted(PACKAGE.rglob("*.py"))

# From the bottom up. A module may import from its own layer's package and from any layer below.
LAYERS: list[set[str]] = [
    {"errors"},
    {"model", "digest"},
    {"pages", "workers", "ahead"},
    {"retry", "config", "tracing"},
    {"drivers", "catalog"},
    {"certificate"},
    {"reconcile"},
    {"ingest"},
    {"agent"},
    # Below the daemon and the CLI, which settle events as the functions do.
    {"handlers", "packaging", "cluster"},
    {"cli", "server", "daemon"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
EXCEPTIONS = {
    "syncagent/__init__.py": "names the three entry points, and loads them only when asked for",
    "syncagent/cli/serve.py": "starts the server, which is its equal",
    "syncagent/cli/daemon.py": "starts the daemon, which is its equal",
    "syncagent/__main__.py": "is the command: it starts the CLI and turns errors into exit codes",
}

# SDK -> the files that may import it.
HOMES = {
    "boto3": r"drivers/s3\w*\.py",
    "botocore": r"drivers/s3\w*\.py",
    "google": r"drivers/gcs\w*\.py",
    "azure": r"drivers/azure\w*\.py",
    "msal": r"drivers/azure_identity\.py",
    "tenacity": r"retry\.py",
    "opentelemetry": r"tracing\.py",
    "croniter": r"daemon/schedule\.py",
    "fastavro": r"drivers/azure_feed\.py",
    "sqlite3": r"catalog/sql/\w+\.py|drivers/bucket\.py",
    "psycopg": r"catalog/sql/postgres_connection\.py",
    "psycopg_pool": r"catalog/sql/postgres_connection\.py",
    "cryptography": r"catalog/vault\.py",
    "distributed": r"cluster/dask\.py",
    "dask": r"cluster/dask\.py",
    "av": r"ingest/probe/containers\.py|ingest/thumbnails\.py",
    "pyarrow": r"ingest/tables\.py|ingest/formats/table\.py|drivers/inventory_rows\.py",
    "click": r"cli/.*",
    "rich": r"cli/.*",
}
# Only when used: never at the top of a module.
LAZY = {
    "boto3",
    "botocore",
    "google",
    "azure",
    "cryptography",
    "av",
    "numpy",
    "PIL",
    "pyarrow",
    "opentelemetry",
    "fastavro",
    "distributed",
    "dask",
}


def imports(tree: ast.AST, path: Path) -> Iterator[tuple[str, ast.stmt]]:
    """Full names of all modules that are imported, anywhere in a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = path.relative_to(ROOT).with_suffix("").parts[: -node.level]
                base = ".".join([*package, *filter(None, [base])])
            if base == "syncagent":
                yield from ((f"syncagent.{alias.name}", node) for alias in node.names)
            else:
                yield base, node


def part(dotted: str) -> str:
    """The layer's name of a module: `syncagent.catalog.sql.sqlite` belongs to `catalog`."""
    return dotted.split(".")[1] if "." in dotted else "__init__"


def upward(source: str, path: Path) -> list[str]:
    """Imports of `source` that point up or sideways."""
    mine = part(".".join(path.relative_to(ROOT).with_suffix("").parts))
    found = []
    for name, _ in imports(ast.parse(source), path):
        if (
            name.split(".")[0] != "syncagent"
            or name == "syncagent.__version__"
            or (other := part(name)) == mine
        ):
            continue
        if LEVEL.get(other, 99) >= LEVEL[mine]:
            found.append(f"{mine} imports {name}")
    return found


def test_every_module_has_a_layer() -> None:
    for path in MODULES:
        name = path.relative_to(ROOT).as_posix()
        top = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        assert name in EXCEPTIONS or top in LEVEL, f"{name} has no layer; see docs and LAYERS"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_point_down(path: Path) -> None:
    if path.relative_to(ROOT).as_posix() not in EXCEPTIONS:
        assert upward(path.read_text(), path) == []


def test_an_import_that_points_up_is_found() -> None:
    model = PACKAGE / "model.py"
    for line in (
        "from syncagent.reconcile import merge",
        "from syncagent import drivers",
        "from . import catalog",
        "def f():\n    import syncagent.cli.main",
    ):
        assert upward(line, model), line
    assert upward("from .errors import NotFound", model) == []
    assert upward("from syncagent.catalog import Store", PACKAGE / "drivers" / "s3.py"), "sideways"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_sdk_has_one_home(path: Path) -> None:
    tree = ast.parse(path.read_text())
    name = path.relative_to(PACKAGE).as_posix()
    for module, node in imports(tree, path):
        sdk = module.split(".")[0]
        if sdk in HOMES:
            assert re.fullmatch(HOMES[sdk], name), f"{name}:{node.lineno} imports {module}"


def at_load(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements that run when the module is imported, apart from what is for type checkers."""
    todo: list[ast.stmt] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo += node.orelse
            continue
        yield node
        todo += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_sdks_load_only_when_used(path: Path) -> None:
    for node in at_load(ast.parse(path.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert name.split(".")[0] not in LAZY, f"line {node.lineno}: {name}"


HEAVY = [
    "google",
    "azure",
    "av",
    "pyarrow",
    "numpy",
    "PIL",
    "boto3",
    "botocore",
    "click",
    "rich",
    "cryptography",
    "sqlite3",
]


def loaded_by(*modules: str) -> set[str]:
    script = f"import sys, json\nimport {', '.join(modules)}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    # A package without code of its own (`google`) may be put there by a .pth file at start.
    modules_loaded = set(json.loads(done.stdout))
    return {name.split(".")[0] for name in modules_loaded if name not in {"google"}}


def test_the_engine_with_one_driver_loads_no_other_sdk() -> None:
    wanted = ["syncagent.reconcile"]
    if (PACKAGE / "drivers" / "s3.py").exists():
        wanted.append("syncagent.drivers.s3")
    assert loaded_by(*wanted) & set(HEAVY) == set()


HANDLERS = sorted(path.stem for path in (PACKAGE / "handlers").glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", HANDLERS)
def test_handlers_load_no_sdk_and_nothing_to_draw_with(name: str) -> None:
    # httpx loads the parts of its command line wherever they are installed; a function's package has none.
    allowed = {"click", "rich"}
    assert (
        loaded_by(f"syncagent.handlers.{name}")
        & {*HEAVY, "fastapi", "uvicorn", "msgspec", "prometheus_client", "opentelemetry"} - allowed
        == set()
    )


def test_the_package_alone_loads_nothing() -> None:
    assert loaded_by("syncagent") & {*HEAVY, "tenacity", "httpx", "pydantic"} == set()


def test_what_is_loaded_is_seen() -> None:
    assert {"sqlite3", "tenacity"} <= loaded_by("syncagent.reconcile", "syncagent.catalog.sql.sqlite")


# -- errors --------------------------------------------------------------------------------------


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    told: dict[str, tuple[int, bool]] = {}
    for line in (errors.__doc__ or "").splitlines():
        if found := re.search(r"(\w+) +exit (\d+)(.*)", line):
            told[found[1]] = (int(found[2]), "transient:" in found[3])
    mine = [kind for kind in SyncAgentError.__subclasses__() if kind.__module__ == "syncagent.errors"]
    coded = {kind.__name__: (kind.exit_code, kind.transient) for kind in (SyncAgentError, *mine)}
    assert told == coded
    assert all(not [k for k in kind.__subclasses__() if k.__module__ == "syncagent.errors"] for kind in mine)


def test_exit_codes_are_those_of_the_design() -> None:
    wanted = {"ConfigError": 2, "InvalidInput": 2, "NotFound": 4, "AccessDenied": 6, "Conflict": 5,
              "Transient": 5, "Refused": 8, "AlreadyExists": 1, "Unsupported": 1}  # fmt: skip
    assert {name: getattr(errors, name).exit_code for name in wanted} == wanted
    assert (errors.EXIT_OK, errors.EXIT_BUG, errors.EXIT_INTERRUPTED) == (0, 70, 130)


def test_an_error_is_one_line_and_keeps_its_parts() -> None:
    error = errors.AccessDenied("no", resource="box", hint="ask", permission="s3:ListBucket")
    assert (str(error), error.resource, error.permission) == ("no; ask", "box", "s3:ListBucket")
    assert str(errors.Transient("busy", retry_after=3.0)) == "busy"
