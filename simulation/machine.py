"""Which machine of a simulation this client runs on."""

import socket
import sys


def machine() -> str:
    """Host name and address in Ray's cluster; empty if the cluster is one machine, or there is none."""
    ray = sys.modules.get("ray")  # whoever runs in one of its actors has it
    if ray is None or not ray.is_initialized() or len(ray.nodes()) < 2:
        return ""
    return f"{socket.gethostname()} ({ray.util.get_node_ip_address()})"
