"""What is wrong with an expression, in the words of Consul's library for them."""


class InvalidFilter(Exception):
    """An expression that cannot be parsed, or that does not suit the fields it is about."""
