"""How many files and connections this process may have open."""

MOST = 1 << 20
"""Where the system names no limit, or one that programs count through."""

OTHERS = 64
"""What a process has open besides its connections: its log, its libraries, the loop's own."""


def raise_file_limit() -> int:
    """Lifts the soft limit to the hard one, as far as the system lets it, and returns what it is
    now."""
    try:
        import resource
    except ImportError:  # not a system with such limits
        return MOST
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError):  # macOS names no limit and has one
            pass
    return MOST if soft == resource.RLIM_INFINITY else min(soft, MOST)


def room_for_connections(pool_size: int) -> int:
    """Connections that callers may have, besides those to the database."""
    return max(4, raise_file_limit() - OTHERS - 2 * pool_size)
