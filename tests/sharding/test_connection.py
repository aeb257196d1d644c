import atexit
import socket

import jax
import pytest

from tests.refusal import assert_refused
from titans_eqx.sharding.connection import connected, require_joined

NO_OTHERS = {
    "auto": False,
    "coordinator": "",
    "num_processes": 1,
    "process_id": 0,
    "connect_timeout": 1,
    "heartbeat_timeout": 1,
}


@pytest.fixture(autouse=True)
def _nothing_is_left(monkeypatch):
    """No refusal may change how this process will end."""
    monkeypatch.setattr(atexit, "register", pytest.fail)


def connect(**changes):
    with connected(**(NO_OTHERS | changes)):
        pass


def test_one_process_joins_nothing():
    connect(coordinator="nowhere.invalid:1234")
    assert not jax.distributed.is_initialized()


def test_a_process_that_has_joined_nobody_does_not_train_for_two():
    require_joined(1)
    message = "distributed.num_processes = 2, but this is one of 1"
    assert_refused(require_joined, 2, message=message)


@pytest.mark.parametrize("host", ["nowhere.invalid", "a..b", "a" * 70])
def test_a_coordinator_that_does_not_exist_is_one_line(host):
    changes = {"num_processes": 2, "coordinator": f"{host}:1234"}
    message = f'distributed.coordinator = "{host}:1234": '
    assert_refused(lambda: connect(**changes), message=message)


def test_a_port_in_use_is_one_line():
    with socket.create_server(("", 0)) as server:
        address = f"localhost:{server.getsockname()[1]}"
        changes = {"num_processes": 2, "coordinator": address}
        message = f'distributed.coordinator = "{address}": Address already in use'
        assert_refused(lambda: connect(**changes), message=message)


def test_joining_after_a_computation_is_one_line():
    jax.devices()
    message = "cannot join the processes of the run: jax.distributed.initialize()"
    assert_refused(lambda: connect(auto=True), message=message)
