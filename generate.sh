#!/usr/bin/env bash
# Answers prompts with the base model, the fully fine-tuned one and the LoRA-tuned one, side by side.
#
#   bash generate.sh                      a few prompts of our own
#   bash generate.sh --prompt "..."       yours; more flags: see lora/generate.py --help
#   bash generate.sh --interactive        asks for prompts
#   bash generate.sh --name NAME ...      the models that `bash train.sh --name NAME` made
set -euo pipefail
# shellcheck source=setup.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"

NAME=stories WORDS=()
while [ $# -gt 0 ]; do
    case $1 in
        --name=* | --replies=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    esac
    case $1 in
        --name | --replies) [ -n "${2:-}" ] || die "$1 needs a value; see bash generate.sh --help" ;;
    esac
    case $1 in
        -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' generate.sh; exit 0 ;;
        --name) NAME=$2; shift ;;
        --replies)  # a file that need not exist yet: it goes where the user is
            [[ $2 == /* ]] || set -- "$1" "$CALLER/$2" "${@:3}"
            WORDS+=("$1" "$2"); shift ;;
        *) WORDS+=("$1") ;;
    esac
    shift
done
check_name "$NAME"
flags_from_caller ${WORDS[@]+"${WORDS[@]}"}
base=data/models/$NAME full=data/models/$NAME-full adapter=data/adapters/$NAME-lora
[ -e "$base/model.safetensors" ] || {
    name_flag=''
    [ "$NAME" = stories ] || name_flag=" --name $NAME --text FILE"
    die "there is no model $base yet; make it with: bash train.sh$name_flag"
}
use_python
install requirements.txt

# add STEP FLAG FOLDER FILE: shows what STEP of train.sh made, unless it would make that anew.
models=(--base "$base")
add() {
    [ -e "$3/$4" ] || return 0
    if outdated "$1" "$base/model.safetensors" "data/instructions/${NAME}_train.json"; then
        printf 'note: %s is left out: it was made from another base or other instructions; %s\n' "$3" \
            "bash train.sh$([ "$NAME" = stories ] || echo " --name $NAME") makes it anew" >&2
    else
        models+=("$2" "$3")
    fi
}
add full --full "$full" model.safetensors
add lora --adapters "$adapter" adapter_model.safetensors
[ ${#models[@]} -gt 2 ] || models+=(--template plain)  # else as the tuned ones were trained
exec "$PYTHON" lora/generate.py "${models[@]}" ${FLAGS[@]+"${FLAGS[@]}"}
