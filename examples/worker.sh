#!/bin/sh
# coordinator --input FILE --worker -- sh examples/worker.sh

# What is dear to set up is set up here, once.

while IFS= read -r item; do
    # One line for each item. To fail it, end; another worker is started.
    printf '%s: %s\n' "$item" "${#item}"
done
