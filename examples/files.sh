#!/usr/bin/env bash
# A command for each of many files, here their checksums. Whatever ends it, a power cut too: the same line again goes on where it was, and in
# the end RESULTS has each file once.
#
#   examples/files.sh FOLDER RESULTS
set -euo pipefail

folder=${1:?which folder?}
results=${2:?where are the results to go?}
state=$results.state

# The list is part of the state: it has to be the same each time. It appears under its name only when it is whole.
if ! [ -e "$state/files" ]; then
    mkdir -p "$state"
    find "$folder" -type f -print0 | sort -z > "$state/files.new"
    mv "$state/files.new" "$state/files"
fi

# `--format nul`: names may hold anything, newlines too. Exit code 3 says that some files failed five times: they are in the dead letters, each
# with its cause, and everything else is done.
code=0
coordinator --input "$state/files" --format nul --journal "$state/journal" --output "$results" --dead-letters "$results.failed" \
    -- sha256sum {} || code=$?

# All is done: what is kept was only for going on.
if [ "$code" = 0 ] || [ "$code" = 3 ]; then
    rm -r "$state"
fi
exit "$code"
