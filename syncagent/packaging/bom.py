"""What an archive is made of: a CycloneDX bill of materials, https://cyclonedx.org/docs/1.6/json/."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from typing import Any

from syncagent import __version__
from syncagent.packaging.targets import Target
from syncagent.packaging.wheels import Wheel


def bill_of_materials(
    archive: str, digest: str, wheels: Iterable[Wheel], target: Target, bytecode: str | None
) -> str:
    """JSON, the same for the same archive: it names no time, and its serial number follows from the archive's digest."""
    told = {
        "target": target.cloud.name, "python": target.python, "arch": target.arch, **({"bytecode": bytecode} if bytecode else {}),
    }  # fmt: skip
    ours = f"pkg:pypi/syncagent@{__version__}"
    bom = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'sha256:{digest}')}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application", "bom-ref": archive, "name": archive, "version": __version__,
                "hashes": [{"alg": "SHA-256", "content": digest}],
                "properties": [{"name": f"syncagent:{name}", "value": value} for name, value in told.items()],
            },
        },
        "components": [
            {"type": "library", "bom-ref": ours, "name": "syncagent", "version": __version__, "purl": ours,
             "licenses": [{"license": {"id": "Apache-2.0"}}]},
            *map(_component, wheels),
        ],
    }  # fmt: skip
    return json.dumps(bom, indent=1, ensure_ascii=False) + "\n"


def _component(wheel: Wheel) -> dict[str, Any]:
    purl = f"pkg:pypi/{wheel.name}@{wheel.version}"
    return {
        "type": "library", "bom-ref": purl, "name": wheel.name, "version": wheel.version, "purl": purl,
        "hashes": [{"alg": "SHA-256", "content": wheel.sha256}],
        **({"licenses": [{"license": {"name": wheel.license}}]} if wheel.license else {}),
    }  # fmt: skip
