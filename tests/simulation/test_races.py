"""What may happen between two awaits of the processor: each test holds calls in a certain place and lets them go."""

from secrets import token_hex
from typing import Any

import pytest

from streams.engagement.profile import Profile
from streams.errors import LogMismatch
from streams.processing.processor import Processor
from streams.processing.task import Task
from tests.simulation.driver import Simulation
from tests.simulation.verdict import faults_of
from tests.support.world import CLICK, START_MS

START = ["A.claim", "net:0"]


def world(*held: str, **plan: Any) -> Simulation:
    """A has claimed the task; from now on these calls are held."""
    simulation = Simulation(held=frozenset(), **plan).run(START)
    simulation.held = frozenset(held)
    for worker in simulation.workers.values():
        worker.gates.held = simulation.held
    assert simulation.workers["A"].processor.claim_of(0)
    return simulation


def task_of(simulation: Simulation) -> Task:
    return simulation.workers["A"].processor.tasks[0]


def done(simulation: Simulation, text: str) -> Simulation:
    """Do labels, all of which must be possible."""
    for label in text.split():
        assert simulation.do(label.replace("_reply", " reply")), f"{label} is not possible: {simulation.workers}"
    return simulation


def failing_commit() -> Simulation:
    """A commit whose rejected records are refused for good, while the next run is read; the worker stops in order."""
    simulation = world("publish")
    done(simulation, "send:page_viewed,c0,0,1 rubbish:clickstream A.poll:clickstream,5 A.tick send:page_viewed,c1,0,2")
    return done(simulation, "A.poll:clickstream,5 A.fatal:publish")


def test_a_commit_that_fails_for_good_is_not_followed_by_another() -> None:
    """What was cut is in no memory any more: a last commit would move the positions past it."""
    assert faults_of(failing_commit()) == {}


def test_without_forgetting_the_last_commit_loses_the_failed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, if a task whose commit failed were kept."""

    async def keeping(self: Processor, task: Task) -> None:
        async with self._committing[task.partition]:
            cut = task.cut(token_hex(8), self.clock.wall_ms())
            if cut is not None:
                await self._carry_out(task, cut)

    monkeypatch.setattr(Processor, "_commit", keeping)
    simulation = failing_commit()
    simulation.do("A.go:publish")
    monkeypatch.undo()
    assert "customers differ" in faults_of(simulation)


def test_a_run_that_fails_is_not_followed_by_the_next() -> None:
    """The next run would move the position past the one that was dropped."""
    simulation = world("load")
    done(simulation, "send:product_added,c0,0,1 A.poll:cart,1 send:product_added,c0,1,2 A.poll:cart,1 A.fatal:load")
    assert not simulation.workers["A"].processor.tasks
    assert faults_of(simulation) == {}


def test_a_load_answered_after_the_next_commit_is_no_fence() -> None:
    """The load asked for the ver of the moment, and finds the one that this very worker wrote since."""
    simulation = world("load")
    done(simulation, "send:page_viewed,c0,0,1 A.poll:clickstream,1 A.go:load send:page_viewed,c1,0,2")
    claim = task_of(simulation).claim
    done(simulation, "A.poll:clickstream,1 A.tick net:0 A.go:load A.go:load")
    assert task_of(simulation).claim == claim
    assert task_of(simulation).book.topics[CLICK].applied == 2
    assert faults_of(simulation) == {}


def test_a_load_that_finds_another_workers_ver_is_a_fence_though_a_commit_came_between() -> None:
    """Asking again is for the ver of one's own commit alone."""
    simulation = world("load")
    done(simulation, "send:page_viewed,c0,0,1 A.poll:clickstream,1 A.go:load send:page_viewed,c1,0,2")
    done(simulation, "A.poll:clickstream,1 A.tick net:0 reb:B B.claim A.go:load A.go:load")
    assert simulation.workers["A"].processor.claim_of(0) is None
    assert faults_of(simulation) == {}


def test_records_committed_while_another_claims_do_not_make_the_log_another() -> None:
    """The predecessor reads and commits on until the claim is written, and gets beyond what was the log end before."""
    simulation = world("bounds reply")
    done(simulation, "reb:B B.claim send:page_viewed,c0,0,1 A.poll:clickstream,1 A.tick B.go:bounds_reply")
    done(simulation, "B.go:bounds_reply net:0 net:0")
    assert not any(isinstance(error, LogMismatch) for error in simulation.stopped)
    assert simulation.workers["B"].processor.claim_of(0)
    assert faults_of(simulation) == {}


def test_a_release_ends_in_time_while_the_store_is_away() -> None:
    """What could not be committed is replayed by the next owner."""
    simulation = world("commit")
    done(simulation, "send:page_viewed,c0,0,1 A.poll:clickstream,1 A.tick A.err:commit A.release")
    for _ in range(6):
        simulation.run(["A.err:commit", "tick"])
    assert not simulation.workers["A"].doing("release")
    assert not simulation.workers["A"].processor.tasks
    simulation.do("reb:B")
    assert faults_of(simulation) == {}


@pytest.mark.parametrize("call", ["load", "commit", "commit reply", "publish", "offsets", "ver"])
def test_stop_never_hangs(call: str) -> None:
    """Whatever call is unanswered, stopping ends at once and leaves nothing running."""
    simulation = world(call)
    simulation.run(["send:page_viewed,c0,0,1", "A.poll:clickstream,1", "A.tick"])
    assert call == "ver" or simulation.workers["A"].gates.waiting
    worker = simulation.workers["A"]
    stopping = simulation._spawn(worker, worker.processor.stop())
    simulation.loop.settle()
    assert stopping.done()
    assert not worker.processor.tasks
    simulation.run(["reb:B"])
    assert faults_of(simulation) == {}


def test_a_cancelled_release_commits_nothing_more() -> None:
    """Who cancels it takes the task away: what it had begun must not go on behind the next claim."""
    simulation = world("commit")
    done(simulation, "send:page_viewed,c0,0,1 A.poll:clickstream,1 A.release")
    simulation.workers["A"].busy["release"].cancel()
    simulation.loop.settle()
    assert not simulation.workers["A"].gates.waiting
    assert not simulation.workers["A"].processor.tasks
    simulation.do("reb:B")
    assert faults_of(simulation) == {}


def test_a_run_that_waits_for_a_commit_is_let_go_when_the_commit_fails() -> None:
    """A full task reads on once its commit is out; if that never comes, the run is dropped, not held for ever."""
    simulation = world("publish", dirty_customers_max=1)
    done(simulation, "send:page_viewed,c0,0,1 A.poll:clickstream,1 send:page_viewed,c1,0,2 A.poll:clickstream,1")
    task = task_of(simulation)
    done(simulation, "send:page_viewed,c2,0,3 A.poll:clickstream,1")
    assert simulation.workers["A"].doing(CLICK)
    assert task.book.topics[CLICK].applied < 3
    worker = simulation.workers["A"]
    done(simulation, "A.fatal:publish")
    assert not worker.doing(CLICK)
    assert faults_of(simulation) == {}


def test_two_claims_at_once_leave_one_owner() -> None:
    """A claim asked for while another runs: the later one in the store is the one that lasts."""
    simulation = world("claim")
    worker = simulation.workers["A"]
    simulation.loop.call_soon(worker.processor.forget, (0,))
    simulation.loop.settle()
    claims = [simulation._spawn(worker, simulation._claiming(worker)) for _ in range(2)]
    simulation.loop.settle()
    done(simulation, "A.go:claim A.go:claim send:page_viewed,c0,0,1")
    assert all(claim.done() for claim in claims)
    assert faults_of(simulation) == {}


def test_a_worker_that_dies_while_it_releases_leaves_a_whole_commit() -> None:
    """Either all of the last commit is stored, or none."""
    for call in ("commit", "commit reply", "publish", "offsets"):
        simulation = world(call)
        done(simulation, "send:product_added,c0,0,1 A.poll:cart,1 A.release")
        done(simulation, "A.crash reb:B")
        assert faults_of(simulation) == {}, call


def test_a_full_task_reads_nothing_more_while_the_store_is_away() -> None:
    """What memory holds is bounded also where the commit loop hangs in a comparison, with no commit in flight."""
    simulation = world("ver", pending_bytes_max=2_000)
    done(simulation, "A.tick " + 50 * "rubbish:clickstream " + 50 * "A.poll:clickstream,1 ")
    assert 0 < len(task_of(simulation).rejected) < 10
    done(simulation, "A.go:ver")
    while simulation.do("net:0"):
        pass
    assert task_of(simulation).book.topics[CLICK].rejected == 50
    assert faults_of(simulation) == {}


def test_a_handler_that_fails_for_ever_stops_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer that fails cannot be passed over by rejecting the record that releases it."""
    release = Profile.release

    def broken(self: Profile, *what: Any) -> None:
        if self.customer_id == "c0":
            raise ZeroDivisionError
        release(self, *what)

    monkeypatch.setattr(Profile, "release", broken)
    simulation = world(handler_failures_max=5)
    simulation.do("send:product_added,c0,0,1")
    for number in range(2, 16):
        simulation.run([f"send:product_added,c1,{2 * number},{number}", f"send:page_viewed,c2,{number},{100 + number}"])
        simulation.run(["tick", "tick", "A.claim", "net:0", "A.poll:clickstream,1", "A.poll:cart,3", "A.tick", "net:0"])
    assert "failed again although it is rejected" in str(simulation.stopped[:1])
    simulation.loop.shut()


def test_deadlines_that_leave_memory_while_others_are_fetched_are_not_forgotten() -> None:
    """The page was read before the commit that stored them, and says nothing of them, or what they were before."""
    simulation = world("timers reply", "commit", timers_max=2)
    first = [("product_added,c0", 1.5), ("product_added,c1", 1.8), ("product_added,c2", 2.0), ("cart_viewed,c3", 4.5)]
    for number, (what, at_s) in enumerate(first, 1):
        simulation.clock.now_ms = START_MS + round(at_s * 1_000)
        done(simulation, f"send:{what},{at_s},{number}")
    done(simulation, "A.poll:cart,9 A.tick A.go:commit net:0")
    assert task_of(simulation).timers.horizon_ms == START_MS + 4_800
    simulation.clock.now_ms = START_MS + 6_000
    done(simulation, "send:product_added,c2,3,5 send:product_added,c4,6,6 A.poll:cart,9 A.tick")
    simulation.clock.now_ms = START_MS + 7_300
    done(simulation, "send:cart_viewed,c3,7.3,7 A.poll:cart,9")
    assert [here.name for here in simulation.workers["A"].gates.waiting] == ["commit", "timers reply"]
    done(simulation, "A.go:commit net:0 A.go:timers_reply")
    while simulation.do("A.go:timers reply"):
        pass
    assert faults_of(simulation) == {}


def test_deadlines_that_leave_memory_while_sessions_are_fetched_are_fetched_again() -> None:
    """Both are paged in before a watermark; while one is on its way, a commit may make the other leave."""
    simulation = Simulation(held=frozenset({"sessions reply"}), timers_max=1, dirty_customers_max=1)
    done(simulation, "A.claim send:cart_updated,c0,-2.001,1 net:0 A.poll:cart,2 send:product_added,c1,5.009,9")
    done(simulation, "A.poll:cart,1 jump:1900 send:product_added,c0,1905.010,10 net:0 net:0 A.poll:clickstream,5")
    done(simulation, "A.poll:cart,5")
    assert [here.name for here in simulation.workers["A"].gates.waiting] == ["sessions reply"]
    done(simulation, "net:0 A.go:sessions_reply")
    simulation.do("wipe")
    assert faults_of(simulation) == {}
