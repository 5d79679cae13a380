"""Ranks meet at one step or not at all, whoever is late, and whatever is left over in the store."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.distributed import HashStore

from tamiyo.host.rendezvous import INTERVAL, TRIES, Rendezvous


class Group:
    """A leader and followers, each of which can act in a thread of its own."""

    def __init__(self, size, store=None, patience=0.2, subject="model"):
        self.store = store if store is not None else HashStore()
        self.ranks = []
        for rank in range(size):
            rendezvous = Rendezvous(
                self.store, rank, size, subject=subject, patience=patience, roll_call=patience
            )
            # Each rank has a process of its own in a real run.
            Rendezvous.leave(rendezvous)
            self.ranks.append(rendezvous)
        self.leader, *self.followers = self.ranks
        for follower in self.followers:
            follower.present()

    def together(self, leader, follower):
        """What each rank's function returns, run at the same time."""
        with ThreadPoolExecutor(len(self.ranks)) as pool:
            first = pool.submit(leader, self.leader)
            others = [pool.submit(follower, rank) for rank in self.followers]
            return first.result(), [other.result() for other in others]


def call(group, step=1):
    group.leader.call(step)
    return next(s for s in range(step, step + 4 * INTERVAL) if s == group.leader._called)


@pytest.fixture(params=[2, 4])
def group(request):
    return Group(request.param)


@pytest.mark.parametrize("step", [1, INTERVAL - 1, INTERVAL, 3 * INTERVAL + 5])
def test_a_meeting_is_at_least_an_interval_ahead(step):
    group = Group(2)
    meeting = call(group, step)
    assert meeting % INTERVAL == 0
    assert INTERVAL <= meeting - step <= 2 * INTERVAL


def test_words_votes_and_verdicts_reach_everyone(group):
    meeting = call(group)
    assert not group.leader.gather(meeting - 1)
    assert not any(follower.attend(meeting - INTERVAL) for follower in group.followers)

    def lead(leader):
        assert leader.gather(meeting)
        outcomes = []
        for carried in (True, False):
            leader.say(b"word")
            outcomes.append((leader.votes(), leader.decide(carried)))
        leader.say(b"")
        return outcomes

    def follow(follower):
        assert follower.attend(meeting)
        heard = []
        while word := follower.hear():
            heard.append((word, follower.vote(b"%d" % follower.rank)))
        return heard

    led, followed = group.together(lead, follow)
    votes = [b"%d" % follower.rank for follower in group.followers]
    assert led == [(votes, True), (votes, False)]
    assert followed == [[(b"word", True), (b"word", False)]] * len(group.followers)


def test_where_one_rank_is_missing_nobody_meets():
    group = Group(3)
    meeting = call(group)
    group.followers, (_, last) = group.followers[:1], group.followers
    led, followed = group.together(
        lambda leader: leader.gather(meeting), lambda follower: follower.attend(meeting)
    )
    assert led is False
    assert followed == [False]
    assert last.attend(meeting) is False


def test_a_leader_that_comes_too_late_finds_nobody():
    group = Group(2)
    meeting = call(group)
    assert group.followers[0].attend(meeting) is False
    assert group.leader.gather(meeting) is False
    assert not group.leader.given_up


@pytest.mark.parametrize("ending", [Rendezvous.cancel, Rendezvous.leave])
def test_nobody_waits_for_a_call_that_was_taken_back(ending):
    group = Group(2, patience=1000)
    meeting = call(group)
    ending(group.leader)
    assert group.followers[0].attend(meeting) is False


def test_after_some_missed_meetings_the_leader_gives_up():
    group = Group(2)
    for number in range(TRIES):
        assert not group.leader.given_up
        assert not group.leader.gather(call(group, number * 4 * INTERVAL))
    assert group.leader.given_up


def test_a_silent_follower_is_told_apart_and_a_silent_leader_decides_nothing(group):
    meeting = call(group)

    def lead(leader):
        leader.gather(meeting)
        leader.say(b"word")
        return leader.votes()

    def follow(follower):
        follower.attend(meeting)
        word = follower.hear()
        return (word, follower.vote(b"yes"), follower.hear()) if follower.rank == 1 else word

    led, followed = group.together(lead, follow)
    assert led == [b"yes"] + [None] * (len(group.followers) - 1)
    assert followed[0] == (b"word", False, None)
    # Who waited in vain has settled it for all.
    assert group.leader.decide(carried=True) is False


def test_calls_of_an_earlier_session_are_not_followed():
    store = HashStore()
    old = Group(2, store)
    meeting = call(old)
    new = Group(2, store)
    assert new.followers[0].attend(meeting) is False


def test_two_models_do_not_meet_each_other():
    store = HashStore()
    one, other = Group(2, store, subject="one"), Group(2, store, subject="other")
    meeting = call(one)
    assert other.followers[0].attend(meeting) is False
    other.followers[0].leave()
    assert other.leader.absent == [1]
    assert one.leader.absent == []


def test_complaints_reach_the_leader(group):
    assert group.leader.complaint(INTERVAL) == ""
    group.followers[0].complain("broken")
    assert group.leader.complaint(INTERVAL + 1) == ""
    assert group.leader.complaint(2 * INTERVAL) == "rank 1: broken"
    group.followers[0].leave()
    assert group.leader.complaint(2 * INTERVAL) == ""


def test_the_store_does_not_fill_up(group):
    def lead(meeting):
        def run(leader):
            leader.gather(meeting)
            leader.say(b"")

        return run

    def follow(meeting):
        def run(follower):
            follower.attend(meeting)
            follower.hear()

        return run

    sizes = []
    for number in range(6):
        meeting = call(group, number * 4 * INTERVAL)
        group.together(lead(meeting), follow(meeting))
        sizes.append(group.store.num_keys())
    assert sizes[2:] == [sizes[2]] * 4
