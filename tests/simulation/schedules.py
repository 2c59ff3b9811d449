"""The shortest schedules that once went wrong: in a prototype, in the model of the protocol, or on paper.

Each is clean as the processor is, and goes wrong without the guard it is named for (see test_regressions).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Labels for the driver; A's clock is a second ahead, so that no guard may trust a worker's clock."""

    name: str
    story: str
    text: str
    ordered: bool = True
    """Whether the worker waits for its own offset commits; False: they may overtake, as the protocol alone allows."""

    @property
    def labels(self) -> list[str]:
        """The single labels, with `5*tick` written out and `A.commit` for all the steps of one."""
        found = []
        for word in self.text.split():
            times, star, label = word.partition("*")
            for one in [label] * int(times) if star else [word]:
                name, dot, step = one.partition(".")
                steps = ("cut", "rej", "exec", "pub", "koff") if step == "commit" else (step,)
                found += [f"{name}.{each}" for each in steps] if dot else [one]
        return found


SCHEDULES = [
    Schedule(
        "a zombie commits into the branch a failover left",
        "B's commit is lost, A's is written in its place and decides more than K covers; only `at` tells that its "
        "decision was never published, as a counter of commits is the same on both branches",
        "send:product_added,c0,0,1 6*tick send:product_added,c1,6,2 3*tick send:product_added,c1,9,3 A.claimR A.claimK "
        "A.cart A.cart A.cut A.rej reb:B B.claimR B.claimK B.cart B.cut B.rej B.cart B.exec fail:1 A.exec B.pub B.koff",
    ),
    Schedule(
        "an offset commit arrives after the next claim",
        "the commit it belongs to is lost in a failover, so K runs ahead of the state while the task replays",
        "A.claimR A.claimK send:product_added,c0,0,1 A.cart A.commit net:0 send:product_added,c1,0,2 A.cart A.commit "
        "fail:2 send:page_viewed,c2,0,3 A.click A.claimR A.claimK net:0 A.cart 6*tick send:product_added,c1,6,4 "
        "A.cart A.cut A.rej A.exec A.crash",
        ordered=False,
    ),
    Schedule(
        "a zombie loads a profile from its successor's branch",
        "after the failover its own commit is valid again, and would count B's event twice",
        "A.claimR A.claimK reb:B B.claimR B.claimK send:page_viewed,c0,0,1 B.click B.cut B.rej B.exec A.click A.cut "
        "A.rej fail:1 A.exec",
    ),
    Schedule(
        "a punctuation less than the lateness behind the clock",
        "an event that comes in time would be late",
        "A.claimR A.claimK 5*tick send:product_added,c0,4,1 A.cart tick A.punct net:0 send:product_added,c0,4,2",
    ),
    Schedule(
        "a punctuation of a worker whose clock is ahead",
        "an event that comes in time would be late",
        "2*tick send:product_added,c0,2,1 2*tick A.claimR A.claimK A.cart A.punct net:0 send:product_added,c1,2,2",
    ),
    Schedule(
        "a late order between two touches",
        "what it leaves is the same cart: its steps have fired and do not fire again",
        "send:product_added,c0,0,1 2*tick send:product_added,c0,2,2 8*tick A.claimR A.claimK A.cart A.cart A.punct "
        "net:0 A.cart send:order_completed,c0,1,3",
    ),
    Schedule(
        "a failover under an idle task",
        "nobody would write, so nobody would notice that the state went back",
        "A.claimR A.claimK send:page_viewed,c0,0,1 A.click A.commit net:0 fail:1",
    ),
    Schedule(
        "a failover between two commits",
        "the second would be written on top of a state that lacks the first",
        "A.claimR A.claimK send:page_viewed,c0,0,1 A.click A.commit net:0 send:page_viewed,c1,0,2 A.click fail:1 "
        "A.commit",
    ),
    Schedule(
        "a crash before anything of two commits was published",
        "`o` holds one commit, so the second must wait until the first is out",
        "A.claimR A.claimK send:product_added,c0,0,1 A.cart 6*tick send:product_added,c1,6,2 A.cart A.cut A.rej A.exec "
        "send:page_viewed,c0,6,3 A.click A.cut A.rej A.exec A.crash",
    ),
    Schedule(
        "silent time that is not in the log",
        "an order that comes before the replay un-decides what silence had decided",
        "A.claimR A.claimK send:product_added,c0,0,1 A.cart A.commit net:0 7*tick A.punct A.commit "
        "send:order_completed,c0,2,2 fail:2",
    ),
    Schedule(
        "an event read between cut and offset commit",
        "K would cover it, though no commit does; after the loss of all state its decision would be muted",
        "A.claimR A.claimK send:product_added,c0,0,1 A.cart 6*tick A.cut A.rej A.exec send:product_added,c1,6,2 A.cart "
        "A.pub A.koff net:0 A.crash wipe",
    ),
    Schedule(
        "a crash between EXEC and the rejected records",
        "`o` does not hold them, so they must be out before",
        "A.claimR A.claimK rubbish:clickstream A.click A.cut A.rej A.exec A.crash",
    ),
    # Beyond the model's twelve.
    Schedule(
        "an event that waits for the watermark when its worker dies",
        "the successor has only the stored timer to know of it",
        "A.claimR A.claimK send:product_added,c0,0,1 A.cart A.commit net:0 A.crash 9*tick send:product_added,c1,9,2",
    ),
    Schedule(
        "a replay below K of one topic while another goes on",
        "K must not go back where the replay has not come as far yet",
        "A.claimR A.claimK send:page_viewed,c0,0,1 A.click A.commit net:0 fail:1 A.hb send:cart_viewed,c1,0,2 A.claimR "
        "A.claimK A.cart A.commit net:0",
    ),
    Schedule(
        "a replay of a published decision",
        "it is decided again in state, and not published again",
        "A.claimR A.claimK send:product_added,c0,0,1 A.cart 6*tick send:product_added,c1,6,2 A.cart A.commit net:0 "
        "fail:1 A.hb A.claimR A.claimK A.cart A.cart A.commit net:0",
    ),
    Schedule(
        "a crash after the cut of a decision",
        "a decision that is out before it is stored is published again with another time and score",
        "A.claimR A.claimK send:product_added,c0,0,1 A.cart 6*tick send:product_added,c1,6,2 A.cart A.cut A.rej A.pub "
        "A.crash 2*tick",
    ),
    Schedule(
        "a zombie that wakes up after it lost its task",
        "it must not claim: it and the owner would fence each other for ever",
        "A.claimR A.claimK reb:B B.claimR B.claimK send:page_viewed,c0,0,1 B.click B.commit net:0 A.click A.claimR "
        "A.claimK",
    ),
]
BY_NAME = {schedule.name: schedule for schedule in SCHEDULES}
