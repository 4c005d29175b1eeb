# shellcheck shell=bash
# Sourced by the other scripts, after they have set `usage`: finds the code and checks arguments.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
# The current folder stays the user's. PYTHONSAFEPATH keeps Python from importing from it (3.10 ignores the variable).
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1
python=${PYTHON:-python}

fail() { # MESSAGE
  printf 'error: %s\n%s\n' "$1" "${usage:?}" >&2
  exit 2
}

need_file() { # NAME PATH
  [[ -f $2 ]] || fail "$1 $2 is not a file"
}

need_folder() { # NAME PATH
  [[ -d $2 ]] || fail "$1 $2 is not a folder"
}

need_number() { # NAME VALUE
  [[ $2 =~ ^[0-9]+$ ]] || fail "$1 $2 is not a number"
}

command -v "$python" >/dev/null || fail "there is no command $python: set PYTHON to a Python interpreter"
