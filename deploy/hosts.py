"""Names and addresses under which machines are reached, as certificates and Flower's flags need them."""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address

from deploy.errors import DeployError

Host = str | IPv4Address | IPv6Address
LOOPBACK: tuple[Host, ...] = ("localhost", IPv4Address("127.0.0.1"), IPv6Address("::1"))
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")


def parse_host(flag: str, text: str) -> Host:
    """A DNS name in lower case, or an IP address.

    Args:
        flag: What the user typed before it, for the error.
        text: Such as ``fl.example.org``, ``10.0.0.5`` or ``2001:db8::5`` (brackets around it are fine).

    Raises:
        DeployError: Neither of them; a name ends in digits alone, holds anything but ASCII letters, digits, dots and
            hyphens, or is too long.
    """
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        address = ip_address(bare)
    except ValueError:
        pass
    else:
        if not (address.is_unspecified or address.is_multicast or getattr(address, "scope_id", None)):
            return address
    labels = text.lower().split(".")
    if len(text) <= 253 and all(_LABEL.fullmatch(label) for label in labels) and not labels[-1].isdigit():
        return text.lower()
    raise DeployError(
        f"{flag} is {text!r}; it must be the DNS name (such as fl.example.org) or the IP address of one machine,"
        " without scheme and port."
    )


def address(host: Host, port: int) -> str:
    """``host:port``, with brackets around IPv6, as ``--superlink`` and a connection's `address` take it."""
    return f"[{host}]:{port}" if isinstance(host, IPv6Address) else f"{host}:{port}"
