"""Kinds of numbers, with bounds far above what anybody trains.

What is larger is a slip of the keyboard, and would keep a machine busy before its
memory is seen not to suffice.
"""

from typing import Annotated, Final, TypeAlias

from pydantic import Field

MAX_LEN: Final = 2**27
MAX_BATCH: Final = 2**20
MAX_STEPS: Final = 10**9
MAX_VOCAB_SIZE: Final = 2**24

Length: TypeAlias = Annotated[int, Field(ge=1, le=MAX_LEN)]
"""A number of tokens."""
Width: TypeAlias = Annotated[int, Field(ge=1, le=2**17)]
"""A number of features, or of heads that share them."""
KernelSize: TypeAlias = Annotated[int, Field(ge=1, le=64)]
VocabularySize: TypeAlias = Annotated[int, Field(ge=1, le=MAX_VOCAB_SIZE)]
BatchSize: TypeAlias = Annotated[int, Field(ge=1, le=MAX_BATCH)]
NExamples: TypeAlias = Annotated[int, Field(ge=1, le=2**31 - 1)]
Steps: TypeAlias = Annotated[int, Field(ge=0, le=MAX_STEPS)]
"""A number of steps or chunks; where there is an `every` in the name, 0 = never."""
Seed: TypeAlias = Annotated[int, Field(ge=0, le=2**32 - 1)]
# Within float32.
Positive: TypeAlias = Annotated[float, Field(gt=0, le=1e30)]
NonNegative: TypeAlias = Annotated[float, Field(ge=0, le=1e30)]
