#!/usr/bin/env bash
# Instructions per item of 8 bytes in the producer, the coordinator and the consumer, as callgrind counts them. They hardly vary from
# run to run, so a change that costs some shows at once. A run with few items is subtracted from one with many: that takes out the start.
#
#   tests/benches/instructions.sh [ITEMS]     (default 1000000; takes about half a minute)
set -euo pipefail

items=${1:-1000000}
few=1000
if ! command -v valgrind > /dev/null; then
    echo "instructions.sh: valgrind is needed to count instructions, and is not in the PATH: install your system's package valgrind" >&2
    exit 69
fi
if ! [[ $items =~ ^[0-9]+$ ]] || ((items <= few)); then
    echo "instructions.sh: ITEMS must be a number over $few, not \"$items\"" >&2
    exit 2
fi

cd "$(dirname "$0")/../.."
cargo build --quiet --release --package coordinator
bench=$(cargo bench --quiet --package tests --bench queue --no-run --message-format=json | grep -o '"executable":"[^"]*/queue-[^"]*"' | cut -d'"' -f4)
target=$(dirname "$(dirname "$(dirname "$bench")")")
folder=$(mktemp -d)
# Also ends what still runs if a part of it fails.
trap 'kill $(jobs -p) 2> /dev/null || true; rm -rf "$folder"' EXIT

# Becomes a program under callgrind, which writes its count to $folder/NAME.log; to be called in a process of its own.
count() {
    local name=$1
    shift
    exec valgrind --tool=callgrind --callgrind-out-file=/dev/null --log-file="$folder/$name.log" "$@"
}

wait_for() {
    for _ in $(seq 600); do
        if [ -e "$1" ]; then return; fi
        sleep 0.1
    done
    echo "instructions.sh: the coordinator does not come up: $(cat "$folder/coordinator.log")" >&2
    exit 1
}

# Passes $1 items; afterwards $folder has all three counts.
pass() {
    local socket=$folder/$1.sock
    count coordinator "$target/release/coordinator" serve --expect-producers 1 --socket "$socket" 2> /dev/null &
    local coordinator=$!
    wait_for "$socket"
    count consumer "$bench" play procq-consumer --place "$socket" > "$folder/consumer.out" &
    local consumer=$!
    (echo go | count producer "$bench" play procq-producer --place "$socket" --count "$1" > /dev/null)
    wait "$consumer"
    wait "$coordinator"
    grep -q "^done $1 " "$folder/consumer.out" || { echo "instructions.sh: the consumer has not got $1 items" >&2; exit 1; }
}

collected() {
    sed -n 's/.*Collected : \([0-9]*\).*/\1/p' "$folder/$1.log"
}

roles=(producer coordinator consumer)
declare -A start
pass "$few"
for role in "${roles[@]}"; do start[$role]=$(collected "$role"); done
pass "$items"
echo "instructions per item of 8 bytes, $items items:"
for role in "${roles[@]}"; do
    awk -v role="$role" -v all="$(collected "$role")" -v start="${start[$role]}" -v items="$((items - few))" \
        'BEGIN { printf "%-12s %8.1f\n", role, (all - start) / items }'
done
