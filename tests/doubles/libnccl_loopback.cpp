// A test double of libnccl: the same symbols, members are processes of one host and user. Sends
// and receives run on the stream that they are given (libcuda_loopback's, which this library is
// linked with; without one, at once), and end only when both sides have run or when the
// communicator is aborted. As with NCCL: a dead peer is not noticed by itself; a communicator that
// is destroyed with work in flight is a bug of the caller, which ends the process with code 86.
//
// Faults (loopback_faults.hpp):
//   init_hangs         members never come together
//   init_error         ncclCommInitRank* fails with ncclSystemError
//   flip_send          the n-th send from now flips a bit of its first byte on the way
//   async_error        at the n-th operation from now the communicator fails with ncclRemoteError
//   group_in_progress  so many polls after a group's end say ncclInProgress
//   stall_send         sends move nothing while it is set
//   version            what ncclGetVersion says (default 22907)
#include <climits>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "loopback_faults.hpp"
#include "loopback_segment.hpp"

#define API extern "C" __attribute__((visibility("default")))

struct CUstream_st;
extern "C" __attribute__((weak)) int cuLaunchHostFunc(CUstream_st*, void (*)(void*), void*);

namespace {

using loopback::Place;
using loopback::Segment;

enum { kOk, kCudaError, kSystemError, kInternal, kInvalidArgument, kInvalidUsage, kRemoteError };
constexpr int kInProgress = 7;
constexpr unsigned kMagic = 0xcafebeef;

enum { kInitHangs, kInitError, kFlipSend, kAsyncError, kGroupInProgress, kStallSend, kVersion };
loopback::Fault faults[] = {loopback::Fault("init_hangs"),
                            loopback::Fault("init_error"),
                            loopback::Fault("flip_send"),
                            loopback::Fault("async_error"),
                            loopback::Fault("group_in_progress"),
                            loopback::Fault("stall_send"),
                            loopback::Fault("version")};
const bool environment_read = (loopback::read_environment(faults), true);

struct UniqueId {
  char bytes[128];
};
struct Config {  // the part that matters here
  size_t size;
  unsigned magic, version;
  int blocking;
};

}  // namespace

struct ncclComm {
  Segment* segment = nullptr;
  Segment* parent = nullptr;  // where the place of the segment will be said
  int child = 0;
  int rank = 0, ranks = 0;
  bool blocking = true;
  bool whole = false;      // all members are there
  int children = 0;        // made of this one so far
  long pending_polls = 0;  // that say ncclInProgress
  std::atomic<int> state{kOk};
  std::atomic<bool> aborted{false};
  std::atomic<int> in_flight{0};
};

namespace {

struct Operation {
  bool is_send;
  unsigned char* data;
  size_t bytes;
  int peer;
  ncclComm* comm;
  CUstream_st* stream;
  bool flip = false;

  bool advance() {
    if (is_send && faults[kStallSend].get() != 0) return false;
    Segment& shared = *comm->segment;
    if (!is_send) {
      const size_t moved = shared.streams[peer][comm->rank].take(data, bytes);
      data += moved, bytes -= moved;
      return moved > 0;
    }
    unsigned char first = bytes > 0 ? *data ^ 1 : 0;
    const bool bad = flip && bytes > 0;
    const size_t moved = shared.streams[comm->rank][peer].put(bad ? &first : data, bad ? 1 : bytes);
    if (moved > 0) flip = false;
    data += moved, bytes -= moved;
    return moved > 0;
  }
};

// What one group does on one stream.
struct Launch {
  ncclComm* comm;
  std::vector<Operation> operations;

  // The first unfinished one of each peer and direction; false when nothing is left.
  bool round(bool* moved) {
    bool busy[2][loopback::kMaxRanks] = {};
    bool any = false;
    for (Operation& operation : operations) {
      if (operation.bytes == 0 || busy[operation.is_send][operation.peer]) continue;
      busy[operation.is_send][operation.peer] = any = true;
      *moved = operation.advance() || *moved;
    }
    return any;
  }
  void run() {
    for (bool moved = true; !comm->aborted.load(); moved = false) {
      if (comm->state.load() == kOk && !round(&moved)) break;
      if (!moved) usleep(50);
    }
    comm->in_flight.fetch_sub(1);
  }
};

thread_local int depth = 0;
thread_local std::vector<Operation> queued;

void launch(std::unique_ptr<Launch> made) {
  made->comm->in_flight.fetch_add(1);
  CUstream_st* stream = made->operations[0].stream;
  auto run = [](void* raw) { std::unique_ptr<Launch>(static_cast<Launch*>(raw))->run(); };
  if (cuLaunchHostFunc == nullptr || stream == nullptr) {
    run(made.release());
  } else {
    cuLaunchHostFunc(stream, run, made.release());
  }
}

int end_group() {
  std::map<std::pair<ncclComm*, CUstream_st*>, std::unique_ptr<Launch>> launches;
  for (Operation& operation : queued) {
    auto& made = launches[{operation.comm, operation.stream}];
    if (!made) made.reset(new Launch{operation.comm, {}});
    made->operations.push_back(operation);
  }
  queued.clear();
  int result = kOk;
  for (auto& [key, made] : launches) {
    ncclComm* comm = key.first;
    if (const int state = comm->state.load(); state != kOk) return state;
    if (!comm->blocking && faults[kGroupInProgress].get() > 0) {
      comm->pending_polls = faults[kGroupInProgress].get();
      result = kInProgress;
    }
    launch(std::move(made));
  }
  return result;
}

int add(Operation operation) {
  ncclComm* comm = operation.comm;
  if (comm == nullptr || operation.peer < 0 || operation.peer >= comm->ranks) {
    return kInvalidArgument;
  }
  if (!comm->whole || comm->aborted) return kInvalidUsage;
  if (faults[kAsyncError].strikes()) comm->state = kRemoteError;
  operation.flip = operation.is_send && faults[kFlipSend].strikes();
  queued.push_back(operation);
  return depth > 0 ? int(kOk) : end_group();
}

// Goes on with an init that others have to join; ncclInProgress until all have.
int come_together(ncclComm* comm) {
  if (comm->whole) return kOk;
  if (faults[kInitHangs].get() != 0) return kInProgress;
  if (comm->segment == nullptr) {
    const loopback::Child& child = comm->parent->children[comm->child];
    if (child.known.load() == 0) return kInProgress;
    comm->segment = Segment::open(child.place);
    if (comm->segment == nullptr) return comm->state = kSystemError;
  }
  uint64_t ranks = 0;
  if (!comm->segment->ranks.compare_exchange_strong(ranks, uint64_t(comm->ranks)) &&
      ranks != uint64_t(comm->ranks)) {
    return comm->state = kInvalidArgument;
  }
  comm->segment->joined[comm->rank].store(1);
  for (int i = 0; i < comm->ranks; ++i) {
    if (comm->segment->joined[i].load() == 0) return kInProgress;
  }
  comm->whole = true;
  return kOk;
}

bool configure(ncclComm* comm, const Config* config) {
  if (config == nullptr) return true;
  if (config->magic != kMagic || config->version < 21400) return false;
  comm->blocking = config->blocking != 0;  // undefined: blocking
  return true;
}

int start(ncclComm* made, const Config* config, ncclComm** out) {
  std::unique_ptr<ncclComm> comm(made);
  *out = nullptr;
  if (faults[kInitError].get() != 0) return kSystemError;
  const bool fits =
      made->rank >= 0 && made->rank < made->ranks && made->ranks <= loopback::kMaxRanks;
  if (!fits || !configure(made, config)) return kInvalidArgument;
  *out = comm.release();
  if (!made->blocking) return kInProgress;
  int result = kInProgress;
  while ((result = come_together(made)) == kInProgress) usleep(100);
  return result;
}

int start_with(const UniqueId& id, int ranks, int rank, const Config* config, ncclComm** out) {
  Place place;
  std::memcpy(static_cast<void*>(&place), &id, sizeof place);
  auto* comm = new ncclComm;
  comm->rank = rank, comm->ranks = ranks;
  comm->segment = Segment::open(place);
  if (comm->segment == nullptr) return delete comm, int(kSystemError);
  return start(comm, config, out);
}

int release(ncclComm* comm) {
  // One with children stays mapped: they may still have to learn their places from it.
  if (comm->segment != nullptr && comm->children == 0) munmap(comm->segment, sizeof(Segment));
  delete comm;
  return kOk;
}

void tell_child(Segment* parent, int child, const Place& place) {
  parent->children[child].place = place;
  parent->children[child].known.store(1);
}

}  // namespace

API int loopback_fault(const char* name, long value) {
  return loopback::set_fault(faults, name, value) ? kOk : kInvalidArgument;
}
API int ncclGetVersion(int* version) {
  *version = faults[kVersion].get() != 0 ? int(faults[kVersion].get()) : 22907;
  return kOk;
}
API int ncclGetUniqueId(UniqueId* id) {
  Place place;
  if (!Segment::create(&place)) return kSystemError;
  std::memset(id, 0, sizeof *id);
  std::memcpy(id, &place, sizeof place);
  return kOk;
}
API const char* ncclGetErrorString(int result) {
  static const char* const texts[] = {"no error",
                                      "unhandled cuda error",
                                      "unhandled system error",
                                      "internal error",
                                      "invalid argument",
                                      "invalid usage",
                                      "remote process exited or there was a network error",
                                      "NCCL operation in progress"};
  return result >= 0 && result <= kInProgress ? texts[result] : "unknown result code";
}
API const char* ncclGetLastError(ncclComm*) { return ""; }
API int ncclCommInitRankConfig(ncclComm** comm, int ranks, UniqueId id, int rank, Config* config) {
  return start_with(id, ranks, rank, config, comm);
}
API int ncclCommInitRankScalable(ncclComm** comm, int ranks, int rank, int count, UniqueId* ids,
                                 Config* config) {
  if (count < 1 || count > ranks) return kInvalidArgument;
  return start_with(ids[0], ranks, rank, config, comm);
}
API int ncclCommGetAsyncError(ncclComm* comm, int* result) {
  *result = come_together(comm);
  if (*result == kOk) *result = comm->state.load();
  if (*result == kOk && comm->pending_polls > 0) {
    --comm->pending_polls;
    *result = kInProgress;
  }
  return kOk;
}
API int ncclCommCount(const ncclComm* comm, int* count) { return *count = comm->ranks, kOk; }
API int ncclCommUserRank(const ncclComm* comm, int* rank) { return *rank = comm->rank, kOk; }
API int ncclCommAbort(ncclComm* comm) {
  comm->aborted = true;
  while (comm->in_flight.load() > 0) usleep(50);
  return release(comm);
}
API int ncclCommFinalize(ncclComm* comm) { return comm->state.load(); }
API int ncclCommDestroy(ncclComm* comm) {
  if (comm->in_flight.load() > 0) {
    std::fprintf(stderr, "loopback NCCL: a communicator was destroyed with work in flight\n");
    _exit(86);
  }
  return release(comm);
}
API int ncclGroupStart() { return ++depth, kOk; }
API int ncclGroupEnd() {
  if (depth == 0) return kInvalidUsage;
  return --depth > 0 ? int(kOk) : end_group();
}
API int ncclSend(const void* data, size_t count, int type, int peer, ncclComm* comm,
                 CUstream_st* stream) {
  if (type > 1) return kInvalidArgument;  // bytes only
  auto* bytes = static_cast<unsigned char*>(const_cast<void*>(data));
  return add({true, bytes, count, peer, comm, stream});
}
API int ncclRecv(void* data, size_t count, int type, int peer, ncclComm* comm,
                 CUstream_st* stream) {
  if (type > 1) return kInvalidArgument;
  return add({false, static_cast<unsigned char*>(data), count, peer, comm, stream});
}

API int ncclCommShrink(ncclComm* comm, int* excluded, int count, ncclComm** out, Config* config,
                       int flags) {
  if (flags == 1) {  // NCCL_SHRINK_ABORT
    comm->aborted = true;
    while (comm->in_flight.load() > 0) usleep(50);
  }
  if (comm->in_flight.load() > 0) return kInvalidUsage;
  std::vector<int> kept;
  for (int rank = 0; rank < comm->ranks; ++rank) {
    if (std::find(excluded, excluded + count, rank) == excluded + count) kept.push_back(rank);
  }
  const auto mine = std::find(kept.begin(), kept.end(), comm->rank);
  if (mine == kept.end()) return kInvalidArgument;
  auto* made = new ncclComm;
  made->parent = comm->segment;
  made->child = comm->children++;
  made->rank = int(mine - kept.begin()), made->ranks = int(kept.size());
  made->blocking = comm->blocking;
  Place place;
  if (made->rank == 0 && !Segment::create(&place)) return delete made, int(kSystemError);
  if (made->rank == 0) tell_child(comm->segment, made->child, place);
  return start(made, config, out);
}
API int ncclCommGetUniqueId(ncclComm*, UniqueId* id) { return ncclGetUniqueId(id); }
API int ncclCommGrow(ncclComm* comm, int ranks, const UniqueId* id, int rank, ncclComm** out,
                     Config* config) {
  if (comm == nullptr)
    return id == nullptr ? int(kInvalidArgument) : start_with(*id, ranks, rank, config, out);
  auto* made = new ncclComm;
  made->parent = comm->segment;
  made->child = comm->children++;
  made->rank = comm->rank, made->ranks = ranks;
  made->blocking = comm->blocking;
  Place place;
  if (id != nullptr) std::memcpy(static_cast<void*>(&place), id, sizeof place);
  if (id != nullptr) tell_child(comm->segment, made->child, place);
  return start(made, config, out);
}
