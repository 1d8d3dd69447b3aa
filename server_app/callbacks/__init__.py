"""Everything in a run that is not the algorithm: one file per concern, three hooks each."""

from dataclasses import dataclass, field

from flwr.app import ArrayRecord

from task import Evaluation


@dataclass(frozen=True)
class RoundResult:
    """One finished round.

    Attributes:
        server_round: From 1.
        arrays: The global model after aggregation.
        test: It, on clean test.
        train_loss: Mean local loss over the visit, averaged over clients by examples, in nats.
        num_examples: Images that the clients of the round hold together.
        seconds: Wall time of the round, evaluation included.
        images_per_second: Images trained on per second of training and transport.
        sampled_partitions: Clients asked, in the order of the messages.
        failures: Partition of each client without a usable reply, and the reason.
        on_clients: Mean metrics of federated evaluation; empty without it.
    """

    server_round: int
    arrays: ArrayRecord
    test: Evaluation
    train_loss: float
    num_examples: int
    seconds: float
    images_per_second: float
    sampled_partitions: list[int]
    failures: dict[int, str] = field(default_factory=dict)
    on_clients: dict[str, float] = field(default_factory=dict)


class Callback:
    """Hooks of the round loop; the default does nothing."""

    def after_round(self, result: RoundResult) -> None:
        """Called after each round."""

    def on_end(self) -> None:
        """Called once, also when the run stops early; rounds that are done must be safe after it."""
