"""The axis names used in every shape annotation of the package.

Shapes describe one sequence and one layer; `jax.vmap` adds batches, heads and layers.

| axis         | meaning                                                              |
|--------------|----------------------------------------------------------------------|
| `batch`      | sequences trained together; they never see each other                |
| `seq`        | tokens of one sequence, in reading order                             |
| `positions`  | places of a padded sequence, aligned with chunks or segments         |
| `n_starts`   | places in a row of tokens at which another document may start         |
| `n_units`    | chunks, blocks or segments that a row of documents is laid out in     |
| `chunk`      | tokens that a rule takes in at once, at the same anchor weights      |
| `segment`    | tokens that attend to each other in MAC, a whole number of chunks    |
| `window`     | tokens that a token sees in windowed attention, itself included      |
| `q_seq`, `kv_seq` | queries, and the keys (and values) that they may look at        |
| `rows`       | vectors that a linear map treats alike: tokens, or one of them       |
| `d_model`    | width of the residual stream                                         |
| `heads`      | parallel heads of the memory or of the attention                     |
| `memories`   | memories of a layer: its heads, or those of all its kinds of memory  |
| `d_head`     | width of one head                                                    |
| `d`          | width of one memory: its queries, keys, values and reads             |
| `d_hidden`   | inner width of an MLP                                                |
| `n_memory_layers` | linear maps in a memory network                                 |
| `layers`     | blocks of a model                                                    |
| `kernel_size` | tokens seen by the causal convolution                               |
| `conv_state_len` | `kernel_size - 1`: inputs that the convolution keeps             |
| `n_persistent` | learned tokens that every token may attend to                      |
| `vocab`      | token ids                                                            |
"""

from typing import TypeAlias

from jaxtyping import Array, Float

MemoryWeights: TypeAlias = tuple[Float[Array, "_ _"], ...]
"""The fast weights of one memory: one `d_in d_out` matrix for each memory layer."""

HeadWeights: TypeAlias = tuple[Float[Array, "heads _ _"], ...]
"""The fast weights of all heads of a layer, stacked."""
