"""Generation: reading a prompt and going on from it."""

from titans_eqx.generation.generate import generate as generate
from titans_eqx.generation.prefill import prefill as prefill
from titans_eqx.generation.sampling import Sampling as Sampling
