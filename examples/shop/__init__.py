"""Filters for the gateway, to try and to copy: `TOSKA_FILTERS_PATH=examples toska gateway --routes shop.yaml`."""
