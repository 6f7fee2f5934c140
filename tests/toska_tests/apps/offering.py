"""An app that asks the gateway for a route of its own."""

from fastapi import FastAPI
from toska_common import Mesh

app = FastAPI()
mesh = Mesh(
    app,
    name="offering",
    expose=False,
    routes=[{"name": "slow", "match": {"path_prefix": "/offering/slow"}, "policies": {"timeout": "60s"}}],
)


@app.get("/slow")
def get_slow() -> dict[str, str]:
    return {"served": "slow"}
