"""Real signals, which this process sends to itself."""

import os
import signal

import pytest

from training.errors import Stopped, reporting_errors
from training.run.stopping import StopRequest


@pytest.fixture
def interrupts():
    """Signals that reach the previous handlers, which are restored afterwards."""
    came = []
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in former:
        signal.signal(number, lambda number, _: came.append(number))
    yield came
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_run_immediately(interrupts, number, capfd):
    with StopRequest() as stop:
        os.kill(os.getpid(), number)
        assert (stop.requested, interrupts) == (number, [])
        assert f"{number.name}: finishing the current step; a second signal stops immediately" in capfd.readouterr().err
        os.kill(os.getpid(), number)
        assert interrupts == [number]


def test_signals_are_recorded_only_while_the_context_is_open(interrupts):
    with StopRequest() as stop:
        stop.check("nowhere")
    os.kill(os.getpid(), signal.SIGTERM)
    assert (stop.requested, interrupts) == (None, [signal.SIGTERM])


def test_a_signal_that_was_ignored_stays_ignored(interrupts):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    assert stop.requested is None


def test_the_exit_status_is_128_plus_the_number_of_the_signal(interrupts, capsys):
    @reporting_errors
    def verb():
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            stop.check("after step 3")
        return 0

    assert verb() == 128 + 15
    assert capsys.readouterr().err == "stopped by SIGTERM after step 3\n"


def test_items_are_yielded_until_a_stop_is_requested():
    stop = StopRequest()
    items = stop.watch(range(10), "here")
    assert [next(items), next(items)] == [0, 1]
    stop.requested = signal.SIGINT
    with pytest.raises(Stopped, match="stopped by SIGINT here") as caught:
        next(items)
    assert caught.value.exit_code == 130
