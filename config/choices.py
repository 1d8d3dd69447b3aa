"""The names that keys of the run config can take, each with a few words for the settings page.

What a name does is written where PyTorch, Flower or NumPy are at hand, which this module must not import: in a table
with the same names in the same order. A test compares the two.
"""

PRESETS = {
    "notebook": "the published FedAvg run",
    "clothing1m": "the recipe we recommend",
    "fedcorr": "FedCorr on Clothing1M, as published",
    "fnbench": "FNBench's protocol, on any release",
    "cifar10-fnbench": "its first setting on CIFAR-10",
    "cifar10n": "human labels of CIFAR-10 in its protocol",
}
TRACKERS = {  # server_app.callbacks.tracking
    "none": "",
    "tensorboard": "files in the run's folder",
    "wandb": "Weights & Biases",
    "trackio": "Hugging Face's",
    "mlflow": "a database in the run's folder, or your server",
}
TRAIN_SPLITS = {  # data.release
    "noisy": "noisy train",
    "noisy-mini": "a fixed tenth of it",
    "clean": "clean train",
}
TEST_SPLITS = {"clean_test": "", "none": "no test set is opened"}
VAL_LISTS = ("clean_val", "clean_train")  # those of `VAL_SPLITS` that are lists of the server's own
VAL_SPLITS = {  # server_app.early_stop
    "clean_val": "",
    "clean_train": "",
    "noisy": "what clients hold out, with their own labels",
    "label-wave": "how many predictions on training images change from visit to visit; needs no labels held out",
    "none": "",
}
EVAL_SPLITS = {  # client_app.local_data
    "clean_val": "an equal slice of it each",
    "own": "what each holds out of its own images, with its own labels",
}
INSPECTIONS = {  # learning.inspection
    "none": "",
    "before": "the received model, before it trains",
    "both": "and the trained one",
}
BAD_IMAGES = {  # learning.sound_images
    "refuse": "the run stops, and names it",
    "skip": "left out and counted; all images are then decoded before round 1",
}
PARTITIONS = {  # data.partition
    "iid": "equal shares at random",
    "dirichlet": "uneven classes",
    "shards": "few classes each",
    "bernoulli-dirichlet": "uneven classes, some of them missing",
    "quantity": "uneven sizes",
    "natural": "whole groups of the dataset, such as writers or sites",
    "file": "as saved in a file",
}
LABEL_NOISES = {  # data.noise.synthetic
    "none": "",
    "symmetric": "any other class",
    "pairflip": "the class before",
    "confusion": "Clothing1M's published matrix",
}
STRATEGIES = (  # server_app.strategies; docs/strategies.md says what they do
    "fedavg", "fedavgm", "fedprox", "fedadagrad", "fedadam", "fedyogi", "fedexp", "qfedavg", "fedmedian",
    "fedtrimmedavg", "krum", "multikrum", "bulyan", "rfa", "daagg",
)  # fmt: skip
PRIVACY = {  # server_app.privacy.clipping_norms
    "none": "",
    "server-fixed": "",
    "server-adaptive": "",
    "client-fixed": "",
    "client-adaptive": "",
}
PAYLOADS = {  # messages.payload
    "fp32": "exact",
    "bf16": "half the bytes, 8 significant bits",
    "fp16": "half the bytes, 11 significant bits, up to 65,504",
}
METHODS = (  # methods; docs/methods.md says what they do
    "ce", "sce", "gce", "forward", "xiao", "feddecorr", "elr", "selfie", "joint-optimization", "fedlsr", "co-teaching",
    "co-teaching-plus", "dividemix", "fednoro", "fedelc", "maskedoptim", "dualoptim",
    "fedcorr", "feddiv", "fedclean", "robustfl", "fedrn",
)  # fmt: skip
TRAINABLES = {  # learning.trainable
    "all": "",
    "head": "the last layer alone, on frozen features",
    "lora": "the last layer, and low-rank adapters in the frozen rest",
}
BATCHNORMS = {  # learning.network
    "average": "averaged like weights",
    "local": "each client trains with its own, as in FedBN",
    "frozen": "the statistics of the initial weights, for good",
}
STEMS = {  # config.stems
    "auto": "",
    "imagenet": "a 7x7 convolution of stride 2 and pooling, for photos",
    "small": "a 3x3 convolution of stride 1 without pooling, as usual for CIFAR",
}
NORMALIZATIONS = {  # data.normalization
    "imagenet": "what torchvision's pretrained weights expect",
    "clothing1m": "the dataset's own",
    "half": "a mean and deviation of 0.5, which many of timm's weights expect",
    "cifar10": "the dataset's own",
    "cifar100": "the dataset's own",
    "release": "measured on the run's own training images",  # `config.normalization`
}
OPTIMIZERS = {"sgd": "", "adamw": ""}  # learning.optimizer
LR_SCHEDULES = {  # learning.schedule
    "constant": "",
    "cosine": "half a cosine, down to `final`",
    "step": "times `gamma` after every so many rounds",
    "linear": "a straight line, down to `final`",
}
AUGMENTATIONS = {  # learning.augmentation
    "none": "",
    "flip": "mirrored, half of the time",
    "crop-flip": "cropped out of an image 8/7 the size, and mirrored",
    "flip-jitter": "mirrored, and colours changed",
    "crop-flip-jitter": "all three",
    "flip-randaugment": "mirrored, and changed by two of RandAugment's operations, at magnitude 10 of 30",
    "crop-flip-randaugment": "cropped as well",
    "pad-crop-flip": "cropped out of an image with a black border of an eighth of its side, and mirrored: CIFAR's",
    "pad-crop-flip-jitter": "colours changed as well",
    "pad-crop-flip-randaugment": "changed by RandAugment as well",
}
PRECISIONS = {  # task
    "auto": "bf16 where the hardware has it; else fp16 on a GPU, fp32 on a CPU",
    "fp32": "",
    "tf32": "fp32 whose products are rounded to 10 bits, on a GPU only",
    "bf16": "",
    "fp16": "on a GPU only",
}
