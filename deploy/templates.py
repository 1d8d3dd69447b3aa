"""The files in ``templates/``, with their ``@WORDS@`` filled in."""

import re
from ipaddress import IPv6Address
from pathlib import Path

from deploy.settings import Deployment

FOLDER = Path(__file__).parent / "templates"
_WORD = re.compile(r"@([A-Z_]+)@")


def fill(template: str, deployment: Deployment, node: str = "") -> str:
    """One template's text for a deployment, and for one of its nodes if it is about one.

    Names and hosts were checked on input, so none needs quoting in a shell, TOML, YAML or nginx.
    """
    text = (FOLDER / template).read_text(encoding="utf-8")
    words = _words(deployment)
    if node:
        words |= {"NODE": node, "VARIABLE": _variable(node), "NODE_PORT": str(deployment.node_port(node))}
    return _WORD.sub(lambda match: words[match[1]], text)


def compose(deployment: Deployment) -> str:
    """``compose.yaml``: SuperLink, gateway, and a service for each node."""
    return fill("compose.yaml", deployment) + "".join(
        fill("compose-node.yaml", deployment, node) for node in deployment.nodes
    )


def _words(deployment: Deployment) -> dict[str, str]:
    ipv6 = isinstance(deployment.host, IPv6Address)
    loopback, port = ("::1" if ipv6 else "127.0.0.1"), deployment.port
    first, count = deployment.nodes[0], len(deployment.nodes)
    return {
        "NAME": deployment.name,
        "ADDRESS": deployment.address,
        "PORT": str(port),
        "LISTEN": "::" if ipv6 else "0.0.0.0",
        "LISTEN_ON": f"[::]:{port} ipv6only=off" if ipv6 else f"0.0.0.0:{port}",
        "LOOPBACK": loopback,
        "INNER_PORT": str(deployment.inner_port),
        "INNER": f"[{loopback}]:{deployment.inner_port}" if ipv6 else f"{loopback}:{deployment.inner_port}",
        "FLWR": deployment.flwr,
        "FIRST": first,
        "FIRST_VARIABLE": _variable(first),
        "NODES": str(count),
        "COUNT": "one node" if count == 1 else f"{count} nodes",
    }


def _variable(node: str) -> str:
    """The environment variable that names a node's data on the machine that runs its container."""
    return "DATA_" + node.upper().replace("-", "_")
