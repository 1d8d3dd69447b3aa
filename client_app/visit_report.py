"""What a client reports of the model that it receives and of the one that it has trained, beside training itself.

With `inspection`, how they agree with the labels of all images that it trains on (`learning.inspection`); with
`holdout-fraction`, how they do on those that it never trains on. Without either, nothing is computed.
"""

import numpy as np
from torch import Tensor, nn

from client_app import local_data
from config.normalization import normalization_of
from config.run_config import RunConfig
from data.images.pixels import Pixels
from learning.evaluation import evaluate
from learning.images import Images
from learning.inference import Inference, evaluating
from learning.inspection import Inspected, Look, finite, look, remember, share_changed
from learning.replica import as_written
from messages import keys
from task import Compute

LOOKS_AFTER = {"none": False, "before": False, "both": True}  # by `inspection`


class VisitReport:
    """One visit's.

    Attributes:
        metrics: For the reply.
        inspected: For the client's next visit; None without `inspection`.
    """

    def __init__(
        self,
        site: local_data.Site,
        given: Tensor,
        config: RunConfig,
        compute: Compute,
        network: nn.Module,
        earlier: Inspected | None,
    ) -> None:
        """Compute nothing yet.

        Args:
            site: Where the client's images are.
            given: (n,) int64 labels of those that it trains on.
            config: The run's.
            compute: Device and precision; the latter counts for training alone.
            network: All of it, on the device, whatever is trained.
            earlier: What the client remembers of its earlier visits.
        """
        self._given, self._config, self._compute = given, config, compute
        self._network, self._earlier = network, earlier
        self.metrics: dict[str, float] = {}
        self.inspected: Inspected | None = None
        self._own: tuple[Pixels, np.ndarray] | None = None
        if config.holdout_fraction:
            own = local_data.held_out_data(site, config)
            self.metrics[keys.OWN_EXAMPLES] = len(own.labels)
            if len(own.labels):  # some can be read
                self._own = local_data.pixels(site, own, config.image_size, config), own.labels

    def before_training(self, model: nn.Module, images: Images) -> None:
        """Look at the received model; `model` and `images` are those of `visit_inputs`."""
        if self._config.inspection != "none":
            seen = self._look(model, images)
            self.metrics |= {keys.LOSS_BEFORE: seen.loss, keys.AGREEMENT_BEFORE: seen.agreement}
            if self._earlier is not None:
                self.metrics[keys.CHANGED] = share_changed(seen, self._earlier)
            self.inspected = remember(seen, self._earlier)
        self._evaluate(keys.OWN_LOSS_BEFORE, keys.OWN_ACCURACY_BEFORE)

    def after_training(self, model: nn.Module, images: Images) -> None:
        """Look at the trained one, in the same way."""
        if LOOKS_AFTER[self._config.inspection]:
            seen = self._look(model, images)
            self.metrics |= {keys.LOSS_AFTER: seen.loss, keys.AGREEMENT_AFTER: seen.agreement}
        self._evaluate(keys.OWN_LOSS_AFTER, keys.OWN_ACCURACY_AFTER)

    def _look(self, model: nn.Module, images: Images) -> Look:
        inference = Inference(images, self._config.image_size, self._compute, normalization_of(self._config))
        with as_written(self._config):
            return look(model, inference, self._given)

    def _evaluate(self, loss: str, accuracy: str) -> None:
        """On what the client holds out, if it does; under these names."""
        if self._own is None:
            return
        with as_written(self._config), evaluating(self._network):
            found = evaluate(self._network, *self._own, self._compute, normalization_of(self._config))
        self.metrics |= {loss: finite(found.loss), accuracy: found.accuracy}
