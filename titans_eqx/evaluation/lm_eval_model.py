"""A trained model for the tasks of `lm_eval`, the evaluation harness (extra `eval`).

    lm_eval.simple_evaluate(LMEvalModel(load_model("runs/mac")), tasks=["lambada"])

Every request is a stream of its own that starts with a fresh memory, so a context of
any length is read whole, in constant device memory.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import jax.random as jr
import numpy as np

from titans_eqx.checkpoint.load_model import LoadedModel
from titans_eqx.data.example import Example
from titans_eqx.errors import UserError
from titans_eqx.evaluation.scorer import Scores, StreamScorer, show_progress
from titans_eqx.generation import Sampling, Stream
from titans_eqx.generation.prefill import BLOCK_LEN

try:
    from lm_eval.api.model import LM  # pyright: ignore[reportMissingImports]
except ImportError as error:
    raise UserError(
        "the tasks of lm_eval need the package lm_eval: pip install 'titans_eqx[eval]'"
    ) from error

SHORTEST: Final = 32  # tokens that the shortest requests are filled up to
MAX_GENERATED: Final = 256  # tokens, where a task names no number


class LMEvalModel(LM):
    """What `lm_eval` asks of a model: scores of texts, and texts."""

    def __init__(
        self, loaded: LoadedModel, *, batch_size: int = 8, seed: int = 0
    ) -> None:
        """Take a model of text.

        Args:
            loaded: From `load_model`.
            batch_size: Requests that are scored side by side.
            seed: Of what a task wants drawn.

        Raises:
            UserError: If the tokens of the model stand for no text.
        """
        super().__init__()
        if not loaded.reads_text:
            raise UserError(
                "the tokens of this model stand for no text; use a run that was "
                "trained on text."
            )
        self._model, self._tokenizer = loaded.model, loaded.tokenizer
        self._scorer = show_progress(StreamScorer(loaded.model, batch_size))
        self._batch_size = batch_size
        self._seed = seed

    @property
    def tokenizer_name(self) -> str:
        """Fingerprint of the tokenizer."""
        return self._tokenizer.fingerprint

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Log probability of each continuation, and whether each token was likeliest.

        Args:
            requests: With `args`, a context and its continuation.

        Returns:
            Nats and a truth value for each.
        """
        examples = [self._example(*request.args) for request in requests]
        return [
            (-float(scores.loss.sum()), bool(scores.is_correct[example["mask"]].all()))
            for example, scores in zip(examples, self._score(examples), strict=True)
        ]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Log probability of each text, all of it, in nats.

        Args:
            requests: With `args`, a text.
        """
        examples = [self._example("", *request.args) for request in requests]
        return [-float(scores.loss.sum()) for scores in self._score(examples)]

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Continue each context up to the first text that ends it, without that text.

        Args:
            requests: With `args`, a context and options: `until`, `max_gen_toks`,
                `do_sample`, `temperature`, `top_k`, `top_p`.
        """
        return [self._generate(*request.args) for request in requests]

    def _example(self, context: str, continuation: str) -> Example:
        """A context and a continuation, of which the latter is scored.

        With it what it changes of the tokens of the context.
        """
        # Spaces belong to the word after them, and words may not be cut.
        stem = context.rstrip()
        continuation = context[len(stem) :] + continuation
        whole = self._encode(stem + continuation)
        # A token may reach over the border, or end elsewhere because of what follows:
        # from there on the context alone is read as other tokens.
        n_read = _n_common(self._encode(stem), whole)
        n_scored = len(whole) - n_read
        # Something has to be read before the first token can be predicted.
        if n_read == 0:
            whole = np.concatenate([[self._tokenizer.separator], whole])
        length = max(len(whole) - 1, 1)
        filled = _filled_length(length)
        example = {
            "inputs": np.zeros(filled, np.int32),
            "targets": np.zeros(filled, np.int32),
            "mask": np.zeros(filled, bool),
        }
        example["inputs"][: len(whole) - 1] = whole[:-1]
        example["mask"][length - n_scored : length] = True
        targets = np.where(example["mask"][: len(whole) - 1], whole[1:], 0)
        example["targets"][: len(whole) - 1] = targets
        return example

    def _score(self, examples: Sequence[Example]) -> list[Scores]:
        """Scores in the order of the examples, those of one length side by side."""
        scores: dict[int, Scores] = {}
        lengths = [example["inputs"].size for example in examples]
        for length in sorted(set(lengths)):
            indices = [i for i, one in enumerate(lengths) if one == length]
            scored = self._scorer([examples[i] for i in indices])
            scores |= dict(zip(indices, scored, strict=True))
        return [scores[i] for i in range(len(examples))]

    def _generate(self, context: str, options: Mapping[str, Any]) -> str:
        until = options.get("until") or ()
        ends = [until] if isinstance(until, str) else list(until)
        prompt = self._encode(context)
        if len(prompt) == 0:
            prompt = np.array([self._tokenizer.separator])
        stream = Stream(self._model)
        stream.read(prompt)
        tokens = stream.write(
            int(options.get("max_gen_toks", MAX_GENERATED)),
            key=jr.key(self._seed),
            sampling=self._sampling(options),
        )
        text = ""
        for text in self._growing_texts(tokens):
            if any(end and end in text for end in ends):
                break
        cuts = [text.find(end) for end in ends if end and end in text]
        return text[: min(cuts, default=len(text))]

    def _growing_texts(self, parts: Iterable[np.ndarray]) -> Iterator[str]:
        """The text so far, after each part; without the token that ends it."""
        ids = np.zeros(0, np.int32)
        for part in parts:
            ids = np.concatenate([ids, part[part != self._tokenizer.separator]])
            yield self._tokenizer.decode(ids)

    def _sampling(self, options: Mapping[str, Any]) -> Sampling:
        is_drawn = options.get("do_sample", False)
        return Sampling(
            temperature=float(options.get("temperature", 1.0)) if is_drawn else 0.0,
            top_k=int(options.get("top_k", 0)),
            top_p=float(options.get("top_p", 1.0)),
            stop_tokens=(self._tokenizer.separator,),
        )

    def _encode(self, text: str) -> np.ndarray:
        return self._tokenizer.encode(text.encode()).astype(np.int32)


def _n_common(first: np.ndarray, second: np.ndarray) -> int:
    """How many tokens both start with."""
    n = min(len(first), len(second))
    return int(np.cumprod(first[:n] == second[:n]).sum())


def _filled_length(length: int) -> int:
    """A length with few different values, for few programs."""
    if length >= BLOCK_LEN:
        return -(-length // BLOCK_LEN) * BLOCK_LEN
    return max(SHORTEST, 1 << (length - 1).bit_length())
