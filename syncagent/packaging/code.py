"""Which of syncagent's own files a handler needs: those that its modules import, found without running them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from syncagent.packaging.targets import Cloud

PACKAGE = Path(__file__).parents[1]
_NEVER = ("cli", "daemon", "packaging", "server")
_LABELS = "ingest"
_READERS = "ingest/formats"  # loaded by name, when a dataset has such files


def own_files(cloud: Cloud, *, labels: bool) -> dict[str, bytes]:
    """Files by path below ``syncagent/``."""
    left_out = _NEVER if labels else (*_NEVER, _LABELS)
    todo, found = list(cloud.modules), dict[str, Path]()
    if labels:
        todo += [f"{_READERS.replace('/', '.')}.{path.stem}" for path in (PACKAGE / _READERS).glob("*.py")]
    while todo:
        name = todo.pop()
        path = _file(name)
        if path is None or name in found or name.partition(".")[0] in left_out:
            continue
        found[name] = path
        todo += _imports(path)
        if "." in name:
            todo.append(name.rpartition(".")[0])
    files = {
        path: (PACKAGE / path).read_bytes()
        for path in ("__init__.py", "py.typed")
        if (PACKAGE / path).is_file()
    }
    for path in found.values():
        files[path.relative_to(PACKAGE).as_posix()] = path.read_bytes()
    for folder in {path.parent for path in found.values()} - {PACKAGE}:
        for path in folder.rglob("*.sql"):
            files[path.relative_to(PACKAGE).as_posix()] = path.read_bytes()
    return files


def _file(name: str) -> Path | None:
    path = PACKAGE.joinpath(*name.split("."))
    for one in (path.with_suffix(".py"), path / "__init__.py"):
        if one.is_file():
            return one
    return None


def _imports(path: Path) -> Iterator[str]:
    """Modules of ours that a file imports, anywhere but for type checkers."""
    todo: list[ast.AST] = [ast.parse(path.read_bytes())]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (
                one.name.removeprefix("syncagent.") for one in node.names if one.name.startswith("syncagent.")
            )
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "syncagent":
            base = (node.module or "").removeprefix("syncagent").removeprefix(".")
            yield from ([base] if base else [])
            yield from (f"{base}.{one.name}".lstrip(".") for one in node.names)
        todo += ast.iter_child_nodes(node)
