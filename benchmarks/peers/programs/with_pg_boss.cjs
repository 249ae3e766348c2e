// pg-boss: four workers in one process, each fetching batches of 2,000 every half second, the shortest interval it takes.
"use strict";

const loaded = require("pg-boss");
const { URL, handled, untilStopped, timed, each, paced, inSlices, main } = require("./protocol.cjs");

const Boss = loaded.PgBoss || loaded;
const QUEUE = "bench";

async function run(command, count) {
  const boss = new Boss({ connectionString: URL, max: 10 });
  boss.on("error", console.error);
  await boss.start();
  const store = (job) => boss.send(QUEUE, job);
  if (command === "setup") await boss.createQueue(QUEUE);
  if (command === "one") await timed(() => each(count, store));
  if (command === "paced") await paced(count, store);
  if (command === "bulk") {
    await timed(() =>
      inSlices(count, 10000, (jobs) => boss.insert(jobs.map((job) => ({ name: QUEUE, data: job })))),
    );
  }
  if (command === "worker") {
    for (let worker = 0; worker < 4; worker += 1) {
      await boss.work(QUEUE, { batchSize: 2000, pollingIntervalSeconds: 0.5 }, async (jobs) => {
        for (const job of jobs) handled(job.data);
      });
    }
    await untilStopped();
  }
  await boss.stop({ graceful: true, timeout: 5000 });
}

main(run);
