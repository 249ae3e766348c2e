// BullMQ on Redis: one worker with a concurrency of 500 in one process, finished jobs kept.
"use strict";

const { Queue, Worker } = require("bullmq");
const { handled, untilStopped, timed, each, paced, inSlices, main, URL } = require("./protocol.cjs");

const connection = { host: "127.0.0.1", port: Number(URL.split(":").pop()), maxRetriesPerRequest: null };

async function run(command, count) {
  if (command === "worker") {
    const worker = new Worker("bench", async (job) => handled(job.data), { connection, concurrency: 500 });
    await worker.waitUntilReady();
    await untilStopped();
    await worker.close();
    return;
  }
  const queue = new Queue("bench", { connection });
  const store = (job) => queue.add("noop", job);
  if (command === "one") await timed(() => each(count, store));
  if (command === "paced") await paced(count, store);
  if (command === "bulk") {
    await timed(() => inSlices(count, 10000, (jobs) => queue.addBulk(jobs.map((data) => ({ name: "noop", data })))));
  }
  await queue.close();
}

main(run);
