"""The files in ``templates/``, with their ``@WORDS@`` filled in.

Flower carries an app's files only if their names end in one of a few ways. Scripts and other text therefore stand in
Markdown, as a block of code: ``flwr.sh`` in ``flwr.sh.md``.
"""

import re
from ipaddress import IPv6Address
from pathlib import Path

from deploy.errors import DeployError
from deploy.settings import Deployment

FOLDER = Path(__file__).parent / "templates"
CARRIED = (".md", ".toml", ".yaml")
_BLOCK = re.compile(r"```\w+\n(.*)```\n", re.DOTALL)
_WORD = re.compile(r"@([A-Z_]+)@")


def fill(template: str, deployment: Deployment, node: str = "") -> str:
    """One template's text for a deployment, and for one of its nodes if it is about one.

    Names and hosts were checked on input, so none needs quoting in a shell, TOML, YAML or nginx.
    """
    text = _read(template)
    words = _words(deployment)
    if node:
        words |= {"NODE": node, "VARIABLE": _variable(node), "NODE_PORT": str(deployment.node_port(node))}
    return _WORD.sub(lambda match: words[match[1]], text)


def _read(template: str) -> str:
    """A template's text.

    Raises:
        DeployError: This copy of the app lacks its file, or the file is damaged.
    """
    plain = template.endswith(CARRIED)
    path = FOLDER / (template if plain else f"{template}.md")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise DeployError(
            f"{path} cannot be read ({why}); this copy of the app is incomplete: fetch it anew."
        ) from None
    if plain:
        return text
    if not (block := _BLOCK.fullmatch(text)):
        raise DeployError(f"{path} holds no block of code; this copy of the app is damaged: fetch it anew.")
    return block[1]


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
