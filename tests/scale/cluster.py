"""Nodes of Ray on this machine, which start fast and listen on 127.0.0.1 only."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import ray._private.node as node_module
from ray._common.utils import get_default_ray_temp_dir
from ray.cluster_utils import Cluster

PORTS = ("metrics_agent_port", "dashboard_agent_listen_port", "metrics_export_port", "runtime_env_agent_port")
CPUS = 2
OBJECT_STORE_BYTES = 80 * 1024 * 1024  # the smallest that Ray takes


class LoopbackNode(node_module.Node):
    """A node without a dashboard, whose raylet does not wait for its agents.

    The raylet waits 15 s for each agent, a Python process, to write its port into a file, and ends after that. Where
    other processes use the CPUs, that is too short.
    """

    def start_api_server(self, **_: Any) -> None:
        """Start no dashboard."""

    def start_raylet(self, *arguments: Any, **options: Any) -> None:
        for name in PORTS:
            port = getattr(self._ray_params, name)
            Path(self._session_dir, f"{name}_{self._node_id}").write_text(str(port), encoding="utf-8")
        super().start_raylet(*arguments, **options)


class LoopbackCluster:
    """A head node with two CPUs, and the nodes that a test adds."""

    def __enter__(self) -> Self:
        # Not tmp_path: the paths of Unix sockets are short.
        self.directory = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        Path(get_default_ray_temp_dir()).mkdir(exist_ok=True)  # there the head node writes its address all the same
        self._cluster = Cluster()
        self.add_node(CPUS)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._cluster.shutdown()
        shutil.rmtree(self.directory)

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add_node(self, cpus: int) -> Any:
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in PORTS]
            for each in sockets:
                each.bind(("127.0.0.1", 0))
            ports = {name: each.getsockname()[1] for name, each in zip(PORTS, sockets, strict=True)}
        original, node_module.Node = node_module.Node, LoopbackNode
        try:
            return self._cluster.add_node(
                num_cpus=cpus,
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                include_log_monitor=False,
                no_monitor=True,
                temp_dir=str(self.directory),
                **ports,
            )
        finally:
            node_module.Node = original

    @contextlib.contextmanager
    def more_cpus(self, total: int) -> Iterator[Any]:
        """Add a node for the CPUs that the head node lacks, and remove it at the end."""
        node = self.add_node(total - CPUS) if total > CPUS else None
        try:
            yield node
        finally:
            if node is not None:
                self.remove_node(node)

    def remove_node(self, node: Any) -> None:
        """Kill the processes of a node, unless they are dead."""
        if node in self._cluster.worker_nodes:
            self._cluster.remove_node(node, allow_graceful=False)
