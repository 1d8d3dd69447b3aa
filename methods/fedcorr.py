"""FedCorr: find noisy clients by the dimension of their predictions, correct their labels, then train on all
(Xu et al., CVPR 2022, arXiv 2204.04677).

1. Preprocessing. Every client trains in turns. After its visit, client k reports LID_k, the mean local intrinsic
   dimension (`dimension`) of its own model's predictions on all its images (here with its standard error), and keeps
   the loss of each image, added up over its visits. Whenever all clients have been visited once more, the server tells
   noisy ones by their LID (`fedcorr_on_server`). On a noisy client, a mixture of two Gaussians over the losses gives
   delta_k, the share of images in the higher one; elsewhere delta_k = 0. Of its ``floor(n_k delta_k pi)`` images with
   the highest losses, those with ``max p > theta`` get the label argmax p, p from the global model.
2. Fine-tuning, on clients with ``delta_k <= kappa`` alone. Then noisy clients relabel all images with
   ``max p > theta``.
3. Usual training of all clients with the labels as they are by then.

    L = MixUp cross-entropy + beta delta_k |w - w_t|    (w_t as received; in stages 2 and 3 beta = 0)

Defaults are the authors' for Clothing1M, pi = 0.8, theta = 0.9, kappa = 0.1, and alpha = 1, beta = 5, k = 20. There the
three stages take 2 x 500, 50 x 10 and 50 x 10 visits: half of the visits, a quarter and a quarter, which are the shares
of rounds here. Their stage 1 trains one client a round and so takes 1000 of 1100 rounds.

The paper squares |w - w_t|, its code does not, which is the default (`proximal`); MixUp stays on in all stages, as in
the code. Where this differs from the code: a client relabels at the beginning of its next visit, when it receives the
global model, instead of at once, and once for each judgement of the server; with stage 2 left out, the last relabelling
is done nevertheless. The code resets the losses that it means to add up in each iteration, so that they are the last
visit's; here they add up as in the paper, each with the label of its time. It skips the proximal term in the first
batch of an epoch, where its gradient is NaN at w = w_t; here that is 0. A client that is called clean later on keeps
the labels that it has changed, and its delta_k is 0 again.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from config.parameters import parameter
from config.rules import at_least, interval, one_of, rounds_or_share
from config.run_config import ConfigError
from learning.method import Batch, Method, Seen, Told, Visit, rounds_of
from learning.mixture import Floats, fit_mixture
from learning.mixup import Mix, draw_mix
from learning.schema import Number, Schema
from methods.dimension import LARGEST, local_dimensions
from methods.fedcorr_on_server import DELTA, JUDGEMENTS, LID, LID_ERROR, NOISY_SHARE, FedCorrOnServer
from methods.two_stages import NOISY, STAGE

# In `visit.state`.
LOSSES = "losses"  # (n,) float32: of each image, added up over visits, with its label at the time
GIVEN_LOSSES = "given-losses"  # the same with the given labels; only for `visit.suspicion`
RELABELLED = "relabelled"  # () int64: the last judgement by which the client relabelled
LAST = 2**62  # stands there for the last relabelling, after stage 2

FEWEST = 10  # images of which dimension and mixture are taken
LARGEST_ERROR = LARGEST / (2 * math.sqrt(FEWEST - 1))  # of a mean: half of the numbers are 0, the others `LARGEST`
LARGEST_LOSS = 1e4  # nats; float32 logits may give infinite ones
FITS = {"iterations": 100, "tolerance": 1e-3}  # of the mixture, scikit-learn's defaults

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class FedCorr(Method):
    """MixUp cross-entropy in three stages. The reported loss has the proximal term in it.

    Attributes:
        preprocessing: Length of stage 1 as a share of the run's rounds, above 0 and at most 1.
        preprocessing_rounds: The same in rounds, at least 1; -1 leaves it to the share.
        fine_tuning: Length of stage 2 as a share of the run's rounds, from 0 to 1.
        fine_tuning_rounds: The same in rounds; -1 leaves it to the share.
        iterations: How often each client is visited in stage 1, so that its rounds have as many clients as that takes;
            0: as often as the usual number of clients a round allows, at least once. The authors have 2 on Clothing1M,
            5 and 10 on CIFAR.
        alpha: Of MixUp, at least 0; 0 mixes nothing.
        beta: Weight of the proximal term, at least 0.
        proximal: ``norm``, or ``squared`` as in the paper.
        neighbours: k of the local intrinsic dimension, at least 2.
        relabel_ratio: pi, from 0 to 1.
        confidence: theta, from 0 to 1; 1 relabels nothing.
        clean_share: kappa, from 0 to 1.
        groups: ``standing-out`` calls the group of clients with higher dimensions noisy if it stands out
            (`two_groups`), ``always`` calls the higher of two Gaussians noisy however alike they are, as the paper.
        least_gap: A group does not stand out unless its dimension is larger than the others' by this share.
    """

    preprocessing: float = parameter(0.5, interval(0, 1, open_low=True))
    preprocessing_rounds: int = parameter(-1, rounds_or_share(1, "preprocessing"))
    fine_tuning: float = parameter(0.25, interval(0, 1))
    fine_tuning_rounds: int = parameter(-1, rounds_or_share(0, "fine-tuning"))
    iterations: int = parameter(0, at_least(0, 1000))
    alpha: float = parameter(1.0, interval(0))
    beta: float = parameter(5.0, interval(0))
    proximal: str = parameter("norm", one_of("norm", "squared"))
    neighbours: int = parameter(20, at_least(2, 1000))
    relabel_ratio: float = parameter(0.8, interval(0, 1))
    confidence: float = parameter(0.9, interval(0, 1))
    clean_share: float = parameter(0.1, interval(0, 1))
    groups: str = parameter("standing-out", one_of("standing-out", "always"))
    least_gap: float = parameter(0.1, interval(0))

    remembers = True
    corrects = True
    relabels = True
    suspects = True
    finds_noisy_clients = True

    @property
    def mixes(self) -> bool:
        return self.alpha > 0

    def stages(self, num_rounds: int) -> tuple[int, int]:
        """How many rounds stages 1 and 2 take: at least 1 and 0, and together fewer than the run's.

        Shares give way, so that stage 3 has a round, and stage 2 unless it is to have none. A run of two rounds has no
        stage 2, a run of one is all stage 1.

        Raises:
            ConfigError: Lengths in rounds leave none for stage 3.
        """
        given = max(self.preprocessing_rounds, 1) + max(self.fine_tuning_rounds, 0)
        if given >= max(2, num_rounds):
            raise ConfigError(
                f"run config: by preprocessing-rounds and fine-tuning-rounds in 'method-args', stages 1 and 2 take at"
                f" least {given} rounds, but 'num-server-rounds' is {num_rounds}; they must be fewer."
            )
        first = rounds_of(self.preprocessing, self.preprocessing_rounds, num_rounds)
        second = rounds_of(self.fine_tuning, self.fine_tuning_rounds, num_rounds)
        kept = second if self.fine_tuning_rounds >= 0 else min(second, 1)  # of stage 2, whatever stage 1 takes
        if self.preprocessing_rounds < 0:
            first = min(first, num_rounds - 1 - kept)
        first = max(1, first)
        return first, max(0, min(second, num_rounds - 1 - first))

    def begin(self, visit: Visit) -> None:
        noisy = _is_noisy(visit.told)
        visit.metrics[NOISY] = float(noisy)
        due = LAST if _number(visit.told, STAGE, 1) == 3 else int(_number(visit.told, JUDGEMENTS))
        if noisy and due > int(visit.state.get(RELABELLED, torch.tensor(0))):
            self._relabel(visit, due)
        if weight := self.beta * _number(visit.told, DELTA):
            visit.scratch["start"] = [one.detach().clone() for one in _trained(visit.networks[0])]
            visit.scratch["weight"] = weight

    def _relabel(self, visit: Visit, due: int) -> None:
        """Change labels by the global model, once for each judgement: `due` is the number of this one."""
        sure, classes = _logits(visit).softmax(dim=1).max(dim=1)
        changed = sure > self.confidence
        if due < LAST:
            if LOSSES not in visit.state:  # the client has lost its state
                return
            suspects = int(_suspects(visit).sum())  # n_k delta_k
            changed &= highest(visit.state[LOSSES], int(suspects * self.relabel_ratio + 1e-9))  # 0.29 * 100 is below 29
        visit.labels = classes.where(changed, visit.labels)
        visit.state[RELABELLED] = torch.tensor(due, device=visit.labels.device)

    def mix(self, seen: Seen, visit: Visit) -> list[Tensor]:
        if not self.alpha:
            return seen.inputs
        mix = draw_mix(len(seen.labels), self.alpha, visit.generator, seen.labels.device)
        visit.scratch["mix"] = mix
        return [mix.of(inputs) for inputs in seen.inputs]

    def loss(self, batch: Batch, visit: Visit) -> Tensor:
        loss = cross_entropy(batch.logits, batch.labels)
        if self.alpha:
            mix: Mix = visit.scratch["mix"]
            loss = mix.mean(loss, cross_entropy(batch.logits, batch.labels[mix.partners]))
        if "start" not in visit.scratch:
            return loss
        away = distance(_trained(visit.networks[0]), visit.scratch["start"])
        weight: float = visit.scratch["weight"]
        return loss + weight * (away if self.proximal == "norm" else away.square())

    def end(self, visit: Visit) -> None:
        """Judge the images, and in stage 1 report what the server judges the client by."""
        if _number(visit.told, STAGE, 1) == 1:
            self._measure(visit)
        if LOSSES in visit.state:
            visit.suspected = torch.zeros_like(visit.labels, dtype=torch.bool)
            if _is_noisy(visit.told):
                visit.suspected = torch.from_numpy(_suspects(visit)).to(visit.labels.device)
                visit.suspected |= visit.labels != visit.given
            visit.suspicion = visit.state[GIVEN_LOSSES]

    def _measure(self, visit: Visit) -> None:
        logs = _logits(visit).log_softmax(dim=1)
        for name, labels in ((LOSSES, visit.labels), (GIVEN_LOSSES, visit.given)):
            losses = -logs.gather(1, labels[:, None])[:, 0].clamp(min=-LARGEST_LOSS)
            before = visit.state.get(name)
            visit.state[name] = losses.float() if before is None else before + losses.float()
        visit.metrics[NOISY_SHARE] = float(_suspects(visit).mean())
        if len(logs) >= FEWEST:
            dimensions = local_dimensions(logs.exp(), self.neighbours).cpu().numpy()
            visit.metrics[LID] = min(float(dimensions.mean()), LARGEST)
            visit.metrics[LID_ERROR] = min(float(dimensions.std(ddof=1)) / math.sqrt(len(logs)), LARGEST_ERROR)

    def reports(self, told: Mapping[str, Told], classes: int) -> Schema:
        """The client's tag, as in two stages; in stage 1 its share of noisy images and, if it has enough, LID."""
        tag = float(_is_noisy(told))
        schema: dict[str, Number] = {NOISY: Number(tag, tag)}
        if _number(told, STAGE, 1) == 1:
            schema |= {NOISY_SHARE: Number(0, 1), LID: Number(0, LARGEST, needed=False)}
            schema[LID_ERROR] = Number(0, LARGEST_ERROR, needed=False)
        return schema

    def on_server(self) -> FedCorrOnServer:
        return FedCorrOnServer(self)


def _is_noisy(told: Mapping[str, Told]) -> bool:
    return bool(told.get(NOISY, False))


def _number(told: Mapping[str, Told], name: str, default: float = 0) -> float:
    """What the server told the client; a client that is told nothing is in stage 1, and not noisy."""
    value = told.get(name, default)
    assert isinstance(value, (int, float))
    return value


def _suspects(visit: Visit) -> Bools:
    """(n,) bool, the images in the higher part of the losses so far."""
    return in_the_higher_part(visit.state[LOSSES].double().cpu().numpy())


def _trained(network: nn.Module) -> list[Tensor]:
    return [weight for weight in network.parameters() if weight.requires_grad]


def _logits(visit: Visit) -> Tensor:
    """(n, C) float64, finite: those of the network as it is now, on all images."""
    return torch.nan_to_num(visit.predict().double(), posinf=1e30, neginf=-1e30)


def distance(weights: list[Tensor], others: list[Tensor]) -> Tensor:
    """|w - w'| of all tensors as one vector: a scalar, whose gradient is 0 where it is 0."""
    norms = [torch.linalg.vector_norm(one - other) for one, other in zip(weights, others, strict=True)]
    together: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return together


def highest(values: Tensor, count: int) -> Tensor:
    """(n,) bool, the `count` largest of (n,) numbers; of equal ones, the first."""
    chosen = torch.zeros(len(values), dtype=torch.bool, device=values.device)
    chosen[values.sort(descending=True, stable=True).indices[:count]] = True
    return chosen


def in_the_higher_part(losses: Floats) -> Bools:
    """The images that belong to the higher of two Gaussians: (n,) bool.

    Nobody does if they are fewer than `FEWEST` or all equal, or where the higher one is so wide that it has the
    smallest losses, too.

    Args:
        losses: (n,) finite numbers.
    """
    low, high = losses.min(), losses.max()
    if len(losses) < FEWEST or low == high:
        return np.zeros(len(losses), dtype=bool)
    scaled = (losses - low) / (high - low)
    return fit_mixture(scaled, **FITS).is_upper(scaled)  # type: ignore[arg-type]
