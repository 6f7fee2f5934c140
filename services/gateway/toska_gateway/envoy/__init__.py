"""The Envoy engine: a real Envoy beside the gateway, told what to do over a stream of its own (ADS).

snapshot ──refusals, files of TLS──▶ translation ──▶ stream ──▶ Envoy ──accepted──▶ in force
                    └──▶ SnapshotRejected                        └──rejected──▶ what was before is put back

The same way serves `toska gateway --routes FILE` and a whole mesh: a gateway follows its file or its router as ever, so
the last good snapshot, certificates and refusals are what they are with the Python engine, and Envoy goes on while
router and registry are away.
"""
