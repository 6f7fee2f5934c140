"""Consul's `filter` expressions: parsed, checked against the fields that an answer has, and compiled to a predicate.

Pure, and bounded for whatever it is given: the length and the nesting of an expression are limited, parsing takes
linear time, and regular expressions are RE2's, which take linear time too.
"""

from toska_discovery.filters.evaluate import Predicate, compile_filter
from toska_discovery.filters.fields import Field, Struct
from toska_discovery.filters.problems import InvalidFilter

__all__ = ["Field", "InvalidFilter", "Predicate", "Struct", "compile_filter"]
