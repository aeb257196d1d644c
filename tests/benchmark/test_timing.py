import json
from dataclasses import dataclass, field

import jax.numpy as jnp

from scripts.benchmark.case import Case, read_setting
from scripts.benchmark.isolation import Measurement
from scripts.benchmark.timing import by_turns, seconds_of


@dataclass
class Clock:
    """A clock that stands still unless it is moved."""

    now: float = 0.0
    log: list[str] = field(default_factory=list)

    def __call__(self):
        return self.now

    def work(self, name, *durations):
        """A function that takes one duration after the other."""
        left = list(durations)

        def run():
            self.log.append(name)
            self.now += left.pop(0)
            return jnp.zeros(())

        return lambda: seconds_of(run, clock=self)


def case():
    return Case(kind="train", config=read_setting([]))


def test_time_is_the_median_of_the_runs():
    clock = Clock(now=100.0)
    (runs,) = by_turns([clock.work("a", 3.0, 9.0, 1.0, 2.0, 30.0)], 5)
    measured = Measurement(
        case=case(), facts={"tokens": 600}, runs=runs, peak_mib=1.0, running_mib=1.0
    )
    assert measured.seconds == 3.0
    assert measured.tokens_per_second == 200.0


def test_programs_run_by_turns():
    clock = Clock()
    ours, theirs = clock.work("ours", 1.0, 2.0), clock.work("theirs", 10.0, 20.0)
    assert by_turns([ours, theirs], 2) == [(1.0, 2.0), (10.0, 20.0)]
    assert clock.log == ["ours", "theirs", "ours", "theirs"]


def test_a_case_survives_the_way_to_its_process():
    config = read_setting(['model.pattern=["transformer", "mac"]', "model.d_model=32"])
    sent = Case(kind="decode", config=config, n_drawn=7)
    message = json.dumps({"case": sent.model_dump(mode="json")})
    text = json.dumps(json.loads(message)["case"])
    assert Case.model_validate_json(text) == sent


def test_setting_is_the_one_of_the_comparison():
    model = read_setting([]).model
    assert (model.pattern, model.d_model, model.n_layers) == ("mac", 256, 4)
    memory, attention = model.memory, model.attention
    assert (memory.n_heads, memory.depth, memory.expansion) == (4, 2, 4)
    assert (memory.chunk_len, attention.segment_len, attention.window) == (64, 64, 64)
    assert attention.n_persistent == 4
