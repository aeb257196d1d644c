"""Several documents in one row, each read as a sequence of its own.

Chunks and segments are counted from the start of a document. So a row is laid out
again: every document begins at the start of a unit (a chunk, block or segment), only
its last unit is padded, and who reads the units starts anew where a document does. A
row of `L` tokens with at most `n` documents takes at most `(L - n) // unit + n` units,
wherever its documents start, so that one compiled function serves every row.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree, Shaped

from titans_eqx.nn.padding import Padding


class Documents(eqx.Module):
    """Where documents start in a row of `length` tokens.

    Document 0 is what the row begins with: it goes on with the state that the row is
    given. It has no tokens if another document starts at the first position.
    """

    starts: Int[Array, " n_starts"]  # increasing; `length` where there are fewer

    length: int = eqx.field(static=True)

    def __init__(self, starts: Int[Array, " n_starts"], length: int) -> None:
        """Take positions in any order; those outside the row start nothing."""
        starts = starts.astype(jnp.int32)
        is_inside = (starts >= 0) & (starts < length)
        self.starts = jnp.sort(jnp.where(is_inside, starts, length))
        self.length = length

    @property
    def bounds(self) -> Int[Array, " _"]:
        """Document `i` has the tokens from `bounds[i]` to before `bounds[i + 1]`."""
        return jnp.pad(self.starts, 1, constant_values=(0, self.length))

    @property
    def numbers(self) -> Int[Array, " {self.length}"]:
        """The document of each token."""
        return self._number(jnp.arange(self.length, dtype=jnp.int32))

    @property
    def is_continued(self) -> Bool[Array, ""]:
        """Whether the last token belongs to document 0."""
        return self._number(jnp.asarray(self.length - 1)) == 0

    @property
    def last_len(self) -> Int[Array, ""]:
        """Tokens of the document of the last token."""
        last = self._number(jnp.asarray(self.length - 1))
        return self.length - self.bounds[last]

    def own_rows(
        self,
        rows: Shaped[Array, "{self.length} ..."],
        fresh: Shaped[Array, "n_before ..."],
        distance: int,
    ) -> Array:
        """Rows that come from before each token, inside its document.

        Args:
            rows: Row `t` is that of token `t - distance`.
            fresh: The rows right before a document, which take the place of tokens of
                an earlier one.
            distance: At most `n_before`.
        """
        numbers = self.numbers
        age = jnp.arange(self.length, dtype=jnp.int32) - self.bounds[numbers]
        return _own(rows, fresh, age, numbers == 0, distance)

    def own_history(
        self,
        history: Shaped[Array, "n_before ..."],
        fresh: Shaped[Array, "n_before ..."],
    ) -> Array:
        """The last rows of a row of documents, without those of earlier documents."""
        distances = jnp.arange(history.shape[0], 0, -1, dtype=jnp.int32)
        return _own(history, fresh, self.last_len, self.is_continued, distances)

    def layout(self, unit: int, offset: Int[Array, ""] | None = None) -> "Layout":
        """The row with every document at the start of a unit.

        Args:
            unit: Tokens of a chunk, block or segment.
            offset: Tokens of the current unit that document 0 has read before, in
                `[0, unit)`; None for none.
        """
        bounds = self.bounds
        lengths = bounds[1:] - bounds[:-1]
        offsets = jnp.zeros_like(lengths)
        most = min(lengths.shape[0], self.length)
        n_units = (self.length - most) // unit + most
        if offset is not None:
            offsets = offsets.at[0].set(offset)
            n_units = (self.length + unit - 1 - most) // unit + most
        taken = jnp.where(lengths > 0, -(-(offsets + lengths) // unit), 0)
        ends = jnp.cumsum(taken)
        firsts = ends - taken

        units = jnp.arange(n_units, dtype=jnp.int32)
        # Units that are left over are empty ones of the last document.
        number = _n_up_to(ends[:-1], units)
        read = (units - firsts[number]) * unit  # positions of its earlier units
        starts = offsets[number] - read
        padding = jax.vmap(lambda start, stop: Padding(start, stop, unit, False))(
            starts, starts + lengths[number]
        )
        tokens = jnp.arange(self.length, dtype=jnp.int32)
        owner = self.numbers
        within = tokens - bounds[owner] + offsets[owner]
        return Layout(
            padding=padding,
            is_start=(read == 0) & (number > 0) & (taken[number] > 0),
            is_continued=number == 0,
            first_tokens=bounds[number] - starts,
            positions=firsts[owner] * unit + within,
            unit=unit,
        )

    def _number(self, tokens: Int[Array, "*shape"]) -> Int[Array, "*shape"]:
        return _n_up_to(self.starts, tokens)


class Layout(eqx.Module):
    """A row of documents as units, of which each holds tokens of one document."""

    padding: (
        Padding  # of each unit, as a block of its document; a leading axis of units
    )
    is_start: Bool[Array, " n_units"]  # a document other than 0 starts here
    is_continued: Bool[Array, " n_units"]  # of document 0
    first_tokens: Int[Array, " n_units"]  # the token at the unit's first position
    positions: Int[Array, " seq"]  # of each token, counted through all units

    unit: int = eqx.field(static=True)

    @property
    def is_real(self) -> Bool[Array, "n_units {self.unit}"]:
        """True where a position holds a token."""
        return jax.vmap(Padding.is_real)(self.padding)

    def pad(self, rows: PyTree[Shaped[Array, "seq ..."]]) -> PyTree[Array]:
        """Lay arrays of tokens (first axis) into units; zeros at padding."""
        positions = jnp.arange(self.unit, dtype=jnp.int32)
        tokens = self.first_tokens[:, None] + positions[None, :]
        is_real = self.is_real

        def pad_one(x: Array) -> Array:
            taken = x[jnp.clip(tokens, 0, x.shape[0] - 1)]
            column = is_real.reshape(*is_real.shape, *[1] * (x.ndim - 1))
            return jnp.where(column, taken, jnp.zeros((), x.dtype))

        return jax.tree.map(pad_one, rows)

    def unpad(self, units: PyTree[Shaped[Array, "n_units unit ..."]]) -> PyTree[Array]:
        """The inverse of `pad`."""
        return jax.tree.map(
            lambda x: x.reshape(-1, *x.shape[2:])[self.positions], units
        )


def document_starts(document_ids: np.ndarray, max_documents: int) -> np.ndarray:
    """Where documents start in rows whose tokens are marked with them.

    Args:
        document_ids: "... seq"; a document is a run of equal ids, as long as it goes.
        max_documents: Of a row, at least 1.

    Returns:
        "... max_documents - 1", int32: the starts of all but the first document of each
        row, as models take them; the length of the row where there are fewer.

    Raises:
        ValueError: If a row has more documents.
    """
    ids = np.asarray(document_ids)
    length, n_starts = ids.shape[-1], max_documents - 1
    is_start = ids[..., 1:] != ids[..., :-1]
    n_documents = 1 + int(np.max(np.sum(is_start, axis=-1), initial=0))
    if n_documents > max_documents:
        raise ValueError(
            f"max_documents={max_documents}, but a row has {n_documents} documents "
            "(runs of equal ids). Raise max_documents or pack fewer into a row."
        )
    positions = np.where(is_start, np.arange(1, length), length)
    starts = np.sort(positions, axis=-1)[..., :n_starts]
    fill = [(0, 0)] * (starts.ndim - 1) + [(0, n_starts - starts.shape[-1])]
    return np.pad(starts, fill, constant_values=length).astype(np.int32)


def _n_up_to(
    bounds: Int[Array, " n_bounds"], values: Int[Array, "*shape"]
) -> Int[Array, "*shape"]:
    """How many of the bounds, in increasing order, are no more than each value."""
    count = jnp.searchsorted(bounds, values, side="right", method="compare_all")
    return count.astype(jnp.int32)


def _own(
    rows: Shaped[Array, "n ..."],
    fresh: Shaped[Array, "n_before ..."],
    age: Int[Array, "..."],
    is_continued: Bool[Array, "..."],
    distance: int | Int[Array, " n"],
) -> Array:
    """Rows `distance` before tokens with `age` tokens of their document before them."""
    n_before = fresh.shape[0]
    if n_before == 0:
        return rows
    is_own = is_continued | (age >= distance)
    older = jnp.clip(n_before + age - distance, 0, n_before - 1)
    column = is_own.reshape(-1, *[1] * (rows.ndim - 1))
    return jnp.where(column, rows, fresh[older])
