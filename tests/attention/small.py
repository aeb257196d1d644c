"""Heads and convolutions small enough for every test of attention."""

from titans_eqx.attention import AttentionHeads, attention_convs

D_MODEL, BASE = 8, 100.0


def draw_attention(getkey, *, n_persistent, kernel_size):
    """Two heads, and the convolutions of their queries, keys and values."""
    heads = AttentionHeads(
        D_MODEL, n_heads=2, n_persistent=n_persistent, rope_base=BASE, key=getkey()
    )
    return heads, attention_convs(D_MODEL, kernel_size, key=getkey())
