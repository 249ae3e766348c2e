// The same as protocol.py, for peers in Node.
"use strict";

const URL = process.env.BENCH_URL || "";
const pad = "x".repeat(176);
let count = 0;
let told = 0;

const say = (...words) => process.stdout.write(words.join(" ") + "\n");
const now = () => process.hrtime.bigint();
const sleep = (ms) => new Promise((done) => setTimeout(done, Math.max(0, ms)));
const payload = (number) => ({ n: number, text: pad });

function handled(job) {
  if (job.watch !== undefined) say("start", job.watch, now());
  if (count === 0) say("first", now());
  count += 1;
}

function tell() {
  if (count !== told) {
    told = count;
    say("done", told);
  }
}

async function untilStopped() {
  const timer = setInterval(tell, 10);
  say("ready", now());
  await new Promise((done) => process.once("SIGTERM", done));
  clearInterval(timer);
}

async function timed(work) {
  const began = now();
  await work();
  say("seconds", Number(now() - began) / 1e9);
}

async function each(many, store) {
  for (let number = 0; number < many; number += 1) await store(payload(number));
}

async function paced(many, store) {
  await store(payload(0));
  await sleep(500);
  const origin = Date.now();
  for (let number = 0; number < many; number += 1) {
    await sleep(origin + number * 20 - Date.now());
    say("sent", number, now());
    await store({ watch: number, text: pad });
  }
}

// In slices, for a list of a hundred thousand is no single statement to any of them.
async function inSlices(many, most, store) {
  for (let start = 0; start < many; start += most) {
    const size = Math.min(most, many - start);
    await store(Array.from({ length: size }, (_, index) => payload(start + index)));
  }
}

function main(run) {
  run(process.argv[2], Number(process.argv[3] || 0)).then(
    () => process.exit(0),
    (error) => {
      console.error(error);
      process.exit(1);
    },
  );
}

module.exports = { URL, say, handled, untilStopped, timed, each, paced, inSlices, main };
