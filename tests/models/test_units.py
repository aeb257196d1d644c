import numpy as np
import pytest

from tests.models.small import stream
from titans_eqx.models.units import read_units

UNIT = 4


@pytest.mark.parametrize("n_tokens", [1, 4, 8, 11])
def test_only_the_last_unit_has_padding(n_tokens):
    """So that nothing before it is read in the slower form that padding needs."""
    calls = []

    def read(x, n_read, padding):
        calls.append((x.shape[0], padding.is_none))
        assert int(padding.start) == -n_read  # counted from the first token
        assert padding.length == x.shape[0]
        return 2 * x, n_read + int(padding.n_real)

    x = stream(n_tokens)
    y, n_read = read_units(read, x, 0, UNIT)
    np.testing.assert_array_equal(y, 2 * x)
    assert n_read == n_tokens
    whole = [(n_tokens // UNIT * UNIT, True)] * (n_tokens >= UNIT)
    assert calls == whole + [(UNIT, False)] * (n_tokens % UNIT > 0)
