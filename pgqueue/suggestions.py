"""What was meant by a name that there is not."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(
    word: str, known: Iterable[str], likeness: float = 0.6, *, prefix: str = ""
) -> str:
    """`: did you mean X?` for the name that is most like `word`; empty when none is. A prefix that
    all may have is no likeness."""
    by_letters = {one.removeprefix(prefix).casefold(): one for one in known}
    word = word.removeprefix(prefix)
    found = get_close_matches(word.casefold()[:100], by_letters, n=1, cutoff=likeness)
    return f": did you mean {by_letters[found[0]]}?" if found else ""
