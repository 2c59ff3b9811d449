"""A task: partition p of all input topics together. Pure but for what is handed in; it decides, the processor acts."""

from collections.abc import Iterable, Sequence
from typing import Any

from models.codec import RecordRejected, TopicCodec, codec_for
from models.outputs import WatermarkAdvanced
from streams.engagement.accumulators import Accumulators
from streams.engagement.decisions import Decided, DueStep
from streams.engagement.metrics import MINUTE_MS
from streams.engagement.profile import Profile
from streams.processing.book import HANDLER_WINDOW_RECORDS, Book, TopicBook
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

    __slots__ = ("customers", "items", "plain", "run", "watermark_ms")

    def __init__(
        self, run: Run, items: list[tuple[Any, Any]], customers: set[str], watermark_ms: int, *, plain: bool
    ) -> None:
        self.run, self.items, self.customers, self.watermark_ms = run, items, customers, watermark_ms
        self.plain = plain
        """Whether all are events."""


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
        codec_read, lateness_ms = self.codecs[run.topic].read, self.plan.lateness_ms
        watermark_ms, plain = self.book.topics[run.topic].watermark_ms, True
        items: list[tuple[Any, Any]] = []
        customers: set[str] = set()
        event: Any
        for record in self._unread(run):
            timestamp_ms = record.timestamp
            try:
                event = codec_read(record.key, record.value, timestamp_ms, record.headers)
            except RecordRejected as rejection:
                items.append((record, rejection))
                plain = False
                continue
            items.append((record, event))
            if type(event) is WatermarkAdvanced:
                plain = False
                told_ms = event.watermark_ms
            else:
                told_ms = event.occurred_at_ms - lateness_ms
                if event.type not in WITHOUT_PROFILE:
                    customers.add(event.customer_id)
            if told_ms > watermark_ms and timestamp_ms - lateness_ms > watermark_ms:
                watermark_ms = min(told_ms, timestamp_ms - lateness_ms)
        return Read(run, items, customers, watermark_ms, plain=plain)

    def _unread(self, run: Run) -> Sequence[Any]:
        """The records that are not applied yet; the first of a claim is the last one applied, and is compared."""
        position, expected = self.book.topics[run.topic].position, self.expected.get(run.topic)
        if not run.records or (expected is None and run.records[0].offset >= position):
            return run.records
        unread = [record for record in run.records if record.offset >= position]
        if expected is not None:
            offset, timestamp_ms = expected
            where = f"{run.topic}[{run.partition}] offset {offset}"
            found = next((record for record in run.records if record.offset == offset), None)
            if found is not None:
                if found.timestamp != timestamp_ms:
                    raise FingerprintMismatch(where)
                del self.expected[run.topic]
            elif unread:
                raise FingerprintMismatch(f"{where} is not there any more")
        return unread

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
        topic, record, decided = self.book.topics[read.run.topic], read.items[-1][0], Decided()
        touched = self._fold(read, topic, decided)
        topic.position = record.offset + 1
        topic.last_offset, topic.last_timestamp_ms = record.offset, record.timestamp
        self.moved = True
        for customer, profile in touched.items():
            if profile.hot_dirty:
                self.dirty[customer] = profile
                self.scored[customer] = None
                self.sessions.put(customer, profile.session_deadline())
        self._close_sessions(decided)
        topic.limited(decided)
        self.accumulators.add_facts(decided.facts)

    def _fold(self, read: Read, topic: TopicBook, decided: Decided) -> dict[str, Profile]:
        """Fold the records of a run, one after the other; returns the profiles they concern."""
        plan, name, profiles = self.plan, read.run.topic, self.profiles
        rules, lateness_ms, of_carts = plan.rules, plan.lateness_ms, name == plan.cart_topic
        plain, passed_over = read.plain and not self.rejects, 0
        touched: dict[str, Profile] = {}
        counted: list[tuple[str, int]] = []
        record = read.items[0][0]
        try:
            for record, event in read.items:
                if not plain and self._passed_over(read.run, topic, record, event):
                    passed_over += 1
                else:
                    event_type, occurred_ms = event.type, event.occurred_at_ms
                    applied = True
                    if event_type not in WITHOUT_PROFILE:
                        customer = event.customer_id
                        touched[customer] = profile = profiles[customer]
                        applied = profile.apply(event, topic.watermark_ms, rules, decided)
                        if of_carts:
                            self._carts_changed(profile, record.offset, decided)
                    if applied:
                        counted.append((event_type, occurred_ms // MINUTE_MS))
                    seen_ms = topic.watermark_ms + lateness_ms
                    if occurred_ms > seen_ms and record.timestamp > seen_ms:
                        topic.watermark_ms = min(occurred_ms, record.timestamp) - lateness_ms
                if of_carts:
                    self._release_timers(topic.watermark_ms, record.offset, decided)
        except Exception as error:
            raise HandlerFailed(name, record.offset, error) from error
        topic.applied += len(counted)
        topic.duplicate += len(read.items) - len(counted) - passed_over
        self.accumulators.count_events(name, counted)
        return touched

    def _carts_changed(self, profile: Profile, at: int, decided: Decided) -> None:
        """Take over what a cart event decided, and when its customer's carts are due next."""
        if decided.steps_and_outcomes:
            self._decide(profile, at, decided)
        if profile.cold_dirty:
            self.dirty[profile.customer_id] = profile
            self.timers.put(profile.customer_id, profile.deadline(self.plan.rules))

    def _passed_over(self, run: Run, topic: TopicBook, record: LogRecord, event: Any) -> bool:
        """Account for a record that is no event to be folded: a rejected one or a control record."""
        if type(event) is RecordRejected:
            self._reject(run, topic, record, event)
        elif type(event) is WatermarkAdvanced:
            topic.control += 1
            topic.advance(min(event.watermark_ms, record.timestamp - self.plan.lateness_ms))
        elif (run.topic, record.offset) in self.rejects:
            topic.handler_failed(record.offset)
            self._reject(run, topic, record, RecordRejected("HandlerError", "applying it failed"))
        else:
            return False
        return True

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
            self._carts_changed(profile, at, decided)

    def _close_sessions(self, decided: Decided) -> None:
        topics = self.book.topics
        watermark = min(topics[self.plan.cart_topic].watermark_ms, topics[self.plan.clickstream_topic].watermark_ms)
        while (customer := self.sessions.pop(watermark)) is not None:
            profile = self.profiles[customer]
            profile.close_sessions(watermark, self.plan.rules, decided)
            self.sessions.put(customer, profile.session_deadline())
            self.dirty[customer] = profile

    def _decide(self, profile: Profile, at: int, decided: Decided) -> None:
        """Take over steps and outcomes; publication of those below K is muted."""
        whats, decided.steps_and_outcomes = decided.steps_and_outcomes, []
        if at >= self.committed.get(self.plan.cart_topic, 0):
            due = any(type(what) is DueStep for what in whats)
            score = profile.score(self.plan.rules.score_model) if due else None
            self.decisions += [Decision(what, at, score) for what in whats]
            lines = sum(len(what.items) for what in whats if type(what) is DueStep)
            self.pending_bytes += 1_024 * len(whats) + 400 * lines

    # ------------------------------------------------------------------ cut and confirm

    @property
    def full(self) -> bool:
        """Whether a commit is due before its time."""
        return len(self.dirty) >= self.plan.dirty_customers_max or self.pending_bytes >= self.plan.pending_bytes_max

    def cut(self, new: str, now_ms: int) -> Cut | None:
        """Encode everything since the last cut; None where nothing was read. Applying may go on afterwards."""
        if not self.moved:
            return None
        hot, cold, schema = {}, {}, self.book.schema
        self.book.commit = new
        for customer, profile in self.dirty.items():
            if profile.hot_dirty:
                hot[customer] = profile.pack_hot(schema)
            if profile.cold_dirty:
                cold[customer] = profile.pack_cold(schema)
        self._expire_accumulators()
        outputs, rejected = self.writer.decided(self.decisions, now_ms), self.rejected
        if self.plan.exactly_once:
            outputs, rejected = [*rejected, *outputs], []
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
        cut = Cut(commit, offsets=offsets, outputs=outputs + scores, rejected=rejected)
        self.dirty, self.scored, self.decisions, self.rejected = {}, {}, [], []
        self.pending_bytes, self.moved, self.in_flight, self.writing = 0, False, cut, new
        return cut

    def handler_failures(self, failure: HandlerFailed, known: Iterable[tuple[str, int]]) -> int:
        """How many of the last records of a topic failed in the handler; known: those not rejected yet among others."""
        found = {offset for topic, offset in known if topic == failure.topic} | {
            *self.book.topics[failure.topic].failed
        }
        return sum(offset > failure.offset - HANDLER_WINDOW_RECORDS for offset in found | {failure.offset})

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
        self.timers.trim(self.plan.timers_max)
        self.sessions.trim(self.plan.timers_max)
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
