import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from titans_eqx.evaluation.repeats import kinds_of_context, repeat_distances


def test_distances_go_back_to_the_latest_place():
    tokens = np.frombuffer(b"abcabcxabc", np.uint8)
    assert repeat_distances(tokens, 3).tolist() == [0, 0, 0, 0, 0, 3, 0, 0, 0, 4]
    assert repeat_distances(tokens, 1).tolist() == [0, 0, 0, 3, 3, 3, 0, 4, 4, 4]
    kinds = kinds_of_context(tokens, 3, window=3)
    assert np.flatnonzero(kinds["near repeat"]).tolist() == [5]
    assert np.flatnonzero(kinds["far repeat"]).tolist() == [9]


@given(st.lists(st.integers(0, 2), max_size=40), st.integers(1, 4), st.integers(1, 10))
def test_every_place_is_of_one_kind_and_repeats_what_is_so_far_back(tokens, n, window):
    content = np.array(tokens, np.int32)
    distances = repeat_distances(content, n)
    for place, distance in enumerate(distances.tolist()):
        last = tokens[max(0, place + 1 - n) : place + 1]
        earlier = [
            place - end
            for end in range(n - 1, place)
            if tokens[end + 1 - n : end + 1] == last and len(last) == n
        ]
        assert distance == min(earlier, default=0)
    kinds = kinds_of_context(content, n, window)
    assert np.all(sum(kind.astype(int) for kind in kinds.values()) == 1)
    assert np.all(distances[kinds["far repeat"]] > window)
