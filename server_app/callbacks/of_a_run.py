"""All callbacks of a run, in the order in which they are called."""

from torch import nn

from config.measure import measure_of
from config.published import published_for
from config.run_config import RunConfig
from learning.shared_state import frozen_digest
from server_app.callbacks import Callback
from server_app.callbacks.checkpoints import Checkpoints
from server_app.callbacks.client_model_files import ClientModelFiles
from server_app.callbacks.clients_file import ClientsFile
from server_app.callbacks.contributions import Contributions
from server_app.callbacks.failure_gate import FailureGate
from server_app.callbacks.failures_file import FailuresFile
from server_app.callbacks.latest_model import LatestModel
from server_app.callbacks.metrics_file import MetricsFile
from server_app.callbacks.noisy_clients_file import NoisyClientsFile
from server_app.callbacks.pictures import Pictures
from server_app.callbacks.progress import Progress
from server_app.callbacks.tracking import Tracking
from server_app.client_models import ClientModels
from server_app.files import CHECKPOINTS
from server_app.members import Member, roll_of
from server_app.picking import LABEL_WAVE
from server_app.resume import Start


def callbacks_of(
    start: Start,
    config: RunConfig,
    members: list[Member],
    class_names: tuple[str, ...],
    model: nn.Module,
    *,
    flower_run: str,
    lists: dict[str, str],
    failures: FailuresFile,
    client_models: ClientModels | None = None,
) -> list[Callback]:
    """Those of one start of a run.

    Args:
        start: Its folder, and which run it is.
        config: The run's, with its number of clients.
        members: Its clients.
        class_names: In the order of the model's outputs.
        model: The server's, which `LatestModel` overwrites.
        flower_run: Flower's id of the run.
        lists: Digests of what the server reads of its data.
        failures: Which the exchange of messages fills.
        client_models: Kept for the method's server half; None: none are.
    """
    run_dir, measure = start.run_dir, measure_of(config.to_flat())
    title = f"{config.strategy}, {config.method}, {config.model}, {len(members)} clients"
    return [
        failures,
        FailureGate(config.min_reply_fraction),
        ClientsFile(run_dir / "clients.jsonl"),
        NoisyClientsFile(run_dir / "noisy-clients.json", members),
        MetricsFile(run_dir / "metrics.jsonl", {"clients": len(members), "flower-run": flower_run}),
        Checkpoints(
            run_dir / CHECKPOINTS,
            config.to_flat(),
            roll_of(members),
            start.run,
            lists,
            frozen_digest(model),
            class_names,
        ),
        *([ClientModelFiles(client_models, run_dir / CHECKPOINTS)] if client_models else []),
        Progress(config.num_server_rounds, config.evaluate_every, config.max_hours, measure, config.val_split),
        Tracking(run_dir, config),
        LatestModel(run_dir / "model.safetensors", class_names, config, model),
        Pictures(
            run_dir,
            class_names,
            title,
            published_for(config.preset, config.method),
            measure,
            wave=config.val_split == LABEL_WAVE,
        ),
        Contributions(len(members)),
    ]
