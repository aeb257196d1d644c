"""What a step says about itself: the leaves of its items, and its metadata.

Each leaf has a checksum over its dtype, shape and values. It is compared with the
restored array, so that files which are whole, but not those that were written, are
noticed.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from jaxtyping import PyTree
from pydantic import BaseModel, ConfigDict, ValidationError

from titans_eqx.checkpoint.errors import DamagedError
from titans_eqx.checkpoint.leaf_table import (
    LeafTable,
    first_difference,
    leaf_checksums,
    leaf_table,
)

MAX_DOCUMENT_BYTES: Final = 16 * 2**20


class StepDocument(BaseModel):
    """The JSON document of a step."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    leaves: dict[str, LeafTable]  # by item; paths start with the item's name
    # SHA-256 by path. Versions 0.1 and before format 4 saved none; their metadata can
    # still be read, to say which version is needed.
    checksums: dict[str, str] = {}
    metadata: dict[str, Any]

    @classmethod
    def of(
        cls, items: Mapping[str, PyTree], metadata: Mapping[str, Any]
    ) -> "StepDocument":
        """The document of items that are about to be saved.

        Raises:
            TypeError: If a leaf is no array.
        """
        return cls(
            leaves=_leaf_tables(items),
            checksums=leaf_checksums(dict(items)),
            metadata=dict(metadata),
        )

    @classmethod
    def parse(cls, content: Any) -> "StepDocument":
        """Check what has been read.

        Raises:
            DamagedError: If it is no such document.
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"])) or "the whole"
            raise DamagedError(f"in its metadata, {place}: {first['msg']}") from None

    def content(self) -> dict[str, Any]:
        """What is to be written as JSON.

        Raises:
            TypeError: If the metadata are not what JSON can hold.
            ValueError: The same, or they are too long.
        """
        content = self.model_dump()
        if (size := len(json.dumps(content))) > MAX_DOCUMENT_BYTES:
            raise ValueError(
                f"its metadata have {size:,} bytes, allowed are {MAX_DOCUMENT_BYTES:,}"
            )
        return content

    def misfit(self, templates: Mapping[str, PyTree]) -> str | None:
        """The first leaf that is not as the templates expect it; None if all are."""
        for name, wanted in _leaf_tables(templates).items():
            difference = first_difference(self.leaves.get(name, {}), wanted)
            if difference is not None:
                return difference
        return None

    def check_values(self, items: Mapping[str, PyTree]) -> None:
        """Compare restored items with their checksums.

        Raises:
            DamagedError: At the first leaf that is not what was saved.
        """
        for path, checksum in leaf_checksums(dict(items)).items():
            if self.checksums.get(path) != checksum:
                raise DamagedError(f"{path} has other values than were saved (SHA-256)")


def _leaf_tables(items: Mapping[str, PyTree]) -> dict[str, LeafTable]:
    return {name: leaf_table({name: item}) for name, item in items.items()}
