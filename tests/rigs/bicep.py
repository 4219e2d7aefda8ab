"""The syntax tree of an Azure template, as JSON. Run by a Python that has the grammar: see scripts/rigs.sh.

    python bicep.py FILE

A node is ``[type, text, children]``, named nodes only; what is no Bicep is a node of type ``ERROR`` or ``MISSING``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import tree_sitter_bicep
from tree_sitter import Language, Parser


def tree(node: Any, source: bytes) -> list[Any]:
    kind = "MISSING" if node.is_missing else node.type
    text = source[node.start_byte : node.end_byte].decode()
    children = [one for one in node.children if one.is_named or one.is_error or one.is_missing]
    return [kind, text, [tree(one, source) for one in children]]


if __name__ == "__main__":
    source = Path(sys.argv[1]).read_bytes()
    parser = Parser(Language(tree_sitter_bicep.language()))
    json.dump(tree(parser.parse(source).root_node, source), sys.stdout)
