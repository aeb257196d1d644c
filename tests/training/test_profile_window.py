import pytest

from tests.refusal import assert_refused
from titans_eqx.training.profile_window import ProfileWindow


def test_a_window_is_a_first_step_and_a_count():
    assert ProfileWindow.parse("10:3") == ProfileWindow(10, 3)


@pytest.mark.parametrize("text", ["", "10", "0:3", "3:0", "-1:2", "1:2:3", "a:b"])
def test_other_texts_are_refused(text):
    assert_refused(ProfileWindow.parse, text, message="--profile must be FIRST:COUNT")


def test_a_window_without_a_step_is_refused():
    window = ProfileWindow(5, 2)
    window.require(4, 5)
    message = "begins at step 5; steps 6 to 9 are left"
    assert_refused(window.require, 5, 9, message=message)
    assert_refused(window.require, 0, 4, message="steps 1 to 4 are left")
    assert_refused(window.require, 4, 4, message="the run has all its 4 steps. Raise")
