"""Every error Pulseline raises on purpose, in one tree.

PulselineError
├── Retriable               wait and try again; the processor does so by itself
│   ├── StoreUnavailable    Redis does not answer -> check Redis; nothing is lost
│   ├── LogUnavailable      Kafka does not answer -> check Kafka; nothing is lost
│   └── Fenced              another worker, or a failover, moved the task on -> nothing: it is claimed again
├── Fatal                   the worker stops; a person decides
│   ├── InvalidSettings     a setting is unknown, malformed or contradicts another -> correct it
│   ├── AccessDenied        Kafka or Redis does not let us in, or not do this -> credentials, certificates, ACLs
│   ├── DeploymentMismatch  the state belongs to another deployment -> its partitions and topics, or another APP_ID
│   ├── StateLost           Kafka has offsets, Redis no state -> restore Redis, or `pulseline rebuild`
│   ├── OffsetsLost         Redis has state, Kafka no offsets -> start once with PROCESSING_GUARANTEE=at_least_once
│   ├── StateGap            the log starts after the stored position -> a newer backup, or ON_GAP=continue
│   ├── LogMismatch         the log is not the one the state was made from -> check KAFKA_BOOTSTRAP and topics
│   ├── NewerSchema         the state was written by a newer version -> upgrade this worker
│   ├── TooManyFences       more than three fences in a minute -> the reasons are in the log; exit code 75
│   ├── UnsafeStore         Redis may drop state, or is too old -> maxmemory-policy noeviction, Redis >= 6.2
│   ├── TopicProblem        a topic is missing or has another partition count -> `pulseline topics apply`
│   ├── SplitTask           a task's topics went to two workers -> the same partition count for all input topics
│   └── ReadOnlyTable       a write to the customers table -> send an event instead
├── InvalidEvent            an event the SDK refuses to send (streams.producer) -> the message names the field
├── NotDelivered            events the SDK could not deliver (streams.producer) -> send those it lists again
├── StackProblem            the local stack cannot come up (streams.stack) -> the message says what is missing
├── DemoProblem             the demo cannot run or did not show what it should (streams.cli) -> its table says what
├── OfflineProblem          a command that needs a deployment to stand still refuses (streams.cli) -> as it says
└── Unknown                 no such customer or trigger (streams.cli)
"""


class PulselineError(Exception):
    """Base of every error raised on purpose."""

    exit_code = 1


class Retriable(PulselineError):
    """Waiting and trying again is right; nothing is lost meanwhile."""


class StoreUnavailable(Retriable):
    """Redis does not answer, or answers with a passing error."""


class LogUnavailable(Retriable):
    """Kafka does not answer, or answers with a passing error."""


class Fenced(Retriable):
    """The task was moved on by another worker or by a failover: forget its memory and claim it again."""


class Fatal(PulselineError):
    """The worker stops with a message; a person decides."""


class InvalidSettings(Fatal):
    """A setting is unknown, malformed, or contradicts another."""

    exit_code = 2


class AccessDenied(Fatal):
    """Kafka or Redis refuses our user, password or certificate, or we its, or an ACL forbids what we need."""

    exit_code = 2


class DeploymentMismatch(Fatal):
    """The stored state belongs to a deployment with other partitions, group, contract or topics."""


class StateLost(Fatal):
    """Kafka has committed offsets but Redis has no state for them."""


class OffsetsLost(Fatal):
    """Redis holds state but Kafka no committed offsets, so what was published last cannot be told (exactly once)."""


class StateGap(Fatal):
    """The log starts after the position up to which the state was folded."""


class LogMismatch(Fatal):
    """The record at the stored position is not the one the state was folded from."""


class NewerSchema(Fatal):
    """The state was written by a newer version."""


class TooManyFences(Fatal):
    """A task was fenced more than three times in a minute."""

    exit_code = 75


class UnsafeStore(Fatal):
    """Redis is set up so that it may drop state."""


class TopicProblem(Fatal):
    """An input topic is missing or has another number of partitions."""


class SplitTask(Fatal):
    """The topics of one task were assigned to more than one worker."""


class ReadOnlyTable(Fatal):
    """The customers table was written to from outside the commit path."""
