"""The three clouds' functions: what their archives look like, and which wheels run there."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from syncagent.errors import ConfigError


def _deploy() -> Path:
    """``deploy/``: inside the installed package, or beside it in a checkout."""
    inside = Path(__file__).parents[1] / "_deploy"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "deploy"


DEPLOY = _deploy()
_ARCHS = {"x86_64": ("x86_64", "x86_64"), "arm64": ("aarch64", "aarch64")}
"""By the clouds' name of a machine: the wheels' name, and Python's."""


@dataclass(frozen=True)
class Cloud:
    """How one cloud wants its functions."""

    name: str
    glibc: Mapping[str, int]
    """By Python version that the cloud runs, the minor version of its glibc 2."""
    entry: tuple[str, ...]
    """Files of ``deploy/NAME`` that go to the archive's top."""
    template: str
    """What deploys the archive; written beside it, for the archive's Python and machine."""
    modules: tuple[str, ...]
    """What of syncagent the archive starts from; what these import comes along."""
    beside: tuple[str, ...] = ()
    """Files of ``deploy/NAME`` that are written beside the archive, too."""
    archs: tuple[str, ...] = ("x86_64",)
    below: str = ""
    """Where in the archive packages are."""
    installs: str | None = None
    """A package that the cloud's build installs, with what it needs, from wheels in the archive; the others are unpacked here."""
    sources: bool = True
    """Whether sources stay beside what was made of them."""
    without: tuple[str, ...] = ()
    """Packages that others name as needed, and that a handler runs without.

    anyio: httpcore's, for asyncio. charset-normalizer: requests guesses with it how a text is encoded that does not say so; it takes
    2.5 MB of memory, and requests runs without it, though it warns. proto-plus: for gRPC. pyasn1, pyasn1-modules: google-auth signs
    with them where there is rsa and no cryptography. msal-extensions: azure-identity keeps tokens in files with it, where it is told to.
    pycparser: cffi reads C with it, and what cryptography takes of cffi is compiled.
    """
    unused: tuple[str, ...] = ()
    """Regular expressions of files in packages that no handler opens, and that are large."""
    trims: Mapping[str, Callable[[bytes], bytes]] = field(default_factory=dict)
    """By a regular expression of files in packages, what keeps of them what a handler asks for: large tables cost memory and
    time at every start. What was ``.gz`` is kept without."""
    defaults: Mapping[str, str] = field(default_factory=dict)
    """By a regular expression of the template with two groups, the text that goes between them."""

    @property
    def folder(self) -> Path:
        """``deploy/NAME``."""
        return DEPLOY / self.name


_AWS_SERVICES = ("s3", "secretsmanager", "sts")
"""What a handler calls: the bucket, the secret, and what hands out credentials of another role."""


def _endpoints(data: bytes) -> bytes:
    """botocore's table of endpoints, of those services."""
    told = json.loads(data)
    for partition in told["partitions"]:
        services = partition["services"]
        partition["services"] = {name: services[name] for name in _AWS_SERVICES if name in services}
    return _json(told)


def _undocumented(data: bytes) -> bytes:
    """botocore's description of a service, without its prose: four fifths of it."""
    return _json(_without_prose(json.loads(gzip.decompress(data))))


def _without_prose(told: Any) -> Any:
    if isinstance(told, dict):
        # botocore wants them to be there; a field of that name is no text, and stays.
        return {
            name: "" if name == "documentation" and isinstance(value, str) else _without_prose(value)
            for name, value in told.items()
        }
    return [_without_prose(one) for one in told] if isinstance(told, list) else told


def _json(told: Any) -> bytes:
    return json.dumps(told, separators=(",", ":")).encode()


AWS = Cloud(
    "aws",
    # https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtimes.html: Amazon Linux 2, then 2023.
    glibc={"3.11": 26, "3.12": 34, "3.13": 34},
    entry=("lambda_function.py",),
    template="template.yaml",
    modules=("handlers.aws", "drivers.s3", "drivers.s3_secrets"),
    archs=("arm64", "x86_64"),
    without=("anyio",),
    # botocore describes 400 services.
    unused=(
        rf"botocore/data/(?!({'|'.join(_AWS_SERVICES)})/|[\w-]+\.json)",
        r"boto3/(data|examples)/",
    ),
    trims={
        r"botocore/data/endpoints\.json": _endpoints,
        r"botocore/data/.*/service-2\.json\.gz": _undocumented,
    },
    defaults={
        r"(\n      Runtime: python).*(\n)": "{python}",
        r"(\n      Architectures: \[).*(\]\n)": "{arch}",
    },
)
GCP = Cloud(
    "gcp",
    # https://cloud.google.com/functions/docs/runtime-support: Ubuntu 22.04.
    glibc={"3.11": 35, "3.12": 35, "3.13": 35},
    entry=("main.py",),
    template="main.tf",
    beside=("gcloud.sh",),
    modules=("handlers.gcp", "drivers.gcs", "drivers.gcs_secrets"),
    below="packages/",
    installs="functions-framework",
    without=("charset-normalizer", "proto-plus", "pyasn1", "pyasn1-modules", "pycparser"),
    # Buckets by gRPC, and what asks for it.
    unused=(
        r"google/cloud/_storage_v2/",
        r"google/(cloud/storage/asyncio|api_core/(gapic_v1|operations_v1))/",
    ),
    # The build compiles all sources anew, into files that say their sources' times, which the image then loses:
    # https://github.com/GoogleCloudPlatform/buildpacks/blob/main/cmd/python/functions_framework/lib/lib.go
    sources=False,
    defaults={r'(variable "python" \{\n  type        = string\n  default     = ").*(")': "{python}"},
)
AZURE = Cloud(
    "azure",
    # https://github.com/Azure/azure-functions-docker: Debian 11, then 12.
    glibc={"3.11": 31, "3.12": 36, "3.13": 36},
    entry=("function_app.py", "host.json", "requirements.txt"),
    template="main.bicep",
    modules=("handlers.azure", "drivers.azure", "drivers.azure_secrets"),
    below=".python_packages/lib/site-packages/",
    without=("anyio", "charset-normalizer", "msal-extensions", "pycparser"),
    # The SDKs a second time, for asyncio; and what werkzeug has for servers.
    unused=(r"azure/(.+/)?aio/", r"werkzeug/(debug|middleware)/"),
    defaults={r"(\nparam python string = ').*(')": "{python}"},
)
CLOUDS = {one.name: one for one in (AWS, GCP, AZURE)}


@dataclass(frozen=True)
class Target:
    """Where an archive is to run.

    :param python: as ``3.13``; default the Python that runs, if the cloud has it, for it can compile the archive's files.
    :param arch: ``x86_64`` or ``arm64``.
    :raises ConfigError: the cloud has none such.
    """

    cloud: Cloud
    python: str = ""
    arch: str = "x86_64"

    def __post_init__(self) -> None:
        if not self.python:
            mine = f"{sys.version_info[0]}.{sys.version_info[1]}"
            known = list(self.cloud.glibc)
            object.__setattr__(self, "python", mine if mine in known else known[-1])
        if self.python not in self.cloud.glibc:
            raise ConfigError(
                f"{self.cloud.name} has no function with Python {self.python}", resource=self.python,
                hint=f"choose {', '.join(self.cloud.glibc)}",
            )  # fmt: skip
        if self.arch not in self.cloud.archs:
            raise ConfigError(
                f"{self.cloud.name} has no function on {self.arch}", resource=self.arch,
                hint=f"choose {', '.join(self.cloud.archs)}",
            )  # fmt: skip

    @property
    def version(self) -> tuple[int, int]:
        """Of Python."""
        major, _, minor = self.python.partition(".")
        return int(major), int(minor)

    def platforms(self) -> Iterator[str]:
        """Platform tags whose wheels run there, the newest first: PEP 600."""
        machine = _ARCHS[self.arch][0]
        # 17 is manylinux2014, the oldest that is still built.
        for minor in range(self.cloud.glibc[self.python], 16, -1):
            yield f"manylinux_2_{minor}_{machine}"
        yield f"manylinux2014_{machine}"

    def markers(self) -> dict[str, str]:
        """The environment for markers of requirements: PEP 508."""
        return {
            "implementation_name": "cpython", "implementation_version": f"{self.python}.0", "os_name": "posix",
            "platform_machine": _ARCHS[self.arch][1], "platform_python_implementation": "CPython",
            "platform_release": "", "platform_system": "Linux", "platform_version": "",
            "python_full_version": f"{self.python}.0", "python_version": self.python, "sys_platform": "linux", "extra": "",
        }  # fmt: skip

    def defaults(self) -> dict[str, str]:
        """See `Cloud.defaults`."""
        return {
            pattern: value.format(python=self.python, arch=self.arch)
            for pattern, value in self.cloud.defaults.items()
        }
