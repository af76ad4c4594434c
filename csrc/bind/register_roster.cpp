#include <pybind11/stl.h>

#include "bind/errors.hpp"
#include "bind/register.hpp"
#include "bind/slots.hpp"
#include "bind/waiting.hpp"
#include "roster/agent_watch.hpp"
#include "store/shared_store.hpp"

namespace py = pybind11;

namespace hpcore::bind {
namespace {

using roster::AgentWatch;
using roster::Event;
using roster::NodeSegment;
using roster::SlotInfo;

const char* event_kind(const Event& event) {
  switch (event.kind) {
    case Event::Kind::kDeath:
      return "death";
    case Event::Kind::kMail:
      return "mail";
    case Event::Kind::kState:
      break;
  }
  return "state";
}

// Text that was cut in the middle of a character stays readable.
py::str as_text(const std::string& bytes) {
  return py::reinterpret_steal<py::str>(
      PyUnicode_DecodeUTF8(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), "replace"));
}

void register_slot_info(py::module_& module) {
  py::class_<SlotInfo>(module, "SlotInfo",
                       "What one slot says at one moment. Ages in seconds; negative: never.")
      .def_readonly("pid", &SlotInfo::pid)
      .def_readonly("incarnation", &SlotInfo::incarnation)
      .def_property_readonly("state",
                             [](const SlotInfo& info) { return static_cast<uint32_t>(info.state); })
      .def_readonly("flags", &SlotInfo::flags)
      .def_readonly("version", &SlotInfo::version)
      .def_readonly("commit_generation", &SlotInfo::commit_generation)
      .def_readonly("commit_steps", &SlotInfo::commit_steps)
      .def_readonly("commit_closed", &SlotInfo::commit_closed)
      .def_readonly("heartbeat_age_s", &SlotInfo::heartbeat_age_s)
      .def_readonly("heartbeats", &SlotInfo::heartbeats)
      .def_readonly("step", &SlotInfo::step)
      .def_readonly("phase", &SlotInfo::phase)
      .def_readonly("progress_age_s", &SlotInfo::progress_age_s);
}

void register_constants(py::module_& module) {
  using roster::WorkerState;
  module.attr("STATE_EMPTY") = static_cast<uint32_t>(WorkerState::kEmpty);
  module.attr("STATE_STARTING") = static_cast<uint32_t>(WorkerState::kStarting);
  module.attr("STATE_ATTACHED") = static_cast<uint32_t>(WorkerState::kAttached);
  module.attr("STATE_WARM") = static_cast<uint32_t>(WorkerState::kWarm);
  module.attr("STATE_TRAINING") = static_cast<uint32_t>(WorkerState::kTraining);
  module.attr("STATE_FINISHED") = static_cast<uint32_t>(WorkerState::kFinished);
  module.attr("STATE_FAILED") = static_cast<uint32_t>(WorkerState::kFailed);
  module.attr("FLAG_RECOVERABLE") = roster::kFlagRecoverable;
  module.attr("VERSION_NONE") = roster::kVersionNone;
  module.attr("VERSION_TORN") = roster::kVersionTorn;
  module.attr("VERSION_APPLYING") = roster::kVersionApplying;
  module.attr("MAX_SLOTS") = roster::kMaxSlots;
}

using SegmentClass = py::class_<NodeSegment, std::shared_ptr<NodeSegment>>;

SegmentClass register_segment(py::module_& module) {
  SegmentClass segment(module, "NodeSegment", "The shared memory of one node. Thread-safe.");
  segment
      .def_static(
          "create",
          [](int slots, size_t staging_bytes, size_t store_bytes) {
            auto segment = check(NodeSegment::create({slots, staging_bytes, store_bytes}));
            const auto area = segment->store_area();
            if (area.size() >= SharedStore::kSmallestBytes) {  // a smaller area: no store
              check(SharedStore::format(area.data(), area.size()));
            }
            return segment;
          },
          py::arg("slots"), py::arg("staging_bytes") = 4 << 20, py::arg("store_bytes") = 64 << 20,
          "Makes a segment (a memfd): the agent's part. slots: 1 to 64. Raises InvalidArgument.")
      .def_static(
          "attach", [](int fd) { return check(NodeSegment::attach(fd)); }, py::arg("fd"),
          "Maps the segment behind an inherited descriptor, which is duplicated.")
      .def_property_readonly("fd", &NodeSegment::fd)
      .def_property_readonly("slots", &NodeSegment::slots)
      .def_property_readonly("store",
                             [](const std::shared_ptr<NodeSegment>& self) {
                               const auto area = self->store_area();
                               return check(SharedStore::attach(area.data(), area.size(), self));
                             })
      .def(
          "close", [](NodeSegment&) {},
          "For symmetry: the memory goes with the last object that uses it.")
      .def(
          "prepare_slot",
          [](NodeSegment& self, int slot, uint64_t incarnation) {
            check(self.prepare_slot(slot, incarnation));
          },
          py::arg("slot"), py::arg("incarnation"),
          "Empties the slot for a new worker: state STARTING.")
      .def(
          "release_slot", [](NodeSegment& self, int slot) { check(self.release_slot(slot)); },
          py::arg("slot"), "Gives the slot's memory back. The worker must be gone.")
      .def(
          "slot_info",
          [](const NodeSegment& self, int slot) {
            require_slot(self, slot);
            return self.slot_info(slot);
          },
          py::arg("slot"));
  return segment;
}

void add_generations(SegmentClass& segment) {
  segment
      .def(
          "set_ranked",
          [](NodeSegment& self, const std::vector<int>& slots) { check(self.set_ranked(slots)); },
          py::arg("slots"), "The slots of the current roster, by rank.")
      .def("ranked", &NodeSegment::ranked, "The slots of the current roster, by rank.")
      .def(
          "open_commit",
          [](NodeSegment& self, const std::vector<int>& slots, uint64_t generation, uint64_t steps,
             bool peers) { check(self.open_commit(slots, generation, steps, peers)); },
          py::arg("slots"), py::arg("generation"), py::arg("steps"), py::arg("peers") = false,
          "Opens this node's members' commit words for a generation with `steps` committed steps. "
          "`peers`: it has members on other nodes.")
      .def("advance_peers", &NodeSegment::advance_peers, py::arg("generation"), py::arg("steps"),
           "All other nodes' members are ready for `steps` steps. False if the generation is over.")
      .def("settle", &NodeSegment::settle, py::arg("generation"), py::arg("steps"),
           "Says how many steps of a closed generation are committed, where other nodes had to be "
           "asked.")
      .def("close_generation", &NodeSegment::close_generation, py::arg("generation"),
           py::call_guard<py::gil_scoped_release>(),
           "Closes the commit words of the ranked slots and revokes the generation. Returns the "
           "words' steps by rank; "
           "the committed steps are their minimum. Idempotent.")
      .def(
          "publish",
          [](NodeSegment& self, uint64_t generation, const std::string& roster) {
            check(self.publish(generation, roster));
          },
          py::arg("generation"), py::arg("roster"),
          "Puts a roster (at most 256 KiB) on the notice board.")
      .def("committed_steps", &NodeSegment::committed_steps, py::arg("generation"),
           "C of a closed generation: the number of steps that are committed when it ended; None "
           "if it is open or unknown. The last 256 are known.")
      .def_property_readonly("board_generation", &NodeSegment::board_generation)
      .def_property_readonly("revoked_generation", &NodeSegment::revoked_generation)
      .def("fire_fault", &NodeSegment::fire_fault, py::arg("index"),
           "True for the first caller in the whole job only. index: 0 to 63.")
      .def(
          "rank_blob",
          [](const NodeSegment& self, int rank) {
            std::vector<std::pair<uint64_t, py::bytes>> blobs;
            for (const auto& blob : self.rank_blob(rank))
              blobs.emplace_back(blob.tag, py::bytes(blob.bytes));
            return blobs;
          },
          py::arg("rank"), "What the rank left: at most two (tag, bytes), newest first.");
}

void register_watch(py::module_& module) {
  py::class_<Event>(module, "Event",
                    "Something a worker did, as the agent saw it at at_ns (CLOCK_MONOTONIC).")
      .def_property_readonly("kind", &event_kind)
      .def_readonly("slot", &Event::slot)
      .def_readonly("incarnation", &Event::incarnation)
      .def_readonly("at_ns", &Event::at_ns)
      .def_property_readonly("state",
                             [](const Event& event) { return static_cast<uint32_t>(event.state); })
      .def_property_readonly("mail_kind", [](const Event& event) { return event.mail.kind; })
      .def_property_readonly("step", [](const Event& event) { return event.mail.step; })
      .def_property_readonly("flags", [](const Event& event) { return event.mail.flags; })
      .def_property_readonly("text", [](const Event& event) { return as_text(event.mail.text); });
  py::class_<AgentWatch, std::shared_ptr<AgentWatch>>(
      module, "AgentWatch", "The agent's eyes: deaths, mail, states. Native threads. Thread-safe.")
      .def(py::init([](std::shared_ptr<NodeSegment> segment) {
             return check(AgentWatch::start(std::move(segment)));
           }),
           py::arg("segment"))
      .def(
          "watch",
          [](AgentWatch& self, int slot, uint64_t incarnation) {
            check(self.watch(slot, incarnation));
          },
          py::arg("slot"), py::arg("incarnation"), py::call_guard<py::gil_scoped_release>())
      .def("unwatch", &AgentWatch::unwatch, py::arg("slot"),
           py::call_guard<py::gil_scoped_release>())
      .def(
          "next_event",
          [](AgentWatch& self, double timeout_s) {
            std::optional<Event> event;
            wait_in_slices(timeout_s, [&](TimePoint until) {
              return (event = self.next_event(until)).has_value();
            });
            return event;
          },
          py::arg("timeout_s"),
          "The next event, or None after timeout_s seconds. Blocks without the GIL.")
      .def("fileno", &AgentWatch::fileno, "An eventfd that is readable while events are queued.")
      .def("close", &AgentWatch::close, py::call_guard<py::gil_scoped_release>());
}

}  // namespace

void register_roster(py::module_& module) {
  register_constants(module);
  register_slot_info(module);
  SegmentClass segment = register_segment(module);
  add_generations(segment);
  register_watch(module);
  register_worker(module);
}

}  // namespace hpcore::bind
