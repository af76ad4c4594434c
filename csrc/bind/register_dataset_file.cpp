// Python's DatasetFile: a mapped .hpd file, what it holds, whether it is sound.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>

#include "bind/dataset_arguments.hpp"
#include "bind/errors.hpp"
#include "bind/register.hpp"
#include "dataset/file.hpp"

namespace py = pybind11;

namespace hpcore::bind {

using dataset::DatasetFile;
using dataset::FieldKind;
using dataset::FieldRecord;
using dataset::Range;

namespace {

const char* kind_name(FieldKind kind) {
  switch (kind) {
    case FieldKind::kTokens:
      return "tokens";
    case FieldKind::kFixed:
      return "fixed";
    case FieldKind::kVarying:
      break;
  }
  return "varying";
}

py::dict describe_field(const FieldRecord& f) {
  py::dict info;
  info["name"] = dataset::field_name(f);
  info["kind"] = kind_name(f.kind);
  info["dtype"] = std::string(dataset::dtype_name(f.dtype));
  info["shape"] =
      py::tuple(py::cast(std::vector<uint64_t>(f.shape.begin(), f.shape.begin() + f.dimensions)));
  info["rows"] = f.rows;
  info["row_bytes"] = f.row_bytes;
  info["data_offset"] = f.data_offset;
  info["data_bytes"] = f.data_bytes;
  info["documents"] = f.documents;
  info["vocabulary"] = f.vocabulary;
  info["separator"] =
      f.separator == 0 ? py::object(py::none()) : py::object(py::int_(f.separator - 1));
  return info;
}

// What `look` finds in the mapping, as a Result, under a guard.
template <typename Look>
auto look_at(const DatasetFile& file, Look look) {
  decltype(look()) found = Status(Code::kInvalid, "");
  check(file.guarded([&] { return (found = look()).status(); }));
  return found.value();
}

py::tuple range_of(const Range& range) { return py::make_tuple(range.begin, range.end); }

}  // namespace

py::dict describe(const dataset::Head& head) {
  const dataset::Superblock& s = head.superblock;
  py::dict info;
  info["uuid"] = py::bytes(reinterpret_cast<const char*>(s.uuid.data()), s.uuid.size());
  info["digest"] = py::bytes(reinterpret_cast<const char*>(s.digest.data()), s.digest.size());
  info["version"] = s.version;
  info["metadata"] = py::bytes(head.metadata);
  info["file_bytes"] = s.file_bytes;
  info["blocks"] = s.blocks;
  info["block_bytes"] = s.block_bytes;
  py::list fields;
  for (const FieldRecord& field : head.fields) fields.append(describe_field(field));
  info["fields"] = fields;
  return info;
}

namespace {

using Class = py::class_<DatasetFile, std::shared_ptr<DatasetFile>>;

void define_look_ups(Class& file) {
  file.def(py::init([](const std::string& path, bool verify) {
             return check(DatasetFile::open(path, verify));
           }),
           py::arg("path"), py::arg("verify") = true)
      .def_property_readonly("path", &DatasetFile::path)
      .def("info", [](const DatasetFile& self) { return describe(self.head()); })
      .def(
          "find_field",
          [](const DatasetFile& self, const std::string& name) {
            return check(self.find_field(name));
          },
          py::arg("name"), "Number of a field. NotFound names those there are.")
      .def(
          "row_range",
          [](const DatasetFile& self, int64_t field, int64_t row) {
            const uint64_t at = field_index(self, field), index = unsigned_of(row, "the row");
            return range_of(look_at(self, [&] { return self.row_range(at, index); }));
          },
          py::arg("field"), py::arg("row"),
          "Bytes (begin, end) of a varying row in its field's data.")
      .def(
          "document",
          [](const DatasetFile& self, int64_t field, int64_t index) {
            const uint64_t at = field_index(self, field), nth = unsigned_of(index, "the document");
            return range_of(look_at(self, [&] { return self.document(at, nth); }));
          },
          py::arg("field"), py::arg("index"), "Tokens (begin, end) of a document.")
      .def(
          "document_of",
          [](const DatasetFile& self, int64_t field, int64_t token) {
            const uint64_t at = field_index(self, field), nth = unsigned_of(token, "the token");
            return look_at(self, [&] { return self.document_of(at, nth); });
          },
          py::arg("field"), py::arg("token"), "The document that holds a token.")
      .def(
          "documents",
          [](const DatasetFile& self, int64_t field) {
            const uint64_t at = field_index(self, field);
            std::vector<uint64_t> copy;
            check(self.guarded([&]() -> Status {
              HPCORE_RETURN_IF_ERROR(self.touch_documents(at));
              const auto documents = self.documents(at);
              copy.assign(documents.begin(), documents.end());
              return {};
            }));
            return copy;
          },
          py::arg("field") = 0, "First token of each document, then the number of tokens.");
}

void define_readings(Class& file) {
  file.def(
          "starts",
          [](const DatasetFile& self, int64_t field, int64_t first, int64_t count) {
            const uint64_t at = field_index(self, field);
            const uint64_t begin = unsigned_of(first, "the first row");
            const uint64_t wanted = unsigned_of(count, "the number of rows");
            const bool tokens = self.field(at).kind == FieldKind::kTokens;
            std::vector<uint64_t> found(wanted + 1);
            check(self.guarded([&]() -> Status {
              for (uint64_t i = 0; i < wanted; ++i) {
                const Result<Range> range =
                    tokens ? self.document(at, begin + i) : self.row_range(at, begin + i);
                HPCORE_RETURN_IF_ERROR(range.status());
                found[i] = range.value().begin;
                found[i + 1] = range.value().end;
              }
              return {};
            }));
            return py::bytes(reinterpret_cast<const char*>(found.data()),
                             found.size() * sizeof(uint64_t));
          },
          py::arg("field"), py::arg("first"), py::arg("count"),
          "uint64 [count + 1]: where documents (tokens) or varying rows (bytes) begin, and the "
          "end.")
      .def(
          "read",
          [](const DatasetFile& self, int64_t field, int64_t first, int64_t bytes) {
            const uint64_t at = field_index(self, field);
            const uint64_t begin = unsigned_of(first, "the first byte");
            const uint64_t wanted = unsigned_of(bytes, "the number of bytes");
            const dataset::FieldView& view = self.field(at);
            if (begin > view.data_bytes || wanted > view.data_bytes - begin) {
              check(Status(Code::kInvalid, "bytes " + std::to_string(begin) + " to " +
                                               std::to_string(begin + wanted) + " of field " +
                                               view.name + ", which has " +
                                               std::to_string(view.data_bytes)));
            }
            std::string copy(wanted, '\0');
            Status status;
            {
              const py::gil_scoped_release release;
              status = self.guarded([&]() -> Status {
                HPCORE_RETURN_IF_ERROR(self.check_size());
                HPCORE_RETURN_IF_ERROR(self.touch(at, begin, wanted));
                std::memcpy(copy.data(), view.data + begin, wanted);
                return {};
              });
            }
            check(status);
            return py::bytes(copy);
          },
          py::arg("field"), py::arg("first"), py::arg("bytes"),
          "A copy of bytes of a field's data.");
}

void define_checks(Class& file) {
  file.def("check_size", [](const DatasetFile& self) { check(self.check_size()); })
      .def_property_readonly(
          "checked_blocks", [](const DatasetFile& self) { return self.checks().checked_blocks(); },
          "Blocks whose checksums were compared, by any process that shares the bits.")
      .def_property_readonly(
          "joined_checks", [](const DatasetFile& self) { return self.checks().joined(); },
          "Another process of this node, that has the file open, began the checking.")
      .def(
          "scrub",
          [](const DatasetFile& self, int64_t most) {
            const uint64_t wanted = unsigned_of(most, "the number of blocks");
            Result<uint64_t> done = Status(Code::kInvalid, "");
            {
              const py::gil_scoped_release release;
              done = self.checks().scrub(wanted);
            }
            return check(done);
          },
          py::arg("most"), "Checks up to `most` blocks that were not; 0: all are.")
      .def("verify_all", [](const DatasetFile& self) {
        Status status;
        {
          const py::gil_scoped_release release;
          status = self.verify_all();
        }
        check(status);
      });
}

}  // namespace

void register_dataset_file(py::module_& module) {
  Class file(module, "DatasetFile", "A mapped .hpd file. Thread-safe.");
  define_look_ups(file);
  define_readings(file);
  define_checks(file);
}

}  // namespace hpcore::bind
