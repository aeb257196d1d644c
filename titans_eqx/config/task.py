"""The configuration of the synthetic tasks: `name` decides which keys there are.

The tasks themselves are in `titans_eqx.data.synthetic`; their sizes, ranges and
defaults are declared here only.
"""

from abc import ABC, abstractmethod
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from titans_eqx.config.bounds import Length, NExamples, Seed, VocabularySize
from titans_eqx.config.section import Lengths, Section, combination_error

ANYWHERE: Final = -1.0  # depth of a needle that may lie anywhere


def _as_depth(depth: float) -> float:
    if depth != ANYWHERE and not 0 <= depth <= 1:
        raise PydanticCustomError("depth", "must be from 0 to 1, or -1 for anywhere")
    return depth


_NAME: Final = Field(description="which task; each has keys of its own")
VocabSize = Annotated[VocabularySize, Field(ge=4, description="token ids")]
NCopied = Annotated[Length, Field(description="tokens to be reproduced")]
TrainOn = Annotated[
    Literal["answers", "tokens"],
    Field(description="what training asks for: the answers, or each next token"),
]
Depth = Annotated[float, AfterValidator(_as_depth)]
Haystack = Annotated[
    str, Field(description="file of the text to hide in; empty = noise sentences")
]


class TaskSection(Section):
    """What all tasks have."""

    name: Any = _NAME  # in each section its own name alone
    train_examples: NExamples = Field(
        default=1_000_000, description="different training sequences"
    )
    eval_examples: NExamples = Field(
        default=1000, description="sequences never trained on"
    )

    @property
    def eval_changes(self) -> dict[str, Any]:
        """Keys that have another value wherever a model is evaluated."""
        return {}


class PairTask(TaskSection, ABC):
    """A task of keys and values drawn from parts of the vocabulary."""

    vocab_size: VocabSize = 128
    n_pairs: Length = Field(
        default=32, description="key-value pairs in a sequence of data.seq_len"
    )
    pairs_in_turn: Lengths = Field(
        default=(),
        description="pairs in those of each of data.lengths; [] = in proportion to it",
    )

    @property
    @abstractmethod
    def max_pairs(self) -> int:
        """The most pairs that the vocabulary has keys for."""

    @model_validator(mode="after")
    def _check_pairs(self) -> "PairTask":
        in_turn = max(self.pairs_in_turn, default=0)
        for key, largest in (("n_pairs", self.n_pairs), ("pairs_in_turn", in_turn)):
            if largest > self.max_pairs:
                raise combination_error(
                    f"data.task.{key} must be <= {self.max_pairs} with data.task.name "
                    f'= "{self.name}" and data.task.vocab_size = {self.vocab_size}, '
                    f"got {largest}",
                    f"data.task.{key}",
                    "data.task.vocab_size",
                    "data.task.name",
                )
        return self


class MqarConfig(PairTask):
    """Multi-query associative recall."""

    name: Annotated[Literal["mqar"], _NAME] = "mqar"
    power: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="where keys are asked for: 1 = anywhere, towards 0 = soon",
    )
    filler: Literal["random", "constant"] = Field(
        default="random",
        description="between the queries: any tokens, or one that means nothing",
    )

    @property
    def max_pairs(self) -> int:
        """The lower half of the vocabulary but for one token."""
        return self.vocab_size // 2 - 1


class InContextRecallConfig(PairTask):
    """Pairs that come again and again."""

    name: Annotated[Literal["in_context_recall"], _NAME] = "in_context_recall"
    train_on: TrainOn = "answers"

    @property
    def max_pairs(self) -> int:
        """As many pairs as there are keys."""
        return self.vocab_size // 2


class NoisyRecallConfig(PairTask):
    """Pairs that come again and again among noise."""

    name: Annotated[Literal["noisy_recall"], _NAME] = "noisy_recall"
    noise: float = Field(
        default=0.2, ge=0, lt=1, description="share of places, of two tokens each"
    )
    noise_vocab_size: VocabularySize = Field(
        default=16, description="tokens of vocab_size that are noise alone"
    )
    train_on: TrainOn = "answers"

    @property
    def max_pairs(self) -> int:
        """As many pairs as there are keys."""
        return max(0, self.vocab_size - self.noise_vocab_size) // 2


class FuzzyRecallConfig(TaskSection):
    """Pairs of keys and values of several tokens."""

    name: Annotated[Literal["fuzzy_recall"], _NAME] = "fuzzy_recall"
    vocab_size: VocabSize = 128
    motif_len: Length = Field(default=3, description="longest key or value, in tokens")
    min_key_len: Length = Field(
        default=1, description="shortest key; when evaluated all are of motif_len"
    )
    train_on: TrainOn = "answers"

    @property
    def eval_changes(self) -> dict[str, Any]:
        """See `TaskSection.eval_changes`."""
        return {"min_key_len": self.motif_len}

    @model_validator(mode="after")
    def _check_motifs(self) -> "FuzzyRecallConfig":
        n_keys = (self.vocab_size - 1) // 2
        if not self.min_key_len <= self.motif_len <= n_keys:
            raise combination_error(
                "data.task.motif_len must be >= data.task.min_key_len = "
                f"{self.min_key_len} and <= {n_keys} with data.task.vocab_size = "
                f"{self.vocab_size}, got {self.motif_len}",
                "data.task.motif_len",
                "data.task.min_key_len",
                "data.task.vocab_size",
            )
        return self


class SelectiveCopyingConfig(TaskSection):
    """Tokens to be copied from among blanks."""

    name: Annotated[Literal["selective_copying"], _NAME] = "selective_copying"
    vocab_size: VocabSize = 128
    n_copied: NCopied = 16


class CompressionConfig(TaskSection):
    """Tokens to be reproduced all together."""

    name: Annotated[Literal["compression"], _NAME] = "compression"
    vocab_size: VocabSize = 128
    n_copied: NCopied = 16


class MemorizationConfig(TaskSection):
    """A fixed table from keys to values."""

    name: Annotated[Literal["memorization"], _NAME] = "memorization"
    vocab_size: VocabSize = 128
    table_seed: Seed = Field(default=0, description="decides the table")


class ParityConfig(TaskSection):
    """Whether the number of ones so far is odd."""

    name: Annotated[Literal["parity"], _NAME] = "parity"


class WordProblemConfig(TaskSection):
    """The product of all permutations so far."""

    name: Annotated[Literal["word_problem"], _NAME] = "word_problem"
    n_points: int = Field(
        default=5, ge=2, le=6, description="points that are permuted: 5 for S_5"
    )
    n_moved: int = Field(
        default=6, ge=2, le=6, description="points that each may move: 2 = swaps"
    )
    tokens_each: int = Field(
        default=1,
        ge=1,
        le=16,
        description="tokens that spell a permutation; a memory writes with each",
    )


class NeedleConfig(TaskSection):
    """A needle in a haystack, in bytes."""

    name: Annotated[Literal["needle"], _NAME] = "needle"
    needle: Literal["passkey", "number", "word", "uuid"] = Field(
        default="passkey",
        description="a number in noise, or a number, code or UUID in the haystack",
    )
    n_digits: int = Field(default=7, ge=1, le=18, description="digits of a number")
    depth: Depth = Field(
        default=ANYWHERE,
        description="where the needle lies, 0 = first, 1 = last; -1 = anywhere",
    )
    haystack: Haystack = ""
    eval_haystack: str = Field(
        default="", description="the same where it is evaluated; empty = haystack"
    )

    @property
    def eval_changes(self) -> dict[str, Any]:
        """See `TaskSection.eval_changes`."""
        return {"haystack": self.eval_haystack or self.haystack}

    @model_validator(mode="after")
    def _check_haystack(self) -> "NeedleConfig":
        if self.needle != "passkey" and not self.haystack:
            raise combination_error(
                f'data.task.needle = "{self.needle}" hides its needle in a text: '
                'name its file in data.task.haystack, or use "passkey"',
                "data.task.needle",
                "data.task.haystack",
            )
        return self


class WhoIsWhereConfig(TaskSection):
    """Persons who move from place to place, told in a haystack, in bytes."""

    name: Annotated[Literal["who_is_where"], _NAME] = "who_is_where"
    n_pairs: Length = Field(
        default=32, description="moves in a sequence of data.seq_len"
    )
    haystack: Haystack = ""


def _with_name(value: object) -> object:
    return {"name": "mqar"} | value if isinstance(value, dict) else value


AnyTask: TypeAlias = (
    MqarConfig
    | InContextRecallConfig
    | NoisyRecallConfig
    | FuzzyRecallConfig
    | SelectiveCopyingConfig
    | CompressionConfig
    | MemorizationConfig
    | ParityConfig
    | WordProblemConfig
    | NeedleConfig
    | WhoIsWhereConfig
)
TaskConfig: TypeAlias = Annotated[
    AnyTask, Field(discriminator="name"), BeforeValidator(_with_name)
]
