"""Worker's mail as events for `decide`, and rosters as lines for the user. Pure."""

from __future__ import annotations

import re
from typing import Any

from hpcore.membership.roster import Roster
from hpcore.membership.state import Event, Faulted, ScriptFailed, StopAsked

FAULT, SCRIPT_ERROR, STOP, TIMELINE, RELEASED = range(1, 6)

_NUMBERS = re.compile(r"0x[0-9a-fA-F]+|\d+")


def event_of(mail: Any) -> Event | None:
    """The event that a piece of native mail stands for, if it is one."""
    place = (mail.at_ns, mail.slot, mail.incarnation)
    if mail.mail_kind == FAULT:
        generation, torn = mail.flags >> 8, bool(mail.flags & 1)
        return Faulted(*place, generation, mail.step, torn, signature(mail.text), mail.text)
    if mail.mail_kind == SCRIPT_ERROR:
        return ScriptFailed(*place, mail.text)
    if mail.mail_kind == STOP:
        return StopAsked(mail.at_ns, 1, mail.text or "a worker asked to stop")
    return None


def signature(traceback: str) -> str:
    """What two tracebacks of one bug have in common, whichever rank met it: the last frame and the
    last line, without
    numbers in the message."""
    lines = traceback.strip().splitlines()
    frames = [line.strip() for line in lines if line.lstrip().startswith('File "')]
    last = next((line for line in reversed(lines) if line and not line[0].isspace()), "")
    message = _NUMBERS.sub("#", last)
    return f"{message} ({frames[-1]})" if frames else message


def roster_line(roster: Roster, published_ns: int) -> str:
    """'generation 3: rank 2 lost; 4 ranks go on from step 12, slot 4 heals (0.8 ms)'."""
    healing = ", ".join(f"rank {roster.rank_of(slot)}" for slot in roster.receivers)
    heals = f", {healing} from {len(roster.sources)} source(s)" if healing else ""
    took_ms = (published_ns - roster.detected_ns) / 1e6
    return (
        f"generation {roster.generation}: {roster.reason}; {roster.world_size} rank(s) go on from "
        f"step {roster.steps}{heals} ({took_ms:.1f} ms)"
    )
