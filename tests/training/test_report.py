import io
import re

import jax.numpy as jnp
import pytest
from rich.console import Console

from titans_eqx.training.report import TrainingDisplay

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Ticks:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def plain_console(file=None):
    return Console(file=file or io.StringIO(), force_terminal=False, width=40)


def live_console(width=120):
    return Console(
        file=io.StringIO(),
        force_terminal=True,
        width=width,
        height=20,
        _environ={"TERM": "xterm-256color"},
    )


def raw_text_of(console):
    return console.file.getvalue()


def text_of(console):
    return ANSI.sub("", raw_text_of(console))


def run_three_events(console):
    clock = Ticks()
    with TrainingDisplay(1000, console=console, clock=clock) as display:
        display.log(10, {"loss": jnp.float32(5.12345), "bits_per_byte": 7.39})
        clock.now += 20
        display.log(20, {"loss": 4.5, "eval_bits_per_byte": 6.5})
        clock.now += 20
        display.log(30, {"loss": 4.0, "tokens_per_second": 12345.6})


def test_plain_form_is_one_line_per_event_even_if_narrow():
    console = plain_console()
    run_three_events(console)
    assert text_of(console).splitlines() == [
        "step 10/1,000  loss 5.123  bits/byte 7.390",
        "step 20/1,000  loss 4.500  held-out 6.500  32:40 left",
        "step 30/1,000  loss 4.000  held-out 6.500  32:20 left  12.3k tok/s",
    ]


def test_live_form_shows_the_same_on_one_line():
    console = live_console()
    run_three_events(console)
    last = text_of(console).split("\r")[-1]
    for part in ("step 30/1,000", "loss 4.000", "held-out 6.500", "32:20 left"):
        assert part in last
    assert raw_text_of(console).endswith("\x1b[?25h")


@pytest.mark.parametrize("width", [20, 60])
def test_live_line_is_cut_not_wrapped(width):
    console = live_console(width)
    run_three_events(console)
    assert max(map(len, re.split(r"[\r\n]+", text_of(console)))) <= width
    assert "\x1b[1A" not in raw_text_of(console)


def test_metrics_may_be_missing_or_not_finite():
    console = plain_console()
    with TrainingDisplay(5, console=console) as display:
        display.log(1, {})
        display.log(7, {"loss": float("nan"), "learning_rate": 1.0})
    assert text_of(console) == "step 1/5\nstep 7/5  loss nan  0:00 left\n"


@pytest.mark.parametrize("make_console", [plain_console, live_console])
def test_samples_cannot_steer_the_terminal(make_console):
    console = make_console()
    with TrainingDisplay(10, console=console) as display:
        display.sample(5, "def f():\n\treturn [red]1[/red]\x1b[2J\x00\r\u202e\ud800")
        display.message("saved [step] \x07")
    shown = text_of(console)
    assert "sample at step 5" in shown
    assert "    return [red]1[/red]\\x1b[2J\\x00\\r\\u202e\\ud800" in shown
    assert "saved [step] \\x07" in shown
    assert "\x1b[2J" not in raw_text_of(console)


def test_plain_sample_is_an_indented_block():
    console = plain_console()
    TrainingDisplay(10, console=console).sample(5, "one\n\ntwo")
    assert text_of(console) == "sample at step 5:\n    one\n    \n    two\n"


def test_console_without_unicode_is_served():
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = plain_console(file)
    TrainingDisplay(10, console=console).sample(5, "é€")
    assert file.buffer.getvalue() == b"sample at step 5:\n    \\xe9\\u20ac\n"


def test_time_left_forgets_slow_beginnings():
    clock = Ticks()
    console = plain_console()
    display = TrainingDisplay(100_000, console=console, clock=clock)
    for step in range(30):
        display.log(step, {})
        clock.now += 1000 if step < 5 else 1
    assert text_of(console).splitlines()[-1].endswith("27:46:11 left")
    clock.now += 60 * 60 * 24 * 40
    display.log(30, {})
    assert re.search(r"\d+ d \d+ h left$", text_of(console).splitlines()[-1])
