import importlib.util
import json
import resource
import struct

import jax.numpy as jnp
import numpy as np
import pytest

from tests.refusal import assert_refused
from titans_eqx.checkpoint.metrics_log import (
    MetricsLog,
    TensorBoardLog,
    read_metrics,
    require_tensorboard,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def discarded(path):
    return path.with_name("metrics.discarded.jsonl").read_text()


def test_each_line_is_on_disk_at_once(path):
    log = MetricsLog(path)
    log.write({"step": 1, "loss": 2.5})
    assert path.read_text() == '{"step": 1, "loss": 2.5}\n'


def test_array_scalars_become_numbers_and_nan_becomes_null(path):
    log = MetricsLog(path)
    log.write({"step": np.int64(3), "loss": jnp.float32(1.5)})
    log.write({"step": 4, "loss": float("nan"), "norm": np.float32("inf")})
    assert records(path) == [
        {"step": 3, "loss": 1.5},
        {"step": 4, "loss": None, "norm": None},
    ]


def test_reopening_appends(path):
    for step in (1, 2):
        log = MetricsLog(path)
        log.write({"step": step})
    log = MetricsLog(path)
    assert [record["step"] for record in records(path)] == [1, 2]


def test_resuming_moves_later_steps_aside(path):
    log = MetricsLog(path)
    for step in (10, 20, 30):
        log.write({"step": step})
        log.write({"note": f"after {step}"})
    assert log.truncate_after(20) == 2
    log.write({"step": 30, "again": True})
    assert records(path) == [
        {"step": 10},
        {"note": "after 10"},
        {"step": 20},
        {"note": "after 20"},
        {"step": 30, "again": True},
    ]
    assert discarded(path) == '{"step": 30}\n{"note": "after 30"}\n'
    assert log.truncate_after(30) == 0


def test_cut_off_last_line_is_moved_aside_on_opening(path):
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    log = MetricsLog(path)
    log.write({"step": 2})
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
    assert discarded(path) == '{"step": 2, "lo\n'


def test_lines_that_are_no_object_are_moved_aside(path):
    path.write_bytes(b'{"step": 1}\n\xff\x00\n[1]\n{"step": "x"}\n{"step": 2}\n')
    log = MetricsLog(path)
    assert log.truncate_after(5) == 3
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_records_are_read_without_a_line_cut_off(path):
    assert read_metrics(path) == []
    MetricsLog(path).write({"step": 1, "loss": 2.0})
    path.write_bytes(path.read_bytes() + b'{"step": 2, "lo')
    assert read_metrics(path) == [{"step": 1, "loss": 2.0}]


def test_tensorboard_mirror_writes_events(tmp_path):
    pytest.importorskip("tensorboardX")
    log = TensorBoardLog(tmp_path)
    log.write({"step": 3, "loss": jnp.float32(1.5), "note": "text", "bad": np.nan})
    log.close()
    (events,) = tmp_path.glob("events*")
    version, start, event = read_events(events)
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (1, start.session_log.START)
    (value,) = event.summary.value
    assert (event.step, value.tag, value.simple_value) == (3, "loss", 1.5)
    assert event.wall_time >= start.wall_time > 1e9


def test_tensorboard_shows_steps_that_were_redone_once(tmp_path):
    pytest.importorskip("tensorboardX")
    shown, has_started = [], False
    first, second, third = (tmp_path / name for name in "abc")
    logs = {
        first: (TensorBoardLog(first), (1, 2, 3)),
        second: (TensorBoardLog(second, first_step=3), (3, 4, 5)),
        third: (TensorBoardLog(third, first_step=4), (4, 5)),
    }
    for i, (folder, (log, steps)) in enumerate(logs.items()):
        for step in steps:
            log.write({"step": step, "loss": float(i)})
        log.close()
        (path,) = folder.iterdir()
        for event in read_events(path):
            # As in TensorBoard's plugin_event_accumulator.py.
            if event.session_log.status == event.session_log.START:
                if has_started:
                    shown = [(s, loss) for s, loss in shown if s < event.step]
                has_started = True
            shown += [(event.step, one.simple_value) for one in event.summary.value]
    assert shown == [(1, 0), (2, 0), (3, 1), (4, 2), (5, 2)]


def read_events(path):
    """The events of a file: each has its length, a checksum, itself and another."""
    from tensorboardX.proto import event_pb2

    content, events = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        events.append(event_pb2.Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return events


def test_tensorboard_on_a_full_disk_is_an_error_and_does_not_wait(tmp_path):
    pytest.importorskip("tensorboardX")
    log = TensorBoardLog(tmp_path)
    log.write({"step": 1, "loss": 1.5})
    (events,) = tmp_path.glob("events*")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (events.stat().st_size, hard))
        with pytest.raises(OSError, match=f"File too large: '{tmp_path}'"):
            log.write({"step": 2, "loss": 1.5})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.close()


def test_missing_tensorboard_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    extra = "pip install 'titans_eqx[tensorboard]'"
    assert_refused(require_tensorboard, message=extra)


def test_file_is_valid_json_line_by_line(path):
    log = MetricsLog(path)
    log.write({"step": 1, "sample": "line\nbreak \u2028"})
    assert [json.loads(line) for line in path.read_text().split("\n")[:-1]]
