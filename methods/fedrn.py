"""FedRN (Kim et al., CIKM 2022, arXiv 2205.01310): clients find their clean images with the help of others' models.

In the T_w warm-up rounds everybody learns from all labels. After each visit, a client says how well its trained model
fits its own given labels, e_k, and what that model answers to one image of Gaussian noise, o_k, the same image for all.
The server keeps both, and the client's model. From then on, in a visit to client i:

    s_j = alpha minmax(e)_j + (1 - alpha) minmax(cos(o_i, o_.))_j      over all that have been heard, i included
    neighbours: the k others with the highest s_j; their models and scores go to client i
    p_i(x) = probability that x has a small loss, by a mixture of two Gaussians on the losses of i's own last model
    p_j(x) = the same for neighbour j, whose classifier was tuned for an epoch on the images with p_i > threshold
    P(x) = (s_i p_i(x) + sum_j s_j p_j(x)) / (s_i + sum_j s_j)

and the global model learns from the images with P > threshold, by cross-entropy.

The paper's alpha is 0.6 in its script for CIFAR and in FNBench, 0.5 as the script's default; k is 1 in FNBench and 2 in
the paper; T_w is 100 rounds of 500 or 24 of 120, here a share of the run.

Where this differs from the authors' code: clients that have not been heard are nobody's neighbours, where there they
are networks with random weights; the classifier is found as whatever ends the network, where there it is a layer of one
name; neighbours and probes are in evaluation mode; the noise has the size of the run's images. The client's own last
model need not be sent, nor kept: its losses are those that the client found when it measured e_k, and it keeps these. A
client that has lost them, or that the server has not heard, learns from all of its images; so does one that is left
with fewer than two. A neighbour whose losses are not finite is not asked.

**Each client gets models of other clients**, as they were trained on those clients' images. No `privacy` goes with
that, and the run is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from config.parameters import parameter
from config.rules import at_least, interval, one_of, rounds_or_share
from learning.batches import not_alone
from learning.method import Batch, Method, Step, Visit, rounds_of
from learning.mixture import Floats
from learning.schema import Number, Numbers, Schema
from learning.server_half import Told
from methods.fedrn_on_server import EXPERTISE, LARGEST_LOGIT, PROBE, SCORES, SEED, FedRNOnServer
from methods.neighbours import Neighbour, above, clean_probabilities, probe_output, weighted

LOSSES = "last-losses"  # in the state: (n,) float32, of the client's own last model
CHOSEN = "chosen"  # in the scratch: (m,) int64 on the CPU, the images to learn from


@dataclass(frozen=True)
class FedRN(Method):
    """Cross-entropy on the images that a client's last model and its neighbours' take for clean.

    Attributes:
        warm_up: T_w as a share of the run's rounds, from 0 to 1.
        warm_up_rounds: T_w itself; -1 leaves it to the share.
        alpha: Weight of expertise against similarity, from 0 to 1.
        neighbours: k, at least 1; as many as have been heard if these are fewer.
        threshold: Of p and P, from 0 up to but not including 1.
        weigh_by: What the client's weight in the mean counts: ``held``, all its images; or ``used``, those that it
            learned from in the visit.
    """

    warm_up: float = parameter(0.2, interval(0, 1))
    warm_up_rounds: int = parameter(-1, rounds_or_share(0, "warm-up"))
    alpha: float = parameter(0.6, interval(0, 1))
    neighbours: int = parameter(1, at_least(1, 100))
    threshold: float = parameter(0.5, interval(0, 1, open_high=True))
    weigh_by: str = parameter("held", one_of("held", "used"))

    remembers: ClassVar[bool] = True
    suspects: ClassVar[bool] = True
    shares_models: ClassVar[bool] = True
    features: ClassVar[bool] = True  # those of neighbours; a compiled network would not give them

    @property
    def models_received(self) -> int:
        return self.neighbours

    def warm_up_of(self, num_rounds: int) -> int:
        """T_w of a run."""
        return rounds_of(self.warm_up, self.warm_up_rounds, num_rounds)

    def begin(self, visit: Visit) -> None:
        visit.scratch[CHOSEN] = torch.arange(len(visit.labels))
        scores, losses = visit.told.get(SCORES), visit.state.get(LOSSES)
        if not isinstance(scores, list) or losses is None:
            return
        judged = self.judged(visit, scores, losses.double().cpu().numpy())
        if judged is None:
            return
        chosen = torch.from_numpy(above(judged, self.threshold))
        visit.scratch[CHOSEN] = chosen.nonzero().squeeze(1)
        visit.suspected = ~chosen.to(visit.labels.device)
        visit.suspicion = torch.from_numpy(1 - judged).float().to(visit.labels.device)

    def judged(self, visit: Visit, scores: Sequence[float], losses: Floats) -> Floats | None:
        """(n,) P of each image; None if nobody can judge.

        Args:
            visit: With the neighbours' models, by their ranks from 1.
            scores: Of the client itself, and of its neighbours.
            losses: (n,), of the client's own last model.
        """
        own = clean_probabilities(losses)
        if own is None or len(losses) != len(visit.labels):
            return None
        said: list[Floats | None] = [own]
        if len(scores) > 1:
            neighbour, rows = Neighbour(visit), torch.from_numpy(np.flatnonzero(above(own, self.threshold)))
            for rank in range(1, len(scores)):
                said.append(clean_probabilities(neighbour.losses(visit.models[str(rank)], rows)))
        return weighted(list(scores), said)

    def steps(self, visit: Visit) -> Sequence[Step]:
        """The chosen images in random batches; a last one of a single image joins the one before it."""
        return [Step((rows,)) for rows in not_alone(visit.batches(visit.scratch[CHOSEN]), visit.batch_size)]

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        return cross_entropy(batch.logits, batch.labels)

    def end(self, visit: Visit) -> None:
        """What the server and the next visit need of the trained model."""
        logits = visit.predict()
        visit.state[LOSSES] = cross_entropy(logits, visit.labels, reduction="none")
        right = (logits.argmax(dim=1) == visit.labels).double().mean()
        probe = probe_output(visit, int(visit.told.get(SEED, 0)))  # type: ignore[arg-type]
        probe = probe.double().nan_to_num(0.0, LARGEST_LOGIT, -LARGEST_LOGIT).clamp(-LARGEST_LOGIT, LARGEST_LOGIT)
        expertise, *answer = torch.cat([right[None], probe]).tolist()
        visit.metrics[EXPERTISE], visit.metrics[PROBE] = expertise, answer
        if self.weigh_by == "used":
            visit.used = len(visit.scratch[CHOSEN])

    def reports(self, told: Mapping[str, Told], classes: int) -> Schema:
        return {EXPERTISE: Number(0, 1), PROBE: Numbers(Number(-LARGEST_LOGIT, LARGEST_LOGIT), classes)}

    def on_server(self) -> FedRNOnServer:
        return FedRNOnServer(self.warm_up_of, self.alpha, self.neighbours)
