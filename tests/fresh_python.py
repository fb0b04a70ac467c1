"""Code in an interpreter that has imported nothing yet."""

import subprocess
import sys


def run_python(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run code; return what it printed."""
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
