#!/usr/bin/env bash
# From nothing to a small language model that follows instructions.
#
#   bash train.sh                    everything, on the offline `stories` data: minutes on 2 CPU cores
#   bash train.sh bpe [flags]        one stage: tokenizer and token shards; flags go to `bpe/run.py train`
#   bash train.sh pretrain [flags]   ... the base model; flags go to pretrain/model.py
#   bash train.sh lora [flags]       ... LoRA beside full fine-tuning; with flags, one run of lora/train.py, on the base
#                                    that was made here unless --model_name_or_path names another
#   bash train.sh --name NAME --text FILE_OR_FOLDER [--instructions FILE] [STAGE [flags]]
#                                    the same pipeline on your own text and instructions; `lora` with flags fine-tunes
#                                    NAME's base on them; what `data/prepare.py file ... --name NAME` has made, with flags
#                                    of your own, is taken as it is where --text or --instructions is left out
#   --force                          makes anew what is up to date
#
# A step is skipped when the same command has already run on the same input files; without flags of its own a stage
# keeps what other flags have made of them.
# Ctrl-C stops; the same command again continues where it stopped.
set -euo pipefail
# shellcheck source=setup.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"

NAME=stories NAMED='' TEXT='' INSTRUCTIONS='' FORCE='' STAGE='' FLAGS=()
while [ $# -gt 0 ]; do
    case $1 in
        --name=* | --text=* | --instructions=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
    esac
    case $1 in
        -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' train.sh; exit 0 ;;
        --force) FORCE=1 ;;
        --name | --text | --instructions)
            [ -n "${2:-}" ] || die "$1 needs a value; see bash train.sh --help"
            case $1 in --name) NAME=$2 NAMED=1 ;; --text) TEXT=$(from_caller "$2") ;; *) INSTRUCTIONS=$(from_caller "$2") ;; esac
            shift ;;
        bpe | pretrain | lora)
            STAGE=$1; shift
            flags_from_caller "$@"
            break ;;
        *) die "unknown argument '$1'; the stages are bpe, pretrain and lora; see bash train.sh --help" ;;
    esac
    shift
done
check_name "$NAME"
[ -z "$TEXT$INSTRUCTIONS" ] || [ "$NAME" != stories ] || die "--text and --instructions need --name NAME as well"
for file in "$TEXT" "$INSTRUCTIONS"; do [ -z "$file" ] || [ -e "$file" ] || die "no such file: $file"; done

use_python
install requirements.txt

# The help of a stage's own flags is all that is asked for: nothing is prepared, and no run is moved aside.
case $STAGE in bpe) script=(bpe/run.py train) ;; pretrain) script=(pretrain/model.py) ;; lora) script=(lora/train.py) ;; esac
for word in "$@"; do
    case $word in -h | --help) exec "$PYTHON" "${script[@]}" "$@" ;; esac
done

# has_flag NAME WORD...: whether --NAME or --NAME=... is among the words, with _ or - as the scripts read it.
has_flag() {
    local flag=$1 word
    for word in "${@:2}"; do
        word=${word%%=*}
        [ "${word//-/_}" != "__$flag" ] || return 0
    done
    return 1
}

# The folders that the stages hand on have the pipeline's names; a stage with others would leave the next one without.
case $STAGE in bpe) folders=(out) ;; pretrain) folders=(out export data) ;; *) folders=() ;; esac
for name in ${folders[@]+"${folders[@]}"}; do
    ! has_flag "$name" "$@" ||
        die "--$name: here the folders follow from --name NAME; for folders of your own: $PYTHON ${script[*]} --help"
done

text=data/text/$NAME tokenizer=data/tokenizer/$NAME tokens=data/tokens/$NAME base=data/models/$NAME
instructions=data/instructions/$NAME run=data/runs/pretrain/$NAME tuned=data/runs/lora/$NAME
choices=data/choices/$NAME.jsonl

exec 3>&1  # the screen, also for a step whose output goes to a log

# attended COMMAND...: runs it, and hands SIGTERM on; bash by itself would first wait for the end of a COMMAND in front.
# Traps only take note: a wait within a trap can miss the end of what the wait outside has just seen. What bash runs in
# the background ignores Ctrl-C; in bash 3.2 (macOS) a subshell cannot undo that, Python can.
attended() {
    local worker='' status=0 ended='' undo=()
    [ "${BASH_VERSINFO[0]}" -gt 3 ] || undo=("$PYTHON" -c 'import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])')
    trap 'ended=143; [ -z "$worker" ] || kill -TERM "$worker" 2>/dev/null || true' TERM
    trap 'ended=130' INT  # Ctrl-C reaches it too
    (trap - INT TERM; exec ${undo[@]+"${undo[@]}"} "$@") <&0 &
    worker=$!
    [ -z "$ended" ] || kill -TERM "$worker" 2>/dev/null || true
    wait "$worker" || status=$?
    while kill -0 "$worker" 2>/dev/null; do  # it was a signal that ended the wait
        status=0
        wait "$worker" || status=$?
    done
    trap - INT TERM
    [ -z "$ended" ] || exit "$ended"
    return "$status"
}

# step STEP OUTPUT [INPUT...] -- COMMAND...: runs COMMAND, unless the same COMMAND has already made OUTPUT from the same
# INPUT files, compared by name and content. Of its words the last `own` are flags that the user gave; without any, an
# OUTPUT of other flags is kept. The run folder of an interrupted COMMAND is kept for it to continue in; that of another
# COMMAND (other settings, other inputs) is moved aside, and back if the other one is refused (status 2).
step() {
    local name=$1 output=$2 inputs=() stamp key flags='' before was='' was_key='' was_flags='' aside='' status own=${own:-0} word files
    shift 2
    while [ "$1" != -- ]; do
        [ -e "$1" ] || die "$name: there is no $1; give --text FILE (for instructions: --instructions FILE)"
        inputs+=("$1"); shift
    done
    shift
    mkdir -p data/runs/steps || die "cannot write data/runs; is the disk full, or the folder read-only?"
    stamp=data/runs/steps/$NAME-$name
    # The stamp: what became of it, hashes of the inputs, of the command and of the files that the user's flags name,
    # then these flags. The interpreter is no part of it.
    files=()
    for word in "${@:$# - own + 1}"; do
        word=${word#--*=}
        [ ! -f "$word" ] || files+=("$word")
    done
    key=$(contents_of "${inputs[@]:-/dev/null}"),$(printf '%s\n' "${@:2:$# - own - 1}" | hash_of)
    [ "$own" = 0 ] || flags=$(spelled "${@:$# - own + 1}")
    flags=,$(contents_of "${files[@]:-/dev/null}")$flags
    before=$(cat "$stamp" 2>/dev/null || true)
    read -r was was_key was_flags 2>/dev/null <"$stamp" || true  # no <<<: in bash 3.2 it needs room on the disk
    [[ $was_key == *,*,* ]] || was_flags=''  # a stamp of an older version of this script
    was_flags=${was_flags:+ $was_flags}
    if [ -z "$FORCE" ] && [ -e "$output" ] && [ "$was ${was_key%,*}" = "done $key" ]; then
        if [ "$before" = "done $key$flags" ]; then
            say "$name: up to date ($output)"
            return
        elif [ "$own" = 0 ]; then
            say "$name: kept as made with$was_flags ($output); --force makes it anew without"
            return
        fi
    fi
    [ "$own" != 0 ] || [ -z "$was_flags" ] || say "$name: made anew without the flags of before:$was_flags" >&3
    if [ -e "${run_folder:-}" ] && { [ -n "$FORCE" ] || [ "$before" != "started $key$flags" ]; }; then
        check_unused "$run_folder"
        aside=$run_folder.$(date +%Y%m%d-%H%M%S)
        mv "$run_folder" "$aside"
        say "$name: the run in $run_folder had other settings or inputs; it is now $aside" >&3
    fi
    say "$name: python$(printf ' %q' "${@:2}")"  # can be copied
    put_stamp "$stamp" "started $key$flags" || { [ -z "$aside" ] || put_back; exit 2; }
    attended "$@" || {
        status=$?
        if [ "$status" = 2 ] && [ ! -e "${run_folder:-}" ]; then  # refused: all is as it was
            put_stamp "$stamp" "$before"
            [ -z "$aside" ] || put_back
        fi
        exit "$status"
    }
    put_stamp "$stamp" "done $key$flags"
}

# put_back: undoes the step's moving aside.
put_back() { mv "$aside" "$run_folder"; say "$name: refused; $aside is $run_folder again" >&3; }

# put_stamp STAMP WORDS: in one step, so that on a full disk the old one stays, and with it the run that it stands for.
put_stamp() {
    { printf '%s\n' "$2" >"$1.tmp" && mv "$1.tmp" "$1"; } 2>/dev/null || {
        rm -f "$1.tmp"
        printf 'error: cannot write %s; is the disk full, or the folder read-only?\n' "$1" >&2
        return 2
    }
}

# spelled WORD...: the words quoted, flags in one spelling: --a-b=1 as --a_b 1.
spelled() {
    local word name
    for word in "$@"; do
        name=${word%%=*} name=${name#--}
        case $word in
            --*=*) printf ' --%s %q' "${name//-/_}" "${word#*=}" ;;
            --*) printf ' --%s' "${name//-/_}" ;;
            *) printf ' %q' "$word" ;;
        esac
    done
}

# check_unused RUN_FOLDER: ends here if a job holds the lock that pretraining and fine-tuning take (macOS has no flock(1)).
check_unused() {
    [ ! -e "$1/.lock" ] || "$PYTHON" -c 'import fcntl, sys
fcntl.flock(open(sys.argv[1], "a"), fcntl.LOCK_EX | fcntl.LOCK_NB)' "$1/.lock" 2>/dev/null ||
        die "a job is running in $1; wait for it, or stop it"
}

# die_of STATUS LOG: ends like the command that wrote LOG did, with its last words.
die_of() {
    tail -n 3 "$2" >&2
    exit "$1"
}

prepare() {
    if [ "$NAME" = stories ]; then
        step data "$text" data/stor*.py -- "$PYTHON" data/prepare.py stories
    else
        [ -z "$TEXT" ] || step text "$text" "$TEXT" -- "$PYTHON" data/prepare.py file "$TEXT" --name "$NAME" --kind text --val_share 0.05
        [ -z "$INSTRUCTIONS" ] || step instructions "${instructions}_train.json" "$INSTRUCTIONS" -- \
            "$PYTHON" data/prepare.py file "$INSTRUCTIONS" --name "$NAME" --kind instructions
    fi
}

bpe() {
    own=$# step tokenizer "$tokenizer/tokenizer.json" "$text/train.txt" -- \
        "$PYTHON" bpe/run.py train "$text/train.txt" --vocab_size 4096 --special_tokens '<|endoftext|>' \
        --out "$tokenizer" "$@"
    step tokens "$tokens/manifest.json" "$tokenizer/tokenizer.json" "$text" -- \
        "$PYTHON" bpe/run.py encode "$text" --tokenizer "$tokenizer" --out "$tokens"
    step compare "data/runs/bpe/$NAME-compare.json" "$tokenizer/tokenizer.json" "$text/val.txt" -- \
        "$PYTHON" bpe/run.py compare "$tokenizer" gpt2 --files "$text/val.txt" --tokens 0 \
        --json "data/runs/bpe/$NAME-compare.json"
}

pretrain() {
    local with_choices=() preset=text
    [ "$NAME" != stories ] || preset=stories
    [ ! -e "$choices" ] || with_choices=(--choices "$choices")
    own=$# run_folder=$run step pretrain "$base/model.safetensors" "$tokens/manifest.json" pretrain/presets.py -- \
        "$PYTHON" pretrain/model.py --preset "$preset" --data "$tokens" --out "$run" --resume auto \
        --export "$base" ${with_choices[@]+"${with_choices[@]}"} "$@"
    [ ! -e "$run/metrics.jsonl" ] ||  # the model stands, its run was deleted
        step curves "$run/loss.png" "$run/metrics.jsonl" -- "$PYTHON" pretrain/plot.py "$run" --out "$run"
}

lora() {
    if [ $# -gt 0 ]; then
        local of_name=()  # later flags win; records of the user's own bring an evaluation set of their own
        if [ -n "$NAMED" ] || { [ -e "$base/model.safetensors" ] && ! has_flag model_name_or_path "$@"; }; then
            of_name=(--model_name_or_path "$base")
            has_flag data_path "$@" || of_name+=(
                --data_path "${instructions}_train.json" --eval_data_path "${instructions}_val.json")
        fi
        attended "$PYTHON" lora/train.py ${of_name[@]+"${of_name[@]}"} "$@"
        return
    fi
    [ -e "$base/model.safetensors" ] || die "there is no base model $base to fine-tune; make it with: bash train.sh ${NAMED:+--name $NAME }pretrain"
    if [ ! -e "${instructions}_train.json" ]; then
        say "lora: no instructions for '$NAME'; give some with --instructions FILE"
        return
    fi
    local beside log=$tuned-full.log threads common=("$PYTHON" lora/train.py --model_name_or_path "$base"
        --data_path "${instructions}_train.json" --eval_data_path "${instructions}_val.json" --template plain --epochs 0.9
        --train_batch_size 16 --gradient_accumulation_steps 1 --eval_interval 250)
    check_unused "$tuned-full"
    check_unused "$tuned-lora"
    # So small a model gains nothing from a second core: the full fine-tuning runs beside the adapter's, half the cores
    # each, in a process group of its own. What ends this script ends it too, after it has saved its state.
    threads=$((($(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN) + 1) / 2))  # macOS has no nproc
    mkdir -p "${log%/*}"
    say "full: beside lora; what it says goes to $log"
    set -m
    OMP_NUM_THREADS=$threads NUMBA_NUM_THREADS=$threads run_folder=$tuned-full step full "data/models/$NAME-full" "$base/model.safetensors" "${instructions}_train.json" -- \
        "${common[@]}" --use_lora False --lr 1e-3 --output_dir_name "$NAME-full" --model_out "data/models/$NAME-full" \
        >"$log" 2>&1 &
    beside=$!
    set +m
    # shellcheck disable=SC2064  # a local variable, gone when the trap runs
    trap "kill -TERM $beside 2>/dev/null && wait $beside || true" EXIT
    OMP_NUM_THREADS=$threads NUMBA_NUM_THREADS=$threads run_folder=$tuned-lora step lora "data/adapters/$NAME-lora" "$base/model.safetensors" "${instructions}_train.json" -- \
        "${common[@]}" --use_lora True --lora_dim 32 --lora_scaling 64 --lr 2e-3 --output_dir_name "$NAME-lora" --adapter_out "data/adapters/$NAME-lora"
    wait "$beside" || die_of "$?" "$log"
    trap - EXIT
    tail -n 1 "$log"
    step replies "$tuned-replies.jsonl" "data/adapters/$NAME-lora" "data/models/$NAME-full" "${instructions}_val.json" -- \
        "$PYTHON" lora/generate.py --base "$base" --full "data/models/$NAME-full" --adapters "data/adapters/$NAME-lora" \
        --template plain --records "${instructions}_val.json" --replies "$tuned-replies.jsonl"
    [ "$NAME" != stories ] || step scores "$tuned-scores.json" "$tuned-replies.jsonl" -- \
        "$PYTHON" data/checkers.py "$tuned-replies.jsonl" --json "$tuned-scores.json"
}

case $STAGE in
    '') prepare; bpe; pretrain; lora ;;
    bpe) prepare; bpe ${FLAGS[@]+"${FLAGS[@]}"} ;;
    pretrain) prepare; bpe; pretrain ${FLAGS[@]+"${FLAGS[@]}"} ;;
    lora) [ -z "$TEXT$INSTRUCTIONS" ] || prepare; lora ${FLAGS[@]+"${FLAGS[@]}"} ;;
esac
old=()  # made from other files than there are now
! outdated pretrain "$tokens/manifest.json" pretrain/presets.py || old+=(pretrain)
for kind in full lora; do
    ! outdated "$kind" "$base/model.safetensors" "${instructions}_train.json" || old+=("$kind")
done
"$PYTHON" data/summary.py "$NAME" ${old[@]+"${old[@]}"}
