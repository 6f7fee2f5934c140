"""Rollouts: moving a route's traffic to a canary, step by step, and judging by what gateways count.

`machine` decides, purely; `judge` compares the sides; `confidence` says how sure anybody can be.
"""
