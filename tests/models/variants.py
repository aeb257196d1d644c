"""The models that every claim about a language model is tested on."""

from tests.models.small import small_config
from titans_eqx.config import ModelConfig

MAC: dict[str, ModelConfig] = {
    "mac": small_config(),
    "mac mixed, on some layers": small_config(
        n_layers=3,
        gate="mix",
        tied_embeddings=False,
        memory={"layers": [1], "initial_memory": "learned", "surprise": "full"},
        attention={"n_persistent": 0},
    ),
    "mac multiplied": small_config(
        gate="multiply", memory={"decay_towards": "initial", "read": "before"}
    ),
}
OTHERS: dict[str, ModelConfig] = {
    "mag": small_config(variant="mag", attention={"persistent_in_memory": True}),
    "mal": small_config(
        variant="mal", memory={"decay": "channel", "conv_taps": 1, "layers": [1]}
    ),
    "lmm": small_config(
        variant="lmm", memory={"gates": "per_head", "use_momentum": False}
    ),
    "transformer": small_config(variant="transformer"),
}
ALL = {**MAC, **OTHERS}
