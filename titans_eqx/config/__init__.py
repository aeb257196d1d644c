"""Configuration: TOML files to frozen, checked values."""

from titans_eqx.config.distributed import DistributedConfig as DistributedConfig
from titans_eqx.config.errors import ConfigError as ConfigError
from titans_eqx.config.load import load_config as load_config
from titans_eqx.config.memory import MemoryConfig as MemoryConfig
from titans_eqx.config.mesh import MeshConfig as MeshConfig
from titans_eqx.config.model import AttentionConfig as AttentionConfig
from titans_eqx.config.model import ModelConfig as ModelConfig
from titans_eqx.config.optimizer import OptimizerConfig as OptimizerConfig
from titans_eqx.config.run import DataConfig as DataConfig
from titans_eqx.config.run import RunConfig as RunConfig
from titans_eqx.config.run import TrainConfig as TrainConfig
from titans_eqx.config.task import AnyTask as AnyTask
from titans_eqx.config.task import CompressionConfig as CompressionConfig
from titans_eqx.config.task import FuzzyRecallConfig as FuzzyRecallConfig
from titans_eqx.config.task import InContextRecallConfig as InContextRecallConfig
from titans_eqx.config.task import MemorizationConfig as MemorizationConfig
from titans_eqx.config.task import MqarConfig as MqarConfig
from titans_eqx.config.task import NeedleConfig as NeedleConfig
from titans_eqx.config.task import NoisyRecallConfig as NoisyRecallConfig
from titans_eqx.config.task import ParityConfig as ParityConfig
from titans_eqx.config.task import SelectiveCopyingConfig as SelectiveCopyingConfig
from titans_eqx.config.task import TaskConfig as TaskConfig
from titans_eqx.config.task import WhoIsWhereConfig as WhoIsWhereConfig
from titans_eqx.config.task import WordProblemConfig as WordProblemConfig
from titans_eqx.config.toml import to_toml as to_toml
