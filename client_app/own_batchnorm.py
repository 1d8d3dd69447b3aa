"""With ``batchnorm = "local"``, the BatchNorm that a client keeps for itself (FedBN, Li et al., ICLR 2021).

Its weights and statistics lie in the client's state file. Each visit, and each evaluation, puts them in place of those
that came with the global model, of which a client takes only the first.
"""

from torch import Tensor, nn

from client_app.client_state import Found
from learning.shared_state import batchnorm_names

PREFIX = "batchnorm/"  # of their names in the state


def take_own(model: nn.Module, found: Found | None) -> None:
    """Load the client's own into `model`, and remove it from what was `found`; without any, `model` stays as it is."""
    if found is None:
        return
    own = {name: found.state.pop(name) for name in list(found.state) if name.startswith(PREFIX)}
    state = model.state_dict()
    for name, value in own.items():
        state[name.removeprefix(PREFIX)].copy_(value)


def own_state(model: nn.Module) -> dict[str, Tensor]:
    """The trained model's, for the client's state."""
    state = model.state_dict()
    return {PREFIX + name: state[name] for name in sorted(batchnorm_names(model))}
