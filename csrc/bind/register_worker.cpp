// Worker: a process's place in the node segment.
#include <pybind11/stl.h>

#include "bind/errors.hpp"
#include "bind/register.hpp"
#include "bind/slots.hpp"
#include "bind/waiting.hpp"
#include "roster/worker.hpp"

namespace py = pybind11;

namespace hpcore::bind {
namespace {

using roster::CommitOutcome;
using roster::NodeSegment;
using roster::Worker;

const char* outcome_name(CommitOutcome outcome) {
  switch (outcome) {
    case CommitOutcome::kCommitted:
      return "committed";
    case CommitOutcome::kDiscarded:
      return "discarded";
    case CommitOutcome::kTimeout:
      break;
  }
  return "timeout";
}

py::object notice_or_none(const std::optional<roster::Notice>& notice) {
  if (!notice) return py::none();
  return py::make_tuple(notice->generation, py::bytes(notice->roster));
}

std::string wait_commit(const Worker& self, uint64_t generation, uint64_t step,
                        const std::vector<int>& slots, double timeout_s, bool here) {
  for (const int slot : slots) require_slot(*self.segment(), slot);
  CommitOutcome outcome = CommitOutcome::kTimeout;
  wait_in_slices(timeout_s, [&](TimePoint until) {
    outcome = self.wait_commit(generation, step, slots, until, here);
    return outcome != CommitOutcome::kTimeout;
  });
  return outcome_name(outcome);
}

void post(Worker& self, uint32_t kind, uint64_t step, uint64_t flags, const std::string& text,
          double timeout_s) {
  Status status;
  wait_in_slices(timeout_s, [&](TimePoint until) {
    status = self.post({kind, step, flags, text}, until);
    return status.ok();
  });
  check(status);
}

py::object wait_roster(const Worker& self, uint64_t after, double timeout_s) {
  std::optional<roster::Notice> notice;
  wait_in_slices(timeout_s, [&](TimePoint until) {
    return (notice = self.wait_roster(after, until)).has_value();
  });
  return notice_or_none(notice);
}

using WorkerClass = py::class_<Worker, std::shared_ptr<Worker>>;

WorkerClass begin_worker(py::module_& module) {
  WorkerClass worker(module, "Worker", "This process's place in the segment. Thread-safe.");
  worker
      .def_static(
          "attach",
          [](std::shared_ptr<NodeSegment> segment, int slot, uint64_t incarnation) {
            return check(Worker::attach(std::move(segment), slot, incarnation));
          },
          py::arg("segment"), py::arg("slot"), py::arg("incarnation"),
          "Takes the slot for this process and starts its sentinel thread: once per process, after "
          "the fork.")
      .def_property_readonly("segment", &Worker::segment)
      .def_property_readonly("slot", &Worker::slot)
      .def_property_readonly("incarnation", &Worker::incarnation)
      .def_property(
          "state", [](const Worker& self) { return self.words().state.load(); },
          [](Worker& self, uint32_t state) {
            self.set_state(static_cast<roster::WorkerState>(state));
          })
      .def_property(
          "flags", [](const Worker& self) { return self.words().flags.load(); }, &Worker::set_flags)
      .def_property(
          "version", [](const Worker& self) { return self.words().version.load(); },
          [](Worker& self, uint64_t version) { self.words().version.store(version); })
      .def("post", &post, py::arg("kind"), py::arg("step"), py::arg("flags"), py::arg("text"),
           py::arg("timeout_s") = 5.0,
           "Leaves mail for the agent (the last 16 KiB of text); waits for the box to be empty.");
  return worker;
}

void add_messages(WorkerClass& worker) {
  worker.def("progress", &Worker::progress, py::arg("step"), py::arg("phase"))
      .def(
          "roster", [](const Worker& self) { return notice_or_none(self.segment()->notice()); },
          "(generation, bytes) of the newest roster, or None.")
      .def(
          "wait_roster", &wait_roster, py::arg("after"), py::arg("timeout_s"),
          "The newest roster once its generation exceeds `after`, or None after timeout_s seconds.")
      .def("revoked", &Worker::revoked, py::arg("generation"))
      .def("ready", &Worker::ready, py::arg("generation"), py::arg("step"),
           "Says that this worker's gradients of `step` are complete. False if the generation is "
           "closed.")
      .def("wait_commit", &wait_commit, py::arg("generation"), py::arg("step"), py::arg("slots"),
           py::arg("timeout_s"), py::arg("here") = false,
           "'committed' when all slots, which are this node's, and all other nodes said ready, "
           "'discarded' when one was closed before, else 'timeout'. `here`: never mind the others.")
      .def(
          "set_rank_blob",
          [](Worker& self, int rank, uint64_t tag, const std::string& blob) {
            check(self.segment()->set_rank_blob(rank, tag, blob));
          },
          py::arg("rank"), py::arg("tag"), py::arg("blob"),
          "Leaves up to 64 KiB for whoever holds the rank next.")
      .def("finish", &Worker::finish, py::arg("code"), "State FINISHED (code 0) or FAILED.")
      .def_property_readonly("native_handle", [](const std::shared_ptr<Worker>& self) {
        return py::capsule(new std::shared_ptr<Worker>(self), "hpcore.Worker",
                           [](PyObject* capsule) {
                             delete static_cast<std::shared_ptr<Worker>*>(
                                 PyCapsule_GetPointer(capsule, "hpcore.Worker"));
                           });
      });
}

}  // namespace

void register_worker(py::module_& module) {
  WorkerClass worker = begin_worker(module);
  add_messages(worker);
}

}  // namespace hpcore::bind
