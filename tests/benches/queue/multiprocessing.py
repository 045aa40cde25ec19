"""multiprocessing.Queue, measured for the benchmark beside this file.

    rate CAPACITY SIZE FAN COUNT   prints: seconds, items, sum of their first words
    trips CAPACITY COUNT           prints: microseconds that 50, 99 and 99.9 % of the round trips stayed within
    default                        one producer of five random numbers and one consumer, without pauses

CAPACITY 0 is no bound.
"""

import multiprocessing
import random
import sys
import time

# What Linux had as the default for long; the others would start the script anew in each process.
context = multiprocessing.get_context("fork")

MASK = (1 << 64) - 1
STEP = 0x9E3779B97F4A7C15
WARM_UP = 200


def word(number):
    return (number * STEP & MASK).to_bytes(8, "little")


def produce(queue, size, first, count, barrier):
    body = bytes(size - 8)
    # Making a large item anew would cost as much as putting it: these are made beforehand, as often as there are numbers.
    large = {number % 8: word(number % 8) + body for number in range(8)} if size >= 65536 else None
    barrier.wait()
    for number in range(first, first + count):
        if large:
            queue.put(large[number % 8])
        elif body:
            queue.put(word(number) + body)
        else:
            queue.put(word(number))


def consume(queue, size, results, barrier):
    count = total = 0
    barrier.wait()
    while (item := queue.get()) is not None:
        if len(item) != size:
            raise SystemExit(f"an item of {len(item)} bytes came instead of {size}")
        count += 1
        total += int.from_bytes(item[:8], "little")
    results.put((count, total & MASK))


def rate(capacity, size, fan, count):
    queue = context.Queue(capacity)
    results = context.SimpleQueue()
    barrier = context.Barrier(2 * fan + 1)
    shares = [(count * i // fan, count * (i + 1) // fan - count * i // fan) for i in range(fan)]
    producers = [context.Process(target=produce, args=(queue, size, *share, barrier)) for share in shares]
    consumers = [context.Process(target=consume, args=(queue, size, results, barrier)) for _ in range(fan)]
    for process in producers + consumers:
        process.start()
    barrier.wait()
    started = time.perf_counter()
    for process in producers:
        process.join()
    for _ in consumers:
        queue.put(None)
    tallies = [results.get() for _ in consumers]
    seconds = time.perf_counter() - started
    for process in consumers:
        process.join()
    print(seconds, sum(count for count, _ in tallies), sum(total for _, total in tallies) & MASK)


def echo(there, back, count):
    for _ in range(count):
        back.put(there.get())


def trips(capacity, count):
    there, back = context.Queue(capacity), context.Queue(capacity)
    process = context.Process(target=echo, args=(there, back, WARM_UP + count))
    process.start()
    took = []
    for number in range(WARM_UP + count):
        item = word(number)
        started = time.perf_counter_ns()
        there.put(item)
        came = back.get()
        took.append(time.perf_counter_ns() - started)
        if came != item:
            raise SystemExit("another item came back")
    process.join()
    took = sorted(took[WARM_UP:])
    print(*(took[min(int(len(took) * share), len(took) - 1)] / 1000 for share in (0.5, 0.99, 0.999)))


def put_numbers(queue):
    for _ in range(5):
        number = random.randint(1, 100)
        print(f"Producer: Put {number} into the queue.")
        queue.put(number)
    queue.put(None)


def get_numbers(queue):
    while (number := queue.get()) is not None:
        print(f"Consumer: Got {number} from the queue.")
    print("Consumer: Received termination signal.")


def default():
    queue = context.Queue()
    processes = [context.Process(target=target, args=(queue,)) for target in (put_numbers, get_numbers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    print("Done!")


mode, *numbers = sys.argv[1:]
{"rate": rate, "trips": trips, "default": default}[mode](*map(int, numbers))
