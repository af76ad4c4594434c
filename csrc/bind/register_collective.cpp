// Python's view of collective/.
#include <pybind11/stl.h>

#include "bind/collective_arguments.hpp"
#include "bind/errors.hpp"
#include "bind/register.hpp"
#include "collective/communicator.hpp"
#include "collective/kernels.hpp"
#include "collective/shared_group.hpp"
#include "collective/world_channel.hpp"

namespace hpcore::bind {
namespace {

namespace py = pybind11;
using collective::Communicator;
using collective::DType;
using collective::Limits;
using collective::Reduction;
using collective::SharedGroup;

void register_reductions(py::class_<Communicator, std::shared_ptr<Communicator>>& type) {
  type.def(
      "all_reduce",
      [](Communicator& self, const Addresses& buffers, const std::string& dtype,
         const std::string& op, double timeout_s, double factor) {
        const auto list = buffers_of(buffers);
        const DType element = dtype_of(dtype);
        const Reduction reduction = reduction_of(op, factor);
        check(blocking(timeout_s, [&](const Limits& limits) {
          return self.all_reduce(list, element, reduction, limits);
        }));
      },
      py::arg("buffers"), py::arg("dtype"), py::arg("op"), py::arg("timeout_s"),
      py::arg("factor") = 1.0,
      "Reduces the buffers, seen as one range, over all ranks in place, in rank order.");
  type.def(
      "reduce",
      [](Communicator& self, const Addresses& buffers, const std::string& dtype,
         const std::string& op, int root, double timeout_s, double factor) {
        const auto list = buffers_of(buffers);
        const DType element = dtype_of(dtype);
        const Reduction reduction = reduction_of(op, factor);
        check(blocking(timeout_s, [&](const Limits& limits) {
          return self.reduce(list, element, reduction, root, limits);
        }));
      },
      py::arg("buffers"), py::arg("dtype"), py::arg("op"), py::arg("root"), py::arg("timeout_s"),
      py::arg("factor") = 1.0, "As all_reduce, but only root's buffers are written.");
}

void register_copies(py::class_<Communicator, std::shared_ptr<Communicator>>& type) {
  type.def(
      "broadcast",
      [](Communicator& self, const Addresses& buffers, int root, double timeout_s) {
        const auto list = buffers_of(buffers);
        check(blocking(timeout_s, [&](const Limits& limits) {
          return self.broadcast(list, DType::kUInt8, root, limits);
        }));
      },
      py::arg("buffers"), py::arg("root"), py::arg("timeout_s"),
      "Copies root's buffers, (address, bytes) each, into everybody's.");
  type.def(
      "barrier",
      [](Communicator& self, double timeout_s) {
        check(blocking(timeout_s, [&](const Limits& limits) { return self.barrier(limits); }));
      },
      py::arg("timeout_s"), "Returns when all ranks have called it.");
  type.def(
      "all_gather_bytes",
      [](Communicator& self, std::string_view data, double timeout_s) {
        std::vector<py::bytes> gathered;
        for (const std::string& part : check(blocking(timeout_s, [&](const Limits& limits) {
               return self.all_gather_bytes(data, limits);
             }))) {
          gathered.emplace_back(part);
        }
        return gathered;
      },
      py::arg("data"), py::arg("timeout_s"), "Each rank's data, of any size, in rank order.");
}

void register_gathers(py::class_<Communicator, std::shared_ptr<Communicator>>& type) {
  type.def(
      "all_gather",
      [](Communicator& self, const Address& input, const Addresses& outputs,
         const std::string& dtype, double timeout_s) {
        const auto list = buffers_of(outputs);
        const DType element = dtype_of(dtype);
        check(blocking(timeout_s, [&](const Limits& limits) {
          return self.all_gather(buffer_of(input), list, element, limits);
        }));
      },
      py::arg("input"), py::arg("outputs"), py::arg("dtype"), py::arg("timeout_s"),
      "outputs[r] receives rank r's input; sizes may differ by rank.");
  type.def(
      "gather",
      [](Communicator& self, const Address& input, const Addresses& outputs,
         const std::string& dtype, int root, double timeout_s) {
        const auto list = buffers_of(outputs);
        const DType element = dtype_of(dtype);
        check(blocking(timeout_s, [&](const Limits& limits) {
          return self.gather(buffer_of(input), list, element, root, limits);
        }));
      },
      py::arg("input"), py::arg("outputs"), py::arg("dtype"), py::arg("root"), py::arg("timeout_s"),
      "As all_gather at root; the other ranks pass no outputs.");
}

void register_scatters(py::class_<Communicator, std::shared_ptr<Communicator>>& type) {
  type.def(
      "scatter",
      [](Communicator& self, const Addresses& inputs, const Address& output,
         const std::string& dtype, int root, double timeout_s) {
        const auto list = buffers_of(inputs);
        const DType element = dtype_of(dtype);
        check(blocking(timeout_s, [&](const Limits& limits) {
          return self.scatter(list, buffer_of(output), element, root, limits);
        }));
      },
      py::arg("inputs"), py::arg("output"), py::arg("dtype"), py::arg("root"), py::arg("timeout_s"),
      "output receives root's inputs[rank]; the others pass no inputs.");
  type.def(
      "reduce_scatter",
      [](Communicator& self, const Addresses& inputs, const Address& output,
         const std::string& dtype, const std::string& op, double timeout_s, double factor) {
        const auto list = buffers_of(inputs);
        const DType element = dtype_of(dtype);
        const Reduction reduction = reduction_of(op, factor);
        check(blocking(timeout_s, [&](const Limits& limits) {
          return self.reduce_scatter(list, buffer_of(output), element, reduction, limits);
        }));
      },
      py::arg("inputs"), py::arg("output"), py::arg("dtype"), py::arg("op"), py::arg("timeout_s"),
      py::arg("factor") = 1.0,
      "output receives all ranks' inputs[rank], reduced; sizes may differ by rank.");
  type.def(
      "all_to_all",
      [](Communicator& self, const Addresses& inputs, const Addresses& outputs,
         const std::string& dtype, double timeout_s) {
        const auto from = buffers_of(inputs);
        const auto to = buffers_of(outputs);
        const DType element = dtype_of(dtype);
        check(blocking(timeout_s, [&](const Limits& limits) {
          return self.all_to_all(from, to, element, limits);
        }));
      },
      py::arg("inputs"), py::arg("outputs"), py::arg("dtype"), py::arg("timeout_s"),
      "Rank s's inputs[r] goes to rank r's outputs[s]; sizes may differ.");
}

void register_communicator(py::module_& module) {
  py::class_<Communicator, std::shared_ptr<Communicator>> type(
      module, "Communicator",
      "Collective operations between the processes of one node, for one generation. One operation "
      "at a time; abort() and close() from any thread.");
  type.def_static(
      "rehearsal",
      [](int world_size) {
        if (world_size < 1) {
          check(Status(Code::kInvalid,
                       "world_size must be at least 1, not " + std::to_string(world_size)));
        }
        return Communicator::rehearsal(world_size);
      },
      py::arg("world_size"),
      "A communicator whose operations complete at once on the caller's own data, as the last of "
      "world_size ranks. Reductions return the data unscaled.");
  type.def_static(
      "world",
      [](const std::shared_ptr<roster::Worker>& worker, uint64_t generation, int rank,
         const std::vector<int>& slots) {
        return check(Communicator::create(
            check(collective::world_channel(worker, generation, rank, slots))));
      },
      py::arg("worker"), py::arg("generation"), py::arg("rank"), py::arg("slots"),
      "All ranks of a generation, in the node segment's memory; slots[r] is rank r's slot. Made at "
      "once, without waiting for the others. One for each generation.");
  type.def_static(
      "over_group",
      [](const std::shared_ptr<SharedGroup>& group, uint64_t generation, int rank) {
        return check(Communicator::create(check(collective::Channel::create(
            check(group->channel_memory()), rank, generation, group->revocation()))));
      },
      py::arg("group"), py::arg("generation"), py::arg("rank"),
      "A communicator over memory of its own, outside of a node segment.");
  type.def_property_readonly("rank", &Communicator::rank);
  type.def_property_readonly("world_size", &Communicator::size);
  type.def_property_readonly("generation", &Communicator::generation);
  type.def_property_readonly("sequence", &Communicator::sequence, "Operations begun so far.");
  type.def("abort", &Communicator::abort,
           "Ends the operation under way in another thread, and all later ones, with Aborted.");
  type.def("close", &Communicator::close, "As abort; a second call does nothing.");
  type.def("__enter__", [](py::object self) { return self; });
  type.def("__exit__", [](Communicator& self, const py::args&) { self.close(); });
  register_reductions(type);
  register_copies(type);
  register_gathers(type);
  register_scatters(type);
}

collective::ReduceKernel kernel_for(DType dtype, collective::ReduceOp op,
                                    const std::string& instructions) {
  if (instructions.empty()) return collective::find_kernel(dtype, op);
  for (const collective::Instructions usable : collective::usable_instructions()) {
    if (instructions == collective::name_of(usable)) {
      return collective::find_kernel(dtype, op, usable);
    }
  }
  throw py::value_error("instructions \"" + instructions +
                        "\": not among this CPU's reduction_instructions()");
}

void register_kernels(py::module_& module) {
  module.def(
      "reduction_instructions",
      [] {
        std::vector<std::string> names;
        for (const collective::Instructions usable : collective::usable_instructions()) {
          names.emplace_back(collective::name_of(usable));
        }
        return names;
      },
      "The instruction sets for which there are reductions that this CPU can run, fastest first.");
  module.def(
      "reduce_in_rank_order",
      [](uintptr_t target, const std::vector<uintptr_t>& sources, size_t elements,
         const std::string& dtype, const std::string& op, double factor,
         const std::string& instructions) {
        const DType element = dtype_of(dtype);
        const Reduction reduction = reduction_of(op, factor);
        const auto kernel = kernel_for(element, reduction.op, instructions);
        if (kernel == nullptr) check(collective::no_such_reduction(element, reduction.op));
        std::vector<const void*> from;
        for (const uintptr_t source : sources) from.push_back(reinterpret_cast<void*>(source));
        kernel(reinterpret_cast<void*>(target), from.data(), static_cast<int>(from.size()),
               elements, {factor, static_cast<int>(from.size())});
      },
      py::arg("target"), py::arg("sources"), py::arg("elements"), py::arg("dtype"), py::arg("op"),
      py::arg("factor") = 1.0, py::arg("instructions") = "",
      "What all_reduce does to the arrays at these addresses, one for each rank: "
      "((x0 op x1) op x2) ... target may be one of the sources. `instructions`: one of "
      "reduction_instructions(), the first of them by default.");
}

void register_group(py::module_& module) {
  py::class_<SharedGroup, std::shared_ptr<SharedGroup>>(
      module, "SharedGroup", "The memory of a communicator of its own: a memfd.")
      .def_static(
          "create",
          [](int members, size_t area_bytes) {
            return check(SharedGroup::create(members, area_bytes));
          },
          py::arg("members"), py::arg("area_bytes") = size_t{4} << 20)
      .def_static(
          "open", [](int fd) { return check(SharedGroup::open(fd)); }, py::arg("fd"))
      .def_property_readonly("fd", &SharedGroup::fd)
      .def_property_readonly("members", &SharedGroup::members)
      .def("revoke", &SharedGroup::revoke, py::arg("generation"),
           "Ends this generation and all before it for all members.");
}

}  // namespace

void register_collective(pybind11::module_& module) {
  register_kernels(module);
  register_group(module);
  register_communicator(module);
}

}  // namespace hpcore::bind
