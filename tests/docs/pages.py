"""Reads the docs as a reader would: their links, the code they quote, and the code that they ask to be run."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"(?:<!-- quotes (?P<source>\S+) -->\n)?```python\n(?P<code>.*?)```", re.DOTALL)

# Where docs say a file stands, and where it stands if it has not moved there yet. Longest first: folders last.
MOVES = {
    "client_app/app.py": "client_app/__init__.py",
    "client_app/corrected_labels.py": "probe/labels.py",
    "client_app/model_transport.py": "client_app/transport.py",
    "config/presets/": "configs/",
    "config/rules.py": "rules.py",
    "config/run_config.py": "config.py",
    "config": "config.py",
    "data/images/decode.py": "data/decode.py",
    "data/images/decoded_cache.py": "data/decoded_cache.py",
    "data/images/loading.py": "data/images.py",
    "data/layout/index.py": "data/index.py",
    "data/layout/writer.py": "data/writer.py",
    "data/noise/synthetic.py": "data/corruption.py",
    "data/partition/file.py": "data/partition_file.py",
    "data/stores/folder.py": "data/stores.py",
    "data/stores/pack.py": "data/pack.py",
    "data/stores": "data/stores.py",
    "learning/allocator.py": "client_app/allocator.py",
    "learning/batches.py": "batches.py",
    "learning/evaluation.py": "evaluation.py",
    "learning/method.py": "client_app/methods/method.py",
    "learning/optimizer.py": "client_app/sgd.py",
    "learning/pretrained.py": "pretrained.py",
    "learning/training.py": "client_app/local_training.py",
    "learning": "client_app",
    "messages/arrays.py": "arrays.py",
    "messages/clipping.py": "privacy.py",
    "messages/payload.py": "payload.py",
    "messages": "client_app",
    "methods/noisy_clients.py": "server_app/methods/noisy_clients.py",
    "methods/server_half.py": "server_app/methods/server_half.py",
    "methods/transition.py": "transition.py",
    "methods/two_stages.py": "noisy_stages.py",
    "methods": "client_app/methods",
    "server_app/app.py": "server_app/__init__.py",
    "server_app/model_transport.py": "server_app/packing.py",
    "server_app/privacy/private_strategy.py": "server_app/strategies/private.py",
    "server_app/strategies/batchnorm.py": "server_app/strategies/buffers.py",
    "server_app/strategies/collecting.py": "server_app/strategies/held.py",
    "server_app/strategies/parameters_only.py": "server_app/strategies/buffers_apart.py",
    "server_app/strategy.py": "server_app/strategies/__init__.py",
    "simulation/actor_pool.py": "client_app/actor_pool.py",
    "simulation/capacity.py": "capacity.py",
    "simulation/out_of_band.py": "client_app/out_of_band.py",
    "simulation/patches.py": "client_app/simulation.py",
    "simulation/pinned_app.py": "client_app/pinned.py",
    "simulation/share.py": "client_app/resources.py",
    "simulation": "client_app",
}


def located(path: str) -> Path:
    """A file or folder that the docs name, where it stands."""
    if (ROOT / path).exists():
        return ROOT / path
    for new, old in MOVES.items():
        if path == new or path.startswith(new.rstrip("/") + "/"):
            return ROOT / (
                old + path.removeprefix(new).removeprefix("/") if new.endswith("/") else old + path[len(new) :]
            )
    return ROOT / path


def module_of(path: str) -> str:
    """The name under which the file can be imported."""
    place = located(path).relative_to(ROOT).with_suffix("")
    return ".".join(place.parent.parts if place.name == "__init__" else place.parts)


def quotes(page: Path) -> list[tuple[str, str]]:
    """Source file and code of each block that a page quotes."""
    return [(match["source"], match["code"]) for match in FENCE.finditer(_text(page)) if match["source"]]


def blocks(page: Path) -> list[str]:
    """The other blocks of Python, with imports from where files stand."""
    return [_imports_as_they_are(match["code"]) for match in FENCE.finditer(_text(page)) if not match["source"]]


def run(page: Path, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Execute the blocks one after another; returns what they define."""
    module = ModuleType("page")  # dataclasses look their module up
    names = module.__dict__
    names.update(given or {})
    for number, block in enumerate(blocks(page), 1):
        exec(compile(block, f"{page.name}, block {number}", "exec", dont_inherit=True), names)
    return names


def _imports_as_they_are(code: str) -> str:
    def replaced(match: re.Match[str]) -> str:
        path = match[1].replace(".", "/") + ".py"
        return f"from {module_of(path)} import" if located(path).is_file() else match[0]

    return re.sub(r"^from (\S+) import", replaced, code, flags=re.MULTILINE)


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")
