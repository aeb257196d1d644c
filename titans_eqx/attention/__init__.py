"""Attention over the recent past, with learned persistent tokens in front."""

from titans_eqx.attention.heads import AttentionHeads as AttentionHeads
from titans_eqx.attention.heads import attention_convs as attention_convs
from titans_eqx.attention.segmented import SegmentAttention as SegmentAttention
from titans_eqx.attention.segmented import SegmentCache as SegmentCache
from titans_eqx.attention.sliding import SlidingAttention as SlidingAttention
from titans_eqx.attention.sliding import WindowCache as WindowCache
