// Life of a backend and of its operations. The operations: reductions.cpp, movements.cpp,
// messages.cpp.
#include "torch/backend.hpp"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>

#include "torch/error.hpp"
#include "torch/without_gil.hpp"

namespace hpcore::torch_binding {
HpcoreBackend::HpcoreBackend(Group::Facts facts, std::chrono::milliseconds timeout)
    : Backend(facts.rank, facts.size),
      options_(c10::make_intrusive<Options>("hpcore", timeout)),
      first_store_(facts.store),
      handle_(MemberHandle::fresh(facts.global_ranks.empty()
                                      ? facts.rank
                                      : facts.global_ranks.at(static_cast<size_t>(facts.rank)))),
      group_(std::make_shared<Group>(std::move(facts))) {
  options_->group_name = group_->facts().name;
  for (const int64_t rank : group_->facts().global_ranks) {
    options_->global_ranks_in_group.push_back(static_cast<uint64_t>(rank));
  }
  const Group::Facts& known = group_->facts();
  if (known.recorder) {
    recorded_ = known.recorder->new_group(known.name, known.global_ranks);
  }
}

HpcoreBackend::~HpcoreBackend() { cut_short(); }

std::shared_ptr<Group> HpcoreBackend::group() const {
  const std::lock_guard lock(group_mutex_);
  return group_;
}

void HpcoreBackend::cut_short() {
  without_gil([this] {
    group()->abort();
    executor_.finish();
  });
}

void HpcoreBackend::abort() {
  hooks_->run();
  cut_short();
}

void HpcoreBackend::shutdown() {
  without_gil([this] {
    executor_.finish();
    group()->abort();
  });
}

c10d::ErrorType HpcoreBackend::getError() {
  return group()->revoked() ? c10d::ErrorType::REMOTE_ERROR : c10d::ErrorType::SUCCESS;
}

std::chrono::milliseconds HpcoreBackend::chosen(std::chrono::milliseconds timeout) const {
  constexpr std::chrono::milliseconds kLongest = std::chrono::hours(24 * 365);  // no overflow
  if (timeout == c10d::kUnsetTimeout || timeout == kNoTimeout) timeout = options_->timeout;
  return std::min(timeout, kLongest);
}

c10::intrusive_ptr<HpcoreWork> HpcoreBackend::begin(const Call& call) {
  const uint64_t sequence = sequence_.fetch_add(1);
  FlightTicket ticket;
  if (const auto& recorder = group_->facts().recorder) {
    const FlightRecorder::Operation operation{call.title, sequence, c10d::isP2POp(call.type),
                                              chosen(call.timeout)};
    ticket = {recorder, recorder->begin(recorded_, operation, call.inputs, call.outputs)};
  }
  auto work = c10::make_intrusive<HpcoreWork>(
      HpcoreWork::Facts{getRank(), call.type, call.title, sequence, call.inputs, call.outputs,
                        std::move(ticket), chosen(call.timeout)});
  const std::lock_guard lock(coalescing_mutex_);
  if (coalescing_) coalesced_.push_back(work);
  return work;
}

WorkPtr HpcoreBackend::submit(const Call& call, Body body) {
  auto work = begin(call);
  const auto timeout = chosen(call.timeout);
  auto job = [work, body = std::move(body), timeout, group = group_, hooks = hooks_,
              title = call.title] {
    Status status;
    work->started();
    try {
      const collective::Limits limits{Clock::now() + timeout};
      auto communicator = group->communicator(limits.deadline);
      status = communicator.ok() ? body(*communicator.value(), limits) : communicator.status();
      if (status.code() == Code::kTimeout) hooks->run();
    } catch (const c10::Error& error) {
      status = {Code::kInvalid, std::string(title) + ": " + error.what_without_backtrace()};
    } catch (...) {
      // What the store raised keeps its class.
      work->complete(std::current_exception());
      return;
    }
    work->complete(group->with_flight(std::move(status)));
  };
  auto* raw = work.get();
  work->set_driver(
      [raw, help = executor_.helper()] { help([raw] { return raw->isCompleted(); }); });
  if (!executor_.submit(std::move(job), !call.async)) {
    work->complete({Code::kAborted, std::string(call.title) + ": group '" + group_->facts().name +
                                        "' was aborted or shut down by this process"});
  }
  return work;
}

c10::intrusive_ptr<c10d::Backend> HpcoreBackend::split(const c10::intrusive_ptr<c10d::Store>& store,
                                                       const std::vector<int>& ranks,
                                                       const c10::intrusive_ptr<Options>& options) {
  // torch splits once for each device type that this backend serves, with one store for all.
  const std::string prefix = "split" + std::to_string(splits_.fetch_add(1)) + "/";
  const auto place = std::find(ranks.begin(), ranks.end(), getRank());
  if (place == ranks.end()) return nullptr;
  Group::Facts facts = group_->facts();
  facts.store = c10::make_intrusive<c10d::PrefixStore>(prefix, store);
  facts.rank = static_cast<int>(place - ranks.begin());
  facts.size = static_cast<int>(ranks.size());
  if (options) facts.name = options->group_name;
  facts.global_ranks.clear();
  const auto& global = group_->facts().global_ranks;
  for (const int rank : ranks) {
    facts.global_ranks.push_back(global.empty() ? rank : global.at(static_cast<size_t>(rank)));
  }
  return c10::make_intrusive<HpcoreBackend>(std::move(facts),
                                            options ? options->timeout : options_->timeout);
}

void HpcoreBackend::startCoalescing() {
  const std::lock_guard lock(coalescing_mutex_);
  coalescing_ = true;
  coalesced_.clear();
}

// The operations run as they come; this is one handle for all of them.
WorkPtr HpcoreBackend::endCoalescing() {
  std::vector<c10::intrusive_ptr<HpcoreWork>> parts;
  {
    const std::lock_guard lock(coalescing_mutex_);
    coalescing_ = false;
    parts.swap(coalesced_);
  }
  auto whole = c10::make_intrusive<HpcoreWork>(HpcoreWork::Facts{
      getRank(), c10d::OpType::COALESCED, "hpcore:coalesced", sequence_.load(), {}, {}, {}});
  if (parts.empty()) {
    whole->complete(Status());
    return whole;
  }
  struct Left {
    std::atomic<size_t> parts;
    std::mutex mutex;
    std::exception_ptr error;
  };
  auto left = std::make_shared<Left>();
  left->parts = parts.size();
  whole->set_driver([parts] {
    for (const auto& part : parts) part->drive();
  });
  for (const auto& part : parts) {
    part->getFuture()->addCallback([whole, left](c10::ivalue::Future& future) {
      if (future.hasError()) {
        const std::lock_guard lock(left->mutex);
        if (!left->error) left->error = future.exception_ptr();
      }
      if (left->parts.fetch_sub(1) == 1) whole->complete(left->error);
    });
  }
  return whole;
}

}  // namespace hpcore::torch_binding
