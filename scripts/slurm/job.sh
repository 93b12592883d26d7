# Functions of the job scripts that scripts/slurm/submit.py writes, which source this file:
#
#   stage COMMAND...   run a stage; with ALLOW_INCOMPLETE=1 its exit code 3 is a success
#   run COMMAND...     run a command
#   part COMMAND...    run a command whose exit code 3 is for the next one to deal with
#   finish             leave the mark by which submit.py knows that this task is done
#
# LEAVE_SECONDS before its time limit the job gets SIGUSR1 (#SBATCH --signal=B:USR1@...). The command stops, exits with 143, and
# the job requeues itself, at most MAX_RESTARTS (50) times. SIGTERM (scancel, preemption) is passed on, too; whether the job runs
# again is then for SLURM to say. No other exit code requeues. Submit again: only what has failed runs.

# The id of this task alone: SLURM_JOB_ID of the last task of an array is also the id of the whole array.
task=$SLURM_JOB_ID
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then task=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID; fi
mark=$JOB_MARK${SLURM_ARRAY_TASK_ID:+-$SLURM_ARRAY_TASK_ID}
# Where a command leaves what it failed with, for scripts/status.py.
export TOPXGEN_FAILURE=$JOB_FAILURE${SLURM_ARRAY_TASK_ID:+-$SLURM_ARRAY_TASK_ID}.json
rm -f "$mark" "$TOPXGEN_FAILURE"
asked="" child=""

# A full disk for logs must not end a job.
log() { echo "$(date '+%F %T') job $task ($SLURM_JOB_NAME): $*" 2>/dev/null || true; }

# Called by the traps.
ask() {
    if [ -n "$asked" ]; then return; fi
    asked=$1
    log "SIG$1: stopping"
    if [ -n "$child" ]; then kill -"$1" "$child" 2>/dev/null || true; fi
}
trap 'ask USR1' USR1
trap 'ask TERM' TERM

requeue() {
    if [ "${SLURM_RESTART_COUNT:-0}" -ge "${MAX_RESTARTS:-50}" ]; then
        log "not requeued after ${SLURM_RESTART_COUNT:-0} restarts (MAX_RESTARTS); submit again"
    else
        log "requeuing"
        scontrol requeue "$task" || log "requeuing failed; submit again"
    fi
    exit 143
}

stop() {
    if [ "$asked" = TERM ]; then
        log "stopped by SIGTERM; after a preemption SLURM starts the job again, after scancel submit again"
        exit 143
    fi
    requeue
}

run() {
    if [ -n "$asked" ]; then stop; fi
    # Bash runs a trap only when the command in the foreground has ended, or in `wait`. TOPXGEN_PARENT: a stage ends with this shell.
    TOPXGEN_PARENT=$$ "$@" &
    child=$!
    local status=0 again=0
    if [ -n "$asked" ]; then kill -"$asked" "$child" 2>/dev/null || true; fi
    wait "$child" || status=$?
    if [ -n "$asked" ]; then # a trap has ended `wait`
        timeout "${LEAVE_SECONDS:-90}" tail --pid="$child" -f /dev/null || {
            log "the command does not stop"
            stop
        }
        wait "$child" || again=$?
        if [ "$again" != 127 ]; then status=$again; fi # 127: it had ended before
    fi
    child=""
    case $status in
    0) return ;;
    143) stop ;;
    2) log "exit code 2, bad input: see above. The jobs after this one are cancelled; correct what is wrong and submit again" ;;
    3)
        if [ "${incomplete_is_success:-}" = 1 ]; then
            log "exit code 3, finished, but incomplete: going on"
            return
        fi
        log "exit code 3, finished, but incomplete: see above. The jobs after this one are cancelled; submit again"
        ;;
    137) log "exit code 137, killed, perhaps for its memory: see above. The jobs after this one are cancelled; submit again" ;;
    *) log "exit code $status: see above. The jobs after this one are cancelled; submit again" ;;
    esac
    if [ ! -e "$TOPXGEN_FAILURE" ]; then # it could not say so itself
        mkdir -p "${TOPXGEN_FAILURE%/*}"
        printf '{"exit_code": %d, "failed": "%s"}\n' "$status" "$(date -u +%FT%T+00:00)" >"$TOPXGEN_FAILURE"
    fi
    exit "$status"
}

stage() {
    local incomplete_is_success=${ALLOW_INCOMPLETE:-0}
    run "$@"
}

part() {
    local incomplete_is_success=1
    run "$@"
}

finish() {
    mkdir -p "${mark%/*}"
    echo "$JOB_DIGEST" >"$mark.partial"
    mv "$mark.partial" "$mark"
    log "done"
}

log "restart ${SLURM_RESTART_COUNT:-0} on ${SLURMD_NODENAME:-$(hostname)}"
