"""The one error that unusable data raises."""


class DataError(ValueError):
    """Text, tokenizer or corpus that cannot be used; the message is one clear line."""
