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
#include "loopback_group.hpp"

namespace {

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
  if (!made->blocking) return (void)come_together(made), kInProgress;
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
API int ncclCommFinalize(ncclComm* comm) {
  return comm->in_flight.load() > 0 ? int(kInProgress) : comm->state.load();
}
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
