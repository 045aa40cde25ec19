#!/usr/bin/env bash
# Fetches each page of a list, four at a time. What is busy is tried again later, what fails is tried five times, what does not exist is given up
# at once; what is given up stands in PAGES/failed.jsonl with its cause. PAGES/index.tsv has a line for each page that came.
#
#   examples/scraper.sh URLS PAGES
#
# Any flag of the coordinator can be set from outside: PROCQ_CONSUMERS=20 PROCQ_MAX_ATTEMPTS=3 examples/scraper.sh URLS PAGES
set -euo pipefail

# The coordinator calls this same file for each page. How it ends says what is to become of the page.
if [ "${1:-}" = --fetch ]; then
    url=$2
    # An item's number stays the same from attempt to attempt: a name that a second try overwrites.
    file=$3/page-$PROCQ_ITEM_ID
    if ! status=$(curl --silent --show-error --globoff --location --max-time 60 --output "$file.part" --write-out '%{http_code}' -- "$url"); then
        exit 1 # A failed attempt: again after a while, up to --max-attempts.
    fi
    case $status in
        200) ;;
        404 | 410) exit 65 ;;                                                  # Never: a dead letter at once.
        429 | 503) if [ "$PROCQ_ATTEMPT" -lt 20 ]; then exit 75; fi; exit 1 ;; # Later, which is no failure; but not for ever.
        *) exit 1 ;;
    esac
    mv "$file.part" "$file"
    # What is printed is the page's result. It is written once, however often the page was tried.
    printf '%s\t%s\t%s\n' "$url" "$file" "$(wc -c < "$file")"
    exit 0
fi

urls=${1:?a file with an address a line?}
pages=${2:?a folder for the pages?}
mkdir -p "$pages"
export PROCQ_CONSUMERS=${PROCQ_CONSUMERS:-4}
# The page's address is an argument of its own: nothing in it is taken for a part of a shell's script.
exec coordinator --input "$urls" --output "$pages/index.tsv" --dead-letters "$pages/failed.jsonl" -- "$0" --fetch {} "$pages"
