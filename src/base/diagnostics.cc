// SPDX-License-Identifier: Apache-2.0
// Turns errors into the one line a person reads. All text of errors is put together here.
#include "base/diagnostics.h"

#include <cstring>

#include "base/check.h"

namespace ringdisk {

// Names come from images and clients: none of them gets to move the cursor or begin a second line.
static std::string without_control_bytes(const std::string& text) {
  std::string shown;
  for (char letter : text) {
    const auto byte = static_cast<unsigned char>(letter);
    if (byte >= 0x20 && byte != 0x7f) {
      shown += letter;
      continue;
    }
    constexpr char kDigits[] = "0123456789abcdef";
    shown += "\\x";
    shown += kDigits[byte >> 4];
    shown += kDigits[byte & 15];
  }
  return shown;
}

uint32_t Diagnostics::add_node(std::string name) {
  std::lock_guard lock(mutex_);
  nodes_.push_back(std::move(name));
  return static_cast<uint32_t>(nodes_.size());
}

std::string Diagnostics::node_name(uint32_t node) const {
  std::lock_guard lock(mutex_);
  if (node == 0) return {};
  CHECK_LE(size_t{node}, nodes_.size());
  return nodes_[node - 1];
}

Error Diagnostics::explain(Error error, std::string text) {
  return explain(error, error.node, std::move(text));
}

Error Diagnostics::explain(Error error, uint32_t node, std::string text) {
  std::lock_guard lock(mutex_);
  notes_.push_back(std::move(text));
  if (notes_.size() > kNotesMax) {
    notes_.pop_front();
    ++notes_dropped_;
  }
  error.node = node;
  error.note = notes_dropped_ + static_cast<uint32_t>(notes_.size());
  return error;
}

std::string Diagnostics::describe(const Error& error) const {
  std::string line = node_name(error.node);
  if (!line.empty()) line += ": ";
  {
    std::lock_guard lock(mutex_);
    if (error.note > notes_dropped_) {
      const std::string& note = notes_[error.note - 1 - notes_dropped_];
      // Who did not know the node has named it in the note.
      return without_control_bytes(note.starts_with(line) ? note : line + note);
    }
  }
  line += error.operation;
  if (error.offset != Error::kNoOffset) line += " at " + std::to_string(error.offset);
  return without_control_bytes(line + ": " + errno_text(error.errno_value));
}

std::string errno_text(int errno_value) {
  char buffer[128];
  return strerror_r(errno_value, buffer, sizeof buffer);
}

}  // namespace ringdisk
