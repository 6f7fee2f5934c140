"""The log and its groups together: who is fed from where, when what they settled is stored, where a start is."""
