"""A handler that blocks: it runs in a thread, and its helpers block too."""

import msgspec

from pgqueue import ThreadJob, task


class Import(msgspec.Struct):
    rows: list[str]


# [task]
@task("rows.import", timeout="5m")
def import_rows(job: ThreadJob[Import]) -> None:
    with job.transaction() as connection:  # a psycopg.Connection; its commit completes the job
        for done, row in enumerate(job.payload.rows, 1):
            connection.execute("INSERT INTO imported (line) VALUES (%s)", [row])
            job.progress(done / len(job.payload.rows))


# [/task]
