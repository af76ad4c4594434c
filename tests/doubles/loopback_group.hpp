// Members of a loopback communicator and the groups of sends and receives that they run: the part
// of libnccl_loopback.cpp below NCCL's functions. Included by it alone.
#pragma once

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

}  // namespace
