"""The one error that unusable data raises."""

from titans_eqx.errors import UserError


class DataError(UserError):
    """Text, tokenizer or corpus that cannot be used; the message is one clear line."""
