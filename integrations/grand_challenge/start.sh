#!/bin/sh
# Without arguments: the Grand Challenge algorithm. With arguments: the command line.
set -eu
if [ $# -eq 0 ]; then
    exec python "$(dirname "$0")/process.py" "${SEGMITOS_INPUT:-/input}" "${SEGMITOS_OUTPUT:-/output}"
fi
exec segmitos "$@"
