"""Processor time of a command: unlike the clock, it does not depend on what else the machine does."""

import resource
import subprocess
import sys


def run_python(code: str, *words: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """Run code in a fresh interpreter; return what it printed and its processor seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
