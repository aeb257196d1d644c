"""Random weights and tokens on which the oracles are tried."""

import math

D = 4


def draw_weights(rng, depth, hidden=6):
    widths = [D] + [hidden] * (depth - 1) + [D]
    return [
        rng.normal(size=(d_in, d_out)) / math.sqrt(d_in)
        for d_in, d_out in zip(widths[:-1], widths[1:], strict=True)
    ]


def draw_tokens(rng, seq, depth):
    queries, keys, values = rng.normal(size=(3, seq, D))
    decay, momentum, step = rng.uniform(0.05, 0.4, size=(3, seq, depth))
    return queries, keys, values, decay, momentum, step
