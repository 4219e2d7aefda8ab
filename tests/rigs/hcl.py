"""A Terraform template as JSON. Run by a Python that has its grammar: see scripts/rigs.sh.

    python hcl.py FILE

Names are without quotes; an expression is a text in ``${}``, and a text has its quotes still.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import hcl2


def plain(node: Any) -> Any:
    """Without quotes around names, and without what the parser notes for itself."""
    if isinstance(node, dict):
        return {name.strip('"'): plain(value) for name, value in node.items() if name != "__is_block__"}
    return [plain(one) for one in node] if isinstance(node, list) else node


if __name__ == "__main__":
    with Path(sys.argv[1]).open(encoding="utf-8") as file:
        json.dump(plain(hcl2.load(file)), sys.stdout)
