"""Run a script as a command, and write its exit status and the threads that are left then.

    torchrun --nproc_per_node=2 tests/show_threads.py FOLDER SCRIPT [flags]      # writes FOLDER/0 and FOLDER/1
"""

import os
import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    folder, *sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(sys.argv[0])
    status = None
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as leaving:
        status = leaving.code
    threads = sorted((task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir())
    Path(folder, os.environ["RANK"]).write_text("\n".join([str(status), *threads]))
