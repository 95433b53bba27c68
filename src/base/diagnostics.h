// SPDX-License-Identifier: Apache-2.0
// Diagnostics: the names and sentences that Errors refer to. main() makes one and hands it down;
// any thread may use it (a mutex: only openings and failures come here, never a request that
// succeeds). It keeps a bounded number of notes; the oldest go first, so a hostile client cannot
// fill memory with error texts.
//
//   return diagnostics.explain(Error::of(ErrorKind::kInvalid, "open"),
//                              "backing file 'b.img' has no recorded format; name it with -o
//                              backing_fmt=...");
//   diagnostics.describe(error)  ->  "disk.qcow2: backing file 'b.img' has no recorded format; name
//   it with ..." without a note               ->  "disk.qcow2: read at 65536: Input/output error"
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <vector>

#include "base/error.h"

namespace ringdisk {

class Diagnostics {
 public:
  // A new id for Error::node. `name` is what the user calls the node: its file name as given.
  uint32_t add_node(std::string name);
  std::string node_name(uint32_t node) const;

  // The error with `text` as its note: one sentence without a final full stop, the node's name not
  // repeated in it.
  Error explain(Error error, std::string text);
  Error explain(Error error, uint32_t node, std::string text);

  // One line for people, without "ringdisk: " and without a line feed.
  std::string describe(const Error& error) const;

 private:
  static constexpr size_t kNotesMax = 256;

  mutable std::mutex mutex_;
  std::vector<std::string> nodes_;  // index: node id - 1
  std::deque<std::string> notes_;   // the newest kNotesMax
  uint32_t notes_dropped_ = 0;      // note id - 1 - notes_dropped_ is the index in notes_
};

// `error` as happened at `node`, unless it already names one.
inline Error at_node(Error error, uint32_t node) {
  if (error.node == 0) error.node = node;
  return error;
}

// strerror() as a string, safe on any thread.
std::string errno_text(int errno_value);

}  // namespace ringdisk
