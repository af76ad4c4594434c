// Python names of the dataset room: Permutation, DatasetFile, DatasetWriter.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bind/errors.hpp"
#include "bind/register.hpp"
#include "dataset/file.hpp"
#include "dataset/permutation.hpp"
#include "dataset/writer.hpp"

namespace py = pybind11;

namespace hpcore::bind {
namespace {

using dataset::DatasetFile;
using dataset::DatasetWriter;
using dataset::Permutation;
using dataset::SampleShape;
using dataset::Superblock;

Status position_error(uint64_t first, uint64_t count, uint64_t limit) {
  return {Code::kInvalid, "positions " + std::to_string(first) + " to " +
                              std::to_string(first + count) + " are out of range: there are " +
                              std::to_string(limit)};
}

// Python hands over signed numbers; a negative one gets our error, not a TypeError of the bindings.
uint64_t unsigned_of(int64_t value, const char* what) {
  if (value < 0) {
    check(Status(Code::kInvalid, std::string(what) + " is negative: " + std::to_string(value)));
  }
  return static_cast<uint64_t>(value);
}

void register_permutation(py::module_& module) {
  py::class_<Permutation>(module, "Permutation",
                          "Keyed permutation of range(count): the sample order of one epoch.")
      .def(py::init([](int64_t count, uint64_t seed, uint64_t epoch) {
             return check(
                 Permutation::make(unsigned_of(count, "the number of samples"), seed, epoch));
           }),
           py::arg("count"), py::arg("seed"), py::arg("epoch"))
      .def("__len__", &Permutation::count)
      .def(
          "__call__",
          [](const Permutation& self, int64_t position) {
            const uint64_t at = unsigned_of(position, "the position");
            if (at >= self.count()) check(position_error(at, 1, self.count()));
            return self.at(at);
          },
          py::arg("position"))
      .def(
          "many",
          [](const Permutation& self, int64_t first, int64_t count) {
            const uint64_t begin = unsigned_of(first, "the first position");
            const uint64_t wanted = unsigned_of(count, "the number of positions");
            if (begin > self.count() || wanted > self.count() - begin) {
              check(position_error(begin, wanted, self.count()));
            }
            std::vector<uint64_t> samples(wanted);
            {
              const py::gil_scoped_release release;
              for (uint64_t i = 0; i < wanted; ++i) samples[i] = self.at(begin + i);
            }
            return samples;
          },
          py::arg("first"), py::arg("count"));
}

py::dict describe(const Superblock& s) {
  py::dict info;
  info["uuid"] = py::bytes(reinterpret_cast<const char*>(s.uuid.data()), s.uuid.size());
  info["version"] = s.version;
  info["dtype"] = s.token_bytes == 1 ? "uint8" : s.token_bytes == 2 ? "uint16" : "uint32";
  info["vocabulary"] = s.vocabulary;
  info["separator"] =
      s.separator == 0 ? py::object(py::none()) : py::object(py::int_(s.separator - 1));
  info["tokens"] = s.tokens;
  info["documents"] = s.documents;
  info["data_bytes"] = s.data_bytes;
  info["file_bytes"] = s.file_bytes;
  info["blocks"] = s.blocks;
  info["block_bytes"] = s.block_bytes;
  return info;
}

void gather(const DatasetFile& self, const std::vector<int64_t>& indices, int64_t stride,
            int64_t length, uintptr_t out) {
  std::vector<uint64_t> rows(indices.size());
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = unsigned_of(indices[i], "a sample index");
  const SampleShape shape{unsigned_of(stride, "the stride"), unsigned_of(length, "the length")};
  if (shape.stride == 0 || shape.length == 0) {
    check(Status(Code::kInvalid, "stride and length of a sample must be positive"));
  }
  Status status;
  {
    const py::gil_scoped_release release;
    status = self.gather(rows, shape, reinterpret_cast<int64_t*>(out));
  }
  check(status);
}

void register_file(py::module_& module) {
  using Class = py::class_<DatasetFile, std::shared_ptr<DatasetFile>>;
  Class(module, "DatasetFile", "A mapped .hpd file. Thread-safe.")
      .def(py::init([](const std::string& path, bool verify) {
             return check(DatasetFile::open(path, verify));
           }),
           py::arg("path"), py::arg("verify") = true)
      .def_property_readonly("path", &DatasetFile::path)
      .def("info", [](const DatasetFile& self) { return describe(self.superblock()); })
      .def(
          "samples",
          [](const DatasetFile& self, int64_t stride, int64_t length) {
            if (stride < 1 || length < 1) {
              check(Status(Code::kInvalid, "stride and length of a sample must be positive"));
            }
            return self.samples({static_cast<uint64_t>(stride), static_cast<uint64_t>(length)});
          },
          py::arg("stride"), py::arg("length"))
      .def(
          "gather", &gather, py::arg("indices"), py::arg("stride"), py::arg("length"),
          py::arg("out_address"),
          "Writes int64 [len(indices), length] at out_address; the caller keeps that memory alive.")
      .def(
          "tokens",
          [](const DatasetFile& self, int64_t first, int64_t count, uintptr_t out) {
            const uint64_t begin = unsigned_of(first, "the first token");
            const uint64_t wanted = unsigned_of(count, "the number of tokens");
            Status status;
            {
              const py::gil_scoped_release release;
              status = self.tokens(begin, wanted, reinterpret_cast<int64_t*>(out));
            }
            check(status);
          },
          py::arg("first"), py::arg("count"), py::arg("out_address"))
      .def("documents",
           [](const DatasetFile& self) {
             const auto documents = self.documents();
             return std::vector<uint64_t>(documents.begin(), documents.end());
           })
      .def("verify_all", [](const DatasetFile& self) {
        Status status;
        {
          const py::gil_scoped_release release;
          status = self.verify_all();
        }
        check(status);
      });
}

void register_writer(py::module_& module) {
  py::class_<DatasetWriter>(module, "DatasetWriter", "Writes a .hpd file. One thread.")
      .def(py::init([](const std::string& path, uint32_t token_bytes, uint32_t vocabulary,
                       int64_t separator) {
             auto writer = std::make_unique<DatasetWriter>(
                 path, dataset::WriterOptions{token_bytes, vocabulary, separator});
             check(writer->open());
             return writer;
           }),
           py::arg("path"), py::arg("token_bytes"), py::arg("vocabulary"),
           py::arg("separator") = -1)
      .def(
          "append_bytes",
          [](DatasetWriter& self, const py::bytes& document) {
            const std::string_view data = document;
            Status status;
            {
              const py::gil_scoped_release release;
              status = self.append_bytes(data.data(), data.size());
            }
            check(status);
          },
          py::arg("document"))
      .def("finish", [](DatasetWriter& self) {
        Result<Superblock> result = Status(Code::kInvalid, "");
        {
          const py::gil_scoped_release release;
          result = self.finish();
        }
        return describe(check(std::move(result)));
      });
}

}  // namespace

void register_dataset(py::module_& module) {
  register_permutation(module);
  register_file(module);
  register_writer(module);
}

}  // namespace hpcore::bind
