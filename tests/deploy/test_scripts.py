"""The written scripts, run for real with stand-ins for Flower's commands that record their calls."""

import json
import os
import signal
import subprocess
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from flwr.common.config import parse_config_args
from flwr.supercore.superexec.run_superexec import _TASK_POLL_INTERVAL_ENV, _get_task_poll_interval
from flwr.superlink.cli.flower_superlink import _parse_args_run_superlink
from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode

from deploy.folders import init
from deploy.hosts import parse_host
from deploy.settings import Deployment

STAND_IN = """#!/usr/bin/env python3
import json, os, pathlib, sys
name = pathlib.Path(sys.argv[0]).name
environment = {k: v for k, v in os.environ.items() if k.startswith("FLWR")}
config = pathlib.Path(environment.get("FLWR_HOME", "/"), "config.toml")
kept = {"name": name, "arguments": sys.argv[1:], "environment": environment,
        "config": config.read_text() if config.is_file() else ""}
with open(os.environ["CALLS"], "a") as file:
    file.write(json.dumps(kept) + "\\n")
answers = pathlib.Path(os.environ["CALLS"] + ".answers")
if answers.exists():
    first, *rest = answers.read_text().splitlines() or ["0"]
    answers.write_text("\\n".join(rest))
    code, _, text = first.partition(" ")
    print(text)
    sys.exit(int(code))
"""


class Bench:
    """Runs scripts of one deployment with stand-ins."""

    def __init__(self, folder: Path, place: Path) -> None:
        self.folder = folder
        self._calls = place / "calls"
        self.place = place
        self.environment = {**os.environ, "CALLS": str(self._calls), "PATH": f"{place}{os.pathsep}{os.environ['PATH']}"}
        for name in ("flower-superlink", "flower-supernode", "flwr", "nginx"):
            (place / name).write_text(STAND_IN)
            (place / name).chmod(0o755)

    def answer(self, *lines: str) -> None:
        Path(f"{self._calls}.answers").write_text("\n".join(lines))

    def run(self, script: str, *arguments: str | Path, code: int = 0, **more: str) -> str:
        done = subprocess.run(
            [str(self.folder / script), *map(str, arguments)],
            cwd=self.place, env={**self.environment, **more}, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def calls(self) -> list[dict[str, Any]]:
        lines = self._calls.read_text().splitlines() if self._calls.exists() else []
        return [json.loads(line) for line in lines]

    def call(self) -> dict[str, Any]:
        (only,) = self.calls()
        return only


@pytest.fixture
def bench(copied: Path, tmp_path: Path) -> Bench:
    (tmp_path / "bin").mkdir()
    return Bench(copied, tmp_path / "bin")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "all my $images"
    folder.mkdir()
    return folder


def test_every_script_is_sound_bash(written: Path) -> None:
    scripts = sorted(written.rglob("*.sh"))
    assert len(scripts) == 7
    for script in scripts:
        subprocess.run(["bash", "-n", str(script)], check=True)


def test_the_superlink_starts_with_tls_authentication_and_a_database(bench: Bench) -> None:
    bench.run("superlink/start.sh")
    call = bench.call()
    folder = bench.folder / "superlink"
    args = _parse_args_run_superlink().parse_args(call["arguments"])
    assert (args.host, args.port, args.isolation) == ("0.0.0.0", 8443, "subprocess")
    assert args.enable_supernode_auth
    assert not args.insecure
    certificates = [args.ssl_ca_certfile, args.ssl_certfile, args.ssl_keyfile]
    assert certificates == [str(folder / name) for name in ("ca.crt", "server.crt", "server.key")]
    assert args.database == str(folder / "state.db")
    assert call["environment"] == {
        "FLWR_HOME": str(folder / "flwr-home"),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
    }


def test_the_superlink_behind_the_gateway_listens_on_loopback(bench: Bench) -> None:
    bench.run("superlink/start.sh", "--host", "127.0.0.1", "--port", "8444")
    args = _parse_args_run_superlink().parse_args(bench.call()["arguments"])
    assert (args.host, args.port) == ("127.0.0.1", 8444)
    bench.run("superlink/gateway.sh")
    assert bench.calls()[1]["arguments"][:3] == ["-e", "stderr", "-p"]
    config = (bench.folder / "superlink" / "gateway" / "nginx.conf").read_text()
    assert "server 127.0.0.1:8444;" in config
    assert "listen 0.0.0.0:8443 ssl;" in config


def test_an_ipv6_superlink_listens_on_ipv6(tmp_path: Path) -> None:
    host = parse_host("--superlink-host", "2001:db8::5")
    init(tmp_path / "keys", Deployment("sites", host, 8443, (), ("node-1",), "1.41.0"), 30)
    (tmp_path / "bin").mkdir()
    bench = Bench(tmp_path / "keys", tmp_path / "bin")
    bench.run("superlink/start.sh")
    bench.run("node-1/start.sh", tmp_path)
    superlink, node = (call["arguments"] for call in bench.calls())
    assert _parse_args_run_superlink().parse_args(superlink).host == "::"
    assert _parse_args_run_supernode().parse_args(node).superlink == "[2001:db8::5]:8443"
    assert "listen [::]:8443 ipv6only=off ssl;" in (tmp_path / "keys" / "superlink" / "gateway.conf").read_text()


def test_a_node_starts_with_its_key_and_its_data(bench: Bench, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.run("node-2/start.sh", site, "cache-gib=20", "cache-dir='/big disk'")
    call = bench.call()
    folder = bench.folder / "node-2"
    args = _parse_args_run_supernode().parse_args(call["arguments"])
    assert (args.superlink, args.port, args.isolation) == ("fl.example.org:8443", 9102, "subprocess")
    assert args.root_certificates == str(folder / "ca.crt")
    assert args.auth_supernode_private_key == str(folder / "node.key")
    assert (args.insecure, args.max_retries, args.max_wait_time) == (False, None, None)
    node_config = parse_config_args([args.node_config])
    assert node_config == {"data-dir": str(site), "cache-gib": 20, "cache-dir": "/big disk"}
    assert call["environment"]["FLWR_HOME"] == str(folder / "flwr-home")
    assert call["environment"]["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    monkeypatch.setenv(_TASK_POLL_INTERVAL_ENV, call["environment"][_TASK_POLL_INTERVAL_ENV])
    assert _get_task_poll_interval() == 0.2


def test_a_nodes_data_may_be_a_relative_path(bench: Bench) -> None:
    (bench.place / "here.pack").touch()
    bench.run("node-1/start.sh", "here.pack", NODE_PORT="9777")
    args = _parse_args_run_supernode().parse_args(bench.call()["arguments"])
    assert parse_config_args([args.node_config]) == {"data-dir": str(bench.place / "here.pack")}
    assert args.port == 9777


def test_a_node_without_data_or_with_a_path_flower_cannot_take_is_refused(bench: Bench) -> None:
    assert "DATA is ''; it must be" in bench.run("node-1/start.sh", code=2)
    assert "DATA is '/no/such'; it must be" in bench.run("node-1/start.sh", "/no/such", code=2)
    (bench.place / "site's").mkdir()
    assert "cannot take a path with a '" in bench.run("node-1/start.sh", "site's", code=2)
    assert bench.calls() == []


def test_a_refused_node_retries_until_it_is_let_in(bench: Bench, site: Path) -> None:
    bench.answer("1 [code: 2004]", "137", "0")
    output = bench.run("node-1/start.sh", site, NODE_RETRY_SECONDS="0")
    assert output.count("restarting it in") == 2
    assert "the SuperLink shut this node out: it was unregistered, or this machine's clock is wrong" in output
    first, *others = (call["arguments"] for call in bench.calls())
    assert others == [first, first]


def test_wrong_flags_are_not_retried(bench: Bench, site: Path) -> None:
    bench.answer("2 usage", "0")
    bench.run("node-1/start.sh", site, code=2)
    assert len(bench.calls()) == 1


def test_stopping_the_script_stops_the_supernode(bench: Bench, site: Path) -> None:
    sleeper = '#!/usr/bin/env bash\necho $$ >"$CALLS"\nexec sleep 600\n'
    (bench.place / "flower-supernode").write_text(sleeper)
    script = subprocess.Popen([str(bench.folder / "node-1" / "start.sh"), str(site)], env=bench.environment)
    pid_file = Path(bench.environment["CALLS"])
    try:
        while not (pid_file.exists() and pid_file.read_text().strip()):
            time.sleep(0.02)
        script.send_signal(signal.SIGTERM)
        assert script.wait(timeout=30) == 128 + signal.SIGTERM
    finally:
        script.kill()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def test_register_records_which_number_is_whose(bench: Bench) -> None:
    bench.answer("0 SuperNode 111 registered successfully.", "1 [code: 23] Public key already in use.")
    output = bench.run("operator/register.sh", code=1)
    assert "node-1: registered as 111" in output
    assert "node-2: was not registered:\n[code: 23] Public key already in use." in output
    key = str(bench.folder / "operator" / "nodes" / "node-1.pub")
    assert bench.calls()[0]["arguments"] == ["supernode", "register", key, "sites", "--name", "node-1"]
    bench.answer("0 SuperNode 222 registered successfully.")
    output = bench.run("operator/register.sh")
    assert "node-1: already registered as 111\nnode-2: registered as 222" in output
    assert "there is no" in bench.run("operator/register.sh", "node-9", code=1)


def test_unregister_shuts_out_by_number_and_forgets_it(bench: Bench) -> None:
    registered = bench.folder / "operator" / "registered"
    registered.mkdir()
    (registered / "node-2").write_text("222\n")
    bench.answer("1 unreachable", "0")
    bench.run("operator/unregister.sh", "node-2", code=1)
    assert (registered / "node-2").exists()
    bench.run("operator/unregister.sh", "node-2")
    assert bench.calls()[1]["arguments"] == ["supernode", "unregister", "222", "sites"]
    assert not (registered / "node-2").exists()
    assert "is not in" in bench.run("operator/unregister.sh", "node-2", code=1)


def test_flowers_command_finds_the_connection_wherever_the_folder_is(bench: Bench) -> None:
    moved = bench.folder.rename(bench.folder.with_name('moved "there\\'))
    bench.folder = moved
    bench.run("operator/flwr.sh", "run", ".", "sites", "--stream", "-c", "seed=2")
    call = bench.call()
    assert call["arguments"] == ["run", ".", "sites", "--stream", "-c", "seed=2"]
    assert call["environment"]["FLWR_HOME"] == str(moved / "operator")
    connection = tomllib.loads(call["config"])["superlink"]["sites"]
    assert connection == {"address": "fl.example.org:8443", "root-certificates": str(moved / "operator" / "ca.crt")}
    bench.run("operator/flwr.sh", "list", SUPERLINK="127.0.0.1:8444")
    assert tomllib.loads(bench.calls()[1]["config"])["superlink"]["sites"]["address"] == "127.0.0.1:8444"
