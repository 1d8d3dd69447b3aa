"""`python -m deploy`: what a federation on real machines needs, one folder per machine."""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from deploy import folders
from deploy.errors import DeployError
from deploy.hosts import parse_host
from deploy.settings import Deployment, check_name

app = typer.Typer(
    help="Certificates, keys and start scripts for real machines.",
    epilog="Example: python -m deploy init federation --superlink-host fl.example.org --nodes 3",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# What arguments are stands in each docstring: flwr needs a Typer that loses their help with Click 8.5.
Dir = Annotated[Path, typer.Argument(metavar="DIR")]
Days = Annotated[int, typer.Option(help="How long the server certificate is valid.", min=1)]
Also = Annotated[list[str] | None, typer.Option(help="A further name or address of the server; repeatable.")]
TWO_YEARS = 730


@app.command(epilog="Example: python -m deploy init federation --superlink-host fl.example.org --nodes 3 --port 8443")
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR")],
    superlink_host: Annotated[str, typer.Option(help="Name or address under which nodes reach the SuperLink.")],
    nodes: Annotated[int, typer.Option(help="Number of nodes.", min=1, max=1000)],
    port: Annotated[int, typer.Option(help="The SuperLink's port.", min=1, max=65534)] = 8000,
    also: Also = None,
    name: Annotated[str, typer.Option(help="Name of the Flower connection.")] = "sites",
    days: Days = TWO_YEARS,
) -> None:
    """Write certificates, keys and scripts for a SuperLink, its nodes and its operator.

    DIR is the folder to write, new or empty.
    """
    deployment = Deployment(
        name=check_name("--name", name),
        host=parse_host("--superlink-host", superlink_host),
        port=port,
        also=tuple(parse_host("--also", host) for host in also or []),
        nodes=tuple(f"node-{number}" for number in range(1, nodes + 1)),
        flwr=version("flwr"),
    )
    folders.init(folder, deployment, days)
    table = Table("folder", "goes to")
    table.add_row("superlink", f"the server, {deployment.host}")
    for node in deployment.nodes[:3]:
        table.add_row(node, "its site")
    if nodes > 3:
        table.add_row("...", f"{nodes - 3} more")
    table.add_row("operator", "whoever starts runs")
    table.add_row("authority", "nowhere: keep it offline")
    Console().print(table)
    typer.echo(f"{folder / 'README.md'} explains what to do with them.")


@app.command(epilog="Example: python -m deploy add-node federation hospital-4")
def add_node(folder: Dir, node: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Write one more node's folder and key.

    DIR is the folder that `init` wrote; NAME is that of the new node and its folder.
    """
    folders.add_node(folder, Deployment.read(folder), check_name("NAME", node))
    public = folder / "operator" / "nodes" / f"{node}.pub"
    typer.echo(
        f"1. Copy {folder / node} to its site, and {public} into the operator's nodes/.\n"
        f"2. Operator: operator/register.sh {node}\n"
        f"3. Site: {node}/start.sh DATA"
    )


@app.command(epilog="Example: python -m deploy rotate federation node-2")
def rotate(folder: Dir, node: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Make a new key for a node whose key is old, lost or stolen.

    DIR is the folder that `init` wrote; NAME is that of the node.
    """
    folders.rotate(folder, Deployment.read(folder), node)
    public = folder / "operator" / "nodes" / f"{node}.pub"
    typer.echo(
        f"1. Operator: operator/unregister.sh {node}    (shuts out the old key and stops the node)\n"
        f"2. Copy {public} into the operator's nodes/, {folder / node / 'node.key'} to the site.\n"
        f"3. Operator: operator/register.sh {node}\n"
        f"4. Site: {node}/start.sh DATA"
    )


@app.command(epilog="Example: python -m deploy renew federation --days 365")
def renew(folder: Dir, also: Also = None, days: Days = TWO_YEARS) -> None:
    """Sign a new certificate for the server; nodes and operator keep theirs.

    DIR is the folder that `init` wrote.
    """
    more = tuple(parse_host("--also", host) for host in also or [])
    deployment = folders.renew(folder, Deployment.read(folder), days, more)
    names = ", ".join(str(host) for host in dict.fromkeys(deployment.server_hosts))
    typer.echo(
        f"Valid for {days} days, for {names}.\n"
        f"1. Copy server.crt and server.key from {folder / 'superlink'} to the server's folder.\n"
        "2. Server: stop and start superlink/start.sh, and gateway.sh; nodes reconnect by themselves."
    )


if __name__ == "__main__":
    try:
        app(prog_name="python -m deploy")
    except (DeployError, OSError) as error:
        what = f"{error.filename}: {error.strerror}." if isinstance(error, OSError) else error
        typer.echo(f"python -m deploy: {what}", err=True)
        raise SystemExit(1) from None
