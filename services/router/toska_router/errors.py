"""The router's errors, besides the shared ones of `toska_common.errors` and `InvalidDocument` of the routing library.

Conflict
├── OwnedElsewhere        409  caller    a file, or a service that asked for it, has the route or cluster
├── ClusterInUse          409  caller    something leads to the cluster; `routes`, `policies`, `clusters` name it
├── PolicyInUse           409  caller    routes name the policy; `routes` names them
├── RolloutUnderWay       409  caller    a rollout or experiment has the route, and has to come to its end first
├── NotUnderWay           409  caller    the rollout is in no state for what is asked
├── ExperimentUnderWay    409  caller    an experiment or rollout has the routes
└── ExperimentOver        409  caller    there is nothing to stop
UpstreamUnavailable
├── NoSnapshotYet         503  upstream  the registry was not seen since the router started
└── NoEndpoint            503  upstream  the cluster or service has no endpoint to select, or all are excluded
"""

from toska_common.errors import Conflict, UpstreamUnavailable


class OwnedElsewhere(Conflict):
    """The API does not change what another source has."""

    code, title = "owned-elsewhere", "Comes from another source"


class ClusterInUse(Conflict):
    """Routes or policies lead to the cluster; change them first."""

    code, title = "cluster-in-use", "Cluster in use"


class PolicyInUse(Conflict):
    """Routes name the policy; change them first."""

    code, title = "policy-in-use", "Policy in use"


class NoSnapshotYet(UpstreamUnavailable):
    """Nothing to give: a snapshot without endpoints would take good ones away from gateways."""

    code, title = "no-snapshot-yet", "No snapshot yet"

    @property
    def headers(self) -> dict[str, str]:
        return {"retry-after": "1"}


class NotUnderWay(Conflict):
    """The rollout is over, or is not in a state for this."""

    code, title = "rollout-not-under-way", "Rollout is not under way"


class RolloutUnderWay(Conflict):
    """It has to come to its end first."""

    code, title = "rollout-under-way", "Rollout under way"


class ExperimentUnderWay(Conflict):
    """It has to come to its end first, or what it would hit is taken."""

    code, title = "experiment-under-way", "Experiment under way"


class ExperimentOver(Conflict):
    """There is nothing to stop."""

    code, title = "experiment-over", "Experiment is over"


class NoEndpoint(UpstreamUnavailable):
    """Nobody is there to be selected."""

    code, title = "no-endpoint-to-select", "No endpoint to select"
