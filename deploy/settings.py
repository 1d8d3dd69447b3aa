"""What is kept of a deployment between `init` and later commands: ``deployment.toml``."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from deploy.errors import DeployError
from deploy.hosts import LOOPBACK, Host, address, parse_host

FILE = "deployment.toml"
OTHER_FOLDERS = ("authority", "image", "operator", "superlink", "gateway")
FIRST_NODE_PORT = 9101  # of a SuperNode's own API, on loopback: one each, so that several can share a machine
_NAME = re.compile(r"[a-z](?:-?[a-z0-9]){0,39}")


@dataclass(frozen=True)
class Deployment:
    """One SuperLink and its nodes.

    Attributes:
        name: Of the Flower connection, and in certificates.
        host: Where nodes and the operator reach the SuperLink.
        port: Its one port.
        also: Further names and addresses of the same machine.
        nodes: Names, which are those of their folders.
        flwr: The version of Flower whose images the containers are built on.
    """

    name: str
    host: Host
    port: int
    also: tuple[Host, ...]
    nodes: tuple[str, ...]
    flwr: str

    @property
    def address(self) -> str:
        return address(self.host, self.port)

    @property
    def inner_port(self) -> int:
        """Of a SuperLink that sits behind the gateway."""
        return self.port + 1

    @property
    def server_hosts(self) -> tuple[Host, ...]:
        """All that the server certificate must name; loopback because the ServerApp connects from the same machine."""
        return (self.host, *self.also, *LOOPBACK)

    def node_port(self, node: str) -> int:
        return FIRST_NODE_PORT + self.nodes.index(node)

    def to_toml(self) -> str:
        return tomli_w.dumps(
            {
                "name": self.name,
                "host": str(self.host),
                "port": self.port,
                "also": [str(host) for host in self.also],
                "nodes": list(self.nodes),
                "flwr": self.flwr,
            }
        )

    @classmethod
    def read(cls, folder: Path) -> "Deployment":
        """Read back what `to_toml` wrote.

        Raises:
            DeployError: There is no such file, or it is damaged.
        """
        path = folder / FILE
        try:
            found = tomllib.loads(path.read_text(encoding="utf-8"))
            return cls(
                name=check_name("name", found["name"]),
                host=parse_host("host", found["host"]),
                port=int(found["port"]),
                also=tuple(parse_host("also", host) for host in found["also"]),
                nodes=tuple(check_name("nodes", node) for node in found["nodes"]),
                flwr=str(found["flwr"]),
            )
        except OSError:
            raise DeployError(f"{folder} holds no {FILE}; it must be a folder that `init` wrote.") from None
        except (DeployError, KeyError, TypeError, ValueError) as error:
            raise DeployError(f"{path} is damaged ({error}); it must be as `init` wrote it.") from None


def check_name(flag: str, name: str) -> str:
    """Check a name that serves as folder, connection, service and shell argument alike.

    Raises:
        DeployError: Anything but lower-case letters, digits and single hyphens, or the name of another folder.
    """
    if _NAME.fullmatch(name) and name not in OTHER_FOLDERS:
        return name
    raise DeployError(
        f"{flag} is {name!r}; it must be up to 40 lower-case letters, digits and single hyphens, begin with a letter,"
        f" and not be {', '.join(OTHER_FOLDERS)}."
    )
