"""Helpers that tests of several rooms share; nothing here is part of the product."""
