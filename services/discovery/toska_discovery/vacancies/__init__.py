"""Instances whose process is gone: noticed by the port that it left, before their leases lapse."""
