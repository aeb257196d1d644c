"""A model on one sequence: all logits, reading in constant memory, drawing tokens."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from scripts.benchmark.case import Case
from scripts.benchmark.program import Program, count_parameters
from titans_eqx.generation import Sampling, prefill
from titans_eqx.generation.generate import extend
from titans_eqx.models import ModelState, TitansLM, build_model


def forward_program(case: Case) -> Program:
    """All logits of a sequence at once."""
    model, tokens = _model(case), _tokens(case)
    arrays, static = eqx.partition(model, eqx.is_array)

    def read(
        arrays: TitansLM, tokens: Int[Array, " seq"]
    ) -> tuple[Float[Array, "seq vocab"], ModelState]:
        return eqx.combine(arrays, static)(tokens)

    compiled = jax.jit(read)
    return Program(
        run=lambda: compiled(arrays, tokens),
        n_tokens=tokens.size,
        n_parameters=count_parameters(arrays),
        forward=read,
        forward_inputs=(arrays, tokens),
    )


def prefill_program(case: Case) -> Program:
    """The state after a sequence and its last logits, in constant memory."""
    model, tokens = _model(case), _tokens(case)
    compiled = eqx.filter_jit(prefill)
    return Program(
        run=lambda: compiled(model, tokens),
        n_tokens=tokens.size,
        n_parameters=count_parameters(model),
    )


def decode_program(case: Case) -> Program:
    """Drawing `n_drawn` tokens, always from the state after the same sequence."""
    model, tokens = _model(case), _tokens(case)
    logits, state = eqx.filter_jit(prefill)(model, tokens)
    key = jr.key(case.config.train.seed)

    @eqx.filter_jit
    def draw(
        model: TitansLM,
        logits: Float[Array, " vocab"],
        state: ModelState,
        key: PRNGKeyArray,
    ) -> tuple[Int[Array, " n_drawn"], ModelState]:
        n_drawn, sampling = jnp.int32(case.n_drawn), Sampling()
        drawn, _, state = extend(
            model, logits, state, key, sampling, n_drawn, case.n_drawn
        )
        return drawn, state

    return Program(
        run=lambda: draw(model, logits, state, key),
        n_tokens=case.n_drawn,
        n_parameters=count_parameters(model),
    )


def _model(case: Case) -> TitansLM:
    config = case.config
    draw = eqx.filter_jit(lambda key: build_model(config.model, key=key))
    return draw(jr.key(config.train.seed))


def _tokens(case: Case) -> Int[Array, " seq"]:
    key = jr.key(case.config.data.seed)
    return jr.randint(key, (case.length,), 0, case.config.model.vocab_size, jnp.int32)
