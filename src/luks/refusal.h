// SPDX-License-Identifier: Apache-2.0
// Refusal: how a parser of a header says what is wrong with it: an Error with a sentence for the
// user, of the storage it was read from. A value, made for the length of one call; any thread.
#pragma once

#include <string>

#include "base/diagnostics.h"
#include "base/result.h"

namespace ringdisk::luks {

class Refusal {
 public:
  Refusal(Diagnostics& diagnostics, uint32_t node) : diagnostics_(diagnostics), node_(node) {}

  Error operator()(ErrorKind kind, std::string why) const {
    return diagnostics_.explain(Error::of(kind, "open"), node_, std::move(why));
  }
  // The header is damaged or hostile.
  Error corrupt(std::string why) const { return (*this)(ErrorKind::kCorrupt, std::move(why)); }
  Error unsupported(std::string why) const {
    return (*this)(ErrorKind::kUnsupported, std::move(why));
  }
  Error invalid(std::string why) const { return (*this)(ErrorKind::kInvalid, std::move(why)); }
  Error limit(std::string why) const { return (*this)(ErrorKind::kLimit, std::move(why)); }
  // `cause` with a sentence; its kind and errno stay.
  Error because(Error cause, std::string why) const {
    return diagnostics_.explain(cause, node_, std::move(why));
  }

  Diagnostics& diagnostics() const { return diagnostics_; }
  uint32_t node() const { return node_; }

 private:
  Diagnostics& diagnostics_;
  uint32_t node_;
};

}  // namespace ringdisk::luks
