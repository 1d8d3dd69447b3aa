"""Which methods, strategies and other settings are incompatible, and why; checked before a run starts."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from config.architectures import ARCHITECTURES, TIMM, needs_two_images, weights_of
from config.errors import ConfigError
from config.known import METHODS, STRATEGIES
from config.rules import NAMED_WEIGHTS
from config.run_config import RunConfig
from config.stems import problem_of_stem, stem_of
from data.text import shown

ALIASES = {"imagenet": "IMAGENET1K_V1"}  # of names of weights
LEAST_FOR_LABEL_WAVE = 4  # rounds until the first model has a number


def check_combination(config: RunConfig, method: Any, strategy: Any) -> None:
    """Check that the run's method, and the rules that end it, go with the rest of its config.

    Args:
        config: The run's.
        method: It, or what `config.known` says of it.
        strategy: It, or what `config.known` says of it.

    Raises:
        ConfigError: They do not; the sentence names the reason, and what would work.
    """
    of_config = (*problems_of_stopping(config), *problems_of_clients_evidence(config))
    for problem in (*of_config, *problems_of_method(config, method, strategy)):
        raise ConfigError(problem)


def problems_of_method(config: RunConfig, method: Any, strategy: Any) -> Iterator[str]:
    """A sentence for each reason why the run's method does not go with the rest of its config."""
    name, refused = config.method, f"run config: 'strategy' is {config.strategy!r}, but 'method' is {config.method!r}"
    if method.networks > 1 and not getattr(strategy, "by_number", True):
        yield (
            f"{refused}, which trains {method.networks} networks that must not be mixed, and this strategy measures"
            " distances between whole models; it must be one that works coordinate by coordinate, such as fedavg,"
            " fedadam or fedmedian."
        )
    if config.strategy == "daagg" and not method.finds_noisy_clients:
        *others, last = (one for one, known in METHODS.items() if known.finds_noisy_clients)
        yield (
            f"{refused}, which does not tell noisy clients from clean ones; it must be another one, or the method"
            f" {', '.join(others)} or {last}."
        )
    if config.strategy == "qfedavg" and (method.loss_may_be_negative or method.finds_noisy_clients):
        # It weights each client by a power of its loss.
        yield _losses_refused(
            config, "may be negative" if method.loss_may_be_negative else "is not the same function on all clients"
        )
    if config.privacy != "none" and method.finds_noisy_clients:
        yield privacy_refused(config, "for which clients send numbers about their own images without noise")
    if config.privacy != "none" and method.shares_models:
        yield privacy_refused(config, "for which the server sends clients' models without noise to other clients")
    if config.privacy != "none" and (why := getattr(method, "not_private", "")):  # of a class, the server finds out
        yield privacy_refused(config, why)
    if config.trainable == "head" and name == "feddecorr":
        yield (
            f"run config: 'method' is {name!r}, which decorrelates features, but 'trainable' is 'head', which leaves"
            " them as they are; it must be all or lora, or 'method' another one."
        )
    if config.compile and method.features:
        yield (
            f"run config: 'compile' is true, but 'method' is {name!r}, which looks inside the network; it must be"
            " false."
        )


def privacy_refused(config: RunConfig, why: str) -> str:
    """The sentence that refuses `privacy`; `why` completes "'method' is ..., "."""
    return (
        f"run config: 'privacy' is {config.privacy!r}, but 'method' is {config.method!r}, {why}; 'privacy' must be"
        " none, or 'method' another one."
    )


def _losses_refused(config: RunConfig, why: str) -> str:
    return (
        f"run config: 'strategy' is {config.strategy!r}, but 'method' is {config.method!r}, whose loss {why}, and"
        " q-FedAvg weights clients by a power of their loss; it must be another strategy."
    )


def problems_of_privacy(config: RunConfig, strategy: Any) -> Iterator[str]:
    """A sentence for each reason why `privacy` does not go with the run's strategy, limits and `payload`."""
    if config.privacy == "none":
        return
    if not getattr(strategy, "takes_one_mean", False):
        private = ", ".join(name for name, known in STRATEGIES.items() if known.takes_one_mean)
        yield (
            f"run config: 'privacy' is {config.privacy!r}, but 'strategy' is {config.strategy!r}, which needs more than"
            f" the mean of the replies; it must be one of {private}."
        )
    if config.max_update_norm or config.max_update_ratio:
        key = "max-update-norm" if config.max_update_norm else "max-update-ratio"
        yield (
            f"run config: '{key}' is {getattr(config, key.replace('-', '_')):g}, but 'privacy' is {config.privacy!r},"
            " which limits every update by clipping it, and whose guarantee covers no refusals; it must be 0."
        )
    if config.batchnorm == "local":
        yield (
            f"run config: 'batchnorm' is 'local', but 'privacy' is {config.privacy!r}, whose noise does not reach"
            " BatchNorm's weights, which clients then send beside the others; it must be average or frozen."
        )
    if config.privacy.startswith("client-") and config.payload != "fp32":
        yield (
            f"run config: 'payload' is {config.payload!r}, but 'privacy' is {config.privacy!r}, where clients clip"
            " before they send: rounding could make updates longer than the norm. It must be fp32."
        )


def problems_of_evaluation(config: RunConfig) -> Iterator[str]:
    """A sentence if no round but the last could be evaluated by its number."""
    if config.evaluate_every > config.num_server_rounds:
        yield (
            f"run config: 'evaluate-every' is {config.evaluate_every}, but 'num-server-rounds' is"
            f" {config.num_server_rounds}; it must be at most that, which evaluates in the last round alone."
        )


def problems_of_stopping(config: RunConfig) -> Iterator[str]:
    """A sentence for each rule that would have to look at clean test, which never decides anything."""
    for key, value in (("patience", config.patience), ("target-accuracy", config.target_accuracy)):
        if value and config.val_split == "none":
            yield (
                f"run config: '{key}' is {value:g}, but 'val-split' is none, and a run is ended by validation accuracy"
                " alone, never by clean test; it must be 0, or 'val-split' another one."
            )
    if config.target_accuracy and config.val_split == "label-wave":
        yield (
            f"run config: 'target-accuracy' is {config.target_accuracy:g}, but 'val-split' is label-wave, which knows"
            " no accuracy; it must be 0, or 'val-split' another one."
        )


def problems_of_clients_evidence(config: RunConfig) -> Iterator[str]:
    """A sentence for each setting under which clients would have nothing to report of what the run asks for."""
    if config.eval_split == "own" and not config.holdout_fraction:
        yield (
            "run config: 'eval-split' is own, but 'holdout-fraction' is 0, so clients hold nothing out; it must be"
            " above 0, such as 0.1."
        )
    elif config.eval_split == "own" and not config.fraction_evaluate and config.val_split != "noisy":
        yield (
            "run config: 'eval-split' is own, but 'fraction-evaluate' is 0, so no client evaluates; it must be above 0,"
            " or 'eval-split' clean_val."
        )
    if config.val_split == "noisy" and not (config.eval_split == "own" and config.fraction_evaluate):
        yield (
            "run config: 'val-split' is noisy, for which clients evaluate on what they hold out: 'eval-split' must be"
            " own, and 'fraction-evaluate' and 'holdout-fraction' above 0."
        )
    if config.val_split == "label-wave" and config.inspection == "none":
        yield (
            "run config: 'val-split' is label-wave, for which clients look at all of their images in each visit;"
            " 'inspection' must be before or both."
        )
    if config.val_split == "label-wave" and config.num_server_rounds < LEAST_FOR_LABEL_WAVE:
        yield (
            f"run config: 'num-server-rounds' is {config.num_server_rounds}, but 'val-split' is label-wave, which needs"
            f" the changes of three rounds, and the first has none; it must be at least {LEAST_FOR_LABEL_WAVE}."
        )


def problems_of_optimizer(config: RunConfig, args: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A sentence for each reason why the steps of clients cannot be what the config asks for.

    Args:
        config: The run's.
        args: By key, the parameters that it gives, with names as in Python.
    """
    if config.optimizer == "sgd" and args.get("optimizer-args", {}).get("nesterov") and not config.momentum:
        yield (
            f"run config: 'optimizer-args' is {config.optimizer_args!r}, but 'momentum' is 0; nesterov must be false,"
            " or 'momentum' above 0."
        )
    if config.lr_warm_up >= config.num_server_rounds:
        yield (
            f"run config: 'lr-warm-up' is {config.lr_warm_up}, but 'num-server-rounds' is {config.num_server_rounds};"
            " it must be below that, so that at least one round has the whole 'learning-rate'."
        )
    own_rate = "client_learning_rate" in args.get("strategy-args", {})
    if config.strategy == "qfedavg" and config.optimizer != "sgd" and not own_rate:
        yield (
            f"run config: 'strategy' is 'qfedavg', which divides updates by the learning rate to get gradients, but"
            f" 'optimizer' is {config.optimizer!r}, whose updates are no such multiples; it must be sgd, or"
            " 'strategy-args' must set client-learning-rate."
        )


def problems_of_values(config: RunConfig, args: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A sentence for each pair of values that are right by themselves and do not go together.

    Args:
        config: The run's.
        args: By key, the parameters that it gives, with names as in Python.
    """
    known = METHODS[config.method]
    given = {**{name: one.default for name, one in known.parameters.items()}, **args["method-args"]}
    if config.method == "sce" and not given["alpha"] and not given["beta"]:
        yield f"run config: 'method-args' is {config.method_args!r}; alpha of sce must be above 0 if beta is 0."
    if config.method == "forward" and config.strategy == "qfedavg" and given["correction"] == "backward":
        yield _losses_refused(config, "may be negative with correction='backward'")
    if config.method == "fedcorr":
        rounds = max(given["preprocessing_rounds"], 1) + max(given["fine_tuning_rounds"], 0)
        if rounds >= max(2, config.num_server_rounds):
            yield (
                f"run config: by preprocessing-rounds and fine-tuning-rounds in 'method-args', stages 1 and 2 take at"
                f" least {rounds} rounds, but 'num-server-rounds' is {config.num_server_rounds}; they must be fewer."
            )
    if known.finds_noisy_clients and given.get("warm_up_rounds", -1) >= max(2, config.num_server_rounds):
        yield (
            f"run config: 'method-args' sets warm-up-rounds to {given['warm_up_rounds']}, but 'num-server-rounds' is"
            f" {config.num_server_rounds}; it must be below that."
        )
    if problem := problem_of_single_images(config, ()):
        yield problem


def problem_of_single_images(
    config: RunConfig, sizes: Iterable[int], needs_two: Callable[[str, int, str], bool] = needs_two_images
) -> str | None:
    """Why BatchNorm would refuse a batch of one image, in one sentence; None if there is none, or it would not.

    Args:
        config: The run's.
        sizes: How many images each client holds, as far as that is known.
        needs_two: Whether a model needs two images of a size, with a stem.
    """
    if config.batchnorm == "frozen" or config.trainable != "all":  # normalised by statistics of long ago
        return None
    alone = next((size for size in sizes if not config.drop_last and size % config.batch_size == 1), None)
    stem = stem_of(config)
    if (config.batch_size > 1 and alone is None) or not needs_two(config.model, config.image_size, stem):
        return None
    larger = _larger_image(config, needs_two)
    changes = [f"an 'image-size' of at least {larger}"] if larger else []
    if config.batch_size == 1:
        changes.insert(0, "a 'batch-size' of at least 2 with drop-last=true")
        why = "is 1"
    else:
        if alone is not None and alone >= config.batch_size:
            changes.insert(0, "drop-last=true")
        why = f"is {config.batch_size}, which leaves one of {alone} images alone"
    return (  # short enough for the log of the roll call
        f"run config: 'batch-size' {why}; a {config.model} cannot train on one image at 'image-size'"
        f" {config.image_size}: set {', or '.join(changes)}."
    )


def _larger_image(config: RunConfig, needs_two: Callable[[str, int, str], bool]) -> int | None:
    """The side from which on a single image will do; None if none is known."""
    if config.model in ARCHITECTURES:
        return ARCHITECTURES[config.model].alone + 1
    # timm's may need two images of any size, and each size takes a forward pass to try.
    for size in (*range(config.image_size + 1, config.image_size + 9), 2 * config.image_size, 4 * config.image_size):
        with contextlib.suppress(ConfigError):  # it may not take images of every size
            if not needs_two(config.model, size, "imagenet"):
                return int(size)
    return None


def problems_of_network(config: RunConfig) -> Iterator[str]:
    """A sentence for each reason why the network does not take the run's images, or lacks what is asked of it."""
    family = ARCHITECTURES.get(config.model)
    if family and (needed := family.problem_of_size(config.image_size)):
        yield f"run config: 'image-size' is {config.image_size}, but {config.model} needs {needed}."
    if problem := problem_of_stem(config):
        yield problem
    if family and not family.batchnorm and config.batchnorm != "average":
        yield (
            f"run config: 'batchnorm' is {config.batchnorm!r}, but {config.model} has no BatchNorm; it must be average."
        )
    if config.trainable != "all" and config.batchnorm == "local":
        yield (
            f"run config: 'batchnorm' is 'local', but 'trainable' is {config.trainable!r}, which freezes all of"
            " BatchNorm; it must be average or frozen, which are the same there."
        )
    if problem := problem_of_weights(config.model, config.pretrained):
        yield problem


def problem_of_weights(model: str, pretrained: str) -> str | None:
    """Why a network has no weights of this name, in one sentence; None if it has, or if they are none or a file."""
    if pretrained == "none" or not NAMED_WEIGHTS.fullmatch(pretrained):
        return None
    named = weights_of(model)
    known = ["DEFAULT"] if model.startswith(TIMM) else ["DEFAULT", *named] if named else []
    if ALIASES.get(pretrained, pretrained) in known:
        return None
    also = "" if known else ", or the 'model' one of torchvision's or timm's"
    return (
        f"run config: 'pretrained' is {shown(pretrained)}, but there are no such weights for the 'model' {model}; it"
        f" must be {', '.join(['none', *known])} or a file{also}."
    )
