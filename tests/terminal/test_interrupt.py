import os
import signal
import threading
import time

import pytest

from titans_eqx.terminal import StopRequest


@pytest.fixture(autouse=True)
def usual_handler():
    """Python's own, also where the tests run in the background, with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def ended(monkeypatch):
    """Set when the process would have ended, with its exit codes."""
    event = threading.Event()
    event.codes = []

    def end(code):
        event.codes.append(code)
        event.set()

    monkeypatch.setattr(os, "_exit", end)
    return event


def handlers():
    return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_is_noted_and_answered(number):
    answered = threading.Event()
    with StopRequest(answered.set) as stop:
        assert not stop.is_set
        signal.raise_signal(number)
        assert stop.is_set
        assert answered.wait(5)


def test_second_signal_ends_the_process(ended):
    answered = threading.Event()
    with StopRequest(answered.set):
        signal.raise_signal(signal.SIGTERM)
        assert answered.wait(5)
        signal.raise_signal(signal.SIGINT)
        assert ended.wait(5)
    assert ended.codes == [130]


def test_a_block_that_ends_in_time_needs_no_answer():
    answered = threading.Event()
    began = time.monotonic()
    with (
        pytest.raises(KeyboardInterrupt),
        StopRequest(answered.set, raises=True, patience=60.0),
    ):
        signal.raise_signal(signal.SIGINT)
    assert time.monotonic() - began < 30
    assert not answered.is_set()


@pytest.mark.parametrize("is_signalled", [False, True])
def test_handlers_are_given_back(is_signalled):
    before = handlers()
    with StopRequest(lambda: None):
        assert handlers() != before
        if is_signalled:
            signal.raise_signal(signal.SIGINT)
    assert handlers() == before
    assert signal.set_wakeup_fd(-1) == -1


def test_other_threads_are_left_alone():
    noted = []

    def work():
        with StopRequest(lambda: None) as stop:
            noted.append(stop.is_set)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert noted == [False]
