"""What the server expects in each kind of reply, known before a message goes out: `server_app.replies` admits nothing
else.

Every handler of the ClientApp has its entry here, and a query of a method in that method's server half.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from config.errors import ConfigError
from config.run_config import RunConfig
from data.layout.key_files import MAX_CLASSES
from data.text import LONGEST, one_line, shown
from learning.method import Method
from learning.schema import Field, Floats, Number, Numbers, Schema, Text, Texts
from learning.server_half import ServerHalf, Told
from messages import keys
from methods.scores import reported_counts
from server_app.members import Member

MOST_IMAGES = 2**53  # integers up to here are exact as float64
SECONDS = Number(0, 1e9)
FLAG = Number(0, 1, whole=True)
SHARE = Number(0, 1)
LOSS = Number(low=0)

Records = Mapping[str, Schema]
"""By record name, the rules for the values in it; records of arrays are not among them."""
Beside = Mapping[str, Floats]
"""The rules for the arrays of a method that travel beside the weights, by name; empty if there are none."""


def in_roll_call() -> Records:
    """A node's answer to the roll call, whatever classes it has: `server_app.roll_call_answers` compares them."""
    images = Number(1, MOST_IMAGES, whole=True)
    return {
        keys.FACTS: {
            keys.PARTITION_ID: Number(-1, 2**31, whole=True),
            keys.NUM_PARTITIONS: Number(1, 2**31, whole=True),
            keys.NUM_EXAMPLES: images,
            keys.BAD_IMAGES: Number(0, MOST_IMAGES, whole=True),
            keys.EVAL_EXAMPLES: Number(0, MOST_IMAGES, whole=True),
            keys.OWN_EXAMPLES: Number(0, MOST_IMAGES, whole=True, needed=False),
            keys.LABEL_HISTOGRAM: Numbers(Number(0, MOST_IMAGES, whole=True), MAX_CLASSES, least=1),
        },
        keys.ABOUT: {
            keys.CLASS_NAMES: Texts(most=MAX_CLASSES),
            keys.COMPUTE: Text(),
            keys.DATA: Text(),
            keys.FINGERPRINT: Text(),
            keys.DEAL: Text(),
            keys.FIRST_BAD: Text(longest=keys.LONGEST_SENTENCE + LONGEST),
            keys.FROZEN: Text(),
            keys.MACHINE: Text(),
            keys.CPUS: Number(0, 1e6, needed=False),
            keys.GPUS: Number(0, 1e6, needed=False),
        },
    }


@dataclass(frozen=True)
class Expected:
    """The replies of one run's members.

    Attributes:
        config: The run's.
        method: The run's.
        classes: C.
        half: The method's server half.
        width: d, the model's number of features.
    """

    config: RunConfig
    method: Method
    classes: int
    half: ServerHalf = field(default_factory=ServerHalf)
    width: int = 0

    def in_training(self, member: Member, told: Mapping[str, Told]) -> Records:
        """A reply to a train message, in which the method told the client `told`; the model comes besides."""
        # q-FedAvg raises losses to a power; everything else takes what a method computes.
        loss = Number(low=0) if self.config.strategy == "qfedavg" else Number()
        images = Number(1, member.num_examples, whole=True)
        passes = self.config.local_epochs * self.method.passes + self.method.passes_alone
        most_seen = member.num_examples * passes
        schema: dict[str, Field] = {
            keys.NUM_EXAMPLES: images,
            keys.TRAIN_LOSS: loss,
            keys.EPOCH_LOSSES: Numbers(loss, self.config.local_epochs),
            keys.IMAGES_SEEN: Number(0, most_seen, whole=True),
            keys.TRAIN_SECONDS: SECONDS,
            keys.VISIT_SECONDS: SECONDS,
            **reported_counts(self.method, member.num_examples),
            **self._of_models(member),
        }
        if self.method.remembers or self.config.batchnorm == "local" or self.config.inspection != "none":
            schema[keys.STATE_LOST] = FLAG
        if self.config.privacy.startswith("client-"):
            schema[keys.NORM_BIT] = FLAG
        reported = self._announced("reports", told, self.classes)
        if taken := next((name for name in reported if name in schema), None):
            raise ConfigError(
                f"run config: 'method' is {self.config.method!r}, whose reports announces {taken!r}, which every reply"
                " has anyway; it must have another name."
            )
        return {keys.METRICS: {**schema, **reported}}

    def _of_models(self, member: Member) -> Schema:
        """What a client says of the received model and of the trained one, see `client_app.visit_report`."""
        config = self.config
        schema: dict[str, Field] = {}
        if config.inspection != "none":
            schema |= {keys.LOSS_BEFORE: LOSS, keys.AGREEMENT_BEFORE: SHARE, keys.CHANGED: replace(SHARE, needed=False)}
        if config.inspection == "both":
            schema |= {keys.LOSS_AFTER: LOSS, keys.AGREEMENT_AFTER: SHARE}
        if config.holdout_fraction:
            schema[keys.OWN_EXAMPLES] = Number(member.held_out, member.held_out, whole=True)
        if config.holdout_fraction and member.held_out:  # 0: it can read none of them
            schema |= {
                keys.OWN_LOSS_BEFORE: LOSS,
                keys.OWN_LOSS_AFTER: LOSS,
                keys.OWN_ACCURACY_BEFORE: SHARE,
                keys.OWN_ACCURACY_AFTER: SHARE,
            }
        return schema

    def beside(self, told: Mapping[str, Told]) -> Beside:
        """The arrays beside the weights in a reply to a train message, in which the method told the client `told`."""
        rules = self._announced("sends", told, self.classes, self.width)
        if wrong := next((name for name, rule in rules.items() if not isinstance(rule, Floats)), None):
            raise ConfigError(
                f"run config: 'method' is {self.config.method!r}, whose sends announces {wrong!r} as"
                f" {shown(rules[wrong])}; it must be a learning.schema.Floats."
            )
        return rules

    def _announced(self, hook: str, *arguments: Any) -> Mapping[str, Any]:
        """What `Method.reports` or `Method.sends` returns.

        Raises:
            ConfigError: It fails, before any client has trained.
        """
        try:
            return dict(getattr(self.method, hook)(*arguments))
        except Exception as error:  # a class of the user's may raise anything
            raise ConfigError(
                f"run config: 'method' is {self.config.method!r}, whose {hook} raised"
                f" {one_line(f'{type(error).__name__}: {error}')}."
            ) from error

    def in_evaluation(self, member: Member) -> Records:
        """A reply to an evaluate message."""
        images = Number(member.eval_examples, member.eval_examples, whole=True)
        schema: Schema = {keys.NUM_EXAMPLES: images, keys.EVAL_LOSS: LOSS, keys.EVAL_ACCURACY: SHARE}
        return {keys.METRICS: schema}

    def in_query(self, action: str, member: Member) -> Records:
        """An answer to what the method's server half asks."""
        answers = self.half.answers(self.classes, member.num_examples)
        if action not in answers:
            raise ConfigError(
                f"run config: 'method' is {self.config.method!r}, whose server half asks for {shown(action)}, which its"
                " answers does not describe."
            )
        return {keys.METRICS: answers[action]}


def shared_metrics(replies: Iterable[Records]) -> frozenset[str]:
    """The metrics that each of a round's replies must hold, whatever else a method reports of single clients."""
    needed = [{name for name, rule in one[keys.METRICS].items() if rule.needed} for one in replies]
    return frozenset(set.intersection(*needed)) if needed else frozenset()
