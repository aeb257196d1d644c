"""Data: from texts and synthetic tasks to batches of named arrays."""

from titans_eqx.data.compression import (
    compressed_bits_per_byte as compressed_bits_per_byte,
)
from titans_eqx.data.corpus import AbstractCorpus as AbstractCorpus
from titans_eqx.data.corpus import Corpus as Corpus
from titans_eqx.data.corpus import open_corpora as open_corpora
from titans_eqx.data.dataset import TaskData as TaskData
from titans_eqx.data.dataset import TextData as TextData
from titans_eqx.data.dataset import open_dataset as open_dataset
from titans_eqx.data.dataset import open_texts as open_texts
from titans_eqx.data.documents import Document as Document
from titans_eqx.data.documents import find_documents as find_documents
from titans_eqx.data.errors import DataError as DataError
from titans_eqx.data.example import Dataset as Dataset
from titans_eqx.data.example import Example as Example
from titans_eqx.data.example import spread as spread
from titans_eqx.data.loader import TrainBatches as TrainBatches
from titans_eqx.data.preparation import PrepareSettings as PrepareSettings
from titans_eqx.data.preparation import prepare as prepare
from titans_eqx.data.rows import DocumentRows as DocumentRows
from titans_eqx.data.shard_folder import ShardCorpus as ShardCorpus
from titans_eqx.data.shard_folder import open_shards as open_shards
from titans_eqx.data.split import split_documents as split_documents
from titans_eqx.data.synthetic import Task as Task
from titans_eqx.data.synthetic import TaskExamples as TaskExamples
from titans_eqx.data.tasks import build_task as build_task
from titans_eqx.data.tokenizer import ByteTokenizer as ByteTokenizer
from titans_eqx.data.tokenizer import FileTokenizer as FileTokenizer
from titans_eqx.data.tokenizer import Tokenizer as Tokenizer
from titans_eqx.data.tokenizer import load_tokenizer as load_tokenizer
from titans_eqx.data.windows import TextWindows as TextWindows
from titans_eqx.data.windows import WindowStreams as WindowStreams
