"""FedELC (Jiang et al., CIKM 2024, arXiv 2408.04301) on the server: FedNoRo's half, which its authors took over."""

from dataclasses import dataclass

from server_app.methods.two_stages import TwoStagesOnServer


@dataclass(frozen=True, eq=False)
class FedELC(TwoStagesOnServer):
    """Noisy clients are found once, and weigh less the farther their models are from the clean ones."""
