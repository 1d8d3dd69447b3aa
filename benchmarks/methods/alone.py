"""One run of the real ServerApp and ClientApp in this process, without Ray: what `--in-process` starts for a row.

    python -m benchmarks.methods.alone CLIENTS CONFIG

CONFIG is JSON. The process ends when its standard input does, so that it never outlives the command that started it.
"""

import json
import os
import sys
import threading
from pathlib import Path

from benchmarks.tools.in_process import run_in_process


def end_with_parent() -> None:
    """A pipe from the parent ends however that ends."""
    while os.read(0, 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    clients, config = int(sys.argv[1]), json.loads(sys.argv[2])
    run_in_process(Path(config["output-dir"]), clients, **config)
