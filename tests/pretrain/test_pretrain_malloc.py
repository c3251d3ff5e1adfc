"""A program that starts itself again: the same process, the same words, once."""

import os
import subprocess
import sys

import malloc
import pytest

SCRIPT = """
import malloc, os, sys
malloc.restart_without_caches()
print(os.getpid(), os.environ["GLIBC_TUNABLES"], sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="GLIBC_TUNABLES are Linux's")
@pytest.mark.parametrize("chosen", [None, "glibc.malloc.tcache_count=3"])
def test_the_program_starts_again_as_it_was_called(chosen):
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    environment |= {"PYTHONPATH": os.path.dirname(malloc.__file__)} | ({"GLIBC_TUNABLES": chosen} if chosen else {})
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", SCRIPT, "--out", "a b"], env=environment,
                          stdout=subprocess.PIPE, text=True) as process:
        text, _ = process.communicate(timeout=60)
    assert text == f"{process.pid} {chosen or 'glibc.malloc.tcache_count=0'} ['--out', 'a b']\n"


def test_memory_is_given_back_where_the_library_can():
    malloc.return_freed_memory()
