"""A service in a process of its own, so that its memory, threads and descriptors can be seen.

Arguments: persist directory, namespace, containerd's socket, the service's socket, an allowed
directory. Serves until its standard input ends.
"""

import sys
from pathlib import Path

from cas.app import Case
from cas.model.settings import Settings
from tests.support.serving import server_of


def main() -> None:
    """Serve."""
    persist, namespace, address, socket, allowed = sys.argv[1:]
    settings = Settings(
        persist=Path(persist),
        namespace=namespace,
        address=Path(address),
        allowed_directories=(Path(allowed),),
        owners=dict.fromkeys(("root", "downloader", "verifier", "volumemgr"), "root"),
    )
    with Case.open(settings) as case, server_of(case, Path(socket)) as server:
        server.set_serving(True)
        print("serving", flush=True)
        sys.stdin.read()
        print("ended" if server.stop(grace_seconds=10) else "stuck", flush=True)


if __name__ == "__main__":
    main()
