"""`python -m toska_gateway.worker.filters`: tries whether filters can be had, in a process that may come to harm.

Standard input is JSON: {"folder", "filters": [{"at", "use", "settings"}]}. Standard output is a list of what is wrong:
[{"field": at, "reason"}]. What the filters' own code prints goes to standard error.
"""

import json
import os
import sys

from toska_gateway.worker.filters.loading import UnusableFilter, add_folder, load_filter


def main() -> None:
    """Import each, and make an instance with its settings."""
    answer = os.dup(1)
    os.dup2(2, 1)
    asked = json.load(sys.stdin)
    add_folder(asked["folder"])
    problems: list[dict[str, str]] = []
    for item in asked["filters"]:
        try:
            load_filter(item["use"], item["settings"])
        except UnusableFilter as error:
            problems.append({"field": item["at"], "reason": str(error)})
    with os.fdopen(answer, "w", encoding="utf-8") as out:
        json.dump(problems, out)
    # Threads that an imported module has started must not keep this from ending.
    sys.stderr.flush()
    os._exit(0)


main()
