import os

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.hostile import accept_or_refuse, few
from titans_eqx.data.corpus import open_corpora
from titans_eqx.data.errors import DataError
from titans_eqx.data.tokenizer import ByteTokenizer

SMALL = st.binary(max_size=40)
names = st.binary(min_size=1, max_size=8).filter(
    lambda name: not {0, ord("/")} & set(name) and name not in (b".", b"..")
)
# What globs are made of, with names that exist.
patterns = st.lists(
    st.sampled_from(["*", "**", "?", "[", "]", "!", "/", ".", "..", "a", "sub", "~"])
    | st.text(max_size=3),
    min_size=1,
    max_size=6,
).map("".join)


@pytest.fixture(scope="module")
def current(tmp_path_factory):
    """A current folder with few files in it, and nothing above that a glob may find."""
    folder = tmp_path_factory.mktemp("a") / "b" / "c"
    (folder / "sub").mkdir(parents=True)
    for name in ("a", "sub/a", "sub/.hidden"):
        (folder / name).write_bytes(b"text of a file\n")
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")
    (folder / "again").symlink_to(".")
    (folder / "zero").symlink_to("/dev/zero")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HOME", str(folder))
        yield folder


def read_all(*arguments):
    for corpus in open_corpora("stdlib", *arguments, ByteTokenizer()):
        whole = corpus.read(0, corpus.n_tokens)
        assert whole.dtype == np.uint8
        assert len(whole.tobytes().replace(b"\0", b"")) == corpus.n_bytes


@few
@given(files=st.dictionaries(names, SMALL, max_size=5), fraction=st.floats(0.01, 0.99))
@example(files={b"\xff": b"a", b"\x1b[2J": b"b"}, fraction=0.5)
def test_any_files_are_a_corpus_or_refused_in_one_line(emptied, files, fraction):
    folder = emptied()
    for name, content in files.items():
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            file.write(content.replace(b"\0", b"0"))
    accept_or_refuse(read_all, str(folder), None, fraction, refusal=DataError)


@few
@given(path=patterns, eval_path=st.none() | patterns)
@example(path="a\0b", eval_path=None)
@example(path="\ud800", eval_path=None)
@example(path="a" * 300, eval_path=None)
@example(path="**", eval_path="again/**")
@example(path="pipe", eval_path=None)
def test_any_path_is_a_corpus_or_refused_in_one_line(current, path, eval_path):
    accept_or_refuse(read_all, path, eval_path, 0.1, refusal=DataError)
