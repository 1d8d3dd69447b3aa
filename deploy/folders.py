"""Writes a deployment: one folder per machine, complete or not at all."""

import os
import re
import shutil
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from data.outputs import check_output
from deploy.authority import Authority
from deploy.errors import DeployError
from deploy.hosts import Host
from deploy.node_keys import new_key_pair
from deploy.settings import FILE, Deployment
from deploy.templates import compose, fill

APP = Path(__file__).parents[1]
_SCRIPT = 0o700
_PUBLIC = 0o644
_PRIVATE = 0o600


def init(folder: Path, deployment: Deployment, days: int) -> None:
    """Write a whole deployment into a new or empty folder.

    Args:
        folder: Appears at the end, by one rename; until then a hidden folder beside it is written.
        deployment: What to write.
        days: How long the server certificate is valid.

    Raises:
        DeployError: `folder` is not empty, lies in an app's folder, or cannot be written; or `days` is out of range.
    """
    folder = folder.absolute()
    _refuse(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise DeployError(f"DIR is {folder}, which cannot be written: {error.strerror}.") from None
    try:
        _write_all(building, deployment, days, at=folder)
        building.rename(folder)
    except BaseException as error:
        shutil.rmtree(building)
        if isinstance(error, OSError):
            raise DeployError(f"DIR is {folder}, {_failed(error, building)}.") from None
        raise


def _failed(error: OSError, building: Path) -> str:
    """What cannot be done with which file."""
    path = Path(error.filename) if isinstance(error.filename, str) else building
    if path.is_relative_to(building):
        inside = path.relative_to(building).as_posix().removeprefix(".")
        return f"{f'where {inside}' if inside else 'which'} cannot be written: {error.strerror}"
    return f"but {path} cannot be read: {error.strerror}"


def add_node(folder: Path, deployment: Deployment, node: str) -> Deployment:
    """Write one more node's folder and key, and name it everywhere; returns the new deployment.

    Raises:
        DeployError: There is already a node of that name.
    """
    if node in deployment.nodes:
        raise DeployError(f"NAME is {node!r}, which is a node already; to give it a new key, use `rotate`.")
    more = replace(deployment, nodes=(*deployment.nodes, node))
    _write_node(folder, more, node)
    _write_shared(folder, more)
    return more


def rotate(folder: Path, deployment: Deployment, node: str) -> None:
    """Give a node a new key pair; whatever else is in its folder stays.

    Raises:
        DeployError: There is no such node.
    """
    if node not in deployment.nodes:
        raise DeployError(f"NAME is {node!r}; it must be one of {', '.join(deployment.nodes)}.")
    _write_node(folder, deployment, node)


def renew(folder: Path, deployment: Deployment, days: int, also: tuple[Host, ...]) -> Deployment:
    """Sign a new server certificate, for further names if there are any; clients need no change.

    Raises:
        DeployError: The authority's folder is not there, or `days` is out of range.
    """
    more = replace(deployment, also=tuple(dict.fromkeys((*deployment.also, *also))))
    _write_server(folder, more, Authority.load(folder / "authority"), days)
    _write_shared(folder, more)
    return more


def _refuse(folder: Path) -> None:
    check_output(folder, "DIR", "a folder")
    if folder.exists() and any(folder.iterdir()):
        raise DeployError(f"DIR is {folder}, which exists; it must be a new folder, or an empty one.")
    for parent in folder.resolve().parents:
        project = parent / "pyproject.toml"
        if project.is_file() and "[tool.flwr.app]" in project.read_text(encoding="utf-8", errors="replace"):
            raise DeployError(
                f"DIR is {folder}, which lies in the app's folder {parent}; keys must be kept outside of what is"
                " committed and sent to every node."
            )


def _write_all(folder: Path, deployment: Deployment, days: int, at: Path) -> None:
    authority = Authority.create(deployment.name)
    _write(folder / "authority", authority.files())
    _write_server(folder, deployment, authority, days)
    certificate = {"ca.crt": authority.files()["ca.crt"]}
    _write(folder, certificate)
    scripts = {name: fill(name, deployment) for name in ("flwr.sh", "register.sh", "unregister.sh")}
    _write(folder / "operator", {**certificate, **scripts})
    config = fill("config.toml", deployment).replace("CERTIFICATE", _toml_text(at / "operator" / "ca.crt"))
    _write(folder / "operator", {"config.toml": config})
    for node in deployment.nodes:
        _write_node(folder, deployment, node)
    image = {"Dockerfile": fill("Dockerfile", deployment), "requirements.txt": requirements(deployment.flwr)}
    _write(folder / "image", image)
    _write_shared(folder, deployment)


def _write_server(folder: Path, deployment: Deployment, authority: Authority, days: int) -> None:
    files: dict[str, bytes | str] = {"ca.crt": authority.files()["ca.crt"]}
    files |= authority.sign_server(deployment.name, deployment.server_hosts, days)
    files |= {"start.sh": fill("superlink-start.sh", deployment)}
    files |= {name: fill(name, deployment) for name in ("gateway.sh", "gateway.conf")}
    _write(folder / "superlink", files)


def _write_node(folder: Path, deployment: Deployment, node: str) -> None:
    """The node's folder, and its public key for the operator."""
    private, public = new_key_pair(node)
    certificate = (folder / "ca.crt").read_bytes()
    start = fill("node-start.sh", deployment, node)
    _write(folder / node, {"ca.crt": certificate, "start.sh": start, "node.key": private, "node.pub": public})
    _write(folder / "operator" / "nodes", {f"{node}.pub": public})


def _write_shared(folder: Path, deployment: Deployment) -> None:
    """What names every node; ``deployment.toml`` last, so that an interrupted command can be repeated."""
    readme, services = fill("README.md", deployment), compose(deployment)
    _write(folder, {"README.md": readme, "compose.yaml": services})
    _write(folder, {FILE: deployment.to_toml()})


def requirements(flwr: str) -> str:
    """What the app imports, from its ``pyproject.toml``, as lines for pip; Flower at the image's own version."""
    project = tomllib.loads((APP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [line for line in project["dependencies"] if not re.match(r"flwr\b", line)]
    return "\n".join([f"flwr=={flwr}", *wanted]) + "\n"


def _write(folder: Path, files: Mapping[str, bytes | str]) -> None:
    """Write files, each whole or not at all, readable only by their owner where they are secret."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        mode = {".key": _PRIVATE, ".sh": _SCRIPT}.get(Path(name).suffix, _PUBLIC)
        check_output(folder / name, name)
        temporary = folder / f".{name}.new"
        temporary.unlink(missing_ok=True)
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:  # noqa: PTH123
            file.write(data)
        temporary.chmod(mode)
        temporary.replace(folder / name)


def _toml_text(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace('"', '\\"')
