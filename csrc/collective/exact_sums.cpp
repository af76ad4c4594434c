#include "collective/exact_sums.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "collective/exact_number.hpp"

namespace hpcore::collective {
namespace {

// Rests are put together when there are twice as many as the last time: at most seven an element
// stay, since seven float64 without overlap span the range of float32.
constexpr size_t kFewRests = 1 << 16;

Status no_exact_sums(DType dtype) {
  return {Code::kUnsupported, std::string("exact sums of ") + name_of(dtype) +
                                  " are not kept: float32, bfloat16 and float16 only"};
}

}  // namespace

Status ExactSums::in_range(const char* what, size_t at, size_t count) const {
  if (at <= elements_ && count <= elements_ - at) return {};
  return {Code::kInvalid, std::string("exact sums: ") + what + " of " + std::to_string(count) +
                              " elements from " + std::to_string(at) + " on, of " +
                              std::to_string(elements_)};
}

Status ExactSums::fold(size_t at, const void* terms, size_t count, DType dtype, bool first) {
  HPCORE_RETURN_IF_ERROR(in_range("a fold", at, count));
  const ExactLoops loops = find_exact_loops(dtype, instructions_);
  if (loops.fold == nullptr) return no_exact_sums(dtype);
  const auto* from = static_cast<const std::byte*>(terms);
  if (first) {
    loops.begin(sums_ + at, from, count);
    return {};
  }
  double rest[kExactBlock];
  for (size_t done = 0; done < count; done += kExactBlock) {
    const size_t n = std::min(kExactBlock, count - done);
    if (loops.fold(sums_ + at + done, from + done * size_of(dtype), rest, n) != 0) {
      keep_rests(at + done, rest, n);
    }
  }
  if (rests_.size() > std::max(kFewRests, 2 * compacted_)) compact();
  return {};
}

// A sum that is not finite stays so, whatever is added: it needs no rest.
void ExactSums::keep_rests(size_t at, const double* rest, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    if (rest[i] != 0.0 && std::isfinite(rest[i])) rests_.push_back({at + i, rest[i]});
  }
}

Status ExactSums::zero(size_t at, size_t count) {
  HPCORE_RETURN_IF_ERROR(in_range("zeros", at, count));
  std::fill_n(sums_ + at, count, 0.0);
  return {};
}

Status ExactSums::narrow(void* to, size_t at, size_t count, DType dtype) const {
  HPCORE_RETURN_IF_ERROR(in_range("a result", at, count));
  const ExactLoops loops = find_exact_loops(dtype, instructions_);
  if (loops.narrow == nullptr) return no_exact_sums(dtype);
  loops.narrow(to, sums_ + at, count);
  return {};
}

void ExactSums::sort_rests() {
  std::stable_sort(rests_.begin(), rests_.end(),
                   [](const Rest& a, const Rest& b) { return a.element < b.element; });
}

void ExactSums::compact() {
  sort_rests();
  std::vector<Rest> fewer;
  for (size_t i = 0; i < rests_.size();) {
    const uint64_t element = rests_[i].element;
    ExactNumber sum;
    for (; i < rests_.size() && rests_[i].element == element; ++i) sum.add(rests_[i].value);
    for (double part = sum.round(); part != 0.0; part = sum.round()) {
      fewer.push_back({element, part});
      sum.add(-part);
    }
  }
  rests_ = std::move(fewer);
  compacted_ = rests_.size();
}

std::vector<uint64_t> ExactSums::unfit() {
  sort_rests();
  std::vector<uint64_t> found;
  for (const Rest& rest : rests_) {
    if (found.empty() || found.back() != rest.element) found.push_back(rest.element);
  }
  return found;
}

Status ExactSums::put_words(std::span<const uint64_t> elements, int64_t* words) {
  sort_rests();
  auto rest = rests_.begin();
  for (size_t k = 0; k < elements.size(); ++k) {
    HPCORE_RETURN_IF_ERROR(in_range("words", elements[k], 1));
    ExactNumber sum;
    sum.add(sums_[elements[k]]);
    rest = std::lower_bound(rest, rests_.end(), elements[k],
                            [](const Rest& a, uint64_t element) { return a.element < element; });
    for (; rest != rests_.end() && rest->element == elements[k]; ++rest) sum.add(rest->value);
    sum.put_narrow(std::span<int64_t, ExactNumber::kNarrowWords>(
        words + k * ExactNumber::kNarrowWords, ExactNumber::kNarrowWords));
  }
  return {};
}

Status ExactSums::settle(std::span<const uint64_t> elements, const int64_t* words) {
  for (size_t k = 0; k < elements.size(); ++k) {
    HPCORE_RETURN_IF_ERROR(in_range("words", elements[k], 1));
    ExactNumber sum;
    sum.add_narrow(std::span<const int64_t, ExactNumber::kNarrowWords>(
        words + k * ExactNumber::kNarrowWords, ExactNumber::kNarrowWords));
    sums_[elements[k]] = sum.round();
  }
  return {};
}

}  // namespace hpcore::collective
