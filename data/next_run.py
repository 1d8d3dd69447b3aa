"""The `flwr run` line that fits a release: as many clients, and batches as small, as its images allow."""

import shlex
from collections.abc import Container
from pathlib import Path

from data.layout.finding import SPLITS

IMAGES = 64  # for each client, at least, where there are enough
MOST_CLIENTS = 10
BATCH = 16  # the run config's own
TRAINING = 2  # clients in a round, at least; with one, nothing would be averaged


def run_line(release: Path, train_images: int, lists: Container[str] = SPLITS) -> str | None:
    """A line for the shell; None if there are too few images, or if no line could hold the path.

    Args:
        release: Its folder.
        train_images: How many images the clients hold together.
        lists: Those that it has; without clean ones there is nothing to test or to validate on.
    """
    clients = min(MOST_CLIENTS, max(TRAINING, train_images // IMAGES))
    held = train_images // clients
    path = str(release)
    if held < 2 or ("'" in path and set(path) & set('"\\')) or not path.isprintable():
        return None
    quote = '"' if "'" in path else "'"
    config = [f"data-dir={quote}{path}{quote}"]
    if clients < MOST_CLIENTS:
        config.append(f"fraction-train={1.0 if clients < 5 else 0.5}")
    if held < 2 * BATCH:  # two steps an epoch, where that is possible
        config.append(f"batch-size={max(2, 1 << (held // 2).bit_length() - 1)}")
    missing = {"clean_test": "test-split", "clean_val": "val-split"}
    config += [f"{key}='none'" for name, key in missing.items() if name not in lists]
    federation = f"num-supernodes={clients} client-resources-num-cpus=1"
    return f'flwr run . --stream --federation-config "{federation}" -c {_for_the_shell(" ".join(config))}'


def _for_the_shell(text: str) -> str:
    """In double quotes, as in the documentation, where that is safe."""
    return shlex.quote(text) if set(text) & set('"$`\\!') else f'"{text}"'
