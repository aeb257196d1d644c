"""Documents: the named texts that a corpus is made of, and where they are found.

A document's name is relative to the folder (or the fixed part of the glob) that it
was found through, so it is the same on every machine and does not change when other
paths are added. A single file is named by its base name.
"""

import glob
import itertools
import logging
import os
import re
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from titans_eqx.data.errors import DataError
from titans_eqx.files import check_name, open_regular

PEEK_BYTES: Final = 8192
CHUNK_BYTES: Final = 2**20
MAX_MATCHES: Final = 1_000_000
STDLIB_EXCLUDED: Final = frozenset(
    {
        "test",
        "tests",
        "idlelib",
        "lib2to3",
        "turtledemo",
        "site-packages",
        "dist-packages",
        "__pycache__",
    }
)

TextPaths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Document:
    """A range of a file that counts as one text."""

    name: str  # relative, with `/` between folders
    path: Path
    offset: int  # of its first byte
    length: int  # bytes of text, at least 1

    def chunks(self) -> Iterator[bytes]:
        """Yield the raw text in blocks of at most 1 MiB.

        Raises:
            DataError: If the file vanished, shrank or cannot be read.
        """
        remaining = self.length
        try:
            with open_regular(self.path) as file:
                file.seek(self.offset)
                while remaining:
                    chunk = file.read(min(CHUNK_BYTES, remaining))
                    if not chunk:
                        raise DataError(
                            f"{self.path} has shrunk: {remaining} bytes are missing"
                        )
                    remaining -= len(chunk)
                    yield chunk
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror}") from error

    def peek(self, position: int, n_bytes: int) -> bytes:
        """The raw bytes of the file from a position in the text on.

        Raises:
            DataError: If the file vanished or cannot be read.
        """
        try:
            with open_regular(self.path) as file:
                file.seek(self.offset + position)
                return file.read(n_bytes)
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror}") from error

    def blocks(self) -> Iterator[bytes]:
        """Yield the text in blocks that end with a line, or at least a character.

        So a tokenizer, given one after the other, sees no word cut in two. A block is
        longer than 1 MiB only where a line begins before it.

        Raises:
            DataError: If the file vanished, shrank or cannot be read.
        """
        rest = b""
        for chunk in self.chunks():
            rest += chunk
            cut = rest.rfind(b"\n") + 1 or _last_character_start(rest)
            if cut:
                yield rest[:cut]
                rest = rest[cut:]
        if rest:
            yield rest


def find_documents(source: str, path: TextPaths | None = None) -> tuple[Document, ...]:
    """Find the documents that a config names, sorted by name.

    In folders and globs, hidden, binary and empty files are passed over; their
    number is logged. A file that is named itself has to be text.

    Args:
        source: "stdlib", the Python standard library's own source without its
            tests; looked at only when there is no path.
        path: File, folder (read recursively), glob, or a list of these.

    Raises:
        DataError: If a path is missing or unreadable, or names no text.
    """
    skipped: Counter[str] = Counter()
    if path is not None:
        found = _from_paths(path, skipped)
    elif source == "stdlib":
        found = _from_stdlib(skipped)
    else:
        raise DataError(
            f"data.source = {source!r} needs data.path, or has to be 'stdlib'"
        )
    _logger.info("found %d documents%s", len(found), _describe(skipped))
    return found


def path_names(path: TextPaths) -> list[str]:
    """The files, folders and globs that a config names, with the home for `~`."""
    paths = [path] if isinstance(path, str | os.PathLike) else path
    return [os.path.expanduser(os.fspath(one)) for one in paths]


def _from_stdlib(skipped: Counter[str]) -> tuple[Document, ...]:
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [
        file
        for file in _walk(root, skipped, excluded=STDLIB_EXCLUDED)
        if file.suffix == ".py"
    ]
    documents = _text_documents(files, root, skipped)
    if not documents:
        raise DataError(
            f"this Python has no standard library source in {root}; set data.path"
        )
    return _sorted_by_name(documents)


def _from_paths(path: TextPaths, skipped: Counter[str]) -> tuple[Document, ...]:
    names = path_names(path)
    if not names:
        raise DataError("the list of paths is empty; name at least one file or folder")
    found: dict[Path, Document] = {}
    for name in names:
        for document in _from_path(name, skipped):
            key = document.path.resolve()
            # A file reached through two paths keeps the same one of its names
            # whatever the order of the list.
            if key not in found or document.name < found[key].name:
                found[key] = document
    return _sorted_by_name(list(found.values()))


def _from_path(name: str, skipped: Counter[str]) -> list[Document]:
    try:
        check_name(Path(name))
        return _look_for(name, skipped)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"cannot look for {name}: {reason}") from error


def _look_for(name: str, skipped: Counter[str]) -> list[Document]:
    path = Path(name)
    passed_over: Counter[str] = Counter()
    if not name:
        raise DataError("a path is empty; name a file, a folder or a glob")
    if path.is_file():
        documents = _text_documents([path], path.parent, passed_over)
        if not documents:
            raise DataError(f"no text in {path}: the file is {next(iter(passed_over))}")
    elif path.is_dir():
        documents = _text_documents(_walk(path, passed_over), path, passed_over)
        if not documents:
            raise DataError(f"no text files in folder {path}{_describe(passed_over)}")
    elif glob.has_magic(name):
        files = [file for file in _matches(name) if file.is_file()]
        if not files:
            raise DataError(f"no file matches the glob {name}")
        documents = _text_documents(files, _fixed_part(path), passed_over)
        if not documents:
            raise DataError(f"no text in the glob {name}{_describe(passed_over)}")
    elif os.path.lexists(path):
        raise DataError(f"{path} is neither a file nor a folder")
    else:
        raise DataError(f"no such file or folder: {path}")
    skipped.update(passed_over)
    return documents


def _matches(pattern: str) -> list[Path]:
    # `**` follows links: links to folders above them would multiply.
    pattern = re.sub(r"(\*\*/+)+", "**/", pattern)
    found = itertools.islice(glob.iglob(pattern, recursive=True), MAX_MATCHES + 1)
    matches = [Path(match) for match in found]
    if len(matches) > MAX_MATCHES:
        raise DataError(f"more than {MAX_MATCHES:,} files match the glob {pattern}")
    return matches


def _walk(
    root: Path, skipped: Counter[str], excluded: frozenset[str] = frozenset()
) -> Iterator[Path]:
    for folder, subfolders, files in os.walk(root, onerror=_refuse_unreadable):
        visible = [name for name in subfolders if not name.startswith(".")]
        skipped["hidden"] += len(subfolders) - len(visible)
        subfolders[:] = [name for name in visible if name not in excluded]
        for name in files:
            if name.startswith("."):
                skipped["hidden"] += 1
            elif (Path(folder) / name).is_file():
                yield Path(folder) / name
            else:
                skipped["not a regular file"] += 1


def _refuse_unreadable(error: OSError) -> None:
    raise DataError(f"cannot read {error.filename}: {error.strerror}") from error


def _text_documents(
    files: Sequence[Path] | Iterator[Path], root: Path, skipped: Counter[str]
) -> list[Document]:
    documents = []
    for path in files:
        try:
            with open_regular(path) as file:
                length = os.fstat(file.fileno()).st_size
                # Those of the kernel have no length, and may wait when they are read.
                start = file.read(PEEK_BYTES) if length else b""
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error
        if not start:
            skipped["empty"] += 1
        elif b"\0" in start:
            skipped["binary"] += 1
        else:
            name = path.relative_to(root).as_posix()
            documents.append(Document(name=name, path=path, offset=0, length=length))
    return documents


def continuation_len(following: bytes) -> int:
    """Bytes up to where the next UTF-8 character starts, at most three."""
    rest = itertools.takewhile(lambda x: x & 0xC0 == 0x80, following[:3])
    return sum(1 for _ in rest)


def _last_character_start(text: bytes) -> int:
    start = len(text) - 1
    while start > max(0, len(text) - 4) and text[start] & 0xC0 == 0x80:
        start -= 1
    return start


def _fixed_part(pattern: Path) -> Path:
    return next(parent for parent in pattern.parents if not glob.has_magic(str(parent)))


def _sorted_by_name(documents: list[Document]) -> tuple[Document, ...]:
    return tuple(sorted(documents, key=lambda one: (one.name, str(one.path))))


def _describe(skipped: Counter[str]) -> str:
    parts = [f"{number} {kind}" for kind, number in sorted(skipped.items()) if number]
    return f" (passed over: {', '.join(parts)})" if parts else ""
