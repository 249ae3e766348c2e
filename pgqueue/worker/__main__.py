"""`python -m pgqueue.worker`: the process that performs jobs."""

from pgqueue.cli.signals import Stop

if __name__ == "__main__":
    Stop().install()  # what follows takes a while, and a signal must not be lost meanwhile
    from pgqueue.cli.worker import worker

    worker(prog_name="python -m pgqueue.worker")
