"""Names and codes that both ends of a message must agree on: changing a value breaks nodes that run older code.

"Flower's" marks names that Flower's own strategies and simulation use; the others are this app's.
"""

REFUSED = 1001  # error code of a reply if a retry would change nothing; Flower's own codes are below 1000
DAMAGED = 1002  # the same, because of an image that cannot be read, and `bad-images` is `refuse`

# Records of a message.
ARRAYS = "arrays"  # Flower's: the model, both ways
CONFIG = "config"  # Flower's: the run config, with the keys of a train message below
METRICS = "metrics"  # Flower's: what a client reports besides the model
VISIT = "visit"  # to a client that trains: which run this is, and its own last visit
METHOD = "method"  # to a client that trains: what the method's server half tells it
METHOD_ARRAYS = "method-arrays"  # both ways: arrays of the method beside the weights, always exact
CLIENT_MODEL = "client-model/"  # begins the names of records, to a client that trains, with other clients' models
FACTS = "facts"  # reply to the roll call: numbers
ABOUT = "about"  # reply to the roll call: text, and the client's share of its machine

# In `CONFIG`, beside the run config's keys.
SERVER_ROUND = "server-round"  # Flower's: from 1
PROXIMAL_MU = "proximal-mu"  # Flower's: weight of FedProx's term
CLIPPING_NORM = "clipping-norm"  # C, if the client has to clip its update
SITES = "sites"  # ids of nodes with folders of their own, as text, in partition order

# In a node's config, where its own folders may be named as well.
PRETRAINED = "pretrained"  # a file with the initial weights

# In `VISIT`.
RUN = "run"  # the run's identity, which a resumed run keeps
STATE_DIR = "state-dir"  # where clients keep their state; empty: each in its own place
LAST_ROUND = "last-round"  # round of this client's last good reply; 0: none yet

# In `METRICS` of a reply to a train message.
NUM_EXAMPLES = "num-examples"  # Flower's: images of the client, its weight in the mean; in `FACTS` too
TRAIN_LOSS = "train-loss"  # mean over the visit, in nats
EPOCH_LOSSES = "epoch-losses"  # one mean per local epoch, in nats
IMAGES_SEEN = "images-seen"  # that went through a training step
TRAIN_SECONDS = "train-seconds"  # of the training loop
VISIT_SECONDS = "visit-seconds"  # of the whole visit, decoding included
STATE_LOST = "state-lost"  # 1 if the state of `LAST_ROUND` was missing or damaged
NORM_BIT = "norm-bit"  # 1 if the update was no longer than C
# Added by the server, as the roll call has it; `NUM_EXAMPLES` may be fewer, with `weigh-by="used"`.
IMAGES = "images"  # that the client trains on
# With `inspection`: of the received model on all training images, and of the trained one.
LOSS_BEFORE, LOSS_AFTER = "loss-before", "loss-after"  # mean cross-entropy with the given labels, in nats
AGREEMENT_BEFORE, AGREEMENT_AFTER = "agreement-before", "agreement-after"  # share predicted as labelled
CHANGED = "prediction-changes"  # share predicted otherwise than at this client's visit before; absent at its first
# With `holdout-fraction`: of the received model on what the client holds out, and of the trained one.
OWN_EXAMPLES = "own-examples"
OWN_LOSS_BEFORE, OWN_LOSS_AFTER = "own-loss-before", "own-loss-after"
OWN_ACCURACY_BEFORE, OWN_ACCURACY_AFTER = "own-accuracy-before", "own-accuracy-after"
# With methods that judge images; `methods.scores` has what is right of it.
SUSPECTED = "suspected-images"  # how many
CORRECTED = "corrected-images"  # how many are believed to be of another class than labelled

# In `METRICS` of a reply to an evaluate message.
EVAL_LOSS = "eval-loss"  # in nats
EVAL_ACCURACY = "eval-accuracy"  # from 0 to 1

# In `FACTS`, beside `OWN_EXAMPLES`. Flower's simulation sets the first two in each node's config.
PARTITION_ID = "partition-id"  # Flower's: from 0; -1 for a site with a folder of its own
NUM_PARTITIONS = "num-partitions"  # Flower's
LABEL_HISTOGRAM = "label-histogram"  # images per label
BAD_IMAGES = "bad-images"  # images that cannot be read, and are not among the others
EVAL_EXAMPLES = "eval-examples"  # images that the client evaluates on; 0 if no client does

# In `ABOUT`.
CLASS_NAMES = "class-names"
COMPUTE = "compute"  # device and precision
DATA = "data"  # hash of the client's keys and labels
FINGERPRINT = "fingerprint"  # hash of the code
DEAL = "deal"  # hash of the training list and who holds which part of it; empty for a site
FIRST_BAD = "first-bad-image"  # a sentence about the first image that cannot be read; empty if all can
FROZEN = "frozen-weights"  # hash of the network's weights that do not travel; empty if all do; in `CONFIG` too
MACHINE = "machine"  # name, in a simulation on several machines; else empty
LONGEST_SENTENCE = 400  # characters of the one about an image, or of a refusal
CPUS, GPUS = "cpus", "gpus"  # the client's share, in a simulation only
