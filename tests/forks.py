"""Scripts that each need a fresh interpreter, in forks of one that has imported PyTorch, which takes seconds."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUN = """
import json, os, sys, traceback
import torch
for name, script in json.loads(sys.stdin.read()).items():
    pid = os.fork()
    if not pid:
        try:
            exec(script, {})
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if os.waitpid(pid, 0)[1]:
        print(name)
"""


def failed_forks(scripts: Mapping[str, str]) -> str:
    """The names of the scripts that raised something, and their tracebacks; empty if none did."""
    done = subprocess.run(
        [sys.executable, "-c", RUN], input=json.dumps(scripts), cwd=ROOT, capture_output=True, text=True, timeout=3600
    )
    assert done.returncode == 0, done.stderr
    return f"{done.stdout}{done.stderr}" if done.stdout else ""
