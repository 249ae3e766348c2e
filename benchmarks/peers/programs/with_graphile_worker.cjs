// graphile-worker: the settings of its own page on performance: 24 jobs at once, a local queue of 500, completions in batches.
"use strict";

const { Logger, makeWorkerUtils, run: start } = require("graphile-worker");
const { URL, handled, untilStopped, timed, each, paced, inSlices, main } = require("./protocol.cjs");

const logger = new Logger(() => () => {});
const preset = {
  worker: {
    connectionString: URL,
    concurrentJobs: 24,
    maxPoolSize: 25,
    localQueue: { size: 500 },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
    logger,
  },
};

async function run(command, count) {
  if (command === "worker") {
    const runner = await start({ preset, taskList: { noop: async (job) => handled(job) }, noHandleSignals: true });
    await untilStopped();
    await runner.stop();
    return;
  }
  const utils = await makeWorkerUtils({ connectionString: URL, logger });
  const store = (job) => utils.addJob("noop", job);
  if (command === "setup") await utils.migrate();
  if (command === "one") await timed(() => each(count, store));
  if (command === "paced") await paced(count, store);
  if (command === "bulk") {
    await timed(() =>
      inSlices(count, 10000, (jobs) => utils.addJobs(jobs.map((job) => ({ identifier: "noop", payload: job })))),
    );
  }
  await utils.release();
}

main(run);
