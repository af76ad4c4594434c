#include "state/receiver.hpp"

#include "state/pull.hpp"

namespace hpcore::state {

StateReceiver::StateReceiver(ReceiverOptions options, std::shared_ptr<Revocation> revocation)
    : options_(std::move(options)), revocation_(std::move(revocation)) {}

Result<PullStats> StateReceiver::pull(TimePoint deadline) {
  progress_bytes_.store(0);
  // Rung by the sources for each digest, by the sentinel upon a revocation.
  Doorbell* doorbell = Exposure(options_.exposure_area).receiver_doorbell();
  revocation_->attach(doorbell);
  Pull pull(options_, *revocation_, deadline, &progress_bytes_);
  Result<PullStats> result = pull.run();
  revocation_->detach(doorbell);
  return result;
}

}  // namespace hpcore::state
