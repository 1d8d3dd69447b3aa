"""`python -m deploy` as a user meets it: what is written, what is refused, what later commands change."""

import errno
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from flwr.cli.utils import collect_files, filter_paths_for_publish

from deploy import folders, templates
from deploy.errors import DeployError
from deploy.settings import Deployment, check_name
from tests.deploy.conftest import DEPLOYMENT

ROOT = Path(__file__).parents[2]
INIT = ("--superlink-host", "fl.example.org", "--nodes", "2")


def _deploy(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deploy", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_init_writes_a_folder_for_each_machine(tmp_path: Path) -> None:
    done = _deploy("init", tmp_path / "new" / "keys", *INIT, "--port", "8443", "--also", "10.0.0.5", "--days", "30")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"{tmp_path / 'new' / 'keys' / 'README.md'} explains what to do with them.\n")
    server = {"ca.crt", "server.crt", "server.key", "start.sh", "gateway.sh", "gateway.conf"}
    node = {"ca.crt", "node.key", "node.pub", "start.sh"}
    operator = {"ca.crt", "config.toml", "flwr.sh", "register.sh", "unregister.sh"}
    operator |= {"nodes/node-1.pub", "nodes/node-2.pub"}
    expected = {"authority": {"ca.crt", "ca.key"}, "superlink": server, "node-1": node, "node-2": node}
    expected |= {"operator": operator, "image": {"Dockerfile", "requirements.txt"}}
    found = _contents(tmp_path / "new" / "keys")
    assert set(found) == {f"{folder}/{name}" for folder, names in expected.items() for name in names} | {
        "README.md", "ca.crt", "compose.yaml", "deployment.toml",
    }  # fmt: skip
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["keys"]
    assert not [name for name, content in found.items() if b"@" in content.replace(b"$@", b"").replace(b"@e", b"")]


def test_only_their_owner_can_read_secrets(written: Path) -> None:
    for path in (written, *written.rglob("*")):
        mode = path.stat().st_mode & 0o777
        if path.is_dir() or path.suffix == ".sh":
            assert mode == 0o700, path
        else:
            assert mode == (0o600 if path.suffix == ".key" else 0o644), path


def test_each_private_key_is_in_one_folder_only(written: Path) -> None:
    keys = [path for path in _contents(written).items() if b"PRIVATE KEY" in path[1]]
    assert sorted(name for name, _ in keys) == [
        "authority/ca.key", "node-1/node.key", "node-2/node.key", "superlink/server.key",
    ]  # fmt: skip
    assert len({content for _, content in keys}) == 4


def test_the_operators_connection_is_ready(written: Path) -> None:
    connection = tomllib.loads((written / "operator" / "config.toml").read_text())["superlink"]
    assert connection["default"] == "sites"
    certificate = Path(connection["sites"].pop("root-certificates"))
    assert certificate.read_bytes() == (written / "authority" / "ca.crt").read_bytes()
    assert connection["sites"] == {"address": "fl.example.org:8443"}


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "mine").write_text("x")
    done = _deploy("init", tmp_path / "keys", *INIT)
    assert done.returncode == 1
    refusal = f"python -m deploy: DIR is {tmp_path / 'keys'}, which exists; it must be a new folder, or an empty one.\n"
    assert done.stderr == refusal
    assert [path.name for path in tmp_path.rglob("*")] == ["keys", "mine"]


def test_init_into_an_empty_folder(tmp_path: Path) -> None:
    folders.init(tmp_path, DEPLOYMENT, 30)
    assert Deployment.read(tmp_path) == DEPLOYMENT
    assert tmp_path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("where", [".", "keys", "docs/keys"])
def test_init_refuses_the_apps_own_folder(tmp_path: Path, where: str) -> None:
    app = tmp_path / "app"
    (app / "docs").mkdir(parents=True)
    (app / "pyproject.toml").write_text("[tool.flwr.app]\n")
    target = app / where
    if where == ".":
        with pytest.raises(DeployError, match="which exists"):
            folders.init(target, DEPLOYMENT, 30)
    else:
        with pytest.raises(DeployError, match=r"lies in the app's folder .*/app; keys must be kept outside"):
            folders.init(target, DEPLOYMENT, 30)
    assert sorted(path.name for path in app.iterdir()) == ["docs", "pyproject.toml"]


def test_init_refuses_this_checkout() -> None:
    done = _deploy("init", "keys", *INIT)
    assert done.returncode == 1
    assert f"lies in the app's folder {ROOT}" in done.stderr
    assert not (ROOT / "keys").exists()


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders, "compose", full)
    with pytest.raises(DeployError, match="cannot be written: No space left on device"):
        folders.init(tmp_path / "keys", DEPLOYMENT, 30)
    assert list(tmp_path.iterdir()) == []


def test_days_out_of_range_leave_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="--days is 9999"):
        folders.init(tmp_path / "keys", DEPLOYMENT, 9999)
    assert list(tmp_path.iterdir()) == []


def test_add_node_adds_one_and_changes_no_other(copied: Path) -> None:
    before = _contents(copied)
    done = _deploy("add-node", copied, "hospital-b")
    assert done.returncode == 0, done.stderr
    assert "operator/register.sh hospital-b" in done.stdout
    after = _contents(copied)
    assert {name for name in after if before.get(name) != after[name]} == {
        "README.md", "compose.yaml", "deployment.toml", "operator/nodes/hospital-b.pub",
        "hospital-b/ca.crt", "hospital-b/node.key", "hospital-b/node.pub", "hospital-b/start.sh",
    }  # fmt: skip
    assert Deployment.read(copied).nodes == ("node-1", "node-2", "hospital-b")
    assert "9103" in (copied / "hospital-b" / "start.sh").read_text()
    again = _deploy("add-node", copied, "hospital-b")
    assert again.returncode == 1
    assert "is a node already; to give it a new key, use `rotate`" in again.stderr


def test_rotate_changes_one_key_pair_even_where_its_folder_is_gone(copied: Path) -> None:
    before = _contents(copied)
    (copied / "node-1" / "flwr-home").mkdir()
    done = _deploy("rotate", copied, "node-1")
    assert done.returncode == 0, done.stderr
    steps = [line for line in done.stdout.splitlines() if "operator/" in line]
    assert "unregister.sh node-1" in steps[0]
    after = _contents(copied)
    changed = {name for name in after if before[name] != after[name]}
    assert changed == {"node-1/node.key", "node-1/node.pub", "operator/nodes/node-1.pub"}
    assert after["node-1/node.pub"] == after["operator/nodes/node-1.pub"]
    assert (copied / "node-1" / "flwr-home").is_dir()

    for path in (copied / "node-2").iterdir():
        path.unlink()
    (copied / "node-2").rmdir()
    folders.rotate(copied, DEPLOYMENT, "node-2")
    assert set(_contents(copied / "node-2")) == {"ca.crt", "node.key", "node.pub", "start.sh"}
    with pytest.raises(DeployError, match="NAME is 'node-3'; it must be one of node-1, node-2"):
        folders.rotate(copied, DEPLOYMENT, "node-3")


def test_renew_signs_again_with_the_same_authority(copied: Path) -> None:
    before = _contents(copied)
    done = _deploy("renew", copied, "--days", "90", "--also", "second.example.org")
    assert done.returncode == 0, done.stderr
    assert "Valid for 90 days, for fl.example.org, 10.0.0.5, fl, second.example.org, localhost" in done.stdout
    after = _contents(copied)
    changed = {name for name in after if before[name] != after[name]}
    assert changed == {"superlink/server.key", "superlink/server.crt", "deployment.toml"}
    found, authority = (
        x509.load_pem_x509_certificate(after[name]) for name in ("superlink/server.crt", "authority/ca.crt")
    )
    found.verify_directly_issued_by(authority)
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "second.example.org" in names.get_values_for_type(x509.DNSName)


def test_renew_needs_the_authority(copied: Path) -> None:
    (copied / "authority" / "ca.key").unlink()
    done = _deploy("renew", copied)
    assert done.returncode == 1
    assert f"{copied / 'authority' / 'ca.key'} cannot be read" in done.stderr
    (copied / "authority" / "ca.key").write_bytes((copied / "superlink" / "server.key").read_bytes())
    done = _deploy("renew", copied)
    assert "ca.key is not the key of ca.crt" in done.stderr


@pytest.mark.parametrize(("command", "more"), [("add-node", ["x"]), ("rotate", ["x"]), ("renew", [])])
def test_later_commands_need_what_init_wrote(tmp_path: Path, command: str, more: list[str]) -> None:
    done = _deploy(command, tmp_path, *more)
    assert done.returncode == 1
    assert done.stderr == (
        f"python -m deploy: {tmp_path} holds no deployment.toml; it must be a folder that `init` wrote.\n"
    )


def test_a_damaged_deployment_is_one_sentence(copied: Path) -> None:
    (copied / "deployment.toml").write_text("host = 'a b'\nname = 'sites'\n")
    with pytest.raises(DeployError, match=r"deployment\.toml is damaged \(host is 'a b'"):
        Deployment.read(copied)


@pytest.mark.parametrize("bad", ["", "Node", "1-node", "a--b", "a-", "a/b", "../x", "a b", "superlink", "a" * 41])
def test_names_that_a_folder_or_service_cannot_have(bad: str) -> None:
    with pytest.raises(DeployError, match=r"NAME is .*lower-case letters"):
        check_name("NAME", bad)


def test_git_ignores_keys_and_certificates() -> None:
    for name in ("node-1/node.key", "authority/ca.crt"):
        command = ["git", "check-ignore", "-q", "--no-index", name]
        assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0, name


def test_a_published_copy_of_the_app_has_all_that_init_reads(tmp_path: Path) -> None:
    """`flwr app publish` leaves out files whose names end in other ways."""
    copy = tmp_path / "published"
    for name, source in filter_paths_for_publish(collect_files(ROOT)).items():
        if name.startswith(("deploy/", "data/")) or name == "pyproject.toml":
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes(source if isinstance(source, bytes) else source.read_bytes())
    command = [sys.executable, "-m", "deploy", "init", str(tmp_path / "keys"), *INIT]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert "exec" in (tmp_path / "keys" / "operator" / "flwr.sh").read_text()

    missing = copy / "deploy" / "templates" / "gateway.conf.md"
    missing.unlink()
    command[4] = str(tmp_path / "more")
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        f"python -m deploy: {missing} cannot be read (No such file or directory); this copy of the app is incomplete:"
        " fetch it anew.\n",
    )
    assert not (tmp_path / "more").exists()


@pytest.mark.parametrize(
    ("content", "why"), [(b"\xff", "cannot be read (it is no text)"), (b"no block", "holds no block of code")]
)
def test_a_damaged_template_is_named(content: bytes, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flwr.sh.md").write_bytes(content)
    monkeypatch.setattr(templates, "FOLDER", tmp_path)
    with pytest.raises(DeployError) as caught:
        templates.fill("flwr.sh", DEPLOYMENT)
    assert str(caught.value).startswith(f"{tmp_path / 'flwr.sh.md'} {why}")


def test_what_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = folders._write

    def fails(folder: Path, files: Any) -> None:
        if folder.name == "operator":
            raise OSError(errno.ENOSPC, "No space left on device", str(folder / ".flwr.sh.new"))
        write(folder, files)

    monkeypatch.setattr(folders, "_write", fails)
    with pytest.raises(DeployError) as caught:
        folders.init(tmp_path / "keys", DEPLOYMENT, 30)
    assert str(caught.value) == (
        f"DIR is {tmp_path / 'keys'}, where operator/.flwr.sh.new cannot be written: No space left on device."
    )
