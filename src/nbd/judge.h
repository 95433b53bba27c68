// SPDX-License-Identifier: Apache-2.0
// Judging: whether a client's request may go to the device, by the protocol's rules ("Request
// types", "Error values") and what the session has agreed on; and the line that tells a person why
// not. Pure. Judging is on the path of every request and costs a few comparisons; the text is made
// for refusals alone.
#pragma once

#include <string>

#include "nbd/wire.h"

namespace ringdisk::nbd {

// The rule that a request breaks.
enum class Rule : uint8_t {
  kNone,
  kKnownCommand,     // the protocol has the command
  kSelectedContext,  // block status is for who has selected a metadata context
  kFlags,            // only flags that mean something for the command
  kNoRange,          // a flush has none
  kWritable,         // the export is
  kLength,           // limits::kNbdRequestBytesMax, for what moves payload
  kInside,           // the range ends where the export does, or before
  kNotEmpty,         // block status of nothing has no answer
};

struct Verdict {
  Rule broken = Rule::kNone;
  WireError error = WireError::kNone;  // what is to be answered

  bool is_right() const { return broken == Rule::kNone; }
};
Verdict judge_request(const RequestHeader& request, const RequestTerms& terms);

// One line, for the log and the message of a structured error: which rule, and the numbers.
//   "write of 513 bytes at 1048064 goes past the end of the export, which has 1048576 bytes"
// `broken` is not kNone.
std::string describe_refusal(Rule broken, const RequestHeader& request, const RequestTerms& terms);

}  // namespace ringdisk::nbd
