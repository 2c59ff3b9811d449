"""A task: partition p of all input topics together. Pure but for what is handed in; it decides, the processor acts."""

from collections.abc import Iterable
from typing import Any

from models.codec import RecordRejected, TopicCodec, codec_for
from models.outputs import WatermarkAdvanced
from streams.engagement.accumulators import Accumulators
from streams.engagement.decisions import Decided
from streams.engagement.profile import Profile
from streams.processing.book import Book, TopicBook
from streams.processing.outputs import Decision, OutputWriter, pack_outputs, rejected_record
from streams.processing.plan import Plan
from streams.processing.ports import Commit, LogRecord, OutRecord, Run, Stored
from streams.processing.timers import Timers

WITHOUT_PROFILE = frozenset(("audience_counted",))
"""Event types keyed by something that is no customer: they make no profile, score or counter."""


class HandlerFailed(Exception):
    """Applying a well-formed record raised: a bug of ours; the record is rejected on the next try."""

    def __init__(self, topic: str, offset: int, cause: Exception) -> None:
        super().__init__(f"{topic} offset {offset}: {type(cause).__name__}")
        self.topic, self.offset = topic, offset


class FingerprintMismatch(Exception):
    """The record at the stored position is not the one that was applied."""


class Read:
    """A run after decoding: each record with its event, control record or rejection, and what it needs in memory."""

    __slots__ = ("customers", "items", "run", "watermark_ms")

    def __init__(self, run: Run, items: list[tuple[Any, Any]], customers: set[str], watermark_ms: int) -> None:
        self.run, self.items, self.customers, self.watermark_ms = run, items, customers, watermark_ms


class Cut:
    """One commit as decided: what to write, what to publish before (rejected) and after, the offsets to commit last."""

    __slots__ = ("commit", "offsets", "outputs", "rejected")

    def __init__(
        self,
        commit: Commit,
        *,
        offsets: dict[str, int],
        outputs: list[OutRecord],
        rejected: list[OutRecord],
    ) -> None:
        self.commit, self.offsets, self.outputs, self.rejected = commit, offsets, outputs, rejected


class Task:
    """Owns the profiles, timers, watermarks and accumulators of one partition number.

    ver: what this worker last wrote, the base of the next commit; writing: the ver of a commit not yet answered;
    committed: K, the group's offsets as read by the claim: decisions below the cart's are not published, rejected
    records below their own topic's neither.
    """

    def __init__(
        self,
        plan: Plan,
        partition: int,
        *,
        ver: str,
        stored: Stored,
        book: Book,
        committed: dict[str, int],
        rejects: Iterable[tuple[str, int]] = (),
    ) -> None:
        self.plan, self.partition, self.claim, self.ver = plan, partition, ver, ver
        self.writing: str | None = None
        self.book = book
        self.committed = committed
        self.rejects = frozenset(rejects)
        self.profiles: dict[str, Profile] = {}
        self.timers = Timers(stored.timers, complete=stored.timers_complete)
        self.sessions = Timers(stored.sessions, complete=stored.sessions_complete)
        self.accumulators = Accumulators.load(stored.accumulators)
        self.writer = OutputWriter(plan, partition)
        self.codecs: dict[str, TopicCodec] = {name: codec_for(suffix) for name, suffix in plan.inputs.items()}
        self.expected: dict[str, tuple[int, int]] = {}
        """Fingerprint to be met by the first record of a topic: (offset, timestamp)."""
        self.dirty: dict[str, Profile] = {}
        self.scored: dict[str, None] = {}
        self.decisions: list[Decision] = []
        self.rejected: list[OutRecord] = []
        self.pending_bytes = 0
        self.in_flight: Cut | None = None
        self.published_watermarks: dict[str, int] | None = None
        """By channel, those of the last publication of metrics; None: not known yet."""
        self.moved = False

    # ------------------------------------------------------------------ read and load

    def read(self, run: Run) -> Read:
        """Decode a run; no state changes."""
        codec_read, book = self.codecs[run.topic].read, self.book.topics[run.topic]
        lateness, watermark, position = self.plan.lateness_ms, book.watermark_ms, book.position
        expected = self.expected.get(run.topic)
        items: list[tuple[Any, Any]] = []
        customers: set[str] = set()
        for record in run.records:
            if record.offset < position:
                if expected is not None and record.offset == expected[0]:
                    if record.timestamp != expected[1]:
                        raise FingerprintMismatch(f"{run.topic}[{run.partition}] offset {record.offset}")
                    expected = None
                    del self.expected[run.topic]
                continue
            try:
                event = codec_read(record.key, record.value, record.timestamp, record.headers)
            except RecordRejected as rejection:
                items.append((record, rejection))
                continue
            items.append((record, event))
            if isinstance(event, WatermarkAdvanced):
                moved = min(event.watermark_ms, record.timestamp - lateness)
            else:
                moved = min(event.occurred_at_ms, record.timestamp) - lateness
                if event.type not in WITHOUT_PROFILE:
                    customers.add(event.customer_id)
            if moved > watermark:
                watermark = moved
        if expected is not None and items:
            raise FingerprintMismatch(f"{run.topic}[{run.partition}] offset {expected[0]} is not there any more")
        return Read(run, items, customers, watermark)

    def watermarks_after(self, read: Read) -> tuple[int, int]:
        """(cart, session) watermarks once the run is applied; the session's is the least of clickstream and cart."""
        plan, topics, name = self.plan, self.book.topics, read.run.topic
        cart = read.watermark_ms if name == plan.cart_topic else topics[plan.cart_topic].watermark_ms
        click = read.watermark_ms if name == plan.clickstream_topic else topics[plan.clickstream_topic].watermark_ms
        return cart, min(cart, click)

    def missing(self, read: Read) -> list[str]:
        """Customers that the run and the timers it releases need and that are not in memory."""
        cart, session = self.watermarks_after(read)
        needed = read.customers
        if read.run.topic == self.plan.cart_topic:
            needed = needed | self.timers.due(cart)
        needed = needed | self.sessions.due(session)
        profiles = self.profiles
        return [customer for customer in needed if customer not in profiles]

    def take(self, loaded: dict[str, tuple[bytes | None, bytes | None]]) -> None:
        """Put loaded profiles into memory; memory wins."""
        for customer, (hot, cold) in loaded.items():
            if customer not in self.profiles:
                self.profiles[customer] = Profile.unpack(customer, hot, cold)

    # ------------------------------------------------------------------ apply

    def apply(self, read: Read) -> None:
        """Fold a run whose profiles are all in memory; no await between changing state and moving the position."""
        if not read.items:
            return
        name, decided = read.run.topic, Decided()
        topic, record = self.book.topics[name], read.items[0][0]
        touched: dict[str, Profile] = {}
        fold = self._fold_cart if name == self.plan.cart_topic else self._fold
        try:
            for record, event in read.items:
                if type(event) is RecordRejected:
                    self._reject(read.run, topic, record, event)
                elif type(event) is WatermarkAdvanced:
                    topic.control += 1
                    topic.advance(min(event.watermark_ms, record.timestamp - self.plan.lateness_ms))
                elif self.rejects and (name, record.offset) in self.rejects:
                    self._reject(read.run, topic, record, RecordRejected("HandlerError", "applying it failed"))
                else:
                    fold(name, topic, record, event, decided, touched)
                    continue
                if name == self.plan.cart_topic:
                    self._release_timers(topic.watermark_ms, record.offset, decided)
        except Exception as error:
            raise HandlerFailed(name, record.offset, error) from error
        topic.position = record.offset + 1
        topic.last_offset, topic.last_timestamp_ms = record.offset, record.timestamp
        self.moved = True
        for customer, profile in touched.items():
            if profile.hot_dirty:
                self.dirty[customer] = profile
                self.scored[customer] = None
                self.sessions.put(customer, profile.session_deadline())
        self._close_sessions(decided)

    def _fold(
        self, name: str, topic: TopicBook, record: LogRecord, event: Any, decided: Decided, touched: dict[str, Profile]
    ) -> None:
        """One accepted event: into its customer's profile and the metrics."""
        occurred_ms, event_type = event.occurred_at_ms, event.type
        if event_type in WITHOUT_PROFILE:
            applied = True
        else:
            customer = event.customer_id
            touched[customer] = profile = self.profiles[customer]
            applied = profile.apply(event, topic.watermark_ms, self.plan.rules, decided)
            if decided.facts or decided.steps_and_outcomes:
                self._drain(profile, record.offset, decided)
        if applied:
            topic.applied += 1
            self.accumulators.count_event(name, event_type, occurred_ms)
        else:
            topic.duplicate += 1
        timestamp_ms = record.timestamp
        moved = (min(timestamp_ms, occurred_ms)) - self.plan.lateness_ms
        if moved > topic.watermark_ms:
            topic.watermark_ms = moved

    def _fold_cart(
        self, name: str, topic: TopicBook, record: LogRecord, event: Any, decided: Decided, touched: dict[str, Profile]
    ) -> None:
        """The same of a cart event, whose reading may also release what waits."""
        self._fold(name, topic, record, event, decided, touched)
        customer = event.customer_id
        profile = self.profiles[customer]
        if profile.cold_dirty:
            self.dirty[customer] = profile
            self.timers.put(customer, profile.deadline(self.plan.rules))
        self._release_timers(topic.watermark_ms, record.offset, decided)

    def _reject(self, run: Run, topic: TopicBook, record: LogRecord, rejection: RecordRejected) -> None:
        topic.rejected += 1
        if record.offset >= self.committed.get(run.topic, 0):
            self.rejected.append(rejected_record(self.plan, run.topic, run.partition, record, rejection))
            self.pending_bytes += len(record.value or b"") + 512

    def _release_timers(self, watermark_ms: int, at: int, decided: Decided) -> None:
        """Fire what the cart watermark has passed: due steps, expiries, waiting events."""
        while (customer := self.timers.pop(watermark_ms)) is not None:
            profile = self.profiles[customer]
            profile.release(watermark_ms, self.plan.rules, decided)
            self.timers.put(customer, profile.deadline(self.plan.rules))
            self.dirty[customer] = profile
            self._drain(profile, at, decided)

    def _close_sessions(self, decided: Decided) -> None:
        topics = self.book.topics
        watermark = min(topics[self.plan.cart_topic].watermark_ms, topics[self.plan.clickstream_topic].watermark_ms)
        while (customer := self.sessions.pop(watermark)) is not None:
            profile = self.profiles[customer]
            profile.close_sessions(watermark, self.plan.rules, decided)
            self.sessions.put(customer, profile.session_deadline())
            self.dirty[customer] = profile
            self._drain(profile, 0, decided)

    def _drain(self, profile: Profile, at: int, decided: Decided) -> None:
        """Take over what was decided; publication of decisions below K is muted, facts always count."""
        for fact in decided.facts:
            self.accumulators.add_fact(fact)
        decided.facts.clear()
        if decided.steps_and_outcomes:
            if at >= self.committed.get(self.plan.cart_topic, 0):
                score = profile.score(self.plan.rules.score_model)
                self.decisions += [Decision(what, at, score) for what in decided.steps_and_outcomes]
                self.pending_bytes += 1_024 * len(decided.steps_and_outcomes)
            decided.steps_and_outcomes.clear()

    # ------------------------------------------------------------------ cut and confirm

    @property
    def full(self) -> bool:
        """Whether a commit is due before its time."""
        return len(self.dirty) >= self.plan.dirty_customers_max or self.pending_bytes >= self.plan.pending_bytes_max

    def cut(self, new: str, now_ms: int) -> Cut | None:
        """Encode everything since the last cut; None where nothing was read. Applying may go on afterwards."""
        if not self.moved:
            return None
        hot, cold = {}, {}
        for customer, profile in self.dirty.items():
            if profile.hot_dirty:
                hot[customer] = profile.pack_hot()
            if profile.cold_dirty:
                cold[customer] = profile.pack_cold()
        self._expire_accumulators()
        outputs = self.writer.decided(self.decisions, now_ms)
        scores = self._scores(now_ms)
        commit = Commit(
            partition=self.partition,
            base=self.ver,
            new=new,
            meta=self.book.pack(),
            hot=hot,
            cold=cold,
            timers=self.timers.cut(),
            sessions=self.sessions.cut(),
            outputs=pack_outputs(outputs, [str(record.key, "utf-8") for record in scores if record.key]),
            accumulators=self.accumulators.changed(),
            now_ms=now_ms,
        )
        offsets = {name: max(self.committed.get(name, 0), position) for name, position in self.book.positions().items()}
        cut = Cut(commit, offsets=offsets, outputs=outputs + scores, rejected=self.rejected)
        self.dirty, self.scored, self.decisions, self.rejected = {}, {}, [], []
        self.pending_bytes, self.moved, self.in_flight, self.writing = 0, False, cut, new
        return cut

    def watermarks(self) -> dict[str, int]:
        """The watermark of each channel; -1: none yet."""
        return self.book.watermarks(self.plan.inputs)

    def _expire_accumulators(self) -> None:
        """Drop the buckets that neither this task nor the publication of metrics needs any more."""
        published = self.published_watermarks
        if published is not None:
            own = self.watermarks().items()
            self.accumulators.expire({channel: min(at, published.get(channel, -1)) for channel, at in own})

    def _scores(self, now_ms: int) -> list[OutRecord]:
        """Score records of the customers whose score moved enough to tell."""
        plan, records = self.plan, []
        for customer in self.scored:
            profile = self.profiles[customer]
            whole = profile.score(plan.rules.score_model)
            score = whole.hundredths
            before = profile.published_score
            if (
                before is None
                or abs(score - before) >= plan.score_min_delta_hundredths
                or profile.as_of_ms - profile.published_as_of_ms >= plan.score_max_age_ms
                or profile.order_since_published
            ):
                records.append(self.writer.score(profile, now_ms, whole))
                profile.published_score, profile.published_as_of_ms = score, profile.as_of_ms
                profile.order_since_published = False
        return records

    def written(self, cut: Cut) -> None:
        """The store holds the cut."""
        self.ver, self.writing = cut.commit.new, None

    def confirmed(self, cut: Cut) -> None:
        """Outputs and offsets of the cut are acknowledged: its customers may leave memory."""
        self.in_flight = None
        self.committed = dict(cut.offsets)
        self.timers.confirmed(dict(cut.commit.timers))
        self.sessions.confirmed(dict(cut.commit.sessions))
        self._evict()

    def _evict(self) -> None:
        """Let the oldest clean profiles leave memory beyond the limit."""
        beyond = len(self.profiles) - self.plan.profiles_max
        if beyond <= 0:
            return
        clean = (customer for customer in self.profiles if customer not in self.dirty)
        for customer in [customer for customer, _ in zip(clean, range(beyond), strict=False)]:
            del self.profiles[customer]

    def vers(self) -> tuple[str, ...]:
        """The vers a load may find: the one written last, or the one being written."""
        return (self.ver,) if self.writing is None else (self.ver, self.writing)
