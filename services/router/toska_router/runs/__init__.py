"""What rollouts and experiments have in common: state in the database, a leader, counts of gateways, overlays.

`store` keeps them; `tallies` hears gateways; `leading` holds the lock; `overlays` puts them over operators' routes.
"""
