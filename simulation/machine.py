"""The machine of a simulation that this client runs on."""

import socket
import sys


def machine() -> str:
    """Host name and address in the Ray cluster; empty if the cluster is one machine, or there is none."""
    ray = sys.modules.get("ray")  # every Ray actor has imported it
    if ray is None or not ray.is_initialized() or len(ray.nodes()) < 2:
        return ""
    return f"{socket.gethostname()} ({ray.util.get_node_ip_address()})"
