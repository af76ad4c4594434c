#include "transport/fabric_lane.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>

namespace hpcore::transport {
namespace {

namespace fi = driver::fi;

// Reads in flight: enough for a window of small tensors, below every provider's queue.
constexpr size_t kMostOperations = 128;
constexpr auto kStopPoll = std::chrono::milliseconds(5);
constexpr auto kFlushLimit = std::chrono::milliseconds(50);
constexpr auto kDrainLimit = std::chrono::milliseconds(200);

bool refused(int error) {
  return error == EKEYREJECTED || error == EACCES || error == EPERM || error == ENOKEY ||
         error == EFAULT;
}

}  // namespace

FabricLane::FabricLane(std::shared_ptr<Fabric> fabric, std::shared_ptr<const FabricPeer> peer)
    : fabric_(std::move(fabric)), peer_(std::move(peer)) {}

FabricLane::~FabricLane() {
  (void)give_up({});
  if (bounce_) fabric_->release({bounce_region()});
}

Result<std::unique_ptr<FabricLane>> FabricLane::open(std::shared_ptr<Fabric> fabric,
                                                     std::shared_ptr<const FabricPeer> peer) {
  std::unique_ptr<FabricLane> lane(new FabricLane(std::move(fabric), std::move(peer)));
  if (Status status = lane->open_ports(); !status.ok()) return status;
  return lane;
}

Status FabricLane::open_ports() {
  const FabricOptions& options = fabric_->options();
  size_t operations = kMostOperations;
  pieces_limit_ = options.limits.plain_reads ? 1 : kPieces;
  for (const auto& [ours, theirs] : peer_->rails) {
    const fi::TxAttr& limits = *fabric_->rails()[ours]->info().tx_attr;
    operations = std::min(operations, std::max<size_t>(limits.size, 1));
    pieces_limit_ = std::min({pieces_limit_, std::max<size_t>(limits.iov_limit, 1),
                              std::max<size_t>(limits.rma_iov_limit, 1)});
  }
  const bool peer_writes = fabric_->rails()[0]->peer_writes();
  if (options.limits.bounce || peer_writes) {
    // No more operations than the window has room for: bounce buffers are as large as the window.
    operations = std::clamp<size_t>(options.window_bytes / options.piece_bytes, 1, operations);
    bounce_bytes_ = operations * options.piece_bytes;
    bounce_ = std::make_unique_for_overwrite<unsigned char[]>(bounce_bytes_);
  }
  operations_ = std::vector<Operation>(operations);
  for (const auto& [ours, theirs] : peer_->rails) {
    Result<FabricPort> port = FabricPort::open(fabric_->rails()[ours], 2 * operations);
    if (!port.ok()) return port.status();
    Result<uint64_t> peer = port.value().insert(peer_->address.rails[theirs].endpoint);
    if (!peer.ok()) return peer.status();
    emulated_ = emulated_ || port.value().emulates_reads();
    ports_.push_back(std::move(port.value()));
    peers_.push_back(peer.value());
    loads_.push_back(0);
  }
  waiter_ = std::make_unique<FabricWait>(ports_);
  return {};
}

// Where piece `piece` of the operation is read to, and libfabric's descriptor of that memory.
// `whole`: the caller's region that the piece is of, registered at once.
Status FabricLane::place(Operation* operation, size_t piece, const Region& whole) {
  const iovec& local = operation->local[piece];
  operation->target[piece] = local;
  operation->descriptors[piece] = nullptr;
  if (bounce_) {
    const auto number = static_cast<size_t>(operation - operations_.data());
    unsigned char* at = bounce_.get() + number * fabric_->options().piece_bytes;
    for (size_t i = 0; i < piece; ++i) at += operation->local[i].iov_len;
    operation->target[piece].iov_base = at;
  }
  FabricRail& rail = ports_[operation->rail].rail();
  if (!rail.needs_local_registration()) return {};
  auto made = rail.registration(bounce_ ? bounce_region() : whole);
  if (!made.ok()) return made.status();
  operation->descriptors[piece] = made.value()->mr->mem_desc;
  operation->held[piece] = std::move(made.value());
  return {};
}

// Neighbours on both sides, such as tensors cut from one buffer, are one piece of memory.
bool FabricLane::extend(Operation* operation, const iovec& local, const fi::RmaIov& remote) {
  if (operation->pieces == 0) return false;
  const size_t last = operation->pieces - 1;
  iovec& mine = operation->local[last];
  fi::RmaIov& theirs = operation->remote[last];
  if (static_cast<char*>(mine.iov_base) + mine.iov_len != local.iov_base) return false;
  if (theirs.key != remote.key || theirs.addr + theirs.len != remote.addr) return false;
  if (const auto& held = operation->held[last]; held && !bounce_) {
    const uint64_t end = reinterpret_cast<uint64_t>(local.iov_base) + local.iov_len;
    if (end > held->range.address + held->range.bytes) return false;
  }
  mine.iov_len += local.iov_len;
  operation->target[last].iov_len += local.iov_len;
  theirs.len += remote.len;
  return true;
}

// Fills the next free slot with the next piece of the range.
Status FabricLane::build(Progress* progress, const RegionMap& into) {
  Operation& operation = slot(progress->built);
  operation.offset = progress->next;
  operation.bytes = 0;
  operation.pieces = 0;
  operation.done = false;
  operation.rail =
      static_cast<size_t>(std::min_element(loads_.begin(), loads_.end()) - loads_.begin());
  const uint64_t most = fabric_->options().piece_bytes;
  while (operation.bytes < most && progress->next < progress->end) {
    const size_t region = into.region_at(progress->next);
    const uint64_t inside = progress->next - into.start(region);
    const size_t their_region = peer_->regions.region_at(progress->next);
    const uint64_t their_inside = progress->next - peer_->regions.start(their_region);
    const Region& exposed = peer_->regions.regions()[their_region];
    const uint64_t bytes =
        std::min({into.regions()[region].bytes - inside, exposed.bytes - their_inside,
                  most - operation.bytes, progress->end - progress->next});
    const FabricAddress::Range& range = peer_->address.ranges[peer_->ranges[their_region]];
    const auto& key = range.keys[peer_->rails[operation.rail].second];
    const iovec local{reinterpret_cast<void*>(into.regions()[region].address + inside), bytes};
    const fi::RmaIov remote{key.base + (exposed.address + their_inside - range.start), bytes,
                            key.key};
    if (!extend(&operation, local, remote)) {
      if (operation.pieces == pieces_limit_) break;
      const size_t piece = operation.pieces++;
      operation.local[piece] = local;
      operation.remote[piece] = remote;
      HPCORE_RETURN_IF_ERROR(place(&operation, piece, into.regions()[region]));
    }
    operation.bytes += bytes;
    progress->next += bytes;
  }
  ++progress->built;
  return {};
}

Status FabricLane::post(Progress* progress, const RegionMap& into, bool* any) {
  for (;;) {
    if (progress->built == progress->posted) {
      if (progress->next == progress->end) return {};
      if (progress->built - progress->head == operations_.size()) return {};
      if (progress->in_flight_bytes + fabric_->options().piece_bytes >
          fabric_->options().window_bytes) {
        return {};
      }
      HPCORE_RETURN_IF_ERROR(build(progress, into));
    }
    Operation& operation = slot(progress->posted);
    fi::MsgRma message{
        operation.target, operation.descriptors, operation.pieces,         peers_[operation.rail],
        operation.remote, operation.pieces,      operation.provider_space, 0};
    const FabricPort& port = ports_[operation.rail];
    fi::Ep* ep = port.endpoint();
    const ssize_t error = ep->rma->readmsg(ep, &message, fi::kCompletion);
    if (error == -EAGAIN) return {};
    if (error != 0) {
      return {Code::kPeerDead,
              "reading over " + port.rail().domain_name() + ": " + port.rail().error_text(error)};
    }
    ++progress->posted;
    progress->in_flight_bytes += operation.bytes;
    loads_[operation.rail] += operation.bytes;
    *any = true;
  }
}

bool FabricLane::in_flight() const {
  return std::any_of(loads_.begin(), loads_.end(), [](uint64_t bytes) { return bytes > 0; });
}

void FabricLane::settle(void* context) {
  auto* operation = static_cast<Operation*>(context);
  if (operation == nullptr || operation->done) return;
  operation->done = true;
  loads_[operation->rail] -= operation->bytes;
}

Status FabricLane::completion_error(const FabricPort& port) {
  fi::Cq* queue = port.queue();
  fi::CqErrEntry entry{};
  if (queue->ops->readerr(queue, &entry, 0) <= 0) return {};
  failed_ = true;
  settle(entry.op_context);
  const std::string where = " over " + port.rail().domain_name() + ": " +
                            port.rail().error_text(entry.err) + ", provider's error " +
                            std::to_string(entry.prov_errno);
  if (refused(entry.err)) {
    return {Code::kMismatch,
            "the peer refused a read" + where + ". Its address is of an older exposure"};
  }
  if (entry.err == ETIMEDOUT) return {Code::kTimeout, "the peer did not answer a read" + where};
  return {Code::kPeerDead, "a read failed, the peer is gone" + where};
}

Status FabricLane::reap(bool* any) {
  void* contexts[32];
  for (const FabricPort& port : ports_) {
    fi::Cq* queue = port.queue();
    const ssize_t count = queue->ops->read(queue, contexts, 32);
    if (count == -fi::kErrAvailable) HPCORE_RETURN_IF_ERROR(completion_error(port));
    if (count < 0 && count != -fi::kErrAvailable && count != -EAGAIN) {
      return {Code::kPeerDead, "the completion queue of " + port.rail().domain_name() +
                                   " failed: " + port.rail().error_text(count)};
    }
    for (ssize_t i = 0; i < count; ++i) {
      settle(contexts[i]);
      *any = true;
    }
  }
  return {};
}

Status FabricLane::announce(Progress* progress, const Arrival& arrival, bool* any) {
  // One at a time: between two, the window is filled again.
  if (progress->head == progress->posted || !slot(progress->head).done) return {};
  Operation& operation = slot(progress->head);
  for (size_t i = 0; bounce_ && i < operation.pieces; ++i) {
    std::memcpy(operation.local[i].iov_base, operation.target[i].iov_base,
                operation.local[i].iov_len);
  }
  ++progress->head;
  progress->in_flight_bytes -= operation.bytes;
  *any = true;
  arrival(operation.offset, operation.bytes);
  return {};
}

Status FabricLane::turn(Progress* progress, const RegionMap& into, const Arrival& arrival,
                        bool* any) {
  HPCORE_RETURN_IF_ERROR(post(progress, into, any));
  HPCORE_RETURN_IF_ERROR(reap(any));
  return announce(progress, arrival, any);
}

Region FabricLane::bounce_region() const {
  return {reinterpret_cast<uint64_t>(bounce_.get()), bounce_bytes_};
}

// libfabric 1.17's rxm can crash in fi_close when the peer has just ended the connection and reads
// are listed (4 of 53 runs of the contract test, none of 40 with this). So the queue is emptied
// first; a peer that is gone leaves none behind.
void FabricLane::flush() {
  const TimePoint until = Clock::now() + kFlushLimit;
  while (in_flight() && Clock::now() < until) {
    bool any = false;
    for (const FabricPort& port : ports_) {
      fi::Cq* queue = port.queue();
      void* context = nullptr;
      fi::CqErrEntry entry{};
      const ssize_t count = queue->ops->read(queue, &context, 1);
      if (count == -fi::kErrAvailable && queue->ops->readerr(queue, &entry, 0) > 0) {
        context = entry.op_context;
      } else if (count != 1) {
        continue;
      }
      any = true;
      settle(context);
    }
    if (!any) std::this_thread::yield();
  }
}

Status FabricLane::give_up(Status status) {
  waiter_.reset();
  const bool cut_off = failed_ || in_flight();
  if (status.code() == Code::kPeerDead || status.code() == Code::kMismatch) flush();
  if (cut_off && bounce_ && fabric_->rails()[0]->peer_writes()) {
    fabric_->release({bounce_region()});
    (void)bounce_.release();  // leaked on purpose
  }
  failed_ = false;
  loads_.clear();
  ports_.clear();  // closes the endpoints: what was in flight ends here
  for (Operation& operation : operations_) {
    for (auto& held : operation.held) held.reset();
  }
  return status;
}

// A connection that is cut in mid-read costs the peer as well: so what is in flight may arrive.
Status FabricLane::stopped(Progress* progress) {
  Status status(Code::kAborted, "reading state was stopped");
  const TimePoint until = Clock::now() + kDrainLimit;
  auto in_flight = [&] {
    while (progress->head < progress->posted && slot(progress->head).done) ++progress->head;
    return progress->head < progress->posted;
  };
  while (in_flight()) {
    bool any = false;
    if (Clock::now() >= until || !reap(&any).ok()) return give_up(std::move(status));
    if (!any) waiter_->wait(kStopPoll);
  }
  return status;
}

Status FabricLane::stream(uint64_t offset, uint64_t bytes, const RegionMap& into,
                          const StopCondition& stop, const Arrival& arrival) {
  const auto limit = std::chrono::duration_cast<Clock::duration>(
      std::chrono::duration<double>(fabric_->options().answer_limit_s));
  Progress progress;
  progress.next = offset;
  progress.end = offset + bytes;
  TimePoint last = Clock::now();
  while (progress.head < progress.built || progress.next < progress.end) {
    bool any = false;
    if (Status status = turn(&progress, into, arrival, &any); !status.ok()) {
      return give_up(std::move(status));
    }
    if (stop()) return stopped(&progress);
    if (any) {
      last = Clock::now();
      waiter_->found();
      continue;
    }
    if (Clock::now() - last >= limit) {
      return give_up(
          {Code::kTimeout, "nothing came from the peer over " + fabric_->describe() + " for " +
                               std::to_string(fabric_->options().answer_limit_s) + " s"});
    }
    waiter_->wait(kStopPoll);
  }
  return {};
}

}  // namespace hpcore::transport
