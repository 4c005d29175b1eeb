from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from service.api import conduct as module
from service.api.conduct import ALLOWANCE, MOST_HOLD_S, Address, Addresses, Conduct, Holds


def refused_at_once(times: int) -> Conduct:
    """A client that has ignored Retry-After so often."""
    conduct = Conduct()
    for _ in range(times):
        conduct.refuse(1.0)
        conduct.ask(time.monotonic())
    return conduct


def test_the_first_refusal_is_not_held_back() -> None:
    conduct = Conduct()
    conduct.ask(time.monotonic())
    assert conduct.hold_s == 0


def test_each_request_that_comes_too_early_makes_the_next_refusal_later() -> None:
    holds = [refused_at_once(times).hold_s for times in range(30)]
    assert holds == sorted(holds)
    assert holds[:2] == [0, module.FIRST_HOLD_S]
    assert holds[-1] == MOST_HOLD_S


@pytest.mark.parametrize("retry_after_s", [0.02, 1.0, 2.5, None])
def test_a_client_that_waits_for_as_long_as_the_header_says_is_never_held_back(retry_after_s: float | None) -> None:
    conduct = Conduct()
    for _ in range(5):
        conduct.refuse(retry_after_s)
        header_s = max(1, -(-(retry_after_s or 0) // 1))
        conduct.ask(time.monotonic() + header_s)
        assert conduct.hold_s == 0


def test_waiting_makes_up_for_not_waiting() -> None:
    conduct = refused_at_once(4)
    holds = []
    for _ in range(4):
        conduct.refuse(1.0)
        conduct.ask(time.monotonic() + 1.0)
        holds.append(conduct.hold_s)
    assert holds == sorted(holds, reverse=True)
    assert holds[-1] == 0


def refused_on_new_connections(address: Address, times: int) -> list[float]:
    """How long each refusal is held back."""
    held = []
    for _ in range(times):
        conduct = Conduct(address)
        conduct.ask(time.monotonic())
        held.append(conduct.hold_s)
        conduct.refuse(1.0)
    return held


def test_new_connections_do_not_help_beyond_an_allowance() -> None:
    address = Address()
    held = refused_on_new_connections(address, 3 * ALLOWANCE)
    assert not any(held[:ALLOWANCE])
    assert all(held[2 * ALLOWANCE :])
    address.at -= 60.0
    assert not any(refused_on_new_connections(address, ALLOWANCE))


def test_a_connection_that_waits_is_never_held_back_whatever_others_of_its_address_do() -> None:
    conduct = Conduct(Address())
    conduct.ask(time.monotonic())
    conduct.refuse(1.0)
    refused_on_new_connections(conduct.address, 2 * ALLOWANCE)
    conduct.ask(time.monotonic() + 1.0)
    assert conduct.hold_s == 0


def test_what_a_client_does_through_a_proxy_is_not_held_against_others_on_its_connection() -> None:
    conduct, rude, polite = Conduct(), Address(), Address()
    for _ in range(3 * ALLOWANCE):
        conduct.start_anew(rude)
        conduct.ask(time.monotonic())
        held = conduct.hold_s
        conduct.refuse(1.0)
    assert held > 0
    conduct.start_anew(polite)
    conduct.ask(time.monotonic())
    assert conduct.hold_s == 0


def test_a_network_of_ipv6_is_one_address_and_their_number_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = Addresses()
    assert addresses.get("2001:db8::1") is addresses.get("2001:db8::2:0:0:1")
    assert addresses.get("fe80::1%eth0") is addresses.get("fe80::2")
    assert addresses.get("::ffff:10.0.0.1") is addresses.get("10.0.0.1") is not addresses.get("10.0.0.2")
    monkeypatch.setattr(module, "MOST_ADDRESSES", 4)
    first = addresses.get("10.0.0.1")
    for number in range(10):
        addresses.get(f"10.0.1.{number}")
    assert len(addresses._known) == 4
    assert addresses.get("10.0.0.1") is not first


def test_a_request_that_was_served_is_not_too_early() -> None:
    conduct = Conduct()
    for _ in range(5):
        conduct.ask(time.monotonic())
    assert conduct.early == 0


async def sent_in_order(holds: Holds, clients: dict[str, Conduct], has_room: Callable[[], bool]) -> list[str]:
    sent: list[str] = []

    async def refuse(name: str, conduct: Conduct) -> None:
        await holds.hold(conduct, 1.0, has_room)
        sent.append(name)

    await asyncio.gather(*(refuse(name, conduct) for name, conduct in clients.items()))
    return sent


def test_who_was_early_more_often_is_refused_later(run: Callable[..., Any]) -> None:
    clients = {"two": refused_at_once(2), "one": refused_at_once(1), "none": Conduct()}
    assert run(sent_in_order(Holds(), clients, lambda: False)) == ["none", "one", "two"]


def test_when_there_is_room_a_refusal_is_not_held_back_any_longer(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_HOLD_S", 1e6)
    monkeypatch.setattr(module, "FIRST_HOLD_S", 1e6)
    asked = 0

    def room_from_the_third_time_on() -> bool:
        nonlocal asked
        asked += 1
        return asked > 2

    run(sent_in_order(Holds(), {"one": refused_at_once(1)}, room_from_the_third_time_on))
    assert asked == 3


def test_refusals_held_back_are_sent_one_by_one(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are due together: each turn of the clock sends one."""
    monkeypatch.setattr(module, "FIRST_HOLD_S", 1e-9)
    holds, ticks = Holds(), 0
    tick = holds._tick

    def counted() -> None:
        nonlocal ticks
        ticks += 1
        tick()

    monkeypatch.setattr(holds, "_tick", counted)
    run(sent_in_order(holds, {str(number): refused_at_once(1) for number in range(20)}, lambda: True))
    assert ticks >= 20


def test_a_client_that_leaves_is_not_waited_for(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_HOLD_S", 1e6)
    monkeypatch.setattr(module, "FIRST_HOLD_S", 1e6)
    leaving, ending = refused_at_once(1), refused_at_once(1)

    async def leave() -> None:
        holds = Holds()
        held = [asyncio.create_task(holds.hold(one, 1.0, lambda: False)) for one in (leaving, ending)]
        await asyncio.sleep(0)
        leaving.leave()
        ending.release()
        await asyncio.gather(*held)

    run(leave())
    assert (leaving.has_left, ending.has_left) == (True, False)


@pytest.mark.parametrize(("then_s", "waited"), [(0.0, False), (1.0, True)])
def test_a_refusal_is_judged_by_what_the_client_does_next(then_s: float, waited: bool) -> None:
    conduct, told = Conduct(), list[bool]()
    conduct.refuse(1.0)
    conduct.judge(told.append)
    assert told == []
    conduct.ask(time.monotonic() + then_s)
    assert told == [waited]
    conduct.leave()
    assert told == [waited]


def test_a_client_that_leaves_after_a_refusal_may_have_given_up() -> None:
    conduct, told = Conduct(), list[bool]()
    conduct.judge(told.append)
    conduct.judge(told.append)
    conduct.leave()
    assert told == [True, True]
