"""Commands of docs/deployment.md, as written there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.deploy.conftest import DEPLOYMENT

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")


def test_init_add_node_rotate_and_renew_run_as_documented(tmp_path: Path) -> None:
    commands = re.findall(r"python -m deploy (?:init|add-node|rotate|renew)[^`#\n]*", TEXT)
    assert [command.split()[3] for command in commands] == ["init", "rotate", "add-node", "renew"]
    for command in commands:
        arguments = shlex.split(command.replace("~/fl-keys", shlex.quote(str(tmp_path / "fl-keys"))))[1:]
        subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True, timeout=600)
    assert (tmp_path / "fl-keys" / "hospital-b" / "node.key").is_file()


def test_files_and_ports_are_named_as_init_names_them(written: Path) -> None:
    named = set(re.findall(r"\b(?:superlink|node-1|operator)/[a-z-]+\.(?:sh|crt|key|pub)", TEXT))
    assert named >= {"superlink/gateway.sh", "node-1/start.sh", "operator/register.sh", "operator/unregister.sh"}
    for name in named:
        assert (written / name).is_file(), name
    assert DEPLOYMENT.inner_port == DEPLOYMENT.port + 1
    assert "--port 8001" in TEXT
    for line in TEXT.splitlines():
        assert "DATA_NODE_1=" not in line or "node-1" in line
