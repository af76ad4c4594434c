"""Every exception hpcore raises. Each derives from HpcoreError and from the nearest builtin."""

from __future__ import annotations


class HpcoreError(Exception):
    """Base of all of hpcore's exceptions."""


class RosterChanged(HpcoreError, RuntimeError):
    """The generation that an operation belonged to is over: a rank was lost, joined or left."""


class DeadlineExceeded(HpcoreError, TimeoutError):
    """A wait reached its deadline; the message names who is missing and how long was waited."""


class Aborted(HpcoreError, RuntimeError):
    """The communicator or store was closed by this process while the operation was under way."""


class MismatchError(HpcoreError, ValueError):
    """Ranks disagree on an operation, a shape, a dtype or the layout of tracked state."""


class InvalidArgument(HpcoreError, ValueError):
    """An argument cannot be used; nothing was changed."""


class NotFound(HpcoreError, LookupError):
    """There is no such key, file or slot."""


class CorruptData(HpcoreError, ValueError):
    """A digest or a file format does not hold; the message names the place."""


class OutOfSpace(HpcoreError, MemoryError):
    """A bounded area is full; the message names the area and its size."""


class PeerDead(HpcoreError, ConnectionError):
    """The process on the other side is gone."""


class TransferFailed(HpcoreError, ConnectionError):
    """State could be read from no source, though none of them is known to be dead."""


class Unsupported(HpcoreError, NotImplementedError):
    """This operation, dtype or kernel feature is not available."""


class WrongTorch(Unsupported, ImportError):
    """The c10d backend is not built for the torch that is installed."""


class SystemCallError(HpcoreError, OSError):
    """A system call failed; the message carries errno."""


class JobStopped(HpcoreError, RuntimeError):
    """The job cannot go on; the message carries the reason."""


class CoordinatorUnavailable(HpcoreError, ConnectionError):
    """The coordinator did not answer in time; what it was asked may have happened."""
