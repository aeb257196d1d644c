"""Layers that know nothing of memory or attention."""

from titans_eqx.nn.conv import CausalConv as CausalConv
from titans_eqx.nn.conv import ConvProjection as ConvProjection
from titans_eqx.nn.documents import Documents as Documents
from titans_eqx.nn.documents import document_starts as document_starts
from titans_eqx.nn.feedforward import SwiGLU as SwiGLU
from titans_eqx.nn.norm import bounded as bounded
from titans_eqx.nn.norm import standardize as standardize
from titans_eqx.nn.norm import unit_norm as unit_norm
from titans_eqx.nn.padding import Padding as Padding
from titans_eqx.nn.rope import rotate as rotate
