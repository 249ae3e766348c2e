"""`python -m pgqueue.worker`: the process that performs jobs."""

from pgqueue.cli.worker import worker

if __name__ == "__main__":
    worker(prog_name="python -m pgqueue.worker")
