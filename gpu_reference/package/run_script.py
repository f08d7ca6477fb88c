"""The script in a package that measures the machine it is on."""

RUN_SCRIPT = "run.sh"

RUN_SH = """\
#!/bin/sh
# Measures this machine. Run it in the root of Forestage's source tree: sh PACKAGE/run.sh RECORD [options of `measure`]
# Nothing is fetched: where pydantic is missing it comes from the wheels beside this script, into a folder of its own.
# PYTHON: the Python to use, python3 by default; SUITE: quick in place of full.
set -eu
package=$(cd "$(dirname "$0")" && pwd)
record=${1:?give the record to write, such as record.json}
shift
if [ ! -f study/cli.py ]; then
    echo "run.sh: $PWD is not the root of Forestage's source tree: change to it first" >&2
    exit 2
fi
python=${PYTHON:-python3}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
if ! "$python" -c 'import pydantic' 2>/dev/null; then
    if [ ! -d "$package/wheels" ]; then
        echo "run.sh: pydantic is missing, and $package has no wheels: make it with --wheels" >&2
        exit 2
    fi
    "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --target "$site" \\
        "$package"/wheels/*.whl
fi
PYTHONPATH="$PWD:$site${PYTHONPATH:+:$PYTHONPATH}" \\
    "$python" -m study.cli reference measure --suite "${SUITE:-full}" --package "$package" --out "$record" "$@"
"""
