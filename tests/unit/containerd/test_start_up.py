"""What importing the adapter costs."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["cas.containerd", "cas.containerd.config"])
def test_import_without_a_connection_does_not_load_grpc(module: str) -> None:
    """Commands that only look at settings start quickly."""
    program = f"import sys, {module}; sys.exit('grpc' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
