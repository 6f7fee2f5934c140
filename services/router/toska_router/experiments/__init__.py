"""Chaos experiments: `machine` decides when one ends, purely."""
