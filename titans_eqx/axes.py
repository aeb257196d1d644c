"""The axis names used in every shape annotation of the package.

Shapes describe one sequence and one layer; `jax.vmap` adds batches, heads and layers.

| axis         | meaning                                                              |
|--------------|----------------------------------------------------------------------|
| `batch`      | sequences trained together; they never see each other                |
| `seq`        | tokens of one sequence, in reading order                             |
| `slots`      | places of a padded piece of a sequence, aligned with chunks          |
| `chunk`      | tokens whose surprise is taken at the same anchor weights            |
| `n_chunks`   | chunks in a piece                                                    |
| `segment`    | tokens that attend to each other in MAC, a whole number of chunks    |
| `window`     | tokens that a token sees in windowed attention, itself included      |
| `q_seq`, `kv_seq` | queries, and the keys (and values) that they may look at        |
| `rows`       | vectors that a linear map treats alike: tokens, or one of them       |
| `d_model`    | width of the residual stream                                         |
| `heads`      | parallel heads of the memory or of the attention                     |
| `d_head`     | width of one head                                                    |
| `d`          | width of one memory: its queries, keys, values and reads             |
| `d_hidden`   | inner width of an MLP                                                |
| `depth`      | linear maps in a memory ("memory layers")                            |
| `layers`     | blocks of a model                                                    |
| `taps`       | kernel size of the causal convolution                                |
| `n_carried`  | `taps - 1`: inputs that the convolution keeps for the next token     |
| `n_persistent` | learned tokens that every token may attend to                      |
| `vocab`      | token ids                                                            |
"""

from typing import TypeAlias

from jaxtyping import Array, Float

MemoryWeights: TypeAlias = tuple[Float[Array, "_ _"], ...]
"""The fast weights of one memory: one `d_in d_out` matrix for each memory layer."""

HeadWeights: TypeAlias = tuple[Float[Array, "heads _ _"], ...]
"""The fast weights of all heads of a layer, stacked."""
