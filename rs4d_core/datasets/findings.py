"""What was left out or changed while a data set was prepared, and why."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from rs4d_core.wording import counted

IMAGE, OBJECT = "image", "object"
DROPPED, REPAIRED, CUT, IGNORED = "dropped", "repaired", "cut", "to ignore"


@dataclass(frozen=True)
class Finding:
    """One image or object that is not in the prepared data set as it was in the source.

    Attributes:
        what: IMAGE or OBJECT.
        action: DROPPED; REPAIRED: its outline was invalid; CUT: at an edge; IGNORED: kept as a region to ignore.
        reason: of a few; reports count by it.
        where: which one, as a person finds it again.
        detail: what exactly was wrong, where the reason does not say it all.
        count: of how many this tells.
    """

    what: str
    action: str
    reason: str
    where: str
    detail: str = ""
    count: int = 1


def tally(findings: Iterable[Finding]) -> dict[str, dict[str, int]]:
    """Counts by action and what, then by reason: {"dropped images": {"no such file": 3}}; the most frequent first."""
    counts: dict[str, Counter[str]] = {}
    for finding in findings:
        counts.setdefault(f"{finding.action} {finding.what}s", Counter())[finding.reason] += finding.count
    return {key: dict(counts[key].most_common()) for key in sorted(counts)}


def dropped_line(counts: dict[str, dict[str, int]]) -> str:
    """What was dropped, as a part of a sentence: "dropped 3 images (no such file 2, cannot be read 1)"."""
    told = [
        f"{counted(sum(reasons.values()), what)} ({', '.join(f'{reason} {n}' for reason, n in reasons.items())})"
        for what, reasons in ((what, counts.get(f"{DROPPED} {what}s", {})) for what in (IMAGE, OBJECT))
        if reasons
    ]
    return f"dropped {', '.join(told)}" if told else "nothing dropped"
