#!/usr/bin/env node
// coordinator --input FILE --worker -- node examples/worker.js
const readline = require('node:readline');

// What is dear to load is loaded here, once.

readline.createInterface({ input: process.stdin }).on('line', (item) => {
  // One line for each item, in the order in which they came.
  process.stdout.write(`${item}: ${[...item].reverse().join('')}\n`);
});
