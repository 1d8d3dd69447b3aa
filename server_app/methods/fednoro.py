"""FedNoRo (Wu et al., IJCAI 2023, arXiv 2305.05230) on the server: `two_stages` as it is."""

from dataclasses import dataclass

from server_app.methods.two_stages import TwoStagesOnServer


@dataclass(frozen=True, eq=False)
class FedNoRo(TwoStagesOnServer):
    """Noisy clients are found once, and weigh less the farther their models are from the clean ones."""
