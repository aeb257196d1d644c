import subprocess
import sys

import pytest

SAY = """
import os
from titans_eqx.terminal.last_words import LastWords
words = LastWords()
words.say("not this one")
words.say("error: a 'killed' \\\\ process")
"""
ENDS = {
    "aborted": ("os.abort()", "error: a 'killed' \\ process\n"),
    "killed": ("os.kill(os.getpid(), 9)", "error: a 'killed' \\ process\n"),
    "in order": ("words.close()", ""),
    "after an empty line": ("words.say(''); os.abort()", ""),
}


@pytest.mark.parametrize("end", ENDS)
def test_the_last_line_is_printed_if_the_process_ends_without_a_word(end):
    code, printed = ENDS[end]
    done = subprocess.run(
        [sys.executable, "-c", SAY + code], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("", printed)
    assert (done.returncode == 0) == (end == "in order")
