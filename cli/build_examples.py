"""Build hook: put the examples' sources into the wheel, as `toska_cli/example_sources`.

There is one copy of them, at the top of the repository, where a reader looks for it; an editable install uses that.
"""

from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ExamplesHook(BuildHookInterface[BuilderConfig]):
    """Adds the folder to wheels alone."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before a build; `version` is `standard` or `editable`."""
        if version == "standard":
            build_data["force_include"]["../examples"] = "toska_cli/example_sources"
