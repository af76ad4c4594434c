#include "transport/staging.hpp"

#include <signal.h>

#include <algorithm>
#include <cstring>
#include <system_error>

namespace hpcore::transport {
namespace {

enum CellState : uint64_t { kFree, kClaimed, kRequested, kFilling, kFilled };

// A source that does not answer for this long (stopped, starved) is skipped; other sources hold the
// same bytes.
constexpr auto kAnswerLimit = std::chrono::milliseconds(500);
constexpr auto kStopPoll = std::chrono::milliseconds(5);

uint64_t cell_word(uint64_t generation, CellState state) { return generation << 8 | state; }

bool move_cell(StagingCell& cell, uint64_t generation, CellState from, CellState to) {
  uint64_t expected = cell_word(generation, from);
  return cell.word.compare_exchange_strong(expected, cell_word(generation, to),
                                           std::memory_order_acq_rel);
}

}  // namespace

void StagingArea::reset(uint64_t generation) {
  for (StagingCell& cell : cells) {
    cell.word.store(cell_word(generation, kFree), std::memory_order_release);
  }
}

StagingServer::StagingServer(StagingArea* area, const RegionMap* regions, uint64_t generation,
                             StopCondition stop)
    : area_(area), regions_(regions), generation_(generation), stop_(std::move(stop)) {}

StagingServer::~StagingServer() { stop(); }

Status StagingServer::start() {
  // Signals belong to the script's main thread.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  Status status;
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::system_error& error) {
    status = Status::system("starting the staging thread", error.code().value());
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return status;
}

void StagingServer::stop() {
  stopped_.store(true);
  area_->request.ring();
  if (thread_.joinable()) thread_.join();
}

void StagingServer::run() {
  auto ended = [this] { return stopped_.load() || stop_(); };
  auto asked = [this] {
    return std::any_of(std::begin(area_->cells), std::end(area_->cells), [this](StagingCell& cell) {
      return cell.word.load(std::memory_order_acquire) == cell_word(generation_, kRequested);
    });
  };
  while (!ended()) {
    area_->request.wait([&] { return ended() || asked(); }, TimePoint::max());
    while (!ended() && serve_one()) {
    }
  }
}

bool StagingServer::serve_one() {
  for (size_t i = 0; i < kStagingCells; ++i) {
    StagingCell& cell = area_->cells[i];
    if (!move_cell(cell, generation_, kRequested, kFilling)) continue;
    const uint64_t offset = cell.offset;
    const uint64_t bytes = cell.bytes;
    // The request comes from shared memory: a torn one is left unanswered.
    if (bytes <= kStagingCellBytes && offset <= regions_->bytes() &&
        bytes <= regions_->bytes() - offset) {
      std::vector<iovec> pieces;
      regions_->pieces(offset, bytes, &pieces);
      unsigned char* to = area_->data[i];
      for (const iovec& piece : pieces) {
        std::memcpy(to, piece.iov_base, piece.iov_len);
        to += piece.iov_len;
      }
      move_cell(cell, generation_, kFilling, kFilled);
      area_->reply.ring();
    }
    return true;
  }
  return false;
}

Result<size_t> StagingMemory::claim(TimePoint deadline, const StopCondition& stop) {
  StagingArea& area = *process_.staging;
  size_t claimed = kStagingCells;
  auto try_claim = [&] {
    for (size_t i = 0; i < kStagingCells && claimed == kStagingCells; ++i) {
      if (move_cell(area.cells[i], process_.generation, kFree, kClaimed)) claimed = i;
    }
    return claimed < kStagingCells;
  };
  while (!stop()) {
    if (area.reply.wait(try_claim, std::min(deadline, Clock::now() + kStopPoll))) return claimed;
    if (Clock::now() >= deadline) {
      return Status(Code::kTimeout, "process " + std::to_string(process_.pid) +
                                        " freed no staging cell within 0.5 s");
    }
  }
  return Status(Code::kAborted, "reading state was stopped");
}

Status StagingMemory::read_piece(uint64_t offset, uint64_t bytes, const RegionMap& into,
                                 const StopCondition& stop) {
  StagingArea& area = *process_.staging;
  const TimePoint deadline = Clock::now() + kAnswerLimit;
  Result<size_t> claimed = claim(deadline, stop);
  if (!claimed.ok()) return claimed.status();
  StagingCell& cell = area.cells[claimed.value()];
  const uint64_t generation = process_.generation;
  cell.offset = offset;
  cell.bytes = bytes;
  if (!move_cell(cell, generation, kClaimed, kRequested))
    return {Code::kAborted, "a newer generation began"};
  area.request.ring();
  auto filled = [&] {
    return cell.word.load(std::memory_order_acquire) == cell_word(generation, kFilled);
  };
  while (!area.reply.wait(filled, std::min(deadline, Clock::now() + kStopPoll))) {
    const bool late = Clock::now() >= deadline;
    if (!late && !stop()) continue;
    // Taken back unless the source is just filling it; then it stays taken until the next
    // generation.
    move_cell(cell, generation, kRequested, kFree);
    if (!late) return {Code::kAborted, "reading state was stopped"};
    return {Code::kTimeout,
            "process " + std::to_string(process_.pid) + " did not answer within 0.5 s"};
  }
  std::vector<iovec> pieces;
  into.pieces(offset, bytes, &pieces);
  const unsigned char* from = area.data[claimed.value()];
  for (const iovec& piece : pieces) {
    std::memcpy(piece.iov_base, from, piece.iov_len);
    from += piece.iov_len;
  }
  move_cell(cell, generation, kFilled, kFree);
  area.reply.ring();
  return {};
}

Status StagingMemory::read(uint64_t offset, uint64_t bytes, const RegionMap& into,
                           const StopCondition& stop) {
  while (bytes > 0) {
    const uint64_t length = std::min<uint64_t>(bytes, kStagingCellBytes);
    HPCORE_RETURN_IF_ERROR(read_piece(offset, length, into, stop));
    offset += length;
    bytes -= length;
  }
  return {};
}

}  // namespace hpcore::transport
