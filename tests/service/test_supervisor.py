"""A part that fails is started again and takes nobody down."""

import asyncio

from tamiyo.service.supervisor import Supervisor


async def test_a_failing_part_is_restarted_and_the_others_go_on(caplog):
    supervisor = Supervisor()
    attempts = 0
    recovered, other = asyncio.Event(), asyncio.Event()

    async def flaky():
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise OSError("gone")
        recovered.set()
        await asyncio.Event().wait()

    async def steady():
        await recovered.wait()
        other.set()
        await asyncio.Event().wait()

    supervisor.start("flaky", flaky)
    supervisor.start("steady", steady)
    await asyncio.wait_for(other.wait(), 30)
    assert supervisor.parts["flaky"].restarts == 2
    assert supervisor.parts["flaky"].last_error == "OSError: gone"
    assert supervisor.parts["flaky"].running
    assert supervisor.parts["steady"].restarts == 0
    assert "flaky failed" in caplog.text
    await supervisor.stop()
    assert not any(part.running for part in supervisor.parts.values())


async def test_a_part_that_returns_is_finished():
    supervisor = Supervisor()
    done = asyncio.Event()

    async def once():
        done.set()

    supervisor.start("once", once)
    await done.wait()
    await supervisor.stop()
    assert supervisor.parts["once"].restarts == 0
