# shellcheck shell=bash
# Sourced by train.sh, generate.sh and test.sh: goes to ROOT, this folder; use_python sets PYTHON, install what it lacks.
#   PYTHON=/path/to/python bash train.sh   uses that interpreter as it is and installs nothing
#   an active virtual environment          is used, and gets the requirements
#   neither                                makes .venv beside this file
# A requirements file is installed once: its hash is kept inside the environment.

CALLER=$PWD
ROOT=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
cd -- "$ROOT" || exit 1

say() { printf '\n== %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 2; }
if command -v sha256sum >/dev/null; then SHA256=(sha256sum); else SHA256=(shasum -a 256); fi  # macOS has the latter

# hash_of: the hash of what it reads, alone. contents_of PATH...: one of the names and contents of all files there.
hash_of() { "${SHA256[@]}" | cut -d ' ' -f 1; }
contents_of() { find -L "$@" -type f ! -name .DS_Store -exec "${SHA256[@]}" {} + | LC_ALL=C sort | hash_of; }

# outdated STEP INPUT...: whether the stamp of this step of train.sh is of other INPUT files than are there now, or of a
# command that was interrupted. An old script's stamp tells nothing.
outdated() {
    local stamp file
    # shellcheck disable=SC2153  # of the script that this one is part of
    stamp=$(cat "data/runs/steps/$NAME-$1" 2>/dev/null || true)
    for file in "${@:2}"; do [ -e "$file" ] || return 1; done
    [[ $stamp == *\ *,*,* && $stamp != "done $(contents_of "${@:2}"),"* ]]
}

# Transparent huge pages for PyTorch's CPU allocator (1.2x in pretraining); glibc reads it before Python starts.
export THP_MEM_ALLOC_ENABLE="${THP_MEM_ALLOC_ENABLE:-1}" TOKENIZERS_PARALLELISM=false

# check_name NAME: the names that data/prepare.py takes; NAME becomes part of many paths.
check_name() {
    [[ $1 =~ ^[A-Za-z0-9_][A-Za-z0-9._-]*$ ]] || die "--name '$1': letters, digits, dot, dash and underscore only"
}

# from_caller PATH: PATH, made absolute if it is a file or folder where the user called from.
from_caller() {
    if [[ $1 != /* ]] && [ -e "$CALLER/$1" ]; then printf '%s\n' "$CALLER/$1"; else printf '%s\n' "$1"; fi
}

# flags_from_caller WORD...: sets FLAGS to the words, the paths among them made absolute. Which word is a path only the
# stage knows: an existing file is taken for one, a folder only with a slash (300 and lora are values of flags as well)
# or after a flag that takes folders; what a run is to make need not exist yet.
flags_from_caller() {
    local word flag='' name  # name: `--flag=`, where the word begins with it
    FLAGS=()
    for word in "$@"; do
        name=''
        [[ $word != --*=* ]] || { flag=${word%%=*} name=${word%%=*}= word=${word#*=}; }
        if [[ -n $word && $word != [-/]* && ! $CALLER -ef $ROOT ]]; then
            case ${flag//_/-} in  # the scripts read both
                --adapter-out | --model-out | --out | --save-counts) word=$CALLER/$word ;;
                --adapters | --full | --base | --model-name-or-path | --lora-load-path | --init-from | --config | --prompt-file)
                    word=$(from_caller "$word") ;;
                --prompt | --input) ;;  # a text, whatever files there are
                --output-dir-name) [[ $word != */* ]] || word=$CALLER/$word ;;
                *) [[ $word != */* && ! -f $CALLER/$word ]] || word=$(from_caller "$word") ;;
            esac
        fi
        FLAGS+=("$name$word")
        [[ $word != --* ]] || flag=$word  # of all words up to the next flag
    done
}

# use_python: which interpreter; makes .venv if there is no other.
use_python() {
    if [ -n "${PYTHON:-}" ]; then
        [[ $PYTHON != */* ]] || PYTHON=$(from_caller "$PYTHON")
        command -v "$PYTHON" >/dev/null || die "PYTHON=$PYTHON is not a program; unset it to let $ROOT/.venv be made"
        KEEP_AS_IS=1
    elif [ -n "${VIRTUAL_ENV:-}" ]; then
        PYTHON=$VIRTUAL_ENV/bin/python
    else
        PYTHON=$ROOT/.venv/bin/python
        if ! "$PYTHON" -c '' 2>/dev/null; then
            recent python3 ||
                die "Python 3.11 or newer is needed as python3; or make the environment with one: /path/to/python3 -m venv '$ROOT/.venv'"
            say "making .venv"
            python3 -m venv --clear "$ROOT/.venv" || die "python3 -m venv failed; on Debian: apt-get install python3-venv"
        fi
    fi
    recent "$PYTHON" || die "$PYTHON is no Python 3.11 or newer; deactivate its environment, or name another: PYTHON=..."
    export PYTHON
}

# recent PYTHON: whether this interpreter runs and is new enough.
recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# install FILE: the requirements in FILE, unless this environment has had exactly these.
install() {
    [ -z "${KEEP_AS_IS:-}" ] || return 0
    local stamp want
    stamp=$("$PYTHON" -c 'import sys; print(sys.prefix)')/.installed-$(basename "$1")
    want=$(cat "$ROOT"/requirements*.txt | "${SHA256[@]}")
    [ "$(cat "$stamp" 2>/dev/null)" != "$want" ] || return 0
    say "installing $1 (once; PyTorch is the large one)"
    "$PYTHON" -m pip --version >/dev/null 2>&1 || "$PYTHON" -m ensurepip >/dev/null || true  # making .venv was stopped
    "$PYTHON" -m pip install --quiet --disable-pip-version-check -r "$ROOT/$1" ||
        die "pip could not install $1; with no network, install its packages by hand and name that Python: PYTHON=... bash $0"
    printf '%s\n' "$want" >"$stamp"
}
