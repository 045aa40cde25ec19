#!/usr/bin/env python3
# coordinator --input FILE --worker -- python3 examples/worker.py
import sys

# What is dear to load is loaded here, once: a model, say.

for line in sys.stdin:
    item = line.rstrip("\n")
    # One line for each item, flushed; what goes to stderr comes out with the item's number.
    print(f"{item}: {sum(map(ord, item))}", flush=True)
