"""Sweeps on a cluster: an engine that is there already lists, compares and writes; this process begins, keeps progress and removes.

What is on which side: `sweep` here, `work` on a worker, `dask` in between. Figures: docs/decisions/011-cluster.md.
"""

from __future__ import annotations

from syncagent.cluster.base import Engine
from syncagent.cluster.sweep import Spread, check
from syncagent.errors import ConfigError

__all__ = ["Engine", "Spread", "check", "open_engine"]


def open_engine(url: str) -> Engine:
    """Connect to a cluster: ``dask://SCHEDULER[:PORT]``, or ``dask+tls://…`` with the certificates that Dask's settings name.

    :raises ConfigError: another scheme, or a URL with anything else in it.
    :raises Transient: there is no scheduler, or it has no workers.
    """
    scheme, _, rest = url.partition("://")
    host, _, port = rest.rpartition(":") if ":" in rest.rpartition("]")[2] else (rest, "", "8786")
    if scheme not in {"dask", "dask+tls"}:
        raise ConfigError(
            f"no cluster by {scheme}://" if rest else "the cluster's URL names no engine",
            resource=scheme,
            hint="write dask://SCHEDULER:8786; docs/decisions/011-cluster.md tells why it is Dask",
        )
    if not host or not port.isdigit() or set(rest) & set("/?#@"):
        raise ConfigError(
            "a cluster's URL is its scheduler's host and port, and no more",
            resource=scheme,
            hint=f"write {scheme}://SCHEDULER:8786; certificates come from Dask's own settings",
        )
    try:
        from syncagent.cluster.dask import DaskEngine

        return DaskEngine(f"{'tls' if scheme == 'dask+tls' else 'tcp'}://{host}:{port}")
    except ModuleNotFoundError as error:
        if error.name not in {"dask", "distributed"}:
            raise
        raise ConfigError(
            "a cluster needs the package distributed", hint="pip install 'syncagent[cluster]'"
        ) from error
