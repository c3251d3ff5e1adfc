#!/usr/bin/env bash
# Sets up the environment if need be, lints, and runs all tests.
#   bash test.sh                       everything that CI runs
#   bash test.sh tests/bpe -k encode   arguments go to pytest (-m slow: the long ones)
set -euo pipefail
export OMP_WAIT_POLICY=PASSIVE  # two test workers share the cores: a thread that waits must not spin
# shellcheck source=setup.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"

use_python
install requirements-dev.txt

say "lint"
"$PYTHON" -m ruff check .
scripts=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("scripts"))')
"$scripts/shellcheck" setup.sh train.sh generate.sh test.sh .ci/run

say "tests"
exec "$PYTHON" -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
