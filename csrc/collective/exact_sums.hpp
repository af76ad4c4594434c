// Purpose: exact sums of many elements, each of any number of float32, bfloat16 or float16 terms in
// any order: a float64 for each element, and what does not fit there beside it, for the few
// elements whose terms span more than about 29 binary orders of magnitude. After C. Collange, D.
// Defour, S. Graillat, R. Iakymchuk, Numerical reproducibility for the parallel reduction on multi-
// and many-core architectures, 2015: floating-point expansions first, superaccumulators behind.
// Threads: one thread. Ownership: borrows the array of float64, which must outlive it.
// Lifecycle: begin or fold each term; then add `unfit` elements up as words (a reduction of int64)
// and the array by kExactSum, settle the former, narrow. clear() for the next sums.
#pragma once

#include <span>
#include <vector>

#include "base/status.hpp"
#include "collective/exact_kernels.hpp"

namespace hpcore::collective {

class ExactSums {
 public:
  ExactSums(double* sums, size_t elements, Instructions instructions)
      : sums_(sums), elements_(elements), instructions_(instructions) {}

  void clear() { rests_.clear(), compacted_ = 0; }
  // Adds a term to each of `count` elements from `at` on; `first`: their first one, whatever was
  // there before.
  Status fold(size_t at, const void* terms, size_t count, DType dtype, bool first);
  Status zero(size_t at, size_t count);
  // sums -> dtype, rounded to nearest.
  Status narrow(void* to, size_t at, size_t count, DType dtype) const;

  [[nodiscard]] bool all_fit() const { return rests_.empty(); }
  // Elements of which a part is not in the array, in ascending order.
  [[nodiscard]] std::vector<uint64_t> unfit();
  // This process's sums of these elements, ExactNumber::kNarrowWords for each; in ascending order.
  Status put_words(std::span<const uint64_t> elements, int64_t* words);
  // The sums over all processes of these words are the sums of the elements: rounds them into the
  // array.
  Status settle(std::span<const uint64_t> elements, const int64_t* words);

 private:
  struct Rest {
    uint64_t element;
    double value;
  };
  Status in_range(const char* what, size_t at, size_t count) const;
  void keep_rests(size_t at, const double* rest, size_t count);
  void sort_rests();
  void compact();

  double* sums_;
  size_t elements_;
  Instructions instructions_;
  std::vector<Rest> rests_;  // finite; several of one element add up
  size_t compacted_ = 0;     // how many there were after the last compact()
};

}  // namespace hpcore::collective
