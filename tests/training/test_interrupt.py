import signal

import pytest

from titans_eqx.training.interrupt import StopRequest


@pytest.fixture(autouse=True)
def usual_handler():
    """Python's own, also where the tests run in the background, with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def handlers():
    return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_is_noted(number):
    with StopRequest() as stop:
        assert not stop.is_set
        signal.raise_signal(number)
        assert stop.is_set


def test_second_signal_stops_at_once():
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("is_signalled", [False, True])
def test_handlers_are_given_back(is_signalled):
    before = handlers()
    with StopRequest():
        assert handlers() != before
        if is_signalled:
            signal.raise_signal(signal.SIGINT)
            assert handlers() == before
    assert handlers() == before
