# Generated from the built module by `make stubs`. Not to be edited.
"""
hpcore's native rooms below torch/
"""

from __future__ import annotations
import collections.abc
import typing
import typing_extensions

__all__: list[str] = [
    "AgentWatch",
    "Arena",
    "ArenaMappings",
    "Communicator",
    "CudaBuffer",
    "CudaDevice",
    "CudaIpcExport",
    "DatasetFile",
    "DatasetWriter",
    "EXACT_WORDS",
    "Event",
    "ExactSums",
    "FLAG_RECOVERABLE",
    "Fabric",
    "FabricServer",
    "Interleave",
    "MAX_SLOTS",
    "MixtureOrder",
    "NcclLibrary",
    "NcclServer",
    "NodeCache",
    "NodeSegment",
    "ORDER_VERSION",
    "Permutation",
    "PlanFamily",
    "PlanRates",
    "PlanRequest",
    "PlannedPull",
    "PublishStats",
    "PullStats",
    "RankFacts",
    "Remaining",
    "RemoteMemory",
    "STATE_ATTACHED",
    "STATE_EMPTY",
    "STATE_FAILED",
    "STATE_FINISHED",
    "STATE_STARTING",
    "STATE_TRAINING",
    "STATE_WARM",
    "SampleReader",
    "SharedGroup",
    "SharedStore",
    "SlotInfo",
    "SourceAddress",
    "StagingServer",
    "StateReceiver",
    "StateSource",
    "TensorSize",
    "VERSION_APPLYING",
    "VERSION_NONE",
    "VERSION_TORN",
    "Worker",
    "copy_bytes",
    "copy_digested",
    "digest128",
    "digest_codes",
    "digest_regions",
    "exact_sum",
    "maps_file",
    "mark_documents",
    "monotonic_ns",
    "plan_transfer",
    "prefer_quick_wakeups",
    "reduce_exactly",
    "reduce_in_rank_order",
    "reduction_instructions",
    "replan_transfer",
    "use_huge_pages",
    "widen_code_name",
]

class SharedStore:
    """
    A key/value store shared by the processes of a node. Thread-safe.
    """
    @staticmethod
    def create(
        size_bytes: typing.SupportsInt | typing.SupportsIndex = 67108864, name: str = "hpcore-store"
    ) -> SharedStore:
        """
        A store in a memfd of its own, which /proc shows under that name.
        """
    @staticmethod
    def open(fd: typing.SupportsInt | typing.SupportsIndex) -> SharedStore:
        """
        The store in an inherited descriptor, which is duplicated.
        """
    @staticmethod
    def open_path(path: str) -> SharedStore:
        """
        The store in another process's descriptor: /proc/<pid>/fd/<fd>.
        """
    def _crash_after(self, steps: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Tests only: kills this process at the n-th step of a change.
        """
    def add(self, key: str, delta: typing.SupportsInt | typing.SupportsIndex) -> int:
        """
        Adds to a counter kept as decimal text; returns the sum.
        """
    def append(self, key: str, value: str) -> None: ...
    def check(self, keys: collections.abc.Sequence[str]) -> bool:
        """
        True if all keys are there. Does not wait.
        """
    def close(self) -> None:
        """
        Wakes this process's waiters: they raise Aborted.
        """
    def compare_set(self, key: str, expected: str, desired: str) -> bytes:
        """
        Sets desired if the value is expected (or the key is missing and expected is empty); returns the value after.
        """
    def delete(self, key: str) -> bool:
        """
        True if the key was there.
        """
    def free_bytes(self) -> int: ...
    def get(
        self, key: str, timeout_s: typing.SupportsFloat | typing.SupportsIndex = 300.0
    ) -> bytes:
        """
        The value of key; blocks until it is there.
        """
    def keys(self) -> list[str]: ...
    def multi_get(
        self,
        keys: collections.abc.Sequence[str],
        timeout_s: typing.SupportsFloat | typing.SupportsIndex = 300.0,
    ) -> list[bytes]:
        """
        The values of keys; blocks until all are there.
        """
    def multi_set(
        self, keys: collections.abc.Sequence[str], values: collections.abc.Sequence[str]
    ) -> None: ...
    def num_keys(self) -> int: ...
    def queue_len(self, key: str) -> int: ...
    def queue_pop(
        self,
        key: str,
        block: bool = True,
        timeout_s: typing.SupportsFloat | typing.SupportsIndex = 300.0,
    ) -> bytes:
        """
        The oldest item of the queue; blocks until there is one, or raises NotFound with block=False.
        """
    def queue_push(self, key: str, value: str) -> None: ...
    def set(self, key: str, value: str) -> None: ...
    def wait(
        self,
        keys: collections.abc.Sequence[str],
        timeout_s: typing.SupportsFloat | typing.SupportsIndex = 300.0,
    ) -> None:
        """
        Blocks until all keys are there.
        """
    @property
    def fd(self) -> int:
        """
        Its own memfd; -1 in the memory of a segment.
        """
    @property
    def native_handle(self) -> typing_extensions.CapsuleType:
        """
        For _c10d.
        """
    @property
    def size_bytes(self) -> int: ...

class SlotInfo:
    """
    What one slot says at one moment. Ages in seconds; negative: never.
    """
    @property
    def commit_closed(self) -> bool: ...
    @property
    def commit_generation(self) -> int: ...
    @property
    def commit_steps(self) -> int: ...
    @property
    def flags(self) -> int: ...
    @property
    def heartbeat_age_s(self) -> float: ...
    @property
    def heartbeats(self) -> int: ...
    @property
    def incarnation(self) -> int: ...
    @property
    def phase(self) -> int: ...
    @property
    def pid(self) -> int: ...
    @property
    def progress_age_s(self) -> float: ...
    @property
    def state(self) -> int: ...
    @property
    def step(self) -> int: ...
    @property
    def version(self) -> int: ...

class NodeSegment:
    """
    The shared memory of one node. Thread-safe.
    """
    @staticmethod
    def attach(fd: typing.SupportsInt | typing.SupportsIndex) -> NodeSegment:
        """
        Maps the segment behind an inherited descriptor, which is duplicated.
        """
    @staticmethod
    def create(
        slots: typing.SupportsInt | typing.SupportsIndex,
        staging_bytes: typing.SupportsInt | typing.SupportsIndex = 4194304,
        store_bytes: typing.SupportsInt | typing.SupportsIndex = 67108864,
    ) -> NodeSegment:
        """
        Makes a segment (a memfd): the agent's part. slots: 1 to 64. Raises InvalidArgument.
        """
    def advance_peers(
        self,
        generation: typing.SupportsInt | typing.SupportsIndex,
        steps: typing.SupportsInt | typing.SupportsIndex,
    ) -> bool:
        """
        All other nodes' members are ready for `steps` steps. False if the generation is over.
        """
    def close(self) -> None:
        """
        For symmetry: the memory goes with the last object that uses it.
        """
    def close_generation(self, generation: typing.SupportsInt | typing.SupportsIndex) -> list[int]:
        """
        Closes the commit words of the ranked slots and revokes the generation. Returns the words' steps by rank; the committed steps are their minimum. Idempotent.
        """
    def committed_steps(self, generation: typing.SupportsInt | typing.SupportsIndex) -> int | None:
        """
        C of a closed generation: the number of steps that are committed when it ended; None if it is open or unknown. The last 256 are known.
        """
    def fire_fault(self, index: typing.SupportsInt | typing.SupportsIndex) -> bool:
        """
        True for the first caller in the whole job only. index: 0 to 63.
        """
    def open_commit(
        self,
        slots: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        generation: typing.SupportsInt | typing.SupportsIndex,
        steps: typing.SupportsInt | typing.SupportsIndex,
        peers: bool = False,
    ) -> None:
        """
        Opens this node's members' commit words for a generation with `steps` committed steps. `peers`: it has members on other nodes.
        """
    def prepare_slot(
        self,
        slot: typing.SupportsInt | typing.SupportsIndex,
        incarnation: typing.SupportsInt | typing.SupportsIndex,
    ) -> None:
        """
        Empties the slot for a new worker: state STARTING.
        """
    def publish(self, generation: typing.SupportsInt | typing.SupportsIndex, roster: str) -> None:
        """
        Puts a roster (at most 256 KiB) on the notice board.
        """
    def rank_blob(self, rank: typing.SupportsInt | typing.SupportsIndex) -> list[tuple[int, bytes]]:
        """
        What the rank left: at most two (tag, bytes), newest first.
        """
    def ranked(self) -> list[int]:
        """
        The slots of the current roster, by rank.
        """
    def release_slot(self, slot: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Gives the slot's memory back. The worker must be gone.
        """
    def set_ranked(
        self, slots: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]
    ) -> None:
        """
        The slots of the current roster, by rank.
        """
    def settle(
        self,
        generation: typing.SupportsInt | typing.SupportsIndex,
        steps: typing.SupportsInt | typing.SupportsIndex,
    ) -> None:
        """
        Says how many steps of a closed generation are committed, where other nodes had to be asked.
        """
    def slot_info(self, slot: typing.SupportsInt | typing.SupportsIndex) -> SlotInfo: ...
    @property
    def board_generation(self) -> int: ...
    @property
    def fd(self) -> int: ...
    @property
    def revoked_generation(self) -> int: ...
    @property
    def slots(self) -> int: ...
    @property
    def store(self) -> SharedStore: ...

class Event:
    """
    Something a worker did, as the agent saw it at at_ns (CLOCK_MONOTONIC).
    """
    @property
    def at_ns(self) -> int: ...
    @property
    def flags(self) -> int: ...
    @property
    def incarnation(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def mail_kind(self) -> int: ...
    @property
    def slot(self) -> int: ...
    @property
    def state(self) -> int: ...
    @property
    def step(self) -> int: ...
    @property
    def text(self) -> str: ...

class AgentWatch:
    """
    The agent's eyes: deaths, mail, states. Native threads. Thread-safe.
    """
    def __init__(self, segment: NodeSegment) -> None: ...
    def close(self) -> None: ...
    def fileno(self) -> int:
        """
        An eventfd that is readable while events are queued.
        """
    def next_event(self, timeout_s: typing.SupportsFloat | typing.SupportsIndex) -> Event | None:
        """
        The next event, or None after timeout_s seconds. Blocks without the GIL.
        """
    def unwatch(self, slot: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    def watch(
        self,
        slot: typing.SupportsInt | typing.SupportsIndex,
        incarnation: typing.SupportsInt | typing.SupportsIndex,
    ) -> None: ...

class Worker:
    """
    This process's place in the segment. Thread-safe.
    """
    @staticmethod
    def attach(
        segment: NodeSegment,
        slot: typing.SupportsInt | typing.SupportsIndex,
        incarnation: typing.SupportsInt | typing.SupportsIndex,
    ) -> Worker:
        """
        Takes the slot for this process and starts its sentinel thread: once per process, after the fork.
        """
    def finish(self, code: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        State FINISHED (code 0) or FAILED.
        """
    def post(
        self,
        kind: typing.SupportsInt | typing.SupportsIndex,
        step: typing.SupportsInt | typing.SupportsIndex,
        flags: typing.SupportsInt | typing.SupportsIndex,
        text: str,
        timeout_s: typing.SupportsFloat | typing.SupportsIndex = 5.0,
    ) -> None:
        """
        Leaves mail for the agent (the last 16 KiB of text); waits for the box to be empty.
        """
    def progress(
        self,
        step: typing.SupportsInt | typing.SupportsIndex,
        phase: typing.SupportsInt | typing.SupportsIndex,
    ) -> None: ...
    def ready(
        self,
        generation: typing.SupportsInt | typing.SupportsIndex,
        step: typing.SupportsInt | typing.SupportsIndex,
    ) -> bool:
        """
        Says that this worker's gradients of `step` are complete. False if the generation is closed.
        """
    def revoked(self, generation: typing.SupportsInt | typing.SupportsIndex) -> bool: ...
    def roster(self) -> typing.Any:
        """
        (generation, bytes) of the newest roster, or None.
        """
    def set_rank_blob(
        self,
        rank: typing.SupportsInt | typing.SupportsIndex,
        tag: typing.SupportsInt | typing.SupportsIndex,
        blob: str,
    ) -> None:
        """
        Leaves up to 64 KiB for whoever holds the rank next.
        """
    def wait_commit(
        self,
        generation: typing.SupportsInt | typing.SupportsIndex,
        step: typing.SupportsInt | typing.SupportsIndex,
        slots: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        timeout_s: typing.SupportsFloat | typing.SupportsIndex,
        here: bool = False,
    ) -> str:
        """
        'committed' when all slots, which are this node's, and all other nodes said ready, 'discarded' when one was closed before, else 'timeout'. `here`: never mind the others.
        """
    def wait_roster(
        self,
        after: typing.SupportsInt | typing.SupportsIndex,
        timeout_s: typing.SupportsFloat | typing.SupportsIndex,
    ) -> typing.Any:
        """
        The newest roster once its generation exceeds `after`, or None after timeout_s seconds.
        """
    @property
    def flags(self) -> int: ...
    @flags.setter
    def flags(self, arg1: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    @property
    def incarnation(self) -> int: ...
    @property
    def native_handle(self) -> typing_extensions.CapsuleType: ...
    @property
    def segment(self) -> NodeSegment: ...
    @property
    def slot(self) -> int: ...
    @property
    def state(self) -> int: ...
    @state.setter
    def state(self, arg1: typing.SupportsInt | typing.SupportsIndex) -> None: ...
    @property
    def version(self) -> int: ...
    @version.setter
    def version(self, arg1: typing.SupportsInt | typing.SupportsIndex) -> None: ...

class SharedGroup:
    """
    The memory of a communicator of its own: a memfd.
    """
    @staticmethod
    def create(
        members: typing.SupportsInt | typing.SupportsIndex,
        area_bytes: typing.SupportsInt | typing.SupportsIndex = 4194304,
    ) -> SharedGroup: ...
    @staticmethod
    def open(fd: typing.SupportsInt | typing.SupportsIndex) -> SharedGroup: ...
    def revoke(self, generation: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Ends this generation and all before it for all members.
        """
    @property
    def fd(self) -> int: ...
    @property
    def members(self) -> int: ...

class Communicator:
    """
    Collective operations between the processes of one node, for one generation. One operation at a time; abort() and close() from any thread.
    """
    @staticmethod
    def over_group(
        group: SharedGroup,
        generation: typing.SupportsInt | typing.SupportsIndex,
        rank: typing.SupportsInt | typing.SupportsIndex,
    ) -> Communicator:
        """
        A communicator over memory of its own, outside of a node segment.
        """
    @staticmethod
    def rehearsal(world_size: typing.SupportsInt | typing.SupportsIndex) -> Communicator:
        """
        A communicator whose operations complete at once on the caller's own data, as the last of world_size ranks. Reductions return the data unscaled.
        """
    @staticmethod
    def world(
        worker: Worker,
        generation: typing.SupportsInt | typing.SupportsIndex,
        rank: typing.SupportsInt | typing.SupportsIndex,
        slots: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    ) -> Communicator:
        """
        All ranks of a generation, in the node segment's memory; slots[r] is rank r's slot. Made at once, without waiting for the others. One for each generation.
        """
    def __enter__(self) -> typing.Any: ...
    def __exit__(self, *args) -> None: ...
    def abort(self) -> None:
        """
        Ends the operation under way in another thread, and all later ones, with Aborted.
        """
    def all_gather(
        self,
        input: tuple[
            typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
        ],
        outputs: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
            ]
        ],
        dtype: str,
        timeout_s: typing.SupportsFloat | typing.SupportsIndex,
    ) -> None:
        """
        outputs[r] receives rank r's input; sizes may differ by rank.
        """
    def all_gather_bytes(
        self, data: str, timeout_s: typing.SupportsFloat | typing.SupportsIndex
    ) -> list[bytes]:
        """
        Each rank's data, of any size, in rank order.
        """
    def all_reduce(
        self,
        buffers: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
            ]
        ],
        dtype: str,
        op: str,
        timeout_s: typing.SupportsFloat | typing.SupportsIndex,
        factor: typing.SupportsFloat | typing.SupportsIndex = 1.0,
    ) -> None:
        """
        Reduces the buffers, seen as one range, over all ranks in place, in rank order.
        """
    def all_to_all(
        self,
        inputs: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
            ]
        ],
        outputs: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
            ]
        ],
        dtype: str,
        timeout_s: typing.SupportsFloat | typing.SupportsIndex,
    ) -> None:
        """
        Rank s's inputs[r] goes to rank r's outputs[s]; sizes may differ.
        """
    def barrier(self, timeout_s: typing.SupportsFloat | typing.SupportsIndex) -> None:
        """
        Returns when all ranks have called it.
        """
    def broadcast(
        self,
        buffers: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
            ]
        ],
        root: typing.SupportsInt | typing.SupportsIndex,
        timeout_s: typing.SupportsFloat | typing.SupportsIndex,
    ) -> None:
        """
        Copies root's buffers, (address, bytes) each, into everybody's.
        """
    def close(self) -> None:
        """
        As abort; a second call does nothing.
        """
    def gather(
        self,
        input: tuple[
            typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
        ],
        outputs: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
            ]
        ],
        dtype: str,
        root: typing.SupportsInt | typing.SupportsIndex,
        timeout_s: typing.SupportsFloat | typing.SupportsIndex,
    ) -> None:
        """
        As all_gather at root; the other ranks pass no outputs.
        """
    def reduce(
        self,
        buffers: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
            ]
        ],
        dtype: str,
        op: str,
        root: typing.SupportsInt | typing.SupportsIndex,
        timeout_s: typing.SupportsFloat | typing.SupportsIndex,
        factor: typing.SupportsFloat | typing.SupportsIndex = 1.0,
    ) -> None:
        """
        As all_reduce, but only root's buffers are written.
        """
    def reduce_scatter(
        self,
        inputs: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
            ]
        ],
        output: tuple[
            typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
        ],
        dtype: str,
        op: str,
        timeout_s: typing.SupportsFloat | typing.SupportsIndex,
        factor: typing.SupportsFloat | typing.SupportsIndex = 1.0,
    ) -> None:
        """
        output receives all ranks' inputs[rank], reduced; sizes may differ by rank.
        """
    def scatter(
        self,
        inputs: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
            ]
        ],
        output: tuple[
            typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
        ],
        dtype: str,
        root: typing.SupportsInt | typing.SupportsIndex,
        timeout_s: typing.SupportsFloat | typing.SupportsIndex,
    ) -> None:
        """
        output receives root's inputs[rank]; the others pass no inputs.
        """
    @property
    def generation(self) -> int: ...
    @property
    def rank(self) -> int: ...
    @property
    def sequence(self) -> int:
        """
        Operations begun so far.
        """
    @property
    def world_size(self) -> int: ...

class _CoreSpread:
    """
    Tests only: when a waiting rank leaves the core that it shares. `cores`: now, runnable, online, idle_s, allowed, move_to(core). One thread.
    """
    def __init__(self, cores: typing.Any) -> None: ...
    def idle(self, shared: bool) -> bool: ...
    def look(
        self,
        shared: bool,
        core: typing.SupportsInt | typing.SupportsIndex,
        taken: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    ) -> None: ...

class ExactSums:
    """
    Exact sums of many elements, over an array of float64 that the caller keeps; terms in any order. One thread.
    """
    def __init__(
        self,
        address: typing.SupportsInt | typing.SupportsIndex,
        elements: typing.SupportsInt | typing.SupportsIndex,
        instructions: str = "",
    ) -> None: ...
    def clear(self) -> None:
        """
        Forgets what does not lie in the array.
        """
    def fold(
        self,
        terms: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex,
                typing.SupportsInt | typing.SupportsIndex,
                typing.SupportsInt | typing.SupportsIndex,
                bool,
            ]
        ],
        dtype: str,
    ) -> None:
        """
        Adds terms, (at, address, elements, first) each; first: whatever was there before.
        """
    def narrow(
        self,
        targets: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex,
                typing.SupportsInt | typing.SupportsIndex,
                typing.SupportsInt | typing.SupportsIndex,
                bool,
            ]
        ],
        dtype: str,
    ) -> None:
        """
        Writes sums, rounded, to (at, address, elements, whatever).
        """
    def put_words(
        self,
        elements: typing.SupportsInt | typing.SupportsIndex,
        count: typing.SupportsInt | typing.SupportsIndex,
        words: typing.SupportsInt | typing.SupportsIndex,
    ) -> None:
        """
        The sums of these elements as EXACT_WORDS int64 each, to be added over ranks.
        """
    def settle(
        self,
        elements: typing.SupportsInt | typing.SupportsIndex,
        count: typing.SupportsInt | typing.SupportsIndex,
        words: typing.SupportsInt | typing.SupportsIndex,
    ) -> None:
        """
        Rounds words that were added over ranks into the array.
        """
    def unfit(self) -> bytes:
        """
        Elements of which a part is not in the array, ascending, as uint64.
        """
    def zero(
        self,
        at: typing.SupportsInt | typing.SupportsIndex,
        count: typing.SupportsInt | typing.SupportsIndex,
    ) -> None: ...
    @property
    def all_fit(self) -> bool:
        """
        Whether the array holds all of all sums.
        """

class RankFacts:
    """
    One rank as a transfer plan sees it; equal labels: same place.
    """

    healthy: bool
    def __init__(
        self,
        process: typing.SupportsInt | typing.SupportsIndex,
        node: typing.SupportsInt | typing.SupportsIndex = 0,
        rack: typing.SupportsInt | typing.SupportsIndex = 0,
        version: typing.SupportsInt | typing.SupportsIndex = 0,
        healthy: bool = True,
        rate_bytes_per_s: typing.SupportsFloat | typing.SupportsIndex = 0.0,
    ) -> None: ...
    @property
    def rate_bytes_per_s(self) -> float: ...
    @rate_bytes_per_s.setter
    def rate_bytes_per_s(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None: ...
    @property
    def version(self) -> int: ...
    @version.setter
    def version(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None: ...

class TensorSize:
    """
    A tensor of a manifest, for a transfer plan.
    """
    def __init__(
        self,
        name: str,
        nbytes: typing.SupportsInt | typing.SupportsIndex,
        family: typing.SupportsInt | typing.SupportsIndex = 0,
    ) -> None: ...

class PlanFamily:
    """
    Tensors laid over the ranks in one way: ranks of one group hold equal bytes; 2**32 - 1: holds nothing.
    """
    def __init__(
        self,
        group_of: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        group_bytes: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] = [],
    ) -> None: ...

class PlanRates:
    """
    Bytes/s by nearness (process, node, rack, elsewhere) and into a receiver.
    """
    def __init__(
        self,
        process: typing.SupportsFloat | typing.SupportsIndex = 20000000000.0,
        node: typing.SupportsFloat | typing.SupportsIndex = 10000000000.0,
        rack: typing.SupportsFloat | typing.SupportsIndex = 2500000000.0,
        elsewhere: typing.SupportsFloat | typing.SupportsIndex = 1000000000.0,
        intake: typing.SupportsFloat | typing.SupportsIndex = 20000000000.0,
    ) -> None: ...

class PlannedPull:
    """
    Bytes [begin, end) of a family's range go from source to receiver.
    """
    @property
    def begin(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def family(self) -> int: ...
    @property
    def receiver(self) -> int: ...
    @property
    def source(self) -> int: ...

class Remaining:
    """
    Bytes that have not arrived; whom not to ask again.
    """
    def __init__(
        self,
        receiver: typing.SupportsInt | typing.SupportsIndex,
        family: typing.SupportsInt | typing.SupportsIndex,
        begin: typing.SupportsInt | typing.SupportsIndex,
        end: typing.SupportsInt | typing.SupportsIndex,
        refused: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] = [],
    ) -> None: ...

class PlanRequest:
    """
    Who holds what, where, how fast; who needs it.
    """
    def __init__(
        self,
        tensors: collections.abc.Sequence[TensorSize],
        families: collections.abc.Sequence[PlanFamily],
        ranks: collections.abc.Sequence[RankFacts],
        receivers: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        version: typing.SupportsInt | typing.SupportsIndex,
        chunk_bytes: typing.SupportsInt | typing.SupportsIndex = 1048576,
        rates: PlanRates = ...,
    ) -> None: ...

class NcclLibrary:
    """
    libnccl, loaded at run time. Raises NotFound, Unsupported.
    """
    def __init__(
        self,
        path: str = "",
        known: collections.abc.Sequence[str] = [],
        *,
        setup_limit_s: typing.SupportsFloat | typing.SupportsIndex = 10.0,
        answer_limit_s: typing.SupportsFloat | typing.SupportsIndex = 2.0,
    ) -> None:
        """
        `path` is the only place looked at if it is given; `known` are places beside the loader's own. The limits are those of the links that a StateReceiver opens with it.
        """
    def unique_id(self) -> bytes:
        """
        A new one: 128 bytes, for one communicator.
        """
    @property
    def offers(self) -> list[str]:
        """
        What later versions brought: scalable, shrink, grow.
        """
    @property
    def path(self) -> str: ...
    @property
    def version(self) -> str: ...

class CudaDevice:
    """
    A CUDA device and its primary context. Raises NotFound, Unsupported.
    """
    def __init__(
        self,
        *,
        library: str = "",
        ordinal: typing.SupportsInt | typing.SupportsIndex = 0,
        uuid: str = "",
    ) -> None: ...
    def holds(self, address: typing.SupportsInt | typing.SupportsIndex) -> bool:
        """
        Whether that is device memory.
        """
    @property
    def driver_version(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def ordinal(self) -> int: ...
    @property
    def uuid(self) -> str: ...

class CudaBuffer:
    """
    Device memory of its own, for tests and benches.
    """
    def __init__(
        self, device: CudaDevice, nbytes: typing.SupportsInt | typing.SupportsIndex
    ) -> None: ...
    @property
    def address(self) -> int: ...
    @property
    def nbytes(self) -> int: ...

class Fabric:
    """
    A process's way into a network through libfabric. Raises Unsupported, NotFound.
    """
    def __init__(
        self,
        *,
        provider: str = "",
        library: str = "",
        domains: collections.abc.Sequence[str] = [],
        piece_bytes: typing.SupportsInt | typing.SupportsIndex = 0,
        window_bytes: typing.SupportsInt | typing.SupportsIndex = 0,
        answer_limit_s: typing.SupportsFloat | typing.SupportsIndex = 2.0,
        without: collections.abc.Sequence[str] = [],
    ) -> None: ...
    def describe(self) -> str: ...
    def release(
        self,
        regions: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
            ]
        ],
    ) -> None:
        """
        Forgets what is registered of this memory, before it is unmapped.
        """
    @property
    def domains(self) -> list[str]: ...
    @property
    def link_bytes_per_s(self) -> float:
        """
        0: not known.
        """
    @property
    def offers_device_memory(self) -> bool: ...
    @property
    def provider(self) -> str: ...
    @property
    def version(self) -> str: ...

class FabricServer:
    """
    Lets peers read this process's memory over a fabric.
    """
    def __init__(self, fabric: Fabric) -> None: ...
    def close(self) -> None:
        """
        Cuts off whoever reads. Twice is fine.
        """
    def expose(
        self,
        regions: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
            ]
        ],
        generation: typing.SupportsInt | typing.SupportsIndex = 0,
    ) -> bytes:
        """
        The address that a peer needs. The memory must stay until withdraw() or close().
        """
    def withdraw(
        self,
        regions: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
            ]
        ],
    ) -> None: ...

class RemoteMemory:
    """
    Reads another process's exposed regions.
    """
    @staticmethod
    def of_process(
        pid: typing.SupportsInt | typing.SupportsIndex,
        regions: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
            ]
        ],
        method: str = "probe",
        segment: NodeSegment | None = None,
        slot: typing.SupportsInt | typing.SupportsIndex = 0,
        generation: typing.SupportsInt | typing.SupportsIndex = 0,
    ) -> RemoteMemory:
        """
        On this node.
        """
    @staticmethod
    def over_cuda_ipc(
        device: CudaDevice,
        address: bytes,
        generation: typing.SupportsInt | typing.SupportsIndex,
        regions: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
            ]
        ],
        piece_bytes: typing.SupportsInt | typing.SupportsIndex = 0,
        slots: typing.SupportsInt | typing.SupportsIndex = 0,
        answer_limit_s: typing.SupportsFloat | typing.SupportsIndex = 2.0,
    ) -> RemoteMemory:
        """
        Device memory of a process of this node. Raises Unsupported, PeerDead.
        """
    @staticmethod
    def over_fabric(
        fabric: Fabric,
        address: bytes,
        generation: typing.SupportsInt | typing.SupportsIndex,
        regions: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
            ]
        ],
    ) -> RemoteMemory:
        """
        On any host; `regions` have the sizes that are expected.
        """
    @staticmethod
    def over_nccl(
        device: CudaDevice,
        nccl: NcclLibrary,
        address: bytes,
        generation: typing.SupportsInt | typing.SupportsIndex,
        regions: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
            ]
        ],
        unique_id: bytes,
        slots: typing.SupportsInt | typing.SupportsIndex = 0,
        answer_limit_s: typing.SupportsFloat | typing.SupportsIndex = 2.0,
        setup_limit_s: typing.SupportsFloat | typing.SupportsIndex = 10.0,
    ) -> RemoteMemory:
        """
        Blocks until NCCL is up. Raises DeadlineExceeded, PeerDead, MismatchError.
        """
    def abort(self) -> None:
        """
        Ends reads, now and later; from any thread.
        """
    def digest(
        self,
        offset: typing.SupportsInt | typing.SupportsIndex,
        bytes: typing.SupportsInt | typing.SupportsIndex,
        timeout_s: typing.SupportsFloat | typing.SupportsIndex = 30.0,
    ) -> bytes:
        """
        Of the other process's bytes; nothing of this process's is written but staging.
        """
    def read(
        self,
        offset: typing.SupportsInt | typing.SupportsIndex,
        bytes: typing.SupportsInt | typing.SupportsIndex,
        into: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
            ]
        ],
        timeout_s: typing.SupportsFloat | typing.SupportsIndex = 30.0,
    ) -> None:
        """
        Copies the bytes to the same offsets of `into`. Blocks. Raises PeerDead, MismatchError, DeadlineExceeded, Aborted.
        """
    def read_digested(
        self,
        offset: typing.SupportsInt | typing.SupportsIndex,
        bytes: typing.SupportsInt | typing.SupportsIndex,
        into: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
            ]
        ],
        timeout_s: typing.SupportsFloat | typing.SupportsIndex = 30.0,
    ) -> bytes:
        """
        As read(), and the digest of what arrived: equal to digest128 of the bytes.
        """
    @property
    def method(self) -> str: ...
    @property
    def note(self) -> str:
        """
        What an operator should know, such as a poor rate; else empty.
        """

class StagingServer:
    """
    Copies this process's memory into its slot's staging area for readers.
    """
    def __init__(
        self,
        segment: NodeSegment,
        slot: typing.SupportsInt | typing.SupportsIndex,
        regions: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
            ]
        ],
        generation: typing.SupportsInt | typing.SupportsIndex = 0,
    ) -> None: ...
    def close(self) -> None: ...

class CudaIpcExport:
    """
    Lets processes of this node read regions of device memory.
    """
    def __init__(
        self,
        device: CudaDevice,
        regions: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
            ]
        ],
        generation: typing.SupportsInt | typing.SupportsIndex = 0,
        stream: typing.SupportsInt | typing.SupportsIndex = 0,
    ) -> None:
        """
        `stream`: the handle of the one that computed the state last. Raises Unsupported.
        """
    @property
    def address(self) -> bytes:
        """
        What a reader needs; good while this object lives.
        """

class NcclServer:
    """
    Sends device memory to those who ask, over NCCL.
    """
    def __init__(
        self,
        device: CudaDevice,
        nccl: NcclLibrary,
        *,
        host: str = "",
        piece_bytes: typing.SupportsInt | typing.SupportsIndex = 0,
        slots: typing.SupportsInt | typing.SupportsIndex = 0,
        setup_limit_s: typing.SupportsFloat | typing.SupportsIndex = 10.0,
    ) -> None:
        """
        `host`: the address of this host that others reach; empty: receivers are here.
        """
    def close(self) -> None:
        """
        Ends all links. Twice is fine.
        """
    def expose(
        self,
        regions: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
            ]
        ],
        generation: typing.SupportsInt | typing.SupportsIndex,
        ids: collections.abc.Sequence[str],
        stream: typing.SupportsInt | typing.SupportsIndex = 0,
    ) -> bytes:
        """
        The address that receivers need, each with one of the unique ids. The memory must stay until withdraw() or close().
        """
    def withdraw(self, generation: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Ends the links of a generation.
        """

class Arena:
    """
    Memory for tensors that other processes of the node can map: a sealed memfd. Alive while this object is.
    """
    def __init__(self, nbytes: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Raises OutOfSpace.
        """
    @property
    def huge_nbytes(self) -> int:
        """
        Bytes that lie on huge pages.
        """
    @property
    def place(self) -> tuple[int, int, int, int]:
        """
        (fd, inode, address, bytes): how others find it.
        """

class ArenaMappings:
    """
    Other processes' arenas, mapped read-only. Thread-safe.
    """
    def __init__(self) -> None: ...
    def keep_only(
        self, inodes: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]
    ) -> None:
        """
        Unmaps all others.
        """
    def open(
        self,
        pid: typing.SupportsInt | typing.SupportsIndex,
        place: tuple[
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
            typing.SupportsInt | typing.SupportsIndex,
        ],
    ) -> None:
        """
        Maps an arena, all pages present, so that a pull need not. Raises PeerDead, Unsupported, MismatchError.
        """
    @property
    def mapped_nbytes(self) -> int: ...

class PublishStats:
    """
    What one source digested.
    """
    @property
    def bytes(self) -> int: ...
    @property
    def chunks(self) -> int: ...
    @property
    def seconds(self) -> float: ...

class StateSource:
    """
    The healthy side of a heal. Keep it, and the regions, until the next commit.
    """
    def __init__(
        self,
        worker: Worker,
        generation: typing.SupportsInt | typing.SupportsIndex,
        regions: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
            ]
        ],
        chunk_bytes: typing.SupportsInt | typing.SupportsIndex,
        index: typing.SupportsInt | typing.SupportsIndex,
        sources: typing.SupportsInt | typing.SupportsIndex,
        receivers: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        threads: typing.SupportsInt | typing.SupportsIndex = 1,
        server: FabricServer | None = None,
        device: CudaDevice | None = None,
        stream: typing.SupportsInt | typing.SupportsIndex = 0,
        nccl_server: NcclServer | None = None,
        unique_ids: collections.abc.Sequence[str] = [],
    ) -> None:
        """
        device, stream: where regions are device memory, and what computed them last.
        """
    def close(self) -> None:
        """
        Ends the staging thread; receivers that need it lose this source. Twice is fine.
        """
    def device_address(self) -> bytes:
        """
        What receivers of this node need to read device memory by CUDA IPC. Raises Unsupported.
        """
    def nccl_address(self) -> bytes:
        """
        What receivers anywhere need to ask for device memory over NCCL, each with its unique id.
        """
    def publish(self) -> PublishStats:
        """
        Digests this source's share, rings the receivers, returns. Raises RosterChanged.
        """
    def remote_address(self) -> bytes:
        """
        What receivers on other hosts need (of a source with a server). Before or after publish().
        """

class SourceAddress:
    """
    Where a source's state lies.
    """
    def __init__(
        self,
        slot: typing.SupportsInt | typing.SupportsIndex,
        pid: typing.SupportsInt | typing.SupportsIndex,
        regions: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
            ]
        ],
        arenas: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex,
                typing.SupportsInt | typing.SupportsIndex,
                typing.SupportsInt | typing.SupportsIndex,
                typing.SupportsInt | typing.SupportsIndex,
            ]
        ] = [],
        pace: tuple[
            typing.SupportsInt | typing.SupportsIndex, typing.SupportsFloat | typing.SupportsIndex
        ]
        | None = None,
        remote: bytes = b"",
        unreachable: str = "",
        device: bytes = b"",
        nccl: bytes = b"",
        unique_id: bytes = b"",
    ) -> None:
        """
        arenas: their `place`s. pace, for tests: (bytes, bytes/s) after so many bytes it gives so many a second; 0: it is gone. remote: the remote_address() of a source on another host; then pid and arenas are not looked at. unreachable: why it cannot be read. device, nccl: its device_address() and nccl_address(), tried in this order, the latter with this receiver's unique_id; pid 0: it is on another host.
        """
    @property
    def pid(self) -> int: ...
    @property
    def slot(self) -> int: ...

class PullStats:
    """
    What one pull did.
    """
    @property
    def bytes(self) -> int: ...
    @property
    def bytes_by_source(self) -> list[int]: ...
    @property
    def chunks(self) -> int: ...
    @property
    def method(self) -> str: ...
    @property
    def moved(self) -> int: ...
    @property
    def notes(self) -> str: ...
    @property
    def refetched(self) -> int: ...
    @property
    def reread(self) -> int: ...
    @property
    def seconds(self) -> float: ...

class StateReceiver:
    """
    The newcomer's side of a heal.
    """
    def __init__(
        self,
        worker: Worker,
        generation: typing.SupportsInt | typing.SupportsIndex,
        regions: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex
            ]
        ],
        chunk_bytes: typing.SupportsInt | typing.SupportsIndex,
        sources: collections.abc.Sequence[SourceAddress],
        threads: typing.SupportsInt | typing.SupportsIndex = 2,
        method: str = "probe",
        plan: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex,
                typing.SupportsInt | typing.SupportsIndex,
                typing.SupportsInt | typing.SupportsIndex,
            ]
        ] = [],
        mappings: ArenaMappings | None = None,
        fabric: Fabric | None = None,
        device: CudaDevice | None = None,
        nccl: NcclLibrary | None = None,
    ) -> None:
        """
        plan: (index of the source, begin, end) in bytes, ascending; empty: equal parts.
        """
    def pull(self, timeout_s: typing.SupportsFloat | typing.SupportsIndex) -> PullStats:
        """
        Blocks until all bytes arrived and are proved. Raises RosterChanged, DeadlineExceeded, MismatchError, CorruptData, PeerDead.
        """
    @property
    def progress(self) -> int:
        """
        Bytes read so far; from any thread.
        """

class Permutation:
    """
    Keyed permutation of range(count): the sample order of one epoch.
    """
    def __call__(self, position: typing.SupportsInt | typing.SupportsIndex) -> int: ...
    def __init__(
        self,
        count: typing.SupportsInt | typing.SupportsIndex,
        seed: typing.SupportsInt | typing.SupportsIndex,
        epoch: typing.SupportsInt | typing.SupportsIndex,
    ) -> None: ...
    def __len__(self) -> int: ...
    def many(
        self,
        first: typing.SupportsInt | typing.SupportsIndex,
        count: typing.SupportsInt | typing.SupportsIndex,
    ) -> list[int]: ...

class DatasetFile:
    """
    A mapped .hpd file. Thread-safe.
    """
    def __init__(self, path: str, verify: bool = True) -> None: ...
    def check_size(self) -> None: ...
    def document(
        self,
        field: typing.SupportsInt | typing.SupportsIndex,
        index: typing.SupportsInt | typing.SupportsIndex,
    ) -> tuple:
        """
        Tokens (begin, end) of a document.
        """
    def document_of(
        self,
        field: typing.SupportsInt | typing.SupportsIndex,
        token: typing.SupportsInt | typing.SupportsIndex,
    ) -> int:
        """
        The document that holds a token.
        """
    def documents(self, field: typing.SupportsInt | typing.SupportsIndex = 0) -> list[int]:
        """
        First token of each document, then the number of tokens.
        """
    def find_field(self, name: str) -> int:
        """
        Number of a field. NotFound names those there are.
        """
    def info(self) -> dict: ...
    def read(
        self,
        field: typing.SupportsInt | typing.SupportsIndex,
        first: typing.SupportsInt | typing.SupportsIndex,
        bytes: typing.SupportsInt | typing.SupportsIndex,
    ) -> bytes:
        """
        A copy of bytes of a field's data.
        """
    def row_range(
        self,
        field: typing.SupportsInt | typing.SupportsIndex,
        row: typing.SupportsInt | typing.SupportsIndex,
    ) -> tuple:
        """
        Bytes (begin, end) of a varying row in its field's data.
        """
    def scrub(self, most: typing.SupportsInt | typing.SupportsIndex) -> int:
        """
        Checks up to `most` blocks that were not; 0: all are.
        """
    def starts(
        self,
        field: typing.SupportsInt | typing.SupportsIndex,
        first: typing.SupportsInt | typing.SupportsIndex,
        count: typing.SupportsInt | typing.SupportsIndex,
    ) -> bytes:
        """
        uint64 [count + 1]: where documents (tokens) or varying rows (bytes) begin, and the end.
        """
    def verify_all(self) -> None: ...
    @property
    def checked_blocks(self) -> int:
        """
        Blocks whose checksums were compared, by any process that shares the bits.
        """
    @property
    def joined_checks(self) -> bool:
        """
        Another process of this node, that has the file open, began the checking.
        """
    @property
    def path(self) -> str: ...

class DatasetWriter:
    """
    Writes a .hpd file. One thread.
    """
    def __init__(
        self, path: str, fields: collections.abc.Sequence[dict], metadata: str = ""
    ) -> None:
        """
        Takes the lock of PATH.building; InvalidArgument while another process has it.
        """
    def append(self, field: typing.SupportsInt | typing.SupportsIndex, data: typing.Any) -> None:
        """
        Bytes of a field's data: any contiguous buffer.
        """
    def checkpoint(self, note: bytes) -> None:
        """
        From here a killed build goes on.
        """
    def end_rows(
        self, field: typing.SupportsInt | typing.SupportsIndex, lengths: typing.Any
    ) -> None:
        """
        Lengths (a buffer of uint64) of the documents, in tokens, or varying rows, in items.
        """
    def finish(self) -> dict: ...
    def give_up(self) -> None:
        """
        Removes what was built.
        """
    def keep(self) -> None:
        """
        Leaves the folder for a later build to go on.
        """
    def restart(self) -> None: ...
    @property
    def resumed(self) -> typing.Any:
        """
        Note of the checkpoint that a killed build of the same fields left, or None.
        """

class Interleave:
    """
    Turns of several parties by weight, evenly spread. Immutable.
    """
    def __init__(
        self, weights: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]
    ) -> None: ...
    def count(
        self,
        party: typing.SupportsInt | typing.SupportsIndex,
        positions: typing.SupportsInt | typing.SupportsIndex,
    ) -> int:
        """
        Turns of a party among the first positions.
        """
    def many(
        self,
        first: typing.SupportsInt | typing.SupportsIndex,
        count: typing.SupportsInt | typing.SupportsIndex,
    ) -> list[int]:
        """
        Who has the turns first ... first + count - 1.
        """
    def nth(self, position: typing.SupportsInt | typing.SupportsIndex) -> int:
        """
        How many turns the party of this position had before it.
        """
    @property
    def total(self) -> int: ...

class MixtureOrder:
    """
    Position -> (member, its sample), by weights. Immutable.
    """
    def __init__(
        self,
        counts: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        phases: collections.abc.Sequence[
            tuple[
                typing.SupportsInt | typing.SupportsIndex,
                collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
            ]
        ],
        seed: typing.SupportsInt | typing.SupportsIndex,
        shuffle: bool = True,
    ) -> None: ...
    def count(
        self,
        member: typing.SupportsInt | typing.SupportsIndex,
        positions: typing.SupportsInt | typing.SupportsIndex,
    ) -> int:
        """
        Samples of a member among the first ones.
        """
    def many(
        self,
        first: typing.SupportsInt | typing.SupportsIndex,
        count: typing.SupportsInt | typing.SupportsIndex,
    ) -> tuple[list[int], list[int]]:
        """
        (members, samples) of count positions.
        """

class SampleReader:
    """
    Gathers samples of one field into the caller's memory. Thread-safe.
    """
    def __init__(
        self,
        file: DatasetFile,
        field: typing.SupportsInt | typing.SupportsIndex,
        stride: typing.SupportsInt | typing.SupportsIndex = 1,
        length: typing.SupportsInt | typing.SupportsIndex = 1,
        mapped: bool = True,
        threads: typing.SupportsInt | typing.SupportsIndex = 1,
    ) -> None: ...
    def announce(
        self,
        seed: typing.SupportsInt | typing.SupportsIndex,
        first: typing.SupportsInt | typing.SupportsIndex,
        count: typing.SupportsInt | typing.SupportsIndex,
        shuffle: bool,
    ) -> int: ...
    def check(self, sample: typing.SupportsInt | typing.SupportsIndex) -> int:
        """
        Checks the sample's blocks; returns where it lies in the file.
        """
    def gather(
        self,
        samples: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
        out_address: typing.SupportsInt | typing.SupportsIndex,
        item_bytes: typing.SupportsInt | typing.SupportsIndex,
    ) -> None:
        """
        Writes [len(samples), numbers] at out_address; the caller keeps that memory alive.
        """
    def gather_order(
        self,
        seed: typing.SupportsInt | typing.SupportsIndex,
        first: typing.SupportsInt | typing.SupportsIndex,
        count: typing.SupportsInt | typing.SupportsIndex,
        shuffle: bool,
        out_address: typing.SupportsInt | typing.SupportsIndex,
        item_bytes: typing.SupportsInt | typing.SupportsIndex,
    ) -> None:
        """
        The same for the samples at positions first ... first + count - 1 of the order.
        """
    def order(
        self,
        seed: typing.SupportsInt | typing.SupportsIndex,
        first: typing.SupportsInt | typing.SupportsIndex,
        count: typing.SupportsInt | typing.SupportsIndex,
        shuffle: bool,
    ) -> list[int]: ...
    def will_need(
        self, samples: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]
    ) -> int: ...
    @property
    def fd(self) -> int: ...
    @property
    def numbers(self) -> int: ...
    @property
    def sample_bytes(self) -> int: ...
    @property
    def samples(self) -> int: ...

class NodeCache:
    """
    Records by key in a memory file that all processes of a node use. Thread-safe.
    """
    @staticmethod
    def attach(fd: typing.SupportsInt | typing.SupportsIndex) -> NodeCache:
        """
        Takes the descriptor over.
        """
    @staticmethod
    def create(ring_bytes: typing.SupportsInt | typing.SupportsIndex) -> NodeCache: ...
    def counters(self) -> dict: ...
    def get(
        self,
        space: typing.SupportsInt | typing.SupportsIndex,
        position: typing.SupportsInt | typing.SupportsIndex,
    ) -> typing.Any:
        """
        The record's bytes; None if it is not there.
        """
    def put(
        self,
        space: typing.SupportsInt | typing.SupportsIndex,
        position: typing.SupportsInt | typing.SupportsIndex,
        data: typing_extensions.Buffer,
    ) -> bool:
        """
        False if the record is too large to be kept.
        """
    @property
    def fd(self) -> int: ...
    @property
    def ring_bytes(self) -> int: ...

def _move_to_core(core: typing.SupportsInt | typing.SupportsIndex) -> int:
    """
    Tests only: puts this thread on a core (from 1); where it then was, or 0.
    """

def copy_bytes(
    file: DatasetFile,
    field: typing.SupportsInt | typing.SupportsIndex,
    begin: typing.SupportsInt | typing.SupportsIndex,
    bytes: typing.SupportsInt | typing.SupportsIndex,
    out_address: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
def copy_digested(
    into: typing_extensions.Buffer, buffer: typing_extensions.Buffer, code: str = ""
) -> bytes:
    """
    Copies past the caches and returns digest128 of what was copied, in one pass.
    """

def digest128(buffer: typing_extensions.Buffer, code: str = "") -> bytes:
    """
    16 bytes: four CRC-32C lanes, little-endian. Detects accidents, not attackers.
    """

def digest_codes() -> list[str]:
    """
    What computes digests on this CPU, the fastest first; `code` of the others names one. All give the same.
    """

def digest_regions(
    regions: collections.abc.Sequence[
        tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex]
    ],
) -> bytes:
    """
    digest128 of [(address, nbytes)], one after the other.
    """

def exact_sum(values: collections.abc.Iterable) -> float:
    """
    The sum of numbers, rounded once; the same in any order. +0 if it is zero.
    """

def maps_file(
    file_bytes: typing.SupportsInt | typing.SupportsIndex,
    memory_bytes: typing.SupportsInt | typing.SupportsIndex,
) -> bool: ...
def mark_documents(
    file: DatasetFile,
    field: typing.SupportsInt | typing.SupportsIndex,
    samples: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    stride: typing.SupportsInt | typing.SupportsIndex,
    length: typing.SupportsInt | typing.SupportsIndex,
    numbers_address: typing.SupportsInt | typing.SupportsIndex,
    places_address: typing.SupportsInt | typing.SupportsIndex,
) -> None: ...
def monotonic_ns() -> int:
    """
    CLOCK_MONOTONIC in nanoseconds: comparable between processes of one node.
    """

def plan_transfer(request: PlanRequest) -> list[PlannedPull]:
    """
    Which receiver pulls which bytes from which source. Pure. Raises NotFound (with what is lost), InvalidArgument.
    """

def prefer_quick_wakeups(realtime: bool = True) -> str:
    """
    Asks the kernel to run the calling thread soon after it is woken, on busy cores too. For threads that do little. What it forks is scheduled as usual. Returns what was granted: 'realtime' (SCHED_RR; needs a privilege), 'short slice' or 'usual'.
    """

def reduce_exactly(
    target: typing.SupportsInt | typing.SupportsIndex,
    sources: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    elements: typing.SupportsInt | typing.SupportsIndex,
    dtype: str,
    instructions: str = "",
) -> None:
    """
    What all_reduce with exact_sum does to the arrays at these addresses, one a rank.
    """

def reduce_in_rank_order(
    target: typing.SupportsInt | typing.SupportsIndex,
    sources: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
    elements: typing.SupportsInt | typing.SupportsIndex,
    dtype: str,
    op: str,
    factor: typing.SupportsFloat | typing.SupportsIndex = 1.0,
    instructions: str = "",
) -> None:
    """
    What all_reduce does to the arrays at these addresses, one for each rank: ((x0 op x1) op x2) ... target may be one of the sources. `instructions`: one of reduction_instructions(), the first of them by default.
    """

def reduction_instructions() -> list[str]:
    """
    The instruction sets for which there are reductions that this CPU can run, fastest first.
    """

def replan_transfer(
    request: PlanRequest, remaining: collections.abc.Sequence[Remaining]
) -> list[PlannedPull]:
    """
    The same for what has not arrived, with the ranks as they are now. Pure.
    """

def use_huge_pages(
    regions: collections.abc.Sequence[
        tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex]
    ],
) -> int:
    """
    Puts [(address, nbytes)] on huge pages: heals are twice as fast. Returns the bytes on them.
    """

def widen_code_name() -> str: ...

EXACT_WORDS: int = 12
FLAG_RECOVERABLE: int = 1
MAX_SLOTS: int = 64
ORDER_VERSION: int = 1
STATE_ATTACHED: int = 2
STATE_EMPTY: int = 0
STATE_FAILED: int = 6
STATE_FINISHED: int = 5
STATE_STARTING: int = 1
STATE_TRAINING: int = 4
STATE_WARM: int = 3
VERSION_APPLYING: int = 18446744073709551613
VERSION_NONE: int = 18446744073709551615
VERSION_TORN: int = 18446744073709551614
