// SPDX-License-Identifier: Apache-2.0
// What `driver=qcow2,…` says of how an image is to be worked with, and no image records: QEMU's
// words, each of which means what it means there or, where things are done in another way here, is
// checked and let pass.
//
//   l2-cache-size, cache-size            the memory for L2 tables, at most
//   refcount-cache-size, l2-cache-entry-size, cache-clean-interval
//                                        nothing: there is one cache, which divides itself
//   lazy-refcounts                       overrides the image's own feature, as long as it is open
//   overlap-check, overlap-check.*       nothing: all of it is looked at, whatever is said
//   pass-discard-request                 off: what discards free keeps the host's space
//   pass-discard-snapshot, -other        nothing: they are hints
#pragma once

#include <cstdint>

#include "block/options.h"
#include "qcow2/layout/header.h"

namespace ringdisk::qcow2 {

struct RunOptions {
  uint64_t slice_memory_max = 0;
  bool is_lazy = false;          // refcounts
  bool gives_space_back = true;  // of clusters that are freed
};

// Of the words that a driver is to know.
inline constexpr const char* kRunWords[] = {
    "l2-cache-size",         "cache-size",     "refcount-cache-size",  "l2-cache-entry-size",
    "cache-clean-interval",  "lazy-refcounts", "pass-discard-request", "pass-discard-other",
    "pass-discard-snapshot", "overlap-check",  "overlap-check."};

// Takes them; kInvalid for values that mean nothing, and for what the image cannot have.
Result<RunOptions> take_run_options(Options& options, const Header& header,
                                    Diagnostics& diagnostics);

}  // namespace ringdisk::qcow2
