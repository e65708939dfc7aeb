"""What a user must put right before a data stage can go on."""


class DataError(Exception):
    """A mistake in a user's data, told in one sentence."""
