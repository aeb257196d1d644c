"""Data: from files of text to batches of tokens."""

from titans_eqx.data.compression import (
    compressed_bits_per_byte as compressed_bits_per_byte,
)
from titans_eqx.data.corpus import Corpus as Corpus
from titans_eqx.data.corpus import open_corpora as open_corpora
from titans_eqx.data.documents import Document as Document
from titans_eqx.data.documents import find_documents as find_documents
from titans_eqx.data.errors import DataError as DataError
from titans_eqx.data.loader import AlternatingBatches as AlternatingBatches
from titans_eqx.data.loader import TrainBatches as TrainBatches
from titans_eqx.data.rows import UNSCORED as UNSCORED
from titans_eqx.data.rows import Rows as Rows
from titans_eqx.data.rows import TokenRows as TokenRows
from titans_eqx.data.split import split_documents as split_documents
from titans_eqx.data.tasks import build_task as build_task
from titans_eqx.data.tokenizer import ByteTokenizer as ByteTokenizer
from titans_eqx.data.tokenizer import FileTokenizer as FileTokenizer
from titans_eqx.data.tokenizer import Tokenizer as Tokenizer
from titans_eqx.data.tokenizer import load_tokenizer as load_tokenizer
