"""Run by the target's Python: compiles every file of a folder, without docstrings, which nobody reads in a function.

As ``python -OO`` has it, but assertions stay. The standard library and nothing else.
"""

import ast
import importlib.util
import platform
import sys
from importlib._bootstrap_external import _code_to_hash_pyc  # type: ignore[attr-defined]
from pathlib import Path

_WITH_DOCSTRINGS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def compiled(source: bytes, name: str) -> bytes:
    """A ``.pyc`` that is never compared with its source: a zip changes the source's time.

    :raises SyntaxError: it is no Python of this version.
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, _WITH_DOCSTRINGS) and ast.get_docstring(node, clean=False) is not None:
            if isinstance(node, ast.Module):
                del node.body[0]  # a __future__ import may follow, and has to be the first
            else:
                node.body[0] = ast.copy_location(ast.Pass(), node.body[0])
    code = compile(tree, name, "exec", dont_inherit=True)
    return bytes(_code_to_hash_pyc(code, importlib.util.source_hash(source), False))


def main(folder: Path) -> None:
    """Compile all below a folder, and say with which Python."""
    for path in sorted(folder.rglob("*.py")):
        source = path.read_bytes()
        try:
            data = compiled(source, path.relative_to(folder).as_posix())
        except (SyntaxError, ValueError):  # a template, or a file for another Python
            continue
        out = Path(importlib.util.cache_from_source(str(path)))
        out.parent.mkdir(exist_ok=True)
        out.write_bytes(data)
    print(platform.python_version())  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]))
