// Purpose: copies results into tensors. A result larger than the cache is written past it: an
// ordinary store first reads the line that it is about to overwrite, a third of the traffic.
// Threads: plain functions. Ownership: none.
#pragma once

#include <cstddef>

namespace hpcore::collective {

// Whether a result of so many bytes in each of `ranks` ranks would push itself out of the cache.
// bench/test_bench_collective.py sets the rule.
bool exceeds_cache(size_t bytes, int ranks);

// memcpy; with `past_cache` by stores that bypass the cache, ordered before what follows.
void copy_out(void* to, const void* from, size_t bytes, bool past_cache);

}  // namespace hpcore::collective
