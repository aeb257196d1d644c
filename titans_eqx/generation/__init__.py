"""Generation: reading a prompt and going on from it."""

from titans_eqx.generation.generate import generate as generate
from titans_eqx.generation.generate import generate_batch as generate_batch
from titans_eqx.generation.prefill import prefill as prefill
from titans_eqx.generation.prefill import prefill_padded as prefill_padded
from titans_eqx.generation.sampling import Sampling as Sampling
from titans_eqx.generation.session import load_session as load_session
from titans_eqx.generation.session import save_session as save_session
from titans_eqx.generation.stream import Stream as Stream
