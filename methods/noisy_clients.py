"""Which clients hold noisy labels, judged by their losses (FedNoRo: Wu et al., IJCAI 2023, arXiv 2305.05230, stage 1).

    l_kc = mean loss of the global model on client k's images of given class c
    columns of l scaled to [0, 1]; a mixture of two Gaussians over the clients' rows; the higher component is noisy

The paper fits nine mixtures and takes the set of noisy clients that comes up most often. It always finds two groups,
even where all clients are alike and differ only by chance, as with any IID split of Clothing1M. So a finding counts
only if the groups differ by more than chance explains, in loss beyond what their classes explain:

    e_k = sum_c n_kc (l_kc - l_c) / n_k,    l_c the mean over all images of class c in the federation
    gap = median e of the noisy group - median e of the clean group

By chance, K alike clients would differ like K draws from a normal distribution whose deviation is the standard error of
one client's e. Whoever calls the a highest of them noisy finds a gap between groups that do not exist: 1.3 errors for
half of 20, 2.5 for one of 100. Chance explains that gap, and SPREADS standard errors of the difference on top of it:

    chance = error (median z of the a highest - median z of the others + SPREADS sqrt(1 / a + 1 / (K - a)))

with z the expected values of K ordered draws. A client whose images the model has just been trained on fits them
better, noisy or not: with 2 of 10 clients a round, the other 8 would be called noisy. So gap and chance are taken among
the clients that did not train in the round before, or among those that did: the larger of these two parts that has
clients of both groups. `python -m tests.methods.federations` simulates federations, and prints how often alike clients
are accused and how many of the noisy ones are found.

The authors' code runs the model over randomly augmented images and needs the true noise; neither is needed here.
"""

import math
import warnings
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

FITS = 9
SPREADS = 3.0
LEAST_SPREAD = 0.1  # shares of wrong labels that lie closer together count as equal


@dataclass(frozen=True)
class Detection:
    """What was found.

    Attributes:
        noisy: (clients,) bool; all False unless a group stands out.
        stands_out: Whether a group of clients has more loss than chance explains.
        gap: Excess loss of the higher group over the other, in nats; NaN if there were no two groups.
        chance: The largest gap that chance explains between groups of these sizes, in nats; NaN likewise.
        reason: One sentence for the log.
    """

    noisy: Bools
    stands_out: bool
    gap: float
    chance: float
    reason: str


def detect(
    losses: Floats,
    variances: Floats,
    counts: npt.NDArray[np.int64],
    *,
    least_gap: float = 0.1,
    trained: Bools | None = None,
) -> Detection:
    """Find the clients with noisy labels.

    Args:
        losses: (clients, classes), mean loss per given class under the global model, in nats; ignored where there is
            no image.
        variances: (clients, classes), variance of these losses, the squares divided by the number of images; likewise.
        counts: (clients, classes), numbers of images. A client without any, such as one that did not answer, takes no
            part and counts as clean.
        least_gap: A smaller gap, as a share of the federation's mean loss, does not count, however certain it is.
        trained: (clients,) those that the model was trained by in the round before; None: nobody, or unknown.

    Raises:
        ValueError: The shapes differ, or a loss or variance is missing where there are images.
    """
    held = counts > 0
    if losses.ndim != 2 or not losses.shape == variances.shape == counts.shape:
        raise ValueError(
            f"losses, variances and counts have shapes {losses.shape}, {variances.shape} and {counts.shape};"
            " all must be (clients, classes)"
        )
    if not np.isfinite(losses[held]).all() or not (np.isfinite(variances[held]) & (variances[held] >= 0)).all():
        raise ValueError("every class of which a client holds images needs a finite loss and a variance of at least 0")
    noisy = np.zeros(len(losses), dtype=bool)
    present = held.any(axis=1)
    if present.any():
        rows = normalise(np.where(held, losses, np.nan)[present])
        noisy[present] = split_in_two(rows)
    others = present & ~noisy
    if not noisy.any() or not others.any():
        return _nobody(noisy, float("nan"), float("nan"), f"the {present.sum()} clients do not fall into two groups")

    trained = np.zeros_like(noisy) if trained is None else trained
    footings = [part for part in (present & ~trained, trained) if (noisy & part).any() and (others & part).any()]
    if not footings:
        why = "the two groups are those clients that trained in the round before, and the others"
        return _nobody(noisy, float("nan"), float("nan"), why)
    footing = max(footings, key=np.count_nonzero)
    higher, lower = noisy & footing, others & footing
    excess, errors, mean = excess_losses(losses, variances, counts)
    gap = float(np.median(excess[higher]) - np.median(excess[lower]))
    # In the group where the error is larger, since a group may be one small client.
    error = float(max(np.median(errors[higher]), np.median(errors[lower])))
    chance = error * errors_by_chance(int(higher.sum()), int(footing.sum()))
    groups = f"the loss of {noisy.sum()} of {present.sum()} clients is {gap:.3g} nats above that of the others"
    if gap <= chance:
        return _nobody(noisy, gap, chance, f"{groups}, within the {chance:.3g} that may be chance")
    if gap <= least_gap * mean:
        return _nobody(noisy, gap, chance, f"{groups}, less than {least_gap:g} of the mean loss {mean:.3g}")
    reason = f"Noisy clients found: {groups}, where chance explains at most {chance:.2g}."
    return Detection(noisy, True, gap, chance, reason)


def errors_by_chance(noisy: int, clients: int) -> float:
    """The largest gap that chance explains, in standard errors of one client's excess loss.

    Args:
        noisy: How many are in the higher group, at least 1.
        clients: How many there are in all, more than that.
    """
    normal, ranks = NormalDist(), np.arange(1, clients + 1)
    ordered = [normal.inv_cdf(share) for share in (ranks - 0.375) / (clients + 0.25)]  # Blom's approximation
    others = clients - noisy
    expected = float(np.median(ordered[others:]) - np.median(ordered[:others]))
    return expected + SPREADS * math.sqrt(1 / noisy + 1 / others)


def _nobody(noisy: Bools, gap: float, chance: float, why: str) -> Detection:
    reason = (
        f"No client stands out, and all count as clean: {why};"
        " if all labels are noisy alike, set clients='all-noisy' in 'method-args'."
    )
    return Detection(np.zeros_like(noisy), False, gap, chance, reason)


def normalise(losses: Floats) -> Floats:
    """Each class on a scale from 0 for the client with the least loss to 1 for the one with the most.

    Args:
        losses: (clients, classes), NaN where a client holds no image of a class.

    Returns:
        The same shape, within [0, 1]. What was NaN is 0, like the least loss; so is a class on which all agree.
    """
    missing = np.isnan(losses)
    low = np.where(missing, np.inf, losses).min(axis=0)
    high = np.where(missing, -np.inf, losses).max(axis=0)
    spread = np.where(high > low, high - low, 1.0)
    return np.where(missing, 0.0, losses - np.where(np.isfinite(low), low, 0.0)) / spread


def split_in_two(rows: Floats) -> Bools:
    """The clients of the higher of two groups: (clients,) bool, all False where there are no two.

    Nine mixtures are fitted; of each, the component whose mean has the larger sum is the higher. The set that comes up
    most often wins, or the earlier of two. With fewer than two clients per class a full covariance, which the authors
    fit, cannot be estimated, so a diagonal one is: in simulated federations it finds as many noisy clients of 5 and 10,
    and of 20 as many or a little more. Of 100 it accuses more clean ones, and the full one is fitted.

    Args:
        rows: (clients, classes), as `normalise` gives them.
    """
    clients, classes = rows.shape
    if len(np.unique(rows, axis=0)) < 2:
        return np.zeros(clients, dtype=bool)
    from sklearn.exceptions import ConvergenceWarning  # takes a second to import, and few runs need it
    from sklearn.mixture import GaussianMixture

    covariance = "diag" if clients < 2 * classes else "full"
    votes: list[tuple[bool, ...]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fit that did not converge loses the vote
        for seed in range(FITS):
            mixture = GaussianMixture(2, covariance_type=covariance, random_state=seed).fit(rows)
            higher = mixture.means_.sum(axis=1).argmax()
            votes.append(tuple(mixture.predict(rows) == higher))
    return np.array(max(votes, key=votes.count), dtype=bool)


def excess_losses(losses: Floats, variances: Floats, counts: npt.NDArray[np.int64]) -> tuple[Floats, Floats, float]:
    """Each client's loss above what its classes cost in the federation, its standard error, and the mean loss.

    Variances are pooled over the clients, class by class, because one client may hold only one image of a class.

    Args:
        losses: As in `detect`.
        variances: As in `detect`.
        counts: As in `detect`.

    Returns:
        (clients,) e_k; (clients,) ``sqrt(sum_c n_kc v_c) / n_k``; the mean loss over all images. Without images 0.
    """
    held = counts > 0
    sums = np.where(held, losses, 0.0) * counts
    squares = np.where(held, variances, 0.0) * counts
    of_class, of_client = counts.sum(axis=0), counts.sum(axis=1)
    mean = sums.sum(axis=0) / np.maximum(of_class, 1)
    variance = squares.sum(axis=0) / np.maximum((counts - held).sum(axis=0), 1)
    excess = (sums - counts * mean).sum(axis=1) / np.maximum(of_client, 1)
    errors = np.sqrt(counts @ variance) / np.maximum(of_client, 1)
    return excess, errors, float(sums.sum() / max(of_class.sum(), 1))


def client_scores(noisy: Bools, wrong_share: Floats) -> dict[str, float]:
    """How right a finding is, where the truth is known (`truly_noisy`).

    Args:
        noisy: (clients,) as found.
        wrong_share: (clients,) shares of wrong labels; NaN where unknown.

    Returns:
        ``noisy-clients``, the number found; and, if all shares are known, ``noisy-clients-precision`` unless nobody was
        found and ``noisy-clients-recall`` unless nobody is noisy.
    """
    scores = {"noisy-clients": float(noisy.sum())}
    truth = truly_noisy(wrong_share)
    if truth is None:
        return scores
    if noisy.any():
        scores["noisy-clients-precision"] = float((noisy & truth).sum() / noisy.sum())
    if truth.any():
        scores["noisy-clients-recall"] = float((noisy & truth).sum() / truth.sum())
    return scores


def truly_noisy(wrong_share: Floats) -> Bools | None:
    """Which clients are noisy: (clients,) bool; None unless all shares are known.

    A client is if its share of wrong labels lies above the midpoint of the least and the most noisy client; none is if
    these two are less than 0.1 apart.

    Args:
        wrong_share: (clients,) shares of wrong labels; NaN where unknown.
    """
    if len(wrong_share) == 0 or np.isnan(wrong_share).any():
        return None
    low, high = wrong_share.min(), wrong_share.max()
    alike = high - low < LEAST_SPREAD - 1e-9  # 0.3 - 0.2 is a little less than 0.1
    return np.zeros(len(wrong_share), dtype=bool) if alike else wrong_share > (low + high) / 2
