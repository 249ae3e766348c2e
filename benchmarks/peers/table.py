"""What came of the peers, as one table."""

from typing import Any

from benchmarks.peers.catalog import OURSELVES, Peer
from benchmarks.run import Figure, Sample, Verdict, median, percentile, ratio

Samples = dict[str, dict[str, list[Sample]]]


def figure(
    peers: list[Peer], versions: dict[str, str], absent: dict[str, str], samples: Samples
) -> Figure:
    whole = Figure("Peers", "Other queues on this machine: no-op jobs, payload of 200 bytes")
    whole.samples = {
        f"{what}: {name}": taken for what, sides in samples.items() for name, taken in sides.items()
    }
    whole.rows = [_row(peer, samples) for peer in peers]
    for peer in peers:
        if peer is not OURSELVES and (taken := _good(samples["one process"].get(peer.name, []))):
            ours = _good(samples["one process"][OURSELVES.name])
            part = median(ours) / median(taken)
            if len(ours) == len(taken):
                part = ratio(ours, taken)
            whole.verdicts.append(
                Verdict(
                    f"burn-down, one process, against {peer.name}",
                    "faster",
                    f"{part:.2f} times",
                    part > 1,
                )
            )
    whole.notes = [
        f"{peer.name} {versions[peer.name]}: {peer.settings}. Keeps: {peer.keeps}."
        for peer in peers
    ]
    whole.notes += [
        f"{name} was not measured, or not in all: {why}" for name, why in absent.items()
    ]
    whole.notes.append(
        "All on the server above (fsync and synchronous_commit on), but BullMQ on Redis. Each "
        "in an environment of its own; jobs "
        "stored by the peer's own bulk enqueue. A burn-down counts from the moment when a "
        "worker process says that it is ready "
        "(pgqueue, which says so before its connections are open: when its first handler "
        "starts) until the store has no job that "
        "has not ended. Programs and settings: benchmarks/peers/. From npm comes the newest "
        "that runs on this Node."
    )
    return whole


def _good(taken: list[Sample]) -> list[Sample]:
    return [sample for sample in taken if "failed" not in sample]


def _row(peer: Peer, samples: Samples) -> dict[str, Any]:
    found = {what: _good(sides.get(peer.name, [])) for what, sides in samples.items()}
    one, two, held = found["one process"], found["two processes"], found["snapshot held"]
    waits = [wait for sample in found["pick-up"] for wait in sample["milliseconds"]]
    return {
        "queue": peer.name,
        "jobs": f"{one[0]['jobs']:,}" if one else "",
        "one process, jobs/s": f"{median(one):,.0f}" if one else "failed",
        "two processes": f"{median(two):,.0f}" if two else "failed",
        "held snapshot, ratio": f"{median(held) / median(one):.2f}" if held and one else "",
        "bulk enqueue, jobs/s": f"{median(one, 'bulk_per_second'):,.0f}" if one else "failed",
        "single enqueue": f"{median(found['single enqueue']):,.0f}"
        if found["single enqueue"]
        else "failed",
        "pick-up p50 ms": f"{percentile(waits, 50):.1f}" if waits else "failed",
        "p99 ms": f"{percentile(waits, 99):.1f}" if waits else "",
    }
