"""Methods, strategies and other choices with parameters, as their classes describe them.

`python -m server_app.known --write` writes this file, as does `make docs`; a test compares it with the classes.
"""

from math import nan

from config.parameters import KnownMethod, KnownStrategy, Parameter
from config.rules import TARGETS, TRANSITION, at_least, interval, one_of, rounds_or_share, true_or_false

METHODS = {
    "ce": KnownMethod(
        {
            "label_smoothing": Parameter(0.0, interval(0, 1, open_high=True)),
            "mixup": Parameter(0.0, interval(0)),
        },
    ),
    "sce": KnownMethod(
        {
            "alpha": Parameter(0.1, interval(0)),
            "beta": Parameter(1.0, interval(0)),
            "floor": Parameter(0.0001, interval(0, 1, open_low=True, open_high=True)),
        },
    ),
    "gce": KnownMethod(
        {
            "q": Parameter(0.7, interval(0, 1, open_low=True, but="its limit at 0 is cross-entropy, method='ce'")),
            "truncation": Parameter(0.0, interval(0, 1, open_high=True)),
        },
        learning_rates={"notebook": 0.1, "clothing1m": 0.01},
    ),
    "forward": KnownMethod(
        {
            "transition": Parameter("estimate", TRANSITION),
            "smoothing": Parameter(1.0, interval(0)),
            "correction": Parameter("forward", one_of("forward", "backward")),
        },
        both_labels=("clean_train", "clean_val"),
    ),
    "xiao": KnownMethod(
        {
            "first_stage": Parameter(0.625, interval(0, 1)),
            "first_stage_rounds": Parameter(-1, rounds_or_share(0, "first-stage")),
            "clean_weight": Parameter(0.1, interval(0)),
            "later_clean_weight": Parameter(1.0, interval(0)),
            "type_weight": Parameter(0.1, interval(0)),
            "type_rate": Parameter(0.1, interval(0)),
            "clean_epochs": Parameter(40, at_least(0)),
            "type_epochs": Parameter(26, at_least(0)),
            "server_share": Parameter(1.0, interval(0)),
            "server_steps": Parameter(-1, rounds_or_share(0, "server-share")),
            "trunk": Parameter("classes", one_of("classes", "both")),
        },
        features=True,
        both_labels=("clean_train",),
    ),
    "feddecorr": KnownMethod(
        {
            "zeta": Parameter(0.1, interval(0)),
            "form": Parameter("authors", one_of("authors", "paper")),
        },
        features=True,
    ),
    "elr": KnownMethod(
        {
            "beta": Parameter(0.7, interval(0, 1, open_high=True)),
            "strength": Parameter(3.0, interval(0)),
            "weight_averaging": Parameter(0.0, interval(0, 1, open_high=True)),
        },
        loss_may_be_negative=True,
    ),
    "selfie": KnownMethod(
        {
            "noise_rate": Parameter(0.2, interval(0, 1, open_high=True)),
            "history": Parameter(15, at_least(1, 1000)),
            "threshold": Parameter(0.05, interval(0, 1)),
            "warm_up": Parameter(0.2, interval(0, 1)),
            "warm_up_rounds": Parameter(-1, rounds_or_share(0, "warm-up")),
            "weigh_by": Parameter("held", one_of("held", "used")),
        },
    ),
    "joint-optimization": KnownMethod(
        {
            "alpha": Parameter(1.2, interval(0)),
            "beta": Parameter(0.8, interval(0)),
            "history": Parameter(10, at_least(1, 1000)),
            "labels": Parameter("soft", one_of("soft", "hard")),
            "prior": Parameter("uniform", one_of("uniform", "given")),
            "warm_up": Parameter(0.2, interval(0, 1)),
            "warm_up_rounds": Parameter(-1, rounds_or_share(0, "warm-up")),
        },
    ),
    "fedlsr": KnownMethod(
        {
            "gamma": Parameter(0.4, interval(0)),
            "entropy": Parameter(0.6, interval(0)),
            "warm_up": Parameter(0.2, interval(0, 1)),
            "warm_up_rounds": Parameter(-1, rounds_or_share(0, "warm-up")),
            "form": Parameter("paper", one_of("paper", "reference")),
            "colours": Parameter("images", one_of("images", "batch")),
        },
        learning_rates={"notebook": 0.1, "clothing1m": 0.01},
    ),
    "co-teaching": KnownMethod(
        {
            "forget_rate": Parameter(0.2, interval(0, 1, open_high=True)),
            "warm_up": Parameter(0.2, interval(0, 1)),
            "warm_up_rounds": Parameter(-1, rounds_or_share(0, "warm-up")),
        },
        networks=2,
    ),
    "co-teaching-plus": KnownMethod(
        {
            "forget_rate": Parameter(0.2, interval(0, 1, open_high=True)),
            "warm_up": Parameter(0.2, interval(0, 1)),
            "warm_up_rounds": Parameter(-1, rounds_or_share(0, "warm-up")),
            "start": Parameter(0.1, interval(0, 1)),
            "start_rounds": Parameter(-1, rounds_or_share(0, "start")),
        },
        networks=2,
    ),
    "dividemix": KnownMethod(
        {
            "warm_up": Parameter(0.2, interval(0, 1)),
            "warm_up_rounds": Parameter(-1, rounds_or_share(0, "warm-up")),
            "confidence_penalty": Parameter(1.0, interval(0)),
            "threshold": Parameter(0.5, interval(0, 1, open_high=True)),
            "temperature": Parameter(0.5, interval(0, open_low=True)),
            "alpha": Parameter(0.5, interval(0, open_low=True)),
            "lambda_u": Parameter(0.0, interval(0)),
            "ramp": Parameter(0.13333333333333333, interval(0, 1)),
            "ramp_rounds": Parameter(-1, rounds_or_share(0, "ramp")),
            "prior": Parameter("uniform", one_of("uniform", "given")),
            "strong": Parameter(False, true_or_false()),
            "weigh_by": Parameter("held", one_of("held", "used")),
        },
        networks=2,
        loss_may_be_negative=True,
    ),
    "fednoro": KnownMethod(
        {
            "warm_up": Parameter(0.16666666666666666, interval(0, 1, open_low=True, open_high=True)),
            "warm_up_rounds": Parameter(-1, rounds_or_share(1, "warm-up")),
            "clients": Parameter("detect", one_of("detect", "all-noisy", "all-clean")),
            "least_gap": Parameter(0.1, interval(0)),
            "first_stage_clients": Parameter("sampled", one_of("sampled", "in-turns")),
            "second_stage_clients": Parameter("all", one_of("all", "clean")),
            "temperature": Parameter(0.8, interval(0, open_low=True)),
            "distillation": Parameter(0.8, interval(0, 1)),
            "ramp_end": Parameter(1.0, interval(0, 1, open_low=True)),
            "ramp_end_round": Parameter(-1, rounds_or_share(1, "ramp-end")),
            "adjustment": Parameter(1.0, interval(0)),
        },
        strategy="daagg",
        finds_noisy_clients=True,
    ),
    "fedelc": KnownMethod(
        {
            "warm_up": Parameter(0.16666666666666666, interval(0, 1, open_low=True, open_high=True)),
            "warm_up_rounds": Parameter(-1, rounds_or_share(1, "warm-up")),
            "clients": Parameter("detect", one_of("detect", "all-noisy", "all-clean")),
            "least_gap": Parameter(0.1, interval(0)),
            "first_stage_clients": Parameter("sampled", one_of("sampled", "in-turns")),
            "second_stage_clients": Parameter("all", one_of("all", "clean")),
            "alpha": Parameter(0.2, interval(0)),
            "beta": Parameter(0.5, interval(0)),
            "sharpness": Parameter(10.0, interval(0, open_low=True)),
            "label_rate": Parameter(1000.0, interval(0, open_low=True)),
            "adjustment": Parameter(1.0, interval(0)),
        },
        strategy="daagg",
        finds_noisy_clients=True,
    ),
    "maskedoptim": KnownMethod(
        {
            "warm_up": Parameter(0.25, interval(0, 1, open_low=True, open_high=True)),
            "warm_up_rounds": Parameter(-1, rounds_or_share(1, "warm-up")),
            "clients": Parameter("detect", one_of("detect", "all-noisy", "all-clean")),
            "least_gap": Parameter(0.1, interval(0)),
            "first_stage_clients": Parameter("sampled", one_of("sampled", "in-turns")),
            "second_stage_clients": Parameter("all", one_of("all", "clean")),
            "alpha": Parameter(0.5, interval(0)),
            "beta": Parameter(0.1, interval(0)),
            "sharpness": Parameter(10.0, interval(0, open_low=True)),
            "label_rate": Parameter(1000.0, interval(0, open_low=True)),
            "adjustment": Parameter(1.0, interval(0)),
            "keep": Parameter(0.8, interval(0, 1, open_low=True)),
            "update_scale": Parameter(0.8, interval(0, 1, open_low=True)),
        },
        strategy="rfa",
        finds_noisy_clients=True,
    ),
    "dualoptim": KnownMethod(
        {
            "warm_up": Parameter(0.16666666666666666, interval(0, 1, open_low=True, open_high=True)),
            "warm_up_rounds": Parameter(-1, rounds_or_share(1, "warm-up")),
            "clients": Parameter("detect", one_of("detect", "all-noisy", "all-clean")),
            "least_gap": Parameter(0.1, interval(0)),
            "first_stage_clients": Parameter("sampled", one_of("sampled", "in-turns")),
            "second_stage_clients": Parameter("all", one_of("all", "clean")),
            "alpha": Parameter(0.6, interval(0)),
            "beta": Parameter(1.0, interval(0)),
            "sharpness": Parameter(10.0, interval(0, open_low=True)),
            "label_rate": Parameter(1000.0, interval(0, open_low=True)),
            "adjustment": Parameter(1.0, interval(0)),
            "centre": Parameter(0.4, interval(0)),
        },
        strategy="daagg",
        features=True,
        finds_noisy_clients=True,
    ),
    "fedcorr": KnownMethod(
        {
            "preprocessing": Parameter(0.5, interval(0, 1, open_low=True)),
            "preprocessing_rounds": Parameter(-1, rounds_or_share(1, "preprocessing")),
            "fine_tuning": Parameter(0.25, interval(0, 1)),
            "fine_tuning_rounds": Parameter(-1, rounds_or_share(0, "fine-tuning")),
            "iterations": Parameter(0, at_least(0, 1000)),
            "alpha": Parameter(1.0, interval(0)),
            "beta": Parameter(5.0, interval(0)),
            "proximal": Parameter("norm", one_of("norm", "squared")),
            "neighbours": Parameter(20, at_least(2, 1000)),
            "relabel_ratio": Parameter(0.8, interval(0, 1)),
            "confidence": Parameter(0.9, interval(0, 1)),
            "clean_share": Parameter(0.1, interval(0, 1)),
            "groups": Parameter("standing-out", one_of("standing-out", "always")),
            "least_gap": Parameter(0.1, interval(0)),
        },
        finds_noisy_clients=True,
    ),
    "feddiv": KnownMethod(
        {
            "warm_up": Parameter(0.5, interval(0, 1, open_low=True, open_high=True)),
            "warm_up_rounds": Parameter(-1, rounds_or_share(1, "warm-up")),
            "iterations": Parameter(0, at_least(0, 1000)),
            "threshold": Parameter(0.5, interval(0, 1)),
            "noisy_share": Parameter(0.1, interval(0, 1)),
            "confidence": Parameter(0.75, interval(0, 1)),
            "debias": Parameter(0.5, interval(0)),
            "momentum": Parameter(0.2, interval(0, 1, open_high=True)),
            "alpha": Parameter(1.0, interval(0, open_low=True)),
            "prior_weight": Parameter(0.0, interval(0)),
            "weigh_by": Parameter("held", one_of("held", "used")),
        },
        finds_noisy_clients=True,
    ),
    "fedclean": KnownMethod(
        {
            "label_smoothing": Parameter(0.0, interval(0, 1, open_high=True)),
            "mixup": Parameter(1.0, interval(0)),
            "learner": Parameter("joint-optimization", one_of("joint-optimization", "co-teaching")),
            "alone_epochs": Parameter(10, at_least(1, 1000)),
            "prior": Parameter("given", one_of("uniform", "given")),
            "forget_rate": Parameter(0.2, interval(0, 1, open_high=True)),
            "first_stage": Parameter(0.2, interval(0, 1, open_low=True)),
            "first_stage_rounds": Parameter(-1, rounds_or_share(1, "first-stage")),
            "second_stage": Parameter(0.4, interval(0, 1)),
            "second_stage_rounds": Parameter(-1, rounds_or_share(0, "second-stage")),
            "relabel_agreed": Parameter(0.8, interval(0, 1)),
            "relabel_confident": Parameter(0.8, interval(0, 1)),
            "confidence": Parameter(0.9, interval(0, 1)),
        },
    ),
    "robustfl": KnownMethod(
        {
            "forget_rate": Parameter(0.2, interval(0, 1, open_high=True)),
            "warm_up": Parameter(0.2, interval(0, 1)),
            "warm_up_rounds": Parameter(-1, rounds_or_share(0, "warm-up")),
            "pseudo_start": Parameter(0.2, interval(0, 1)),
            "pseudo_start_rounds": Parameter(-1, rounds_or_share(0, "pseudo-start")),
            "centre": Parameter(1.0, interval(0)),
            "distance": Parameter("mean", one_of("mean", "sum")),
            "entropy": Parameter(0.8, interval(0)),
        },
        features=True,
        not_private="for which clients send arrays without noise beside their weights",
    ),
    "fedrn": KnownMethod(
        {
            "warm_up": Parameter(0.2, interval(0, 1)),
            "warm_up_rounds": Parameter(-1, rounds_or_share(0, "warm-up")),
            "alpha": Parameter(0.6, interval(0, 1)),
            "neighbours": Parameter(1, at_least(1, 100)),
            "threshold": Parameter(0.5, interval(0, 1, open_high=True)),
            "weigh_by": Parameter("held", one_of("held", "used")),
        },
        features=True,
        shares_models=True,
    ),
}
STRATEGIES = {
    "fedavg": KnownStrategy(
        {
            "min_train_nodes": Parameter(1, at_least(1)),
            "min_evaluate_nodes": Parameter(1, at_least(1)),
            "min_available_nodes": Parameter(1, at_least(1)),
        },
        takes_one_mean=True,
    ),
    "fedavgm": KnownStrategy(
        {
            "min_train_nodes": Parameter(1, at_least(1)),
            "min_evaluate_nodes": Parameter(1, at_least(1)),
            "min_available_nodes": Parameter(1, at_least(1)),
            "server_learning_rate": Parameter(1.0, interval(0, open_low=True)),
            "server_momentum": Parameter(0.0, interval(0, 1, open_high=True)),
        },
        takes_one_mean=True,
    ),
    "fedprox": KnownStrategy(
        {
            "min_train_nodes": Parameter(1, at_least(1)),
            "min_evaluate_nodes": Parameter(1, at_least(1)),
            "min_available_nodes": Parameter(1, at_least(1)),
            "proximal_mu": Parameter(0.0, interval(0)),
        },
        takes_one_mean=True,
    ),
    "fedadagrad": KnownStrategy(
        {
            "min_train_nodes": Parameter(1, at_least(1)),
            "min_evaluate_nodes": Parameter(1, at_least(1)),
            "min_available_nodes": Parameter(1, at_least(1)),
            "eta": Parameter(0.1, interval(0, open_low=True)),
            "tau": Parameter(0.001, interval(0, open_low=True)),
        },
        takes_one_mean=True,
    ),
    "fedadam": KnownStrategy(
        {
            "min_train_nodes": Parameter(1, at_least(1)),
            "min_evaluate_nodes": Parameter(1, at_least(1)),
            "min_available_nodes": Parameter(1, at_least(1)),
            "eta": Parameter(0.1, interval(0, open_low=True)),
            "tau": Parameter(0.001, interval(0, open_low=True)),
            "beta_1": Parameter(0.9, interval(0, 1, open_high=True)),
            "beta_2": Parameter(0.99, interval(0, 1, open_high=True)),
        },
        takes_one_mean=True,
    ),
    "fedyogi": KnownStrategy(
        {
            "min_train_nodes": Parameter(1, at_least(1)),
            "min_evaluate_nodes": Parameter(1, at_least(1)),
            "min_available_nodes": Parameter(1, at_least(1)),
            "eta": Parameter(0.01, interval(0, open_low=True)),
            "tau": Parameter(0.001, interval(0, open_low=True)),
            "beta_1": Parameter(0.9, interval(0, 1, open_high=True)),
            "beta_2": Parameter(0.99, interval(0, 1, open_high=True)),
        },
        takes_one_mean=True,
    ),
    "fedexp": KnownStrategy(
        {
            "min_train_nodes": Parameter(1, at_least(1)),
            "min_evaluate_nodes": Parameter(1, at_least(1)),
            "min_available_nodes": Parameter(1, at_least(1)),
            "epsilon": Parameter(0.001, interval(0, open_low=True)),
        },
        by_number=False,
    ),
    "qfedavg": KnownStrategy(
        {
            "min_train_nodes": Parameter(1, at_least(1)),
            "min_evaluate_nodes": Parameter(1, at_least(1)),
            "min_available_nodes": Parameter(1, at_least(1)),
            "q": Parameter(0.1, interval(0, 100)),
            "client_learning_rate": Parameter(0.0, interval(0, open_low=True)),
        },
        by_number=False,
    ),
    "fedmedian": KnownStrategy(
        {
            "min_train_nodes": Parameter(1, at_least(1)),
            "min_evaluate_nodes": Parameter(1, at_least(1)),
            "min_available_nodes": Parameter(1, at_least(1)),
        },
    ),
    "fedtrimmedavg": KnownStrategy(
        {
            "min_train_nodes": Parameter(1, at_least(1)),
            "min_evaluate_nodes": Parameter(1, at_least(1)),
            "min_available_nodes": Parameter(1, at_least(1)),
            "beta": Parameter(0.2, interval(0, 0.5, open_high=True)),
        },
    ),
    "krum": KnownStrategy(
        {
            "min_train_nodes": Parameter(1, at_least(1)),
            "min_evaluate_nodes": Parameter(1, at_least(1)),
            "min_available_nodes": Parameter(1, at_least(1)),
            "num_malicious_nodes": Parameter(0, at_least(0)),
        },
        by_number=False,
    ),
    "multikrum": KnownStrategy(
        {
            "min_train_nodes": Parameter(1, at_least(1)),
            "min_evaluate_nodes": Parameter(1, at_least(1)),
            "min_available_nodes": Parameter(1, at_least(1)),
            "num_malicious_nodes": Parameter(0, at_least(0)),
            "num_nodes_to_select": Parameter(1, at_least(1)),
        },
        by_number=False,
    ),
    "bulyan": KnownStrategy(
        {
            "min_train_nodes": Parameter(1, at_least(1)),
            "min_evaluate_nodes": Parameter(1, at_least(1)),
            "min_available_nodes": Parameter(1, at_least(1)),
            "num_malicious_nodes": Parameter(0, at_least(0)),
        },
        by_number=False,
    ),
    "rfa": KnownStrategy(
        {
            "min_train_nodes": Parameter(1, at_least(1)),
            "min_evaluate_nodes": Parameter(1, at_least(1)),
            "min_available_nodes": Parameter(1, at_least(1)),
            "iterations": Parameter(4, at_least(1)),
            "nu": Parameter(1e-05, interval(0, open_low=True)),
            "tolerance": Parameter(1e-06, interval(0, 1)),
        },
        by_number=False,
    ),
    "daagg": KnownStrategy(
        {
            "min_train_nodes": Parameter(1, at_least(1)),
            "min_evaluate_nodes": Parameter(1, at_least(1)),
            "min_available_nodes": Parameter(1, at_least(1)),
            "distance": Parameter("tensors", one_of("tensors", "model")),
        },
        by_number=False,
    ),
}
PRIVACY: dict[str, dict[str, Parameter]] = {
    "none": {},
    "server-fixed": {
        "noise_multiplier": Parameter(nan, interval(0)),
        "clipping_norm": Parameter(nan, interval(0, open_low=True)),
    },
    "server-adaptive": {
        "noise_multiplier": Parameter(nan, interval(0)),
        "initial_clipping_norm": Parameter(0.1, interval(0, open_low=True)),
        "target_clipped_quantile": Parameter(0.5, interval(0, 1)),
        "clip_norm_lr": Parameter(0.2, interval(0, open_low=True)),
        "clipped_count_stddev": Parameter(0.0, interval(0)),
    },
    "client-fixed": {
        "noise_multiplier": Parameter(nan, interval(0)),
        "clipping_norm": Parameter(nan, interval(0, open_low=True)),
    },
    "client-adaptive": {
        "noise_multiplier": Parameter(nan, interval(0)),
        "initial_clipping_norm": Parameter(0.1, interval(0, open_low=True)),
        "target_clipped_quantile": Parameter(0.5, interval(0, 1)),
        "clip_norm_lr": Parameter(0.2, interval(0, open_low=True)),
        "clipped_count_stddev": Parameter(0.0, interval(0)),
    },
}
TRAINABLES: dict[str, dict[str, Parameter]] = {
    "all": {},
    "head": {},
    "lora": {
        "rank": Parameter(8, at_least(1, 1024)),
        "alpha": Parameter(16.0, interval(0, open_low=True)),
        "targets": Parameter("auto", TARGETS),
        "freeze_a": Parameter(False, true_or_false()),
    },
}
OPTIMIZERS: dict[str, dict[str, Parameter]] = {
    "sgd": {
        "nesterov": Parameter(False, true_or_false()),
    },
    "adamw": {
        "beta1": Parameter(0.9, interval(0, 1, open_high=True)),
        "beta2": Parameter(0.999, interval(0, 1, open_high=True)),
        "eps": Parameter(1e-08, interval(0, open_low=True)),
    },
}
LR_SCHEDULES: dict[str, dict[str, Parameter]] = {
    "constant": {},
    "cosine": {
        "final": Parameter(0.0, interval(0, 1)),
    },
    "step": {
        "every": Parameter(10, at_least(1)),
        "gamma": Parameter(0.1, interval(0, 1, open_low=True)),
    },
    "linear": {
        "final": Parameter(0.0, interval(0, 1)),
    },
}
