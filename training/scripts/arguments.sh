# shellcheck shell=bash
# Sourced by the scripts beside it, after they have set `usage`: finds the code, and refuses wrong arguments.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
# The current folder stays the user's, and is no place for Python to look for our packages (3.10 looks all the same).
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1
python=${PYTHON:-python}

refuse() { # MESSAGE
  printf 'error: %s\n%s\n' "$1" "${usage:?}" >&2
  exit 2
}

need_file() { # NAME PATH
  [[ -f $2 ]] || refuse "$1 $2 is not a file"
}

need_folder() { # NAME PATH
  [[ -d $2 ]] || refuse "$1 $2 is not a folder"
}

need_number() { # NAME VALUE
  [[ $2 =~ ^[0-9]+$ ]] || refuse "$1 $2 is not a number"
}

command -v "$python" >/dev/null || refuse "there is no $python: set PYTHON to an interpreter"
