"""However many decisions arrive, the host stays small."""

from tamiyo.contracts import AdaptationType, Outcome, Topic
from tamiyo.host.desk import MOST_REMEMBERED, MOST_WAITING, DecisionDesk
from tamiyo.host.inbox import AT_ONCE, DecisionInbox

SCALE = AdaptationType.SCALE_LEARNING_RATE


def flood(client, decide, count):
    """A desk that is sent `count` decisions and reads them all."""
    results = []
    desk = DecisionDesk(DecisionInbox(client, "run"), results.append)
    for number in range(count):
        decision = decide(SCALE, name=f"d{number}", factor=0.5)
        client.publish_nowait(Topic.DECISIONS, decision.to_bytes())
        if number % AT_ONCE == AT_ONCE - 1:
            desk.receive(number, "confirm")
    desk.receive(count, "confirm")
    return desk, results


def test_only_so_many_decisions_wait(client, decide):
    desk, results = flood(client, decide, 3 * MOST_WAITING)
    assert len(desk.waiting) == MOST_WAITING
    assert [result.outcome for result in results] == [Outcome.REFUSED] * 2 * MOST_WAITING
    assert "too many" in results[0].reason


def test_only_the_latest_answers_are_remembered(client, decide):
    count = MOST_REMEMBERED + 2 * MOST_WAITING
    desk, results = flood(client, decide, count)
    assert len(results) == count - MOST_WAITING
    assert len(desk.history) == MOST_REMEMBERED
    assert next(reversed(desk.history)) == f"d{count - 1}"


def test_mail_is_seen_without_reading_it(client, decide):
    desk = DecisionDesk(DecisionInbox(client, "run"), lambda result: None)
    assert not desk.has_mail
    client.publish_nowait(Topic.DECISIONS, decide(SCALE, factor=0.5).to_bytes())
    assert desk.has_mail
    desk.receive(1, "observe")
    assert not desk.has_mail
